package relay

import (
	"encoding/binary"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"polyport/internal/reactor"
)

// resets are the errors of a connection that its peer has aborted. EPIPE is
// what is left of the reset once another call has been told of it.
var resets = []error{syscall.ECONNRESET, syscall.EPIPE}

// tcpClose is TCP_CLOSE of the kernel's tcp_states.h.
const tcpClose = 7

// onSocket calls f with the descriptor of a connection that is TCP itself. False means that it is
// none; the error, that it is closed.
func onSocket(c net.Conn, f func(fd uintptr)) (isTCP bool, err error) {
	switch c := c.(type) {
	case *reactor.Conn:
		if c.FD() < 0 {
			return true, net.ErrClosed
		}
		f(uintptr(c.FD()))
		return true, nil
	case *net.TCPConn:
		rc, err := c.SyscallConn()
		if err != nil {
			return true, err
		}
		return true, rc.Control(f)
	}
	return false, nil
}

// isDead reports whether a TCP connection is closed in both directions, by a
// reset, a timeout or an orderly end of both.
func isDead(c net.Conn) bool {
	dead := false
	_, err := onSocket(c, func(fd uintptr) { dead = tcpState(fd) == tcpClose })
	return err != nil || dead
}

// tcpState is tcpi_state, the first octet of struct tcp_info (tcp(7)); the
// kernel gives as much of the structure as is asked for. It is 0, no state at
// all, where the kernel does not say: then a connection counts as alive.
func tcpState(fd uintptr) byte {
	v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(v))
	return b[0]
}

// unsent is how many bytes a connection's send queue holds that its peer has not
// acknowledged. It is unknown for connections that are not TCP themselves.
func unsent(c net.Conn) (n int, known bool) {
	known, err := onSocket(c, func(fd uintptr) {
		if tcpState(fd) != tcpClose { // else nobody is left to take it
			n = queueLength(fd, unix.SIOCOUTQ)
		}
	})
	if err != nil {
		return 0, true // closed: nothing will be sent any more
	}
	return n, known
}

// unread is how many bytes wait to be read; 0 where that is unknown.
func unread(c net.Conn) (n int) {
	_, _ = onSocket(c, func(fd uintptr) { n = queueLength(fd, unix.SIOCINQ) }) // fails when closed: nothing waits
	return n
}

// queueLength asks for the length of a socket's queue (tcp(7), SIOCINQ and SIOCOUTQ).
func queueLength(fd uintptr, request uint) int {
	n, err := unix.IoctlGetUint32(int(fd), request)
	if err != nil {
		return 0
	}
	return int(n)
}

// queues looks at what waits in the sockets of both ends.
func (t *Tunnel) queues() (q queues) {
	for i, c := range t.ends {
		q.unread[i] = unread(c)
		q.unacked[i], _ = unsent(c)
	}
	return q
}

// sendRoom is how many bytes a socket's send buffer can take now. As the
// kernel does, it calls a buffer writable once a third of it is free.
func sendRoom(fd int) (room int, writable, known bool) {
	var mem [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(mem))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&mem)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || size < uint32(unsafe.Sizeof(mem)) {
		return 0, false, false
	}
	queued := int(mem[unix.SK_MEMINFO_WMEM_QUEUED])
	room = int(mem[unix.SK_MEMINFO_SNDBUF]) - queued
	return room, room >= queued/2, true
}

// pollWritable asks the kernel whether a write would be taken. Unlike a
// look at the buffer it also makes the kernel report when that changes: a
// socket that nobody has tried to write to wakes nobody.
func pollWritable(fd int) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(p[:], 0)
		if err == unix.EINTR {
			continue
		}
		return err != nil || n > 0 // an error or a hang-up: the write says it
	}
}
