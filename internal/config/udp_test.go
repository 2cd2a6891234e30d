package config

import (
	"net"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each row is a file and every fault that Validate must find in it.
func TestValidateUDP(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string
	}{
		{"everything", "[udp]\nadvertise = \"proxy.example.net:7659\"\nports = \"40000-40100\"\nfilter = \"address\"\nidle = \"2m\"\nassociations = 1\nassociations_per_client = 1\ntargets = 1\ndatagrams_per_second = 1\nbytes_per_second = \"10MiB\"\n", nil},
		{"numbers", "[udp]\nassociations = 0\nassociations_per_client = -1\ntargets = 100000000\ndatagrams_per_second = -1\nidle = \"0s\"\n", []string{
			`f.toml:2: udp.associations: 0 is not a limit: write a number from 1 to 16777216`,
			`f.toml:3: udp.associations_per_client: -1 is not a limit: write a number from 1 to 16777216`,
			`f.toml:4: udp.targets: 100000000 is not a limit: write a number from 1 to 16777216`,
			`f.toml:5: udp.datagrams_per_second: -1 is negative: write 0 for no limit`,
			`f.toml:6: udp.idle: this must be longer than 0: RFC 4787 (REQ-5) recommends 5 minutes`,
		}},
		{"filter", "[udp]\nfilter = \"endpoint_independent\"\n", []string{
			`f.toml:2: udp.filter: unknown value "endpoint_independent": did you mean "endpoint-independent"?`,
		}},
		{"the default listener's port", "[udp]\nports = \"7000-8000\"\n", []string{
			`f.toml:2: udp.ports: "7000-8000" and "127.0.0.1:7659" of listen.main.address[0] share port 7659: write a range that holds no port of a listener with UDP`,
		}},
		{"a listener's range", "[listen.a]\naddress = [\"[::]:80\", \"0.0.0.0:100-110\"]\n[udp]\nports = \"105-120\"\n", []string{
			`f.toml:4: udp.ports: "105-120" and "0.0.0.0:100-110" of listen.a.address[1] share port 105-110: write a range that holds no port of a listener with UDP`,
		}},
		{"listeners without UDP", "[listen.a]\nudp = false\n[listen.b]\naddress = [\"127.0.0.1:7660\"]\nprotocols = [\"http\"]\n[udp]\nports = \"7000-8000\"\n", nil},
		{"a listener whose port the system chooses", "[listen.a]\naddress = [\"127.0.0.1:0\"]\n[udp]\nports = \"7000-8000\"\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := parseWell(t, tt.file)
			if diff := cmp.Diff(tt.want, faultTexts(f.Validate(rowsOfTest))); diff != "" {
				t.Errorf("Validate (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseUDPFaults(t *testing.T) {
	_, err := Parse("f.toml", []byte("[listen.a]\nudp = \"yes\"\n[udp]\nports = 0\nbytes_per_second = 1000\nidle = 5\nport = \"1\"\n"))
	want := []string{
		`f.toml:2: listen.a.udp: this must be true or false, and is a string`,
		`f.toml:4: udp.ports: "0": port 0 is not a port that anyone can connect to`,
		`f.toml:5: udp.bytes_per_second: "1000" has no unit: write "1000B" if bytes are meant`,
		`f.toml:6: udp.idle: "5" has no unit: write "5s" if seconds are meant`,
		`f.toml:7: udp.port: unknown key: did you mean "ports"?`,
	}
	if diff := cmp.Diff(want, faultTexts(Join(err))); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
}

// Each row is a value of advertise, what it names, or what is said of it.
func TestAdvertise(t *testing.T) {
	tests := []struct {
		in, host string
		port     uint16
		fault    string
	}{
		{"proxy.example.net", "proxy.example.net", 0, ""},
		{"proxy.example.net:7659", "proxy.example.net", 7659, ""},
		{"192.0.2.1", "192.0.2.1", 0, ""},
		{"192.0.2.1:1", "192.0.2.1", 1, ""},
		{"2001:db8::1", "2001:db8::1", 0, ""},
		{"2001:db8::7659", "2001:db8::7659", 0, ""},
		{"[2001:db8::1]", "2001:db8::1", 0, ""},
		{"[2001:db8::1]:65535", "2001:db8::1", 65535, ""},
		{"proxy.example.net:0", "", 0, `"proxy.example.net:0" does not end in a port from 1 to 65535`},
		{"proxy.example.net:", "", 0, `"proxy.example.net:" does not end in a port from 1 to 65535`},
		{"proxy.example.net:65536", "", 0, `"proxy.example.net:65536" does not end in a port from 1 to 65535`},
		{":7659", "", 0, `there is no host before the port`},
		{"2001:db8::1:77659", "", 0, `"2001:db8::1:77659" does not end in a port from 1 to 65535`},
		{"2001:db8::g:1", "", 0, `"2001:db8::g" is not a host: an IPv6 address stands in brackets, as in "[2001:db8::1]:22"`},
		{"[2001:db8::1", "", 0, `"[2001:db8:" is not an IPv6 address in brackets`},
		{"[192.0.2.1]:1", "", 0, `"[192.0.2.1]" is not an IPv6 address in brackets`},
		{"<b>", "", 0, `"<b>" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`},
		{"0.0.0.0", "", 0, `"0.0.0.0" is no address that a client could send to: write the one under which clients reach the gateway`},
		{"[::]:7659", "", 0, `"::" is no address that a client could send to: write the one under which clients reach the gateway`},
		{"224.0.0.1", "", 0, `"224.0.0.1" is a multicast address: write the one under which clients reach the gateway`},
		{"::ffff:192.0.2.1", "", 0, `"::ffff:192.0.2.1" is an IPv4-mapped address: write "192.0.2.1"`},
		{"fe80::1%eth0", "", 0, `"fe80::1%eth0" has a zone, which means nothing on another machine: write "fe80::1"`},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			f := Default()
			f.UDP.Advertise = tt.in
			if host, port := f.Advertise("main"); host != tt.host || port != tt.port {
				t.Errorf("Advertise = %q, %d; want %q, %d", host, port, tt.host, tt.port)
			}
			want := []string(nil)
			if tt.fault != "" {
				want = []string{"udp.advertise: " + tt.fault}
			}
			if diff := cmp.Diff(want, faultTexts(f.Validate(rowsOfTest))); diff != "" {
				t.Errorf("Validate (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAdvertiseFallsBack(t *testing.T) {
	f := parseWell(t, "[listen.a]\npublic_address = \"[2001:db8::1]:443\"\n[listen.b]\naddress = [\"127.0.0.1:1\"]\n")
	if host, port := f.Advertise("a"); host != "2001:db8::1" || port != 443 {
		t.Errorf("Advertise(a) = %q, %d; want its public_address", host, port)
	}
	if host, port := f.Advertise("b"); host != "" || port != 0 {
		t.Errorf("Advertise(b) = %q, %d; want nothing", host, port)
	}
}

func TestServesUDP(t *testing.T) {
	tests := []struct {
		name, table string
		want        bool
	}{
		{"the default", "", true},
		{"off", "udp = false\n", false},
		{"without SOCKS5", "protocols = [\"http\", \"socks4\"]\n", false},
		{"SOCKS5 alone", "protocols = [\"socks5\"]\n", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := parseWell(t, "[listen.a]\n"+tt.table).ServesUDP("a"); got != tt.want {
				t.Errorf("ServesUDP = %v, want %v", got, tt.want)
			}
		})
	}
	if Default().ServesUDP("nobody") {
		t.Error("a listener that is not there serves UDP")
	}
}

func TestDiffUDP(t *testing.T) {
	const before = "[listen.main]\n"
	restart, relisten := Diff(parseWell(t, before), parseWell(t, "[listen.main]\nudp = true\n[udp]\nadvertise = \"a\"\nports = \"1\"\nfilter = \"address\"\nidle = \"1m\"\nassociations = 1\nassociations_per_client = 1\ntargets = 1\ndatagrams_per_second = 1\nbytes_per_second = \"1B\"\n"))
	if restart != nil || relisten != nil {
		t.Errorf("Diff of what is live = %q, %q", restart, relisten)
	}
	restart, relisten = Diff(parseWell(t, before), parseWell(t, "[listen.main]\nudp = false\n"))
	if diff := cmp.Diff([]string{"listen.main.udp"}, relisten); diff != "" || restart != nil {
		t.Errorf("restart %q, relisten (-want +got):\n%s", restart, diff)
	}
}

// The property: what is read prints back into what is read the same way.
func FuzzAdvertise(f *testing.F) {
	for _, seed := range []string{"a", "a:1", "192.0.2.1", "[::1]:1", "::1", "[::1]", ":", "[]", "[]:1", "a:", "::1:70000", "a.:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, port, err := parseAdvertised(s)
		if err != nil {
			return
		}
		if host == "" {
			t.Fatalf("parseAdvertised(%q) gives no host", s)
		}
		again := host
		if port != 0 {
			again = net.JoinHostPort(host, strconv.Itoa(int(port)))
		}
		if h, p, err := parseAdvertised(again); h != host || p != port || err != nil {
			t.Errorf("parseAdvertised(%q) = %q, %d; as %q it is %q, %d, %v", s, host, port, again, h, p, err)
		}
	})
}
