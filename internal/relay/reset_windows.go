package relay

import "syscall"

// resets are the errors of a connection that its peer has aborted. Winsock's
// own numbers are not those that package syscall invents for this system.
var resets = []error{syscall.WSAECONNRESET, syscall.WSAECONNABORTED, syscall.ECONNRESET, syscall.EPIPE}
