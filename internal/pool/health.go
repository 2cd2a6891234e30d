package pool

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

// health is how a server is, apart from what the configuration says. It is never changed, only replaced.
type health struct {
	down    *fault    // what active checks say; nil: nothing bad
	ejected *ejection // nil: it is not
	back    time.Time // when it last came back; zero: it was never away
}

type fault struct {
	since time.Time
	err   error
}

// ejection is the time that a server is left alone, and the trial that ends it.
type ejection struct {
	fault
	until   time.Time
	trial   bool // a connection is trying the server now
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
}

// failureBits is how much of server.strikes counts failures. The rest counts ejections, so that one load tells a success
// that there is nothing to reset.
const failureBits = 32

// stateOf is the state of server i with health h.
func (p *Pool) stateOf(i int, h *health, now time.Time) State {
	switch {
	case p.o.Servers[i].Drain:
		return Draining
	case h.down != nil:
		return Down
	case h.ejected != nil && p.o.Eject.Failures > 0:
		return Ejected
	case !h.back.IsZero() && now.Sub(h.back) < p.o.SlowStart:
		return Warming
	}
	return Up
}

func (p *Pool) status(i int, now time.Time) Status {
	h := p.servers[i].health.Load()
	st := Status{State: p.stateOf(i, h, now), Connections: p.servers[i].connections.Load()}
	switch st.State {
	case Down:
		st.Since, st.Err = h.down.since, h.down.err
	case Ejected:
		st.Since, st.Until, st.Err = h.ejected.since, h.ejected.until, h.ejected.err
	case Warming:
		st.Since, st.Until = h.back, h.back.Add(p.o.SlowStart)
	case Up:
		if !h.back.IsZero() {
			st.Since = h.back.Add(p.o.SlowStart)
		}
	}
	return st
}

// change replaces the health of server i by what f makes of it, if f says so, and tells Options.Changed. All that f reads
// and writes of the server stays as it is meanwhile.
func (p *Pool) change(i int, f func(s *server, h *health) bool) {
	p.kept.mu.Lock()
	defer p.kept.mu.Unlock()
	s := p.servers[i]
	before := p.status(i, time.Now())
	h := *s.health.Load()
	if !f(s, &h) {
		return
	}
	s.health.Store(&h)
	p.kept.version.Add(1)
	after := p.status(i, time.Now())
	again := after.State == Ejected && after.Until != before.Until
	if p.o.Changed != nil && (after.State != before.State || again) {
		p.o.Changed(Event{Pool: p.o.Name, Server: p.o.Servers[i].Name, From: before.State, To: after.State, Until: after.Until, Err: after.Err})
	}
}

// eject leaves the server alone, for twice as long as the last time if it has had no success since.
func (p *Pool) eject(s *server, h *health, err error) {
	times := s.strikes.Load() >> failureBits
	s.strikes.Store((times + 1) << failureBits)
	pause := p.o.Eject.Pause
	for ; times > 0 && pause < p.o.Eject.MaxPause; times-- {
		pause += min(pause, p.o.Eject.MaxPause-pause)
	}
	breaker := openBreaker(pause)
	now := time.Now()
	h.ejected = &ejection{fault: fault{since: now, err: err}, until: now.Add(pause), breaker: breaker}
}

// openBreaker makes a breaker that lets one trial through after pause. It does not watch a healthy server: its mutex would
// be in the way of every connection. A breaker's pause is fixed, so each ejection has one of its own.
func openBreaker(pause time.Duration) *gobreaker.TwoStepCircuitBreaker[struct{}] {
	b := gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     max(pause-1, 1), // it opens after the timeout, not with it
		ReadyToTrip: func(gobreaker.Counts) bool { return true },
		IsExcluded:  saysNothing,
	})
	if done, err := b.Allow(); err == nil {
		done(errFailed)
	}
	return b
}

var errFailed = errors.New("the server failed")

// ErrUnchecked in the error of a check says that it could not be made, for want of something that is none of the server's.
var ErrUnchecked = errors.New("the server could not be checked")

// saysNothing reports whether err is of a client that went away, or a check that could not be made, which is no fault of a server.
func saysNothing(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, ErrUnchecked)
}

// trial is the one attempt at a server after a pause.
type trial struct {
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	done    func(error)
	told    atomic.Bool
}

// beginTrial takes the trial of server i for the caller. nil: somebody else has it.
func (p *Pool) beginTrial(i int) (m *Member) {
	p.change(i, func(_ *server, h *health) bool {
		if h.ejected == nil {
			m = p.members[i] // it came back in the meantime
			return false
		}
		done, err := h.ejected.breaker.Allow()
		if err != nil {
			return false
		}
		m = &Member{p: p, index: i, trial: &trial{breaker: h.ejected.breaker, done: done}}
		h.setTrial(true)
		return true
	})
	return m
}

func (h *health) setTrial(on bool) {
	e := *h.ejected
	e.trial = on
	h.ejected = &e
}

// endTrial puts what the trial found into effect. False: a check has ended the ejection meanwhile, so that the attempt is
// one like any other.
func (p *Pool) endTrial(i int, t *trial, err error) (counted bool) {
	t.done(err)
	p.change(i, func(s *server, h *health) bool {
		if counted = h.ejected != nil && h.ejected.breaker == t.breaker; !counted {
			return false
		}
		switch {
		case err == nil:
			s.strikes.Store(0)
			h.ejected, h.back = nil, time.Now()
		case saysNothing(err):
			h.setTrial(false)
		default:
			p.eject(s, h, err)
		}
		return true
	})
	return counted
}
