//go:build !linux

package mux

// arrival is a connection on a loop whose row is looked for; there are none on this system.
type arrival struct{}

func (a *arrival) abort() {}

func (a *Acceptor) toLoop() func() error { return nil }

// emptyQueue does nothing: this system's sockets cannot be accepted from behind a deadline.
func (a *Acceptor) emptyQueue() {}
