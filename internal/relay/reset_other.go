//go:build !linux && !windows

package relay

import "syscall"

// resets are the errors of a connection that its peer has aborted.
var resets = []error{syscall.ECONNRESET, syscall.EPIPE}
