package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// hello is an origin that tells how it was asked.
func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello from %s%s over %s", r.Host, r.URL.Path, r.Proto)
}

// helloServer serves hello in clear text and returns its "host:port".
func helloServer(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(hello))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// tcpServer serves every connection with handle, which need not close it. What is
// still open when the test ends (the gateway keeps connections for later) is closed then.
func tcpServer(t *testing.T, handle func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var handlers sync.WaitGroup
	ended, end := context.WithCancel(context.Background())
	handlers.Go(func() {
		for {
			c, err := ln.AcceptTCP()
			if err != nil {
				return
			}
			handlers.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ended, func() { c.Close() })()
				_ = c.SetDeadline(time.Now().Add(patience))
				handle(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); end(); handlers.Wait() })
	return ln.Addr().String()
}

// echo sends back what comes, and ends its side when the other has ended.
func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

// dial opens a connection that ends with the test and with patience.
func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// say writes s.
func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// hear reads exactly what is wanted.
func hear(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	if err != nil || string(got) != want {
		t.Fatalf("heard %q, %v; want %q", got[:n], err, want)
	}
}

// hearHead reads a response head and returns its first line.
func hearHead(t *testing.T, c net.Conn) string {
	t.Helper()
	var head []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, b[0]) {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("head %q: %v", head, err)
		}
	}
	line, _, _ := strings.Cut(string(head), "\r\n")
	return line
}

// tunnel opens a CONNECT tunnel through the gateway.
func tunnel(t *testing.T, proxy, target string) *net.TCPConn {
	t.Helper()
	c := dial(t, proxy)
	say(t, c, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n")
	if line := hearHead(t, c); !strings.Contains(line, " 200 ") {
		t.Fatalf("CONNECT %s: %s", target, line)
	}
	return c
}
