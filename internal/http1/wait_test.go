package http1

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// tcpPair returns both ends of a TCP connection.
func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if server, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return client, server
}

const simpleRequest = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// sniffed is a connection like mux.Conn: bytes that were sniffed come first, and only
// then is it the bare socket.
type sniffed struct {
	net.Conn
	prefix []byte
}

func (s *sniffed) Read(p []byte) (int, error) {
	if len(s.prefix) > 0 {
		n := copy(p, s.prefix)
		s.prefix = s.prefix[n:]
		return n, nil
	}
	return s.Conn.Read(p)
}

func (s *sniffed) RawTCP() (*net.TCPConn, bool) {
	tcp, ok := s.Conn.(*net.TCPConn)
	return tcp, ok && len(s.prefix) == 0
}

func TestWaitOnSocket(t *testing.T) {
	client, server := tcpPair(t)
	conn := &sniffed{Conn: server, prefix: []byte(simpleRequest)}
	r, req := NewReader(conn), new(Request)
	for i := range 3 {
		if i > 0 {
			go io.WriteString(client, simpleRequest)
		}
		if err := r.Wait(); err != nil {
			t.Fatalf("Wait %d: %v", i, err)
		}
		if r.Buffered() == 0 {
			t.Fatalf("Wait %d returned with nothing buffered", i)
		}
		if err := r.Wait(); err != nil { // there is something: returns at once
			t.Fatalf("second Wait %d: %v", i, err)
		}
		if err := r.ReadRequest(req); err != nil || req.Method != "GET" {
			t.Fatalf("ReadRequest %d: %v", i, err)
		}
	}
	client.Close()
	if err := r.Wait(); err != io.EOF {
		t.Errorf("Wait after close: %v, want io.EOF", err)
	}
	if r.buf != nil {
		t.Error("holds a buffer after the end")
	}
}

func TestWaitDeadline(t *testing.T) {
	client, server := tcpPair(t)
	r := NewReader(server)
	server.SetReadDeadline(time.Unix(1, 0))
	if err := r.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Wait: %v, want os.ErrDeadlineExceeded", err)
	}
	server.SetReadDeadline(time.Time{})
	if _, err := io.WriteString(client, simpleRequest); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(); err != nil {
		t.Errorf("Wait after the deadline was moved: %v", err)
	}
	if err := r.ReadRequest(new(Request)); err != nil {
		t.Errorf("ReadRequest: %v", err)
	}
}

func TestWaitClosed(t *testing.T) {
	_, server := tcpPair(t)
	r := NewReader(server)
	go server.Close()
	if err := r.Wait(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Wait: %v, want net.ErrClosed", err)
	}
}

func TestWaitReset(t *testing.T) {
	client, server := tcpPair(t)
	client.SetLinger(0)
	client.Close()
	if err := NewReader(server).Wait(); err == nil || err == io.EOF {
		t.Errorf("Wait: %v, want that of a reset", err)
	}
}

func TestWaitWithoutSocket(t *testing.T) {
	r := NewReader(iotest.OneByteReader(strings.NewReader(simpleRequest)))
	if err := r.Wait(); err != nil || r.Buffered() != 1 {
		t.Fatalf("Wait: %v, %d bytes buffered", err, r.Buffered())
	}
	if err := r.ReadRequest(new(Request)); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(); err != io.EOF {
		t.Errorf("Wait at the end: %v, want io.EOF", err)
	}
}

// What came together with the last byte is the answer of the next Wait.
func TestWaitKeepsError(t *testing.T) {
	r := NewReader(iotest.DataErrReader(strings.NewReader(simpleRequest)))
	if err := r.ReadRequest(new(Request)); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(); err != io.EOF {
		t.Errorf("Wait: %v, want io.EOF", err)
	}
}

func TestWaitHoldsNoBuffer(t *testing.T) {
	client, server := tcpPair(t)
	io.WriteString(client, simpleRequest)
	r, req := NewReader(server), new(Request)
	if err := r.ReadRequest(req); err != nil {
		t.Fatal(err)
	}
	server.SetReadDeadline(time.Unix(1, 0))
	if err := r.Wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Wait: %v", err)
	}
	if r.buf != nil || req.Fields.Len() != 0 {
		t.Errorf("holds a buffer of %d bytes and %d fields", len(r.buf), req.Fields.Len())
	}
}

func TestTakeBuffered(t *testing.T) {
	in := "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"
	_, r, err := readRequest(in + "early")
	if err != nil {
		t.Fatal(err)
	}
	got := r.TakeBuffered()
	if string(got) != "early" || r.Count() != int64(len(in)+len("early")) {
		t.Errorf("took %q, used %d bytes", got, r.Count())
	}
	if r.Buffered() != 0 || r.buf != nil {
		t.Error("something is left")
	}
	if got := r.TakeBuffered(); got != nil {
		t.Errorf("took %q again", got)
	}
}
