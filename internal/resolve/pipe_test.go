package resolve

import (
	"context"
	"encoding/binary"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// pipeServer is the far end of connections without a network.
func pipeServer(t *testing.T, serve func(n int, c net.Conn)) (dial func(context.Context) (net.Conn, error)) {
	n := 0
	return func(context.Context) (net.Conn, error) {
		client, server := net.Pipe()
		n++
		t.Cleanup(func() { server.Close() })
		go serve(n, server)
		return client, nil
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan time.Duration, 2)
		s := newStream(pipeServer(t, func(_ int, c net.Conn) {
			var last time.Time
			for s := (&streamServer{}); ; last = time.Now() {
				q := s.query(c)
				if q == nil {
					closed <- time.Since(last)
					return
				}
				good(c, q)
			}
		}), time.Second)
		defer s.close()
		ask := func() {
			t.Helper()
			if _, err := s.exchange(t.Context(), new(dns.Msg).SetQuestion("a.example.", dns.TypeA)); err != nil {
				t.Fatal(err)
			}
		}
		ask()
		time.Sleep(idleTimeout - 1)
		ask() // prolongs its life
		if got := <-closed; got != idleTimeout {
			t.Errorf("the connection was closed %v after its last query, want %v", got, idleTimeout)
		}
		ask()
	})
}

// A connection on which nothing comes any more is given up with the query that found out.
func TestSilentConnectionIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStream(pipeServer(t, func(n int, c net.Conn) {
			s := &streamServer{}
			for i := 1; ; i++ {
				q := s.query(c)
				if q == nil {
					return
				}
				if n > 1 || i == 1 {
					good(c, q)
				}
			}
		}), time.Second)
		defer s.close()
		for i, want := range []bool{true, false, true} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := s.exchange(ctx, new(dns.Msg).SetQuestion("a.example.", dns.TypeA))
			cancel()
			if (err == nil) != want {
				t.Errorf("query %d: %v, want an answer: %v", i+1, err, want)
			}
			synctest.Wait()
		}
	})
}

// A query that its asker gives up leaves the connection to the others.
func TestGivenUpQueryLeavesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var conns atomic.Int32
		s := newStream(pipeServer(t, func(n int, c net.Conn) {
			conns.Store(int32(n))
			s := &streamServer{}
			for q := s.query(c); q != nil; q = s.query(c) {
				if q.Question[0].Name == "late.example." {
					time.Sleep(500 * time.Millisecond)
				}
				good(c, q)
			}
		}), time.Second)
		defer s.close()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if m, err := s.exchange(ctx, new(dns.Msg).SetQuestion("late.example.", dns.TypeA)); err == nil {
			t.Errorf("exchange = %v, want the end of its time", m)
		}
		m, err := s.exchange(t.Context(), new(dns.Msg).SetQuestion("a.example.", dns.TypeA))
		if err != nil || m.Question[0].Name != "a.example." {
			t.Errorf("exchange = %v, %v", m, err)
		}
		if conns.Load() != 1 {
			t.Errorf("%d connections, want 1", conns.Load())
		}
	})
}

// Whatever is missing of an answer, the query fails, and does not hang.
func TestAnswerCutAtEveryLength(t *testing.T) {
	q := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	wire, err := message(q, dns.RcodeSuccess, "% 60 A 192.0.2.1").Pack()
	if err != nil {
		t.Fatal(err)
	}
	whole := frame(wire)
	for n := range len(whole) + 1 {
		synctest.Test(t, func(t *testing.T) {
			s := newStream(pipeServer(t, func(_ int, c net.Conn) {
				asked, err := readFrame(c)
				if err != nil {
					return
				}
				b := slices.Clone(whole)
				copy(b[2:4], asked) // the ID
				c.Write(b[:n])
				c.Close()
			}), time.Second)
			defer s.close()
			start := time.Now()
			m, err := s.exchange(t.Context(), q.Copy())
			if (err == nil) != (n == len(whole)) || time.Since(start) != 0 {
				t.Errorf("%d of %d bytes: exchange = %v, %v after %v", n, len(whole), m, err, time.Since(start))
			}
		})
	}
}

// FuzzReadFrame: what is read is what frame made, and less than that is an error.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 1, 2})
	f.Add([]byte{0, 3, 1, 2})
	f.Fuzz(func(t *testing.T, in []byte) {
		client, server := net.Pipe()
		defer client.Close()
		go func() {
			server.Write(in)
			server.Close()
		}()
		wire, err := readFrame(client)
		whole := len(in) >= 2 && len(in)-2 >= int(binary.BigEndian.Uint16(in))
		if (err == nil) != whole {
			t.Fatalf("readFrame(%x) = %v", in, err)
		}
		if err == nil && !slices.Equal(frame(wire), in[:2+len(wire)]) {
			t.Errorf("readFrame(%x) = %x", in, wire)
		}
	})
}
