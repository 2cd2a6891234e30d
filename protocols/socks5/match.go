package socks5

import (
	"polyport/internal/socks"
	"polyport/mux"
)

// match knows a SOCKS5 greeting by VER 5 and NMETHODS (RFC 1928 section 3). Any count
// from 1 to 255 is legal, so the second octet says no only if it is zero: such a
// client offers nothing and could never be answered.
func match(prefix []byte) mux.Verdict {
	switch {
	case prefix[0] != socks.Version5:
		return mux.NoMatch
	case len(prefix) < 2:
		return mux.NeedMore
	case prefix[1] == 0:
		return mux.NoMatch
	}
	return mux.Match
}
