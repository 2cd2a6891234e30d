package reactor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// TestAdoptNothing: when the second cannot be adopted, the first is as it was, and the loop has forgotten it.
func TestAdoptNothing(t *testing.T) {
	l := open(t, 1).Next()
	near, far := tcpPair(t)
	closed, _ := tcpPair(t)
	closed.Close()
	if _, err := l.Adopt(near, closed); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Adopt = %v, want %v", err, net.ErrClosed)
	}
	run(t, l, func() {}) // it forgets on the loop
	if got, want := registered(t, l), 1; got != want {
		t.Errorf("%d descriptors are in epoll, want %d, its own", got, want)
	}
	far.Write([]byte("x"))
	if _, err := near.Read(make([]byte, 1)); err != nil {
		t.Errorf("the first reads %v, want what has come", err)
	}
}

// registered counts the descriptors in a loop's epoll instance (proc(5)).
func registered(t *testing.T, l *Loop) int {
	t.Helper()
	info, err := os.ReadFile(fmt.Sprint("/proc/self/fdinfo/", l.epoll))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(info), "tfd:")
}

// TestDetach: a connection goes from package net to a loop and back, and loses nothing on the way.
func TestDetach(t *testing.T) {
	g := open(t, 1)
	near, far := tcpPair(t)
	far.Write([]byte("one"))
	var back *net.TCPConn
	onLoop(t, g.Next(), near, func(c *Conn) {
		b := make([]byte, 3)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "one" {
			t.Errorf("on the loop: %q, %v", b, err)
		}
		var err error
		if back, err = c.Detach(); err != nil {
			t.Errorf("Detach = %v", err)
		}
		if _, err := c.Detach(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Detach again = %v, want %v", err, net.ErrClosed)
		}
	})
	defer back.Close()
	far.Write([]byte("two"))
	b := make([]byte, 3)
	if _, err := io.ReadFull(back, b); err != nil || string(b) != "two" {
		t.Errorf("off the loop: %q, %v", b, err)
	}
	if _, err := near.Write(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection that was adopted is still open: %v", err)
	}
}
