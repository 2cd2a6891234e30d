package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"polyport/internal/target"
)

// probe is one way to speak to the port.
type probe struct {
	name string // Check.Row
	row  string // of the protocol table; "" where the check belongs to none that can be switched off
	what string
	// impossible says why the protocol cannot carry a target that was given; nil, or "", is that it can.
	impossible func(target.Target) string
	send       func(c net.Conn, x *examination) answer
}

// probes in the order of the protocol table.
var probes = []probe{
	{name: "http", row: "http", what: "GET an absolute URI", send: sendGet},
	{name: "connect", row: "connect", what: "CONNECT", send: sendConnect},
	{name: "h2", row: "h2", what: "CONNECT on a stream", send: sendHTTP2},
	{name: "socks4", row: "socks4", what: "CONNECT to an IPv4 address", send: sendSOCKS4, impossible: notIPv4},
	{name: "socks4a", row: "socks4", what: "CONNECT to a name", send: sendSOCKS4a},
	{name: "socks5", row: "socks5", what: "CONNECT", send: sendSOCKS5},
	{name: "udp", row: "socks5", what: "UDP ASSOCIATE of SOCKS5", send: sendAssociate},
	{name: "tls", row: "tls", what: "send a ClientHello", send: sendHello},
	{name: "help page", row: "http", what: "GET / as a browser does", send: sendBrowse},
	{name: "reject", what: "send what no protocol knows", send: sendGarbage},
}

// outcome is what an answer amounts to.
type outcome uint8

const (
	reached     outcome = iota // the target, or for udp, the help page and reject just what should come back
	denied                     // the rules or the guard said no
	needsUser                  // a user is required, and none was presented
	badUser                    // the one that was presented is not taken
	unreachable                // the gateway tried the target in vain
	failing                    // the gateway says that it cannot serve
	foreign                    // an answer that is not of the protocol, or not polyport's
	closed                     // the connection ended without an answer
	silent                     // nothing came back in time
	noPort                     // no connection at all
)

// answer is what came back.
type answer struct {
	outcome outcome
	words   string // the answer in the protocol's terms, made of constants and numbers
}

// check runs one probe within the timeout.
func (x *examination) check(ctx context.Context, p probe) Check {
	c := Check{Row: p.name, What: p.what}
	if p.row != "" && !x.serves(p.row) {
		c.Skipped, c.Detail = true, "not checked: the listener does not serve "+p.row
		return c
	}
	if p.impossible != nil {
		if why := p.impossible(x.target); why != "" {
			c.Skipped, c.Detail = true, "not checked: "+why
			return c
		}
	}
	start := time.Now()
	a := x.ask(ctx, p)
	c.Took = time.Since(start)
	c.OK, c.Detail = x.judge(p, a)
	return c
}

// ask opens a connection, speaks and closes it.
func (x *examination) ask(ctx context.Context, p probe) answer {
	if x.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, x.Timeout)
		defer cancel()
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", x.address)
	if err != nil {
		return answer{noPort, dialFault(err)}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // long past: all reads and writes return
	defer stop()
	if x.Secure == "" || p.name == portCheck {
		return p.send(conn, x)
	}
	secured := tls.Client(conn, &tls.Config{ServerName: x.Secure, RootCAs: x.Roots})
	if err := secured.Handshake(); err != nil {
		return secureFault(err)
	}
	return p.send(secured, x)
}

// portCheck is the name of the check of the port itself.
const portCheck = "port"

// secureFault says what is wrong with TLS to the gateway itself.
func secureFault(err error) answer {
	var alert tls.AlertError
	var remote *net.OpError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		return answer{foreign, "its certificate is not to be trusted: " + untrusted.Err.Error()}
	case errors.As(err, &alert), errors.As(err, &remote) && remote.Op == "remote error":
		return answer{failing, "TLS to the gateway itself is refused: " + err.Error()}
	}
	return broken(err)
}

// nothing is what the check of the port itself sends.
func nothing(net.Conn, *examination) answer { return answer{reached, "connected"} }

// dialFault says what is wrong with a port.
func dialFault(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return fmt.Sprintf("its name cannot be resolved: %v", dns)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there"
	case isTimeout(err):
		return "the machine does not answer; a firewall may swallow the packets"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // the rest repeats the address
	}
	return err.Error()
}

// broken is the answer when reading or writing fails: the peer has closed, or time is up.
func broken(err error) answer {
	if isTimeout(err) {
		return answer{outcome: silent}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return answer{closed, "in the middle of its answer"}
	}
	return answer{outcome: closed}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// sendGarbage expects to be hung up on, and at once: a definite no needs no deadline.
func sendGarbage(c net.Conn, _ *examination) answer {
	// No protocol of the table begins with NUL, so the first octet decides.
	if _, err := io.WriteString(c, "\x00polyport doctor\r\n\r\n"); err != nil {
		return broken(err)
	}
	var b [1]byte
	n, err := c.Read(b[:])
	switch {
	case n > 0:
		return answer{reached, "something answered: a raw row of yours takes these octets"}
	case isTimeout(err):
		return answer{outcome: silent}
	}
	return answer{reached, "closed without a word, as it should be"}
}
