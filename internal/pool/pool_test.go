package pool

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-multierror"
)

func TestNewListsEveryFault(t *testing.T) {
	many := alike(MaxServers + 1)
	tests := []struct {
		name string
		o    Options
		want []string // each is in a fault of its own
	}{
		{"none", Options{}, []string{"servers: 0 are listed"}},
		{"too many", Options{Servers: many}, []string{"servers: 257 are listed"}},
		{"servers", Options{Servers: []Server{{Name: "a"}, {}, {Name: "a"}, {Name: "b", Weight: 257}, {Name: "c", Weight: -1}, {Name: "d", Priority: 16}}}, []string{
			"servers[1]: it has no name", `servers[2]: "a" is servers[0] already`, "servers[3]: weight 257", "servers[4]: weight -1", "servers[5]: priority 16",
		}},
		{
			"the rest",
			Options{Servers: alike(1), Balance: 9, SlowStart: -1, Eject: Eject{Pause: -1}, Rise: -1, Load: 0.5},
			[]string{"balance: there is no balance 9", "slow_start: -1ns", "eject: pause", "health: rise", "load: 0.5"},
		},
		{"pause above its end", Options{Servers: alike(1), Eject: Eject{Pause: 2, MaxPause: 1}}, []string{"eject: pause"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.o, nil)
			var all *multierror.Error
			if !errors.As(err, &all) {
				t.Fatalf("New: %v, want a list of faults", err)
			}
			if len(all.Errors) != len(tt.want) {
				t.Fatalf("%d faults: %v\nwant %d", len(all.Errors), err, len(tt.want))
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(all.Errors[i].Error(), want) {
					t.Errorf("fault %d: %v\nwant %s ...", i, all.Errors[i], want)
				}
			}
		})
	}
}

func TestLongPauseNeedsNoMaxPause(t *testing.T) {
	mustNew(t, Options{Servers: alike(1), Eject: Eject{Pause: time.Hour}}, nil)
}

// places has servers of two countries and three tags; the one in Italy drains.
func places() []Server {
	return []Server{
		{Name: "de-home", Country: "DE", Tags: []string{"home"}},
		{Name: "de-mobile", Country: "de", Tags: []string{"mobile", "fast"}},
		{Name: "fr-home", Country: "fr", Tags: []string{"home", "fast"}, Priority: 1},
		{Name: "somewhere"},
		{Name: "it", Country: "it", Drain: true},
	}
}

func TestChooseWhatFits(t *testing.T) {
	tests := []struct {
		name            string
		countries, tags []string
		tried           []int
		want            []int // in the order of repeated attempts
		err             error // at the end
		says            []string
	}{
		{"any", nil, nil, nil, []int{0, 1, 3, 2}, ErrDown, []string{`pool "eu"`, "de-home: tried", "it: draining"}},
		{"country", []string{"de"}, nil, nil, []int{0, 1}, ErrDown, []string{"de-mobile: tried"}},
		{"countries", []string{"fr", "de"}, nil, nil, []int{0, 1, 2}, ErrDown, nil},
		{"tag", nil, []string{"home"}, nil, []int{0, 2}, ErrDown, nil},
		{"tags", nil, []string{"mobile", "home"}, nil, []int{0, 1, 2}, ErrDown, nil},
		{"both", []string{"de"}, []string{"fast"}, nil, []int{1}, ErrDown, nil},
		{"tried before", []string{"de"}, nil, []int{0}, []int{1}, ErrDown, nil},
		{"draining", []string{"it"}, nil, nil, nil, ErrDown, []string{"it: draining"}},
		{"no such country", []string{"us"}, nil, nil, nil, ErrNone, []string{`is of country ["us"]`}},
		{"no such tag", nil, []string{"slow"}, nil, nil, ErrNone, []string{`has the tag ["slow"]`}},
		{"not both", []string{"fr"}, []string{"mobile"}, nil, nil, ErrNone, []string{`is of country ["fr"] and has the tag ["mobile"]`}},
		{"no tag is no tag", nil, []string{""}, nil, nil, ErrNone, nil},
		{"unknown is no country", []string{""}, nil, nil, nil, ErrNone, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustNew(t, Options{Servers: places()}, nil)
			var tried Tried
			for _, i := range tt.tried {
				tried.Add(i)
			}
			var got []int
			var err error
			for {
				var m *Member
				if m, err = p.Choose(&Request{Countries: tt.countries, Tags: tt.tags}, &tried); err != nil {
					break
				}
				got = append(got, m.Index())
				tried.Add(m.Index())
				m.Release()
			}
			if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) {
				t.Fatalf("chosen %v, then %v; want %v, then %v", got, err, tt.want, tt.err)
			}
			for _, s := range tt.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
			if n := connections(p); n != 0 {
				t.Errorf("%d connections are left", n)
			}
		})
	}
}

func TestErrDownSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Servers: append(alike(3), Server{Name: "old", Drain: true}), Fall: 1, Eject: Eject{Failures: 1}}
		p := mustNew(t, o, nil)
		fail(p, 2, 1)
		time.Sleep(time.Second)
		check(p, 0, errBroken)
		fail(p, 1, 1)
		trial := mustChoose(t, p, &Request{})
		_, err := p.Choose(&Request{}, nil)
		want := `pool "eu": no server can be used: server-0: down for 0s: connection refused; ` +
			`server-1: left alone for 1s more: connection refused; server-2: another connection is its trial: connection refused; old: draining`
		if err == nil || err.Error() != want {
			t.Errorf("Choose beside a trial of %d: %v\nwant %s", trial.Index(), err, want)
		}
	})
}

func TestErrDownIsNotEndless(t *testing.T) {
	p := mustNew(t, Options{Servers: alike(100), Fall: 1}, nil)
	for i := range p.Members() {
		check(p, i, errBroken)
	}
	if _, err := p.Choose(&Request{}, nil); err == nil || !strings.HasSuffix(err.Error(), "; and 92 more") {
		t.Errorf("Choose: %v", err)
	}
}

func TestTried(t *testing.T) {
	var tried Tried
	for _, i := range []int{0, 63, 64, 200, MaxServers - 1} {
		if tried.Has(i) {
			t.Errorf("%d is in the empty set", i)
		}
		if tried.Add(i); !tried.Has(i) {
			t.Errorf("%d was added and is not there", i)
		}
	}
	s := set(tried)
	var got []int
	for i := s.next(0); i >= 0; i = s.next(i + 1) {
		got = append(got, i)
	}
	if want := []int{0, 63, 64, 200, 255}; !slices.Equal(got, want) {
		t.Errorf("the set is %v, want %v", got, want)
	}
}

func TestExplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustNew(t, Options{Servers: places(), Balance: RoundRobin, Fall: 1, Rise: 1, SlowStart: 10 * time.Second}, nil)
		check(p, 1, errBroken, nil)
		fail(p, 3, 5)
		request := &Request{User: "u"}
		session := &Request{User: "u", Session: "s"}
		tests := []struct {
			name string
			do   func()
			r    *Request
			want []string
		}{
			{"any", func() {}, request, []string{
				"de-home taken: balance round-robin, weight 1", "de-mobile considered: balance round-robin, weight 1, of which 10 % after its return",
				"fr-home: priority 1 waits until no server with a lower one can be used", "somewhere: left alone for 1s more: connection refused", "it: draining",
			}},
			{"by tag", func() {}, &Request{Countries: []string{"fr", "it"}, Tags: []string{"home"}}, []string{
				"de-home: its country is de", "de-mobile: its country is de", "fr-home taken: balance round-robin, weight 1",
				"somewhere: its country is unknown", "it: none of its tags is asked for",
			}},
			{"a trial", func() { check(p, 0, errBroken); check(p, 1, errBroken); time.Sleep(time.Second) }, request, []string{
				"de-home: down for 1s: connection refused", "de-mobile: down for 1s: connection refused",
				"fr-home: priority 1 waits until no server with a lower one can be used",
				"somewhere taken: balance round-robin, weight 1, ejected before: the next connection is its trial", "it: draining",
			}},
			{"a session", func() { once(t, p, session); check(p, 0, nil); time.Sleep(10 * time.Second) }, session, []string{
				"de-home: the session keeps another server", "de-mobile: down for 11s: connection refused",
				"fr-home: the session keeps another server", "somewhere taken: the session keeps it", "it: draining",
			}},
		}
		for _, tt := range tests {
			tt.do()
			for range 2 { // it changes nothing, not even the turn
				if got := explained(p.Explain(tt.r, nil)); !slices.Equal(got, tt.want) {
					t.Errorf("%s:\n%s\nwant:\n%s", tt.name, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
			}
			if got := connections(p); got != 0 {
				t.Errorf("%s: Explain left %d connections", tt.name, got)
			}
		}
	})
}

func explained(choices []Choice) (lines []string) {
	for _, c := range choices {
		switch {
		case c.Taken:
			c.Server += " taken"
		case c.Considered:
			c.Server += " considered"
		}
		lines = append(lines, c.Server+": "+c.Why)
	}
	return lines
}

// What Explain says is taken is what Choose takes, also where some are left out.
func TestExplainIsRight(t *testing.T) {
	for b := First; b <= StickySession; b++ {
		t.Run(b.String(), func(t *testing.T) {
			p := mustNew(t, Options{Servers: weighted(1, 2, 3, 4), Balance: b}, nil)
			for i := range 100 {
				var out Tried
				if i%2 == 1 {
					out.Add(i / 2 % 4)
				}
				said := slices.IndexFunc(p.Explain(client(i), &out), func(c Choice) bool { return c.Taken })
				m, err := p.Choose(client(i), &out)
				if err != nil {
					t.Fatal(err)
				}
				if byChance := b == RandomTwo; byChance != (said < 0) || !byChance && said != m.Index() {
					t.Fatalf("choice %d: Explain said %d, Choose took %d", i, said, m.Index())
				}
			}
		})
	}
}
