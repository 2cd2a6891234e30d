package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"polyport/acl"
)

// loopback is a rule that opens the guard for this machine.
var loopback = acl.Rule{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8", "::1/128"}}

// echoAt serves echo at address until the test ends.
func echoAt(t testing.TB, address string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				io.Copy(struct{ io.Writer }{c}, c) // no splice, whose pipes would be counted
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait() // the clients have closed
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// closedPort returns an address at which nobody listens.
func closedPort(t testing.TB, address string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// checkEcho sends a word there and back.
func checkEcho(t testing.TB, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	var got [5]byte
	if _, err := io.ReadFull(c, got[:]); err != nil || string(got[:]) != "hello" {
		t.Errorf("the echo of hello is %q, %v", got, err)
	}
}

func TestDialForReal(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "127.77.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			ap := echoAt(t, address)
			d := New(Options{Policy: policy(t, false, loopback)})
			p, err := d.Authorize(t.Context(), to(t, ap.String()))
			if err != nil {
				t.Fatal(err)
			}
			c, err := d.Dial(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			tc, ok := c.(*net.TCPConn)
			if !ok {
				t.Fatalf("Dial gave a %T, want a *net.TCPConn", c)
			}
			checkEcho(t, c)
			if peer := c.RemoteAddr().(*net.TCPAddr).AddrPort(); !p.Covers(peer) {
				t.Errorf("the permit does not cover the peer %v", peer)
			}
			checkSocket(t, tc, 60)
		})
	}
}

// checkSocket reads the options of a socket back.
func checkSocket(t *testing.T, c *net.TCPConn, idle int) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	get := func(level, name int) (v int) {
		rc.Control(func(fd uintptr) { v, err = syscall.GetsockoptInt(int(fd), level, name) })
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if got := get(syscall.IPPROTO_TCP, syscall.TCP_NODELAY); got == 0 {
		t.Error("TCP_NODELAY is off")
	}
	if got := get(syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) != 0; got != (idle > 0) {
		t.Errorf("keep-alive is %v, want idle time %d", got, idle)
	}
	if idle > 0 {
		if got := get(syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE); got != idle {
			t.Errorf("keep-alive begins after %ds, want %ds", got, idle)
		}
	}
	const protocolOfSocket = 38 // SO_PROTOCOL
	if got := get(syscall.SOL_SOCKET, protocolOfSocket); got != syscall.IPPROTO_TCP {
		t.Errorf("the socket's protocol is %d, want TCP (%d), not MPTCP", got, syscall.IPPROTO_TCP)
	}
}

func TestKeepAlive(t *testing.T) {
	ap := echoAt(t, "127.0.0.1:0")
	for o, want := range map[time.Duration]int{-1: 0, 0: 60, 17 * time.Second: 17} {
		d := New(Options{Policy: policy(t, false, loopback), KeepAlive: o})
		p, err := d.Authorize(t.Context(), to(t, ap.String()))
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Dial(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		checkSocket(t, c.(*net.TCPConn), want)
		c.Close()
	}
}

func TestDialByNameForReal(t *testing.T) {
	ap := echoAt(t, "127.0.0.1:0")
	// ::1 and 127.0.0.2 refuse, or in the case of ::1 may not exist at all.
	d := New(Options{Policy: policy(t, false, loopback), Resolver: names(map[string]string{"a.example": "127.0.0.2 127.0.0.1 ::1"})})
	p, err := d.Authorize(t.Context(), to(t, fmt.Sprintf("a.example:%d", ap.Port())))
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Dial(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	checkEcho(t, c)
	if got := c.RemoteAddr().(*net.TCPAddr).AddrPort(); got != ap {
		t.Errorf("Dial connected to %v, want %v", got, ap)
	}
}

func TestDialRefusedForReal(t *testing.T) {
	ap := closedPort(t, "127.0.0.1:0")
	d := New(Options{Policy: policy(t, false, loopback)})
	p, err := d.Authorize(t.Context(), to(t, ap.String()))
	if err != nil {
		t.Fatal(err)
	}
	for _, ctx := range []context.Context{t.Context(), context.Background()} {
		_, err = d.Dial(ctx, p)
		var e *Error
		if !errors.As(err, &e) || e.Reason != ConnectionRefused || !errors.Is(err, syscall.ECONNREFUSED) || e.Address != ap {
			t.Errorf("Dial = %v, want %s at %v", err, ConnectionRefused, ap)
		}
		if want := "cannot connect to " + ap.String() + ": connect: connection refused"; err.Error() != want {
			t.Errorf("the error says %q, want %q", err, want)
		}
	}
}

// fullBacklog returns an address that accepts no further connection: its queue
// is full, so the kernel drops every SYN.
func fullBacklog(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	in := sa.(*syscall.SockaddrInet4)
	ap := netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
	for range 100 { // until one hangs
		c, err := net.DialTimeout("tcp4", ap.String(), 200*time.Millisecond)
		if err != nil {
			return ap
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("100 connections fit into a queue of 1")
	return ap
}

func TestDialTimesOutForReal(t *testing.T) {
	ap := fullBacklog(t)
	d := New(Options{Policy: policy(t, false, loopback), ConnectTimeout: 100 * time.Millisecond})
	p, err := d.Authorize(t.Context(), to(t, ap.String()))
	if err != nil {
		t.Fatal(err)
	}
	cancellable, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, ctx := range map[string]context.Context{"cancellable": cancellable, "not cancellable": context.Background()} {
		start := time.Now()
		_, err := d.Dial(ctx, p)
		var e *Error
		if took := time.Since(start); !errors.As(err, &e) || e.Reason != ConnectionTimeout || took < 90*time.Millisecond || took > 30*time.Second {
			t.Errorf("%s: Dial = %v after %v, want %s after 100ms", name, err, took, ConnectionTimeout)
		}
	}

	d = New(Options{Policy: policy(t, false, loopback), ConnectTimeout: time.Hour})
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = d.Dial(cancellable, p)
	var e *Error
	if !errors.As(err, &e) || e.Reason != ConnectionTerminated {
		t.Errorf("Dial of a client who leaves = %v, want %s", err, ConnectionTerminated)
	}
}

func TestCheckPinned(t *testing.T) {
	set := &dialSet{addrs: addrs("8.8.8.8", "2600::1", "fe80::1%lo"), port: 443}
	tests := []struct {
		address string
		want    bool
	}{
		{"8.8.8.8:443", true},
		{"[::ffff:8.8.8.8]:443", true},
		{"[2600::1]:443", true},
		{"[2600::1%lo]:443", true},
		{"[fe80::1%lo]:443", true},
		{"[fe80::1]:443", false},
		{"[fe80::1%eth0]:443", false},
		{"8.8.8.8:80", false},
		{"8.8.4.4:443", false},
		{"[2600::2]:443", false},
		{"", false},
		{"a.example:443", false},
		{"8.8.8.8", false},
	}
	for _, tt := range tests {
		ctx := context.WithValue(&attempt{Context: t.Context(), set: set}, new(int), 1) // package net wraps it too
		if err := checkPinned(ctx, "tcp4", tt.address, nil); (err == nil) != tt.want {
			t.Errorf("checkPinned(%q) = %v, want ok %v", tt.address, err, tt.want)
		}
	}
	if err := checkPinned(t.Context(), "tcp4", "8.8.8.8:443", nil); !errors.Is(err, errNotPinned) {
		t.Errorf("checkPinned without an attempt = %v, want %v", err, errNotPinned)
	}
}

// Even if everything above it were wrong, no unchecked address is connected to.
func TestControlRefusesForReal(t *testing.T) {
	ap := echoAt(t, "127.0.0.1:0")
	d := New(Options{})
	set := &dialSet{addrs: addrs("127.0.0.2"), port: ap.Port()}
	c, err := d.dialTCP(t.Context(), set, ap, time.Time{})
	if c != nil || !errors.Is(err, errNotPinned) || connectReason(err) != DestinationProhibited {
		t.Errorf("dialTCP = %v, %v, want %v", c, err, errNotPinned)
	}
}

// Many connections in a row leave nothing behind: goleak looks at the
// goroutines, this at the descriptors.
func TestDialLeavesNothing(t *testing.T) {
	before := descriptors(t)
	t.Run("200 connections", func(t *testing.T) {
		ap := echoAt(t, "127.0.0.1:0")
		d := New(Options{Policy: policy(t, false, loopback), Resolver: names(map[string]string{"a.example": "127.0.0.2 127.0.0.1 ::1"})})
		p, err := d.Authorize(t.Context(), to(t, fmt.Sprintf("a.example:%d", ap.Port())))
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			c, err := d.Dial(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			abort(c)
		}
	})
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors are open after 200 connections, %d before", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// abort closes without TIME-WAIT, which would use up the local ports.
func abort(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}
