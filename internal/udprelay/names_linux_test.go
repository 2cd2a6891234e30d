package udprelay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"polyport/internal/egress"
	"polyport/internal/target"
)

// heldUp is a script that keeps questions for names waiting. What ends one otherwise goes to s.lapsed.
func heldUp(s *asker) (release func(error)) {
	gate := make(chan error)
	s.script = func(ctx context.Context, t target.Target) (*egress.Permit, error) {
		if _, literal := t.Addr(); literal {
			return nil, nil
		}
		select {
		case err := <-gate:
			return nil, err
		case <-ctx.Done():
			s.lapsed <- ctx.Err()
			return nil, ctx.Err()
		}
	}
	return func(err error) { gate <- err }
}

// TestWaitingForAName: datagrams wait within bounds and leave in order; others are not held up.
func TestWaitingForAName(t *testing.T) {
	good := echo(t, "127.0.0.9:0")
	for _, tt := range []struct {
		name    string
		size    int // of each
		send    int
		arrives int
	}{
		{"few", 10, 3, 3},
		{"too many", 10, maxWaiting + 4, maxWaiting},
		{"too much", maxWaitFor/4 - 10, 6, 4},
		{"one that is too long", maxWaitFor + 1, 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Options{})
			s := newAsker(t, names{"slow.test": good.Addr()})
			release := heldUp(s)
			a := r.open(r.request(s))
			c := newSocket(t, "127.0.0.1:0")
			payload := func(i int) string { return fmt.Sprintf("%d%s", i%10, strings.Repeat("w", tt.size-1)) }
			for i := range tt.send {
				c.send(a.Bound(), toName("slow.test", good.Port(), payload(i)))
			}
			c.send(a.Bound(), to(good, "beside"))
			c.wants(good, "beside")
			if got, want := a.now().Dropped, int64(tt.send-tt.arrives); got != want {
				t.Errorf("%d were dropped, want %d", got, want)
			}
			release(nil)
			for i := range tt.arrives {
				c.wants(good, payload(i))
			}
			eventually(t, "the name is known", func() bool {
				a.mu.Lock()
				defer a.mu.Unlock()
				return a.asking == 0
			})
			c.send(a.Bound(), toName("slow.test", good.Port(), "after"))
			c.wants(good, "after")
			if got := a.Close(); got.FromClient != int64(tt.arrives)+2 {
				t.Errorf("Close = %+v, want %d from the client", got, tt.arrives+2)
			}
		})
	}
}

// TestARefusedNameIsNotAskedForAgain: not at once, at least; all that have waited are counted.
func TestARefusedNameIsNotAskedForAgain(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want Counts
	}{
		{"denied", &egress.Error{Reason: egress.RequestDenied, Err: egress.ErrDenied}, Counts{Denied: 4}},
		{"a user is needed", &egress.Error{Reason: egress.RequestDenied, Err: egress.ErrChallenge}, Counts{Denied: 4}},
		{"no answer", &egress.Error{Reason: egress.DNSTimeout, Err: errNoName}, Counts{Dropped: 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Options{})
			s := newAsker(t, names{})
			release := heldUp(s)
			a := r.open(r.request(s))
			c := newSocket(t, "127.0.0.1:0")
			for range 3 {
				c.send(a.Bound(), toName("no.test", 53, "x"))
			}
			eventually(t, "all wait", func() bool {
				a.mu.Lock()
				defer a.mu.Unlock()
				for _, n := range a.names {
					return len(n.waiting) == 3
				}
				return false
			})
			release(tt.err)
			eventually(t, "they are counted", func() bool { return a.now() != Counts{} })
			c.send(a.Bound(), toName("no.test", 53, "x"))
			counted(t, a, tt.want)
			if got := s.questions(); len(got) != 1 {
				t.Errorf("asked %q, want it once", got)
			}
			a.mu.Lock()
			for _, n := range a.names {
				n.until = 0 // as after refusedFor
			}
			a.mu.Unlock()
			c.send(a.Bound(), toName("no.test", 53, "x"))
			eventually(t, "it is asked for again", func() bool { return len(s.questions()) == 2 })
			if sum := a.Close(); sum.First != nil || !errors.Is(sum.Failed, tt.err) {
				t.Errorf("Close = %+v, want %v", sum, tt.err)
			}
		})
	}
}

// TestNamesAskedForAtOnce are bounded, whatever a client sends.
func TestNamesAskedForAtOnce(t *testing.T) {
	r := newRig(t, Options{})
	s := newAsker(t, names{})
	heldUp(s)
	a := r.open(r.request(s))
	c := newSocket(t, "127.0.0.1:0")
	for i := range maxAsking + 3 {
		c.send(a.Bound(), toName(fmt.Sprintf("%d.test", i), 53, "x"))
	}
	counted(t, a, Counts{Limited: 3})
	eventually(t, "they are asked for", func() bool { return len(s.questions()) == maxAsking })
	if got, want := a.Close().Counts, (Counts{Limited: 3, Dropped: maxAsking}); got != want { // what waits is lost
		t.Errorf("Close = %+v, want %+v", got, want)
	}
	for range maxAsking {
		if err := <-s.lapsed; !errors.Is(err, context.Canceled) {
			t.Errorf("a question has ended with %v, want %v: with the association", err, context.Canceled)
		}
	}
}

// TestAnsweredAfterTheEnd: whatever is found out for an association that has ended, nothing is sent and nothing opened.
func TestAnsweredAfterTheEnd(t *testing.T) {
	peer := newSocket(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	s := newAsker(t, names{"slow.test": peer.addr().Addr()})
	gate := make(chan struct{})
	s.script = func(context.Context, target.Target) (*egress.Permit, error) { <-gate; return nil, nil }
	a := r.open(r.request(s))
	newSocket(t, "127.0.0.1:0").send(a.Bound(), toName("slow.test", peer.addr().Port(), "late"))
	eventually(t, "it is asked for", func() bool { return len(s.questions()) == 1 })
	want := a.Close()
	close(gate)
	eventually(t, "the answer is there", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.asking == 0
	})
	if got := a.Close(); got != want || s.openings != 0 {
		t.Errorf("Close = %+v after %d openings, want %+v and none", got, s.openings, want)
	}
}
