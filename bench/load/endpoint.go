package load

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"polyport/bench/loopback"
	"polyport/bench/measure"
	"polyport/bench/origin"
)

// opTimeout bounds one operation: a handshake, an echo, an exchange.
const opTimeout = 10 * time.Second

// Endpoint is one way to the origin. NewEndpoint makes it.
type Endpoint struct {
	Proto    string // measure.Direct, http, one of measure.Protocols, or measure.Raw
	to       netip.AddrPort
	origin   netip.AddrPort
	web      netip.AddrPort
	request  []byte
	absolute bool        // the proxy wants the URL in the request line
	secure   *tls.Config // of TLS to the proxy; nil is none
}

// NewEndpoint prepares the requests that reach origin, or web for HTTP, by way
// of proxy. Direct needs no proxy. Addresses are loopback addresses with a port.
func NewEndpoint(proto, proxy, originAddr, web, serverName string) (Endpoint, error) {
	e := Endpoint{Proto: proto}
	var err error
	if e.origin, err = loopback.Check(originAddr); err != nil {
		return e, err
	}
	if e.web, err = loopback.Check(web); err != nil {
		return e, err
	}
	e.to = e.origin
	if proto != measure.Direct {
		if e.to, err = loopback.Check(proxy); err != nil {
			return e, err
		}
	}
	e.absolute = proto == "http"
	e.request, err = tunnelRequest(proto, e.origin, serverName)
	return e, err
}

// tunnelRequest is what a client sends to have a tunnel to target.
func tunnelRequest(proto string, target netip.AddrPort, serverName string) ([]byte, error) {
	ip, port := target.Addr().As4(), target.Port()
	switch proto {
	case measure.Direct, measure.Raw, measure.RawTLS, "http":
		return nil, nil
	case "socks5":
		return binary.BigEndian.AppendUint16(append([]byte{5, 1, 0, 1}, ip[:]...), port), nil
	case measure.Socks5UDP:
		return []byte{5, 3, 0, 1, 0, 0, 0, 0, 0, 0}, nil // the port is for the first datagram to tell
	case "socks4":
		return append(append(binary.BigEndian.AppendUint16([]byte{4, 1}, port), ip[:]...), 0), nil
	case "socks4a":
		b := append(binary.BigEndian.AppendUint16([]byte{4, 1}, port), 0, 0, 0, 1, 0)
		return append(append(b, "localhost"...), 0), nil
	case "connect", measure.ConnectTLS:
		return fmt.Appendf(nil, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target), nil
	case "tls":
		return origin.ClientHello(serverName)
	}
	return nil, fmt.Errorf("unknown protocol %q", proto)
}

// Toward is the endpoint by SOCKS5 with tunnels that ask for another address
// than the origin's, where a next hop leads to the origin.
func (e Endpoint) Toward(target string) (Endpoint, error) {
	addr, err := loopback.Check(target)
	if err != nil {
		return e, err
	}
	e.request, err = tunnelRequest(e.Proto, addr, "")
	return e, err
}

// dial connects to the proxy as client n. Its deadline is one operation away.
func (e Endpoint) dial(n byte) (*net.TCPConn, error) {
	c, err := loopback.Dial(e.to, n)
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(opTimeout))
}

// open makes a tunnel to the origin and sends first through it.
func (e Endpoint) open(first []byte) (*net.TCPConn, error) {
	c, err := e.dial(0)
	if err != nil {
		return nil, err
	}
	if err := e.handshake(c); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s handshake: %w", e.Proto, err)
	}
	if _, err := c.Write(first); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (e Endpoint) handshake(c io.ReadWriter) error {
	switch e.Proto {
	case measure.Direct, measure.Raw, measure.RawTLS:
		return nil
	case "socks5":
		if _, err := c.Write([]byte{5, 1, 0}); err != nil {
			return err
		}
		if err := expect(c, []byte{5, 0}); err != nil {
			return err
		}
	}
	if _, err := c.Write(e.request); err != nil {
		return err
	}
	switch e.Proto {
	case "socks5":
		return readSocks5Reply(c)
	case "socks4", "socks4a":
		return readSocks4Reply(c)
	case "connect", measure.ConnectTLS:
		return readConnectReply(c)
	case "tls":
		return readServerHello(c)
	}
	return fmt.Errorf("%s makes no tunnel", e.Proto)
}

func expect(r io.Reader, want []byte) error {
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("answer % x, want % x", got, want)
	}
	return nil
}

// readSocks5Reply reads a reply with whatever address it carries (RFC 1928 section 6).
func readSocks5Reply(r io.Reader) error {
	_, err := readBound(r)
	return err
}

// readBound reads a reply and returns its address, the zero value for a name.
func readBound(r io.Reader) (netip.AddrPort, error) {
	var b [262]byte
	if _, err := io.ReadFull(r, b[:5]); err != nil {
		return netip.AddrPort{}, err
	}
	rest := map[byte]int{1: 3 + 2, 3: int(b[4]) + 2, 4: 15 + 2}[b[3]]
	if b[1] != 0 || rest == 0 {
		return netip.AddrPort{}, fmt.Errorf("reply %d, address type %d", b[1], b[3])
	}
	if _, err := io.ReadFull(r, b[5:5+rest]); err != nil || b[3] == 3 {
		return netip.AddrPort{}, err
	}
	address, port := b[4:3+rest], b[3+rest:5+rest]
	ip, _ := netip.AddrFromSlice(address) // 4 or 16 octets
	return netip.AddrPortFrom(ip.Unmap(), binary.BigEndian.Uint16(port)), nil
}

func readSocks4Reply(r io.Reader) error {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	if b[0] != 0 || b[1] != 90 {
		return fmt.Errorf("reply %d", b[1])
	}
	return nil
}

var headEnd = []byte("\r\n\r\n")

// readConnectReply reads a head alone: the origin is silent until it is asked.
func readConnectReply(r io.Reader) error {
	var b [2048]byte
	for n := 0; n < len(b); {
		k, err := r.Read(b[n:])
		n += k
		if i := bytes.Index(b[:n], headEnd); i >= 0 {
			if i+len(headEnd) != n {
				return errors.New("bytes behind the head")
			}
			if !isOK(b[:n]) {
				return fmt.Errorf("answer %.60q", b[:n])
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errors.New("the head of the answer is too long")
}

// isOK says whether a head begins with an HTTP/1 status line with 200.
func isOK(head []byte) bool {
	return len(head) > 12 && bytes.HasPrefix(head, []byte("HTTP/1.")) && string(head[8:12]) == " 200"
}

func readServerHello(r io.Reader) error {
	var b [5]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint16(b[3:]))
	if b[0] != 0x16 || n > 4096 {
		return fmt.Errorf("record % x", b)
	}
	_, err := io.CopyN(io.Discard, r, n)
	return err
}
