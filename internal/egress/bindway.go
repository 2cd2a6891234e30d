package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"polyport/acl"
	"polyport/internal/target"
)

// errBindThrough is the cause where a connection would have to be awaited elsewhere.
var errBindThrough = errors.New("BIND is not carried through upstreams")

// authorizeAnyPeer permits a wait for whoever connects and is admitted then.
func (d *Dialer) authorizeAnyPeer(r acl.Request) (*Permit, *Error) {
	dec := d.policy.MayBind(r)
	if dec.Action != acl.Allow {
		return nil, refusal(r.Target, dec)
	}
	p := d.newPermit(r, dec)
	p.bind = &bindRight{request: r, wish: d.wish}
	if dec.Rule == "" {
		return p, nil // which rule it is, and so which way, the peer's address will tell
	}
	var err *Error
	p.way, err = d.wayOf(r, dec)
	return p.orNot(err)
}

// mayListen says why nobody can be awaited on a way; nil if somebody can.
func (w *way) mayListen() *Error {
	if w == nil || w.upstream == nil {
		return nil
	}
	return through(w.upstream, &Error{Reason: ConfigurationError, Err: errBindThrough})
}

// listensOn returns the address to listen on, in place of one of this machine: the first that the exit names. Out of a prefix of several
// there would be none to tell the peer beforehand.
func (w *way) listensOn(local netip.Addr) (netip.Addr, *Error) {
	if w == nil || w.source == nil {
		return local, nil
	}
	for _, p := range w.source.Addresses {
		if p.IsSingleIP() && p.Addr().Is6() == local.Is6() {
			return p.Addr(), nil
		}
	}
	err := fmt.Errorf("exit %s names no single local_address of that family of IP for BIND to listen on", w.exit)
	return local, &Error{Reason: ConfigurationError, Err: err}
}

// controlListener sets the device and the mark of a listening socket of package net.
func (o *origin) controlListener(_, _ string, c syscall.RawConn) error {
	var failed error
	if err := c.Control(func(fd uintptr) { failed = o.leaveBy(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// admitPeer asks the policy about a peer that nobody had named: as if the client had. He has come by a way, which has to be that of the rule
// that admits him.
func (d *Dialer) admitPeer(r acl.Request, peer netip.Addr, by *way) (acl.Decision, *Error) {
	r.Target = target.FromAddrPort(netip.AddrPortFrom(peer, r.Target.Port()))
	r.TargetCountry = d.Country(peer)
	if d.LooksAtTime() {
		r.Time = time.Now()
	}
	dec, _ := d.policy.Decide(r)
	if v := d.judge(netip.AddrPortFrom(peer, r.Target.Port()), dec); v.refused() {
		return dec, v.err(r.Target)
	}
	w, err := d.wayOf(r, dec)
	if err == nil {
		err = w.mayListen()
	}
	if err == nil && w.sourceName() != by.sourceName() {
		err = &Error{Reason: ConfigurationError, Err: errBindExit}
	}
	if err != nil {
		err.Target, err.Decision = r.Target, dec
		return dec, err
	}
	return dec, nil
}

// errBindExit is the cause where the exit is known only once the peer has come, elsewhere.
var errBindExit = errors.New("the rule for that peer names an exit, and BIND has listened before it could be known; name the peer or allow all of them by one rule")

// sourceName names the exit that a way leaves from an address of; "" is none.
func (w *way) sourceName() string {
	if w == nil || w.source == nil {
		return ""
	}
	return w.exit
}
