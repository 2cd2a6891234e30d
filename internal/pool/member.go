package pool

import (
	"context"
	"fmt"
	"time"
)

// State is what a pool makes of a server.
type State uint8

// The states. Only servers that are Up or Warming are taken, and an Ejected one for a trial when its pause is over.
const (
	Up       State = iota
	Warming        // came back a short while ago: its share still grows
	Down           // active checks say so
	Ejected        // it failed too often in a row and is left alone
	Draining       // the configuration says so
)

var stateNames = [...]string{"up", "warming", "down", "ejected", "draining"}

// String is the state as one word.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Status is a server's state and the reason for it.
type Status struct {
	State       State
	Since       time.Time // when the state began; zero: as long as the server is known
	Until       time.Time // when Ejected or Warming ends; zero in all other states
	Err         error     // why it is Down or Ejected
	Connections int64     // that were chosen and not yet released
}

// Member is one server of a pool, as Choose gives it out for one connection.
// Two of them may be the same server: compare Index.
type Member struct {
	p     *Pool
	index int
	trial *trial // nil: the server was healthy when it was chosen
}

// Index is the server's place in Options.Servers.
func (m *Member) Index() int { return m.index }

// Name is the server's name.
func (m *Member) Name() string { return m.p.o.Servers[m.index].Name }

func (m *Member) server() *server { return m.p.servers[m.index] }

// Succeeded says that the attempt reached the server.
func (m *Member) Succeeded() {
	m.server().answers.Add(1)
	if m.endTrial(nil) || m.server().strikes.Load() == 0 {
		return
	}
	m.p.change(m.index, func(s *server, h *health) bool {
		if h.ejected == nil { // else the attempt is older than the ejection
			s.strikes.Store(0)
		}
		return false
	})
}

// Answers counts the attempts that have succeeded, whoever made them: whoever has waited in vain sees by it whether others have not.
func (m *Member) Answers() uint64 { return m.server().answers.Load() }

// Failed says that the server failed the attempt. A cancellation (context.Canceled in err) counts as Abandoned.
func (m *Member) Failed(err error) {
	if err == nil {
		err = errFailed
	}
	failures := m.p.o.Eject.Failures
	if m.endTrial(err) || saysNothing(err) || failures < 0 || m.server().health.Load().ejected != nil {
		return
	}
	if n := uint32(m.server().strikes.Add(1)); n < uint32(failures) {
		return
	}
	m.p.change(m.index, func(s *server, h *health) bool {
		// Others may have ejected it meanwhile, or a success may have come.
		if h.ejected != nil || uint32(s.strikes.Load()) < uint32(failures) {
			return false
		}
		m.p.eject(s, h, err)
		return true
	})
}

// Abandoned says that the attempt ended without a word on the server; a trial is free for the next connection.
func (m *Member) Abandoned() { m.endTrial(context.Canceled) }

// endTrial reports whether the attempt was a trial and err is its outcome.
func (m *Member) endTrial(err error) bool {
	return m.trial != nil && m.trial.told.CompareAndSwap(false, true) && m.p.endTrial(m.index, m.trial, err)
}

// Release ends the connection that Choose counted. It is called once; without an outcome before it the attempt is Abandoned.
func (m *Member) Release() {
	m.Abandoned()
	m.server().connections.Add(-1)
}

// Checked says what an active check found; nil is good. Fall bad ones in a row make the server Down, Rise good ones end
// that, and the first good one ends an ejection. A cancellation and ErrUnchecked say nothing.
func (m *Member) Checked(err error) {
	if saysNothing(err) {
		return
	}
	m.p.change(m.index, func(s *server, h *health) bool {
		if err == nil {
			s.good, s.bad = s.good+1, 0
			return m.p.goodCheck(s, h)
		}
		s.good, s.bad = 0, s.bad+1
		switch {
		case h.down != nil:
			h.down = &fault{since: h.down.since, err: err}
		case s.bad >= m.p.o.Fall:
			h.down = &fault{since: time.Now(), err: err}
		default:
			return false
		}
		return true
	})
}

// goodCheck reports whether the check changes anything. It does not make the next pause short again: a server may
// answer every check and fail every connection.
func (p *Pool) goodCheck(s *server, h *health) bool {
	risen, ended := h.down != nil && s.good >= p.o.Rise, h.ejected != nil
	if risen {
		h.down = nil
	}
	if ended {
		h.ejected = nil
	}
	if risen || ended {
		h.back = time.Now()
	}
	return risen || ended
}

// Status is the server's state now.
func (m *Member) Status() Status { return m.p.status(m.index, time.Now()) }
