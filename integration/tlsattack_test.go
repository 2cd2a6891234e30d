package integration

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// helloFor is a real ClientHello for the gateway.
func helloFor(name string) []byte {
	var hello firstWrite
	_ = tls.Client(&hello, &tls.Config{ServerName: name}).Handshake() // ends at its first read
	return hello.bytes
}

// hasty has short timeouts.
const hasty = "[sniff]\ntimeout = \"700ms\"\nsilent_after = \"300ms\"\n[timeouts]\nhandshake = \"500ms\"\n"

func TestUnfinishedHandshakes(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g := startTidy(t, hasty+listenAnywhere+p.table()+allowLoopback)
	hello := helloFor(ownName)
	tests := []struct {
		name   string
		begin  func(*testing.T) net.Conn
		record map[string]any
	}{
		{"half a hello", func(t *testing.T) net.Conn {
			c := dial(t, g.at())
			say(t, c, string(hello[:len(hello)/2]))
			return c
		}, map[string]any{"protocol": "tls", "reason": "handshake_timeout", "tls": ""}},
		{"a hello and nothing behind it", func(t *testing.T) net.Conn {
			c := dial(t, g.at())
			say(t, c, string(hello))
			return c
		}, map[string]any{"protocol": "tls", "reason": "handshake_timeout", "tls": ""}},
		{"a hello and garbage behind it", func(t *testing.T) net.Conn {
			c := dial(t, g.at())
			say(t, c, string(hello)+strings.Repeat("\xff", 1000))
			return c
		}, map[string]any{"protocol": "tls", "reason": "tls_handshake_failed", "tls": ""}},
		{"nothing inside", func(t *testing.T) net.Conn { return p.dial(g.at()) }, map[string]any{"protocol": "tls", "reason": "sniff_timeout", "tls": "TLS 1.3"}},
		{"half a request inside", func(t *testing.T) net.Conn {
			c := p.dial(g.at())
			say(t, c, "CONNECT 127.0.0.1:1 HTT")
			return c
		}, map[string]any{"protocol": "connect", "tls": "TLS 1.3"}},
		{"garbage inside", func(t *testing.T) net.Conn {
			c := p.dial(g.at())
			say(t, c, "\xff\xfe\xfd\xfc")
			return c
		}, map[string]any{"protocol": "reject", "reason": "unknown_protocol", "tls": "TLS 1.3", "server_name": ownName}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := tt.begin(t)
			_, _ = io.Copy(io.Discard, c) // to its end
			c.Close()
			check(t, g.record("client="+c.LocalAddr().String()), tt.record)
		})
	}
}

// TestRenegotiation has openssl's client ask for it, which TLS 1.3 no longer has.
func TestRenegotiation(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	g := startTidy(t, listenAnywhere+p.table()+allowLoopback)
	cmd := command(t, "openssl", "s_client", "-connect", g.at(), "-servername", ownName, "-CAfile", p.ca(), "-tls1_2")
	commands, say, err := os.Pipe() // whose end would be that of s_client
	if err != nil {
		t.Fatal(err)
	}
	defer say.Close()
	defer commands.Close()
	if _, err := say.WriteString("R\n"); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = commands
	got := finish(t, cmd)
	if !strings.Contains(got.stderr, "RENEGOTIATING") || !strings.Contains(got.stderr, "alert") {
		t.Errorf("s_client ended with %d and said %q, want that it renegotiates and hears an alert", got.code, got.stderr)
	}
	g.record("listener=main", "tls=TLS 1.2")
}

// goroutine begins one in what a Go program prints on SIGQUIT; coroutines are kept for the next connections, and the
// collector's own (GC worker) come and go.
var goroutine = regexp.MustCompile(`(?m)^goroutine \d+ .*\[[^cG].*$`)

// goroutines ends the gateway and returns how many it had.
func (g *gateway) goroutines() int {
	g.t.Helper()
	g.signal(syscall.SIGQUIT)
	select {
	case <-g.exited:
	case <-time.After(patience):
		g.t.Fatal("polyport did not end by SIGQUIT")
	}
	return len(goroutine.FindAllString(g.log(), -1))
}

// TestHandshakesBrokenOff breaks thousands of handshakes off, each somewhere else.
func TestHandshakesBrokenOff(t *testing.T) {
	t.Parallel()
	p, w := newPapers(t), newWeb(t)
	config := "[log]\naccess = \"off\"\n" + listenAnywhere + p.table() + allowLoopback
	g, idle := start(t, config), start(t, config)
	serve := func(g *gateway) {
		if got, _ := p.secureCurl(g.at(), "", "http://"+w.plain+"/"); got.code != 0 {
			t.Errorf("curl ended with %d: %s", got.code, got.stderr)
		}
	}
	serve(g)
	serve(idle)
	before := g.descriptors()
	hello := helloFor(ownName)
	var crowd sync.WaitGroup
	work := make(chan int)
	for range 8 {
		crowd.Go(func() {
			for i := range work {
				breakOff(g.at(), hello, i, p)
			}
		})
	}
	const attempts = 3000
	for i := range attempts {
		work <- i
	}
	close(work)
	crowd.Wait()
	serve(g)
	g.settle(before + 2) // of the origin's kept connection
	want := idle.goroutines()
	if got := g.goroutines(); got > want+2 {
		t.Errorf("after %d handshakes that were broken off there are %d goroutines, want %d as in a gateway at rest", attempts, got, want)
	}
}

// breakOff begins a handshake and goes, in order or not.
func breakOff(addr string, hello []byte, i int, p *papers) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if i%3 == 0 {
		_ = c.(*net.TCPConn).SetLinger(0)
	}
	switch i % 5 {
	case 0:
		_, _ = c.Write(hello[:1+i%(len(hello)-1)])
	case 1:
		_, _ = c.Write(hello)
	case 2: // once the gateway has answered
		_, _ = c.Write(hello)
		_, _ = c.Read(make([]byte, 1))
	case 3:
		_, _ = c.Write(append(hello[:len(hello):len(hello)], "\x17\x03\x03\x00\x10not what follows"...))
		_, _ = io.Copy(io.Discard, c)
	case 4: // the client's last flight is withheld
		_ = tls.Client(&cutShort{Conn: c, writes: 1 + i%2}, &tls.Config{ServerName: ownName, InsecureSkipVerify: true}).Handshake()
	}
}

// cutShort lets some writes pass and fails then.
type cutShort struct {
	net.Conn
	writes int
}

func (c *cutShort) Write(b []byte) (int, error) {
	if c.writes--; c.writes < 0 {
		return 0, errors.New("cut short")
	}
	return c.Conn.Write(b)
}

// TestCloseNotifyIsMissing has clients end their TCP connection without the end of TLS. Between two records that passes
// for an end, as many programs mean it; within one, what has come is cut short (RFC 8446 section 6.1), and
// the target must not take it for whole.
func TestCloseNotifyIsMissing(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	st := newStage(t, p.table())
	st.insideTLS(p)
	st.tls = "TLS 1.3"
	for _, d := range dialects() {
		if d.name != "connect 127.0.0.1" && d.row != "" {
			continue
		}
		t.Run(d.name+" between records", func(t *testing.T) {
			tn := st.tunnel(t, d, "", inOnePiece)
			tn.toServer(t, "all that I have to say")
			shut(t, tn.client.(*inside).bare, tn.server)
			tn.toClient(t, "and now the server talks on")
			shut(t, tn.server, tn.client)
			st.checkRecord(t, tn, "")
		})
		t.Run(d.name+" within a record", func(t *testing.T) {
			tn := st.tunnel(t, d, "", inOnePiece)
			tn.toServer(t, "all that I have to")
			bare := tn.client.(*inside).bare
			say(t, bare, "\x17\x03\x03\x01\x00 half a record")
			if err := bare.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(tn.server); !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
				t.Errorf("the target got %q, %v; want a reset", b, err)
			}
			l := st.g.record("client=" + tn.client.LocalAddr().String())
			if l.str("reason") == "" || l.str("err") == "" {
				t.Errorf("the record takes it for a good end: %v", l)
			}
		})
		t.Run(d.name+" in what is no record", func(t *testing.T) {
			tn := st.tunnel(t, d, "", inOnePiece)
			tn.toServer(t, "all that I have to")
			say(t, tn.client.(*inside).bare, "\x17\x03\x03\x00\x20"+strings.Repeat("x", 32)) // forged
			if b, err := io.ReadAll(tn.server); !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
				t.Errorf("the target got %q, %v; want a reset", b, err)
			}
			l := st.g.record("client=" + tn.client.LocalAddr().String())
			if l.str("reason") == "" || l.str("err") == "" {
				t.Errorf("the record takes it for a good end: %v", l)
			}
		})
	}
	st.g.settle(st.idle)
}

// TestEarlyDataBehindTheHandshake sends what is asked, and what follows, in one segment with the client's last flight.
func TestEarlyDataBehindTheHandshake(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	st := newStage(t, p.table())
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		st.tls = tls.VersionName(version)
		for _, d := range dialects() {
			if d.host == "::1" {
				continue
			}
			t.Run(st.tls+" "+d.name, func(t *testing.T) {
				bare := dial(t, st.g.at())
				held := &holding{Conn: bare}
				layer := tls.Client(held, &tls.Config{ServerName: ownName, RootCAs: p.trust(), MinVersion: version, MaxVersion: version})
				if err := layer.Handshake(); err != nil {
					t.Fatal(err)
				}
				st.connect = func(*testing.T, string) end { return &inside{Conn: layer, bare: bare} }
				tn := st.tunnel(t, d, "and early data", func(t *testing.T, c net.Conn, b []byte) {
					inOnePiece(t, c, b)
					held.release(t)
				})
				tn.toClient(t, "an answer")
				tn.toServer(t, "a question")
				tn.close(t)
				st.checkRecord(t, tn, "")
			})
		}
	}
}

// holding gathers what is written until something has to be read.
type holding struct {
	net.Conn
	held []byte
	open bool
}

func (h *holding) Write(b []byte) (int, error) {
	if h.open {
		return h.Conn.Write(b)
	}
	h.held = append(h.held, b...)
	return len(b), nil
}

func (h *holding) Read(b []byte) (int, error) {
	if len(h.held) > 0 {
		if _, err := h.Conn.Write(h.held); err != nil {
			return 0, err
		}
		h.held = nil
	}
	return h.Conn.Read(b)
}

// release writes what is held and holds nothing any more.
func (h *holding) release(t *testing.T) {
	t.Helper()
	h.open = true
	if _, err := h.Conn.Write(h.held); err != nil {
		t.Fatal(err)
	}
	h.held = nil
}

func TestTunnelsInsideTLSOutliveAShutdown(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	st := newStage(t, p.table())
	st.insideTLS(p)
	st.tls = "TLS 1.3"
	var open []*tunnelled
	for _, d := range dialects() {
		if d.host != "::1" {
			open = append(open, st.tunnel(t, d, "", inOnePiece))
		}
	}
	p.renew() // and a reload leaves them alone too
	if l := st.g.reload(listenBoth + "[[rule]]\nname = \"nobody\"\naction = \"deny\"\n[timeouts]\ndrain = \"50s\"\n"); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	for _, tn := range open {
		tn.toServer(t, "behind a reload without TLS")
	}
	st.g.signal(syscall.SIGTERM)
	st.g.wait("the beginning of the end", func(l logLine) bool { return l.str("msg") == "shutting down" })
	for _, tn := range open {
		t.Run(tn.d.name, func(t *testing.T) {
			tn.toServer(t, "a last question")
			tn.toClient(t, "a last answer")
			tn.close(t)
			st.checkRecord(t, tn, "")
		})
	}
	<-st.g.exited
	if st.g.status != nil {
		t.Errorf("polyport ended with %v", st.g.status)
	}
}

// TestKilledAndStartedAgain shows a ticket of a gateway that has been killed to the one that follows it.
func TestKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	p := newPapers(t)
	config := listenAnywhere + p.table() + allowLoopback
	g := start(t, config)
	c := p.dial(g.at())
	p.ticket(g.at(), "-tls1_3", "-sess_out", p.path("ticket"))
	if err := g.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-g.exited
	if b, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) || len(b) > 0 {
		t.Errorf("the client of a gateway that was killed got %q, %v; want its end", b, err)
	}
	again := startTidy(t, config)
	if got := p.ticket(again.at(), "-tls1_3", "-sess_in", p.path("ticket")); !strings.Contains(got, "New, TLSv1.3") {
		t.Errorf("with a ticket of another process s_client says %s, want New", got)
	}
}
