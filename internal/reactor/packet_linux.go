package reactor

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PacketConn is a UDP socket on a loop. Unless something else is said its methods are for the loop alone.
type PacketConn struct {
	sock  *Conn // its place on the loop
	owner PacketOwner
	local netip.AddrPort
	dest  bool // asks for, and sets, our own address of each datagram
	cuts  bool // the kernel cuts datagrams from one piece (UDP_SEGMENT)
}

// OpenPacket opens a UDP socket and binds it to an address; port 0 lets the system choose. An IPv6 socket is for IPv6
// alone. It may be called from any goroutine; Watch puts the socket on a loop. The error keeps the cause, such as syscall.EADDRINUSE.
func OpenPacket(local netip.AddrPort, o PacketOptions) (*PacketConn, error) {
	fd, err := openPacket(local, o)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(local), Err: err}
	}
	p := &PacketConn{sock: &Conn{fd: fd}, local: sysName(fd), dest: o.Destination}
	p.sock.owner = p
	if o.Buffer > 0 { // as much of it as the system lets us have (net.core.rmem_max and wmem_max)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, o.Buffer)
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, o.Buffer)
	}
	p.cuts = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil && segments(fd) // else it is Linux before 5.0
	return p, nil
}

func openPacket(local netip.AddrPort, o PacketOptions) (int, error) {
	var a address
	family := a.set(local)
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	for _, option := range packetOptions(family == unix.AF_INET6, o) {
		if err := unix.SetsockoptInt(fd, option.level, option.name, 1); err != nil {
			sysClose(fd)
			return -1, os.NewSyscallError("setsockopt", err)
		}
	}
	if o.Prepare != nil {
		if err := o.Prepare(fd); err != nil {
			sysClose(fd)
			return -1, err
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(a.size)); errno != 0 {
		sysClose(fd)
		return -1, os.NewSyscallError("bind", errno)
	}
	return fd, nil
}

type socketOption struct{ level, name int }

func packetOptions(v6 bool, o PacketOptions) (all []socketOption) {
	if o.Share {
		all = append(all, socketOption{unix.SOL_SOCKET, unix.SO_REUSEPORT})
	}
	destination, failures := socketOption{unix.IPPROTO_IP, unix.IP_PKTINFO}, socketOption{unix.IPPROTO_IP, unix.IP_RECVERR}
	if v6 {
		all = append(all, socketOption{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY})
		destination, failures = socketOption{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO}, socketOption{unix.IPPROTO_IPV6, unix.IPV6_RECVERR}
	}
	if o.Destination {
		all = append(all, destination)
	}
	if o.Errors {
		all = append(all, failures)
	}
	return all
}

// segments reports whether the kernel knows UDP_SEGMENT.
func segments(fd int) bool {
	_, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT)
	return err == nil
}

// Share lets others share the socket's port from now on; see PacketOptions. It may be called before Watch.
func (p *PacketConn) Share() error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(p.sock.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

// Watch puts the socket on a loop, where owner hears of its events. It may be called from any goroutine, once. With an
// error the socket is closed.
func (p *PacketConn) Watch(l *Loop, owner PacketOwner) error {
	p.owner, p.sock.loop = owner, l
	if err := l.watch(p.sock, unix.EPOLLIN|unix.EPOLLET, nil); err != nil {
		sysClose(p.sock.fd)
		p.sock.fd = -1
		return err
	}
	return nil
}

// Local returns the address that the socket is bound to. It may be called from any goroutine.
func (p *PacketConn) Local() netip.AddrPort { return p.local }

// Device returns the name of the network interface that the socket is bound to (SO_BINDTODEVICE), "" for none. The error is that it is
// not there any more.
func (p *PacketConn) Device() (string, error) {
	name, err := unix.GetsockoptString(p.sock.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	return name, os.NewSyscallError("getsockopt", err)
}

// Loop returns the socket's loop, nil before Watch.
func (p *PacketConn) Loop() *Loop { return p.sock.loop }

// Close closes the socket. Before Watch it may be called from any goroutine.
func (p *PacketConn) Close() error {
	if p.sock.loop == nil && p.sock.fd >= 0 {
		sysClose(p.sock.fd)
		p.sock.fd = -1
		return nil
	}
	return p.sock.Close()
}

// Watched implements Owner.
func (p *PacketConn) Watched(*Conn) {}

// Happened implements Owner.
func (p *PacketConn) Happened(_ *Conn, e Event) {
	if e&Failed != 0 {
		p.tellErrors()
	}
	if e&Readable != 0 && p.sock.fd >= 0 {
		p.owner.Arrived(p)
	}
}

const (
	// slotSize is the longest message. Slots lie a little further apart, else all would fall into the same lines of the cache.
	slotSize   = 64 << 10
	slotStride = slotSize + 4096 + 192
	// receiveControl holds the two control messages that are asked for: our own address (at most 20 octets) and UDP_GRO.
	receiveControl = 80
)

// message is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type message struct {
	hdr unix.Msghdr
	n   uint32
}

// reception is what a loop receives datagrams into.
type reception struct {
	messages [ReceiveBatch]message
	iovecs   [ReceiveBatch]unix.Iovec
	names    [ReceiveBatch]unix.RawSockaddrInet6      // an IPv4 address fits too
	control  [ReceiveBatch][receiveControl / 8]uint64 // words, since the headers in them are aligned
	found    [ReceiveBatch]Datagram
	buf      []byte
}

func newReception() *reception {
	r := &reception{buf: make([]byte, ReceiveBatch*slotStride)}
	for i := range r.messages {
		r.iovecs[i].Base = &r.buf[i*slotStride]
		r.iovecs[i].SetLen(slotSize)
		h := &r.messages[i].hdr
		h.Name, h.Iov, h.Control = (*byte)(unsafe.Pointer(&r.names[i])), &r.iovecs[i], octets(r.control[i][:])
		h.SetIovlen(1)
		r.renew(i)
	}
	return r
}

// renew makes a message fit to be received into again.
func (r *reception) renew(i int) {
	h := &r.messages[i].hdr
	h.Namelen, h.Flags = unix.SizeofSockaddrInet6, 0
	h.SetControllen(receiveControl)
}

// Receive takes datagrams that have arrived, without waiting. They lie in memory that all sockets of the loop share, so they are
// the caller's until it returns to the loop or receives again. more says that there may be others.
func (p *PacketConn) Receive() (found []Datagram, more bool) {
	if p.sock.fd < 0 {
		return nil, false
	}
	l := p.sock.loop
	if l.received == nil {
		l.received = newReception()
	}
	r := l.received
	for range 4 { // an error that has come back for what was sent is told once, in place of datagrams
		n, errno := sysReceive(p.sock.fd, r.messages[:])
		if errno == 0 {
			for i := range n {
				r.take(i)
			}
			return r.found[:n], n == ReceiveBatch
		}
		if errno == unix.EAGAIN {
			return nil, false
		}
	}
	return nil, true // errors come as fast as they are taken
}

// fairBatches is how many batches a socket may have taken until the others of its loop have their turn.
const fairBatches = 8

// ReceiveAll calls take for all datagrams that have arrived, batch by batch as Receive gives them. If there are many it lets the others of
// the loop have their turn, and the owner is told that some have arrived.
func (p *PacketConn) ReceiveAll(take func([]Datagram)) {
	for range fairBatches {
		found, more := p.Receive()
		if len(found) > 0 {
			take(found)
		}
		if !more {
			return
		}
	}
	p.sock.loop.Defer(func() { p.owner.Arrived(p) })
}

// take decodes a received message.
func (r *reception) take(i int) {
	m, d := &r.messages[i], &r.found[i]
	data := r.buf[i*slotStride:][:m.n:m.n]
	*d = Datagram{Data: data, Size: max(1, len(data)), From: sender(&r.names[i])}
	d.readControl(unsafe.Slice(octets(r.control[i][:]), receiveControl)[:min(int(m.hdr.Controllen), receiveControl)])
	r.renew(i)
}

// sender decodes a peer's address. A link-local one keeps its interface as its zone.
func sender(sa *unix.RawSockaddrInet6) netip.AddrPort {
	switch sa.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), swapped(v4.Port))
	case unix.AF_INET6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
		}
		return netip.AddrPortFrom(a, swapped(sa.Port))
	}
	return netip.AddrPort{}
}

// octets returns the first octet of some words.
func octets(words []uint64) *byte { return (*byte)(unsafe.Pointer(&words[0])) }

// readControl reads the control messages of a datagram (cmsg(3)).
func (d *Datagram) readControl(b []byte) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		if uint64(h.Len) < unix.SizeofCmsghdr || uint64(h.Len) > uint64(len(b)) {
			return
		}
		data := b[unix.CmsgLen(0):h.Len]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			d.To = netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Spec_dst)
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			d.To = netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Addr)
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			if size := int(*(*int32)(unsafe.Pointer(&data[0]))); size > 0 && len(d.Data) > 0 {
				d.Size = size
			}
		}
		b = b[min(len(b), unix.CmsgSpace(len(data))):]
	}
}

// tellErrors empties the queue of errors and tells the owner of each.
func (p *PacketConn) tellErrors() {
	const most = 1024 // more come back with the next event, and a flood must not hold the loop
	var control [16]uint64
	var payload [1]byte
	var name unix.RawSockaddrInet6
	iovec := unix.Iovec{Base: &payload[0]}
	iovec.SetLen(1)
	for n := 0; n < most && p.sock.fd >= 0; n++ {
		m := message{hdr: unix.Msghdr{Name: (*byte)(unsafe.Pointer(&name)), Namelen: unix.SizeofSockaddrInet6, Iov: &iovec, Control: octets(control[:])}}
		m.hdr.SetIovlen(1)
		m.hdr.SetControllen(len(control) * 8)
		if _, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(p.sock.fd), uintptr(unsafe.Pointer(&m.hdr)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); errno != 0 {
			return
		}
		p.owner.Unreachable(p, sender(&name)) // whom it was sent to
	}
}

func sysReceive(fd int, messages []message) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func sysSend(fd int, messages []message) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages[0])), uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}
