package upstream

import (
	"io"
	"net"
	"strings"

	"polyport/internal/http1"
)

// connectHTTP asks for a tunnel by CONNECT (RFC 9110 section 9.3.6). The tunnel is c, or c behind what the target has
// said by now.
func (p *Proxy) connectHTTP(c net.Conn, to Destination) (net.Conn, error) {
	if _, err := c.Write(p.appendConnect(nil, to)); err != nil {
		return nil, p.broken(err)
	}
	answer, rest, err := readConnectResponse(c)
	switch {
	case err != nil:
		return nil, p.unanswered(err, p.tls != nil)
	case !answer.stands():
		return nil, p.refusedStatus(answer, to)
	case len(rest) > 0:
		return &prefixConn{Conn: c, prefix: rest}, nil
	}
	return c, nil
}

// appendConnect encodes the request (RFC 9112 section 3.2.3).
func (p *Proxy) appendConnect(b []byte, to Destination) []byte {
	authority := to.String()
	b = append(b, "CONNECT "...)
	b = append(b, authority...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, authority...)
	if p.authorization != "" {
		b = append(b, "\r\nProxy-Authorization: "...)
		b = append(b, p.authorization...)
	}
	if to.Via != "" {
		b = append(b, "\r\nVia: "...)
		b = append(b, to.Via...)
	}
	return append(b, "\r\n\r\n"...)
}

// connectAnswer is what a proxy has answered to CONNECT.
type connectAnswer struct {
	status int
	loop   bool // it says that the request goes round in a circle
}

// stands reports whether there is a tunnel now (RFC 9110 section 9.3.6).
func (a connectAnswer) stands() bool { return a.status >= 200 && a.status <= 299 }

// readConnectResponse reads the final response to CONNECT. rest is what was read of the tunnel behind a 2xx; a read for
// each byte of the head would leave it on the connection, but cost more than the rare target that speaks that early.
func readConnectResponse(src io.Reader) (answer connectAnswer, rest []byte, err error) {
	r := http1.NewReader(src)
	defer r.Release()
	var resp http1.Response
	for {
		if err := r.ReadResponse(&resp, "CONNECT"); err != nil {
			return connectAnswer{}, nil, err
		}
		if !resp.Interim() {
			break
		}
	}
	if answer.status = resp.Status; answer.stands() {
		return answer, r.TakeBuffered(), nil
	}
	for value := range resp.Fields.Values(statusField) {
		answer.loop = answer.loop || saysLoop(string(value))
	}
	return answer, nil, nil // the connection is of no further use
}

// statusField is where a proxy says why it refuses (RFC 9209).
const statusField = "Proxy-Status"

// saysLoop reports whether some proxy says in a line of Proxy-Status that it has detected a loop. To find that out is all it is for: a
// line that is none may be taken for one.
func saysLoop(line string) bool {
	for param := range strings.FieldsFuncSeq(line, func(c rune) bool { return c == ';' || c == ',' }) {
		if strings.Trim(param, " \t") == "error="+reasonLoop {
			return true
		}
	}
	return false
}

// prefixConn is a connection of which some has been read already.
type prefixConn struct {
	net.Conn
	prefix []byte // not yet read again
}

// Read implements net.Conn.
func (c *prefixConn) Read(p []byte) (int, error) {
	if len(c.prefix) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.prefix)
	if c.prefix = c.prefix[n:]; len(c.prefix) == 0 {
		c.prefix = nil // for its memory
	}
	return n, nil
}

// TakePrefix returns what has been read already, and the connection without it, which alone is to be used from then on. No Read
// may be under way.
func (c *prefixConn) TakePrefix() (prefix []byte, bare net.Conn) {
	prefix, c.prefix = c.prefix, nil
	return prefix, c.Conn
}

// CloseWrite ends our side of the stream.
func (c *prefixConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errNoCloseWrite
}

// RawTCP returns the bare TCP connection, for zero-copy. It is false while the prefix is unread.
func (c *prefixConn) RawTCP() (*net.TCPConn, bool) {
	tcp, ok := c.Conn.(*net.TCPConn)
	return tcp, ok && len(c.prefix) == 0
}
