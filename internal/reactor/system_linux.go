package reactor

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below never block, so they go past the runtime's bookkeeping for calls that
// may: it costs as much as the shortest of them, and has another thread take over behind the longest, a splice of a
// megabyte, which is done in a tenth of a millisecond.

// sysRead reads into b, which is not empty.
func sysRead(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), errno
}

// sysWrite writes b, which is not empty. A broken connection is an error and no signal.
func sysWrite(fd int, b []byte) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func sysClose(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func sysShutdown(fd, how int) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), uintptr(how), 0)
	return errno
}

// sysEpollCtl changes what epoll says of fd.
func sysEpollCtl(epoll, op, fd int, events uint32) unix.Errno {
	ev := unix.EpollEvent{Events: events, Fd: int32(fd)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	return errno
}

// sysEpollPoll looks for events without waiting.
func sysEpollPoll(epoll int, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

func sysSetOption(fd, level, option, value int) unix.Errno {
	v := int32(value)
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	return errno
}

// sysNotify makes an eventfd readable.
func sysNotify(fd int) {
	one := uint64(1)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
}

// sysSplice moves up to n bytes from in to out, one of which is a pipe.
func sysSplice(in, out, n int) (int, unix.Errno) {
	const flags = unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MOVE
	for {
		m, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(in), 0, uintptr(out), 0, uintptr(n), flags)
		if errno != unix.EINTR {
			return int(m), errno
		}
	}
}

// address is a socket address as the kernel writes it.
type address struct {
	raw  unix.RawSockaddrAny
	size uint32
}

// addrPort decodes an IPv4 or IPv6 address, unmapped and without its zone.
func (a *address) addrPort() netip.AddrPort {
	switch a.raw.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), swapped(sa.Port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&a.raw))
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), swapped(sa.Port))
	}
	return netip.AddrPort{}
}

// set encodes an address.
func (a *address) set(ap netip.AddrPort) (family int) {
	if ip := ap.Addr(); ip.Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		*sa = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(ap.Port()), Addr: ip.As4()}
		a.size = unix.SizeofSockaddrInet4
		return unix.AF_INET
	}
	sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(&a.raw))
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapped(ap.Port()), Addr: ap.Addr().As16()}
	a.size = unix.SizeofSockaddrInet6
	return unix.AF_INET6
}

// swapped exchanges network and memory order of a port.
func swapped(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// sysAccept takes a connection out of a listening socket's queue.
func sysAccept(fd int) (int, netip.AddrPort, unix.Errno) {
	var a address
	a.size = uint32(unsafe.Sizeof(a.raw))
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(unsafe.Pointer(&a.size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(n), a.addrPort(), 0
}

// sysName asks for a socket's own address.
func sysName(fd int) netip.AddrPort {
	var a address
	a.size = uint32(unsafe.Sizeof(a.raw))
	_, _, errno := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(unsafe.Pointer(&a.size)))
	if errno != 0 {
		return netip.AddrPort{}
	}
	return a.addrPort()
}

// sysSocket makes a TCP socket for an address of that family.
func sysSocket(to netip.AddrPort) (int, unix.Errno) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	n, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if errno != 0 {
		return -1, errno
	}
	_ = sysSetOption(int(n), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // fails on no TCP socket
	return int(n), 0
}

// sysConnect begins to connect a socket.
func sysConnect(fd int, to netip.AddrPort) unix.Errno {
	var a address
	a.set(to)
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(a.size))
	if errno == unix.EINPROGRESS {
		return 0
	}
	return errno
}

// Accept takes a connection out of the queue of a listening socket that does not block. The error is a syscall.Errno.
func Accept(listener int) (fd int, peer netip.AddrPort, err error) {
	fd, peer, errno := sysAccept(listener)
	if errno != 0 {
		return -1, peer, errno
	}
	return fd, peer, nil
}

// Reset closes a socket that is on no loop, with a reset.
func Reset(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // fails on no socket
	sysClose(fd)
}
