package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cheap makes a bcrypt hash that costs a millisecond.
func cheap(t testing.TB, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// argonSecret is "secret" with m=64 KiB, t=1, p=1.
const argonSecret = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$4mqQiyq0VpIzuZmp+8eSF3YJ7Av58TkEJ4LIdOVsAc4"

// write makes a file of users whose times lie in the past, as they mostly do.
func write(t testing.TB, path string, lines ...string) {
	t.Helper()
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) // before synctest's clock begins
	if err := os.Chtimes(temp, old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(temp, path); err != nil {
		t.Fatal(err)
	}
}

func usersFile(t testing.TB, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.htpasswd")
	write(t, path, lines...)
	return path
}

func open(t testing.TB, o Options) *Users {
	t.Helper()
	u, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var (
	here  = netip.MustParseAddr("192.0.2.1")
	there = netip.MustParseAddr("192.0.2.2")
)

func TestAuthenticate(t *testing.T) {
	long := strings.Repeat("x", 72)
	path := usersFile(t, "# people", "alice:"+cheap(t, "secret"), "", "bob:"+argonSecret, "long:"+cheap(t, long), "ümlaut:"+cheap(t, "pässword"))
	u := open(t, Options{Path: path, Groups: map[string][]string{"staff": {"alice", "bob", "alice"}, "admins": {"alice"}, "ghosts": {"nobody"}}})
	if u.Len() != 4 {
		t.Errorf("Len = %d, want 4", u.Len())
	}
	tests := []struct {
		name           string
		user, password string
		groups         []string // of a good pair
		good           bool
	}{
		{"bcrypt", "alice", "secret", []string{"admins", "staff"}, true},
		{"argon2id", "bob", "secret", []string{"staff"}, true},
		{"UTF-8", "ümlaut", "pässword", nil, true},
		{"longest password of bcrypt", "long", long, nil, true},
		{"longer: bcrypt would ignore the rest", "long", long + "x", nil, false},
		{"wrong password", "alice", "Secret", nil, false},
		{"wrong argon2id password", "bob", "secret ", nil, false},
		{"empty password", "alice", "", nil, false},
		{"the other's password", "alice", "pässword", nil, false},
		{"unknown user", "carol", "secret", nil, false},
		{"unknown user with groups", "nobody", "secret", nil, false},
		{"case counts", "Alice", "secret", nil, false},
		{"no user", "", "", nil, false},
		{"a comment is no user", "# people", "", nil, false},
		{"a NUL behind the password", "alice", "secret\x00", nil, false},
		{"endless password", "alice", strings.Repeat("x", 1<<20), nil, false},
		{"endless name", strings.Repeat("x", 1<<20), "secret", nil, false},
	}
	for range 2 { // the second time from memory
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				id, err := u.Authenticate(t.Context(), here, Credentials{tt.user, tt.password})
				if tt.good && (err != nil || id.Name != tt.user || !slices.Equal(id.Groups, tt.groups)) {
					t.Errorf("Authenticate = %+v, %v, want groups %q", id, err, tt.groups)
				}
				if !tt.good && (!errors.Is(err, ErrBadCredentials) || id.Name != "" || id.Groups != nil) {
					t.Errorf("Authenticate = %+v, %v, want nobody and ErrBadCredentials", id, err)
				}
			})
		}
	}
}

func TestAFileWithoutUsers(t *testing.T) {
	u := open(t, Options{Path: usersFile(t, "# nobody yet")})
	if _, err := u.Authenticate(t.Context(), here, Credentials{"", ""}); !errors.Is(err, ErrBadCredentials) || u.Len() != 0 {
		t.Errorf("Authenticate = %v with %d users, want ErrBadCredentials with none", err, u.Len())
	}
}

func TestOpenErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := Open(Options{Path: missing})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "polyport user add --htpasswd "+missing) {
		t.Errorf("Open of no file = %v, want it to say how to make one", err)
	}
	if _, err := Open(Options{Path: t.TempDir()}); err == nil {
		t.Error("Open of a folder succeeds")
	}
	if _, err := Open(Options{Path: usersFile(t, "alice:hunter2")}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Open of a file with a plain password = %v, want an error without it", err)
	}
	huge := usersFile(t, strings.Repeat("#\n", maxFile/2))
	if _, err := Open(Options{Path: huge}); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("Open of a huge file = %v", err)
	}
}

// counting replaces the passwords of a Users by ones that count their use.
type counting struct {
	password string
	calls    *atomic.Int32
	hold     chan struct{} // not nil: each check waits for one
}

func (c counting) matches(password string) bool {
	c.calls.Add(1)
	if c.hold != nil {
		<-c.hold
	}
	return password == c.password
}
func (c counting) effort() string  { return "counting" }
func (c counting) decoy() verifier { return c }

// withCounting makes a Users in which alice's password is secret.
func withCounting(t *testing.T, o Options, hold chan struct{}) (*Users, *atomic.Int32) {
	t.Helper()
	o.Path = usersFile(t, "alice:"+argonSecret)
	u := open(t, o)
	calls := new(atomic.Int32)
	v := counting{"secret", calls, hold}
	u.now.Store(&content{
		table: table{users: map[string]entry{"alice": {v, 1}, "bob": {v, 2}}, decoy: v},
		stamp: u.now.Load().stamp, settled: true,
	})
	return u, calls
}

func TestCacheSavesHashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, calls := withCounting(t, Options{Lockout: NewLockout(LockoutOptions{Failures: 5})}, nil)
		check := func(password string, good bool, hashes int32) {
			t.Helper()
			_, err := u.Authenticate(t.Context(), here, Credentials{"alice", password})
			if (err == nil) != good || calls.Load() != hashes {
				t.Errorf("Authenticate = %v after %d hashes, want good %v after %d", err, calls.Load(), good, hashes)
			}
		}
		check("secret", true, 1)
		check("secret", true, 1)
		time.Sleep(time.Minute - 1)
		check("secret", true, 1)
		time.Sleep(time.Nanosecond)
		check("secret", true, 2)
		check("wrong", false, 3)
		check("wrong", false, 3) // known to be wrong
		time.Sleep(10 * time.Minute)
		check("wrong", false, 4)
	})
}

func TestCacheLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for life, want := range map[time.Duration]int32{-1: 2, time.Second: 2, time.Hour: 1} {
			u, calls := withCounting(t, Options{CacheLife: life}, nil)
			for range 2 {
				if _, err := u.Authenticate(t.Context(), here, Credentials{"alice", "secret"}); err != nil {
					t.Error(err)
				}
				time.Sleep(2 * time.Second)
			}
			if got := calls.Load(); got != want {
				t.Errorf("with a life of %v two checks took %d hashes, want %d", life, got, want)
			}
		}
	})
}

func TestHashingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		u, calls := withCounting(t, Options{}, hold)
		u.queue = newQueue(2, 3) // 2 at once, 6 wait
		var busy, bad atomic.Int32
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				_, err := u.Authenticate(t.Context(), here, Credentials{"alice", fmt.Sprint(i)})
				switch {
				case errors.Is(err, ErrBusy):
					busy.Add(1)
				case errors.Is(err, ErrBadCredentials):
					bad.Add(1)
				default:
					t.Errorf("Authenticate = %v", err)
				}
			})
		}
		synctest.Wait()
		if calls.Load() != 2 || busy.Load() != 12 {
			t.Errorf("%d hashes run and %d callers were told that it is busy, want 2 and 12", calls.Load(), busy.Load())
		}
		// One who waits may leave.
		ctx, leave := context.WithCancel(t.Context())
		u.queue.most++
		left := make(chan error)
		go func() {
			_, err := u.Authenticate(ctx, here, Credentials{"alice", "x"})
			left <- err
		}()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left while waiting got %v, want context.Canceled", err)
		}
		close(hold)
		wg.Wait()
		if calls.Load() != 8 || bad.Load() != 8 || u.queue.waiting.Load() != 0 || len(u.queue.slots) != 0 {
			t.Errorf("%d hashes for %d callers, %d wait and %d run, want 8, 8, 0, 0", calls.Load(), bad.Load(), u.queue.waiting.Load(), len(u.queue.slots))
		}
	})
}

// A browser that opens six connections with the same pair costs few hashes.
func TestTheSamePairAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		u, calls := withCounting(t, Options{Lockout: NewLockout(LockoutOptions{Failures: 5})}, hold)
		u.queue = newQueue(1, 64)
		for _, password := range []string{"secret", "wrong"} {
			calls.Store(0)
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					_, err := u.Authenticate(t.Context(), here, Credentials{"alice", password})
					if (err == nil) != (password == "secret") {
						t.Errorf("Authenticate = %v", err)
					}
				})
			}
			synctest.Wait()
			hold <- struct{}{}
			wg.Wait()
			if got := calls.Load(); got != 1 {
				t.Errorf("six checks of %q took %d hashes, want 1", password, got)
			}
		}
	})
}

func TestUnknownUsersCostAHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, calls := withCounting(t, Options{}, nil)
		// The decoy would even match: that must not make anybody of an unknown user.
		if _, err := u.Authenticate(t.Context(), here, Credentials{"nobody", "secret"}); !errors.Is(err, ErrBadCredentials) || calls.Load() != 1 {
			t.Errorf("Authenticate of an unknown user = %v after %d hashes, want ErrBadCredentials after 1", err, calls.Load())
		}
	})
}

func TestReread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var complaints []string
		path := usersFile(t, "alice:"+cheap(t, "first"), "bob:"+cheap(t, "bobs"))
		u := open(t, Options{Path: path, Log: func(err error) { complaints = append(complaints, err.Error()) }, Lockout: NewLockout(LockoutOptions{Failures: 100})})
		check := func(step, user, password string, good bool) {
			t.Helper()
			if _, err := u.Authenticate(t.Context(), here, Credentials{user, password}); (err == nil) != good {
				t.Errorf("%s: Authenticate(%s, %s) = %v, want good %v", step, user, password, err, good)
			}
		}
		check("at first", "alice", "first", true)
		check("at first", "alice", "second", false)

		write(t, path, "alice:"+cheap(t, "second"), "bob:"+cheap(t, "bobs"), "carol:"+cheap(t, "carols"))
		check("within a second it is not looked at", "alice", "first", true)
		time.Sleep(time.Second)
		check("after that the old password is wrong, cached or not", "alice", "first", false)
		check("and the new one right, known as wrong or not", "alice", "second", true)
		check("a new user", "carol", "carols", true)

		before := u.now.Load()
		write(t, path, "alice:plain")
		time.Sleep(time.Second)
		check("a broken file leaves the old content", "alice", "second", true)
		time.Sleep(time.Second)
		check("and again", "carol", "carols", true)
		if u.now.Load() != before || len(complaints) != 1 || !strings.Contains(complaints[0], path+":1") || strings.Contains(complaints[0], "plain:") {
			t.Errorf("the complaints are %q, want one that names line 1", complaints)
		}
		write(t, path, "alice:plain", "bob:plain")
		time.Sleep(time.Second)
		check("another broken file", "alice", "second", true)
		if len(complaints) != 2 {
			t.Errorf("the complaints are %q, want two", complaints)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(time.Second)
			check("no file", "alice", "second", true)
		}
		if len(complaints) != 3 || !strings.Contains(complaints[2], "there is no file") {
			t.Errorf("the complaints are %q, want three, the last of a missing file", complaints)
		}
		write(t, path, "alice:"+cheap(t, "third"))
		time.Sleep(time.Second)
		check("a good file", "alice", "third", true)
		check("a removed user, cached or not", "carol", "carols", false)
		write(t, path, "alice:plain")
		time.Sleep(time.Second)
		check("broken again", "alice", "third", true)
		if len(complaints) != 4 {
			t.Errorf("the complaints are %q, want four", complaints)
		}
	})
}

// A file that is written twice within one tick of the file system's clock.
func TestRereadOfAFreshFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "users")
		put := func(password string) {
			t.Helper()
			if err := os.WriteFile(path, []byte("alice:"+cheap(t, password)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		put("first")
		u := open(t, Options{Path: path})
		put("other")
		if err := os.Chtimes(path, start, start); err != nil { // the same time and size
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := u.Authenticate(t.Context(), here, Credentials{"alice", "other"}); err != nil {
			t.Errorf("Authenticate with the password of the second writing = %v", err)
		}
		time.Sleep(time.Hour)
		u.Authenticate(t.Context(), here, Credentials{"alice", "other"})
		if settled := u.now.Load(); !settled.settled {
			t.Error("an old file is read again and again")
		}
	})
}

func TestManyAtOnce(t *testing.T) {
	path := usersFile(t, "alice:"+cheap(t, "secret"), "bob:"+argonSecret)
	u := open(t, Options{Path: path, Lockout: NewLockout(LockoutOptions{Failures: 3}), CacheLife: time.Nanosecond})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			client := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			for j := range 20 {
				c := Credentials{[]string{"alice", "bob", "carol"}[j%3], []string{"secret", fmt.Sprint(j)}[i%2]}
				id, err := u.Authenticate(t.Context(), client, c)
				if err == nil && (c.Password != "secret" || id.Name != c.User || c.User == "carol") {
					t.Errorf("Authenticate(%+v) = %+v", c, id)
				}
			}
		})
	}
	wg.Wait()
	if got := len(u.lockout.Bans()); got != 8 {
		t.Errorf("%d clients are banned, want the 8 who guess", got)
	}
}

func TestCacheIsBounded(t *testing.T) {
	l := newLRU[int, string](3)
	for i := range 10 {
		l.put(i, fmt.Sprint(i))
		if i == 8 {
			l.put(6, "six") // touched: 7 goes first
		}
	}
	var got []int
	l.all(func(k int, v string) { got = append(got, k) })
	if !slices.Equal(got, []int{9, 6, 8}) || len(l.byKey) != 3 || l.order.Len() != 3 {
		t.Errorf("the cache holds %v in %d and %d entries, want 9, 6, 8", got, len(l.byKey), l.order.Len())
	}
	if v, ok := l.get(6); !ok || v != "six" {
		t.Errorf("get(6) = %q, %v", v, ok)
	}
	l.remove(6)
	l.remove(6)
	if _, ok := l.get(6); ok || l.order.Len() != 2 {
		t.Error("6 is still there after remove")
	}
}

func TestFingerprint(t *testing.T) {
	pairs := []Credentials{{"a", "bc"}, {"ab", "c"}, {"abc", ""}, {"", "abc"}, {"a", "bd"}, {"a\x00", "bc"}}
	seen := map[fingerprint]Credentials{}
	for _, p := range pairs {
		f := fingerprintOf(p)
		if other, twice := seen[f]; twice {
			t.Errorf("%q and %q have the same fingerprint", p, other)
		}
		seen[f] = p
		if f != fingerprintOf(p) {
			t.Errorf("%q has two fingerprints", p)
		}
	}
}

func BenchmarkAuthenticateCached(b *testing.B) {
	u := open(b, Options{Path: usersFile(b, "alice:"+cheap(b, "secret")), Lockout: NewLockout(LockoutOptions{Failures: 5})})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := u.Authenticate(b.Context(), here, Credentials{"alice", "secret"}); err != nil {
			b.Fatal(err)
		}
	}
}
