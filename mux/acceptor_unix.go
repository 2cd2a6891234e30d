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
