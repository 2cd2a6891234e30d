package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"polyport/internal/config"
	"polyport/mux"
)

// parse reads a configuration without faults of syntax.
func parse(t *testing.T, text string) *config.File {
	t.Helper()
	f, err := config.Parse("polyport.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// built is parse and assemble.
func built(t *testing.T, text string) (*config.File, *assembly) {
	t.Helper()
	f := parse(t, text)
	a, err := assemble(f, lent{})
	if err != nil {
		t.Fatal(err)
	}
	return f, a
}

// write writes a file and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	onLoopback = "[listen.main]\naddress = [\"127.0.0.1:0\"]\n"
	onNetwork  = "[listen.main]\naddress = [\"0.0.0.0:0\"]\n"
	allowAll   = "[[rule]]\nname = \"all\"\naction = \"allow\"\n"
)

func TestOpenProxyIsRefused(t *testing.T) {
	tests := []struct {
		name, file string
		open       bool
	}{
		{"the default policy", onNetwork, false},
		{"a rule for all, on loopback", onLoopback + allowAll, false},
		{"a rule for all", onNetwork + allowAll, true},
		{"a rule for all, IPv6", "[listen.main]\naddress = [\"[::]:0\"]\n" + allowAll, true},
		{"one of two addresses", "[listen.main]\naddress = [\"127.0.0.1:0\", \"0.0.0.0:0\"]\n" + allowAll, true},
		{"a rule for all, written as a prefix", onNetwork + allowAll + "client = [\"0.0.0.0/0\"]\n", true},
		{"in two halves", onNetwork + allowAll + "client = [\"0.0.0.0/1\", \"128.0.0.0/1\"]\n", true},
		{"half of it", onNetwork + allowAll + "client = [\"0.0.0.0/1\"]\n", false},
		{"a network", onNetwork + allowAll + "client = [\"192.168.0.0/16\"]\n", false},
		{"behind a deny for all", onNetwork + "[[rule]]\naction = \"deny\"\n" + allowAll, false},
		{"for users", onNetwork + "[auth]\nhtpasswd = \"u\"\n" + allowAll, false},
		{"for users and others", onNetwork + "[auth]\nhtpasswd = \"u\"\n" + allowAll + "anonymous = true\n", true},
		{"users who need not be", onNetwork + "require_user = false\n[auth]\nhtpasswd = \"u\"\n" + allowAll, true},
		{"another listener is meant", onNetwork + "[listen.inside]\naddress = [\"127.0.0.1:0\"]\n" + allowAll + "listener = [\"inside\"]\n", false},
		{"some targets only", onNetwork + allowAll + "target = [\"example.com\"]\n", true},
		{"a backend only", onNetwork + "[backend.web]\nservers = [\"10.0.0.1:80\"]\n" + allowAll + "backend = [\"web\"]\n", false},
		{"a backend, and everything", onNetwork + "[backend.web]\nservers = [\"10.0.0.1:80\"]\n[[rule]]\nname = \"site\"\naction = \"allow\"\nbackend = [\"web\"]\n" + allowAll, true},
		{"meant", "allow_open_proxy = true\n" + onNetwork + allowAll, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := assemble(parse(t, tt.file), lent{})
			if got := errors.Is(err, errOpenProxy); got != tt.open {
				t.Fatalf("assemble: %v; want an open proxy: %v", err, tt.open)
			}
			if !tt.open {
				if err != nil {
					t.Errorf("assemble: %v", err)
				}
				return
			}
			for _, want := range []string{"polyport.toml:", "listen.main: ", `rule "all"`, `client = ["192.168.0.0/16"]`, "htpasswd", "allow_open_proxy = true"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestAssembleFindsEveryFault(t *testing.T) {
	f := parse(t, `
[listen.main]
address   = ["0.0.0.0:0"]
protocols = ["http", "sock5"]
[sniff]
silent_to = "ssh"
[timeouts]
connect = "0s"
[[rule]]
name   = "open"
action = "allow"
target = ["a b"]
[backend.git]
servers = ["git.example.com"]
[protocols.tls]
dial_snl = true
[protocols.tls.route.git]
sni     = ["git.example.com"]
backend = "gitt"
`)
	_, err := assemble(f, lent{})
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, want := range []string{
		"listen.main.protocols[1]", "socks5",
		"sniff.silent_to",
		"timeouts.connect",
		"rule[0].target",
		"backend.git.servers",
		"protocols.tls.dial_snl", "dial_sni",
		"protocols.tls.route.git.backend",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

// TestAssembleTellsOfACircleOnce has upstreams lie behind each other: one fault, which says where.
func TestAssembleTellsOfACircleOnce(t *testing.T) {
	f := parse(t, onLoopback+"[upstream.a]\nservers = [\"http://192.0.2.1\"]\nvia = \"b\"\n[upstream.b]\nservers = [\"http://192.0.2.2\"]\nvia = \"a\"\n")
	_, err := assemble(f, lent{})
	if err == nil || strings.Count(err.Error(), "circle") != 1 || !strings.Contains(err.Error(), "polyport.toml:5: upstream.a.via: a -> b -> a") {
		t.Errorf("the faults are %v, want one, of upstream.a.via", err)
	}
}

func TestTableOfAListener(t *testing.T) {
	_, a := built(t, `
[listen.all]
address = ["127.0.0.1:0"]
[listen.web]
address   = ["127.0.0.2:0"]
protocols = ["http", "ssh"]
[backend.ssh]
servers = ["127.0.0.1:22"]
[protocols.raw.ssh]
prefix  = ["SSH-"]
backend = "ssh"
`)
	rows := func(listener string) string {
		var names []string
		for _, r := range a.table[listener] {
			names = append(names, r.Name)
		}
		return strings.Join(names, " ")
	}
	if got, want := rows("web"), "ssh http reject"; got != want {
		t.Errorf("the listener web serves %q, want %q", got, want)
	}
	all := rows("all")
	if !strings.HasPrefix(all, "ssh ") || !strings.HasSuffix(all, " "+mux.RowReject) {
		t.Errorf("the listener all serves %q, want the raw row first and reject last", all)
	}
	for _, row := range []string{"http", "connect", "socks4", "socks5", "tls"} {
		if !slices.Contains(strings.Fields(all), row) {
			t.Errorf("the listener all serves %q, which lacks %s", all, row)
		}
	}
	if a.listeners["all"].Rows != nil || !a.listeners["web"].Rows["ssh"] || a.listeners["web"].Rows["connect"] {
		t.Errorf("sessions are told that web serves %v, and all %v", a.listeners["web"].Rows, a.listeners["all"].Rows)
	}
}

// The rules that flags make stand in front of the default policy, or they would decide nothing.
func TestFlagsStandInFrontOfTheDefaultPolicy(t *testing.T) {
	f := config.Default()
	if err := f.Override(config.Override{AllowClient: []string{"10.0.0.0/8"}}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range policyOptions(f).Rules {
		names = append(names, r.Name)
	}
	if names[0] != "--allow-client" || len(names) < 2 {
		t.Errorf("the rules are %q", names)
	}
	f, _ = built(t, onLoopback+allowAll)
	if n := len(policyOptions(f).Rules); n != 1 {
		t.Errorf("a file with one rule makes a policy of %d", n)
	}
}
