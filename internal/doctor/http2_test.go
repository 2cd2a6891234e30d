package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framed is the beginning of a connection of HTTP/2 as a server has it: SETTINGS, then what write writes.
func framed(write func(f *http2.Framer)) string {
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	_ = f.WriteSettings() // to memory
	write(f)
	return b.String()
}

// http2status answers the first stream.
func http2status(status string, fields ...string) func(*http2.Framer) {
	return func(f *http2.Framer) {
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: status}) // to memory
		for i := 0; i < len(fields); i += 2 {
			_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	}
}

func TestHTTP2Answers(t *testing.T) {
	ours := []string{"proxy-status", "polyport; error=http_request_denied"}
	tests := []struct {
		name, sends, detail string
		ok                  bool
	}{
		{"the tunnel stands", framed(http2status("200")), "200 OK", true},
		{"an interim response first", framed(func(f *http2.Framer) { http2status("103")(f); http2status("200")(f) }), "200 OK", true},
		{"denied", framed(http2status("403", ours...)), "403 Forbidden, http_request_denied", true},
		{"wants a user", framed(http2status("407")), "407 Proxy Authentication Required", false},
		{"a stranger's 403", framed(http2status("403")), "without polyport's Proxy-Status", false},
		{"no status", framed(http2status("0x1")), "not HTTP/2", false},
		{"the stream is reset", framed(func(f *http2.Framer) { _ = f.WriteRSTStream(1, http2.ErrCodeRefusedStream) }), "middle of its answer", false},
		{"GOAWAY", framed(func(f *http2.Framer) { _ = f.WriteGoAway(0, http2.ErrCodeProtocol, nil) }), "middle of its answer", false},
		{"HTTP/1", http200, "not HTTP/2", false},
		{"frames without end", strings.Repeat(framed(func(*http2.Framer) {}), maxFrames+1), "not HTTP/2", false},
		{"nothing", "", "closed without an answer", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address := listen(t, func(c net.Conn) {
				_, _ = io.ReadAtLeast(c, make([]byte, 4096), len(http2.ClientPreface)+9) // a client that has gone fails the check
				_, _ = io.WriteString(c, tt.sends)
			})
			x, err := newExamination(Options{Address: address, User: "alice", Password: "secret", Timeout: 30 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			c := x.check(context.Background(), named(t, "h2"))
			if c.OK != tt.ok || !strings.Contains(c.Detail, tt.detail) {
				t.Errorf("check = %+v, want OK %v and %q in the detail", c, tt.ok, tt.detail)
			}
		})
	}
}

// What is checked inside TLS is checked as it is outside; a certificate that nobody vouches for is said to be one.
func TestSecure(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate, which is for example.com
	defer web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	address := listen(t, func(c net.Conn) {
		inside := tls.Server(c, &tls.Config{Certificates: web.TLS.Certificates})
		if inside.Handshake() == nil { // else the check has failed, as it should
			gateway(inside)
		}
	})
	for _, tt := range []struct {
		name, secure string
		roots        *x509.CertPool
		detail       string
	}{
		{"trusted", "example.com", roots, "407"},
		{"not trusted", "example.com", x509.NewCertPool(), "not to be trusted"},
		{"another name", "example.org", roots, "not to be trusted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checks := Run(t.Context(), Options{Address: address, Rows: []string{"connect"}, Secure: tt.secure, Roots: tt.roots, Timeout: 30 * time.Second})
			for _, c := range checks {
				if c.Row == "connect" && !strings.Contains(c.Detail, tt.detail) {
					t.Errorf("check = %+v, want %q in the detail", c, tt.detail)
				}
				if c.Row == "port" && !c.OK {
					t.Errorf("check = %+v, want the port itself checked outside TLS", c)
				}
			}
		})
	}
}
