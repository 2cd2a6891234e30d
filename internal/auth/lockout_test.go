package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// guesses is a Users whose clients are locked out after 5 failures, for 15
// minutes, with the helpers of a test that plays through it.
type guesses struct {
	t *testing.T
	u *Users
}

func newGuesses(t *testing.T, o LockoutOptions) (*guesses, *atomic.Int32) {
	u, calls := withCounting(t, Options{Lockout: NewLockout(o)}, nil)
	return &guesses{t, u}, calls
}

var fiveIn10 = LockoutOptions{Failures: 5}

// try expects a result: nil, ErrBadCredentials or ErrLockedOut.
func (g *guesses) try(step, client, user, password string, want error) {
	g.t.Helper()
	_, err := g.u.Authenticate(g.t.Context(), netip.MustParseAddr(client), Credentials{user, password})
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		g.t.Errorf("%s: Authenticate(%s, %s, %s) = %v, want %v", step, client, user, password, err, want)
	}
}

// guess tries n passwords that no other call of it tries.
func (g *guesses) guess(step, client, user string, first, n int) {
	g.t.Helper()
	for i := first; i < first+n; i++ {
		g.try(step, client, user, fmt.Sprintf("guess%d", i), ErrBadCredentials)
	}
}

func TestLockout(t *testing.T) {
	const bad, other = "192.0.2.1", "192.0.2.2"
	tests := []struct {
		name string
		play func(g *guesses)
	}{
		{"five distinct guesses", func(g *guesses) {
			g.guess("allowed", bad, "alice", 0, 5)
			g.try("a sixth", bad, "alice", "guess5", ErrLockedOut)
			g.try("even the right one", bad, "alice", "secret", ErrLockedOut)
			g.try("another client", other, "alice", "secret", nil)
		}},
		{"over all users", func(g *guesses) {
			for _, user := range []string{"alice", "bob", "carol", "dave", "erin"} {
				g.try("allowed", bad, user, "Winter2026", ErrBadCredentials)
			}
			g.try("a sixth", bad, "frank", "Winter2026", ErrLockedOut)
		}},
		{"the same wrong pair counts once", func(g *guesses) {
			for range 100 {
				g.try("a browser that insists", bad, "alice", "old", ErrBadCredentials)
			}
			g.guess("allowed", bad, "alice", 0, 3)
			g.try("then the right one", bad, "alice", "secret", nil)
		}},
		{"a success does not clear the count", func(g *guesses) {
			g.guess("allowed", bad, "alice", 0, 4)
			g.try("the guesser's own account", bad, "bob", "secret", nil)
			g.guess("the last one", bad, "alice", 4, 1)
			g.try("a sixth", bad, "alice", "guess5", ErrLockedOut)
		}},
		{"failures age", func(g *guesses) {
			g.guess("allowed", bad, "alice", 0, 4)
			time.Sleep(10 * time.Minute)
			g.guess("as many again", bad, "alice", 4, 4)
			g.try("the right one", bad, "alice", "secret", nil)
		}},
		{"failures do not age early", func(g *guesses) {
			g.guess("allowed", bad, "alice", 0, 4)
			time.Sleep(10*time.Minute - 1)
			g.guess("the last one", bad, "alice", 4, 1)
			g.try("a sixth", bad, "alice", "guess5", ErrLockedOut)
		}},
		{"to repeat does not keep a failure young", func(g *guesses) {
			g.guess("allowed", bad, "alice", 0, 4)
			time.Sleep(9 * time.Minute)
			g.guess("again", bad, "alice", 0, 4)
			time.Sleep(time.Minute)
			g.guess("others", bad, "alice", 4, 4)
			g.try("the right one", bad, "alice", "secret", nil)
		}},
		{"the ban ends", func(g *guesses) {
			g.guess("allowed", bad, "alice", 0, 5)
			time.Sleep(15*time.Minute - 1)
			g.try("just before", bad, "alice", "secret", ErrLockedOut)
			time.Sleep(time.Nanosecond)
			g.guess("then all begins anew", bad, "alice", 5, 4)
			g.try("the right one", bad, "alice", "secret", nil)
		}},
		{"to go on guessing does not prolong it", func(g *guesses) {
			g.guess("allowed", bad, "alice", 0, 5)
			for i := range 14 {
				time.Sleep(time.Minute)
				g.try("guess on", bad, "alice", fmt.Sprintf("more%d", i), ErrLockedOut)
			}
			time.Sleep(time.Minute)
			g.try("the right one", bad, "alice", "secret", nil)
		}},
		{"nobody locks a user out where he has logged in", func(g *guesses) {
			g.try("at home", bad, "alice", "secret", nil)
			g.guess("another one behind the same address", bad, "alice", 0, 5)
			g.try("alice", bad, "alice", "secret", nil)
			g.try("a guess", bad, "alice", "guess9", ErrLockedOut)
			g.try("bob, who was never there", bad, "bob", "secret", ErrLockedOut)
			time.Sleep(14 * time.Minute) // the cached credentials have expired
			g.try("alice again", bad, "alice", "secret", nil)
		}},
		{"one's home is one address", func(g *guesses) {
			g.try("at home", other, "alice", "secret", nil)
			g.guess("elsewhere", bad, "alice", 0, 5)
			g.try("alice elsewhere", bad, "alice", "secret", ErrLockedOut)
			g.try("alice at home", other, "alice", "secret", nil)
		}},
		{"an IPv6 client is its /64", func(g *guesses) {
			for i := range 5 {
				g.try("allowed", fmt.Sprintf("2001:db8:1:2:%d::1", i), "alice", fmt.Sprint(i), ErrBadCredentials)
			}
			g.try("another address of it", "2001:db8:1:2:ffff::", "alice", "secret", ErrLockedOut)
			g.try("its neighbour", "2001:db8:1:3::1", "alice", "secret", nil)
		}},
		{"mapped and zoned addresses", func(g *guesses) {
			g.guess("allowed", "::ffff:192.0.2.1", "alice", 0, 3)
			g.guess("allowed", bad, "alice", 3, 2)
			g.try("locked", "::ffff:192.0.2.1", "alice", "secret", ErrLockedOut)
			g.try("another mapped one", "::ffff:192.0.2.2", "alice", "secret", nil)
			g.guess("zone", "fe80::1%eth0", "alice", 5, 5)
			g.try("another zone", "fe80::1%eth1", "alice", "secret", ErrLockedOut)
		}},
		{"a password that is too long counts", func(g *guesses) {
			for i := range 5 {
				g.try("allowed", bad, "alice", fmt.Sprintf("%2000d", i), ErrBadCredentials)
			}
			g.try("locked", bad, "alice", "secret", ErrLockedOut)
		}},
		{"Unban", func(g *guesses) {
			l := g.u.lockout
			g.guess("allowed", bad, "alice", 0, 5)
			if !l.Unban(netip.MustParseAddr(bad)) || l.Unban(netip.MustParseAddr(bad)) {
				g.t.Error("Unban does not say whether there was a ban")
			}
			g.guess("all begins anew", bad, "alice", 0, 4)
			if l.Unban(netip.MustParseAddr(bad)) {
				g.t.Error("Unban of a client that is not banned says that it was")
			}
			g.guess("that has forgotten the failures too", bad, "alice", 0, 4)
			g.try("the right one", bad, "alice", "secret", nil)
		}},
		{"turned off and on", func(g *guesses) {
			l := g.u.lockout
			g.guess("allowed", bad, "alice", 0, 5)
			l.SetOptions(LockoutOptions{})
			g.guess("off", bad, "alice", 0, 50)
			g.try("the right one", bad, "alice", "secret", nil)
			if got := l.Bans(); got != nil {
				g.t.Errorf("Bans = %v while the lockout is off", got)
			}
			l.SetOptions(LockoutOptions{Failures: 2, Window: time.Second, Ban: time.Minute})
			time.Sleep(15 * time.Minute)
			g.guess("fewer", bad, "alice", 50, 2)
			g.try("locked", bad, "alice", "guess52", ErrLockedOut)
			time.Sleep(time.Minute)
			g.try("a shorter ban", bad, "alice", "secret", nil)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, _ := newGuesses(t, fiveIn10)
				tt.play(g)
			})
		})
	}
}

// While banned, a user whose password was changed can still come home with the
// new one, and with no other.
func TestLockoutAfterAChangeOfPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, calls := newGuesses(t, fiveIn10)
		g.try("at home", "192.0.2.1", "alice", "secret", nil)
		g.guess("another one", "192.0.2.1", "alice", 0, 5)
		next := *g.u.now.Load()
		next.users = map[string]entry{"alice": {counting{"newsecret", calls, nil}, 7}}
		g.u.now.Store(&next)
		g.try("the old one", "192.0.2.1", "alice", "secret", ErrLockedOut)
		g.try("a guess", "192.0.2.1", "alice", "guess", ErrLockedOut)
		g.try("the new one", "192.0.2.1", "alice", "newsecret", nil)
		before := calls.Load()
		g.try("from now on a guess is not even checked", "192.0.2.1", "alice", "guess2", ErrLockedOut)
		if calls.Load() != before {
			t.Error("a guess of a banned client was hashed")
		}
	})
}

// A pair that was wrong is checked again once the user's password has changed,
// also by another Users that shares the lockout, as after a reload.
func TestAWrongPairMayBecomeRight(t *testing.T) {
	lockout := NewLockout(fiveIn10)
	for _, stored := range []string{"first", "second"} {
		u := open(t, Options{Path: usersFile(t, "alice:"+cheap(t, stored)), Lockout: lockout})
		_, err := u.Authenticate(t.Context(), here, Credentials{"alice", "second"})
		if (err == nil) != (stored == "second") {
			t.Errorf("with the password %s Authenticate(second) = %v", stored, err)
		}
	}
}

func TestLockedOutError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, calls := newGuesses(t, fiveIn10)
		g.guess("allowed", "192.0.2.1", "alice", 0, 5)
		hashes, until := calls.Load(), time.Now().Add(15*time.Minute)
		time.Sleep(time.Minute)
		_, err := g.u.Authenticate(t.Context(), here, Credentials{"alice", "x"})
		var e *LockedOutError
		if !errors.As(err, &e) || !e.Until.Equal(until) || errors.Is(err, ErrBadCredentials) {
			t.Errorf("Authenticate = %v, want a LockedOutError until %v", err, until)
		}
		if want := "too many wrong passwords from this address, until " + until.Format(time.RFC3339); err.Error() != want {
			t.Errorf("the error says %q, want %q", err, want)
		}
		if calls.Load() != hashes {
			t.Error("a hash was computed for a banned client")
		}
	})
}

// Of many guesses that are sent at once no more than the allowed ones learn anything.
func TestGuessesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		u, calls := withCounting(t, Options{Lockout: NewLockout(fiveIn10)}, hold)
		u.queue = newQueue(8, 64)
		var bad, locked, good atomic.Int32
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				password := fmt.Sprintf("guess%d", i)
				if i == 199 {
					password = "secret"
				}
				_, err := u.Authenticate(t.Context(), here, Credentials{"alice", password})
				switch {
				case err == nil:
					good.Add(1)
				case errors.Is(err, ErrLockedOut):
					locked.Add(1)
				case errors.Is(err, ErrBadCredentials):
					bad.Add(1)
				default:
					t.Errorf("Authenticate = %v", err)
				}
			})
			synctest.Wait()
		}
		close(hold)
		wg.Wait()
		if bad.Load() != 5 || good.Load() != 0 || locked.Load() != 195 || calls.Load() > 12 {
			t.Errorf("%d wrong, %d right and %d locked out after %d hashes, want 5, 0 and 195 after hardly more than 8", bad.Load(), good.Load(), locked.Load(), calls.Load())
		}
	})
}

// The right pair is refused when its client was banned while it was checked.
func TestBannedWhileHashing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		u, _ := withCounting(t, Options{Lockout: NewLockout(LockoutOptions{Failures: 1})}, hold)
		u.queue = newQueue(2, 64)
		result := make(chan error, 1)
		go func() {
			_, err := u.Authenticate(t.Context(), here, Credentials{"alice", "secret"})
			result <- err
		}()
		synctest.Wait()
		u.lockout.failed(attempt{client: clientOf(here), user: "bob"}, time.Now())
		hold <- struct{}{}
		if err := <-result; !errors.Is(err, ErrLockedOut) {
			t.Errorf("Authenticate = %v, want ErrLockedOut", err)
		}
	})
}

func TestBans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := newGuesses(t, LockoutOptions{Failures: 1, Ban: time.Hour})
		for _, client := range []string{"192.0.2.9", "2001:db8::1", "192.0.2.1"} {
			g.guess("allowed", client, "alice", 0, 1)
			time.Sleep(time.Minute)
		}
		want := []string{"192.0.2.9/32", "2001:db8::/64", "192.0.2.1/32"}
		var got []string
		for i, b := range g.u.lockout.Bans() {
			got = append(got, b.Client.String())
			if left := time.Until(b.Until); left != time.Duration(57+i)*time.Minute {
				t.Errorf("the ban of %v ends in %v", b.Client, left)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("Bans = %v, want %v", got, want)
		}
		time.Sleep(57 * time.Minute)
		if got := len(g.u.lockout.Bans()); got != 2 {
			t.Errorf("%d bans after the first has ended, want 2", got)
		}
	})
}

func TestLockoutMemoryIsBounded(t *testing.T) {
	l := NewLockout(LockoutOptions{Failures: 2})
	now := time.Unix(1, 0)
	owner := attempt{client: clientOf(here), user: "alice", pair: fingerprint{1}, version: 1}
	if err := l.succeeded(owner, now); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxSuspects {
		a := attempt{client: clientOf(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})), pair: fingerprint{byte(i)}}
		l.failed(a, now)
	}
	if n := len(l.suspects.byKey); n != maxSuspects {
		t.Errorf("%d clients are remembered, want %d", n, maxSuspects)
	}
	// The flood has made nobody's home forgotten.
	for i := range 2 {
		l.failed(attempt{client: owner.client, user: "alice", pair: fingerprint{2, byte(i)}, version: 1}, now)
	}
	if _, err := l.ask(owner, now); err != nil {
		t.Errorf("at home alice is told %v", err)
	}
	for i := range 2 * maxHomes {
		l.succeeded(attempt{client: owner.client, user: fmt.Sprint(i), version: 1}, now.Add(time.Hour))
	}
	if n := len(l.homes.byKey); n != maxHomes {
		t.Errorf("%d homes are remembered, want %d", n, maxHomes)
	}
}

func TestClientOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":            "192.0.2.1/32",
		"::ffff:192.0.2.1":     "192.0.2.1/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"fe80::1%eth0":         "fe80::/64",
	} {
		if got := clientOf(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("clientOf(%s) = %s, want %s", in, got, want)
		}
	}
	if got := clientOf(netip.Addr{}); got.IsValid() {
		t.Errorf("clientOf of no address = %v", got)
	}
}
