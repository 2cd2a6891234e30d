package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
)

// noSourceError is a way out that has no address of ours in the target's family.
type noSourceError struct{ exit string }

// Error implements error.
func (e *noSourceError) Error() string {
	return "exit " + e.exit + " has no local_address of that family of IP"
}

func errNoSource(exit string) error { return &noSourceError{exit} }

// isOurs reports whether a failure to connect says nothing of the other side: the socket could not leave as its exit says, or there is no
// address or port of ours left for it. Of several attempts all must have failed so.
func isOurs(err error) bool {
	var several *attempts
	if errors.As(err, &several) {
		return !slices.ContainsFunc(several.all, func(e *Error) bool { return !isOurs(e.Err) })
	}
	var none *noSourceError
	return isSourceError(err) || errors.As(err, &none) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

// sourceError is why a socket could not be made to leave as its exit says.
type sourceError struct {
	what string // the key of the exit, and its value
	exit string
	err  error
}

// Error implements error.
func (e *sourceError) Error() string {
	hint := ""
	switch {
	case errors.Is(e.err, syscall.EPERM):
		hint = "; it takes the capability CAP_NET_ADMIN"
	case errors.Is(e.err, syscall.EADDRNOTAVAIL):
		hint = "; this machine does not have that address"
	case errors.Is(e.err, syscall.ENODEV):
		hint = "; there is no such interface"
	}
	return fmt.Sprintf("exit %s, %s: %v%s", e.exit, e.what, e.err, hint)
}

// Unwrap returns the cause.
func (e *sourceError) Unwrap() error { return e.err }

// preparing returns what has to be done to a socket before it connects; nil is nothing.
func (s *dialSet) preparing(is6 bool) func(fd int) error {
	if s.from == nil {
		return nil
	}
	return func(fd int) error { return s.from.prepare(fd, is6) }
}

// prepare has a socket that is not connected yet leave as the exit says.
func (o *origin) prepare(fd int, is6 bool) error {
	if err := o.leaveBy(fd); err != nil {
		return err
	}
	a, ok := o.source.Pick(is6, o.key)
	if !ok {
		return errNoSource(o.exit)
	}
	if !a.IsValid() {
		return nil
	}
	if err := bindAddress(fd, a, o.ranges(a)); err != nil {
		return o.notFrom(a, err)
	}
	return nil
}

// notFrom is the error of a socket that cannot leave from an address.
func (o *origin) notFrom(a netip.Addr, err error) error {
	return &sourceError{"local_address " + a.String(), o.exit, err}
}

// leaveBy sets the device and the mark of a socket.
func (o *origin) leaveBy(fd int) error {
	s := o.source
	if s.Interface != "" {
		if err := bindToDevice(fd, s.Interface); err != nil {
			return &sourceError{"interface " + strconv.Quote(s.Interface), o.exit, err}
		}
	}
	if s.Mark != 0 {
		if err := setMark(fd, s.Mark); err != nil {
			return &sourceError{"mark " + strconv.FormatUint(uint64(s.Mark), 10), o.exit, err}
		}
	}
	return nil
}

// ranges reports whether an address was taken out of a prefix of several, which this machine need not have one by one.
func (o *origin) ranges(a netip.Addr) bool {
	for _, p := range o.source.Addresses {
		if p.Contains(a) && !p.IsSingleIP() {
			return true
		}
	}
	return false
}

// prepareAttempt is prepare for a socket of package net.
func prepareAttempt(ctx context.Context, address string, c syscall.RawConn) error {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok || a.set.from == nil {
		return nil
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return errNotPinned
	}
	var failed error
	if err := c.Control(func(fd uintptr) { failed = a.set.from.prepare(int(fd), to.Addr().Is6()) }); err != nil {
		return err
	}
	return failed
}
