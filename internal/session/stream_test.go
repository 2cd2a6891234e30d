package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/mux"
)

// newClosed is a connection whose other end is closed.
func newClosed() net.Conn {
	a, b := net.Pipe()
	b.Close()
	return a
}

// streams is a handler of a connection that serves so many streams at once, and of those by stream. client has the
// other end of each.
func streams(t *testing.T, n int, stream func(ctx context.Context, s *Session) error, client func(id uint32, nc *net.TCPConn)) Handler {
	return handlerFunc(func(ctx context.Context, s *Session) error {
		if s.Carried() != nil {
			return stream(ctx, s)
		}
		s.Established()
		var all sync.WaitGroup
		for i := range n {
			id := uint32(2*i + 1)
			theirs, ours := tcpPair(t)
			_ = theirs.SetDeadline(time.Now().Add(30 * time.Second))
			all.Go(func() {
				if cause := s.Stream(id, ours, id); cause != "" {
					t.Errorf("stream %d is refused: %s", id, cause)
					ours.Close()
				}
			})
			all.Go(func() { client(id, theirs); theirs.Close() })
		}
		all.Wait()
		return nil
	})
}

func TestStreams(t *testing.T) {
	const n = 20
	handler := streams(t, n, func(_ context.Context, s *Session) error {
		id := s.Carried().(uint32)
		s.SetMethod(fmt.Sprint(id))
		b := make([]byte, 4)
		if _, err := io.ReadFull(s.Conn(), b); err != nil {
			return err
		}
		_, err := fmt.Fprintf(s.Conn(), "%s to %d", b, id)
		return err
	}, func(id uint32, nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "ping")
		if got, err := io.ReadAll(nc); string(got) != fmt.Sprintf("ping to %d", id) || err != nil {
			t.Errorf("stream %d answered %q, %v", id, got, err)
		}
	})
	h := newHarness(t, handler, nil)
	c := h.connect(t, "")
	_, _ = io.ReadAll(c)
	byStream := map[uint32]Record{}
	for range n + 1 {
		r := <-h.records.ended
		byStream[r.Stream] = r
	}
	conn := byStream[0]
	if !conn.Connection.IsZero() || conn.Err != nil {
		t.Errorf("record of the connection = %+v", conn)
	}
	ids := map[ID]bool{conn.ID: true}
	for i := range n {
		id := uint32(2*i + 1)
		r := byStream[id]
		ids[r.ID] = true
		if r.Connection != conn.ID || r.Protocol != "test" || r.Listener != "main" || r.Client != conn.Client || r.Method != fmt.Sprint(id) || r.Err != nil || r.Start.Before(conn.Start) {
			t.Errorf("record of stream %d = %+v", id, r)
		}
	}
	if len(ids) != n+1 {
		t.Errorf("%d IDs, want %d", len(ids), n+1)
	}
	if killed := h.Drain(t.Context()); killed != 0 || h.Count() != 0 {
		t.Errorf("Drain ended %d sessions, %d are left", killed, h.Count())
	}
}

func TestTunnelOnAStream(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		c.Close()
	}()
	handler := streams(t, 1, func(ctx context.Context, s *Session) error {
		p, err := s.Authorize(ctx, mustParse(ln.Addr().String()))
		if err != nil {
			return err
		}
		target, err := s.Dial(ctx, p)
		if err != nil {
			return err
		}
		s.Conn().Unread([]byte("early "))
		s.Relay(target)
		return nil
	}, func(_ uint32, nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "and late")
		_ = nc.CloseWrite()
		if got, err := io.ReadAll(nc); string(got) != "early and late" || err != nil {
			t.Errorf("the tunnel gave %q, %v", got, err)
		}
	})
	h := newHarness(t, handler, nil)
	_, _ = io.ReadAll(h.connect(t, ""))
	var tunnel Record
	for range 2 {
		if r := <-h.records.ended; r.Stream == 1 {
			tunnel = r
		}
	}
	if tunnel.BytesFromClient != 14 || tunnel.BytesFromTarget != 14 || tunnel.Reason != "" || tunnel.Err != nil || tunnel.Address.String() != ln.Addr().String() || tunnel.Rule != "loopback" {
		t.Errorf("record = %+v", tunnel)
	}
	h.Drain(t.Context())
}

// TestStreamOfASecuredConnection: what is noted of TLS is noted of each stream.
func TestStreamOfASecuredConnection(t *testing.T) {
	h := newInside(t, securing(auth.Identity{}, "inner"), handlerFunc(func(_ context.Context, s *Session) error {
		if s.Carried() != nil {
			if s.RequiresTLS() {
				return errors.New("it is outside TLS")
			}
			return nil
		}
		s.Stream(7, newClosed(), 7)
		return nil
	}), mux.SniffOptions{})
	rt := *h.Runtime()
	rt.Listeners = map[string]Listener{"main": {RequireTLS: true}}
	h.SetRuntime(&rt)
	_, _ = io.ReadAll(h.secured(t))
	for range 2 {
		if r := <-h.records.ended; r.TLS != "TLS 1.3" || r.ServerName != "gw.test" || r.Protocol != "inner" || r.Err != nil {
			t.Errorf("record = %+v", r)
		}
	}
}

func TestRefusedStream(t *testing.T) {
	causes := make(chan mux.Cause, 1)
	h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
		if s.Carried() != nil {
			return errors.New("a stream was served")
		}
		s.Established()
		a, b := net.Pipe()
		defer b.Close()
		causes <- s.Stream(1, a, 1)
		go b.Read(make([]byte, 1))
		if _, err := a.Write([]byte("x")); err != nil {
			return fmt.Errorf("it is closed: %w", err) // though it is still ours
		}
		return a.Close()
	}), nil)
	server := mux.NewServer(mux.Options{Rows: []string{"test"}, Handle: h.Handle, Limits: mux.Limits{ConnectionsPerClient: 1}})
	server.SetTable(mux.Table{"main": {{Name: "test", Match: func([]byte) mux.Verdict { return mux.Match }}}})
	_, _ = io.WriteString(dialServer(t, server), "x")
	if cause := <-causes; cause != mux.TooManyOfClient {
		t.Errorf("Stream = %q, want %q", cause, mux.TooManyOfClient)
	}
	if r := <-h.records.ended; r.Stream != 0 || r.Err != nil {
		t.Errorf("record = %+v", r)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	h.Drain(t.Context())
	if h.records.started != 1 {
		t.Errorf("%d records began", h.records.started)
	}
}

// A permit for a stream ends the handshake of its connection too, and Stream has freed its place when it is over.
func TestPlacesOfStreams(t *testing.T) {
	var server *mux.Server
	type counts struct{ total, unfinished int }
	seen := make(chan counts, 4)
	note := func() { total, unfinished := server.Connections(); seen <- counts{total, unfinished} }
	h := newHarness(t, handlerFunc(func(ctx context.Context, s *Session) error {
		if s.Carried() == nil {
			note()
			s.Stream(1, newClosed(), 1)
			note()
			return nil
		}
		note()
		_, err := s.Authorize(ctx, mustParse("127.0.0.1:80"))
		note()
		return err
	}), nil)
	server = mux.NewServer(mux.Options{Rows: []string{"test"}, Handle: h.Handle})
	server.SetTable(mux.Table{"main": {{Name: "test", Match: func([]byte) mux.Verdict { return mux.Match }}}})
	_, _ = io.WriteString(dialServer(t, server), "x")
	for _, want := range []counts{{1, 1}, {2, 2}, {2, 0}, {1, 0}} {
		if got := <-seen; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	h.Drain(t.Context())
}

func TestStreamsTakeANewRuntime(t *testing.T) {
	first, reloaded := make(chan struct{}), make(chan struct{})
	serve := func(word string) Handler {
		return handlerFunc(func(_ context.Context, s *Session) error {
			if s.Carried() != nil {
				_, err := io.WriteString(s.Conn(), word)
				return err
			}
			var words []string
			for id := range uint32(2) {
				theirs, ours := net.Pipe()
				got := make(chan string, 1)
				go func() { b, _ := io.ReadAll(theirs); got <- string(b) }()
				s.Stream(2*id+1, ours, id)
				words = append(words, <-got)
				if id == 0 {
					close(first)
					<-reloaded
				}
			}
			_, err := io.WriteString(s.Conn(), strings.Join(words, " "))
			return err
		})
	}
	h := newHarness(t, serve("old"), nil)
	c := h.connect(t, "")
	<-first
	rt := *h.Runtime()
	rt.Handlers = map[string]Handler{"test": serve("new")}
	h.SetRuntime(&rt)
	close(reloaded)
	if got, err := io.ReadAll(c); string(got) != "old new" || err != nil {
		t.Errorf("the streams said %q, %v; want %q", got, err, "old new")
	}
	h.Drain(t.Context())
}

func TestOnDrain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		early bool // the gateway shuts down before
	}{{"before the end", false}, {"at the end", true}} {
		t.Run(tt.name, func(t *testing.T) {
			began, told := make(chan struct{}), make(chan struct{})
			goOn := make(chan struct{})
			h := newHarness(t, handlerFunc(func(_ context.Context, s *Session) error {
				s.Established()
				if tt.early {
					close(began)
					<-goOn
				}
				var once sync.Once
				s.OnDrain(func() { once.Do(func() { close(told) }) })
				if !tt.early {
					close(began)
				}
				<-told
				_, err := io.WriteString(s.Conn(), "bye")
				return err
			}), nil)
			c := h.connect(t, "")
			<-began
			if tt.early {
				h.BeginDrain()
				close(goOn)
			} else {
				select {
				case <-told:
					t.Error("told too early")
				default:
				}
			}
			if killed := h.Drain(t.Context()); killed != 0 {
				t.Errorf("Drain ended %d sessions", killed)
			}
			if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
				t.Errorf("the client got %q, %v", got, err)
			}
		})
	}
}

func TestPanicOfAStream(t *testing.T) {
	read, reset := make(chan struct{}), make(chan struct{})
	handler := streams(t, 2, func(_ context.Context, s *Session) error {
		_, _ = io.WriteString(s.Conn(), "half an ans")
		if s.Carried() == uint32(1) {
			<-read
			panic("boom")
		}
		_, err := io.ReadAll(s.Conn())
		_, werr := io.WriteString(s.Conn(), "wer")
		return errors.Join(err, werr)
	}, func(id uint32, nc *net.TCPConn) {
		if id == 1 {
			b := make([]byte, 11)
			_, _ = io.ReadFull(nc, b)
			close(read)
			if got, err := io.ReadAll(nc); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the stream that panicked gave %q, %v; want a reset", got, err)
			}
			close(reset) // and only now may the other go on
			return
		}
		<-reset
		_ = nc.CloseWrite()
		if got, err := io.ReadAll(nc); string(got) != "half an answer" || err != nil {
			t.Errorf("the other gave %q, %v", got, err)
		}
	})
	h := newHarness(t, handler, nil)
	c := h.connect(t, "")
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the connection ended with %v", err)
	}
	for range 3 {
		if r := <-h.records.ended; (r.Stream == 1) != (r.Reason == string(egress.InternalError)) || (r.Stream == 1) != (r.Err != nil) {
			t.Errorf("record = %+v", r)
		}
	}
	h.Drain(t.Context())
}
