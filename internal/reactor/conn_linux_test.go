package reactor

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestEndsAndErrors(t *testing.T) {
	g := open(t, 1)
	for _, tt := range []struct {
		name string
		far  func(far *net.TCPConn)
		near func(c *Conn) error
		want error
	}{
		{"end of file", func(far *net.TCPConn) { far.CloseWrite() }, readByte, io.EOF},
		{"reset", func(far *net.TCPConn) { far.SetLinger(0); far.Close() }, readByte, syscall.ECONNRESET},
		{"a read deadline", nil, func(c *Conn) error {
			return errors.Join(c.SetReadDeadline(time.Now().Add(20*time.Millisecond)), readByte(c))
		}, os.ErrDeadlineExceeded},
		{"a deadline that has passed", func(far *net.TCPConn) { far.Write([]byte("x")) }, func(c *Conn) error {
			return errors.Join(c.SetDeadline(time.Unix(1, 0)), readByte(c))
		}, os.ErrDeadlineExceeded},
		{"a deadline that was taken back", func(far *net.TCPConn) { time.Sleep(30 * time.Millisecond); far.CloseWrite() } /* long past it */, func(c *Conn) error {
			return errors.Join(c.SetDeadline(time.Now().Add(time.Millisecond)), c.SetDeadline(time.Time{}), readByte(c))
		}, io.EOF},
		{"a write deadline", nil, func(c *Conn) error {
			_ = c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			_, err := c.Write(make([]byte, 64<<20))
			return err
		}, os.ErrDeadlineExceeded},
		{"closed by itself", nil, func(c *Conn) error {
			_ = c.Close()
			return errors.Join(readByte(c), c.Close(), c.CloseWrite(), c.SetDeadline(time.Now()))
		}, net.ErrClosed},
		{"closed, and tried to read", nil, func(c *Conn) error {
			_ = c.Close()
			_, err := c.TryRead(make([]byte, 1))
			return err
		}, net.ErrClosed},
		{"closed, and tried to write", nil, func(c *Conn) error {
			_ = c.Close()
			_, err := c.TryWrite([]byte("x"))
			return err
		}, net.ErrClosed},
		{"closed while it waits", nil, func(c *Conn) error {
			c.Loop().Post(func() { _ = c.Close() })
			return readByte(c)
		}, net.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := tcpPair(t)
			if tt.far != nil {
				go tt.far(far)
			}
			var got error
			onLoop(t, g.Next(), near, func(c *Conn) { got = tt.near(c) })
			if !errors.Is(got, tt.want) {
				t.Errorf("error = %v, want %v", got, tt.want)
			}
		})
	}
}

func readByte(c *Conn) error {
	_, err := c.Read(make([]byte, 1))
	return err
}

// TestMute: who has muted a connection hears of no bytes, but of the peer's end; Unmute tells of what came meanwhile.
func TestMute(t *testing.T) {
	l := open(t, 1).Next()
	near, peer := tcpPair(t)
	adopted, err := l.Adopt(near)
	if err != nil {
		t.Fatal(err)
	}
	c, heard := adopted[0], make(chan Event, 10)
	run(t, l, func() {
		c.Own(&watcher{heard: heard})
		c.Mute()
		c.Mute()
	})
	if _, err := peer.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	run(t, l, func() {}) // what has happened before is told before
	select {
	case e := <-heard:
		t.Errorf("a muted connection told of %#x", e)
	default:
	}
	run(t, l, c.Unmute)
	if e := <-heard; e&Readable == 0 {
		t.Errorf("Unmute told of %#x, want that there is something to read", e)
	}
	run(t, l, c.Mute)
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	if e := <-heard; e&Readable == 0 {
		t.Errorf("the peer's end was told as %#x, want readable", e)
	}
	run(t, l, func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		c.Mute() // does nothing to a closed connection
		c.Unmute()
	})
}
