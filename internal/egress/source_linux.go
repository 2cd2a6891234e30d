package egress

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// bindToDevice has a socket use one network interface alone (socket(7)).
func bindToDevice(fd int, name string) error {
	return os.NewSyscallError("setsockopt", unix.BindToDevice(fd, name))
}

// setMark sets the mark that routing rules and firewalls see on the socket's packets (socket(7)).
func setMark(fd int, mark uint32) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)))
}

// bindAddress has a socket leave from an address, with whatever port: which one is chosen for the target alone when it
// connects, so ports do not run out. anywhere lets it be one that this machine has only a route for.
func bindAddress(fd int, a netip.Addr, anywhere bool) error {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1) // older systems choose a port at once
	if anywhere {
		if err := bindAnywhere(fd); err != nil {
			return err
		}
	}
	var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: a.As16()}
	if a.Is4() {
		sa = &unix.SockaddrInet4{Addr: a.As4()}
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sa))
}

// bindAnywhere lets a socket be bound to an address that this machine has only a route for. IP_FREEBIND holds for IPv6 as well (ip(7)).
func bindAnywhere(fd int) error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
}
