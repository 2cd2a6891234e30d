package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options configures Users.
type Options struct {
	// Path is the htpasswd file. It is read again when it changes.
	Path string
	// Groups maps a group's name to its users.
	Groups map[string][]string
	// Lockout counts failures. It may outlive this Users. Nil means no lockout.
	Lockout *Lockout
	// CacheLife is how long credentials that were right are believed without
	// hashing them again. Zero means one minute; negative turns the cache off.
	CacheLife time.Duration
	// Log hears that a changed file is faulty and that the old content holds. Nil hears nothing.
	Log func(error)
}

const (
	defaultCacheLife = time.Minute
	maxCached        = 4096
	statEvery        = time.Second
	// queuePerCPU bounds the checks that wait for a processor.
	queuePerCPU = 64
)

// fingerprint stands for a pair of credentials; the key is the process's own
// and random, so nothing can be learnt from one.
type fingerprint [sha256.Size]byte

// fingerprintKey keys every fingerprint of this process.
var fingerprintKey = sync.OnceValue(func() []byte {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // documented never to fail
	return key
})

func fingerprintOf(c Credentials) fingerprint {
	mac := hmac.New(sha256.New, fingerprintKey())
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(c.User)))
	mac.Write(n[:])
	mac.Write([]byte(c.User))
	mac.Write([]byte(c.Password))
	var f fingerprint
	mac.Sum(f[:0])
	return f
}

// content is one state of the file.
type content struct {
	users      table
	decoy      hash // what unknown users are checked against, so that they cost the same
	stamp      stamp
	generation uint64
}

// stamp is by what a change of the file is noticed.
type stamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo
}

func (s stamp) same(o stamp) bool {
	return s.modified.Equal(o.modified) && s.size == o.size && (s.info == nil || o.info == nil || os.SameFile(s.info, o.info))
}

// Users authenticates against an htpasswd file. It is safe for concurrent use.
type Users struct {
	opts    Options
	groups  map[string][]string // by user
	now     atomic.Pointer[content]
	reading sync.Mutex
	looked  atomic.Int64 // when the file was last looked at, in Unix nanoseconds
	failed  stamp        // of a faulty file that was complained of; under reading

	slots   chan struct{} // one for each hash that is computed
	waiting atomic.Int64

	mu    sync.Mutex
	cache map[fingerprint]cached
}

// cached is a pair that was right.
type cached struct {
	until      time.Time
	generation uint64
}

var _ Authenticator = (*Users)(nil)

// Open reads the file. The error lists every bad line.
func Open(o Options) (*Users, error) {
	if o.CacheLife == 0 {
		o.CacheLife = defaultCacheLife
	}
	if o.Log == nil {
		o.Log = func(error) {}
	}
	if o.Lockout == nil {
		o.Lockout = NewLockout(LockoutOptions{})
	}
	u := &Users{
		opts: o, groups: map[string][]string{}, cache: map[fingerprint]cached{},
		slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	for group, members := range o.Groups {
		for _, m := range members {
			u.groups[m] = append(u.groups[m], group)
		}
	}
	for _, g := range u.groups {
		slices.Sort(g)
	}
	st, err := stampOf(o.Path)
	if err != nil {
		return nil, explainMissing(o.Path, err)
	}
	c, err := load(o.Path, st, 1)
	if err != nil {
		return nil, err
	}
	u.now.Store(c)
	u.looked.Store(time.Now().UnixNano())
	return u, nil
}

// explainMissing says what to do about a file that cannot be read.
func explainMissing(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the users: there is no file %s yet; make it with: polyport user add --htpasswd %s NAME (%w)", path, path, fs.ErrNotExist)
	}
	return fmt.Errorf("read the users: %w", err)
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	return stamp{info.ModTime(), info.Size(), info}, nil
}

func load(path string, st stamp, generation uint64) (*content, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the users: %w", err)
	}
	t, err := parseTable(path, data)
	if err != nil {
		return nil, err
	}
	c := &content{users: t, stamp: st, generation: generation}
	for _, h := range t {
		c.decoy = h
		break
	}
	return c, nil
}

// content returns the file's content, read again if the file has changed. It
// looks at most once a second, and a faulty new file leaves the old content in force.
func (u *Users) content(now time.Time) *content {
	last := u.looked.Load()
	if now.UnixNano()-last < int64(statEvery) || !u.looked.CompareAndSwap(last, now.UnixNano()) {
		return u.now.Load()
	}
	u.reading.Lock()
	defer u.reading.Unlock()
	old := u.now.Load()
	st, err := stampOf(u.opts.Path)
	if err == nil && st.same(old.stamp) {
		return old
	}
	if err == nil {
		var fresh *content
		if fresh, err = load(u.opts.Path, st, old.generation+1); err == nil {
			u.now.Store(fresh)
			u.failed = stamp{}
			return fresh
		}
	}
	if !st.same(u.failed) || u.failed.modified.IsZero() {
		u.failed = st
		if st.modified.IsZero() { // missing: complain once
			u.failed.modified = now
		}
		u.opts.Log(fmt.Errorf("the changed users were not taken, the old ones hold: %w", err))
	}
	return old
}

// Authenticate implements Authenticator. Credentials that were right a moment
// ago, or are known to be wrong, cost no hash; all others take their turn for one.
func (u *Users) Authenticate(ctx context.Context, client netip.Addr, c Credentials) (Identity, error) {
	now := time.Now()
	file := u.content(now)
	f := fingerprintOf(c)
	st := u.opts.Lockout.ask(client, f, file.generation, now)
	switch {
	case !st.banned.IsZero():
		return Identity{}, &LockedOutError{Until: st.banned}
	case u.isCached(f, file.generation, now):
		u.opts.Lockout.succeeded(client, f, now)
		return u.identity(c.User), nil
	case st.isWrong:
		return Identity{}, ErrBadCredentials
	}
	if err := u.takeSlot(ctx); err != nil {
		return Identity{}, err
	}
	defer func() { <-u.slots }()
	// Others of this client may have failed while this one waited.
	if st = u.opts.Lockout.ask(client, f, file.generation, time.Now()); !st.banned.IsZero() {
		return Identity{}, &LockedOutError{Until: st.banned}
	}
	if !file.right(c) {
		u.opts.Lockout.failed(client, f, file.generation, time.Now())
		return Identity{}, ErrBadCredentials
	}
	u.remember(f, file.generation, time.Now())
	u.opts.Lockout.succeeded(client, f, time.Now())
	return u.identity(c.User), nil
}

// right computes the hash, for unknown users too.
func (c *content) right(cr Credentials) bool {
	if len(cr.Password) > maxPasswordLength || len(cr.User) > maxUserNameLength {
		return false
	}
	h, known := c.users[cr.User]
	if !known {
		h = c.decoy
	}
	return h != nil && h.matches(cr.Password) && known
}

func (u *Users) identity(name string) Identity { return Identity{Name: name, Groups: u.groups[name]} }

// takeSlot waits for its turn to compute a hash. The caller gives it back.
func (u *Users) takeSlot(ctx context.Context) error {
	select {
	case u.slots <- struct{}{}:
		return nil
	default:
	}
	if u.waiting.Add(1) > int64(queuePerCPU*cap(u.slots)) {
		u.waiting.Add(-1)
		return ErrBusy
	}
	defer u.waiting.Add(-1)
	select {
	case u.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (u *Users) isCached(f fingerprint, generation uint64, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	c, ok := u.cache[f]
	return ok && c.generation == generation && now.Before(c.until)
}

// remember caches a pair that was right. A full cache is emptied: that costs a
// hash for each of its users, and happens only with thousands of them a minute.
func (u *Users) remember(f fingerprint, generation uint64, now time.Time) {
	if u.opts.CacheLife < 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.cache) >= maxCached {
		clear(u.cache)
	}
	u.cache[f] = cached{now.Add(u.opts.CacheLife), generation}
}
