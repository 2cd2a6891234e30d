package reactor

import "net/netip"

// ReceiveBatch is how many messages PacketConn.Receive finds at the most. More would gain little and hold 64 KiB each.
const ReceiveBatch = 32

// Datagram is what one look at a UDP socket has found: one datagram, or several of one size that came from one peer right
// behind each other and that the kernel has kept together (UDP_GRO, udp(7)).
type Datagram struct {
	Data []byte // valid until the next Receive on the same loop
	Size int    // of each datagram in Data, at least 1; the last may be shorter. An empty datagram has empty Data
	From netip.AddrPort
	To   netip.Addr // our address that it was sent to; invalid where the socket does not ask for it
}

// Sent is what has become of datagrams that were to be sent.
type Sent struct {
	Datagrams int64
	Bytes     int64 // of payload
	Dropped   int64 // datagrams: no room in the socket, no route, too long
}

// Add adds o to s.
func (s *Sent) Add(o Sent) {
	s.Datagrams += o.Datagrams
	s.Bytes += o.Bytes
	s.Dropped += o.Dropped
}

// A PacketOwner is told of the events of its UDP socket, on the loop. It must not block.
type PacketOwner interface {
	// Arrived says that there are datagrams. It is said once: Receive is to be called until it finds none.
	Arrived(p *PacketConn)
	// Unreachable says that an error has come back for what was sent to an address (ICMP, RFC 1122 section 4.1.3.3). It is said for
	// each.
	Unreachable(p *PacketConn, to netip.AddrPort)
}

// PacketOptions is how a UDP socket is opened.
type PacketOptions struct {
	// Share lets other sockets of this user's processes have the same address and port if they say so too: the kernel deals out
	// peers among them (SO_REUSEPORT, socket(7)).
	Share bool
	// Destination has Datagram.To set, and Send heed from.
	Destination bool
	// Errors has the owner told of what is unreachable.
	Errors bool
	// Prepare is called for the socket before it is bound, to set further options. Nil sets none.
	Prepare func(fd int) error
	// Buffer is how many octets the system is asked to hold each way. Zero and negative leave that to it.
	Buffer int
}
