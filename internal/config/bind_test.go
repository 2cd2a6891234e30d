package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBind(t *testing.T) {
	f := parseWell(t, "[bind]\nports = \"40000-40100\"\nadvertise = \"ftp.example.net\"\ntimeout = \"30s\"\nper_client = 2\n")
	want := Bind{Ports: PortRange{40000, 40100}, Advertise: "ftp.example.net", Timeout: Duration(30 * time.Second), PerClient: 2}
	if diff := cmp.Diff(want, f.Bind); diff != "" {
		t.Errorf("[bind] (-want +got):\n%s", diff)
	}
	if err := f.Validate(rowsOfTest); err != nil {
		t.Error(err)
	}
	want = Bind{Timeout: Duration(time.Minute), PerClient: 4}
	if got := parseWell(t, "").Bind; got != want {
		t.Errorf("the default is %+v, want %+v", got, want)
	}
	if restart, relisten := Diff(parseWell(t, ""), f); restart != nil || relisten != nil {
		t.Errorf("restart %q, relisten %q; every key is live", restart, relisten)
	}
}

func TestBindFaults(t *testing.T) {
	tests := []struct{ name, table, want string }{
		{"one port", `ports = "40000"`, ""},
		{"port 0", `ports = "0"`, `f.toml:2: bind.ports: "0": port 0 is not a port that anyone can connect to`},
		{"backwards", `ports = "40100-40000"`, `f.toml:2: bind.ports: "40100-40000" is a range that ends before it begins: write "40000-40100"`},
		{"no port", `ports = "ftp"`, `f.toml:2: bind.ports: "ftp" is not a port: write a number up to 65535, or a range such as "8000-8999"`},
		{"an address", `advertise = "192.0.2.1"`, ""},
		{"IPv6", `advertise = "2001:db8::1"`, ""},
		{"with a port", `advertise = "192.0.2.1:40000"`, `f.toml:2: bind.advertise: "192.0.2.1:40000" is neither a name nor an IP address: write one without a port, such as "ftp.example.net" or "192.0.2.1"`},
		{"no name", `advertise = "a b"`, `f.toml:2: bind.advertise: "a b" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`},
		{"mapped", `advertise = "::ffff:192.0.2.1"`, `f.toml:2: bind.advertise: "::ffff:192.0.2.1" is an IPv4-mapped address: write "192.0.2.1"`},
		{"a zone", `advertise = "fe80::1%eth0"`, `f.toml:2: bind.advertise: "fe80::1%eth0" has a zone, which means nothing elsewhere: write "fe80::1"`},
		{"unspecified", `advertise = "0.0.0.0"`, `f.toml:2: bind.advertise: nobody can connect to that address: write the one by which others reach this machine`},
		{"multicast", `advertise = "224.0.0.1"`, `f.toml:2: bind.advertise: nobody can connect to that address: write the one by which others reach this machine`},
		{"no time", `timeout = "0s"`, `f.toml:2: bind.timeout: this must be longer than 0: without it a client could hold a port for ever`},
		{"none for a client", `per_client = 0`, `f.toml:2: bind.per_client: 0 is not a limit: write a number from 1 to 16777216`},
		{"an unknown key", `port = "40000"`, `f.toml:2: bind.port: unknown key: did you mean "ports"?`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("f.toml", []byte("[bind]\n"+tt.table+"\n"))
			if f == nil {
				t.Fatal(err)
			}
			if got := errorText(Join(err, f.Validate(rowsOfTest))); got != tt.want {
				t.Errorf("%s:\n got %s\nwant %s", tt.table, got, tt.want)
			}
		})
	}
}

func TestBindWarnings(t *testing.T) {
	const ports, rule = "[bind]\nports = \"40000\"\n", "[[rule]]\naction = \"allow\"\n"
	const unserved = `f.toml: rule[0].method (the 1st [[rule]]): BIND is allowed and yet not served: write ports = "40000-40100", or others, into [bind]`
	const unallowed = `f.toml:2: bind.ports: no rule that allows names the method BIND, so nobody may use it: write method = ["CONNECT", "BIND"] into one`
	tests := []struct{ name, file, want string }{
		{"neither", "", ""},
		{"both", ports + rule + `method = ["CONNECT", "bind"]`, ""},
		{"ports and every method", ports + rule + `method = ["*"]`, ""},
		{"every method", rule + `method = ["*"]`, ""},
		{"ports alone", ports, unallowed},
		{"ports and a rule for the rest", ports + rule, unallowed},
		{"ports and a deny", ports + "[[rule]]\naction = \"deny\"\nmethod = [\"BIND\"]\n", unallowed},
		{"a rule alone", rule + `method = ["BIND"]`, unserved},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(parseWell(t, tt.file).Warnings(), "\n"); got != tt.want {
				t.Errorf("Warnings() = %q, want %q", got, tt.want)
			}
		})
	}
}
