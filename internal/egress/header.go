package egress

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/pires/go-proxyproto"

	"polyport/internal/upstream"
)

// Header is what the servers of a backend are told of the client by the PROXY protocol.
type Header struct {
	// Client is who has connected, and Local the address of ours that he has connected to.
	Client, Local netip.AddrPort
	// Authority is the host name that the client asked for; "" is none. ALPN is the protocol that was negotiated in TLS; "" is none. ID is unlike
	// that of any other connection.
	Authority, ALPN, ID string
}

// maxUniqueID is the longest PP2_TYPE_UNIQUE_ID (PROXY protocol section 2.2.5).
const maxUniqueID = 128

// writeHeader sends the PROXY header that a server wants, before any byte of the client's.
func writeHeader(c net.Conn, version upstream.ProxyHeader, h Header, deadline time.Time) *Error {
	if version == upstream.NoHeader {
		return nil
	}
	b, err := h.format(version)
	if err == nil {
		_ = c.SetWriteDeadline(deadline) // fails only where Write will
		_, err = c.Write(b)
		_ = c.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		return &Error{Reason: connectReason(err), Address: peerOf(c), Err: errors.Join(err, c.Close())}
	}
	return nil
}

// format encodes the header. Without a client, or with one of another family than the address that he connected to, it says that the gateway itself
// has connected, or that nothing is known.
func (h Header) format(version upstream.ProxyHeader) ([]byte, error) {
	p := proxyproto.Header{Version: byte(version), Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if h.Client.IsValid() && h.Local.IsValid() && h.Client.Addr().Is4() == h.Local.Addr().Is4() {
		p.Command, p.TransportProtocol = proxyproto.PROXY, proxyproto.TCPv4
		if h.Client.Addr().Is6() {
			p.TransportProtocol = proxyproto.TCPv6
		}
		p.SourceAddr, p.DestinationAddr = net.TCPAddrFromAddrPort(h.Client), net.TCPAddrFromAddrPort(h.Local)
	}
	if version == upstream.ProxyV2 {
		if err := p.SetTLVs(h.tlvs()); err != nil {
			return nil, err
		}
	}
	return p.Format()
}

// tlvs returns what version 2 says beyond addresses.
func (h Header) tlvs() (all []proxyproto.TLV) {
	add := func(kind proxyproto.PP2Type, value string) {
		if value != "" {
			all = append(all, proxyproto.TLV{Type: kind, Value: []byte(value)})
		}
	}
	add(proxyproto.PP2_TYPE_ALPN, h.ALPN)
	add(proxyproto.PP2_TYPE_AUTHORITY, h.Authority)
	add(proxyproto.PP2_TYPE_UNIQUE_ID, h.ID[:min(len(h.ID), maxUniqueID)])
	return all
}
