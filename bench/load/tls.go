package load

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"

	"polyport/bench/measure"
)

// Of TLS there is one kind, whatever the proxy would choose, or ciphers would
// be compared and not programs. Go and OpenSSL both have these.
const (
	cipherSuite = tls.TLS_AES_128_GCM_SHA256
	curve       = tls.X25519
)

// Secured is the endpoint by way of TLS to the proxy itself, which is called
// name and has the certificate leaf, in DER.
func (e Endpoint) Secured(name string, leaf []byte) Endpoint {
	e.secure = &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{curve}, ClientSessionCache: noTickets{},
		// One comparison instead of a chain costs the same for all programs, and less.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return checkState(s, leaf) },
	}
	return e
}

// checkState says what is not as it has to be for programs to be compared.
func checkState(s tls.ConnectionState, leaf []byte) error {
	switch {
	case s.Version != tls.VersionTLS13 || s.CipherSuite != cipherSuite || s.CurveID != curve:
		return fmt.Errorf("%s with %s and %v, want TLS 1.3 with %s and %v",
			tls.VersionName(s.Version), tls.CipherSuiteName(s.CipherSuite), s.CurveID, tls.CipherSuiteName(cipherSuite), curve)
	case len(s.PeerCertificates) != 1 || !bytes.Equal(s.PeerCertificates[0].Raw, leaf):
		return errors.New("the certificate is not the one of this run")
	}
	return nil
}

// noTickets takes tickets, so that servers make them as for any new client, and keeps none.
type noTickets struct{}

// Get implements tls.ClientSessionCache.
func (noTickets) Get(string) (*tls.ClientSessionState, bool) { return nil, false }

// Put implements tls.ClientSessionCache.
func (noTickets) Put(string, *tls.ClientSessionState) {}

// tunnel makes a tunnel to the origin, in TLS if the endpoint is secured, and sends first through it.
func (e Endpoint) tunnel(first []byte) (net.Conn, error) {
	if e.secure == nil {
		return e.open(first)
	}
	return e.openSecure(e.secure, first)
}

// openSecure makes a tunnel in TLS with a configuration of its own.
func (e Endpoint) openSecure(config *tls.Config, first []byte) (*tls.Conn, error) {
	tcp, err := e.dial(0)
	if err != nil {
		return nil, err
	}
	c := tls.Client(tcp, config)
	if err := c.Handshake(); err != nil { // the deadline of dial holds
		tcp.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	if err := e.handshake(c); err != nil {
		tcp.Close()
		return nil, fmt.Errorf("%s handshake: %w", e.Proto, err)
	}
	if _, err := c.Write(first); err != nil {
		tcp.Close()
		return nil, err
	}
	return c, nil
}

// handshakes measures connections that are opened, used once and closed: by an
// endpoint that is not secured as they are, else with full handshakes and with resumed ones.
func (l *Load) handshakes() []measure.Measurement {
	if l.end.secure == nil {
		return []measure.Measurement{l.result(measure.Handshakes, measure.Plain, l.operate(l.opts.Workers, l.echoOnce))}
	}
	full := l.operate(l.opts.Workers, func(int) error { return l.echoSecure(l.end.secure, false) })
	all := []measure.Measurement{l.result(measure.Handshakes, measure.Full, full)}
	configs := make([]*tls.Config, l.opts.Workers) // a client each, with one ticket at a time
	for i := range configs {
		configs[i] = l.end.secure.Clone()
		configs[i].ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if err := l.echoSecure(configs[i], false); err != nil {
			l.fail(err)
		}
	}
	resumed := l.operate(l.opts.Workers, func(w int) error { return l.echoSecure(configs[w], true) })
	all = append(all, l.result(measure.Handshakes, measure.Resumed, resumed))
	if l.end.Proto != measure.RawTLS {
		return all // what is inside makes no difference to the rest
	}
	full = l.operate(l.opts.Workers, func(int) error { return l.handshakeAlone(l.end.secure, false) })
	resumed = l.operate(l.opts.Workers, func(w int) error { return l.handshakeAlone(configs[w], true) })
	return append(all, l.result(measure.Handshakes, measure.FullAlone, full), l.result(measure.Handshakes, measure.ResumedAlone, resumed))
}

// handshakeAlone opens a connection whose client has nothing to say behind the handshake, and waits for the server's end.
func (l *Load) handshakeAlone(config *tls.Config, resumed bool) error {
	tcp, err := l.end.dial(0)
	if err != nil {
		return err
	}
	c := tls.Client(tcp, config)
	defer c.Close()
	if err := c.Handshake(); err != nil { // the deadline of dial holds
		return fmt.Errorf("TLS handshake: %w", err)
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, c); n > 0 || err != nil { // a ticket comes in front of the end
		return fmt.Errorf("behind the handshake came %d bytes, then %v", n, err)
	}
	if got := c.ConnectionState().DidResume; got != resumed {
		return fmt.Errorf("the handshake was resumed: %v, want %v", got, resumed)
	}
	return nil
}

// echoSecure is echoOnce in TLS. It is an error if the handshake was resumed
// where it was to be full, or the other way round.
func (l *Load) echoSecure(config *tls.Config, resumed bool) error {
	c, err := l.end.openSecure(config, []byte("E"+hail))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := expect(c, []byte(hail)); err != nil { // a ticket comes in front of it
		return err
	}
	if got := c.ConnectionState().DidResume; got != resumed {
		return fmt.Errorf("the handshake was resumed: %v, want %v", got, resumed)
	}
	return nil
}

// tlsBulk measures transfers, and verifies others.
func (l *Load) tlsBulk() []measure.Measurement {
	var all []measure.Measurement
	for _, n := range []int{1, 8} {
		for _, d := range []direction{down, up} {
			all = append(all, l.result(measure.TLSBulk, fmt.Sprintf("%s%d", d, n), l.transfer(d, n)))
		}
	}
	for _, d := range []direction{down, up} {
		m := l.verify(d)
		m.Work = measure.TLSBulk
		all = append(all, m)
	}
	return all
}
