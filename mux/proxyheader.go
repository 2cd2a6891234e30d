package mux

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"

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
// came behind the header becomes the prefix. A Cause other than "" says why there is no header.
func (c *Conn) readProxyHeader() (Cause, error) {
	br := bufio.NewReaderSize(c.nc, sniffSize)
	switch _, err := br.Peek(1); { // who says nothing at all is like any other such client
	case errors.Is(err, os.ErrDeadlineExceeded):
		return SniffTimeout, nil
	case err != nil:
		return ClosedEarly, err
	}
	err := gatherLine(br)
	var h *proxyproto.Header
	if err == nil {
		h, err = proxyproto.Read(br)
	}
	if err != nil {
		return BadProxyHeader, fmt.Errorf("read the PROXY header that balancer %s must send: %w", c.client.Addr(), err)
	}
	if n := br.Buffered(); n > 0 {
		rest := make([]byte, n)
		_, _ = io.ReadFull(br, rest) // they are there
		c.Unread(rest)
	}
	c.takeAddresses(h)
	return "", nil
}

// maxProxyLine is the longest version 1 header in bytes, its CRLF included.
const maxProxyLine = 107

// gatherLine waits until a version 1 header is there as a whole: it may come in
// several segments, for which package proxyproto does not wait.
func gatherLine(br *bufio.Reader) error {
	const signature = "PROXY "
	for {
		n := br.Buffered()
		b, _ := br.Peek(n)
		same := min(n, len(signature))
		if string(b[:same]) != signature[:same] || n >= maxProxyLine || bytes.IndexByte(b, '\n') >= 0 {
			return nil
		}
		if _, err := br.Peek(n + 1); err != nil {
			return err
		}
	}
}

// takeAddresses makes the addresses of a header those of the connection.
func (c *Conn) takeAddresses(h *proxyproto.Header) {
	src, dst := addrPort(h.SourceAddr), addrPort(h.DestinationAddr)
	if h.Command.IsLocal() || !src.IsValid() {
		return
	}
	c.client = src
	if dst.IsValid() {
		c.local = dst
	}
}
