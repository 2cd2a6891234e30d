package target

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// label63 and name253 are the longest that the DNS allows.
var (
	label63 = strings.Repeat("a", 63)
	name253 = label63 + "." + label63 + "." + label63 + "." + strings.Repeat("b", 61)
)

func TestParse(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"name", "example.com:443", "example.com:443"},
		{"one label", "localhost:1", "localhost:1"},
		{"upper case", "WWW.Example.COM:80", "www.example.com:80"},
		{"trailing dot", "example.com.:80", "example.com:80"},
		{"underscore", "_acme._tcp.example.com:80", "_acme._tcp.example.com:80"},
		{"hyphens that live", "r3---sn-4g5e.example.com:443", "r3---sn-4g5e.example.com:443"},
		{"hyphen at the end of an inner label", "a-.example.com:80", "a-.example.com:80"},
		{"label that begins with a digit", "3com.example:80", "3com.example:80"},
		{"digits inside", "1.2.3.4.example:80", "1.2.3.4.example:80"},
		{"longest label", label63 + ".com:80", label63 + ".com:80"},
		{"longest name", name253 + ":80", name253 + ":80"},
		{"longest name, trailing dot", name253 + ".:80", name253 + ":80"},
		{"lowest port", "a:1", "a:1"},
		{"highest port", "a:65535", "a:65535"},
		{"port with zeros", "a:00080", "a:80"},

		{"U-label", "bücher.example:80", "xn--bcher-kva.example:80"},
		{"U-label, upper case", "BÜCHER.example:80", "xn--bcher-kva.example:80"},
		{"U-label, decomposed", "bu\u0308cher.example:80", "xn--bcher-kva.example:80"},
		{"A-label, upper case", "XN--BCHER-KVA.example:80", "xn--bcher-kva.example:80"},
		{"sharp s is not ss", "faß.example:80", "xn--fa-hia.example:80"},
		{"underscore beside a U-label", "_dmarc.bücher.example:80", "_dmarc.xn--bcher-kva.example:80"},
		{"symbol", "i❤.example:80", "xn--i-7iq.example:80"},
		{"soft hyphen", "exam\u00adple.com:80", "example.com:80"},
		{"full-width letters", "ｅｘａｍｐｌｅ.com:80", "example.com:80"},
		{"full-width dot", "example．com:80", "example.com:80"},
		{"ideographic dot", "example。com:80", "example.com:80"},
		{"half-width ideographic dot", "example｡com:80", "example.com:80"},
		{"ideographic dot at the end", "example.com。:80", "example.com:80"},

		{"dotted quad", "192.0.2.1:80", "192.0.2.1:80"},
		{"dotted quad, trailing dot", "192.0.2.1.:80", "192.0.2.1:80"},
		{"three parts", "127.0.1:80", "127.0.0.1:80"},
		{"two parts", "127.1:80", "127.0.0.1:80"},
		{"two parts, wide last", "10.65793:80", "10.1.1.1:80"},
		{"three parts, wide last", "172.16.65535:80", "172.16.255.255:80"},
		{"one decimal", "2130706433:80", "127.0.0.1:80"},
		{"one octal", "017700000001:80", "127.0.0.1:80"},
		{"one hexadecimal", "0x7f000001:80", "127.0.0.1:80"},
		{"one hexadecimal, upper case", "0X7F000001:80", "127.0.0.1:80"},
		{"octal quad", "0177.0.0.01:80", "127.0.0.1:80"},
		{"octal is not decimal", "010.0.0.1:80", "8.0.0.1:80"},
		{"hexadecimal quad", "0x7f.0x0.0x0.0x1:80", "127.0.0.1:80"},
		{"mixed bases", "0xa9.0376.0xa9fe:80", "169.254.169.254:80"},
		{"many zeros", "0000000000000000000177.0x0000000000001:80", "127.0.0.1:80"},
		{"zero", "0:80", "0.0.0.0:80"},
		{"highest", "4294967295:80", "255.255.255.255:80"},
		{"full-width digits", "１２７.０.０.１:80", "127.0.0.1:80"},
		{"circled digits", "①②⑦.⓪.⓪.①:80", "127.0.0.1:80"},
		{"mathematical digits", "𝟏𝟐𝟕.𝟎.𝟎.𝟏:80", "127.0.0.1:80"},
		{"ideographic dots between digits", "127。0。0。1:80", "127.0.0.1:80"},
		{"full-width hexadecimal", "０ｘ７ｆ.1:80", "127.0.0.1:80"},

		{"IPv6", "[2001:db8::1]:443", "[2001:db8::1]:443"},
		{"IPv6, long and upper case", "[2001:0DB8:0000:0000:0000:0000:0000:0001]:443", "[2001:db8::1]:443"},
		{"IPv6 loopback", "[::1]:80", "[::1]:80"},
		{"unspecified", "[::]:80", "[::]:80"},
		{"mapped", "[::ffff:127.0.0.1]:80", "127.0.0.1:80"},
		{"mapped, hexadecimal", "[::ffff:7f00:1]:80", "127.0.0.1:80"},
		{"mapped, long", "[0:0:0:0:0:FFFF:7F00:0001]:80", "127.0.0.1:80"},
		{"compatible stays IPv6", "[::127.0.0.1]:80", "[::7f00:1]:80"},
		{"NAT64 stays IPv6", "[64:ff9b::10.0.0.1]:80", "[64:ff9b::a00:1]:80"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err != nil {
				t.Fatalf("Parse(%q): %v", tt.in, err)
			}
			if got.String() != tt.want {
				t.Errorf("Parse(%q) = %s, want %s", tt.in, got, tt.want)
			}
			checkNormal(t, tt.in, got)
		})
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ name, in, problem string }{
		{"empty", "", "it is empty"},
		{"no port", "example.com", "it has no port"},
		{"empty port", "example.com:", "it has no port"},
		{"no host", ":80", "it has no host"},
		{"only a dot", ".:80", "it has no host"},
		{"port 0", "a:0", "its port"},
		{"port too high", "a:65536", "its port"},
		{"port overflows 16 bits", "a:65616", "its port"},
		{"port overflows 64 bits", "a:18446744073709551696", "its port"},
		{"six digits", "a:000080", "its port"},
		{"signed port", "a:+80", "its port"},
		{"port in hexadecimal", "a:0x50", "its port"},
		{"port in full-width digits", "a:８０", "its port"},
		{"port with a space", "a: 80", "its port"},
		{"service name", "a:http", "its port"},

		{"empty label", "a..b:80", "an empty label"},
		{"leading dot", ".example.com:80", "an empty label"},
		{"two trailing dots", "example.com..:80", "an empty label"},
		{"trailing dots of two kinds", "example.com.。:80", "an empty label"},
		{"label too long", label63 + "a.com:80", "more than 63 octets"},
		{"name too long", name253 + "b:80", "longer than a host name"},
		{"far too long", strings.Repeat("a.", 4000) + "a:80", "longer than a host name"},
		{"A-label too long", strings.Repeat("ü", 60) + ".com:80", "more than 63 octets"},
		{"leading hyphen", "-oProxyCommand=x:80", "the character ="},
		{"leading hyphen alone", "-x.example:80", "begin with a hyphen"},
		{"signed number as last label", "1.-1:80", "begin with a hyphen"},
		{"NUL", "a\x00.example.com:80", "control characters"},
		{"CR", "a\r.example.com:80", "control characters"},
		{"LF", "a\nb:80", "control characters"},
		{"space", "a b:80", "control characters"},
		{"trailing space", "a :80", "control characters"},
		{"DEL", "a\x7f:80", "control characters"},
		{"percent", "a%2eb:80", "percent sign"},
		{"slash", "a/b:80", "the character /"},
		{"backslash", `a\b:80`, `the character \`},
		{"question mark", "a?b:80", "the character ?"},
		{"hash", "a#b:80", "the character #"},
		{"comma", "a,b:80", "the character ,"},
		{"asterisk", "*.example.com:80", "the character *"},
		{"user", "user@a:80", "an @"},
		{"user and password", "user:pass@a:80", "an @"},
		{"not UTF-8", "a\xff.com:80", "not valid UTF-8"},

		{"maps to a slash", "℀.com:80", "the character /"},
		{"maps to a less-than", "﹤ü.com:80", "the character <"},
		{"maps to a percent", "a％2e.com:80", "percent sign"},
		{"maps to an at", "user＠host:80", "an @"},
		{"maps to a colon", "a：80:80", "the character :"},
		{"maps to nothing", "\u00ad:80", "it has no host"},
		{"bad punycode", "xn--a:80", "internationalised"},
		{"punycode of ASCII", "xn--127-:80", "internationalised"},
		{"empty punycode", "xn--.com:80", "an empty label"},
		{"punycode of a full-width digit", "xn--8g7c.com:80", "internationalised"},
		{"punycode of an upper-case letter", "xn--wca.com:80", "internationalised"},
		{"right to left beside left to right", "aא.com:80", "internationalised"},
		{"private use", "\ue000.com:80", "internationalised"},

		{"number that is no address", "example.123:80", "last label is a number"},
		{"hexadecimal that is none", "example.0x7f:80", "last label is a number"},
		{"five parts", "1.2.3.4.5:80", "last label is a number"},
		{"octet too high", "256.0.0.1:80", "last label is a number"},
		{"last octet too high", "1.2.3.256:80", "last label is a number"},
		{"last of two too high", "1.16777216:80", "last label is a number"},
		{"one number too high", "4294967296:80", "last label is a number"},
		{"overflow of 64 bits", "18446744073709551617:80", "last label is a number"},
		{"an 8 in an octal number", "1.2.3.08:80", "last label is a number"},
		{"bare 0x", "0x:80", "last label is a number"},
		{"bare 0x at the end", "1.0x:80", "last label is a number"},
		{"name before a number", "a.1:80", "last label is a number"},

		{"IPv6 without brackets", "::1:80", "more than one colon"},
		{"IPv6 without port", "[::1]", "it has no port"},
		{"IPv6, empty port", "[::1]:", "it has no port"},
		{"text behind the bracket", "[::1]x:80", "may follow the closing bracket"},
		{"unclosed", "[::1:80", "never closed"},
		{"bracketed IPv4", "[127.0.0.1]:80", "not a valid IPv6"},
		{"bracketed name", "[localhost]:80", "not a valid IPv6"},
		{"bracketed nothing", "[]:80", "not a valid IPv6"},
		{"double brackets", "[[::1]]:80", "may follow the closing bracket"},
		{"IPvFuture", "[v1.x]:80", "not a valid IPv6"},
		{"zone", "[fe80::1%eth0]:80", "a zone"},
		{"encoded zone", "[fe80::1%25eth0]:80", "a zone"},
		{"zone on loopback", "[::1%lo]:80", "a zone"},
		{"octal inside IPv6", "[::ffff:0177.0.0.1]:80", "not a valid IPv6"},
		{"full-width colon", "[：：１]:80", "not a valid IPv6"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err == nil {
				t.Fatalf("Parse(%q) = %s, want an error", tt.in, got)
			}
			if got != (Target{}) {
				t.Errorf("Parse(%q) = %s with an error, want the zero Target", tt.in, got)
			}
			if !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("Parse(%q) says %q, want it to say %q", tt.in, err, tt.problem)
			}
			checkError(t, tt.in, err)
		})
	}
}

// Whatever is cut off a good input, the rest is refused or is a target in normal form.
func TestParseCut(t *testing.T) {
	for _, whole := range []string{"www.example.com.:8080", "[2001:db8::ffff:1.2.3.4]:65535", "0x7f.0.0.1:443", "bücher。example:80"} {
		for i := range len(whole) {
			got, err := Parse(whole[:i])
			if err != nil {
				checkError(t, whole[:i], err)
				continue
			}
			checkNormal(t, whole[:i], got)
		}
	}
}

func TestParseAuthority(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"name", "example.com", "example.com:80"},
		{"name and port", "Example.com:8080", "example.com:8080"},
		{"empty port", "example.com:", "example.com:80"},
		{"IPv6", "[::1]", "[::1]:80"},
		{"IPv6, empty port", "[::1]:", "[::1]:80"},
		{"IPv6 and port", "[::1]:81", "[::1]:81"},
		{"short IPv4", "127.1", "127.0.0.1:80"},
		{"port 0", "example.com:0", ""},
		{"user", "user:secret@example.com", ""},
		{"empty", "", ""},
		{"only a port", ":80", ""},
		{"zone", "[fe80::1%25en0]", ""},
		{"bare IPv6", "2001:db8::1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseAuthority(tt.in, 80)
			if (err == nil) != (tt.want != "") || got.String() != tt.want {
				t.Errorf("ParseAuthority(%q, 80) = %q, %v; want %q", tt.in, got, err, tt.want)
			}
			if err != nil {
				checkError(t, tt.in, err)
			}
		})
	}
}

func TestNew(t *testing.T) {
	tests := []struct {
		name, host string
		port       uint16
		want       string // "" is an error
	}{
		{"name", "Example.COM.", 443, "example.com:443"},
		{"bare IPv6", "2001:DB8::1", 443, "[2001:db8::1]:443"},
		{"bracketed IPv6", "[2001:db8::1]", 443, "[2001:db8::1]:443"},
		{"bare mapped IPv4", "::ffff:10.0.0.1", 443, "10.0.0.1:443"},
		{"bare zoned IPv6", "fe80::1%eth0", 443, ""},
		{"zoned mapped IPv4", "::ffff:10.0.0.1%1", 443, ""},
		{"zoned IPv4", "10.0.0.1%1", 443, ""},
		{"open bracket", "[::1", 443, ""},
		{"close bracket", "::1]", 443, ""},
		{"host and port", "example.com:80", 443, ""},
		{"user", "user:secret@example.com", 443, ""},
		{"number", "2130706433", 443, "127.0.0.1:443"},
		{"port 0", "example.com", 0, ""},
		{"empty", "", 443, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := New(tt.host, tt.port)
			if (err == nil) != (tt.want != "") || got.String() != tt.want {
				t.Errorf("New(%q, %d) = %q, %v; want %q", tt.host, tt.port, got, err, tt.want)
			}
			if err != nil {
				checkError(t, tt.host, err)
			}
		})
	}
}

func TestFromAddrPort(t *testing.T) {
	tests := []struct{ in, want string }{
		{"192.0.2.1:80", "192.0.2.1:80"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.1:80"},
		{"[fe80::1%eth0]:80", "[fe80::1]:80"},
		{"[2001:db8::1]:0", "[2001:db8::1]:0"},
	}
	for _, tt := range tests {
		got := FromAddrPort(netip.MustParseAddrPort(tt.in))
		if got.String() != tt.want || !got.IsValid() {
			t.Errorf("FromAddrPort(%s) = %s, want %s", tt.in, got, tt.want)
		}
	}
	if got := FromAddrPort(netip.AddrPort{}); got.IsValid() {
		t.Errorf("FromAddrPort of the zero AddrPort = %s, want the zero Target", got)
	}
}

func TestAccessors(t *testing.T) {
	name, _ := New("Example.com", 443)
	addr, _ := New("[2001:db8::1]", 53)
	row := Name("my row")
	tests := []struct {
		name   string
		in     Target
		host   string
		isAddr bool
		port   uint16
		text   string
	}{
		{"name", name, "example.com", false, 443, "example.com:443"},
		{"address", addr, "2001:db8::1", true, 53, "[2001:db8::1]:53"},
		{"row", row, "my row", false, 0, "my row"},
		{"zero", Target{}, "", false, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, isAddr := tt.in.Addr()
			if got := tt.in.Host(); got != tt.host {
				t.Errorf("Host() = %q, want %q", got, tt.host)
			}
			if isAddr != tt.isAddr || tt.in.Port() != tt.port || tt.in.String() != tt.text {
				t.Errorf("Addr(), Port(), String() = %v, %d, %q; want %v, %d, %q", isAddr, tt.in.Port(), tt.in, tt.isAddr, tt.port, tt.text)
			}
			if got, want := tt.in.IsValid(), tt.host != ""; got != want {
				t.Errorf("IsValid() = %v, want %v", got, want)
			}
		})
	}
}

func TestErrorHidesCredentials(t *testing.T) {
	for _, in := range []string{"alice:hunter2@example.com:80", "alice:hunter2@example.com", "alice:hunter2@[::1]:80", "alice＠hunter2:80"} {
		_, err := Parse(in)
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "alice") {
			t.Errorf("Parse(%q) says %v, want an error without the credentials", in, err)
		}
		_, err = New(in, 80)
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "alice") {
			t.Errorf("New(%q) says %v, want an error without the credentials", in, err)
		}
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	for _, in := range []string{"www.example.com:443", "192.0.2.1:443", "[2001:db8::1]:443", "example.com.:80"} {
		if n := testing.AllocsPerRun(100, func() { _, _ = Parse(in) }); n != 0 {
			t.Errorf("Parse(%q) allocates %v times, want 0", in, n)
		}
	}
}

// checkError fails unless err is an *Error on one short, printable line.
func checkError(t *testing.T, in string, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error of %q is a %T, want an *Error", in, err)
	}
	text := err.Error()
	if len(text) > 1000 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u0085' || r == '\u2028' }) {
		t.Errorf("error of %q is %q, want one short printable line", in, text)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, in := range []string{"www.example.com:443", "WWW.Example.com:443", "192.0.2.1:443", "[2001:db8::1]:443", "bücher.example:443"} {
		b.Run(in, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestNewPeer(t *testing.T) {
	tests := []struct {
		name, host  string
		port        uint16
		want        string // String
		unspecified bool
	}{
		{"an address and its port", "192.0.2.1", 20, "192.0.2.1:20", false},
		{"an address, from any port", "192.0.2.1", 0, "192.0.2.1:0", false},
		{"a name, from any port", "FTP.example.com.", 0, "ftp.example.com", false},
		{"nobody in particular", "0.0.0.0", 0, "0.0.0.0:0", true},
		{"nobody in particular, in IPv6", "::", 21, "[::]:21", true},
		{"nobody in particular, mapped", "::ffff:0.0.0.0", 0, "0.0.0.0:0", true},
		{"nobody in particular, in one number", "0", 0, "0.0.0.0:0", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := NewPeer(tt.host, tt.port)
			a, literal := got.Addr()
			if err != nil || got.String() != tt.want || got.Port() != tt.port || (literal && a.IsUnspecified()) != tt.unspecified {
				t.Errorf("NewPeer(%q, %d) = %v, %v; want %s", tt.host, tt.port, got, err, tt.want)
			}
		})
	}
	if _, err := New("192.0.2.1", 0); err == nil {
		t.Error("New takes port 0")
	}
}
