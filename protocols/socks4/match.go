package socks4

import (
	"polyport/internal/socks"
	"polyport/mux"
)

// match knows a SOCKS4 request by VN 4 and CD 1 or 2; the memo defines no other.
func match(prefix []byte) mux.Verdict {
	switch {
	case prefix[0] != socks.Version4:
		return mux.NoMatch
	case len(prefix) < 2:
		return mux.NeedMore
	case prefix[1] == byte(socks.Connect), prefix[1] == byte(socks.Bind):
		return mux.Match
	}
	return mux.NoMatch
}
