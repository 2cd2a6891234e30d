package doctor

import (
	"crypto/tls"
	"net"

	"polyport/internal/clienthello"
)

// Content types of a TLS record (RFC 8446 section 5.1).
const (
	recordAlert     = 21
	recordHandshake = 22
)

// sendHello is a client of the row "tls". What the first record of the answer is
// decides: an alert is the gateway's own word, anything else came from a backend.
func sendHello(c net.Conn, x *examination) answer {
	first := &firstRecord{Conn: c}
	err := tls.Client(first, &tls.Config{
		ServerName: x.TLSName,
		// The question is whether the row answers, not who stands behind it; no byte
		// of anybody's is sent over this connection.
		InsecureSkipVerify: true,
	}).Handshake()
	switch got := first.octets(); {
	case len(got) == 0 && err != nil:
		return broken(err)
	case got[0] == recordHandshake:
		return answer{reached, "a TLS server answered"}
	case got[0] == recordAlert && len(got) == firstOctets:
		return judgeAlert(clienthello.Alert(got[firstOctets-1]))
	}
	return answer{foreign, "what came back is not TLS"}
}

// judgeAlert says what an alert amounts to. Which one a gateway sends and which one a
// backend cannot be told for certain; these are polyport's.
func judgeAlert(a clienthello.Alert) answer {
	words := "alert " + a.String()
	switch a {
	case clienthello.AlertAccessDenied, clienthello.AlertUnrecognizedName, clienthello.AlertMissingExtension:
		return answer{denied, words}
	case clienthello.AlertInternalError:
		return answer{unreachable, words}
	}
	return answer{reached, words}
}

// firstOctets is how much of the answer is looked at: a record's header, then an
// alert's level and description.
const firstOctets = 5 + 2

// firstRecord keeps the first octets that are read.
type firstRecord struct {
	net.Conn
	seen [firstOctets]byte
	n    int
}

// Read implements net.Conn.
func (f *firstRecord) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	f.n += copy(f.seen[f.n:], b[:n])
	return n, err
}

func (f *firstRecord) octets() []byte { return f.seen[:f.n] }
