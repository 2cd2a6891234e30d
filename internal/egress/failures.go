package egress

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// failures gathers what went wrong with each address, or server, that was tried.
type failures []*Error

func (f *failures) add(e *Error) { *f = append(*f, e) }

// final reports whether further attempts would fail in the same way: nobody
// waits any more, or this machine itself is out of something.
func (f failures) final(ctx context.Context) bool {
	return ctx.Err() != nil || len(f) > 0 && f[len(f)-1].OutOfRoom()
}

// last returns the last failure.
func (f failures) last() *Error { return f[len(f)-1] }

// telling orders reasons by how much they say: what is wrong here first, then
// that the target answered, even with a refusal, then silence, and having no way there last.
var telling = map[Reason]int{
	LimitReached:           8,
	InternalError:          7,
	ConfigurationError:     7,
	LoopDetected:           7,
	ConnectionRefused:      6,
	ConnectionTerminated:   5,
	ConnectionTimeout:      4,
	DestinationUnavailable: 3,
	DestinationUnroutable:  2,
	DNSTimeout:             1,
}

// worst returns the most telling failure; the others stay in its cause.
func (f failures) worst() *Error {
	if len(f) == 0 {
		return &Error{Reason: DestinationUnavailable, Err: errNoAddress}
	}
	best := f[0]
	for _, e := range f[1:] {
		if telling[e.Reason] > telling[best.Reason] {
			best = e
		}
	}
	if len(f) == 1 {
		return best
	}
	e := *best
	e.Err = &attempts{best: best, all: f}
	return &e
}

// maxTold is how many failures an error speaks of.
const maxTold = 8

// attempts is the cause of an Error when several addresses were tried.
type attempts struct {
	best *Error
	all  []*Error
}

// Error says the most telling failure first, then the others by address.
func (a *attempts) Error() string {
	var b strings.Builder
	b.WriteString(bare(a.best.Err).Error())
	told := 1
	for _, e := range a.all {
		switch {
		case e == a.best:
			continue
		case told == maxTold:
			fmt.Fprintf(&b, "; and %d more", len(a.all)-told)
			return b.String()
		}
		told++
		b.WriteString("; ")
		if e.Address.IsValid() {
			b.WriteString(e.Address.String())
			b.WriteString(": ")
		}
		b.WriteString(bare(e.Err).Error())
	}
	return b.String()
}

// Unwrap returns the cause of each attempt, the most telling one first.
func (a *attempts) Unwrap() []error {
	errs := []error{a.best.Err}
	for _, e := range a.all {
		if e != a.best {
			errs = append(errs, e.Err)
		}
	}
	return errs
}

// bare strips the layer of package net that only repeats the address.
func bare(err error) error {
	if op, ok := err.(*net.OpError); ok && op.Err != nil {
		return op.Err
	}
	return err
}
