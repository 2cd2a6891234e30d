package pool

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// model is the pool once more, with neither views nor breakers: what it says is slow to find out and easy to believe.
// It has no slow start, and knows which server must be taken with balance First only; with the others, which may be.
type model struct {
	o        Options
	servers  []modelServer
	sessions map[string]modelSession
}

type modelSession struct {
	server int
	until  time.Time
}

type modelServer struct {
	good, bad, failures, ejections int
	down, ejected, trial           bool
	generation                     int // of the ejection
	until                          time.Time
	connections                    int64
}

// attempt is a connection that was chosen, as the pool and as the model know it.
type attempt struct {
	m          *Member
	trial      bool
	generation int
	told       bool
}

func (mo *model) fits(i int, r *Request) bool {
	s := mo.o.Servers[i]
	tagged := len(r.Tags) == 0 || slices.ContainsFunc(r.Tags, func(tag string) bool { return slices.Contains(s.Tags, tag) })
	return tagged && (len(r.Countries) == 0 || slices.Contains(r.Countries, s.Country))
}

func (mo *model) usable(i int, now time.Time) bool {
	s := mo.servers[i]
	return !mo.o.Servers[i].Drain && !s.down && (!s.ejected || !s.trial && !now.Before(s.until))
}

// choose is the set of the servers that may be taken: those that can be used and have the lowest priority of all such.
func (mo *model) choose(r *Request, tried *Tried, now time.Time) (may []int, err error) {
	if s, ok := mo.sessions[sessionOf(r)]; ok && now.Before(s.until) && mo.usable(s.server, now) && !tried.Has(s.server) {
		return []int{s.server}, nil
	}
	err = ErrNone
	for i := range mo.servers {
		if !mo.fits(i, r) {
			continue
		}
		err = ErrDown
		if mo.usable(i, now) && !tried.Has(i) {
			may = append(may, i)
		}
	}
	if len(may) == 0 {
		return nil, err
	}
	priority := func(i int) int { return mo.o.Servers[i].Priority }
	best := slices.MinFunc(may, func(a, b int) int { return priority(a) - priority(b) })
	may = slices.DeleteFunc(may, func(i int) bool { return priority(i) > priority(best) })
	if mo.o.Balance == First {
		return may[:1], nil
	}
	return may, nil
}

// sessionOf is "" for a request without a session.
func sessionOf(r *Request) string {
	if r.Session == "" {
		return ""
	}
	return fmt.Sprint(r.User, r.Session, r.Countries, r.Tags)
}

func (mo *model) keep(r *Request, i int, now time.Time) {
	name := sessionOf(r)
	if s := mo.sessions[name]; name != "" && (s.server != i || !now.Before(s.until)) {
		mo.sessions[name] = modelSession{i, now.Add(r.TTL)}
	}
}

func (mo *model) chosen(i int) attempt {
	s := &mo.servers[i]
	s.connections++
	if s.ejected {
		s.trial = true
	}
	return attempt{trial: s.ejected, generation: s.generation}
}

func (mo *model) eject(s *modelServer, now time.Time) {
	pause := min(mo.o.Eject.Pause<<s.ejections, mo.o.Eject.MaxPause)
	s.ejected, s.trial, s.failures, s.until = true, false, 0, now.Add(pause)
	s.ejections++
	s.generation++
}

// told is the outcome of an attempt: nil, an error, or errAbandoned.
func (mo *model) told(i int, a *attempt, err error, now time.Time) {
	s := &mo.servers[i]
	ofTrial := a.trial && !a.told && s.ejected && s.generation == a.generation
	a.told = true
	switch {
	case ofTrial && err == nil:
		s.ejected, s.trial, s.failures, s.ejections = false, false, 0, 0
	case ofTrial && errors.Is(err, errAbandoned):
		s.trial = false
	case ofTrial:
		mo.eject(s, now)
	case s.ejected || errors.Is(err, errAbandoned):
	case err == nil:
		s.failures, s.ejections = 0, 0
	default:
		if s.failures++; s.failures >= mo.o.Eject.Failures {
			mo.eject(s, now)
		}
	}
}

func (mo *model) checked(i int, err error) {
	s := &mo.servers[i]
	if err != nil {
		s.good, s.bad = 0, s.bad+1
		s.down = s.down || s.bad >= mo.o.Fall
		return
	}
	s.good, s.bad = s.good+1, 0
	s.ejected, s.trial = false, false
	s.down = s.down && s.good < mo.o.Rise
}

func (mo *model) state(i int) State {
	switch s := mo.servers[i]; {
	case mo.o.Servers[i].Drain:
		return Draining
	case s.down:
		return Down
	case s.ejected:
		return Ejected
	}
	return Up
}

var errAbandoned = errors.New("abandoned")

// TestAgainstModel does the same random things to a pool and to the model, and compares all that can be seen.
func TestAgainstModel(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { compare(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func compare(t *testing.T, rnd *rand.Rand) {
	o := randomOptions(rnd)
	memory := NewMemory()
	p := mustNew(t, o, memory)
	mo := &model{o: p.o, servers: make([]modelServer, len(o.Servers)), sessions: make(map[string]modelSession)}
	var open []attempt
	for n := range 1500 {
		what := "nothing"
		switch i := rnd.IntN(len(o.Servers)); rnd.IntN(7) {
		case 0, 1:
			r, tried := randomRequest(rnd, len(o.Servers))
			m, err := p.Choose(r, &tried)
			may, wantErr := mo.choose(r, &tried, time.Now())
			what = fmt.Sprintf("choose %+v without %v", r, tried)
			if !errors.Is(err, wantErr) || err == nil && !slices.Contains(may, m.Index()) {
				t.Fatalf("%d: %s: %v, %v; want one of %v, %v", n, what, m, err, may, wantErr)
			}
			if err == nil {
				a := mo.chosen(m.Index())
				a.m = m
				open = append(open, a)
				mo.keep(r, m.Index(), time.Now())
			}
		case 2, 3, 4:
			if len(open) > 0 {
				what = tell(rnd, mo, &open)
			}
		case 5:
			err := []error{nil, errBroken}[rnd.IntN(2)]
			p.Members()[i].Checked(err)
			mo.checked(i, err)
			what = fmt.Sprintf("check of %d: %v", i, err)
		case 6:
			time.Sleep(time.Duration(rnd.IntN(4)) * 500 * time.Millisecond)
			if rnd.IntN(10) == 0 {
				p = mustNew(t, o, memory) // a reload: nothing may be seen of it
			}
		}
		same(t, fmt.Sprintf("%d: after %s", n, what), p, mo)
	}
	for len(open) > 0 {
		tell(rnd, mo, &open)
	}
	if n := connections(p); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// tell gives one of the open attempts an outcome and ends it.
func tell(rnd *rand.Rand, mo *model, open *[]attempt) string {
	at := rnd.IntN(len(*open))
	a := (*open)[at]
	*open = slices.Delete(*open, at, at+1)
	err := []error{nil, errAbandoned, errBroken, errBroken, errBroken}[rnd.IntN(5)]
	mo.told(a.m.Index(), &a, err, time.Now())
	switch {
	case err == nil:
		a.m.Succeeded()
	case errors.Is(err, errAbandoned):
		a.m.Abandoned()
	default:
		a.m.Failed(err)
	}
	a.m.Release()
	mo.servers[a.m.Index()].connections--
	return fmt.Sprintf("attempt at %d (trial: %v): %v", a.m.Index(), a.trial, err)
}

func same(t *testing.T, when string, p *Pool, mo *model) {
	t.Helper()
	for i, m := range p.Members() {
		st, s := m.Status(), mo.servers[i]
		if st.State != mo.state(i) || st.Connections != s.connections || st.State == Ejected && !st.Until.Equal(s.until) {
			t.Fatalf("%s: server %d is %+v, want %v, %+v", when, i, st, mo.state(i), s)
		}
	}
}

func randomOptions(rnd *rand.Rand) Options {
	o := Options{
		Servers: alike(1 + rnd.IntN(70)), Balance: Balance(max(0, rnd.IntN(12)-5)),
		Eject: Eject{Failures: 1 + rnd.IntN(3), MaxPause: 6 * time.Second}, Fall: 1 + rnd.IntN(3), Rise: 1 + rnd.IntN(2),
	}
	for i := range o.Servers {
		s := &o.Servers[i]
		s.Priority, s.Drain = rnd.IntN(3), rnd.IntN(8) == 0
		s.Country = []string{"", "de", "fr"}[rnd.IntN(3)]
		s.Tags = [][]string{nil, {"home"}, {"home", "fast"}}[rnd.IntN(3)]
	}
	return o
}

func randomRequest(rnd *rand.Rand, servers int) (*Request, Tried) {
	var tried Tried
	for range rnd.IntN(4) {
		tried.Add(rnd.IntN(servers))
	}
	r := client(rnd.IntN(50))
	return &Request{
		Client: r.Client, User: r.User, Session: []string{"", "", "1", "2"}[rnd.IntN(4)], TTL: 2 * time.Second,
		Countries: [][]string{nil, {"de"}, {"fr", "de"}, {"us"}}[rnd.IntN(4)],
		Tags:      [][]string{nil, {"fast"}, {"home", "none"}}[rnd.IntN(3)],
	}, tried
}
