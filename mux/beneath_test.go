package mux

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestRecordPass(t *testing.T) {
	stream := slices.Concat([]byte{23, 3, 3, 0, 3, 'a', 'b', 'c'}, []byte{23, 3, 3, 0, 0}, []byte{23, 3, 3, 1, 0}, make([]byte, 256), []byte{23, 3})
	for _, step := range []int{1, 2, 3, 5, 7, 300} {
		var r record
		for chunk := range slices.Chunk(stream, step) {
			r.pass(chunk)
		}
		if r.left != 0 || r.n != 2 {
			t.Errorf("in steps of %d: %d bytes of content are missing, %d of a head are there; want 0, 2", step, r.left, r.n)
		}
	}
}

func TestHoldsRecord(t *testing.T) {
	whole := []byte{23, 3, 3, 0, 3, 'a', 'b', 'c'}
	for _, tt := range []struct {
		name           string
		passed, unread []byte
		want           bool
	}{
		{"nothing", nil, nil, false},
		{"a head", nil, whole[:5], false},
		{"all but a byte", nil, whole[:7], false},
		{"a record", nil, whole, true},
		{"the rest of one", whole[:6], whole[6:], true},
		{"some of the rest", whole[:6], whole[6:7], false},
		{"in the middle of a head", whole[:2], whole[2:], false},
		{"behind one", whole, whole[:4], false},
	} {
		b := &beneath{unread: tt.unread}
		b.place.pass(tt.passed)
		if got := b.holdsRecord(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// gathering is a connection whose reads bring all that was written to it since the last.
type gathering struct {
	net.Conn
	in bytes.Buffer
}

func (g *gathering) Read(p []byte) (int, error)       { return g.in.Read(p) }
func (g *gathering) Write(p []byte) (int, error)      { return len(p), nil }
func (g *gathering) SetReadDeadline(time.Time) error  { return nil }
func (g *gathering) SetWriteDeadline(time.Time) error { return nil }
func (g *gathering) Close() error                     { return nil }

// A Read takes what is there of several records, and never waits for more than the first.
func TestReadsSeveralRecords(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	near, far := tcpPair(t)
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	shaken := make(chan error, 1)
	go func() { shaken <- client.Handshake() }()
	c := NewConn(far, "main", "tls", nil)
	layer := tls.Server(c.Beneath(), web.TLS)
	if err := layer.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	c.Secure(layer)
	content := bytes.Repeat([]byte("0123456789abcdef"), 10*maxRecord/16)
	if _, err := client.Write(content); err != nil { // the sockets hold it
		t.Fatal(err)
	}
	got, most := 0, 0
	p := make([]byte, 8*maxRecord)
	for got < len(content) {
		n, err := c.Read(p)
		if err != nil || !bytes.Equal(p[:n], content[got:got+n]) {
			t.Fatalf("read %d bytes behind %d, %v", n, got, err)
		}
		got, most = got+n, max(most, n)
	}
	if most <= maxRecord {
		t.Errorf("no read has brought more than %d bytes, want those of several records", most)
	}
}

// A hasty read stops where the bytes do, and what it has begun goes on later.
func TestHastyReadWaitsForNothing(t *testing.T) {
	g := &gathering{}
	b := &beneath{Conn: g, unread: []byte("ab")}
	b.hasty = true
	p := make([]byte, 8)
	if n, err := b.Read(p); n != 2 || err != nil {
		t.Errorf("read %d, %v; want what is there", n, err)
	}
	if n, err := b.Read(p); n != 0 || err == nil || err == io.EOF {
		t.Errorf("read %d, %v; want a pause", n, err)
	}
	b.hasty = false
	g.in.WriteString("c")
	if n, err := b.Read(p); n != 1 || err != nil {
		t.Errorf("read %d, %v; want what has come since", n, err)
	}
}

// A close_notify waits for a client that takes nothing for a while, as long as nobody ends the wait.
func TestCloseWriteIsPatient(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe() // which holds nothing
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		config := web.TLS.Clone()
		config.SessionTicketsDisabled = true
		shaken := make(chan error, 1)
		go func() { shaken <- client.Handshake() }()
		c := NewConn(far, "main", "tls", nil)
		layer := tls.Server(c.Beneath(), config)
		if err := layer.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := <-shaken; err != nil {
			t.Fatal(err)
		}
		c.Secure(layer)
		ended := make(chan error, 1)
		go func() { ended <- c.CloseWrite() }()
		time.Sleep(time.Minute)
		if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("the client read %d bytes, %v; want the end", n, err)
		}
		if err := <-ended; err != nil {
			t.Errorf("CloseWrite: %v", err)
		}
		near.Close()
		c.Close()
	})
}
