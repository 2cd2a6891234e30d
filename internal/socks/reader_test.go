package socks

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// A whole SOCKS5 handshake as a client sends it that waits for nothing.
var (
	greeting    = "\x05\x02\x00\x02"
	credentials = "\x01\xff" + strings.Repeat("u", 255) + "\xff" + strings.Repeat("p", 255)
	request     = "\x05\x01\x00\x03\xff" + strings.Repeat("a", 255) + "\x00P"
	handshake   = greeting + credentials + request
)

// readHandshake reads the three messages and checks them.
func readHandshake(t *testing.T, r *Reader) {
	t.Helper()
	if g, err := Read(r, ParseGreeting); err != nil || string(g.Methods) != "\x00\x02" {
		t.Fatalf("greeting = %v, %v", g, err)
	}
	if c, err := Read(r, ParseCredentials); err != nil || len(c.User) != 255 || len(c.Password) != 255 {
		t.Fatalf("credentials: %v", err)
	}
	if req, err := Read(r, ParseRequest5); err != nil || req.Target != name(strings.Repeat("a", 255), 80) {
		t.Fatalf("request = %+v, %v", req, err)
	}
}

func TestReadHoweverItArrives(t *testing.T) {
	data := strings.Repeat("data sent ahead of the reply, ", 40)
	for _, tt := range []struct {
		name  string
		reads func(io.Reader) io.Reader
	}{
		{"in one piece", func(r io.Reader) io.Reader { return r }},
		{"byte by byte", iotest.OneByteReader},
		{"in halves", iotest.HalfReader},
		{"with the error beside the last octets", iotest.DataErrReader},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := tt.reads(strings.NewReader(handshake + data))
			r := NewReader(src)
			defer r.Release()
			readHandshake(t, r)
			rest, err := io.ReadAll(io.MultiReader(bytes.NewReader(r.Rest()), src))
			if err != nil || string(rest) != data {
				t.Errorf("%d octets of data are left, %v, want %d", len(rest), err, len(data))
			}
			if again := r.Rest(); again != nil {
				t.Errorf("Rest again = %q, want nil", again)
			}
		})
	}
}

func TestExactReaderTakesNoMore(t *testing.T) {
	for _, wire := range []string{
		"\x05\x00\x00\x01\x7f\x00\x00\x01\x04\xd2",
		"\x05\x00\x00\x03\x02gw\x04\xd2",
		"\x05\x00\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x04\xd2",
	} {
		src := strings.NewReader(wire + "SSH-2.0-")
		r := NewExactReader(src)
		if _, err := Read(r, ParseReply5); err != nil {
			t.Fatalf("Read(%q): %v", wire, err)
		}
		r.Release()
		if left, _ := io.ReadAll(src); string(left) != "SSH-2.0-" {
			t.Errorf("after %q the connection still holds %q, want all that follows", wire, left)
		}
	}
}

func TestOneReadForEachMessage(t *testing.T) {
	src := &pieces{[]string{"\x05\x01\x00", "\x05\x01\x00\x03\x0bexample.com\x00P"}}
	r := NewReader(src)
	defer r.Release()
	if _, err := Read(r, ParseGreeting); err != nil || len(src.left) != 1 {
		t.Fatalf("the greeting left %d reads, %v, want 1", len(src.left), err)
	}
	if _, err := Read(r, ParseRequest5); err != nil || len(src.left) != 0 {
		t.Fatalf("the request left %d reads, %v, want 0", len(src.left), err)
	}
}

// pieces gives one string a read.
type pieces struct{ left []string }

func (p *pieces) Read(b []byte) (int, error) {
	n := copy(b, p.left[0])
	p.left = p.left[1:]
	return n, nil
}

func TestReadErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		src  io.Reader
		want error
	}{
		{"closed before the message", strings.NewReader(""), io.EOF},
		{"closed within it", strings.NewReader("\x05\x02\x00"), io.ErrUnexpectedEOF},
		{"broken", iotest.ErrReader(broken), broken},
		{"broken within it", io.MultiReader(strings.NewReader("\x05"), iotest.ErrReader(broken)), broken},
		{"malformed", strings.NewReader("\x05\x00"), ErrMalformed},
		{"a reader that gives nothing", &pieces{[]string{""}}, io.ErrNoProgress},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(tt.src)
			defer r.Release()
			if _, err := Read(r, ParseGreeting); !errors.Is(err, tt.want) {
				t.Errorf("Read = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestReleaseWipes(t *testing.T) {
	r := NewReader(strings.NewReader(handshake))
	readHandshake(t, r)
	r.Release()
	if bytes.ContainsAny(r.buf[:], "pu") || r.src != nil {
		t.Error("a released Reader still holds what it has read")
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	src := &loop{wire: "\x05\x01\x00\x01\xc0\x00\x02\x01\x00P"}
	n := testing.AllocsPerRun(100, func() {
		r := NewReader(src)
		if _, err := Read(r, ParseRequest5); err != nil {
			t.Fatal(err)
		}
		r.Release()
	})
	if n > 0 {
		t.Errorf("reading a request with an address allocates %v times, want 0", n)
	}
}

// loop gives the same message again and again.
type loop struct{ wire string }

func (l *loop) Read(b []byte) (int, error) { return copy(b, l.wire), nil }

func TestBound(t *testing.T) {
	for _, tt := range []struct {
		name string
		addr net.Addr
		want string
	}{
		{"IPv4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}, "127.0.0.1:80"},
		{"IPv6 with a zone", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 80, Zone: "eth0"}, "[fe80::1]:80"},
		{"not TCP", &net.UnixAddr{Name: "x"}, "invalid AddrPort"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Bound(addressed{addr: tt.addr}).String(); got != tt.want {
				t.Errorf("Bound = %s, want %s", got, tt.want)
			}
		})
	}
}

// addressed is a connection of which only the local address is asked.
type addressed struct {
	net.Conn
	addr net.Addr
}

func (a addressed) LocalAddr() net.Addr { return a.addr }
