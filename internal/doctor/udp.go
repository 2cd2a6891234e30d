package doctor

import (
	"fmt"
	"net"
	"net/netip"

	"polyport/internal/socks"
)

// sendAssociate is a client of the row "socks5" that wants to exchange datagrams (RFC 1928 section 7). It sends none: a
// gateway that refuses is as alive as one that agrees, and whether UDP is to be had is its owner's choice.
func sendAssociate(c net.Conn, x *examination) answer {
	r := socks.NewExactReader(c)
	defer r.Release()
	if a, ok := greet5(c, r, x); !ok {
		return a
	}
	// A client that does not know yet where it will send from says so with zeros (RFC 1928 section 6).
	from := socks.Address{IP: netip.IPv4Unspecified()}
	b, err := socks.AppendRequest5(nil, socks.Request5{Command: socks.UDPAssociate, Target: from})
	if err != nil {
		return answer{failing, err.Error()}
	}
	reply, err := exchange(c, r, b, socks.ParseReply5)
	if err != nil {
		return brokenSOCKS(err)
	}
	return judgeAssociate(reply, peerOf(c))
}

// peerOf returns the address that the gateway was reached at; invalid where that is no IP address.
func peerOf(c net.Conn) netip.Addr {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// judgeAssociate says what a reply amounts to for a client that has reached the gateway at an address. It is pure.
func judgeAssociate(reply socks.Reply5, peer netip.Addr) answer {
	words := fmt.Sprintf("REP %02X, %v", byte(reply.Code), reply.Code)
	switch reply.Code {
	case socks.Succeeded:
		return answer{reached, words + judgeBound(reply.Bound, peer)}
	case socks.CommandNotSupported:
		return answer{reached, "alive; UDP is off on this listener (" + words + ")"}
	case socks.NotAllowed:
		return answer{reached, "alive; the rules admit no UDP (" + words + ")"}
	case socks.GeneralFailure:
		return answer{reached, "alive; no association could be made (" + words + "): a limit of [udp] is reached, or another user's association from this address has not sent its first datagram yet. The gateway's log tells which"}
	}
	return answer{foreign, words}
}

// judgeBound says where datagrams are to be sent, and why that may be in vain.
func judgeBound(bound socks.Address, peer netip.Addr) string {
	const advertise = ": write [udp] advertise, or the listener's public_address"
	if bound.Name != "" {
		return "; datagrams go to a name, which few clients can follow" + advertise
	}
	to, a := "; datagrams go to "+bound.String(), bound.IP.Unmap()
	switch {
	case bound.Port == 0:
		return to + ", and no datagram can be sent to port 0"
	case a.IsUnspecified():
		return to + ", which is no address; only some clients send to the gateway's own then" + advertise
	case a.IsLoopback() && peer.IsValid() && !peer.IsLoopback():
		return to + ", which from here is this machine and not the gateway" + advertise
	case isInside(a) && peer.IsValid() && !isInside(peer):
		return to + ", an address of a private network, while the gateway was reached at a public one" + advertise
	}
	return to
}

// shared is the address space between a carrier and its customers (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

// isInside reports whether an address means nothing beyond its own machine, link or private network.
func isInside(a netip.Addr) bool {
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || shared.Contains(a)
}
