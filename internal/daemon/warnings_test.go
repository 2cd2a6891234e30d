package daemon

import (
	"strings"
	"testing"

	"polyport/internal/config"
)

func TestWarningsOfClosedListeners(t *testing.T) {
	const users = "[auth]\nhtpasswd = \"u\"\n"
	tests := []struct {
		name, file string
		why        string // "" is no warning
	}{
		{"the default, on loopback", onLoopback, ""},
		{"the default, on the network", onNetwork, "without rules and without users only this machine may"},
		{"the default, with users", onNetwork + users, ""},
		{"a rule for others", onNetwork + allowAll + "client = [\"192.168.0.0/16\"]\n", ""},
		{"a rule for this machine", onNetwork + allowAll + "client = [\"127.0.0.1\", \"::1\"]\n", "no rule admits them"},
		{"a rule for users, of whom there are none", onNetwork + allowAll + "user = [\"alice\"]\n", "no rule admits them"},
		{"a user is required, and there are none", onNetwork + "require_user = true\n" + allowAll + "client = [\"10.0.0.0/8\"]\n", "no rule admits them"},
		{"... but for this rule", onNetwork + "require_user = true\n" + allowAll + "client = [\"10.0.0.0/8\"]\nanonymous = true\n", ""},
		{"another listener's rule", onNetwork + "[listen.inside]\naddress = [\"127.0.0.1:0\"]\n" + allowAll + "listener = [\"inside\"]\n", "no rule admits them"},
		{"only a deny", onNetwork + "[[rule]]\naction = \"deny\"\n", "no rule admits them"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, a := built(t, tt.file)
			var got []string
			for _, w := range allWarnings(f, a) {
				if strings.Contains(w, "none of them may pass") {
					got = append(got, w)
				}
			}
			if tt.why == "" {
				if len(got) > 0 {
					t.Errorf("warned %q", got)
				}
				return
			}
			if len(got) != 1 {
				t.Fatalf("%d warnings %q, want 1", len(got), got)
			}
			for _, want := range []string{"polyport.toml:1: listen.main: ", tt.why, `client = ["192.168.0.0/16"]`, "--allow-client", "htpasswd"} {
				if !strings.Contains(got[0], want) {
					t.Errorf("the warning %q lacks %q", got[0], want)
				}
			}
		})
	}
}

// --allow-target alone opens targets to this machine, and the port to nobody else.
func TestWarningsOfClosedListenersWithFlags(t *testing.T) {
	f := config.Default()
	if err := f.Override(config.Override{Listen: []string{"0.0.0.0:7659"}, AllowTarget: []string{"10.0.0.0/8"}}); err != nil {
		t.Fatal(err)
	}
	if got := closedToAll(f); len(got) != 1 || !strings.HasPrefix(got[0], "listen.main: ") {
		t.Errorf("warned %q, want one for listen.main", got)
	}
	if err := f.Override(config.Override{AllowClient: []string{"10.0.0.0/8"}}); err != nil {
		t.Fatal(err)
	}
	if got := closedToAll(f); len(got) != 0 {
		t.Errorf("warned %q though --allow-client admits others", got)
	}
}

func TestWarningsHaveTheirPlace(t *testing.T) {
	f, a := built(t, onLoopback+allowAll+"target = [\"10.0.0.0/7\"]\n"+allowAll)
	all := strings.Join(allWarnings(f, a), "\n")
	for _, want := range []string{
		`polyport.toml: rule[0].target[0] (the 1st [[rule]], "all"): 10.0.0.0/7 does not lift the guard`,
		`polyport.toml: rule[1].name (the 2nd [[rule]], "all"): rule[0] is called "all" as well`,
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the warnings lack %q:\n%s", want, all)
		}
	}
}

func TestWarningsOfCollisions(t *testing.T) {
	tests := []struct{ name, row, taken string }{
		{"HTTP's GET", `prefix = ["GET "]`, "http"},
		{"its first letter", `prefix = ["G"]`, "http"},
		{"HTTP's POST", `prefix = ["POST "]`, "http"},
		{"CONNECT", `prefix = ["CONNECT "]`, "connect"},
		{"SOCKS4", `prefix = ["\u0004"]`, "socks4"},
		{"SOCKS5", `prefix = ["\u0005"]`, "socks5"},
		{"SOCKS5 by a regular expression", `regex = "^\\x05[\\x01-\\x05]"`, "socks5"},
		{"TLS", `prefix = ["\u0016\u0003"]`, "tls"},
		{"a request line by a regular expression", `regex = "^[A-Z]+ "`, "http"},
		{"SSH", `prefix = ["SSH-"]`, ""},
		{"another version of SOCKS", `prefix = ["\u0006"]`, ""},
		{"a word like GET", `prefix = ["GETTER"]`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, a := built(t, onLoopback+"[backend.b]\nservers = [\"127.0.0.1:22\"]\n[protocols.raw.mine]\nbackend = \"b\"\n"+tt.row+"\n")
			got := strings.Join(allWarnings(f, a), "\n")
			want := ""
			if tt.taken != "" {
				want = "polyport.toml:5: protocols.raw.mine: it is tried before the row " + tt.taken + " and matches its clients too: they will all go to its backend"
			}
			if got != want {
				t.Errorf("warned %q, want %q", got, want)
			}
		})
	}
}
