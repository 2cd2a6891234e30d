package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// The wait for a proxy that is silent ends with the context.
func TestAProxyIsNotWaitedForInVain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	proxy := proxyAt(t, "127.0.0.1:0", func(p *testProxy, c net.Conn) {
		cancel()
		silent(p, c)
	})
	eject := pool.Eject{Failures: 1}
	u := upstreamOf(t, upstream.Options{Pool: pool.Options{Eject: eject}}, "socks5://"+proxy.at.String())
	d := throughUpstream(t, u, Options{ConnectTimeout: -1})
	p, err := d.Authorize(t.Context(), to(t, "127.0.0.1:9"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(ctx, p, OpenOptions{}); err == nil || reasonOf(t, err) != ConnectionTerminated {
		t.Errorf("Open = %v, want %s", err, ConnectionTerminated)
	}
	if got := states(u.Pool())[0]; got != pool.Up {
		t.Errorf("the server is %v for it, want it up", got)
	}
	checkNoneCounted(t, u.Pool())
}

// ejecting makes a permit for a backend whose servers are left alone after one failure.
func ejecting(t *testing.T, f *fakeNet, pause time.Duration, servers ...string) (*Dialer, *Permit, *pool.Pool) {
	t.Helper()
	b, err := upstream.NewBackend(upstream.BackendOptions{
		Servers: servers, Pool: pool.Options{Name: "b", Eject: pool.Eject{Failures: 1, Pause: pause, MaxPause: time.Hour}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{Policy: policy(t, false, allowAll)})
	d.dial = f.dial
	p, err := d.AuthorizeBackend(t.Context(), to(t, "row.example:1"), b)
	if err != nil {
		t.Fatal(err)
	}
	return d, p, b.Pool()
}

// One connection finds out whether a server that was left alone is well again; when it fails the others leave it alone for longer.
func TestATrialThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNet(script{"10.0.0.1": {err: errors.New("no")}, "10.0.0.2": {}})
		d, p, servers := ejecting(t, f, 10*time.Second, "10.0.0.1:1", "10.0.0.2:1")
		dial := func(want ...string) {
			t.Helper()
			f.log, f.start = nil, time.Now()
			link, err := d.Open(t.Context(), p, OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			link.Release()
			if !slices.Equal(f.log, want) {
				t.Errorf("the attempts were %q, want %q", f.log, want)
			}
		}
		dial("0s 10.0.0.1", "0s 10.0.0.2")
		dial("0s 10.0.0.2")
		time.Sleep(10 * time.Second)
		dial("0s 10.0.0.1", "0s 10.0.0.2")
		dial("0s 10.0.0.2")
		time.Sleep(10 * time.Second)
		dial("0s 10.0.0.2") // the pause has doubled
		f.script["10.0.0.1"] = behaviour{}
		time.Sleep(10 * time.Second)
		dial("0s 10.0.0.1")
		dial("0s 10.0.0.1")
		checkNoneCounted(t, servers)
	})
}

// Who had hardly any time is not said to have failed.
func TestServersThatHaveHadNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := script{}
		var servers []string
		for i := range 40 {
			a := fmt.Sprintf("10.0.0.%d", i+1)
			all[a] = hangs
			servers = append(servers, a+":1")
		}
		f := newFakeNet(all)
		d, p, pool1 := ejecting(t, f, time.Hour, servers...)
		begun := time.Now()
		_, err := d.Open(t.Context(), p, OpenOptions{})
		if reasonOf(t, err) != ConnectionTimeout || !strings.Contains(err.Error(), " more") {
			t.Errorf("Open = %v, want %s of some and how many more", err, ConnectionTimeout)
		}
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("that took %v, want 10s", took)
		}
		tried := len(f.log)
		if tried < 10 || tried > 30 {
			t.Errorf("%d servers were tried, want as many as get 250ms or more", tried)
		}
		for i, s := range states(pool1) {
			if want := i < tried-1; (s == pool.Ejected) != want {
				t.Errorf("server %d of %d that were tried is %v", i+1, tried, s)
			}
		}
		checkNoneCounted(t, pool1)
	})
}

// A panic in a dial is that of one session; the counts must not suffer.
func TestCountsAfterAPanic(t *testing.T) {
	d, p, servers := ejecting(t, newFakeNet(nil), time.Hour, "10.0.0.1:1")
	panics := func(context.Context, *dialSet, netip.AddrPort, time.Time) (net.Conn, error) { panic("a fault") }
	d.dial = panics
	through := throughUpstream(t, upstreamOf(t, upstream.Options{}, "socks5://192.0.2.1"), Options{})
	through.dial = panics
	p2, err := through.Authorize(t.Context(), to(t, "127.0.0.1:9"))
	if err != nil {
		t.Fatal(err)
	}
	open := func(d *Dialer, p *Permit) {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		_, _ = d.Open(t.Context(), p, OpenOptions{})
	}
	open(d, p)
	open(through, p2)
	checkNoneCounted(t, servers, p2.way.upstream.Pool())
}

// h2Proxy serves CONNECT of HTTP/2 in TLS.
func h2Proxy(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		far, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer far.Close()
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		done := make(chan struct{})
		go func() {
			defer close(done)
			io.Copy(far, r.Body)
			far.(*net.TCPConn).CloseWrite()
		}()
		var b [4096]byte
		for {
			n, err := far.Read(b[:])
			w.Write(b[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				break
			}
		}
		<-done
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// Tunnels of HTTP/2 share a connection, which counts with the proxies in front as long as it lasts, not as long as the first tunnel.
func TestHTTP2BehindAnotherProxy(t *testing.T) {
	echo := echoAt(t, "127.0.0.1:0")
	near := proxyAt(t, "127.0.0.1:0", socks5(""))
	server := h2Proxy(t)
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	proxy, err := upstream.NewProxy(upstream.ProxyOptions{URL: "h2://" + server.Listener.Addr().String(), RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	u1 := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "near"}}, "socks5://"+near.at.String())
	u2 := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "far"}, Via: u1, Proxies: []*upstream.Proxy{proxy}})
	d := throughUpstream(t, u2, Options{})
	var links []Link
	for range 3 {
		link, err := openTo(t, d, echo.String(), OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		checkEcho(t, link.Conn)
		links = append(links, link)
	}
	counts := func(want1, want2 int64) {
		t.Helper()
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			got1, got2 := u1.Pool().Members()[0].Status().Connections, u2.Pool().Members()[0].Status().Connections
			if got1 == want1 && got2 == want2 {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("the proxies count %d and %d connections, want %d and %d", got1, got2, want1, want2)
			}
		}
	}
	counts(1, 3)
	for i := range links {
		links[i].Conn.Close()
		links[i].Release()
	}
	counts(1, 0)
	u2.Close()
	counts(0, 0)
	if n := near.connections(); n != 1 {
		t.Errorf("the proxy in front has had %d connections, want 1", n)
	}
}

// Users whom a proxy in front is to be the same for share no connection of HTTP/2 with others, who may have got another one.
func TestHTTP2BehindAProxyThatUsersStickTo(t *testing.T) {
	echo := echoAt(t, "127.0.0.1:0")
	near := proxyAt(t, "127.0.0.1:0", socks5(""))
	server := h2Proxy(t)
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	proxy, err := upstream.NewProxy(upstream.ProxyOptions{URL: "h2://" + server.Listener.Addr().String(), RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	u1 := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "near", Balance: pool.StickyUser}}, "socks5://"+near.at.String())
	u2 := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "far"}, Via: u1, Proxies: []*upstream.Proxy{proxy}})
	d := throughUpstream(t, u2, Options{})
	for _, user := range []string{"alice", "bob", "alice"} {
		r := to(t, echo.String())
		r.Identity = user
		p, err := d.Authorize(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		link, err := d.Open(t.Context(), p, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		checkEcho(t, link.Conn)
		link.Conn.Close()
		link.Release()
	}
	if n := near.connections(); n != 2 {
		t.Errorf("the proxy in front has had %d connections, want one for each user", n)
	}
}

// Many want a tunnel of a proxy that cannot be reached: each gets an error of its own.
func TestHTTP2ThatCannotBeReached(t *testing.T) {
	u := upstreamOf(t, upstream.Options{}, "h2://"+closedPort(t, "127.0.0.1:0").String())
	d := throughUpstream(t, u, Options{})
	errs := make(chan error, 20)
	for i := range cap(errs) {
		go func() {
			p, err := d.Authorize(t.Context(), to(t, fmt.Sprintf("127.0.0.1:%d", 1000+i)))
			if err == nil {
				_, err = d.Open(t.Context(), p, OpenOptions{})
			}
			errs <- err
		}()
	}
	seen := map[string]bool{}
	for range cap(errs) {
		err := <-errs
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("Open = %v, want an *Error", err)
		}
		seen[e.Target.String()] = true
		if e.Reason != ConnectionRefused && e.Reason != DestinationUnavailable {
			t.Errorf("Open = %v, want %s, or that no server is left", err, ConnectionRefused)
		}
	}
	if len(seen) != cap(errs) {
		t.Errorf("%d targets are named, want %d", len(seen), cap(errs))
	}
	if remembered := u.Pool().Members()[0].Status().Err; remembered == nil || strings.Contains(remembered.Error(), "127.0.0.1:1") {
		t.Errorf("the pool remembers %v, want why, without anybody's target", remembered)
	}
	checkNoneCounted(t, u.Pool())
}

func TestProbes(t *testing.T) {
	answer := func(text string) func(*testProxy, net.Conn) {
		return func(p *testProxy, c net.Conn) {
			req, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			p.mu.Lock()
			p.asked = append(p.asked, req.Method+" "+req.Host+req.URL.Path)
			p.mu.Unlock()
			io.WriteString(c, text)
		}
	}
	web := proxyAt(t, "127.0.0.1:0", answer("HTTP/1.1 204 Yes\r\n\r\n"))
	get := func(p Probe) Probe { p.Kind, p.Path = ProbeHTTP, "/health"; return p }
	at := func(p *testProxy) upstream.Destination {
		return upstream.Destination{Addr: p.at.Addr(), Port: p.at.Port()}
	}
	tests := []struct {
		name  string
		serve func(*testProxy, net.Conn)
		proxy bool
		probe Probe
		says  string // "" is health
		heard string
	}{
		{name: "connect", serve: silent},
		{name: "connect to nobody", says: "connection refused"},
		{name: "connect to a proxy", serve: silent, proxy: true},
		{name: "connect to no proxy", proxy: true, says: "connection refused"},
		{name: "a tunnel", serve: socks5(""), proxy: true, probe: Probe{Kind: ProbeTunnel, Target: at(web)}, heard: web.at.String()},
		{name: "a tunnel that is refused", serve: socks5("u:p"), proxy: true, probe: Probe{Kind: ProbeTunnel, Target: at(web)}, says: "requires a user"},
		{name: "a tunnel of a proxy that is silent", serve: silent, proxy: true, probe: Probe{Kind: ProbeTunnel, Target: at(web)}, says: "silent"},
		{name: "GET through a tunnel", serve: socks5(""), proxy: true, probe: get(Probe{Target: at(web)}), heard: web.at.String()},
		{name: "GET", serve: answer("HTTP/1.1 200 OK\r\n\r\n"), probe: get(Probe{}), heard: "GET %s/health"},
		{name: "GET of a host", serve: answer("HTTP/1.1 399 Odd\r\n\r\n"), probe: get(Probe{Host: "www.example.com"}), heard: "GET www.example.com/health"},
		{name: "GET, 400", serve: answer("HTTP/1.1 400 No\r\n\r\n"), probe: get(Probe{}), says: "is 400, not one from 200 to 399", heard: "GET %s/health"},
		{name: "GET, 199", serve: answer("HTTP/1.1 199 Odd\r\n\r\n"), probe: get(Probe{}), says: "is 199", heard: "GET %s/health"},
		{name: "GET of something else", serve: answer("SSH-2.0-x\r\n"), probe: get(Probe{}), says: "read the answer", heard: "GET %s/health"},
		{name: "GET without end", serve: answer("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 1<<17)), probe: get(Probe{}), says: "read the answer", heard: "GET %s/health"},
		{name: "GET of one that is silent", serve: silent, probe: get(Probe{}), says: "i/o timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := &testProxy{at: closedPort(t, "127.0.0.1:0")}
			if tt.serve != nil {
				server = proxyAt(t, "127.0.0.1:0", tt.serve)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			d := New(Options{})
			var err error
			var p *pool.Pool
			if tt.proxy {
				u := upstreamOf(t, upstream.Options{}, "socks5://"+server.at.String())
				p, err = u.Pool(), d.ProbeUpstream(ctx, u, 0, tt.probe)
			} else {
				b := newBackend("b", server.at.String())
				p, err = b.Pool(), d.ProbeBackend(ctx, b, 0, tt.probe)
			}
			if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the check says %v, want %q", err, tt.says)
			}
			heard := strings.Join(server.heard(), ", ")
			if want := strings.ReplaceAll(tt.heard, "%s", server.at.String()); heard != want {
				t.Errorf("the server was asked for %q, want %q", heard, want)
			}
			checkNoneCounted(t, p)
		})
	}
}

// A check that nobody waits for any more ends at once: a reload waits for it.
func TestAProbeEndsWithItsContext(t *testing.T) {
	for name, kind := range map[string]ProbeKind{"a tunnel": ProbeTunnel, "GET": ProbeHTTP} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			server := proxyAt(t, "127.0.0.1:0", func(p *testProxy, c net.Conn) {
				cancel()
				silent(p, c)
			})
			probe := Probe{Kind: kind, Path: "/", Target: upstream.Destination{Host: "a.example", Port: 80}}
			d := New(Options{})
			u := upstreamOf(t, upstream.Options{}, "socks5://"+server.at.String())
			if err := d.ProbeUpstream(ctx, u, 0, probe); err == nil {
				t.Error("a check of a proxy that says nothing is good")
			}
			if kind == ProbeHTTP {
				if err := d.ProbeBackend(ctx, newBackend("b", server.at.String()), 0, probe); err == nil {
					t.Error("a check of a server that says nothing is good")
				}
			}
		})
	}
}
