package mux

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// With close_notify the client knows that it has all; a reset must never come with one.
func TestEndsOfASecuredConnection(t *testing.T) {
	const alert = 24 // bytes of an encrypted alert record, at the least
	for _, tt := range []struct {
		name  string
		end   func(c *Conn)
		reset bool
	}{
		{"Close", func(c *Conn) { c.Close() }, false},
		{"Close twice", func(c *Conn) { c.Close(); c.Close() }, false},
		{"CloseGently", (*Conn).CloseGently, false},
		{"SetLinger(0), Close", func(c *Conn) { _ = c.SetLinger(0); c.Close() }, true},
		{"SetLinger(0), SetLinger(-1), Close", func(c *Conn) { _ = c.SetLinger(0); _ = c.SetLinger(-1); c.Close() }, false},
		{"Abort", (*Conn).Abort, true},
		{"AbortHere", (*Conn).AbortHere, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, c, under := securedPair(t)
			_, _ = io.WriteString(c, "half an ans")
			b := make([]byte, 11)
			if _, err := io.ReadFull(client, b); err != nil {
				t.Fatal(err)
			}
			before := under.n.Load()
			ended := make(chan struct{})
			go func() { tt.end(c); close(ended) }()
			_, err := client.Read(b)
			if wanted := tt.reset && errors.Is(err, syscall.ECONNRESET) || !tt.reset && err == io.EOF; !wanted {
				t.Errorf("the client's read ended with %v", err)
			}
			client.Close() // CloseGently waits for it
			<-ended
			if more := under.n.Load() - before; tt.reset != (more == 0) || !tt.reset && more < alert {
				t.Errorf("%d bytes were sent at the end", more)
			}
		})
	}
}

func TestCloseGentlyDeliversTheAnswerOverTLS(t *testing.T) {
	client, c, _ := securedPair(t)
	_, _ = client.Write(bytes.Repeat([]byte("x"), 64<<10)) // never read
	_, _ = io.WriteString(c, "refused")
	client.CloseWrite()
	c.CloseGently()
	if got, err := io.ReadAll(client); err != nil || string(got) != "refused" {
		t.Errorf("the client got %q, %v; want %q and no reset", got, err, "refused")
	}
}

func TestHalfCloseOverTLS(t *testing.T) {
	client, c, _ := securedPair(t)
	defer c.Close()
	_, _ = io.WriteString(c, "bye")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(client); string(got) != "bye" || err != nil {
		t.Errorf("the client got %q, %v", got, err)
	}
	_, _ = io.WriteString(client, "still here")
	client.CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "still here" || err != nil {
		t.Errorf("then came %q, %v", got, err)
	}
}

func TestLingerOfWhatHasNone(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	c := NewConn(a, "main", "tls", nil)
	client := tls.Client(b, clientTLS)
	secure(t, client, c)
	if err := c.SetLinger(0); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("SetLinger = %v", err)
	}
	go c.Close()
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client's read ended with %v, want close_notify", err)
	}
}

// A client that goes, or reads nothing, in the middle of a large write ends it with an error, and so do all after it.
func TestLargeWriteToAClientThatGoes(t *testing.T) {
	for name, goes := range map[string]func(client *tls.Conn, c *Conn){
		"reset": func(client *tls.Conn, _ *Conn) {
			_ = client.NetConn().(*net.TCPConn).SetLinger(0)
			client.NetConn().Close()
		},
		"late":    func(_ *tls.Conn, c *Conn) { _ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) },
		"aborted": func(_ *tls.Conn, c *Conn) { c.Abort() },
	} {
		t.Run(name, func(t *testing.T) {
			client, c, _ := securedPair(t)
			defer c.Close()
			ended := make(chan error, 1)
			go func() {
				block := make([]byte, batchSize)
				for range 1000 { // more than any socket holds
					if _, err := c.Write(block); err != nil {
						ended <- err
						return
					}
				}
				ended <- nil
			}()
			goes(client, c)
			if err := <-ended; err == nil {
				t.Error("everything was written")
			}
			if _, err := c.Write(make([]byte, 2*maxRecord)); err == nil {
				t.Error("a later write succeeds")
			}
		})
	}
}

// What a handshake that has failed wrote was an answer, which a gentle close delivers.
func TestAlertOfAFailedHandshakeArrives(t *testing.T) {
	ours, theirs := tcpPair(t)
	defer ours.Close()
	_ = ours.SetDeadline(time.Now().Add(10 * time.Second))
	c := NewConn(theirs, "main", "tls", nil)
	old := clientTLS.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	done := make(chan error, 1)
	go func() {
		err := tls.Client(ours, old).Handshake()
		ours.Close()
		done <- err
	}()
	if err := tls.Server(c.Beneath(), serverTLS()).Handshake(); err == nil {
		t.Error("the handshake succeeds")
	}
	c.CloseGently()
	var alert tls.AlertError
	if err := <-done; !errors.As(err, &alert) && !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("the client's handshake ended with %v, want an alert", err)
	}
}
