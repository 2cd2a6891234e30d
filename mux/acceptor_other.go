//go:build !unix

package mux

// aborted reports whether accept failed for the sake of one client alone.
func aborted(error) bool { return false }

// exhausted reports whether the process or the machine is out of what a
// connection needs. This system does not tell, so it is what any failure is taken for.
func exhausted(error) bool { return true }
