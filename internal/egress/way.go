package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"polyport/acl"
	"polyport/internal/exit"
	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// Direct is what a rule names in the place of an upstream to use none.
const Direct = "direct"

// Exit is an [exit.NAME]: a way out that rules name and users may wish for.
type Exit struct {
	// Upstream is the upstream that connections leave through; nil is none.
	Upstream *upstream.Upstream
	// Countries and Tags narrow its servers to those in one of these countries, and with one of these tags. Nil is all.
	Countries, Tags []string
	// Source is what connections leave with; nil leaves all to the system.
	Source *exit.Source
}

// Ways are the ways out that there are. The zero value has none but the direct one.
type Ways struct {
	Upstreams map[string]*upstream.Upstream
	Exits     map[string]*Exit
	// Default is the upstream of what rules allow without naming a way; nil is none.
	Default *upstream.Upstream
}

// ErrWish is the cause of an Error when what the client has added to its user name cannot be had.
var ErrWish = errors.New("the user name asks for a way out that there is not")

// way is how what a Permit admits leaves, where that is not simply from here to there. It is immutable.
type way struct {
	exit     string             // "" is none
	upstream *upstream.Upstream // nil is none
	byName   bool               // the upstream gets the target's name, which nobody here has resolved
	request  pool.Request       // for the upstream's pool, or the backend's
	source   *exit.Source       // nil is none
	key      exit.Key           // what sticky choices hold on to
	wish     exit.Wish
}

// Wishing returns a Dialer of the same kind, for a client that wishes for a way out.
func (d *Dialer) Wishing(w exit.Wish) *Dialer {
	if w == (exit.Wish{}) {
		return d
	}
	c := *d
	c.wish = w
	return &c
}

// Meets says why a wish could not be met, whatever the rules say; nil if it might. The error wraps ErrWish.
func (d *Dialer) Meets(w exit.Wish) error {
	if w.Exit != "" && d.ways.Exits[w.Exit] == nil {
		return fmt.Errorf("%w: there is no exit %q", ErrWish, w.Exit)
	}
	if w.Country == "" {
		return nil
	}
	want := pool.Request{Countries: []string{w.Country}}
	if w.Exit != "" {
		if e := d.ways.Exits[w.Exit]; e.inCountry(w.Country) && e.Upstream != nil && e.Upstream.Pool().Fits(&want) {
			return nil
		}
		return fmt.Errorf("%w: exit %q has no server in the country %q", ErrWish, w.Exit, w.Country)
	}
	for _, u := range d.ways.Upstreams {
		if u.Pool().Fits(&want) {
			return nil
		}
	}
	return fmt.Errorf("%w: there is no server in the country %q", ErrWish, w.Country)
}

func (e *Exit) inCountry(country string) bool {
	return len(e.Countries) == 0 || slices.Contains(e.Countries, country)
}

// wayOf returns the way out that a decision and the client's wish lead to; nil is the direct one.
func (d *Dialer) wayOf(r acl.Request, dec acl.Decision) (*way, *Error) {
	if dec.Way == nil && d.ways.Default == nil && d.wish == (exit.Wish{}) {
		return nil, nil
	}
	w := d.newWay(r)
	w.upstream = d.ways.Default
	err := d.choose(w, dec.Way)
	switch {
	case errors.Is(err, ErrWish):
		return nil, &Error{Reason: RequestDenied, Target: r.Target, Decision: dec, Err: err}
	case err != nil:
		return nil, &Error{Reason: ConfigurationError, Target: r.Target, Decision: dec, Err: err}
	case w.upstream == nil && w.source == nil:
		return nil, nil
	}
	return w, nil
}

// newWay returns the direct way, with what sticky choices need to know of whoever takes it.
func (d *Dialer) newWay(r acl.Request) *way {
	return &way{
		wish:    d.wish,
		request: pool.Request{Client: r.Client, User: r.Identity, Session: d.wish.Session, TTL: d.wish.TTL},
		key:     exit.Key{Client: r.Client, User: r.Identity, Session: d.wish.Session},
	}
}

// choose fills in what a rule says of the way, which may be nothing.
func (d *Dialer) choose(w *way, named *acl.Way) error {
	var exits []string
	if named != nil {
		exits = named.Exits
		switch named.Upstream {
		case "":
		case Direct:
			w.upstream = nil
		default:
			if w.upstream = d.ways.Upstreams[named.Upstream]; w.upstream == nil {
				return fmt.Errorf("there is no [upstream.%s]", named.Upstream)
			}
		}
	}
	if err := d.chooseExit(w, exits); err != nil {
		return err
	}
	if c := d.wish.Country; c != "" {
		if w.upstream == nil || len(w.request.Countries) > 0 && !slices.Contains(w.request.Countries, c) {
			return fmt.Errorf("%w: what the rules allow here leaves through no server in the country %q", ErrWish, c)
		}
		w.request.Countries = []string{c}
		if !w.upstream.Pool().Fits(&w.request) {
			return fmt.Errorf("%w: upstream %s has no such server in the country %q", ErrWish, w.upstream.Name(), c)
		}
	}
	return nil
}

// chooseExit takes the exit that is wished for out of those that a rule names, or the first of them.
func (d *Dialer) chooseExit(w *way, exits []string) error {
	name := d.wish.Exit
	switch {
	case name != "" && !slices.Contains(exits, name):
		return fmt.Errorf("%w: the rules do not let this be reached by the exit %q", ErrWish, name)
	case name == "" && len(exits) == 0:
		return nil
	case name == "":
		name = exits[0]
	}
	e := d.ways.Exits[name]
	if e == nil {
		return fmt.Errorf("there is no [exit.%s]", name)
	}
	w.exit, w.upstream, w.source = name, e.Upstream, e.Source
	if e.Source != nil {
		w.key.Session = d.terms.of(w.key.User, w.key.Session, d.wish.TTL, time.Now())
	}
	w.request.Countries, w.request.Tags = e.Countries, e.Tags
	return nil
}

// hopRequest is the request for the pool of an upstream that proxies are reached through: what is wished for is said of the last of them.
func (w *way) hopRequest() *pool.Request {
	return &pool.Request{Client: w.request.Client, User: w.request.User}
}

// sendsName reports whether the way leaves the resolving of names to its upstream.
func (w *way) sendsName() bool { return w != nil && w.upstream != nil && w.upstream.ResolvesNames() }

// from returns what a connection that leaves directly, or to the first proxy, leaves with.
func (w *way) from() *origin {
	if w == nil || w.source == nil {
		return nil
	}
	return &origin{source: w.source, key: w.key, exit: w.exit}
}

// apart tells connections to the proxies of an upstream that leave from different places, or by proxies in front that hold on to users and
// clients, apart: they carry many tunnels (HTTP/2).
func (w *way) apart(u *upstream.Upstream) string {
	holds := sticks(u.Via())
	if w.source == nil && !holds {
		return ""
	}
	b := appendText(nil, w.exit)
	if holds || w.source.Choose != exit.Random || w.key.Session != "" {
		b = appendText(b, w.key.Session)
		b = appendText(b, w.key.User)
		b = w.key.Client.AppendTo(b)
	}
	return string(b)
}

// sticks reports whether an upstream, or one that it lies behind, holds on to users, clients or sessions. Nil does not.
func sticks(u *upstream.Upstream) bool {
	for ; u != nil; u = u.Via() {
		if u.Pool().Sticky() {
			return true
		}
	}
	return false
}

// origin is where connections of a dial set leave from.
type origin struct {
	source *exit.Source
	key    exit.Key
	exit   string
}

// appendKey appends what keeps connections of different ways apart: nobody's connection may be lent to one who would have
// got another way.
func (w *way) appendKey(b []byte, backend *upstream.Backend) []byte {
	if w == nil {
		return append(b, 0)
	}
	b = append(b, 1)
	b = appendText(b, w.exit)
	name, sticky := "", w.source != nil && w.source.Choose != exit.Random
	if w.upstream != nil {
		name = w.upstream.Name()
		sticky = sticky || sticks(w.upstream)
	}
	sticky = sticky || backend != nil && backend.Pool().Sticky()
	b = appendText(b, name)
	b = appendText(b, w.wish.Country)
	b = appendText(b, w.key.Session)
	if sticky || w.wish.Session != "" {
		b = appendText(b, w.key.User)
		b = w.key.Client.AppendTo(b)
	}
	return append(b, 0)
}

// appendText appends a text of less than 64 KiB with its length.
func appendText(b []byte, s string) []byte {
	b = append(b, byte(len(s)>>8), byte(len(s)))
	return append(b, s...)
}

// Route tells how what a permit admits leaves. It is for people and records.
type Route struct {
	Exit     string // "" is none
	Upstream string // "" is none
	// ByName says that the target's name goes to the upstream unresolved: only the name was checked.
	ByName bool
}

// Route returns how what the permit admits leaves.
func (p *Permit) Route() Route {
	w := p.way
	if w == nil {
		return Route{}
	}
	r := Route{Exit: w.exit, ByName: w.byName}
	if w.upstream != nil {
		r.Upstream = w.upstream.Name()
	}
	return r
}

// Blocks reports whether the connection that the permit is for comes with goroutines of its own, as TLS to a proxy
// does: an event loop cannot serve it.
func (p *Permit) Blocks() bool {
	return p.way != nil && p.way.upstream != nil && p.way.upstream.Blocks()
}

// sameWay reports whether two rules name the same way out.
func sameWay(a, b *acl.Way) bool {
	return a == b || a != nil && b != nil && a.Upstream == b.Upstream && slices.Equal(a.Exits, b.Exits)
}

// Country is the country of an address, where the policy looks at countries; else "".
func (d *Dialer) Country(a netip.Addr) string {
	if d.countryOf == nil || !d.policy.LooksAtCountry() {
		return ""
	}
	return d.countryOf(a)
}
