package httpproxy

// peeked is what lies in a socket's receive buffer.
type peeked uint8

const (
	peekQuiet peeked = iota // nothing, and the peer has not finished
	peekBytes               // something to read
	peekEOF                 // the peer has finished sending
	peekError               // the connection is dead
)
