package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"polyport/internal/egress"
	"polyport/internal/http1"
)

// transfer is what must be known of a request that is forwarded once its fields
// are gone, and how far the exchange has come.
type transfer struct {
	// ctx is that of ServeSession. It is kept for the length of the exchange since watch, which
	// may need it, is called from inside a Read.
	ctx      context.Context
	read     int64 // the client's Count before the request
	written  int64 // likewise
	permit   *egress.Permit
	key      string // of permit
	upgrade  string // the protocols to ask for; "" for none
	trailers bool   // the client said "TE: trailers"
	forwards int    // Max-Forwards as it came; negative for none
	html     bool   // the client likes HTML
	binds    bool   // the request authenticates the connection

	hop       string // the server of an upstream that the connection leads through; "" for none
	forwarded bool   // and it is that server which forwards the request

	origin    *origin
	upload    *upload      // nil unless the body goes out beside the answer
	avoid     egress.Avoid // the servers that have closed a fresh connection on it
	repeats   int          // how often it was sent again since one has
	heard     bool         // some of an answer has come
	answering bool         // the final response is on its way to the client
	halfShut  time.Time
	unwatch   func() bool
}

// send forwards the request and passes the answer on. A connection that had been idle
// may have died unseen: then the request goes out once more on a new one, if it
// may be repeated (RFC 9110 section 9.2.2).
func (c *client) send() (outcome, error) {
	defer c.stopWatching()
	o := c.reuse()
	for {
		if o == nil {
			var err error
			if o, err = c.dial(); err != nil {
				return c.refuse(c.through(dialRefusal(err)))
			}
		}
		c.t.origin = o
		c.watchGone(o)
		err := c.ask(o)
		if err == nil && c.s.OnLoop() && c.isLarge() {
			return c.leaveLoop(func(context.Context) (outcome, error) {
				defer c.stopWatching()
				return c.respond(o)
			})
		}
		if err == nil {
			return c.respond(o)
		}
		if !c.repeatable(o, err) {
			return c.fail(err)
		}
		c.stopWatching()
		c.closeOrigin()
		o = nil
	}
}

// reuse returns an idle connection for the request; nil if there is none. A request
// that could not be repeated takes only one that was in use a moment ago.
func (c *client) reuse() *origin {
	o := c.takeOwned()
	if o == nil {
		var maxIdle time.Duration
		if !c.idempotent() {
			maxIdle = freshFor
		}
		o = c.h.pool.get(c.t.permit, c.t.key, c.s.Conn().Loop(), maxIdle)
	}
	if o != nil {
		c.s.SetLink(o.link)
		c.note(&o.link)
	}
	return o
}

// freshFor is how long a connection may have been idle for a request that cannot
// be repeated. No common origin closes sooner.
const freshFor = 2 * time.Second

// isLarge reports whether the response has a body that is worth splicing, which takes a goroutine.
// The origin's connection then leaves the loop too; if that fails it is closed, as the first read tells.
func (c *client) isLarge() bool {
	if f := c.resp.Framing; f.Kind != http1.Length || f.Length < http1.SpliceMin {
		return false
	}
	c.t.origin.leaveLoop()
	return true
}

// takeOwned returns the connection that is authenticated as this client, if
// the request goes the same way.
func (c *client) takeOwned() *origin {
	o := c.owned
	if o == nil || o.key != c.t.key {
		return nil
	}
	c.owned = nil
	covered := o.private || c.t.permit.Covers(o.link.Address) // the permits of private ones cover nothing, since they are for one client
	old := !o.owned && !c.idempotent() && time.Since(o.idleSince) > freshFor
	kept := o.owned || c.t.permit.Keeps(&o.link) // who is authenticated on a connection would have to begin anew on another
	if !covered || old || !kept || c.s.Identity().Name != c.ownedBy || o.stale() {
		o.close()
		return nil
	}
	return o
}

// dial opens a new connection to the origin, or to a proxy that forwards to it.
func (c *client) dial() (*origin, error) {
	link, err := c.s.Open(c.t.ctx, c.t.permit, egress.OpenOptions{Forward: !c.tunnels(), Avoid: c.t.avoid, Via: c.onwardVia(c.t.permit)})
	if err != nil {
		c.t.hop = ""
		return nil, err
	}
	c.note(&link)
	if _, spoke := link.Conn.(interface{ TakePrefix() ([]byte, net.Conn) }); spoke {
		_ = link.Conn.Close() // nothing of it is wanted any more
		link.Release()
		return nil, errSpokeFirst
	}
	if c.dest.secure {
		if link, err = c.secure(link); err != nil {
			return nil, err
		}
	}
	o := newOrigin(link, c.t.key)
	o.private = c.t.permit.WantsHeader()
	return o, nil
}

// tunnels reports whether the request needs a connection to the origin itself: other protocols than HTTP pass few proxies
// but in tunnels, and to TRACE a proxy may answer with what it was sent, our credentials too (RFC 9110 section 9.3.8).
func (c *client) tunnels() bool {
	return c.dest.secure || c.t.upgrade != "" || c.req.Method == methodTrace
}

// idempotent reports whether the request may be sent twice: the method is
// idempotent (RFC 9110 section 9.2.2) and there is no body, of which nothing is kept.
func (c *client) idempotent() bool {
	if !c.req.Framing.Empty() {
		return false
	}
	switch c.req.Method {
	case methodGet, methodHead, methodOptions, methodTrace, methodPut, methodDelete:
		return true
	}
	return false
}

// maxRepeats is how often a request is sent again since a server of a pool has closed a fresh connection on it: another server may do
// better.
const maxRepeats = 2

// repeatable reports whether a request that failed on o may be sent once more on another.
func (c *client) repeatable(o *origin, err error) bool {
	if o.owned || c.t.heard || !c.idempotent() || !isClosed(err) || c.t.ctx.Err() != nil {
		return false
	}
	if !o.reused {
		if o.link.Server == "" || c.t.repeats >= maxRepeats {
			return false
		}
		c.t.repeats++
		c.t.avoid.Add(&o.link)
	}
	return true
}

// ask sends the request to o and reads until the head of the final response is there.
func (c *client) ask(o *origin) error {
	idle := c.s.Timeouts().Idle
	o.wr.each(idle)
	o.watcher = c
	o.owned = o.owned || c.t.binds
	if err := c.writeHead(o); err != nil {
		return err
	}
	wrote := c.sendBody(o)
	o.rd.total(idle)
	if err := c.readHead(o); err != nil {
		// An origin may answer and close before it has read everything, so a failed
		// write is not the end as long as there is something to read.
		return errors.Join(err, wrote)
	}
	return nil
}

// readHead reads responses from o until the final one, passing on the interim ones.
func (c *client) readHead(o *origin) error {
	for {
		if err := o.r.ReadResponse(&c.resp, c.req.Method); err != nil {
			c.t.heard = c.t.heard || o.r.Buffered() > 0
			if o.layered != nil && !c.t.heard && errors.Is(err, io.ErrUnexpectedEOF) {
				err = errors.Join(err, io.EOF) // it closed without a word of TLS, but not in the middle of an answer
			}
			return fmt.Errorf("read the response: %w", err)
		}
		c.t.heard = true
		if !c.resp.Interim() {
			return nil
		}
		if c.req.Minor == 0 {
			continue // HTTP/1.0 knows no interim responses (RFC 9110 section 15.2)
		}
		if err := c.passInterim(); err != nil {
			return fmt.Errorf("%w: %w", errClientGone, err)
		}
	}
}

// passInterim passes a 1xx response on at once.
func (c *client) passInterim() error {
	c.wr.each(c.s.Timeouts().Idle)
	c.beginResponse()
	if err := c.w.EndHead(http1.Framing{}); err != nil {
		return err
	}
	return c.w.EndBody(nil)
}

// fail answers a request that the origin has not answered.
func (c *client) fail(err error) (outcome, error) {
	u := c.t.upload
	running := c.stopUpload()
	c.closeOrigin()
	if errors.Is(err, errClientGone) {
		return ends, err
	}
	r := c.through(originRefusal(err))
	if u != nil {
		if !running && u.err != nil && !isWriteError(u.err) {
			return c.failBody(u.err)
		}
		r.closes = true // some of the body may be unread
	}
	return c.refuse(r)
}

// failBody answers a request whose body could not be read.
func (c *client) failBody(err error) (outcome, error) {
	var malformed *http1.ParseError
	if errors.As(err, &malformed) {
		return c.refuse(badRequest(err))
	}
	return ends, fmt.Errorf("read the body of the request: %w", err)
}

// settle decides what becomes of o after an exchange. whole says that the request and
// the response came to their ends.
func (c *client) settle(o *origin, whole bool) {
	c.watchGone(nil)
	o.watcher = nil
	c.t.origin = nil
	switch {
	case !whole || c.resp.Close || o.r.Buffered() > 0:
		o.close()
	case o.owned, o.private:
		c.dropOwned()
		o.idleSince, o.reused = o.beginIdle(), true
		o.r.Release()
		c.owned, c.ownedBy = o, c.s.Identity().Name
	default:
		c.h.pool.put(o)
	}
}

// closeOrigin closes the connection of the exchange under way, if there is one.
func (c *client) closeOrigin() {
	if c.t.origin != nil {
		c.watchGone(nil)
		c.t.origin.close()
		c.t.origin = nil
	}
}

// dropOwned closes the connection that is authenticated as this client.
func (c *client) dropOwned() {
	if c.owned != nil {
		c.owned.close()
		c.owned = nil
	}
}
