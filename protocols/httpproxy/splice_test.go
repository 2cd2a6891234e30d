package httpproxy

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"polyport/internal/http1"
)

// spliced is a splice between two connections whose other ends a test holds.
func spliced(t *testing.T, idle time.Duration) (run func(n int64, moved func(int64)) (int64, error), from, to *peer) {
	src, far := tcpPair(t)
	dst, near := tcpPair(t)
	t.Cleanup(func() { src.Close(); dst.Close() })
	in, out := &stream{conn: src}, &stream{conn: dst}
	in.rd.each(idle)
	return func(n int64, moved func(int64)) (int64, error) { return splice(out, dst, in, src, n, moved) }, newPeer(t, far), newPeer(t, near)
}

func TestSpliceStopsAtItsLength(t *testing.T) {
	run, from, to := spliced(t, patience)
	body := bytes.Repeat([]byte("0123456789"), 50_000)
	go func() { _, _ = from.Write(append(body, "behind"...)) }()
	got := make(chan string, 1)
	go func() { got <- to.bytes(len(body)) }()
	moved := int64(0)
	n, err := run(int64(len(body)), func(n int64) { moved += n })
	if n != int64(len(body)) || err != nil || moved != n {
		t.Errorf("splice returned %d, %v and told of %d; want %d", n, err, moved, len(body))
	}
	if <-got != string(body) {
		t.Error("other bytes came out than went in")
	}
}

func TestSpliceEndsWithItsSource(t *testing.T) {
	run, from, _ := spliced(t, -1)
	from.send("12345")
	_ = from.CloseWrite()
	if n, err := run(100_000, nil); n != 5 || err != nil {
		t.Errorf("splice returned %d, %v; want 5 and no error: who asked for more will find the end", n, err)
	}
}

func TestSpliceFaults(t *testing.T) {
	tests := []struct {
		name  string
		idle  time.Duration
		does  func(from, to *peer)
		write bool // the error is of the writing side
		want  error
	}{
		{"a source that stops", 50 * time.Millisecond, func(from, _ *peer) { from.send("12345") }, false, os.ErrDeadlineExceeded},
		{"a sink that stops", 50 * time.Millisecond, func(from, _ *peer) {
			go func() { _, _ = io.Copy(from, zeros{}) }()
		}, true, os.ErrDeadlineExceeded},
		{"a sink that is gone", patience, func(from, to *peer) {
			_ = to.SetLinger(0)
			to.Close()
			go func() { _, _ = io.Copy(from, zeros{}) }()
		}, true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run, from, to := spliced(t, tt.idle)
			tt.does(from, to)
			_, err := run(1<<40, nil)
			var w *http1.WriteError
			if err == nil || tt.write && tt.want != nil && !errors.As(err, &w) || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("splice returned %v; want %v, of the writing side %v", err, tt.want, tt.write)
			}
		})
	}
}

func TestSpliceIsStopped(t *testing.T) {
	src, far := tcpPair(t)
	dst, near := tcpPair(t)
	for _, c := range []io.Closer{src, far, dst, near} {
		defer c.Close()
	}
	in, out := &stream{conn: src}, &stream{conn: dst}
	in.rd.each(-1)
	ended := make(chan error, 1)
	go func() { _, err := splice(out, dst, in, src, 1<<20, nil); ended <- err }()
	in.stopReads()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("splice returned %v, want the deadline", err)
		}
	case <-time.After(patience):
		t.Fatal("splice goes on")
	}
}

// zeros is an endless source.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Stalled bodies cannot take more pipes than are set aside for them, and give them back.
func TestSplicesAreBounded(t *testing.T) {
	run, from, to := spliced(t, patience)
	for range cap(splices) {
		splices <- struct{}{}
	}
	from.send("12345")
	n, err := run(5, nil)
	for range cap(splices) {
		<-splices
	}
	if n != 0 || err != nil {
		t.Errorf("with no place left splice returned %d, %v; want it to decline", n, err)
	}
	if n, err := run(5, nil); n != 5 || err != nil {
		t.Errorf("with places left splice returned %d, %v; want 5, nil", n, err)
	}
	if got := to.bytes(5); got != "12345" {
		t.Errorf("%q came out", got)
	}
	if len(splices) != 0 {
		t.Errorf("%d places are still taken, want none", len(splices))
	}
}
