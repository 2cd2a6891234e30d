package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"polyport/internal/reactor"
)

// BenchmarkClassify decides on first bytes that have all arrived.
func BenchmarkClassify(b *testing.B) {
	for _, tt := range []struct{ name, sent string }{
		{"first row", "MINE and more"},
		{"last row", "\x05\x01\x00"},
		{"no row", "zzz zzz zzz"},
	} {
		b.Run(tt.name, func(b *testing.B) {
			o := SniffOptions{}.withDefaults()
			s := sniffer{c: &Conn{prefix: []byte(tt.sent)}, opts: &o, rows: []Row{
				{Name: "mine", Match: word("MINE")},
				{Name: "get", Match: word("GET ")},
				{Name: "post", Match: word("POST ")},
				{Name: "four", Match: word("\x04")},
				{Name: "five", Match: word("\x05")},
				rejectRow,
			}}
			b.ReportAllocs()
			for b.Loop() {
				if row, _, _ := s.judge(nil); row == "" {
					b.Fatal("undecided")
				}
			}
		})
	}
}

// BenchmarkHandOver is a connection from connect to the first byte of its handler's answer: what the ways to
// the handler cost beside each other. The client's part is in it, the same for all.
func BenchmarkHandOver(b *testing.B) {
	b.Run("goroutines and cmux", func(b *testing.B) { handOver(b, Options{}) })
	loops, err := reactor.Open(0)
	if errors.Is(err, reactor.ErrUnsupported) {
		return // nothing to compare with
	}
	if err != nil {
		b.Fatal(err)
	}
	defer loops.Close()
	b.Run("a loop, then cmux and a goroutine", func(b *testing.B) { handOver(b, Options{Loops: loops}) })
	b.Run("a loop", func(b *testing.B) {
		handOver(b, Options{Loops: loops, OnLoop: func(*Conn) bool { return true }})
	})
}

func handOver(b *testing.B, o Options) {
	o.Rows = []string{"five"}
	o.Serve = func(c *Conn) {
		defer c.Close()
		c.Finished()
		_, _ = io.WriteString(c, "x")
	}
	o.Handle = func(c *Conn) { go o.Serve(c) }
	s := NewServer(o)
	s.SetTable(Table{"main": {{Name: "five", Match: word("\x05")}, rejectRow}})
	sock, err := Listen(b.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Add(Listener{Name: "main", Socket: sock}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 1)
		for pb.Next() {
			if err := ask(sock.Addr().String(), buf); err != nil {
				b.Error(err)
				return
			}
		}
	})
	if err := s.Shutdown(b.Context()); err != nil {
		b.Error(err)
	}
}

// ask connects, says something and reads the answer.
func ask(addr string, buf []byte) error {
	c, err := net.Dial("tcp4", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0) // or the ports run out
	if _, err := io.WriteString(c, "\x05\x01\x00"); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}
