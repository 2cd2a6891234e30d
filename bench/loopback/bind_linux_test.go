package loopback

import (
	"net/netip"
	"testing"
)

func TestClientsAreApart(t *testing.T) {
	seen := map[netip.Addr]bool{}
	for n := range 20000 {
		a := Client(n)
		if !a.IsLoopback() || seen[a] || a.As4()[3] == 0 || a.As4()[3] == 255 {
			t.Fatalf("client %d is %s", n, a)
		}
		seen[a] = true
	}
}
