package mux

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"polyport/internal/reactor"
)

// serverTLS is the configuration of a server that nobody checks.
var serverTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"gw.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

var clientTLS = &tls.Config{ServerName: "gw.test", InsecureSkipVerify: true}

// sent counts the bytes that are written to a connection.
type sent struct {
	*net.TCPConn
	n atomic.Int64
}

func (s *sent) Write(p []byte) (int, error) {
	n, err := s.TCPConn.Write(p)
	s.n.Add(int64(n))
	return n, err
}

// securedPair returns the client's side of a secured connection, the connection, and what lies under it.
func securedPair(t *testing.T) (client *tls.Conn, c *Conn, under *sent) {
	t.Helper()
	ours, theirs := tcpPair(t)
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	_ = ours.SetDeadline(time.Now().Add(10 * time.Second))
	_ = theirs.SetDeadline(time.Now().Add(10 * time.Second))
	under = &sent{TCPConn: theirs}
	client, c = tls.Client(ours, clientTLS), NewConn(under, "main", "tls", nil)
	secure(t, client, c)
	return client, c, under
}

// secure does the handshake of both sides.
func secure(t *testing.T, client *tls.Conn, c *Conn) {
	t.Helper()
	layer := tls.Server(c.Beneath(), serverTLS())
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	if err := errors.Join(layer.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	c.Secure(layer)
}

func TestBeneathReplaysThePrefix(t *testing.T) {
	for _, tt := range []struct {
		name string
		how  func(io.Reader) io.Reader
	}{
		{"at once", func(r io.Reader) io.Reader { return r }},
		{"one byte at a time", iotest.OneByteReader},
		{"half of what is asked for", iotest.HalfReader},
	} {
		for _, sniffed := range []string{"", "x", "sniffed "} {
			t.Run(tt.name+", behind "+sniffed, func(t *testing.T) {
				client, server := tcpPair(t)
				defer client.Close()
				defer server.Close()
				_ = server.SetDeadline(time.Now().Add(10 * time.Second))
				c := &Conn{nc: server, tcp: server, bare: server}
				if _, err := io.WriteString(client, sniffed); err != nil {
					t.Fatal(err)
				}
				if sniffed != "" {
					for len(c.Prefix()) < len(sniffed) {
						if err := c.fill(); err != nil {
							t.Fatal(err)
						}
					}
				}
				beneath := c.Beneath()
				_, _ = io.WriteString(client, "and the rest")
				client.CloseWrite()
				got, err := io.ReadAll(tt.how(beneath))
				if string(got) != sniffed+"and the rest" || err != nil {
					t.Errorf("read %q, %v", got, err)
				}
				if c.buf != nil || c.prefix != nil {
					t.Errorf("the buffer is held, with %q in it", c.prefix)
				}
				if n, err := io.WriteString(beneath, "answer"); n != 6 || err != nil {
					t.Errorf("Write = %d, %v", n, err)
				}
			})
		}
	}
}

// What a layer has read is not in the pool any more.
func TestBeneathCopiesThePrefix(t *testing.T) {
	client, server := tcpPair(t)
	defer client.Close()
	defer server.Close()
	c := &Conn{nc: server, tcp: server, bare: server}
	_, _ = io.WriteString(client, "hello")
	if err := c.fill(); err != nil {
		t.Fatal(err)
	}
	buf, got := c.buf, make([]byte, 5)
	if _, err := io.ReadFull(c.Beneath(), got); err != nil {
		t.Fatal(err)
	}
	copy(buf[:], "secret of another")
	if string(got) != "hello" {
		t.Errorf("read %q", got)
	}
}

func TestSecure(t *testing.T) {
	ours, theirs := tcpPair(t)
	defer ours.Close()
	defer theirs.Close()
	c := NewConn(theirs, "main", "tls", nil)
	if c.TLS() != nil {
		t.Error("a plain connection has a TLS state")
	}
	client := tls.Client(ours, clientTLS)
	secure(t, client, c)
	if state := c.TLS(); state == nil || state.ServerName != "gw.test" || state.Version != tls.VersionTLS13 {
		t.Errorf("TLS() = %+v", state)
	}
	if _, ok := c.RawTCP(); ok {
		t.Error("RawTCP gives ciphertext away")
	}
	if _, ok := c.OnLoop(); ok || c.Loop() != nil {
		t.Error("a secured connection is on a loop")
	}
	_, _ = io.WriteString(client, "ping")
	if got := readRest(t, c, 4); got != "ping" {
		t.Errorf("read %q", got)
	}
	_, _ = io.WriteString(c, "pong")
	b := make([]byte, 4)
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "pong" {
		t.Errorf("the client read %q, %v", b, err)
	}
	if want := theirs.RemoteAddr().String(); c.RemoteAddr().String() != want || c.Local().String() != theirs.LocalAddr().String() {
		t.Errorf("addresses %v, %v", c.RemoteAddr(), c.Local())
	}
	c.Close()
}

func TestInject(t *testing.T) {
	inside := Table{"main": {{Name: "get", Match: word("GET ")}, {Name: "h2", Match: word("PRI ")}, vague("any"), rejectRow}}
	soon := SniffOptions{Timeout: 20 * time.Millisecond, SilentAfter: 10 * time.Millisecond, Pause: time.Millisecond}
	silent := soon
	silent.SilentRow = "vague"
	text := func(s string) func(*tls.Conn) {
		return func(c *tls.Conn) { _, _ = io.WriteString(c, s) }
	}
	tests := []struct {
		name  string
		table Table
		opts  SniffOptions
		agree string // by ALPN
		send  func(*tls.Conn)
		row   string
		cause Cause
		left  string
	}{
		{"a row", inside, SniffOptions{}, "", text("GET /"), "get", "", "GET /"},
		{"another", inside, SniffOptions{}, "", text("PRI * HTTP/2.0"), "h2", "", "PRI * HTTP/2.0"},
		{"one that is asked at a pause", inside, soon, "", text("any"), "vague", "", "any"},
		{"byte by byte", inside, SniffOptions{Pause: time.Minute}, "", func(c *tls.Conn) {
			for b := range strings.SplitSeq("GET /", "") {
				_, _ = io.WriteString(c, b)
			}
		}, "get", "", "GET /"},
		{"nothing that is known", inside, SniffOptions{}, "", text("\x16\x03\x01zzz"), RowReject, "", "\x16\x03\x01zzz"},
		{"agreed on", inside, SniffOptions{}, "h2", func(*tls.Conn) {}, "h2", "", ""},
		{"agreed on, and then broken", inside, SniffOptions{}, "h2", text("GET /"), "h2", "", "GET /"},
		{"agreed on and not served", Table{"main": {{Name: "get", Match: word("GET ")}, rejectRow}}, SniffOptions{}, "h2", func(*tls.Conn) {}, RowReject, "", ""},
		{"a listener without a table", Table{}, SniffOptions{}, "", text("GET /"), RowReject, "", "GET /"},
		{"silent", inside, soon, "", func(*tls.Conn) {}, "", SniffTimeout, ""},
		{"silent, with a row for it", inside, silent, "", func(*tls.Conn) {}, "vague", "", ""},
		{"half a word to the end", inside, soon, "", text("GE"), "", SniffTimeout, ""},
		{"closed", inside, SniffOptions{}, "", func(c *tls.Conn) { c.Close() }, "", ClosedEarly, ""},
		{"half-closed in mid-word", inside, SniffOptions{}, "", func(c *tls.Conn) { _, _ = io.WriteString(c, "zz"); c.CloseWrite() }, RowReject, "", "zz"},
		{"reset", inside, SniffOptions{}, "", func(c *tls.Conn) { _ = c.NetConn().(*net.TCPConn).SetLinger(0); c.NetConn().Close() }, "", ClosedEarly, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := NewServer(Options{Sniff: tt.opts})
			defer s.Shutdown(t.Context())
			s.SetTable(Table{"main": {{Name: "outside", Match: func([]byte) Verdict { return Match }}}})
			s.SetInside(tt.table)
			client, c, _ := securedPair(t)
			defer c.Close()
			go tt.send(client)
			cause, err := s.Inject(c, tt.agree)
			if cause != tt.cause || cause == "" && (err != nil || c.Row() != tt.row) || cause == ClosedEarly && err == nil {
				t.Fatalf("Inject = %q, %v with row %q; want %q, row %q", cause, err, c.Row(), tt.cause, tt.row)
			}
			if cause == "" {
				if got := readRest(t, c, len(tt.left)); got != tt.left {
					t.Errorf("the handler reads %q, want %q", got, tt.left)
				}
			} else if c.Row() != "tls" {
				t.Errorf("without a decision the row is %q", c.Row())
			}
		})
	}
}

// A sniff that waits inside TLS breaks nothing: the connection goes on after its deadlines have fired.
func TestDeadlinesOfASniffInsideTLS(t *testing.T) {
	s := NewServer(Options{Sniff: SniffOptions{SilentAfter: time.Millisecond, SilentRow: "get"}})
	defer s.Shutdown(t.Context())
	s.SetInside(Table{"main": {{Name: "get", Match: word("GET ")}}})
	client, c, _ := securedPair(t)
	defer c.Close()
	if cause, err := s.Inject(c, ""); cause != "" || c.Row() != "get" {
		t.Fatalf("Inject = %q, %v with row %q", cause, err, c.Row())
	}
	_ = c.SetDeadline(time.Time{})
	_, _ = io.WriteString(c, "220 ready")
	b := make([]byte, 9)
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "220 ready" {
		t.Errorf("the client got %q, %v", b, err)
	}
	_, _ = io.WriteString(client, "EHLO")
	if got := readRest(t, c, 4); got != "EHLO" {
		t.Errorf("the handler reads %q", got)
	}
}

// Who is pushed out in the middle of its TLS handshake is reset, from whatever goroutine, and the handshake ends.
func TestEvictedInTheTLSHandshake(t *testing.T) {
	test := func(t *testing.T, o Options) {
		type result struct {
			err     error
			evicted bool
		}
		begun, ended := make(chan struct{}, 2), make(chan result, 2)
		var served sync.WaitGroup
		serve := func(c *Conn) {
			defer served.Done()
			defer c.Close()
			begun <- struct{}{}
			err := tls.Server(c.Beneath(), serverTLS()).Handshake()
			ended <- result{err, c.Evicted()}
		}
		o.Rows, o.Limits = []string{"get"}, Limits{Unfinished: 1}
		o.Handle = func(c *Conn) { served.Add(1); go serve(c) }
		o.Serve = func(c *Conn) { // as a handler does that leaves its loop
			if err := c.LeaveLoop(); err != nil {
				t.Errorf("LeaveLoop = %v", err)
			}
			o.Handle(c)
		}
		s := NewServer(o)
		s.SetTable(Table{"main": {{Name: "get", Match: word("\x16")}, rejectRow}})
		sock, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Add(Listener{Name: "main", Socket: sock}); err != nil {
			t.Fatal(err)
		}
		dial := func() net.Conn {
			c, err := net.Dial("tcp", sock.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			return c
		}
		first := dial()
		_, _ = io.WriteString(first, "\x16\x03\x01") // the rest of the hello never comes
		<-begun
		second := tls.Client(dial(), clientTLS)
		if err := second.Handshake(); err != nil {
			t.Errorf("the newer one: %v", err)
		}
		if _, err := io.ReadAll(first); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client that was pushed out got %v, want a reset", err)
		}
		for range 2 {
			if r := <-ended; (r.err != nil) != r.evicted {
				t.Errorf("a handshake ended with %v, evicted %v", r.err, r.evicted)
			}
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		served.Wait()
		if total, unfinished := s.Connections(); total != 0 || unfinished != 0 {
			t.Errorf("after the end %d connections are counted, %d unfinished", total, unfinished)
		}
	}
	t.Run("goroutines", func(t *testing.T) { test(t, Options{}) })
	loops, err := reactor.Open(2)
	if errors.Is(err, reactor.ErrUnsupported) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer loops.Close()
	t.Run("from a loop", func(t *testing.T) { test(t, Options{Loops: loops, OnLoop: func(*Conn) bool { return true }}) })
}

// Large writes and reads are gathered beneath the layer: nothing is lost or reordered by it, whatever their sizes.
func TestLargeTransfersOverTLS(t *testing.T) {
	for _, size := range []int{1, maxRecord, maxRecord + 1, batchSize - 1, batchSize, batchSize + 1, 3*batchSize + 17} {
		client, c, _ := securedPair(t)
		all := make([]byte, 4*size)
		_, _ = rand.Read(all)
		write := func(w io.Writer, end func() error) {
			for rest := all; len(rest) > 0; rest = rest[size:] {
				if n, err := w.Write(rest[:size]); n != size || err != nil {
					t.Errorf("Write of %d bytes = %d, %v", size, n, err)
					return
				}
			}
			_ = end()
		}
		go write(c, c.CloseWrite)
		if got, err := io.ReadAll(client); !bytes.Equal(got, all) || err != nil {
			t.Errorf("writes of %d bytes: the client got %d bytes, %v", size, len(got), err)
		}
		go write(client, client.CloseWrite)
		got := make([]byte, len(all)+1)
		if n, err := io.ReadFull(c, got); !bytes.Equal(got[:n], all) || err != io.ErrUnexpectedEOF {
			t.Errorf("writes of %d bytes: the connection gave %d bytes, %v", size, n, err)
		}
		c.Close()
	}
}
