package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// place is somewhere that a client may ask for: by address and port, or, where a
// protocol names no address, by a name that the configuration has a backend for.
type place struct {
	name string // of its backend, SNI label and raw row
	port uint16 // on 127.0.0.1 and on ::1
}

// wire is the port in network order.
func (p place) wire() []byte { return []byte{byte(p.port >> 8), byte(p.port)} }

// dualListen listens at one port of both loopback addresses.
func dualListen(t *testing.T, listen func(network, addr string) (io.Closer, uint16, error)) uint16 {
	t.Helper()
	var faults []error
	for range 20 {
		four, port, err := listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		six, _, err := listen("tcp6", fmt.Sprintf("[::1]:%d", port))
		if err == nil {
			t.Cleanup(func() { four.Close(); six.Close() })
			return port
		}
		faults = append(faults, err, four.Close()) // taken on ::1: another one
	}
	t.Fatalf("no port is free on both 127.0.0.1 and ::1: %v", errors.Join(faults...))
	return 0
}

// deskPort hands the connections of a port to whoever reads from desk.
func deskPort(t *testing.T, desk chan<- *net.TCPConn) uint16 {
	t.Helper()
	return dualListen(t, func(network, addr string) (io.Closer, uint16, error) {
		ln, err := net.Listen(network, addr)
		if err != nil {
			return nil, 0, err
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				desk <- c.(*net.TCPConn)
			}
		}()
		return ln, ln.Addr().(*net.TCPAddr).AddrPort().Port(), nil
	})
}

// closedPort is one that nobody listens on, and that nobody else can take.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	return dualListen(t, func(network, addr string) (io.Closer, uint16, error) { return socket(network, addr, -1) })
}

// holePort is one where connections are never answered: a socket whose queue of
// connections that nobody accepts is full, so that the system drops what comes.
func holePort(t *testing.T) uint16 {
	t.Helper()
	return dualListen(t, func(network, addr string) (io.Closer, uint16, error) {
		s, port, err := socket(network, addr, 0)
		if err != nil {
			return nil, 0, err
		}
		host, _, _ := net.SplitHostPort(addr)
		for tries, silent := 0, 0; tries < 16; tries++ {
			c, err := net.DialTimeout(network, net.JoinHostPort(host, fmt.Sprint(port)), 200*time.Millisecond)
			if err == nil {
				t.Cleanup(func() { c.Close() })
				continue
			}
			if silent++; silent == 3 { // one may be this machine's slowness
				return s, port, nil
			}
		}
		t.Fatal("the queue of a listening socket does not fill up")
		return nil, 0, nil
	})
}

// descriptor is a bare socket.
type descriptor int

func (d descriptor) Close() error { return syscall.Close(int(d)) }

// socket binds a socket and, unless backlog is negative, listens; it never accepts.
func socket(network, addr string, backlog int) (descriptor, uint16, error) {
	a, err := net.ResolveTCPAddr(network, addr)
	if err != nil {
		return 0, 0, err
	}
	family, sa := syscall.AF_INET, syscall.Sockaddr(&syscall.SockaddrInet4{Port: a.Port, Addr: [4]byte{127, 0, 0, 1}})
	if network == "tcp6" {
		family, sa = syscall.AF_INET6, &syscall.SockaddrInet6{Port: a.Port, Addr: [16]byte{15: 1}}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	err = syscall.Bind(fd, sa)
	if err == nil && backlog >= 0 {
		err = syscall.Listen(fd, backlog)
	}
	if err != nil {
		return 0, 0, errors.Join(err, syscall.Close(fd))
	}
	switch bound, err := syscall.Getsockname(fd); b := bound.(type) {
	case *syscall.SockaddrInet4:
		return descriptor(fd), uint16(b.Port), err
	case *syscall.SockaddrInet6:
		return descriptor(fd), uint16(b.Port), err
	}
	return 0, 0, errors.New("a socket without an address")
}

// take returns the next connection of a desk.
func take(t *testing.T, desk <-chan *net.TCPConn) *net.TCPConn {
	t.Helper()
	select {
	case c := <-desk:
		t.Cleanup(func() { c.Close() })
		return c
	case <-time.After(patience):
		t.Fatal("nobody connected to the server")
		return nil
	}
}
