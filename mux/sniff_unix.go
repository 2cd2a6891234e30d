//go:build unix

package mux

import (
	"io"
	"syscall"
)

// fill reads once what has arrived. While it waits it holds no buffer, so that
// thousands of silent connections cost no more than their goroutines.
func (c *Conn) fill() error {
	if c.tcp == nil {
		return c.fillPlain()
	}
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var readErr error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, readErr = syscall.Read(int(fd), c.grow())
			if readErr != syscall.EINTR {
				break
			}
		}
		if readErr == syscall.EAGAIN {
			c.releaseEmpty()
			return false
		}
		return true
	})
	switch {
	case err != nil:
		c.releaseEmpty()
		return err
	case readErr != nil:
		c.releaseEmpty()
		return readErr
	case n == 0:
		c.releaseEmpty()
		return io.EOF
	}
	c.took(n)
	return nil
}
