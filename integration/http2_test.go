package integration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/http2"
)

//lint:file-ignore SA1019 net/http's ClientConn has no Ping and no State

// h2Client is the HTTP/2 client of the Go project on one connection to the gateway.
type h2Client struct {
	t    *testing.T
	nc   net.Conn
	conn *http2.ClientConn
}

// newH2Client speaks HTTP/2 on a connection: by prior knowledge in clear text, else by ALPN.
func newH2Client(t *testing.T, nc net.Conn) *h2Client {
	t.Helper()
	if c, secure := nc.(*inside); secure && c.ConnectionState().NegotiatedProtocol != "h2" {
		t.Fatalf("the gateway chose %q, want h2", c.ConnectionState().NegotiatedProtocol)
	}
	conn, err := (&http2.Transport{AllowHTTP: true, DisableCompression: true}).NewClientConn(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &h2Client{t, nc, conn}
}

// h2 has a client offer HTTP/2.
func h2(c *tls.Config) { c.NextProtos = []string{"h2"} }

// get asks for a URL.
func (c *h2Client) get(t *testing.T, url string, fields ...string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	resp, err := c.conn.RoundTrip(req)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("GET %s: %d %q and then %v", url, resp.StatusCode, all, err)
	}
	return resp.StatusCode, string(all)
}

// h2Stream is a CONNECT stream as the end of a tunnel.
type h2Stream struct {
	net.Conn // for its addresses alone
	body     io.ReadCloser
	to       *io.PipeWriter
	cancel   context.CancelFunc
	abort    bool
}

// connect opens one. Its status is that of the answer.
func (c *h2Client) connect(t *testing.T, target string, fields ...string) (s *h2Stream, status int) {
	t.Helper()
	from, to := io.Pipe()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	req := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Scheme: "https", Host: target}, Host: target, Header: http.Header{}, Body: from}).WithContext(ctx)
	for i := 0; i < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	resp, err := c.conn.RoundTrip(req)
	if err != nil {
		t.Fatalf("CONNECT %s: %v", target, err)
	}
	return &h2Stream{Conn: c.nc, body: resp.Body, to: to, cancel: cancel}, resp.StatusCode
}

// Read says of a stream that was reset with CONNECT_ERROR what that stands for (RFC 9113 section 8.5).
func (s *h2Stream) Read(b []byte) (int, error) {
	n, err := s.body.Read(b)
	var reset http2.StreamError
	if errors.As(err, &reset) && reset.Code == http2.ErrCodeConnect {
		err = syscall.ECONNRESET
	}
	return n, err
}

func (s *h2Stream) Write(b []byte) (int, error) { return s.to.Write(b) }
func (s *h2Stream) CloseWrite() error           { return s.to.Close() }
func (s *h2Stream) SetLinger(sec int) error     { s.abort = sec == 0; return nil }

func (s *h2Stream) Close() error {
	if s.abort {
		s.cancel()
		return errors.Join(s.to.CloseWithError(context.Canceled), s.body.Close()) // an end of what it sends might overtake the reset
	}
	return errors.Join(s.to.Close(), s.body.Close())
}

func TestTunnelsOfHTTP2(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	st := newStage(t, p.table())
	clients := map[string]*h2Client{"": newH2Client(t, dial(t, st.g.at())), "TLS 1.3": newH2Client(t, p.dial(st.g.at(), h2))}
	for secured, c := range clients {
		st.tls = secured
		d := dialect{row: "connect", host: "127.0.0.1", version: "HTTP/2", method: "CONNECT", ok: 200}
		d.open = func(t *testing.T, st *stage, early string) end {
			s, status := c.connect(t, d.target(st.open))
			if status != 200 {
				t.Fatalf("CONNECT: %d", status)
			}
			say(t, s, early)
			return s
		}
		for _, sc := range scenarios {
			switch sc.name {
			case "denied", "refused", "timeout":
				continue // whose answers are heads
			}
			t.Run(secured+" "+sc.name, func(t *testing.T) { sc.play(t, st, d) })
		}
		for want, p := range map[int]place{403: st.forbidden, 502: st.closed} {
			if s, status := c.connect(t, d.target(p)); status != want {
				t.Errorf("CONNECT to %s: %d, want %d", p.name, status, want)
			} else {
				s.Close()
			}
		}
		if !c.conn.CanTakeNewRequest() {
			t.Error("the connection has not outlived its streams")
		}
		c.nc.Close()
	}
	st.g.settle(st.idle)
}

// TestOneConnectionOfHTTP2 has many streams at once on one connection, which the log names.
func TestOneConnectionOfHTTP2(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	g := startTidy(t, listenAnywhere+p.table()+allowLoopback)
	c := newH2Client(t, p.dial(g.at(), h2))
	const streams = 50
	var crowd sync.WaitGroup
	for i := range streams {
		crowd.Go(func() {
			path := fmt.Sprintf("/%d", i)
			if status, body := c.get(t, "http://"+w.plain+path); status != 200 || body != "hello from "+w.plain+path+" over HTTP/1.1" {
				t.Errorf("GET %s: %d %q", path, status, body)
			}
		})
	}
	crowd.Wait()
	connections, numbers := map[string]bool{}, map[int64]bool{}
	for range streams {
		l := g.record("client="+c.nc.LocalAddr().String(), "protocol=http")
		check(t, l, map[string]any{"version": "HTTP/2", "tls": "TLS 1.3", "server_name": ownName, "status": 200.0})
		connections[l.str("connection")], numbers[l.num("stream")] = true, true
	}
	c.nc.Close()
	whole := g.record("client="+c.nc.LocalAddr().String(), "protocol=h2")
	check(t, whole, map[string]any{"version": "HTTP/2", "tls": "TLS 1.3", "reason": ""})
	if len(connections) != 1 || !connections[whole.str("id")] || len(numbers) != streams {
		t.Errorf("the records name the connections %v and %d streams, want %s and %d", connections, len(numbers), whole.str("id"), streams)
	}
}

// TestHTTP2LogsIn asks without a user, and with one on the same connection: each stream stands for itself.
func TestHTTP2LogsIn(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	alice := p.client("alice")
	g := members(t, listenAnywhere+p.table()+p.clientTable("htpasswd = \"users.htpasswd\"\n")+allowLoopback)
	name, login, _ := strings.Cut(strings.TrimSpace(basic(clubUser+":"+clubPassword)), ": ")
	c := newH2Client(t, p.dial(g.at(), h2))
	for range 2 {
		if status, _ := c.get(t, "http://"+w.plain+"/"); status != 407 {
			t.Errorf("GET without a user: %d, want 407", status)
		}
		if s, status := c.connect(t, w.plain); status != 407 {
			t.Errorf("CONNECT without a user: %d, want 407", status)
		} else {
			s.Close()
		}
		if status, body := c.get(t, "http://"+w.plain+"/", name, login); status != 200 || !strings.Contains(body, "hello") {
			t.Errorf("GET with a user: %d %q, want 200", status, body)
		}
		s, status := c.connect(t, w.plain, name, login)
		if status != 200 {
			t.Errorf("CONNECT with a user: %d, want 200", status)
		}
		s.Close()
	}
	check(t, g.record("protocol=http", "status=200"), map[string]any{"identity": clubUser, "version": "HTTP/2"})
	certified := newH2Client(t, p.dial(g.at(), h2, alice.with(t)))
	if status, _ := certified.get(t, "http://"+w.plain+"/"); status != 200 {
		t.Errorf("GET with a certificate: %d, want 200", status)
	}
	check(t, g.record("client="+certified.nc.LocalAddr().String(), "protocol=http"), map[string]any{"identity": "alice", "version": "HTTP/2"})
}

// TestReloadInAConnectionOfHTTP2 has the next stream be under the new rules, and the tunnel under way go on.
func TestReloadInAConnectionOfHTTP2(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	config := listenAnywhere + p.table()
	g := startTidy(t, config+allowLoopback)
	c := newH2Client(t, p.dial(g.at(), h2))
	s, status := c.connect(t, tcpServer(t, echo))
	if got, _ := c.get(t, "http://"+w.plain+"/"); got != 200 || status != 200 {
		t.Fatalf("before the reload: %d, %d", got, status)
	}
	if l := g.reload(config + "[[rule]]\nname = \"nobody\"\naction = \"deny\"\n"); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	if got, _ := c.get(t, "http://"+w.plain+"/"); got != 403 {
		t.Errorf("the next stream got %d, want 403 by the new rules", got)
	}
	say(t, s, "still here")
	hear(t, s, "still here")
	s.Close()
	c.nc.Close()
}

// TestDrainOfHTTP2 has a client be told to go, and its tunnel end in its own time.
func TestDrainOfHTTP2(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g := start(t, listenAnywhere+p.table()+"[timeouts]\ndrain = \"50s\"\n"+allowLoopback)
	for _, nc := range []net.Conn{p.dial(g.at(), h2), dial(t, g.at())} {
		c := newH2Client(t, nc)
		s, status := c.connect(t, tcpServer(t, echo))
		if status != 200 {
			t.Fatalf("CONNECT: %d", status)
		}
		defer func() {
			eventually(t, "GOAWAY", "false", slowly(func() string { return fmt.Sprint(c.conn.CanTakeNewRequest()) }))
			say(t, s, "a last word")
			hear(t, s, "a last word")
			if err := s.CloseWrite(); err != nil {
				t.Error(err)
			}
			if rest, err := io.ReadAll(s); err != nil || len(rest) > 0 {
				t.Errorf("at its end the tunnel gave %q, %v", rest, err)
			}
		}()
	}
	idle := newH2Client(t, p.dial(g.at(), h2))
	if err := idle.conn.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	g.signal(syscall.SIGTERM)
	g.wait("the beginning of the end", func(l logLine) bool { return l.str("msg") == "shutting down" })
	eventually(t, "the end of an idle connection", "true", slowly(func() string { return fmt.Sprint(idle.conn.State().Closed) }))
}

// h2spec runs it, and wants every one of its cases to pass.
func h2spec(t *testing.T, addr string, args ...string) {
	t.Helper()
	program := filepath.Join("..", ".tools", "h2spec")
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("h2spec is missing: make deps builds it (%v)", err)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	got := run(t, program, append([]string{"-h", host, "-p", port, "--strict", "--timeout", "20"}, args...)...)
	if got.code != 0 || !strings.Contains(got.stdout, "146 tests, 146 passed, 0 skipped, 0 failed") {
		_, failures, _ := strings.Cut(got.stdout, "Failures:")
		t.Errorf("h2spec ended with %d: %s%s", got.code, failures, got.stderr)
	}
}

// TestH2Spec asks for the help page, whose bytes every case can have.
func TestH2Spec(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g := startTidy(t, listenAnywhere+"[tls]\nno_sni = true\n"+p.table())
	t.Run("TLS", func(t *testing.T) { h2spec(t, g.at(), "--tls", "--insecure") })
	t.Run("clear text", func(t *testing.T) { h2spec(t, g.at()) }) // where a preface that is none is answered in HTTP/1.1
}

func TestH2Load(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	g := startTidy(t, listenAnywhere+p.table()+allowLoopback)
	tests := []struct {
		name string
		args []string
	}{
		{"clear text", []string{"--connect-to", g.at(), "http://" + w.plain + "/load"}},
		{"TLS", []string{"--connect-to", g.at(), "-H", ":authority: " + w.plain, "-H", ":scheme: http", "https://" + ownName + "/load"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mark := g.mark()
			got := run(t, "h2load", append([]string{"-n", "1000", "-c", "4", "-m", "50"}, tt.args...)...)
			if want := "1000 succeeded, 0 failed, 0 errored, 0 timeout"; got.code != 0 || !strings.Contains(got.stdout, want) || !strings.Contains(got.stdout, "1000 2xx") {
				t.Errorf("h2load ended with %d and printed %s%s, want %q", got.code, got.stdout, got.stderr, want)
			}
			check(t, g.recordSince(mark, "protocol=http", "version=HTTP/2"), map[string]any{"status": 200.0, "target": w.plain})
			got = run(t, "h2load", append([]string{"-n", "2", "-c", "1", "-m", "2"}, strings.Split(strings.ReplaceAll(strings.Join(tt.args, "\n"), "/load", "/bulk"), "\n")...)...)
			if want := "2 succeeded, 0 failed"; got.code != 0 || !strings.Contains(got.stdout, want) {
				t.Errorf("h2load of much ended with %d and printed %s%s, want %q", got.code, got.stdout, got.stderr, want)
			}
		})
	}
}

func TestNghttp(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	g := startTidy(t, listenAnywhere+"[tls]\nno_sni = true\n"+p.table()+allowLoopback)
	want := "hello from " + w.plain + "/n over HTTP/1.1"
	for _, args := range [][]string{{"http://" + g.at() + "/n"}, {"-H", ":scheme: http", "https://" + g.at() + "/n"}} {
		mark := g.mark()
		got := run(t, "nghttp", append([]string{"--no-verify-peer", "-H", ":authority: " + w.plain}, args...)...)
		if got.code != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("nghttp %v ended with %d and printed %q, %q; want %q", args, got.code, got.stdout, got.stderr, want)
		}
		check(t, g.recordSince(mark, "protocol=http"), map[string]any{"version": "HTTP/2", "target": w.plain, "status": 200.0})
	}
	file := filepath.Join(t.TempDir(), "body")
	write(t, file, strings.Repeat("all work and no play ", 50000))
	text, _ := os.ReadFile(file)
	got := run(t, "nghttp", "-H", ":authority: "+w.plain, "-d", file, "http://"+g.at()+"/sum")
	if want := sum(strings.NewReader(string(text))); got.code != 0 || !strings.HasPrefix(got.stdout, want) {
		t.Errorf("nghttp's upload ended with %d and printed %q, %q; want %q", got.code, got.stdout, got.stderr, want)
	}
}
