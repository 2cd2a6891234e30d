package auth

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// LockoutOptions bounds how often one client may guess.
type LockoutOptions struct {
	// Failures is how many distinct wrong credentials, over all users and
	// protocols, begin a ban. Zero and negative turn the lockout off.
	Failures int
	// Window is the time within which they count. Zero and negative mean 10 minutes.
	Window time.Duration
	// Ban is how long the client stays out. Zero and negative mean 15 minutes.
	Ban time.Duration
}

const (
	defaultWindow = 10 * time.Minute
	defaultBan    = 15 * time.Minute
	// maxSuspects bounds the clients whose failures are remembered.
	maxSuspects = 1 << 16
	// maxHomes bounds the pairs of user and client address that are remembered.
	maxHomes = 1 << 16
)

// Lockout keeps clients that guess out. A client is an IPv4 address or an IPv6
// /64, which one machine has all to itself (RFC 6177). What counts are distinct
// wrong credentials: the same wrong pair again counts once, since browsers send
// it six times. A right pair does not clear the count, or whoever has one
// account could guess at the others.
//
// Nobody can lock a user out of an address where he has logged in: the very
// pair with which he did stays welcome there through a ban. It must be that
// pair, so a ban leaves a guesser behind the same address (a NAT, a shared
// host) nothing to guess. Only when the user's stored password has changed
// since is another pair of his checked, since that may be the new one.
//
// Memory is bounded: of more than 65,536 clients, and as many pairs of user and
// address, the one that was seen longest ago is forgotten. They are kept apart,
// so a flood of failures from many addresses makes nobody's home forgotten.
// Lockout is safe for concurrent use.
type Lockout struct {
	mu       sync.Mutex
	opts     LockoutOptions
	suspects *lru[netip.Prefix, *suspect]
	homes    *lru[home, login]
}

// suspect is a client that has failed.
type suspect struct {
	banned time.Time               // until then
	wrong  map[fingerprint]wrongly // the distinct failures
}

// wrongly is when a pair was first found wrong, and against which version of the user.
type wrongly struct {
	at      time.Time
	version uint64
}

// home is where a user has logged in.
type home struct {
	client netip.Prefix
	user   string
}

// login is the last pair with which he did, and the version of the user then.
type login struct {
	pair    fingerprint
	version uint64
}

// attempt is one try to authenticate.
type attempt struct {
	client  netip.Prefix
	user    string
	pair    fingerprint
	version uint64 // of the user in the file; 0 for an unknown one
}

// clientOf returns what counts as one client. An invalid address is one too.
func clientOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // fails only for an invalid address, with the zero Prefix
	return p
}

// NewLockout makes a Lockout that knows nobody.
func NewLockout(o LockoutOptions) *Lockout {
	l := &Lockout{
		suspects: newLRU[netip.Prefix, *suspect](maxSuspects),
		homes:    newLRU[home, login](maxHomes),
	}
	l.SetOptions(o)
	return l
}

// SetOptions changes the bounds. Bans that have begun run to their end, unless
// the lockout is turned off.
func (l *Lockout) SetOptions(o LockoutOptions) {
	if o.Window <= 0 {
		o.Window = defaultWindow
	}
	if o.Ban <= 0 {
		o.Ban = defaultBan
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opts = o
}

// ask tells, before a hash is computed, that the client is banned (the error is
// a *LockedOutError) or that it has tried this pair in vain.
func (l *Lockout) ask(a attempt, now time.Time) (wrong bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.suspects.get(a.client)
	if !ok || l.opts.Failures <= 0 {
		return false, nil
	}
	if err := l.bannedNow(s, a, now); err != nil {
		return false, err
	}
	w, tried := s.wrong[a.pair]
	return tried && w.version == a.version && now.Sub(w.at) < l.opts.Window, nil
}

// bannedNow returns a *LockedOutError if s is banned and a is no exception.
func (l *Lockout) bannedNow(s *suspect, a attempt, now time.Time) error {
	if s == nil || !now.Before(s.banned) {
		return nil
	}
	if last, at := l.homes.get(home{a.client, a.user}); at && (last.pair == a.pair || last.version != a.version) {
		return nil
	}
	return &LockedOutError{Until: s.banned}
}

// welcomes reports whether this very pair was the last with which its user has
// logged in from this client, against the same stored password: it is right.
func (l *Lockout) welcomes(a attempt) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, at := l.homes.get(home{a.client, a.user})
	return at && last == login{a.pair, a.version}
}

// succeeded remembers a right pair. The error is a *LockedOutError if the client
// was banned while the hash was computed: of many guesses that were sent at
// once, those behind the last one allowed learn nothing.
func (l *Lockout) succeeded(a attempt, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, _ := l.suspects.get(a.client); l.opts.Failures > 0 {
		if err := l.bannedNow(s, a, now); err != nil {
			return err
		}
	}
	l.homes.put(home{a.client, a.user}, login{a.pair, a.version})
	return nil
}

// failed counts a wrong pair and begins a ban when it is one too many. The error
// is a *LockedOutError if the client was banned already, else ErrBadCredentials.
func (l *Lockout) failed(a attempt, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opts.Failures <= 0 {
		return ErrBadCredentials
	}
	s, ok := l.suspects.get(a.client)
	if !ok {
		s = &suspect{wrong: make(map[fingerprint]wrongly)}
	}
	if now.Before(s.banned) {
		return &LockedOutError{Until: s.banned}
	}
	l.suspects.put(a.client, s)
	for pair, w := range s.wrong {
		if now.Sub(w.at) >= l.opts.Window {
			delete(s.wrong, pair)
		}
	}
	w := wrongly{at: now, version: a.version}
	if before, again := s.wrong[a.pair]; again {
		w.at = before.at
	}
	s.wrong[a.pair] = w
	if len(s.wrong) >= l.opts.Failures {
		s.banned = now.Add(l.opts.Ban)
		clear(s.wrong)
	}
	return ErrBadCredentials
}

// Ban is a client that is kept out.
type Ban struct {
	Client netip.Prefix // a single IPv4 address, or an IPv6 /64
	Until  time.Time
}

// Bans returns the clients that are kept out now, the ban that ends first in front.
func (l *Lockout) Bans() []Ban {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.opts.Failures <= 0 {
		return nil
	}
	now := time.Now()
	var bans []Ban
	l.suspects.all(func(client netip.Prefix, s *suspect) {
		if now.Before(s.banned) {
			bans = append(bans, Ban{Client: client, Until: s.banned})
		}
	})
	slices.SortFunc(bans, func(a, b Ban) int {
		return cmp.Or(a.Until.Compare(b.Until), a.Client.Addr().Compare(b.Client.Addr()))
	})
	return bans
}

// Unban ends the ban of a client and forgets its failures. It reports whether
// there was a ban.
func (l *Lockout) Unban(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := clientOf(client)
	s, ok := l.suspects.get(key)
	l.suspects.remove(key)
	return ok && time.Now().Before(s.banned)
}
