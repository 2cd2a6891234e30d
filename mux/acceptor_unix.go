//go:build unix

package mux

import (
	"errors"
	"syscall"
)

// aborted reports whether accept failed for the sake of one client alone.
func aborted(err error) bool {
	return errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EPROTO)
}

// exhausted reports whether the process or the machine is out of what a connection needs.
func exhausted(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
