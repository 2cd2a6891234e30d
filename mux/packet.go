package mux

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"unique"

	"polyport/internal/reactor"
)

// PacketHandler takes the datagrams of one protocol.
type PacketHandler interface {
	// ServePackets is called on the loop of by, the socket that the datagrams have come to, which belongs to on. They are its
	// own until it returns. It must not block, and sends answers by by.
	ServePackets(on *PacketSocket, by *reactor.PacketConn, batch []reactor.Datagram)
}

// PacketRow is one line of what is served over UDP. Who a datagram is for is told by its first octet, since nothing else is
// common to what may share a port: a SOCKS datagram begins with 00 (RFC 1928 section 7), QUIC sets one of the
// two highest bits (RFC 9443 section 2).
type PacketRow struct {
	Name    string
	First   []byte // the first octets that are its own
	Handler PacketHandler
}

// packetTable finds the row of a first octet; nil is none.
type packetTable [256]*PacketRow

func newPacketTable(rows []PacketRow) *packetTable {
	t := new(packetTable)
	for i := range rows {
		for _, b := range rows[i].First {
			if t[b] == nil { // else a row before it has it
				t[b] = &rows[i]
			}
		}
	}
	return t
}

// PacketSocket is UDP on the address and port number of a listening TCP socket. Its peers are dealt out among several sockets of the
// system, each on a loop of its own. Make one with ListenPacket. It is safe for concurrent use.
type PacketSocket struct {
	addr   netip.AddrPort
	conns  []*reactor.PacketConn
	table  *packetTable
	mu     sync.Mutex
	holds  int  // reasons to stay open
	served bool // the loops have the sockets
	// Written before it is served:
	door   unique.Handle[Door]
	closed func()
}

// maxPacketSockets bounds the sockets of one address: each is a loop's.
const maxPacketSockets = 8

// packetBuffer is what the system is asked to hold of datagrams that have not been read, or not left yet: all clients share it.
const packetBuffer = 4 << 20

// ListenPacket opens UDP on a literal address, whose port must not be 0. beside says that the port may be taken by a
// PacketSocket of this process that is about to be closed. Whoever opens it holds it (Hold). The error keeps the cause, such as
// syscall.EADDRINUSE; it is reactor.ErrUnsupported on systems without loops.
func ListenPacket(address netip.AddrPort, beside bool) (*PacketSocket, error) {
	p := &PacketSocket{addr: address, table: new(packetTable), holds: 1}
	p.Name("", nil)
	for range min(maxPacketSockets, runtime.GOMAXPROCS(0)) {
		if err := p.open(beside || len(p.conns) > 0); err != nil {
			p.close()
			return nil, fmt.Errorf("listen on %s (UDP): %w", address, err)
		}
	}
	return p, nil
}

// open opens one more socket. Sharing must not hide that another process has the port: so the first one asks for it alone.
func (p *PacketSocket) open(share bool) error {
	c, err := reactor.OpenPacket(p.addr, reactor.PacketOptions{Share: share, Destination: true, Buffer: packetBuffer})
	if err != nil {
		return err
	}
	p.conns = append(p.conns, c)
	return c.Share()
}

// Addr returns the address.
func (p *PacketSocket) Addr() netip.AddrPort { return p.addr }

// Door is where a client's datagrams come in: a listener's port number. Of one listener there may be several sockets with that number, as
// when a reload has moved it; another listener may have the number at another address, and other rules.
type Door struct {
	Listener string // the name of the [listen.NAME] table; a reload that renames the table does not change it
	Port     uint16
}

// Name says which [listen.NAME] table the socket is of, and has closed called once it is closed, from any goroutine; nil is nothing.
// It is for before AddPackets.
func (p *PacketSocket) Name(listener string, closed func()) {
	p.door, p.closed = unique.Make(Door{listener, p.addr.Port()}), closed
}

// Door returns the socket's door, in a form that costs little to compare.
func (p *PacketSocket) Door() unique.Handle[Door] { return p.door }

// Hold keeps the socket open until Release is called once more. It is false if it is closed already.
func (p *PacketSocket) Hold() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds == 0 {
		return false
	}
	p.holds++
	return true
}

// Release ends one Hold, or that of ListenPacket; the last one closes the socket. It may be called for nil.
func (p *PacketSocket) Release() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.holds--; p.holds > 0 {
		return
	}
	p.close()
	if p.closed != nil {
		p.closed()
	}
}

// close closes the sockets. p.mu is held once others may know p.
func (p *PacketSocket) close() {
	for _, c := range p.conns {
		if l := c.Loop(); l != nil {
			l.Post(func() { _ = c.Close() }) // fails only where the loop has closed it
			continue
		}
		_ = c.Close()
	}
}

// AddPackets begins to read from p. With an error only some of its sockets are read, or none: it is to be released.
func (s *Server) AddPackets(p *PacketSocket) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.served || p.holds == 0 {
		return nil
	}
	if s.opts.Loops == nil {
		return fmt.Errorf("listen on %s (UDP): %w", p.addr, reactor.ErrUnsupported)
	}
	p.served, p.table = true, s.packets
	for _, c := range p.conns {
		if err := c.Watch(s.opts.Loops.Next(), &packetOwner{p}); err != nil {
			return fmt.Errorf("listen on %s (UDP): %w", p.addr, err)
		}
	}
	return nil
}

// packetOwner hears of the events of a PacketSocket.
type packetOwner struct{ socket *PacketSocket }

// Arrived implements reactor.PacketOwner.
func (o *packetOwner) Arrived(c *reactor.PacketConn) {
	c.ReceiveAll(func(batch []reactor.Datagram) { o.socket.table.serve(o.socket, c, batch) })
}

// Unreachable implements reactor.PacketOwner. What became of answers to clients nobody asks.
func (o *packetOwner) Unreachable(*reactor.PacketConn, netip.AddrPort) {}

// serve deals a batch out. Mostly all of it is for the same row.
func (t *packetTable) serve(on *PacketSocket, by *reactor.PacketConn, batch []reactor.Datagram) {
	for len(batch) > 0 {
		r, n := t.row(batch[0]), 1
		for n < len(batch) && t.row(batch[n]) == r {
			n++
		}
		if r != nil { // else it is dropped in silence
			r.Handler.ServePackets(on, by, batch[:n])
		}
		batch = batch[n:]
	}
}

// row finds who a datagram is for; nil is nobody. Of several that the kernel has kept together, which one peer has sent right behind
// each other, the first one tells.
func (t *packetTable) row(d reactor.Datagram) *PacketRow {
	if len(d.Data) == 0 {
		return nil
	}
	return t[d.Data[0]]
}

// ListenBoth opens a listening socket and UDP on the same address and port number. If address leaves the port to the system, it is
// one that is free for both. Without loops there is no UDP. As Listen and ListenPacket.
func ListenBoth(ctx context.Context, address netip.AddrPort, leaving []*Acceptor, beside bool) (*Listener, error) {
	const tries = 16 // a port of TCP that is taken by UDP is rare
	for try := 1; ; try++ {
		socket, err := Listen(ctx, address, leaving...)
		if err != nil {
			return nil, err
		}
		bound := netip.AddrPortFrom(address.Addr(), addrPort(socket.Addr()).Port())
		packets, err := ListenPacket(bound, beside)
		if err == nil || errors.Is(err, reactor.ErrUnsupported) {
			return &Listener{Socket: socket, Packets: packets}, nil
		}
		_ = socket.Close() // it has accepted nothing
		if address.Port() != 0 || try == tries {
			return nil, err
		}
	}
}
