//go:build unix

package tlsconn

import (
	"crypto/tls"
	"net"
	"runtime"
	"testing"
	"time"
)

// TestQuiet: session tickets, which come behind the handshake, are no sign of anything; all else is. What lies below may be TLS itself.
func TestQuiet(t *testing.T) {
	for _, tt := range []struct {
		name string
		does func(s *tls.Conn, tcp *net.TCPConn)
		want bool
	}{
		{"nothing", func(*tls.Conn, *net.TCPConn) {}, true},
		{"content", func(s *tls.Conn, _ *net.TCPConn) { _, _ = s.Write([]byte("x")) }, false},
		{"close_notify", func(s *tls.Conn, _ *net.TCPConn) { _ = s.CloseWrite() }, false},
		{"the end without a word", func(_ *tls.Conn, tcp *net.TCPConn) { _ = tcp.CloseWrite() }, false},
		{"a reset", func(_ *tls.Conn, tcp *net.TCPConn) { _ = tcp.SetLinger(0); tcp.Close() }, false},
		{"half a record", func(_ *tls.Conn, tcp *net.TCPConn) { _, _ = tcp.Write([]byte{23, 3, 3, 0, 99, 1}) }, true},
	} {
		for _, layers := range []int{1, 2} {
			t.Run(tt.name, func(t *testing.T) {
				client, server := pair(t)
				c, s := secure(t, client, server)
				if layers == 2 && tt.name != "half a record" {
					c, s = secure(t, c, s)
				}
				for range 2 {
					if !c.Quiet() {
						t.Fatal("it is not quiet before anything was said")
					}
				}
				tt.does(s, server)
				for limit := time.Now().Add(patience); !tt.want && c.Quiet(); runtime.Gosched() { // until it has come
					if time.Now().After(limit) {
						t.Fatal("it stays quiet")
					}
				}
				if tt.want && !c.Quiet() {
					t.Error("it is not quiet")
				}
			})
		}
	}
}
