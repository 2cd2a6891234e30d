package origin

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestPatternNoticesChanges(t *testing.T) {
	const n = 3*Block + 7
	var b bytes.Buffer
	if err := WritePattern(&b, n); err != nil {
		t.Fatal(err)
	}
	clean := b.Bytes()
	flip := func(b []byte) []byte { b[Block+5] ^= 1; return b }
	swap := func(b []byte) []byte { return append(append(b[4096:8192:8192], b[:4096]...), b[8192:]...) }
	tests := []struct {
		name   string
		change func([]byte) []byte
		min    uint64
		max    uint64
	}{
		{"as it was", func(b []byte) []byte { return b }, 0, 0},
		{"one bit", flip, 1, 1},
		{"blocks swapped", swap, 8000, 8192},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := CheckPattern(bytes.NewReader(tt.change(bytes.Clone(clean))), n)
			if err != nil || got < tt.min || got > tt.max {
				t.Errorf("CheckPattern = %d, %v, want %d to %d", got, err, tt.min, tt.max)
			}
		})
	}
	if _, err := CheckPattern(bytes.NewReader(clean[:n-1]), n); err != io.EOF {
		t.Errorf("CheckPattern of a short stream = %v, want EOF", err)
	}
}

func TestReadHead(t *testing.T) {
	tests := []struct {
		head string
		last bool
	}{
		{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false},
		{"\r\nGET / HTTP/1.1\r\n\r\n", false},
		{"GET / HTTP/1.0\r\n\r\n", true},
		{"GET / HTTP/1.1\r\nCONNECTION: Close\r\n\r\n", true},
		{"GET / HTTP/1.1\r\nConnection: keep-alive\r\nHost: close\r\n\r\n", false},
	}
	for _, tt := range tests {
		if got, err := readHead(bufio.NewReader(strings.NewReader(tt.head))); err != nil || got != tt.last {
			t.Errorf("readHead(%q) = %v, %v, want %v", tt.head, got, err, tt.last)
		}
	}
}

func TestHellosAreRecords(t *testing.T) {
	client, err := ClientHello("bench.test")
	if err != nil {
		t.Fatal(err)
	}
	server, err := serverHello()
	if err != nil {
		t.Fatal(err)
	}
	if client[0] != recordHandshake || client[5] != 1 || !bytes.Contains(client, []byte("bench.test")) {
		t.Errorf("client hello begins % x", client[:6])
	}
	if server[0] != recordHandshake || server[5] != 2 {
		t.Errorf("server hello begins % x", server[:6])
	}
}
