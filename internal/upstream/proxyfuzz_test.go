package upstream

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/iotest"
)

// FuzzConnectResponse checks that what is accepted begins with a 2xx head, behind whole 1xx ones, and that all that follows
// the empty line is delivered unchanged, however the bytes come.
func FuzzConnectResponse(f *testing.F) {
	for _, in := range []string{
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200\r\n\r\nbanner", "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 299 x\r\nA: b\r\n\r\n\r\n\r\n",
		"HTTP/1.1 407 x\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\nhello",
		"HTTP/1.1 502 x\r\nProxy-Status: a; error=proxy_loop_detected\r\n\r\n", "HTTP/1.1 200 OK\n\n", "SSH-2.0-x\r\n", "", "\x05\x00",
	} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		src := bytes.NewReader(in)
		answer, rest, err := readConnectResponse(src)
		slow := iotest.OneByteReader(bytes.NewReader(in))
		slowAnswer, slowRest, slowErr := readConnectResponse(slow)
		if answer != slowAnswer || (err == nil) != (slowErr == nil) {
			t.Fatalf("%q: %+v, %v; in single bytes %+v, %v", in, answer, err, slowAnswer, slowErr)
		}
		if err != nil || answer.status/100 != 2 {
			if rest != nil {
				t.Errorf("%q: %+v, %v and a rest", in, answer, err)
			}
			return
		}
		behind, _ := io.ReadAll(io.MultiReader(bytes.NewReader(rest), src))
		slowBehind, _ := io.ReadAll(io.MultiReader(bytes.NewReader(slowRest), slow))
		if !bytes.Equal(behind, slowBehind) {
			t.Errorf("%q: %q behind the head, %q in single bytes", in, behind, slowBehind)
		}
		head := in[:len(in)-len(behind)]
		if !bytes.HasSuffix(in, behind) || !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
			t.Errorf("%q: the head ends with %q, and %q follows", in, head, behind)
		}
		heads := bytes.Split(bytes.TrimSuffix(head, []byte("\r\n\r\n")), []byte("\r\n\r\n"))
		for i, h := range heads {
			if want := byte('1'); len(h) < 12 || i < len(heads)-1 && h[9] != want || i == len(heads)-1 && h[9] != '2' {
				t.Errorf("%q: head %d is %q", in, i, h)
			}
		}
	})
}

// chunks is a connection that is read in pieces of a size.
type chunks struct {
	net.Conn // nil
	b        []byte
	size     int
}

func (c *chunks) Read(p []byte) (int, error) {
	n := copy(p[:min(len(p), c.size)], c.b)
	if n == 0 {
		return 0, io.EOF
	}
	c.b = c.b[n:]
	return n, nil
}

func (*chunks) Close() error { return nil }

// FuzzH2Wire checks that the first frame is over, for who watches the bytes, when whoever reads them all comes for more, and
// not before; the bytes are not changed.
func FuzzH2Wire(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"), uint8(1))
	f.Add([]byte("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x00\x00\x04\x01"), uint8(4))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), uint8(9))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		w := newH2Wire(&chunks{b: in, size: max(1, int(size))}, func() {})
		var got []byte
		b := make([]byte, 64)
		for {
			whole := len(got) >= frameHeader && len(got) >= frameHeader+(int(in[0])<<16|int(in[1])<<8|int(in[2]))
			n, err := w.Read(b)
			got = append(got, b[:n]...)
			select {
			case <-w.settled:
				if !whole {
					t.Fatalf("%q is over after %d bytes in pieces of %d", in, len(got), size)
				}
			default:
				if whole {
					t.Fatalf("%q is not over after %d bytes in pieces of %d", in, len(got), size)
				}
			}
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, in) {
			t.Errorf("%q was read as %q", in, got)
		}
		_ = w.Close()
		<-w.settled
	})
}
