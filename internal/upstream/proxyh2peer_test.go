package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
)

// pipes is a listener whose connections are net.Pipes, so that all of it can live in a bubble of synctest.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	dials  atomic.Int64
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (l *pipes) dial(ctx context.Context) (net.Conn, error) {
	l.dials.Add(1)
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	close(l.closed)
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// h2Config is TLS of a proxy for HTTP/2. It sends no tickets, for which a net.Pipe would have to be read at once.
func h2Config(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, SessionTicketsDisabled: true}
}

// h2Served is a proxy of net/http, and who dials it. streams is how many tunnels a connection takes; 0 is 250.
func h2Served(t *testing.T, streams int, handler http.HandlerFunc) (*Proxy, *pipes) {
	t.Helper()
	cert, pool := certified(t, "gw.example")
	l := newPipes()
	s := &http.Server{Handler: handler, TLSConfig: h2Config(cert), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: streams}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("ServeTLS: %v", err)
		}
	}()
	p := mustProxy(t, ProxyOptions{URL: "h2://u:p@gw.example", RootCAs: pool})
	t.Cleanup(func() {
		p.Close()
		s.Close()
		<-done
	})
	return p, l
}

// flushed writes each piece of a response at once.
type flushed struct{ w http.ResponseWriter }

func (f flushed) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	return n, errors.Join(err, http.NewResponseController(f.w).Flush())
}

// accept answers CONNECT, and returns the tunnel.
func accept(w http.ResponseWriter, r *http.Request) io.ReadWriter {
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	return struct {
		io.Reader
		io.Writer
	}{r.Body, flushed{w}}
}

// echoing is a proxy before targets that echo.
func echoing(w http.ResponseWriter, r *http.Request) { echo(accept(w, r)) }

// framed is a connection of a proxy that speaks HTTP/2 frame by frame.
type framed struct {
	net.Conn
	*h2.Framer
	says chan func()
}

// say has f write, once what was said before is written. Whoever reads must not write too: the client may be writing as well.
func (c *framed) say(f func()) { c.says <- f }

// settings says the SETTINGS that an HTTP/2 connection begins with.
func (c *framed) settings(s ...h2.Setting) { c.say(func() { _ = c.WriteSettings(s...) }) }

// accept says ":status: 200", which is the eighth of the static table (RFC 7541 appendix A).
func (c *framed) accept(stream uint32) {
	c.say(func() {
		_ = c.WriteHeaders(h2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true})
	})
}

// frames shows what the client sends, and acknowledges nothing. It ends with the connection.
func (c *framed) frames(see func(h2.Frame)) {
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			return
		}
		see(frame)
	}
}

// ignore is for frames.
func ignore(h2.Frame) {}

// h2Played is a proxy that play has speak HTTP/2, once TLS is done.
func h2Played(t *testing.T, play func(c *framed)) (*Proxy, *pipes) {
	t.Helper()
	cert, pool := certified(t, "gw.example")
	l := newPipes()
	done := make(chan struct{})
	var conns []net.Conn
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
			go func() {
				s := tls.Server(c, h2Config(cert))
				defer c.Close()
				if _, err := io.ReadFull(s, make([]byte, len(h2.ClientPreface))); err != nil {
					return
				}
				f := &framed{s, h2.NewFramer(s, s), make(chan func(), 16)}
				defer close(f.says)
				go func() {
					for write := range f.says {
						write()
					}
				}()
				play(f)
			}()
		}
	}()
	p := mustProxy(t, ProxyOptions{URL: "h2://gw.example", RootCAs: pool})
	t.Cleanup(func() {
		p.Close()
		l.Close()
		<-done
		for _, c := range conns { // one that is taken for dead waits for PING otherwise
			c.Close()
		}
	})
	return p, l
}

func mustOpen(t *testing.T, p *Proxy, dial DialFunc) net.Conn {
	t.Helper()
	c, err := p.Open(t.Context(), time.Now().Add(time.Minute), "", dial, named)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return c
}
