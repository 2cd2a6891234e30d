package mux

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestUnreadStandsInFrontOfThePrefix(t *testing.T) {
	c := &Conn{prefix: []byte("cd")}
	ab := append(make([]byte, 0, 100), "ab"...)
	c.Unread(ab)
	c.Unread(nil)
	if got := string(c.Prefix()); got != "abcd" {
		t.Errorf("Prefix = %q, want %q", got, "abcd")
	}
	if got := string(ab[:4]); got != "ab\x00\x00" {
		t.Errorf("Unread wrote into the caller's memory: %q", got)
	}
	if got := string(c.TakePrefix()); got != "abcd" || c.Prefix() != nil || c.TakePrefix() != nil {
		t.Errorf("TakePrefix = %q, then Prefix = %q", got, c.Prefix())
	}
}

// Whatever a Conn gives away outlives the pooled buffer that it was sniffed into.
func TestWhatWasTakenIsNotInThePool(t *testing.T) {
	takes := map[string]func(c *Conn) []byte{
		"TakePrefix": func(c *Conn) []byte { return c.TakePrefix() },
		"Read": func(c *Conn) []byte {
			b := make([]byte, 100)
			n, _ := c.Read(b)
			return b[:n]
		},
		"Unread": func(c *Conn) []byte {
			c.Unread([]byte("he"))
			return c.Prefix()[2:]
		},
	}
	for name, take := range takes {
		t.Run(name, func(t *testing.T) {
			client, server := tcpPair(t)
			defer client.Close()
			defer server.Close()
			c := &Conn{nc: server, tcp: server}
			if _, err := io.WriteString(client, "llo"); err != nil {
				t.Fatal(err)
			}
			if err := c.fill(); err != nil {
				t.Fatal(err)
			}
			buf := c.buf
			got := take(c)
			if c.buf != nil {
				t.Fatal("the buffer was kept")
			}
			copy(buf[:], "secret of another")
			if string(got) != "llo" {
				t.Errorf("got %q, want %q", got, "llo")
			}
		})
	}
}

func TestCloseGentlyDeliversTheAnswer(t *testing.T) {
	client, server := tcpPair(t)
	defer client.Close()
	c := NewConn(server, "main", "x", []byte("sniffed"))
	_, _ = client.Write(bytes.Repeat([]byte("x"), 64<<10)) // never read
	_, _ = io.WriteString(c, "refused")
	_ = client.CloseWrite()
	c.CloseGently()
	if got, err := io.ReadAll(client); err != nil || string(got) != "refused" {
		t.Errorf("the client got %q, %v; want %q and no reset", got, err, "refused")
	}
	if c.Prefix() != nil {
		t.Error("the prefix was kept")
	}
}

func TestCloseGentlyIsBoundedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := halfClosingPipe()
		defer client.Close()
		c := NewConn(server, "main", "x", nil)
		go func() { _, _ = io.ReadFull(client, make([]byte, 1)) }()
		_, _ = c.Write([]byte("x"))
		began := time.Now()
		c.CloseGently()
		if took := time.Since(began); took != lingerTime {
			t.Errorf("CloseGently of a client that stays took %v, want %v", took, lingerTime)
		}
	})
}

func TestCloseGentlyIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := halfClosingPipe()
		c := NewConn(server, "main", "x", nil)
		taken := make(chan int)
		go func() {
			_, _ = io.ReadFull(client, make([]byte, 1))
			total, block := 0, make([]byte, sniffSize)
			for {
				n, err := client.Write(block)
				if total += n; err != nil {
					taken <- total
					return
				}
			}
		}()
		_, _ = c.Write([]byte("x"))
		began := time.Now()
		c.CloseGently()
		if got := <-taken; got < lingerBytes || got > lingerBytes+sniffSize || time.Since(began) > 0 {
			t.Errorf("CloseGently took %d bytes of a flood in %v, want about %d at once", got, time.Since(began), lingerBytes)
		}
	})
}

func TestCloseGentlyOfOneThatGotNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := halfClosingPipe()
		defer client.Close()
		began := time.Now()
		NewConn(server, "main", "x", []byte("sniffed")).CloseGently()
		if took := time.Since(began); took > 0 {
			t.Errorf("CloseGently without an answer took %v", took)
		}
		if _, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the client's end: %v, want EOF", err)
		}
	})
}

// halfCloser is a pipe that says that it can be half-closed.
type halfCloser struct{ net.Conn }

func (halfCloser) CloseWrite() error { return nil }

func halfClosingPipe() (client, server net.Conn) {
	client, server = net.Pipe()
	return client, halfCloser{server}
}

func TestAbortIsAReset(t *testing.T) {
	client, server := tcpPair(t)
	defer client.Close()
	c := NewConn(server, "main", "x", nil)
	_, _ = io.WriteString(c, "half an ans")
	c.Abort()
	if got, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %q, %v; want a reset", got, err)
	}
}

func TestCloseWriteOfWhatCannot(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := NewConn(a, "main", "x", nil).CloseWrite(); err == nil || !strings.Contains(err.Error(), "half-closed") {
		t.Errorf("CloseWrite = %v, want that it cannot be half-closed", err)
	}
}

func TestMakeRoom(t *testing.T) {
	caps := newCaps(Limits{})
	c := &Conn{nc: &fakeConn{}}
	if c.MakeRoom() {
		t.Error("a connection that no cap counts made room")
	}
	oldest, _ := place(t, caps, "192.0.2.1")
	if _, refused := caps.take(&c.slot, c.nc, oldest.key); refused != "" {
		t.Fatal(refused)
	}
	c.Finished()
	if !c.MakeRoom() || !isClosed(oldest) || !oldest.wasEvicted() {
		t.Error("the oldest unfinished connection was not closed")
	}
	if c.MakeRoom() || c.Evicted() {
		t.Error("a finished connection was closed to make room")
	}
}
