package mux

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"
)

// isBalancer reports whether a PROXY header is due from a.
func (l *Listener) isBalancer(a netip.Addr) bool {
	for _, p := range l.ProxyFrom {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// readProxyHeader reads the PROXY protocol header (version 1 or 2) that a named
// balancer must send, and takes the client's address from it. A LOCAL header
// (the balancer's own health check) and UNKNOWN leave the balancer's address. What
// came behind the header becomes the prefix.
func (c *Conn) readProxyHeader() error {
	br := bufio.NewReaderSize(c.nc, sniffSize)
	h, err := proxyproto.Read(br)
	if err != nil {
		return fmt.Errorf("read the PROXY header that balancer %s must send: %w", c.client.Addr(), err)
	}
	if n := br.Buffered(); n > 0 {
		rest := make([]byte, n)
		if _, err := io.ReadFull(br, rest); err != nil {
			return err
		}
		c.Unread(rest)
	}
	if h.Command.IsLocal() {
		return nil
	}
	src, dst := addrPortOf(h.SourceAddr), addrPortOf(h.DestinationAddr)
	if !src.IsValid() {
		return nil
	}
	c.client = src
	if dst.IsValid() {
		c.local = dst
	}
	return nil
}

// addrPortOf is addrPort for the addresses of a header, where only TCP ones count.
func addrPortOf(a net.Addr) netip.AddrPort {
	if a == nil {
		return netip.AddrPort{}
	}
	return addrPort(a)
}
