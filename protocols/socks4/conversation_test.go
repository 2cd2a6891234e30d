package socks4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"polyport/internal/egress"
	"polyport/internal/session"
	"polyport/internal/target"
	"polyport/mux"
)

// client is a connection whose other end has said all that it will say. What is
// written to it is kept, write by write.
type client struct {
	io.Reader
	writes   []string
	writeErr error
	deadline time.Time // for writes
}

func (c *client) Write(b []byte) (int, error) {
	if c.writeErr != nil {
		return 0, c.writeErr
	}
	c.writes = append(c.writes, string(b))
	return len(b), nil
}

func (c *client) Close() error        { return nil }
func (c *client) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7659} }

func (c *client) RemoteAddr() net.Addr               { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000} }
func (c *client) SetDeadline(t time.Time) error      { c.deadline = t; return nil }
func (c *client) SetReadDeadline(time.Time) error    { return nil }
func (c *client) SetWriteDeadline(t time.Time) error { c.deadline = t; return nil }

// dialled is the connection to a target; its address is what clients are told.
type dialled struct {
	net.Conn
	local  net.Addr
	closed bool
}

func (d *dialled) LocalAddr() net.Addr  { return d.local }
func (d *dialled) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 20} }
func (d *dialled) Close() error         { d.closed = true; return nil }

// conversing is a session that answers as a test wants it to and keeps what it was told.
type conversing struct {
	client *client
	conn   *mux.Conn

	authorizeErr, dialed error
	target               *dialled

	version, method, userID, reason string
	status                          int
	events                          []string // in order: what was asked, and each write to the client
	relayed                         net.Conn

	binding
}

// converse makes a session of a client that sends what r holds, of which the
// front door has sniffed prefix already.
func converse(r io.Reader, prefix string) *conversing {
	c := &client{Reader: r}
	return &conversing{
		client: c, conn: mux.NewConn(c, "main", "socks4", []byte(prefix)),
		target: &dialled{local: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 10), Port: 0x1234}},
	}
}

func (s *conversing) Conn() *mux.Conn { return s.conn }
func (s *conversing) Timeouts() session.Timeouts {
	return session.Timeouts{Handshake: 10 * time.Second}
}
func (s *conversing) SetVersion(v string) { s.version = v }
func (s *conversing) SetMethod(m string)  { s.method = m }
func (s *conversing) SetUserID(id string) { s.userID = id }
func (s *conversing) SetStatus(code int)  { s.status = code }
func (s *conversing) SetReason(r string)  { s.reason = r }
func (s *conversing) Established()        { s.note("established") }
func (s *conversing) Relay(c net.Conn)    { s.note("relay"); s.relayed = c }

func (s *conversing) Authorize(_ context.Context, t target.Target) (*egress.Permit, error) {
	s.note(fmt.Sprintf("authorize %s port %d", t.Host(), t.Port()))
	return &egress.Permit{}, s.authorizeErr
}

func (s *conversing) Dial(context.Context, *egress.Permit) (net.Conn, error) {
	s.note("dial")
	if s.dialed != nil {
		return nil, s.dialed
	}
	return s.target, nil
}

// note keeps an event behind the writes that came before it.
func (s *conversing) note(event string) {
	s.flush()
	s.events = append(s.events, event)
}

func (s *conversing) flush() {
	for _, w := range s.client.writes {
		s.events = append(s.events, fmt.Sprintf("write %x", w))
	}
	s.client.writes = nil
}

// serve runs the handler and returns all that happened.
func (s *conversing) serve() (events []string, err error) {
	if err = serve(context.Background(), s); s.carried != nil {
		err = serve(context.Background(), s)
	}
	s.flush()
	return s.events, err
}

// unread is what a tunnel would find in front of the client's data, and all of the data.
func (s *conversing) unread() string {
	b, err := io.ReadAll(s.conn)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err.Error()
	}
	return string(bytes.TrimSpace(b))
}
