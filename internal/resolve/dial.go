package resolve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// addresses are those of one server.
type addresses struct {
	list  []netip.AddrPort
	first atomic.Uint32 // the index of the one that was well last
}

// each calls f with one address after the other until one is well. Each has an equal
// share of what is left of ctx then, so that a dead one does not use it all up.
func (a *addresses) each(ctx context.Context, f func(context.Context, netip.AddrPort) error) error {
	err := errors.New("the server has no address")
	first := int(a.first.Load())
	for i := range a.list {
		n := (first + i) % len(a.list)
		if err = inShare(ctx, len(a.list)-i, func(ctx context.Context) error { return f(ctx, a.list[n]) }); err == nil {
			if i > 0 {
				a.first.Store(uint32(n))
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return err
}

// inShare calls f with one of so many equal shares of the time that ctx has left.
func inShare(ctx context.Context, shares int, f func(context.Context) error) error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(shares))
		defer cancel()
	}
	return f(ctx)
}

// dialer connects to a server.
type dialer struct {
	addrs *addresses
	tls   *tls.Config // nil for TCP alone
}

// tlsConfig is for a server whose certificate is for name, or for its address if that is empty.
func tlsConfig(name string, roots *x509.CertPool, protocols ...string) *tls.Config {
	return &tls.Config{
		ServerName:         strings.TrimSuffix(name, "."),
		RootCAs:            roots,
		NextProtos:         protocols,
		MinVersion:         tls.VersionTLS12, // RFC 9325 section 3.1.1
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
}

// dial connects to the first address that lets it, with TLS if there is to be. Nothing else
// than the addresses is tried: no name is looked up, and no proxy of the environment used.
func (d dialer) dial(ctx context.Context) (c net.Conn, err error) {
	err = d.addrs.each(ctx, func(ctx context.Context, server netip.AddrPort) error {
		c, err = d.dialAddr(ctx, server)
		return err
	})
	return c, err
}

func (d dialer) dialAddr(ctx context.Context, server netip.AddrPort) (net.Conn, error) {
	var nd net.Dialer
	c, err := nd.DialContext(ctx, "tcp", server.String())
	if err != nil || d.tls == nil {
		return c, err
	}
	config := d.tls
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName = server.Addr().Unmap().WithZone("").String()
	}
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}
