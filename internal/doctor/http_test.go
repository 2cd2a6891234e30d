package doctor

import (
	"bufio"
	"io"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"
)

func TestProxyError(t *testing.T) {
	for _, tt := range []struct {
		name, field, token string
		ours               bool
	}{
		{"none", "", "", false},
		{"plain", "polyport; error=dns_error", "dns_error", true},
		{"without spaces", "polyport;error=dns_error", "dns_error", true},
		{"more parameters", `polyport; details="x"; error=dns_timeout; rcode="1"`, "dns_timeout", true},
		{"no error", "polyport", "", true},
		{"another proxy", "other; error=dns_error", "", false},
		{"a name that begins alike", "polyport2; error=dns_error", "", false},
		{"not a token", "polyport; error=\"dns error\"", "", true},
		{"far too long", "polyport; error=" + strings.Repeat("a", 65), "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := response{403, textproto.MIMEHeader{}}
			if tt.field != "" {
				h.fields.Set("Proxy-Status", tt.field)
			}
			if token, ours := h.proxyError(); token != tt.token || ours != tt.ours {
				t.Errorf("proxyError of %q = %q, %v, want %q, %v", tt.field, token, ours, tt.token, tt.ours)
			}
		})
	}
}

func TestCredentialsAreSentWhereTheProtocolCarriesThem(t *testing.T) {
	for _, tt := range []struct{ row, want string }{
		{"http", "\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n"},
		{"connect", "\r\nProxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n"},
		{"socks5", "\x05\x02\x00\x02\x01\x05alice\x06secret"},
		{"help page", ""},
		{"socks4", ""},
	} {
		t.Run(tt.row, func(t *testing.T) {
			sent := make(chan string, 1)
			address := listen(t, func(c net.Conn) {
				b := make([]byte, 64<<10)
				n, _ := c.Read(b)
				if b[0] == 0x05 {
					io.WriteString(c, "\x05\x02")
					more, _ := c.Read(b[n:])
					n += more
				}
				sent <- string(b[:n])
			})
			x, err := newExamination(Options{Address: address, User: "alice", Password: "secret", Timeout: 30 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			x.check(t.Context(), named(t, tt.row))
			got := <-sent
			if !strings.Contains(got, tt.want) || tt.want == "" && strings.Contains(got, "YWxpY2U6c2VjcmV0") {
				t.Errorf("sent %q, want %q in it", got, tt.want)
			}
		})
	}
}

// FuzzReadHead states that a head is either read with a status of three digits or
// refused, and that what is said of it holds no octet but our own words'.
func FuzzReadHead(f *testing.F) {
	for _, s := range []string{http403, http407, banner, "HTTP/1.1 200\r\n\r\n", "HTTP/1.0 999 x\r\nProxy-Status: polyport; error=a\r\n\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		head, err := readHead(textproto.NewReader(bufio.NewReader(strings.NewReader(s))))
		if err != nil {
			if a := head.broken(err); a.outcome != foreign && a.outcome != closed {
				t.Fatalf("broken(%v) = %+v", err, a)
			}
			return
		}
		if head.status < 100 || head.status > 999 {
			t.Fatalf("readHead(%q) = status %d", s, head.status)
		}
		for _, c := range []byte(head.words()) {
			if c < ' ' || c >= 0x7f {
				t.Fatalf("words of %q = %q", s, head.words())
			}
		}
	})
}
