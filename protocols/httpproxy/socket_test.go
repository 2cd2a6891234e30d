//go:build unix

package httpproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"polyport/mux"
)

// socketStream returns a stream on one end of a TCP connection, and the other end.
func socketStream(t *testing.T) (*stream, *net.TCPConn) {
	other, ours := tcpPair(t)
	s := &stream{conn: ours}
	if s.openSocket() == nil {
		t.Fatal("the stream does not see its socket")
	}
	s.wrote = true // what package mux has to hear of, it has heard
	return s, other
}

// TestSocketSetsNoDeadline: what is there or fits is read and written without a look at a clock.
func TestSocketSetsNoDeadline(t *testing.T) {
	s, other := socketStream(t)
	s.rd.total(time.Hour)
	s.wr.each(time.Hour)
	if n, err := s.Write([]byte("ping")); n != 4 || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
	if _, err := io.ReadFull(other, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Write([]byte("pong")); err != nil {
		t.Fatal(err)
	}
	if err := waitReadable(s.conn.(*net.TCPConn)); err != nil {
		t.Fatal(err)
	}
	if got, _, err := readFor(s); got != "pong" || err != nil {
		t.Fatalf("Read: %q, %v", got, err)
	}
	if !s.rd.armed.IsZero() || !s.wr.armed.IsZero() {
		t.Errorf("deadlines were set: %v, %v", s.rd.armed, s.wr.armed)
	}
}

// TestSocketOldDeadline: a deadline of an earlier wait that fires is none of this one.
func TestSocketOldDeadline(t *testing.T) {
	s, other := socketStream(t)
	s.rd.total(time.Hour)
	s.wr.each(time.Hour)
	s.rd.armed, s.wr.armed = longPast, longPast
	if err := s.conn.SetDeadline(longPast); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Write([]byte("ping")); n != 4 || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	if _, err := other.Write([]byte("pong")); err != nil {
		t.Fatal(err)
	}
	if got, _, err := readFor(s); got != "pong" || err != nil {
		t.Errorf("Read: %q, %v", got, err)
	}
}

func TestSocketDeadline(t *testing.T) {
	s, other := socketStream(t)
	defer other.Close() // which keeps it open until then
	s.rd.total(time.Millisecond)
	_, _, err := readFor(s)
	var op *net.OpError
	if !errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &op) && op.Op != "read" {
		t.Errorf("Read of nothing: %v, want the deadline of a read", err)
	}
	s.wr.each(time.Millisecond)
	n, err := s.Write(make([]byte, 64<<20))
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Errorf("Write of too much: %d, %v; want some bytes and the deadline", n, err)
	}
}

func TestSocketWritesAll(t *testing.T) {
	s, other := socketStream(t)
	s.wr.each(time.Minute)
	sent := bytes.Repeat([]byte("0123456789"), 1<<20)
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(other)
		got <- b
	}()
	if n, err := s.Write(sent); n != len(sent) || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	s.conn.Close()
	if b := <-got; !bytes.Equal(b, sent) {
		t.Errorf("%d bytes came, want the %d that were sent", len(b), len(sent))
	}
	if s.socket.Load().rest != nil {
		t.Error("holds what it was given")
	}
}

// TestSocketErrors: they read as those of package net, since they stand in the access log.
func TestSocketErrors(t *testing.T) {
	s, other := socketStream(t)
	if err := other.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	other.Close()
	s.rd.total(time.Minute)
	_, _, err := readFor(s)
	var op *net.OpError
	if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Op != "read" || op.Addr == nil {
		t.Errorf("Read after a reset: %v", err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) || !isClosed(err) {
		t.Errorf("Write after a reset: %v, want EPIPE", err)
	}
	s.conn.Close()
	if _, _, err := readFor(s); !errors.Is(err, net.ErrClosed) || !errors.As(err, &op) || op.Op != "read" {
		t.Errorf("Read after Close: %v, want net.ErrClosed", err)
	}

	s, other = socketStream(t)
	other.Close()
	if _, _, err := readFor(s); err != io.EOF {
		t.Errorf("Read at the end: %v, want io.EOF", err)
	}
}

// TestReadLateHoldsNothing: a connection that waits has no buffer.
func TestReadLateHoldsNothing(t *testing.T) {
	s, other := socketStream(t)
	s.rd.total(time.Minute)
	held := 0
	waits := make(chan struct{}, 1)
	get := func() []byte { held++; return make([]byte, 16) }
	put := func([]byte) {
		if held--; held == 0 {
			waits <- struct{}{}
		}
	}
	go func() {
		<-waits
		other.Write([]byte("late"))
	}()
	b, n, err := s.ReadLate(get, put)
	if string(b[:n]) != "late" || err != nil || held != 1 {
		t.Errorf("ReadLate: %q, %v with %d buffers held; want 1", b[:n], err, held)
	}
	other.CloseWrite()
	held = 0
	if b, n, err := s.ReadLate(get, func([]byte) { held-- }); b != nil || n != 0 || err != io.EOF || held != 0 {
		t.Errorf("ReadLate at the end: %q, %d, %v with %d buffers held", b, n, err, held)
	}
}

// TestSniffedBytesComeFirst: the socket is not read while something lies before it, and
// package mux hears of the first Write, since it decides how the connection is closed.
func TestSniffedBytesComeFirst(t *testing.T) {
	other, ours := tcpPair(t)
	s := &stream{conn: mux.NewConn(ours, "main", rowHTTP, []byte("first"))}
	if _, _, err := s.ReadLate(nil, nil); err != errors.ErrUnsupported {
		t.Errorf("ReadLate: %v, want errors.ErrUnsupported", err)
	}
	if got, _, err := readFor(s); got != "first" || err != nil {
		t.Errorf("Read: %q, %v", got, err)
	}
	if _, err := other.Write([]byte("second")); err != nil {
		t.Fatal(err)
	}
	if got, _, err := readFor(s); got != "second" || err != nil || s.socket.Load() == nil {
		t.Errorf("Read: %q, %v, socket %v", got, err, s.socket.Load())
	}
	if _, err := s.Write([]byte("x")); err != nil || !s.wrote {
		t.Errorf("Write: %v, told %v", err, s.wrote)
	}
}
