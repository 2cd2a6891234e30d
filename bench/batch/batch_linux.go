package batch

import (
	"net"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is struct mmsghdr of sendmmsg(2).
type message struct {
	header unix.Msghdr
	length uint32
}

// socket is a descriptor with the structures that the kernel reads and fills.
type socket struct {
	fd      int
	in, out []message
	inData  [][]byte
	outData [][]byte
	inVecs  []unix.Iovec
	outVecs []unix.Iovec
	from    []unix.RawSockaddrInet4
	whole   []message   // of several datagrams each, for the kernel to cut
	control [][3]uint64 // of these: UDP_SEGMENT
	pieces  []int       // in these
}

func newSocket(c *net.UDPConn, n, size int) (socket, error) {
	s := socket{in: make([]message, n), out: make([]message, n), inVecs: make([]unix.Iovec, n), outVecs: make([]unix.Iovec, n), from: make([]unix.RawSockaddrInet4, n)}
	s.whole, s.control, s.pieces = make([]message, n), make([][3]uint64, n), make([]int, n)
	for i := range n {
		s.inData, s.outData = append(s.inData, make([]byte, size+1)), append(s.outData, make([]byte, size)) // a longer one is to be seen
		s.inVecs[i].Base = &s.inData[i][0]
		s.inVecs[i].SetLen(size + 1)
		s.in[i].header.Iov = &s.inVecs[i]
		s.in[i].header.SetIovlen(1)
		s.in[i].header.Name = (*byte)(unsafe.Pointer(&s.from[i]))
		s.out[i].header.Iov = &s.outVecs[i]
		s.out[i].header.SetIovlen(1)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return s, err
	}
	var own error
	if err := raw.Control(func(fd uintptr) { s.fd, own = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return s, err
	}
	if own != nil {
		return s, os.NewSyscallError("fcntl", own)
	}
	if err := s.makeBlocking(); err != nil {
		unix.Close(s.fd)
		return s, err
	}
	return s, nil
}

func (s *socket) makeBlocking() error {
	if err := unix.SetNonblock(s.fd, false); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	wait := unix.NsecToTimeval(idleRead.Nanoseconds())
	return os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
}

func (s *socket) buffer(i int) []byte   { return s.outData[i] }
func (s *socket) datagram(i int) []byte { return s.inData[i][:s.in[i].length] }
func (s *socket) close() error          { return unix.Close(s.fd) }

func (s *socket) read(wait bool) (int, error) {
	for i := range s.in {
		s.in[i].header.Namelen = unix.SizeofSockaddrInet4
	}
	call, flags := unix.RawSyscall6, uintptr(unix.MSG_DONTWAIT)
	if wait {
		call, flags = unix.Syscall6, unix.MSG_WAITFORONE
	}
	n, _, errno := call(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.in[0])), uintptr(len(s.in)), flags, 0, 0)
	return count(n, errno, "recvmmsg")
}

func (s *socket) write(n int, cut bool) (int, error) {
	for i := range n {
		s.outVecs[i].Base = &s.outData[i][0]
		s.outVecs[i].SetLen(len(s.outData[i]))
		s.out[i].header.Name, s.out[i].header.Namelen = nil, 0
	}
	if cut {
		return s.sendWhole(n)
	}
	return s.send(0, n)
}

func (s *socket) writeBack(datagrams []int, cut bool) (first error) {
	for k, i := range datagrams {
		s.outVecs[k].Base = &s.inData[i][0]
		s.outVecs[k].SetLen(int(s.in[i].length))
		s.out[k].header.Name, s.out[k].header.Namelen = s.in[i].header.Name, s.in[i].header.Namelen
	}
	if cut {
		_, err := s.sendWhole(len(datagrams))
		return err
	}
	for sent := 0; sent < len(datagrams); {
		n, err := s.send(sent, len(datagrams))
		if err != nil && first == nil {
			first = err
		}
		sent += max(n, 1)
	}
	return first
}

// send sends the messages from first to before end.
func (s *socket) send(first, end int) (int, error) {
	if first >= end {
		return 0, nil
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.out[first])), uintptr(end-first), 0, 0, 0)
	return count(n, errno, "sendmmsg")
}

// Bounds of a message that the kernel cuts.
const (
	mostPieces = 64    // UDP_MAX_SEGMENTS before Linux 6.9
	mostOctets = 65000 // what fits into a datagram over IPv4, and a little less
)

// sendWhole sends the first n messages, those of one size to one peer as one. It
// returns how many datagrams were sent.
func (s *socket) sendWhole(n int) (sent int, err error) {
	messages := 0
	for i := 0; i < n; messages++ {
		k := s.alike(i, n)
		h := &s.whole[messages].header
		*h = unix.Msghdr{Name: s.out[i].header.Name, Namelen: s.out[i].header.Namelen, Iov: &s.outVecs[i]}
		h.SetIovlen(k)
		if k > 1 {
			c := &s.control[messages]
			header := (*unix.Cmsghdr)(unsafe.Pointer(c))
			header.Level, header.Type = unix.SOL_UDP, unix.UDP_SEGMENT
			header.SetLen(unix.CmsgLen(2))
			*(*uint16)(unsafe.Add(unsafe.Pointer(c), unix.CmsgLen(0))) = uint16(s.outVecs[i].Len)
			h.Control = (*byte)(unsafe.Pointer(c))
			h.SetControllen(unix.CmsgSpace(2))
		}
		s.pieces[messages] = k
		i += k
	}
	for done := 0; done < messages; {
		k, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.whole[done])), uintptr(messages-done), 0, 0, 0)
		m, failed := count(k, errno, "sendmmsg")
		if failed != nil || m == 0 {
			return sent, failed
		}
		for _, p := range s.pieces[done : done+m] {
			sent += p
		}
		done += m
	}
	return sent, nil
}

// alike counts the messages from i on, before n, that the kernel may cut from one.
func (s *socket) alike(i, n int) int {
	size, k := int(s.outVecs[i].Len), 1
	for ; i+k < n && k < mostPieces && (k+1)*size <= mostOctets && int(s.outVecs[i+k].Len) == size && s.sameName(i, i+k); k++ {
	}
	return k
}

// sameName reports whether two messages go to one peer.
func (s *socket) sameName(i, k int) bool {
	a, b := s.out[i].header.Name, s.out[k].header.Name
	if a == nil || b == nil {
		return a == b
	}
	return *(*unix.RawSockaddrInet4)(unsafe.Pointer(a)) == *(*unix.RawSockaddrInet4)(unsafe.Pointer(b))
}

// count is what a call returns: nothing at all is no error.
func count(n uintptr, errno unix.Errno, call string) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	}
	return 0, os.NewSyscallError(call, errno)
}

// Nap rests for d and the kernel's timer slack, 50 µs by default, where Go's
// timers are a millisecond apart. Zero and less is no rest. A signal may end it early.
//
// It is a raw system call: Go would give the thread's place to another one,
// which finds nothing to do, and that costs more than the nap saves. No
// garbage is collected meanwhile, so d is to be less than a millisecond.
func Nap(d time.Duration) {
	if d <= 0 {
		return
	}
	t := unix.NsecToTimespec(d.Nanoseconds())
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}
