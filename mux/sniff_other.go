//go:build !unix

package mux

// fill reads once what has arrived.
func (c *Conn) fill() error { return c.fillPlain() }
