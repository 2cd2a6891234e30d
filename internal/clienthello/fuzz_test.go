package clienthello

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"testing"
)

// FuzzSplit makes hellos by crypto/tls and cuts them anew. Whatever the records and the segments,
// the hello says the same, and exactly its bytes are read.
func FuzzSplit(f *testing.F) {
	f.Add("git.example.com", "h2", byte(1), []byte{1})
	f.Add("A.example", "http/1.1", byte(0), []byte{5, 1, 200, 3})
	f.Add("", "", byte(3), []byte{255})
	f.Fuzz(func(t *testing.T, name, protocol string, settings byte, cuts []byte) {
		c := &tls.Config{ServerName: name, InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}
		c.MaxVersion = tls.VersionTLS10 + uint16(settings&3)
		if protocol != "" && len(protocol) < 256 {
			c.NextProtos = []string{protocol, "h2"}
		}
		if len(name) > 60_000 {
			return // crypto/tls would not send it
		}
		conn := &firstWrite{}
		_ = tls.Client(conn, c).Handshake() // fails at the answer that never comes
		if len(conn.sent) == 0 {
			return
		}
		want, whole, err := Peek(conn.sent)
		if err != nil || !whole {
			t.Fatalf("Peek of what crypto/tls sent: %v, %v", whole, err)
		}
		if len(c.NextProtos) > 0 && (len(want.ALPN) != 2 || want.ALPN[0] != protocol) {
			t.Fatalf("ALPN = %q, want %q", want.ALPN, c.NextProtos)
		}
		again := cutRecords(unframed(conn.sent), cuts)
		r := &cutReader{b: append(again, "behind"...), cuts: cuts}
		got, raw, err := Read(r)
		if err != nil && errors.Is(err, ErrFragmented) {
			return
		}
		if err != nil || !equal(got, want) {
			t.Fatalf("Read = %+v, %v, want %+v", got, err, want)
		}
		if !bytes.Equal(raw, again) || string(r.b) != "behind" {
			t.Fatalf("Read took %d bytes, want %d", len(raw), len(again))
		}
	})
}

// cutRecords frames message in records whose sizes cycle through cuts.
func cutRecords(message, cuts []byte) []byte {
	var b []byte
	for i := 0; len(message) > 0; i++ {
		n := len(message)
		if len(cuts) > 0 {
			n = min(n, 1+int(cuts[i%len(cuts)]))
		}
		b = append(b, records(message[:n], maxFragment)...)
		message = message[n:]
	}
	return b
}

// cutReader gives its bytes out in pieces whose sizes cycle through cuts.
type cutReader struct {
	b    []byte
	cuts []byte
	i    int
}

func (r *cutReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(r.b))
	if len(r.cuts) > 0 {
		n = min(n, 1+int(r.cuts[r.i%len(r.cuts)]))
		r.i++
	}
	copy(p, r.b[:n])
	r.b = r.b[n:]
	return n, nil
}

// FuzzHello reads hostile bytes. Read and Peek agree; Read takes a prefix of what there is, no byte of which it
// could have done without; what was needed stays needed at every shorter length.
func FuzzHello(f *testing.F) {
	for _, raw := range captured(f) {
		f.Add(raw)
		f.Add(records(unframed(raw), 100))
	}
	f.Add([]byte("\x80\x2e\x01\x03\x01"))
	f.Add([]byte("\x16\x03\x01\x00\x04\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, raw, err := Read(bytes.NewReader(b))
		if !bytes.HasPrefix(b, raw) {
			t.Fatal("Read returned other bytes than it read")
		}
		peeked, whole, peekErr := Peek(b)
		if whole != (err == nil || errors.Is(err, ErrMalformed)) || !equal(h, peeked) {
			t.Fatalf("Peek = %+v, %v, %v, but Read = %+v, %v", peeked, whole, peekErr, h, err)
		}
		if err != nil {
			return
		}
		for _, n := range []int{0, 1, len(raw) / 2, len(raw) - 1} {
			if _, whole, err := Peek(raw[:n]); whole || err != nil {
				t.Fatalf("Peek of %d bytes of %d: %v, %v", n, len(raw), whole, err)
			}
		}
	})
}
