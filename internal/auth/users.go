package auth

import (
	"context"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"polyport/internal/file"
)

const (
	defaultCacheLife = time.Minute
	// maxCached bounds the credentials that are believed without a hash.
	maxCached = 1 << 14
	// queuePerCPU bounds the checks that wait for a processor.
	queuePerCPU = 64
)

// Options configures Users.
type Options struct {
	// Path is the htpasswd file. It is read again when it changes.
	Path string
	// Groups maps a group's name to its users.
	Groups map[string][]string
	// Lockout counts failures. It may outlive this Users, so that a reload
	// forgets no ban. Nil means no lockout.
	Lockout *Lockout
	// CacheLife is how long credentials that were right are believed without
	// hashing them again. Zero means one minute; negative turns the cache off.
	CacheLife time.Duration
	// Log hears, once for each state of the file, that a changed file cannot be
	// taken and that the old content holds. Nil hears nothing.
	Log func(error)
}

// Users authenticates against an htpasswd file. It is safe for concurrent use
// and has nothing to close.
type Users struct {
	path    string
	groups  map[string][]string // by user
	lockout *Lockout
	life    time.Duration
	log     func(error)

	now     atomic.Pointer[content]
	looked  atomic.Int64 // when the file was last looked at, in Unix nanoseconds
	reading sync.Mutex
	// What was last complained of, so that it is done once. Guarded by reading.
	complained bool
	faulty     file.Stamp

	queue *queue
	// known is for pairs that were right before: whoever floods the queue with
	// guesses keeps nobody out who comes from where he has logged in.
	known *queue

	mu    sync.Mutex
	right *lru[fingerprint, believed] // pairs that were right of late
}

// believed is a pair that was right, against this version of the user.
type believed struct {
	until   time.Time
	version uint64
}

var _ Authenticator = (*Users)(nil)

// Open reads the file. The error lists every bad line; it wraps fs.ErrNotExist
// if there is no file.
func Open(o Options) (*Users, error) {
	u := &Users{
		path:    o.Path,
		groups:  GroupsByUser(o.Groups),
		lockout: o.Lockout,
		life:    o.CacheLife,
		log:     o.Log,
		queue:   newQueue(runtime.GOMAXPROCS(0), queuePerCPU),
		known:   newQueue(1, queuePerCPU),
		right:   newLRU[fingerprint, believed](maxCached),
	}
	if u.lockout == nil {
		u.lockout = NewLockout(LockoutOptions{})
	}
	if u.life == 0 {
		u.life = defaultCacheLife
	}
	if u.log == nil {
		u.log = func(error) {}
	}
	now := time.Now()
	c, _, err := load(o.Path, now)
	if err != nil {
		return nil, err
	}
	u.now.Store(c)
	u.looked.Store(now.UnixNano())
	return u, nil
}

// GroupsByUser turns the users of each group into the groups, sorted, of each user.
func GroupsByUser(groups map[string][]string) map[string][]string {
	byUser := make(map[string][]string)
	for group, members := range groups {
		for _, m := range members {
			if !slices.Contains(byUser[m], group) {
				byUser[m] = append(byUser[m], group)
			}
		}
	}
	for _, g := range byUser {
		slices.Sort(g)
	}
	return byUser
}

// Len returns the number of users in the file as it was last read.
func (u *Users) Len() int { return len(u.now.Load().users) }

// Authenticate implements Authenticator. Credentials that were right a moment
// ago, or that this client has tried in vain, cost no hash; all others wait
// their turn for one, those of unknown users too. A pair with which its user has
// logged in from this client before has a queue of its own. Identity.Groups is shared and
// must not be changed.
func (u *Users) Authenticate(ctx context.Context, client netip.Addr, c Credentials) (Identity, error) {
	now := time.Now()
	e := u.content(now).lookup(c.User)
	a := attempt{client: clientOf(client), user: c.User, pair: fingerprintOf(c), version: e.version}
	if settled, err := u.recall(a, now); settled {
		return u.answer(c.User, err)
	}
	if tooLong(c) {
		return u.answer(c.User, u.lockout.failed(a, now))
	}
	q := u.queue
	if u.lockout.welcomes(a) {
		q = u.known
	}
	if err := q.enter(ctx); err != nil {
		return Identity{}, err
	}
	defer q.leave()
	// While this one waited, the same pair may have been checked for another
	// connection, or others of this client may have failed.
	if settled, err := u.recall(a, time.Now()); settled {
		return u.answer(c.User, err)
	}
	right := e.matches(c.Password)
	now = time.Now()
	if !right {
		return u.answer(c.User, u.lockout.failed(a, now))
	}
	if err := u.lockout.succeeded(a, now); err != nil {
		return u.answer(c.User, err)
	}
	u.believe(a, now)
	return u.answer(c.User, nil)
}

func (u *Users) answer(name string, err error) (Identity, error) {
	if err != nil {
		return Identity{}, err
	}
	return Identity{Name: name, Groups: u.groups[name]}, nil
}

// recall settles an attempt without a hash, if it can: the client is banned, or
// the pair is known to be right or wrong. Right is a nil error.
func (u *Users) recall(a attempt, now time.Time) (settled bool, err error) {
	wrong, err := u.lockout.ask(a, now)
	switch {
	case err != nil:
		return true, err
	case u.isBelieved(a, now):
		return true, u.lockout.succeeded(a, now)
	case wrong:
		return true, ErrBadCredentials
	}
	return false, nil
}

func (u *Users) isBelieved(a attempt, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	b, ok := u.right.get(a.pair)
	return ok && b.version == a.version && now.Before(b.until)
}

// believe caches a pair that was right.
func (u *Users) believe(a attempt, now time.Time) {
	if u.life < 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.right.put(a.pair, believed{until: now.Add(u.life), version: a.version})
}

// tooLong reports whether no user can have these credentials.
func tooLong(c Credentials) bool {
	return len(c.User) > maxUserName || len(c.Password) > maxPassword
}
