//go:build unix

package nonblock

import (
	"bytes"
	"syscall"
	"testing"
)

// pair returns two sockets that are connected to each other and never block.
func pair(t *testing.T) (a, b uintptr) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if err := syscall.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
	}
	return uintptr(fds[0]), uintptr(fds[1])
}

func TestRecv(t *testing.T) {
	a, b := pair(t)
	var buf [8]byte
	if n, err := Recv(b, buf[:]); n != 0 || err != syscall.EAGAIN {
		t.Errorf("Recv of nothing: %d, %v; want EAGAIN", n, err)
	}
	if n, err := Peek(b, buf[:]); n != 0 || err != syscall.EAGAIN {
		t.Errorf("Peek at nothing: %d, %v; want EAGAIN", n, err)
	}
	if n, err := Send(a, []byte("hello")); n != 5 || err != 0 {
		t.Fatalf("Send: %d, %v", n, err)
	}
	if n, err := Peek(b, buf[:1]); n != 1 || err != 0 || buf[0] != 'h' {
		t.Errorf("Peek: %d, %v, %q", n, err, buf[:1])
	}
	if n, err := Recv(b, buf[:]); err != 0 || string(buf[:n]) != "hello" {
		t.Errorf("Recv after Peek: %q, %v", buf[:n], err)
	}
	if err := syscall.Shutdown(int(a), syscall.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if n, err := Recv(b, buf[:]); n != 0 || err != 0 {
		t.Errorf("Recv at the end: %d, %v; want 0 and no error", n, err)
	}
}

func TestSend(t *testing.T) {
	a, b := pair(t)
	block := bytes.Repeat([]byte("x"), 64<<10)
	sent := 0
	for {
		n, err := Send(a, block)
		if sent += n; err == syscall.EAGAIN {
			break
		} else if err != 0 {
			t.Fatal(err)
		}
	}
	got, buf := 0, make([]byte, 64<<10)
	for got < sent {
		n, err := Recv(b, buf)
		if err != 0 || n == 0 {
			t.Fatalf("Recv after %d of %d bytes: %d, %v", got, sent, n, err)
		}
		got += n
	}
	if err := syscall.Shutdown(int(b), syscall.SHUT_RD); err != nil {
		t.Fatal(err)
	}
	if _, err := Send(a, block); err != syscall.EPIPE {
		t.Errorf("Send to nobody: %v, want EPIPE", err)
	}
}

func TestClosed(t *testing.T) {
	const none = ^uintptr(0)
	if _, err := Recv(none, make([]byte, 1)); err != syscall.EBADF {
		t.Errorf("Recv: %v, want EBADF", err)
	}
	if _, err := Send(none, make([]byte, 1)); err != syscall.EBADF {
		t.Errorf("Send: %v, want EBADF", err)
	}
}
