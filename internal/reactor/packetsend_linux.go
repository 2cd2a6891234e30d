package reactor

import (
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxUDP      = 65507 // octets of payload of one datagram over IPv4 (RFC 768, RFC 791)
	sendBatch   = 64    // messages that are sent at once
	sendPieces  = 64    // datagrams that the kernel cuts from one message (UDP_MAX_SEGMENTS before Linux 6.9)
	sendIovecs  = 512
	sendControl = 72 // UDP_SEGMENT and our own address
)

// sending gathers the datagrams that a socket is to send with few system calls: those of one size to one peer become one message, which
// the kernel cuts (UDP_SEGMENT, udp(7)), and goes through the network stack once.
type sending struct {
	conn     *PacketConn // whose datagrams these are
	n        int         // messages
	used     int         // iovecs
	parts    [sendBatch]part
	messages [sendBatch]message
	iovecs   [sendIovecs]unix.Iovec
	names    [sendBatch]unix.RawSockaddrInet6
	control  [sendBatch][sendControl / 8]uint64
	narrow   map[netip.Addr]int // what is known of widest
	sent     Sent
}

// part is one message.
type part struct {
	to     netip.AddrPort
	from   netip.Addr
	first  int // of its iovecs
	pieces int
	each   int // iovecs of a piece
	size   int // of a piece
	whole  int // see widest
	total  int
	bytes  int  // of payload
	closed bool // by a piece that is shorter
}

// Send takes one datagram to be sent from a loop: header, which may be empty, and payload. Both must stay as they are until
// Flush, which has to be called before the caller returns to the loop and before another socket's Send. from, if valid, is the address of ours
// to send from; it needs PacketOptions.Destination. l is the loop that calls, which need not be the socket's: then
// the caller sees to it that the socket is not closed meanwhile.
func (p *PacketConn) Send(l *Loop, to netip.AddrPort, from netip.Addr, header, payload []byte) {
	if l.sends == nil {
		l.sends = new(sending)
	}
	s := l.sends
	if s.conn != p {
		s.conn, s.n, s.used, s.sent = p, 0, 0, Sent{}
	}
	size, each := len(header)+len(payload), 1
	if len(header) > 0 {
		each = 2
	}
	if size > maxUDP {
		s.sent.Dropped++
		return
	}
	if !s.joins(to, from, size, each) {
		if s.n == sendBatch || s.used+each > sendIovecs {
			s.flush()
		}
		s.begin(to, from, size, each)
	}
	m := &s.parts[s.n-1]
	if each == 2 {
		s.put(header)
	}
	s.put(payload)
	m.pieces++
	m.total += size
	m.bytes += len(payload)
	m.closed = size < m.size
}

// joins reports whether the next datagram can be one more piece of the last message. An empty one would add nothing to it.
func (s *sending) joins(to netip.AddrPort, from netip.Addr, size, each int) bool {
	if s.n == 0 {
		return false
	}
	m := &s.parts[s.n-1]
	return !m.closed && size > 0 && size <= m.size && m.size <= m.whole && m.pieces < sendPieces && m.total+size <= maxUDP && each == m.each &&
		s.used+each <= sendIovecs && m.to == to && m.from == from
}

// begin begins a message.
func (s *sending) begin(to netip.AddrPort, from netip.Addr, size, each int) {
	s.parts[s.n] = part{to: to, from: from, first: s.used, each: each, size: size, whole: s.widest(to.Addr())}
	s.n++
}

// put adds an iovec.
func (s *sending) put(b []byte) {
	v := &s.iovecs[s.used]
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
	s.used++
}

// Flush sends what Send has gathered and says what has become of it, and of all since the last Flush. Nothing is
// ever kept for later: UDP loses what finds no room.
func (p *PacketConn) Flush(l *Loop) Sent {
	s := l.sends
	if s == nil || s.conn != p {
		return Sent{}
	}
	s.flush()
	sent := s.sent
	s.conn, s.sent = nil, Sent{}
	return sent
}

// flush sends the messages.
func (s *sending) flush() {
	for i := range s.n {
		s.compose(i)
	}
	for i := 0; i < s.n; {
		n, errno := s.push(i, s.n)
		switch {
		case n > 0:
			for _, m := range s.parts[i : i+n] {
				s.sent.Add(Sent{Datagrams: int64(m.pieces), Bytes: int64(m.bytes)})
			}
		case errno == unix.EAGAIN: // nor is there room for the others
			for _, m := range s.parts[i:s.n] {
				s.sent.Dropped += int64(m.pieces)
			}
			n = s.n - i
		default:
			s.failed(i, errno)
			n = 1
		}
		i += n
	}
	s.n, s.used = 0, 0
}

// push sends messages from one to before another, as far as they can be. The error is that of the first.
func (s *sending) push(i, end int) (n int, errno unix.Errno) {
	for range 3 {
		if n, errno = sysSend(s.conn.sock.fd, s.messages[i:end]); errno == 0 {
			return n, 0
		}
		if !reported(errno) {
			break
		}
	}
	return 0, errno
}

// reported says whether an error may be one that has come back for an earlier datagram (ip(7), IP_RECVERR): the call that
// hears of it has sent nothing.
func reported(errno unix.Errno) bool {
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EPROTO, unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.ENONET, unix.EACCES,
		unix.EMSGSIZE, unix.EOPNOTSUPP, unix.EINTR:
		return true
	}
	return false
}

// failed handles a message that cannot be sent.
func (s *sending) failed(i int, errno unix.Errno) {
	m := s.parts[i]
	if m.pieces == 1 || errno != unix.EINVAL && errno != unix.EIO && errno != unix.EMSGSIZE {
		s.sent.Dropped += int64(m.pieces)
		return
	}
	if s.apart(i) { // else it was not the cutting that was refused
		s.narrowed(m.to.Addr(), m.size)
	}
}

// apart sends the pieces of a message one by one, and reports whether any could be.
func (s *sending) apart(i int) (some bool) {
	m := &s.parts[i]
	whole := *m
	for k := range whole.pieces {
		first, size, bytes := whole.first+k*whole.each, 0, 0
		for j := range whole.each {
			bytes = int(s.iovecs[first+j].Len) // the last one is of payload
			size += bytes
		}
		*m = part{to: whole.to, from: whole.from, first: first, pieces: 1, each: whole.each, size: size, total: size, bytes: bytes}
		s.compose(i)
		if n, _ := s.push(i, i+1); n == 0 {
			s.sent.Dropped++
			continue
		}
		some = true
		s.sent.Add(Sent{Datagrams: 1, Bytes: int64(bytes)})
	}
	*m = whole
	return some
}

// maxNarrow bounds how many narrow ways are remembered. Then all are learned anew.
const maxNarrow = 1024

// narrowed remembers that the way to an address is narrower than datagrams of a size, or its device cannot do their checksums: such
// pieces go one by one from now on. Others' ways are none of its business.
func (s *sending) narrowed(to netip.Addr, size int) {
	if s.narrow == nil {
		s.narrow = map[netip.Addr]int{}
	}
	if len(s.narrow) >= maxNarrow {
		clear(s.narrow)
	}
	s.narrow[to] = size - 1
}

// widest returns the longest datagrams to an address that the kernel is given to cut from one piece; 0 is none.
func (s *sending) widest(to netip.Addr) int {
	if !s.conn.cuts {
		return 0
	}
	if n, ok := s.narrow[to]; ok {
		return n
	}
	return maxUDP
}

// compose fills in the header of message i.
func (s *sending) compose(i int) {
	m, h := &s.parts[i], &s.messages[i].hdr
	*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&s.names[i])), Iov: &s.iovecs[m.first]}
	h.SetIovlen(m.pieces * m.each)
	h.Namelen = encode(&s.names[i], m.to)
	b := unsafe.Slice(octets(s.control[i][:]), sendControl)[:0]
	if m.pieces > 1 {
		b = appendControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
		*(*uint16)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = uint16(m.size)
	}
	if m.from.IsValid() && s.conn.dest {
		b = appendSource(b, m.from, m.to.Addr().Zone())
	}
	if len(b) > 0 {
		h.Control = &b[0]
		h.SetControllen(len(b))
	}
}

// appendControl appends a control message of n octets, all zero.
func appendControl(b []byte, level, kind int32, n int) []byte {
	at := len(b)
	b = b[:at+unix.CmsgSpace(n)]
	clear(b[at:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(n))
	return b
}

// appendSource appends the address of ours to send from.
func appendSource(b []byte, from netip.Addr, zone string) []byte {
	at := len(b) + unix.CmsgLen(0)
	if from.Is4() {
		b = appendControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		(*unix.Inet4Pktinfo)(unsafe.Pointer(&b[at])).Spec_dst = from.As4()
		return b
	}
	b = appendControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&b[at]))
	info.Addr = from.As16()
	info.Ifindex = scope(zone)
	return b
}

// scope returns the number of an interface that is a zone; 0 is none.
func scope(zone string) uint32 {
	if zone == "" {
		return 0
	}
	n, _ := strconv.ParseUint(zone, 10, 32) // sender has written it
	return uint32(n)
}

// encode writes a peer's address and returns its size.
func encode(sa *unix.RawSockaddrInet6, to netip.AddrPort) uint32 {
	if a := to.Addr(); a.Is4() {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(sa)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(to.Port()), Addr: a.As4()}
		return unix.SizeofSockaddrInet4
	}
	a := to.Addr()
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapped(to.Port()), Addr: a.As16(), Scope_id: scope(a.Zone())}
	return unix.SizeofSockaddrInet6
}
