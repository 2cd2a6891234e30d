package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// text is a value that reads and prints itself.
type text interface {
	encoding.TextUnmarshaler
	fmt.Stringer
}

// Each row is what stands in the file, and how it prints or what is said of it.
func TestValues(t *testing.T) {
	tests := []struct {
		into text
		in   string
		want string // with "!" in front: a part of the error
	}{
		{new(Duration), "5s", "5s"},
		{new(Duration), "1h30m", "1h30m0s"},
		{new(Duration), "0s", "0s"},
		{new(Duration), "5", `!"5" has no unit: write "5s" if seconds are meant`},
		{new(Duration), "1.5", `!has no unit`},
		{new(Duration), "0", `!has no unit`},
		{new(Duration), "-5s", `!"-5s" is negative`},
		{new(Duration), "5 s", `!"5 s" is not a duration`},
		{new(Duration), "1d", `!is not a duration: write a number and a unit (ms, s, m, h)`},
		{new(Duration), "", `!"" is not a duration`},
		{new(Duration), strings.Repeat("9", 200) + "h", `!999"... is not a duration`},
		{new(Duration), "\x1b[2J", `!"\x1b[2J" is not a duration`},

		{new(Size), "64KiB", "64KiB"},
		{new(Size), "64 KiB", "64KiB"},
		{new(Size), "1024B", "1KiB"},
		{new(Size), "1MB", "1000000B"},
		{new(Size), "3GiB", "3GiB"},
		{new(Size), "0B", "0B"},
		{new(Size), "64", `!"64" has no unit: write "64B" if bytes are meant`},
		{new(Size), "1.5MiB", `!is not a size`},
		{new(Size), "-1B", `!is not a size`},
		{new(Size), "64Kib", `!is not a size`},
		{new(Size), "9223372036854775807B", "9223372036854775807B"},
		{new(Size), "9223372036854775808B", `!too large`},
		{new(Size), "8388608TiB", `!too large`},
		{new(Size), "KiB", `!is not a size`},

		{new(Prefix), "10.0.0.0/8", "10.0.0.0/8"},
		{new(Prefix), "192.0.2.1", "192.0.2.1"},
		{new(Prefix), "2001:db8::/32", "2001:db8::/32"},
		{new(Prefix), "0.0.0.0/0", "0.0.0.0/0"},
		{new(Prefix), "::1", "::1"},
		{new(Prefix), "10.1.2.3/8", `!"10.1.2.3/8" has host bits set: write "10.0.0.0/8" for the network, or "10.1.2.3" for the one address`},
		{new(Prefix), "2001:db8::1/32", `!write "2001:db8::/32" for the network`},
		{new(Prefix), "::ffff:10.0.0.0/104", `!write "10.0.0.0/8"`},
		{new(Prefix), "::ffff:10.0.0.1", `!write "10.0.0.1"`},
		{new(Prefix), "fe80::1%eth0", `!has a zone`},
		{new(Prefix), "::ffff:0:0/40", `!write an IPv4 prefix`},
		{new(Prefix), "10.0.0.0/33", `!is not a prefix`},
		{new(Prefix), "010.0.0.0/8", `!is not a prefix`},
		{new(Prefix), "10.0.0", `!is not an IP address`},
		{new(Prefix), "example.com", `!is not an IP address`},
		{new(Prefix), "", `!is not an IP address`},

		{new(PortRange), "80", "80"},
		{new(PortRange), "8000-8999", "8000-8999"},
		{new(PortRange), "80-80", "80"},
		{new(PortRange), "0", `!port 0`},
		{new(PortRange), "0-80", `!port 0`},
		{new(PortRange), "65536", `!is not a port`},
		{new(PortRange), "80-", `!is not a range of ports`},
		{new(PortRange), "-80", `!is not a port`},
		{new(PortRange), "90-80", `!write "80-90"`},
		{new(PortRange), "+80", `!is not a port`},
		{new(PortRange), "http", `!is not a port`},
		{new(PortRange), " 80", `!is not a port`},

		{new(AddrRange), "127.0.0.1:7659", "127.0.0.1:7659"},
		{new(AddrRange), "[::]:7659", "[::]:7659"},
		{new(AddrRange), "0.0.0.0:7000-7010", "0.0.0.0:7000-7010"},
		{new(AddrRange), "[fe80::1%eth0]:7659", "[fe80::1%eth0]:7659"},
		{new(AddrRange), "127.0.0.1:0", "127.0.0.1:0"},
		{new(AddrRange), ":7659", `!write "0.0.0.0:7659", and "[::]:7659" for IPv6`},
		{new(AddrRange), "*:7659", `!write "0.0.0.0:7659"`},
		{new(AddrRange), "localhost:7659", `!write "127.0.0.1:7659"`},
		{new(AddrRange), "::1:7659", `!only an IPv6 address stands in brackets, and always does`},
		{new(AddrRange), "[127.0.0.1]:7659", `!only an IPv6 address stands in brackets`},
		{new(AddrRange), "[::1:7659", `!opening bracket and no closing one`},
		{new(AddrRange), "[::ffff:127.0.0.1]:7659", `!write "127.0.0.1"`},
		{new(AddrRange), "127.0.0.1", `!is not an address and a port`},
		{new(AddrRange), "127.0.0.1:", `!is not a port`},
		{new(AddrRange), "127.0.0.1:0-5", `!cannot begin a range`},
		{new(AddrRange), "proxy.example.net:7659", `!is not an IP address`},

		{new(DNSServer), "udp://192.0.2.53:53", "udp://192.0.2.53:53"},
		{new(DNSServer), "udp://192.0.2.53", "udp://192.0.2.53:53"},
		{new(DNSServer), "tcp://[2001:db8::53]:5353", "tcp://[2001:db8::53]:5353"},
		{new(DNSServer), "tcp://[2001:db8::53]", "tcp://[2001:db8::53]:53"},
		{new(DNSServer), "tcp://2001:db8::53", "tcp://[2001:db8::53]:53"},
		{new(DNSServer), "udp://2001:db8::53", "udp://[2001:db8::53]:53"},
		{new(DNSServer), "udp://[::ffff:192.0.2.53]:5", "udp://192.0.2.53:5"},
		{new(DNSServer), "tls://192.0.2.53", "tls://192.0.2.53:853"},
		{new(DNSServer), "tls://DNS.example.", "tls://dns.example:853"},
		{new(DNSServer), "tls://dns.example:8853", "tls://dns.example:8853"},
		{new(DNSServer), "https://dns.example", "https://dns.example:443/dns-query"},
		{new(DNSServer), "https://dns.example/", "https://dns.example:443/dns-query"},
		{new(DNSServer), "https://[2001:db8::53]:8443/q", "https://[2001:db8::53]:8443/q"},
		{new(DNSServer), "udp://dns.example", "udp://dns.example:53"},
		{new(DNSServer), "192.0.2.53", `!has no scheme: write one such as "udp://192.0.2.53:53"`},
		{new(DNSServer), "quic://192.0.2.53", `!quic is not supported by this version: write tls:// or https://`},
		{new(DNSServer), "upd://192.0.2.53", `!unknown scheme "upd": did you mean "udp"?`},
		{new(DNSServer), "gopher://192.0.2.53", `!unknown scheme "gopher": write one of "udp", "tcp", "tls", "https"`},
		{new(DNSServer), "system", `!leave it out`},
		{new(DNSServer), "udp://", `!there is no host before the port`},
		{new(DNSServer), "udp://a b", `!is not a host name`},
		{new(DNSServer), "udp://192.0.2.53:0", `!not a port from 1 to 65535`},
		{new(DNSServer), "udp://192.0.2.53:dns", `!not a port from 1 to 65535`},
		{new(DNSServer), "udp://2001:db8::g", `!not a port from 1 to 65535`},
		{new(DNSServer), "udp://[192.0.2.53]", `!a name server is an IP address or a name`},
		{new(DNSServer), "udp://[192.0.2.53", `!a name server is an IP address or a name`},
		{new(DNSServer), "udp://[2001:db8::53", `!a name server is an IP address or a name`},
		{new(DNSServer), "tls://dns.example/dns-query", `!only https:// has a path: leave "/dns-query" out`},
		{new(DNSServer), "https://dns.example/dns-query{?dns}", `!is not a path: write one such as "/dns-query", without a query`},
		{new(DNSServer), "https://dns.example?x", `!is not a path`},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%T %q", tt.into, tt.in), func(t *testing.T) {
			err := tt.into.UnmarshalText([]byte(tt.in))
			part, wantErr := strings.CutPrefix(tt.want, "!")
			switch {
			case wantErr && (err == nil || !strings.Contains(err.Error(), part)):
				t.Errorf("UnmarshalText(%q) = %v; want an error with %q", tt.in, err, part)
			case !wantErr && (err != nil || tt.into.String() != tt.want):
				t.Errorf("UnmarshalText(%q) = %s, %v; want %s", tt.in, tt.into, err, tt.want)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("the error holds control bytes: %q", err)
			}
		})
	}
}

func TestDurationAndSizeMarshalAsTheyAreRead(t *testing.T) {
	in := struct {
		D Duration
		S Size
	}{seconds(90), 1 << 20}
	b, err := json.Marshal(in)
	if want := `{"D":"1m30s","S":"1MiB"}`; err != nil || string(b) != want {
		t.Errorf("Marshal = %s, %v; want %s", b, err, want)
	}
}

// Whatever prints a Secret, however deep it stands, prints nothing of it.
func TestSecretIsNeverPrinted(t *testing.T) {
	const hidden = "hunter2"
	var s Secret
	if err := s.UnmarshalText([]byte(hidden)); err != nil {
		t.Fatal(err)
	}
	deep := struct {
		S Secret
		P *Secret
		L []Secret
	}{s, &s, []Secret{s}}
	var outputs []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c"} {
		outputs = append(outputs, fmt.Sprintf(verb, s), fmt.Sprintf(verb, &s), fmt.Sprintf(verb, deep))
	}
	asJSON, err := json.Marshal(deep)
	if err != nil {
		t.Fatal(err)
	}
	asTOML, err := toml.Marshal(deep)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "p", &s, "deep", deep)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "deep", deep)
	outputs = append(outputs, string(asJSON), string(asTOML), log.String(), s.String(), s.GoString())
	for _, out := range outputs {
		hex := fmt.Sprintf("%x", hidden)
		if strings.Contains(out, hidden) || strings.Contains(strings.ToLower(out), hex) || !strings.Contains(out, "[secret]") {
			t.Errorf("printed as %q", out)
		}
	}
	if got, err := s.Reveal(); got != hidden || err != nil {
		t.Errorf("Reveal = %q, %v; want the secret itself", got, err)
	}
}

func TestSecretReveal(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	t.Setenv("POLYPORT_TEST_SECRET", "from the environment")
	t.Setenv("POLYPORT_TEST_EMPTY", "")
	tests := []struct{ name, ref, want string }{
		{"a file without its line end", write("a", "s3cret\n"), "s3cret"},
		{"a file of Windows", write("b", "s3cret\r\n"), "s3cret"},
		{"only one line end is not part of it", write("c", "s3cret\n\n"), "s3cret\n"},
		{"the environment", "env:POLYPORT_TEST_SECRET", "from the environment"},
		{"literally", "plain", "plain"},
		{"an empty file", write("d", "\n"), "!is empty"},
		{"a missing file", "file:" + filepath.Join(dir, "none"), "!none"},
		{"a huge file", write("e", strings.Repeat("x", maxSecretSize+1)), "!larger than"},
		{"an empty variable", "env:POLYPORT_TEST_EMPTY", `!"POLYPORT_TEST_EMPTY" is not set`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s Secret
			if err := s.UnmarshalText([]byte(tt.ref)); err != nil {
				t.Fatal(err)
			}
			got, err := s.Reveal()
			if part, wantErr := strings.CutPrefix(tt.want, "!"); wantErr {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("Reveal = %v; want an error with %q", err, part)
				}
			} else if got != tt.want || err != nil {
				t.Errorf("Reveal = %q, %v; want %q", got, err, tt.want)
			}
		})
	}
	for _, ref := range []string{"", "file:", "env:"} {
		if err := new(Secret).UnmarshalText([]byte(ref)); err == nil {
			t.Errorf("UnmarshalText(%q): no error", ref)
		}
	}
	if (Secret{}).IsSet() {
		t.Error("the zero Secret is set")
	}
}
