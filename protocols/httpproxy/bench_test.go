package httpproxy

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/session"
	"polyport/mux"
	"polyport/protocols/spec"
)

// BenchmarkGet is one client that asks for 1 KiB again and again over connections that are kept.
func BenchmarkGet(b *testing.B) {
	get := newGetter(b)
	b.ReportAllocs()
	for b.Loop() {
		get()
	}
}

// newGetter returns what makes a client ask for 1 KiB over connections that are kept.
func newGetter(b testing.TB) (get func()) {
	policy, err := acl.New(acl.Options{Rules: []acl.Rule{{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8"}}}})
	if err != nil {
		b.Fatal(err)
	}
	rows, err := New(spec.Env{}, func(any) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	h := rows[0].Handler.(*handler)
	m := session.NewManager(&session.Runtime{
		Policy: policy, Egress: egress.New(egress.Options{Policy: policy}),
		Handlers:  map[string]session.Handler{rowHTTP: h},
		Listeners: map[string]session.Listener{"main": {}},
		Timeouts:  session.Timeouts{Handshake: patience, Idle: patience, KeepAlive: patience},
	}, session.Options{Log: slog.New(slog.DiscardHandler)})

	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go answerForever(c, answer)
		}
	}()

	client, server := tcpPair(b)
	served := make(chan struct{})
	go func() { m.Serve(mux.NewConn(server, "main", rowHTTP, nil)); close(served) }()
	request := []byte("GET http://" + ln.Addr().String() + "/page?x=1 HTTP/1.1\r\nHost: " + ln.Addr().String() +
		"\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n")
	got := make([]byte, 4096)
	b.Cleanup(func() {
		client.Close()
		<-served
		m.Drain(context.Background())
		h.Retire()
		ln.Close()
	})
	return func() {
		if _, err := client.Write(request); err != nil {
			b.Fatal(err)
		}
		for n := 0; ; {
			k, err := client.Read(got[n:])
			if n += k; err != nil {
				b.Fatal(err)
			}
			if head := bytes.Index(got[:n], []byte("\r\n\r\n")); head > 0 && n == head+4+1024 {
				return
			}
		}
	}
}

func answerForever(c net.Conn, answer []byte) {
	defer c.Close()
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if bytes.HasSuffix(b[:n], []byte("\r\n\r\n")) {
			if _, err := c.Write(answer); err != nil && err != io.EOF {
				return
			}
		}
	}
}
