//go:build !race

package http1

import (
	"io"
	"strings"
	"testing"
)

// Under the race detector sync.Pool drops what it is given at random, so this is
// measured without it.
func TestNoAllocations(t *testing.T) {
	var req Request
	r, w := NewReader(&repeat{message: []byte(typicalRequest)}), NewWriter(io.Discard)
	if n := testing.AllocsPerRun(1000, func() {
		if err := forwardHead(r, w, &req); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("forwarding a head allocates %v times, want 0", n)
	}

	chunks := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
		strings.Repeat("100\r\n"+strings.Repeat("x", 0x100)+"\r\n", 100) + "0\r\nA: b\r\n\r\n"
	var resp Response
	r.Reset(&repeat{message: []byte(chunks)})
	if n := testing.AllocsPerRun(1000, func() {
		if err := r.ReadResponse(&resp, "GET"); err != nil {
			t.Fatal(err)
		}
		w.BeginForwardResponse(&resp)
		if err := w.EndHead(resp.Framing); err != nil {
			t.Fatal(err)
		}
		if _, err := CopyBody(w, r, CopyOptions{}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("copying a chunked body allocates %v times, want 0", n)
	}
}
