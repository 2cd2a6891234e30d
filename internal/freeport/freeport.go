// Package freeport finds ports for what tests start: programs that cannot be
// given a listening socket, and cannot be asked for the port that the system
// chose. A port that was bound to port 0 and closed will not do: the system may
// give it to the next one who asks, or to a connection that leaves.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
)

// Ports of [first, first+count) are below those that Linux gives to connections
// and listeners by itself (32768-60999), and above those of services.
const first, count = 10_000, 10_000

// given counts the ports that this process has given out. It begins anywhere,
// since other processes of the same test run look for ports as well.
var given = beginAnywhere()

func beginAnywhere() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(rand.Uint32N(count))
	return &n
}

// Find returns the first of n ports in a row that nobody uses at an address of
// this machine, neither for TCP nor for UDP. It gives each port once in a
// process, until all of them were given. n is from 1 to 1000.
func Find(host netip.Addr, n int) (uint16, error) {
	if n < 1 || n > 1000 {
		return 0, fmt.Errorf("find %d free ports in a row: give 1 to 1000", n)
	}
	var last error
	for range count / n {
		from := int(given.Add(uint32(n))-uint32(n)) % count
		if from+n > count {
			continue // a row does not run over the end
		}
		if last = check(host, first+from, n); last == nil {
			return uint16(first + from), nil
		}
	}
	return 0, fmt.Errorf("find %d free ports in a row at %s, from %d to %d: %w", n, host, first, first+count-1, last)
}

// check binds each port once.
func check(host netip.Addr, from, n int) error {
	for port := from; port < from+n; port++ {
		at := netip.AddrPortFrom(host, uint16(port))
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		l.Close()
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		u.Close()
	}
	return nil
}
