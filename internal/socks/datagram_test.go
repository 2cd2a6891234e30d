package socks

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestParseHeader(t *testing.T) {
	long := strings.Repeat("a", MaxName)
	for _, tt := range []struct {
		name, wire string
		frag       byte
		ip, host   string
		port       uint16
	}{
		{"IPv4", "\x00\x00\x00\x01\xc0\x00\x02\x01\x005", 0, "192.0.2.1", "", 53},
		{"IPv6", "\x00\x00\x00\x04 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\xbb", 0, "2001:db8::1", "", 443},
		{"IPv4 mapped into IPv6 stays so", "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01\x005", 0, "::ffff:127.0.0.1", "", 53},
		{"name", "\x00\x00\x00\x03\x0bexample.com\x005", 0, "", "example.com", 53},
		{"name of one octet", "\x00\x00\x00\x03\x01a\x005", 0, "", "a", 53},
		{"name of 255 octets", "\x00\x00\x00\x03\xff" + long + "\xff\xff", 0, "", long, 65535},
		{"name beyond ASCII", "\x00\x00\x00\x03\x08b\xc3\xbccher.\x005", 0, "", "bücher.", 53},
		{"name that is an address", "\x00\x00\x00\x03\x09127.0.0.1\x005", 0, "", "127.0.0.1", 53},
		{"port 0 is for the caller", "\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x00", 0, "192.0.2.1", "", 0},
		{"fragment", "\x00\x00\x01\x01\xc0\x00\x02\x01\x005", 1, "192.0.2.1", "", 53},
		{"last fragment", "\x00\x00\x82\x03\x01a\x005", 0x82, "", "a", 53},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, payload := range []string{"", "\x00", "\x00\x00\x00\x01", "payload"} {
				h, n, err := ParseHeader([]byte(tt.wire + payload))
				if err != nil || n != len(tt.wire) {
					t.Fatalf("ParseHeader(%q) = %d, %v, want %d octets", tt.wire+payload, n, err, len(tt.wire))
				}
				want := netip.Addr{}
				if tt.ip != "" {
					want = netip.MustParseAddr(tt.ip)
				}
				if h.Frag != tt.frag || h.IP != want || string(h.Name) != tt.host || h.Port != tt.port || string(h.Address) != tt.wire[3:] {
					t.Errorf("ParseHeader(%q) = %+v", tt.wire+payload, h)
				}
			}
			for i := range len(tt.wire) {
				checkHeaderRefused(t, tt.wire[:i], ErrMalformed)
			}
		})
	}
}

// checkHeaderRefused checks that octets are no header, and that nothing of them is told.
func checkHeaderRefused(t *testing.T, wire string, want error) {
	t.Helper()
	h, n, err := ParseHeader([]byte(wire))
	if !errors.Is(err, want) || n != 0 || h.IP.IsValid() || h.Name != nil || h.Address != nil {
		t.Errorf("ParseHeader(%q) = %+v, %d, %v, want nothing and %v", wire, h, n, err, want)
	}
	if errors.Is(err, ErrShort) {
		t.Errorf("ParseHeader(%q) wants more, and a datagram has no more", wire)
	}
}

func TestParseHeaderRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, wire string
		want       error
	}{
		{"RSV", "\x01\x00\x00\x01\xc0\x00\x02\x01\x005", ErrMalformed},
		{"RSV, second octet", "\x00\x01\x00\x01\xc0\x00\x02\x01\x005", ErrMalformed},
		{"a request in place of a datagram", "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", ErrMalformed},
		{"address type 0", "\x00\x00\x00\x00\xc0\x00\x02\x01\x005", ErrAddressType},
		{"address type 2", "\x00\x00\x00\x02\xc0\x00\x02\x01\x005", ErrAddressType},
		{"address type 255", "\x00\x00\x00\xff\xc0\x00\x02\x01\x005", ErrAddressType},
		{"name of length zero", "\x00\x00\x00\x03\x00\x005", ErrMalformed},
		{"name with NUL", "\x00\x00\x00\x03\x03a\x00b\x005", ErrMalformed},
		{"name with a line end", "\x00\x00\x00\x03\x03a\r\n\x005", ErrMalformed},
		{"name with DEL", "\x00\x00\x00\x03\x02a\x7f\x005", ErrMalformed},
		{"name that is longer than the datagram", "\x00\x00\x00\x03\xffexample.com\x005", ErrMalformed},
		{"IPv6 of four octets", "\x00\x00\x00\x04\xc0\x00\x02\x01\x005", ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) { checkHeaderRefused(t, tt.wire, tt.want) })
	}
}

func TestAppendHeader(t *testing.T) {
	for _, tt := range []struct{ at, want string }{
		{"192.0.2.1:53", "\x00\x00\x00\x01\xc0\x00\x02\x01\x005"},
		{"[2001:db8::1]:443", "\x00\x00\x00\x04 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\xbb"},
		{"[fe80::1%3]:65535", "\x00\x00\x00\x04\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff"},
	} {
		if got := AppendHeader([]byte("before"), netip.MustParseAddrPort(tt.at)); string(got) != "before"+tt.want {
			t.Errorf("AppendHeader(%s) = %q, want %q", tt.at, got, "before"+tt.want)
		}
	}
}

// maxHeader is the longest header in octets, that of a name.
const maxHeader = headerStart + 2 + MaxName + 2

func TestLongestHeader(t *testing.T) {
	longest := append([]byte("\x00\x00\x00\x03\xff"), strings.Repeat("a", 255)+"\x00\x01"...)
	if _, n, err := ParseHeader(longest); n != maxHeader || err != nil {
		t.Errorf("the longest header is %d octets, %v, want %d", n, err, maxHeader)
	}
}

func TestHeadersAllocateNothing(t *testing.T) {
	room := make([]byte, 0, maxHeader)
	at := netip.MustParseAddrPort("[2001:db8::1]:53")
	for _, wire := range []string{
		"\x00\x00\x00\x01\xc0\x00\x02\x01\x005payload", "\x00\x00\x00\x03\x0bexample.com\x005payload",
		string(AppendHeader(nil, at)), "", "\x01", "\x00\x00\x00\x05\x00\x00", "\x00\x00\x00\x03\x00\x00\x00", "\x00\x00\x00\x03\x01\x00\x00\x00", "\x00\x00\x00\x04\x00\x00",
	} {
		b := []byte(wire)
		if n := testing.AllocsPerRun(100, func() {
			_, _, _ = ParseHeader(b)
			_ = AppendHeader(room, at)
		}); n != 0 {
			t.Errorf("%q and a header of an answer cost %v allocations, want none", wire, n)
		}
	}
}

// FuzzParseHeader: what is a header is encoded again to the same octets, whatever the payload, and no part of it is one; Address is a
// key: it is alike only for the same address and port.
func FuzzParseHeader(f *testing.F) {
	seeds(f, "\x00\x00\x00\x01\xc0\x00\x02\x01\x005", "\x00\x00\x00\x03\x0bexample.com\x005", "\x00\x00\x01\x03\x01a\x00\x00",
		"\x00\x00\x00\x04 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\xbb",
		"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01\x005")
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseHeader(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || n != 0 {
				t.Fatalf("ParseHeader(%q) = %d, %v, want 0 and that it is malformed", b, n, err)
			}
			return
		}
		if n > len(b) || n > maxHeader || h.IP.IsValid() == (len(h.Name) > 0) || h.IP.Zone() != "" {
			t.Fatalf("ParseHeader(%q) = %+v, %d", b, h, n)
		}
		again, err := appendAddress([]byte{0, 0, h.Frag}, Address{Name: string(h.Name), IP: h.IP, Port: h.Port})
		if err != nil || !bytes.Equal(again, b[:n]) || !bytes.Equal(h.Address, b[3:n]) {
			t.Fatalf("ParseHeader(%q) = %+v, which is encoded to %q, %v", b, h, again, err)
		}
		if h.IP.IsValid() && h.Frag == 0 && !bytes.Equal(AppendHeader(nil, netip.AddrPortFrom(h.IP, h.Port)), b[:n]) {
			t.Fatalf("AppendHeader of %+v is not %q", h, b[:n])
		}
		for i := range n {
			if _, _, err := ParseHeader(b[:i]); err == nil {
				t.Fatalf("%q is a header, and so is %q", b[:n], b[:i])
			}
		}
	})
}
