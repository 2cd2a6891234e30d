package session

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"polyport/internal/egress"
	"polyport/internal/pool"
	"polyport/internal/upstream"
	"polyport/mux"
)

// connectProxies are proxies for CONNECT, in TLS or not, that say something of the target's together with their answer.
type connectProxies struct {
	upstream *upstream.Upstream
	far      []net.Conn
	mu       sync.Mutex
}

// newConnectProxies starts n of them.
func newConnectProxies(t *testing.T, n int, secure bool, ahead string, o pool.Options) *connectProxies {
	t.Helper()
	// Its certificate is all that is wanted of it.
	papers := httptest.NewTLSServer(http.NotFoundHandler())
	defer papers.Close()
	roots := x509.NewCertPool()
	roots.AddCert(papers.Certificate())
	c := &connectProxies{}
	var running sync.WaitGroup
	all := upstream.Options{Pool: o}
	all.Pool.Name = "eu"
	for range n {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at, scheme := ln.Addr().String(), "http"
		if secure {
			ln, scheme = tls.NewListener(ln, &tls.Config{Certificates: papers.TLS.Certificates}), "https"
		}
		running.Go(func() {
			for {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				running.Go(func() { c.serve(nc, ahead) })
			}
		})
		proxy, err := upstream.NewProxy(upstream.ProxyOptions{URL: scheme + "://" + at, RootCAs: roots})
		if err != nil {
			t.Fatal(err)
		}
		all.Proxies = append(all.Proxies, proxy)
		t.Cleanup(func() { ln.Close() })
	}
	t.Cleanup(func() {
		c.mu.Lock()
		for _, far := range c.far {
			far.Close()
		}
		c.mu.Unlock()
	})
	var err error
	if c.upstream, err = upstream.New(all, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *connectProxies) serve(nc net.Conn, ahead string) {
	defer nc.Close()
	r := bufio.NewReader(nc)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	far, err := net.Dial("tcp", req.Host)
	if err != nil {
		_, _ = io.WriteString(nc, "HTTP/1.1 502 No\r\n\r\n")
		return
	}
	defer far.Close()
	c.mu.Lock()
	c.far = append(c.far, far, nc)
	c.mu.Unlock()
	_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\n\r\n"+ahead)
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(far, r)
		_ = far.(*net.TCPConn).CloseWrite()
	})
	both.Go(func() {
		_, _ = io.Copy(nc, far)
		_ = nc.(interface{ CloseWrite() error }).CloseWrite()
	})
	both.Wait()
}

// through has all sessions leave through the proxies.
func (c *connectProxies) through(rt *Runtime) {
	rt.Egress = egress.New(egress.Options{
		Policy: rt.Policy,
		Ways:   egress.Ways{Default: c.upstream, Upstreams: map[string]*upstream.Upstream{"eu": c.upstream}},
	})
}

// connections counts what the pool counts.
func (c *connectProxies) connections() (n int64) {
	for _, m := range c.upstream.Pool().Members() {
		n += m.Status().Connections
	}
	return n
}

// TestTunnelsOfALoopThroughProxies: a client on a loop and a proxy that is on the same loop, or on none since it speaks TLS.
func TestTunnelsOfALoopThroughProxies(t *testing.T) {
	for _, tt := range []struct {
		name   string
		secure bool
		ahead  string
	}{
		{"without TLS", false, ""},
		{"without TLS, the target speaks at once", false, "220 hello\r\n"},
		{"without TLS, the target says much at once", false, strings.Repeat("much ", 400)},
		{"in TLS", true, ""},
		{"in TLS, the target speaks at once", true, "220 hello\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			echo := echoServer(t)
			proxies := newConnectProxies(t, 1, tt.secure, tt.ahead, pool.Options{})
			o := newOnLoops(t, tunnelTo, mux.Limits{}, proxies.through)
			for range 3 {
				c := o.dial(t, echo.String()+"\nearly ")
				if got, err := line(c); got != "yes" || err != nil {
					t.Fatalf("answer %q, %v, want yes", got, err)
				}
				_, _ = io.WriteString(c, "and late")
				_ = c.CloseWrite()
				want := tt.ahead + "early and late"
				if got, err := io.ReadAll(c); string(got) != want || err != nil {
					t.Errorf("the tunnel gave %q, %v, want %q", got, err, want)
				}
				r := <-o.records.ended
				if r.BytesFromClient != 14 || r.BytesFromTarget != int64(len(want)) || r.Err != nil || r.Reason != "" {
					t.Errorf("record = %+v", r)
				}
				if r.Upstream != "eu" || !strings.HasPrefix(r.Server, "http") || r.Address != echo {
					t.Errorf("record = %+v, want the way and the target's address", r)
				}
				if n := proxies.connections(); n != 0 {
					t.Errorf("%d connections are counted after the end", n)
				}
			}
		})
	}
}

// TestDrainOfTunnelsThroughProxies: what a goroutine serves for a client of a loop ends with the gateway too.
func TestDrainOfTunnelsThroughProxies(t *testing.T) {
	for _, secure := range []bool{false, true} {
		for _, kill := range []bool{false, true} {
			name := map[bool]string{false: "plain", true: "TLS"}[secure] + map[bool]string{false: ", by itself", true: ", killed"}[kill]
			t.Run(name, func(t *testing.T) {
				echo := echoServer(t)
				proxies := newConnectProxies(t, 1, secure, "", pool.Options{})
				o := newOnLoops(t, tunnelTo, mux.Limits{}, proxies.through)
				c := o.dial(t, echo.String()+"\nx")
				if got, err := line(c); got != "yes" || err != nil {
					t.Fatalf("answer %q, %v, want yes", got, err)
				}
				if b, err := io.ReadAll(io.LimitReader(c, 1)); string(b) != "x" || err != nil {
					t.Fatalf("the tunnel gave %q, %v", b, err)
				}
				if err := o.server.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if kill {
					cancel()
				} else {
					c.Close()
				}
				killed := o.Drain(ctx)
				if want := map[bool]int{true: 1}[kill]; killed != want {
					t.Errorf("%d sessions were killed, want %d", killed, want)
				}
				r := <-o.records.ended
				if want := map[bool]string{true: string(mux.ShuttingDown)}[kill]; kill && r.Reason != want {
					t.Errorf("record = %+v, want reason %q", r, want)
				}
				if n := proxies.connections(); n != 0 {
					t.Errorf("%d connections are counted after the end", n)
				}
			})
		}
	}
}

// TestASilentProxyIsNotWaitedFor: a session that waits for a proxy's answer ends when the gateway does.
func TestASilentProxyIsNotWaitedFor(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			ln, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			proxy, err := upstream.NewProxy(upstream.ProxyOptions{URL: scheme + "://" + ln.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			u, err := upstream.New(upstream.Options{Proxies: []*upstream.Proxy{proxy}, Pool: pool.Options{Name: "eu"}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			c := &connectProxies{upstream: u}
			o := newOnLoops(t, tunnelTo, mux.Limits{}, c.through)
			client := o.dial(t, netip.MustParseAddrPort("127.0.0.1:9").String()+"\n")
			silent, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			if err := o.server.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			now, cancel := context.WithCancel(t.Context())
			cancel()
			begun := time.Now()
			if killed := o.Drain(now); killed != 1 {
				t.Errorf("%d sessions were killed, want 1", killed)
			}
			select {
			case r := <-o.records.ended:
				if r.Reason != string(mux.ShuttingDown) {
					t.Errorf("record = %+v, want reason %q", r, mux.ShuttingDown)
				}
			default:
				t.Errorf("the session goes on after %v", time.Since(begun))
			}
			if b, err := io.ReadAll(client); len(b) != 0 {
				t.Errorf("the client got %q, %v", b, err)
			}
			if n := c.connections(); n != 0 {
				t.Errorf("%d connections are counted after the end", n)
			}
		})
	}
}

// TestLeastConnectionsFollowsTunnels: a tunnel counts until its end, and the next one goes where there are fewer.
func TestLeastConnectionsFollowsTunnels(t *testing.T) {
	echo := echoServer(t)
	proxies := newConnectProxies(t, 3, false, "", pool.Options{Balance: pool.LeastConnections})
	o := newOnLoops(t, tunnelTo, mux.Limits{}, proxies.through)
	open := func() *net.TCPConn {
		t.Helper()
		c := o.dial(t, echo.String()+"\n")
		if got, err := line(c); got != "yes" || err != nil {
			t.Fatalf("answer %q, %v, want yes", got, err)
		}
		return c
	}
	counts := func() (all [3]int64) {
		for i, m := range proxies.upstream.Pool().Members() {
			all[i] = m.Status().Connections
		}
		return all
	}
	var tunnels []*net.TCPConn
	for range 6 {
		tunnels = append(tunnels, open())
	}
	if got := counts(); got != [3]int64{2, 2, 2} {
		t.Errorf("six tunnels count %v", got)
	}
	for _, c := range tunnels[:3] {
		c.Close()
		<-o.records.ended
	}
	before := counts()
	for range 3 {
		tunnels = append(tunnels, open())
	}
	if got := counts(); got != [3]int64{2, 2, 2} {
		t.Errorf("of %v three more tunnels make %v", before, got)
	}
	for _, c := range tunnels[3:] {
		c.Close()
		<-o.records.ended
	}
	if got := counts(); got != [3]int64{} {
		t.Errorf("after the end %v are counted", got)
	}
}
