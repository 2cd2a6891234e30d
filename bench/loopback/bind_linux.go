package loopback

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

func clientAddr(n byte) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 1, n+1)} }

// Client is the address of client n of many, 0 to 62,499: each has its own, so
// that none is taken for another where they have no port yet.
func Client(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 1, byte(n / 250), byte(1 + n%250)})
}

// lateBind lets the kernel choose the port when the target is known, so that
// ports can be used again for another target.
func lateBind(_, _ string, c syscall.RawConn) error {
	var err error
	if ctl := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}); ctl != nil {
		return ctl
	}
	return err
}
