package mux

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// headerResult is what comes of the bytes of a balancer.
type headerResult struct {
	cause  Cause
	client netip.AddrPort
	rest   string // what the handler reads, where a header was taken
}

// headerOf sends parts as segments of their own, then closes.
func headerOf(parts ...string) headerResult {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() { send(parts...)(ours); ours.Close() }()
	c := &Conn{nc: theirs, client: netip.MustParseAddrPort("127.0.0.1:1")}
	cause, _ := c.readProxyHeader()
	got := headerResult{cause: cause, client: c.client}
	if cause == "" {
		rest, _ := io.ReadAll(c)
		got.rest = string(rest)
	}
	return got
}

// It does not matter how the network cuts a header, nothing behind it is lost, and an
// address is never half taken.
func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 198.51.100.7 192.0.2.1 12345 443\r\nGET / HTTP/1.1\r\n",
		"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n\x05\x01\x00",
		"PROXY UNKNOWN\r\nSSH-2.0",
		"PROXY TCP4 198.51.100.7\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\x7f\x00\x00\x01\x30\x39\x1d\xebGET /",
		"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00GET /",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + strings.Repeat("/run/socket\x00", 18) + "x",
		"POST / HTTP/1.1\r\n", "P", "",
	} {
		f.Add(s, uint8(1))
		f.Add(s, uint8(20))
	}
	f.Fuzz(func(t *testing.T, s string, cut uint8) {
		n := min(int(cut), len(s))
		whole, parts := headerOf(s), headerOf(s[:n], s[n:])
		if whole != parts {
			t.Fatalf("%q in one piece gives %+v, cut at %d %+v", s, whole, n, parts)
		}
		if whole.cause == "" && !strings.HasSuffix(s, whole.rest) {
			t.Fatalf("behind the header of %q the handler reads %q", s, whole.rest)
		}
		if a := whole.client.Addr(); !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			t.Fatalf("%q declares the client %v", s, whole.client)
		}
	})
}
