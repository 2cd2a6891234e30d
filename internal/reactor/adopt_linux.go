package reactor

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Detach takes the connection off its loop and returns it as one of package net, for goroutines. Deadlines
// are not carried over. After an error the connection is closed.
func (c *Conn) Detach() (*net.TCPConn, error) {
	if c.fd < 0 {
		return nil, net.ErrClosed
	}
	fd := c.fd
	c.loop.forget(c)
	_ = sysEpollCtl(c.loop.epoll, unix.EPOLL_CTL_DEL, fd, 0) // fails on no watched socket
	c.fd = -1
	return NetConn(fd)
}

// NetConn makes a connection of package net of a socket, which it takes over even if it fails.
func NetConn(fd int) (*net.TCPConn, error) {
	// A descriptor that blocks is not put into the poller's epoll, only to be taken out again; what FileConn makes does not block.
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, 0) // without it the same comes out
	f := os.NewFile(uintptr(fd), "tcp")
	defer f.Close() // what FileConn makes is a duplicate
	nc, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(errors.New("this is no TCP socket"), nc.Close())
	}
	return tcp, nil
}

// Adopt puts connections of package net on the loop and closes them; with an error they are as they were. It may be called
// from any goroutine. Until Own is called nobody hears of their events, but Readable does.
func (l *Loop) Adopt(ncs ...*net.TCPConn) (adopted []*Conn, err error) {
	for _, nc := range ncs {
		c, err := l.adopt(nc)
		if err != nil {
			for _, c := range adopted {
				l.Post(c.drop)
			}
			return nil, err
		}
		adopted = append(adopted, c)
	}
	for _, nc := range ncs {
		_ = nc.Close() // the socket lives on
	}
	return adopted, nil
}

// drop closes a duplicate. Closing alone would leave it in epoll, under a number that others will have.
func (c *Conn) drop() {
	_ = sysEpollCtl(c.loop.epoll, unix.EPOLL_CTL_DEL, c.fd, 0) // fails on no watched socket
	_ = c.Close()
}

func (l *Loop) adopt(nc *net.TCPConn) (*Conn, error) {
	fd, err := Duplicate(nc)
	if err != nil {
		return nil, err
	}
	c := &Conn{fd: fd, loop: l}
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		c.peer = netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port())
	}
	if err := l.watch(c, watched, nil); err != nil {
		sysClose(fd)
		return nil, err
	}
	return c, nil
}

// Duplicate returns a second descriptor of a socket of package net, for the caller to close. Not by File, which would make
// it block.
func Duplicate(socket syscall.Conn) (fd int, err error) {
	rc, err := socket.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := rc.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	})
	return fd, errors.Join(cerr, err)
}
