package loopback

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

func clientAddr(n byte) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 1, n+1)} }

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
