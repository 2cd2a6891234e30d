package target

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

// FuzzParse states what every caller relies on: a target that was read is in
// normal form (see checkNormal), an error is one printable line, and an authority with
// a port is read alike by Parse and ParseAuthority.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"example.com:443", "Example.COM.:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "[fe80::1%eth0]:80", "127.1:80",
		"0x7f.1:80", "2130706433:80", "017700000001:80", "１２７。０。０。１:80", "bücher.example:80", "xn--bcher-kva.example:80",
		"xn--127-:80", "user:pw@a:80", "a..b:80", "1.2.3.08:1", "r3---sn-ü.example:1", "℀.com:1", "\u00ad.com:1", "xn--8g7c.com:80",
		"aא.com:80", "xn--xn---bcher-3ya.com:1", "𝟏.0x7f:80", "[::]:0", "ẞ.example:1", "80000000000000000000A0000:1", "xn--ls8h.la:1", "a\u200d.com:1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := Parse(in)
		other, otherErr := ParseAuthority(in, 80)
		if err != nil {
			checkError(t, in, err)
			if otherErr == nil && other.Port() != 80 {
				t.Errorf("ParseAuthority(%q) = %s, which Parse refuses: %v", in, other, err)
			}
			return
		}
		checkNormal(t, in, got)
		if otherErr != nil || other != got {
			t.Errorf("ParseAuthority(%q) = %s, %v; Parse says %s", in, other, otherErr, got)
		}
	})
}

// FuzzNewPeer states that NewPeer reads what New reads, to the same host, and that port 0 is the one difference.
func FuzzNewPeer(f *testing.F) {
	for _, seed := range []string{"ftp.example.com", "0.0.0.0", "::", "[::]", "::ffff:0.0.0.0", "0", "127.1", "a..b", "", "fe80::1%eth0", "a@b"} {
		f.Add(seed, uint16(0))
		f.Add(seed, uint16(20))
	}
	f.Fuzz(func(t *testing.T, host string, port uint16) {
		got, err := NewPeer(host, port)
		want, wantErr := New(host, max(port, 1))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("NewPeer(%q, %d): %v, and New: %v", host, port, err, wantErr)
		}
		if err == nil && (got.Host() != want.Host() || got.Port() != port || !got.IsValid()) {
			t.Errorf("NewPeer(%q, %d) = %v port %d, and New says %v", host, port, got, got.Port(), want)
		}
	})
}

// checkNormal fails unless got, read from in, is a normal form: reading what it prints gives it
// again, a name is made of lower-case labels and is no address by any reading, and
// an address is unmapped and has no zone.
func checkNormal(t *testing.T, in string, got Target) {
	t.Helper()
	again, err := Parse(got.String())
	if err != nil || again != got {
		t.Errorf("Parse(%q) = %s, and Parse of that = %s, %v", in, got, again, err)
	}
	if !got.IsValid() || got.Port() == 0 {
		t.Errorf("Parse(%q) = %q, want a host and a port", in, got)
	}
	if a, ok := got.Addr(); ok {
		if a.Zone() != "" || a.Is4In6() {
			t.Errorf("Parse(%q) = %s, want no zone and no mapped address", in, a)
		}
		return
	}
	host := got.Host()
	if _, err := netip.ParseAddr(host); err == nil {
		t.Errorf("Parse(%q) = the name %q, which netip reads as an address", in, host)
	}
	if a, ok := inetAton(host); ok {
		t.Errorf("Parse(%q) = the name %q, which inet_aton reads as %v", in, host, a)
	}
	if len(host) > 253 || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		t.Errorf("Parse(%q) = the name %q, want at most 253 octets of a-z, 0-9, - and _", in, host)
	}
	for label := range strings.SplitSeq(host, ".") {
		if len(label) < 1 || len(label) > 63 {
			t.Errorf("Parse(%q) has the label %q, want 1 to 63 octets", in, label)
		}
	}
}

// inetAton is inet_aton(3) as laxly as any system has it: a bare 0x is zero, a
// number too large wraps, white space ends the address.
func inetAton(s string) (netip.Addr, bool) {
	s, _, _ = strings.Cut(s, " ")
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var v uint32
	for i, p := range parts {
		n, ok := atonNumber(p)
		if !ok {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			v |= n & 0xff << (24 - 8*i)
		} else {
			v |= n
		}
	}
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), true
}

func atonNumber(s string) (uint32, bool) {
	base, digits := 10, "0123456789"
	switch {
	case s == "0x" || s == "0X":
		return 0, true
	case strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X"):
		base, digits, s = 16, "0123456789abcdefABCDEF", s[2:]
	case len(s) > 1 && s[0] == '0':
		base, digits = 8, "01234567"
	}
	if strings.Trim(s, digits) != "" || s == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 64)
	return uint32(n), err == nil || errors.Is(err, strconv.ErrRange)
}

// The oracle of the fuzz test must itself read the spellings that matter.
func TestInetAton(t *testing.T) {
	for _, in := range []string{"127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "017700000001"} {
		if a, ok := inetAton(in); !ok || a != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("inetAton(%q) = %v, %v; want 127.0.0.1", in, a, ok)
		}
	}
	if a, ok := inetAton("example.com"); ok {
		t.Errorf("inetAton(example.com) = %v, want none", a)
	}
}
