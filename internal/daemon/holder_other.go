//go:build !linux

package daemon

import "net/netip"

// holderOf says which process listens on an address; this system does not tell.
func holderOf(netip.AddrPort) string { return "" }
