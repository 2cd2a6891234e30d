package config

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOverrideTheDefault(t *testing.T) {
	f := Default()
	err := f.Override(Override{
		Listen:      []string{"0.0.0.0:8080", "[::]:8080"},
		Htpasswd:    "users",
		AllowClient: []string{"10.0.0.0/8", "192.0.2.1"},
		AllowTarget: []string{"*.example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Validate(rowsOfTest); err != nil {
		t.Error(err)
	}
	if got := join(f.Listen["main"].Sockets()); got != "0.0.0.0:8080 [::]:8080" {
		t.Errorf("listens on %s", got)
	}
	if f.Auth.Htpasswd != "users" || !f.RequireUser("main") || f.HelpPage("main") || !f.DefaultRules {
		t.Errorf("htpasswd %q, require user %v, help page %v, default rules %v", f.Auth.Htpasswd, f.RequireUser("main"), f.HelpPage("main"), f.DefaultRules)
	}
	r := f.Rule[0]
	if r.Name != "--allow-client" || r.Action != ActionAllow || join(r.Client) != "10.0.0.0/8 192.0.2.1" || r.Target[0] != "*.example.com" || join(r.Port) != "1-24 26-65535" || r.Anonymous {
		t.Errorf("the rule is %+v", r)
	}
}

// Without --allow-client the targets are for whom the default policy admits, not for everybody.
func TestOverrideTargetAlone(t *testing.T) {
	f := Default()
	if err := f.Override(Override{Listen: []string{"0.0.0.0:1"}, AllowTarget: []string{"10.1.0.0/16"}}); err != nil {
		t.Fatal(err)
	}
	if len(f.Rule) != 1 || join(f.Rule[0].Client) != "127.0.0.0/8 ::1" || len(f.Warnings()) != 0 {
		t.Errorf("without users the rules are %+v, with the warnings %q; want one for this machine, and none", f.Rule, f.Warnings())
	}
	f = Default()
	if err := f.Override(Override{Htpasswd: "u", AllowTarget: []string{"10.1.0.0/16"}}); err != nil {
		t.Fatal(err)
	}
	if err := f.Validate(nil); err != nil {
		t.Error(err)
	}
	want := []Rule{
		{Name: "--allow-target (this machine)", Action: ActionAllow, Client: thisMachine(), Target: []string{"10.1.0.0/16"}, Port: notSMTP()},
		{Name: "--allow-target (users)", Action: ActionAllow, User: []string{"*"}, Target: []string{"10.1.0.0/16"}, Port: notSMTP()},
	}
	if diff := cmp.Diff(want, f.Rule, compareFiles); diff != "" {
		t.Errorf("the rules (-want +got):\n%s", diff)
	}
}

// What other packages say of a rule that a flag has made is the flag's fault.
func TestOverrideFaultsOfOthers(t *testing.T) {
	f := parseWell(t, "[sniff]\n")
	if err := f.Override(Override{AllowTarget: []string{"a b"}}); err != nil {
		t.Fatal(err)
	}
	got := faultTexts(f.At("", errors.New(`rule[3].target: "a b" is no name`)))
	if want := []string{`--allow-target: "a b" is no name`}; !cmp.Equal(got, want) {
		t.Errorf("At = %q; want %q", got, want)
	}
}

func TestOverrideFaults(t *testing.T) {
	tests := []struct {
		name, file string
		o          Override
		want       []string
	}{
		{"nothing changes nothing", "", Override{}, nil},
		{"every flag at once", "", Override{
			Listen: []string{":80", "127.0.0.1:1"}, AllowClient: []string{"10.0.0.1/8"}, AllowTarget: []string{"http://x/"},
		}, []string{
			`--listen[0]: ":80" names no address: write "0.0.0.0:80", and "[::]:80" for IPv6`,
			`--allow-target[0]: "http://x/" is a URL: a rule names hosts, as in "*.example.com", and ports by its key "port"`,
			`--allow-client[0]: "10.0.0.1/8" has host bits set: write "10.0.0.0/8" for the network, or "10.0.0.1" for the one address`,
		}},
		{"several listeners", "[listen.a]\n[listen.b]\n", Override{Listen: []string{"127.0.0.1:1"}}, []string{
			`--listen: the file has 2 listeners, and the flag cannot tell which is meant: change their addresses in the file`,
		}},
		{"a file with rules", "[[rule]]\naction = \"deny\"\n", Override{AllowTarget: []string{"*"}}, []string{
			`--allow-target: the file has rules, and where this one should stand among them the flag cannot say: write it as a [[rule]]`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, faultTexts(parseWell(t, tt.file).Override(tt.o))); diff != "" {
				t.Errorf("Override (-want +got):\n%s", diff)
			}
		})
	}
}
