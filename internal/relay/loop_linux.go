package relay

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What a side is watched for. ONESHOT, since the flow that is woken reads until nothing is
// left; hang-ups and errors are reported whatever is asked for.
const (
	readable  = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT
	resetOnly = unix.EPOLLONESHOT
)

// maxLoops bounds the loops on large machines: waking a tunnel is little work.
const maxLoops = 16

// loops watch the parked tunnels, one for each processor.
var loops = make([]loop, min(maxLoops, runtime.GOMAXPROCS(0)))

// loop watches sockets of parked tunnels by an epoll instance of its own. Its goroutine waits in the
// runtime's poller like any other, so no thread is spent. Both exist only while something is watched.
//
// Locks are taken in the order Tunnel.mu, loop.mu.
type loop struct {
	mu      sync.Mutex
	epoll   *os.File
	fd      int // of epoll
	watches []watch
	free    []int32 // places in watches
	used    int     // watches that stand
	stamp   int32   // the last generation given out

	dues  dueHeap
	timer *time.Timer // fires at dues[0]; nil when there is none
}

// watch is one watched socket. The generation tells an event of this watch
// from one of an earlier watch at the same place.
type watch struct {
	t          *Tunnel
	side       uint8
	generation int32
}

// watch begins to watch a side of t. The socket is watched by the runtime's
// poller too, which does no harm.
func (l *loop) watch(t *Tunnel, side int, events uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoll == nil && !l.open() {
		return false
	}
	at := l.place()
	l.stamp++
	ev := unix.EpollEvent{Events: events, Fd: at, Pad: l.stamp}
	if err := l.control(t.raw[side], unix.EPOLL_CTL_ADD, &ev); err != nil {
		l.vacate(at)
		return false
	}
	l.watches[at] = watch{t, uint8(side), l.stamp}
	t.park.watch[side] = at + 1
	return true
}

// unwatch ends the watch, before the socket is closed.
func (l *loop) unwatch(t *Tunnel, side int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := t.park.watch[side] - 1
	t.park.watch[side] = 0
	_ = l.control(t.raw[side], unix.EPOLL_CTL_DEL, new(unix.EpollEvent)) // fails if the socket is closed, which ends the watch too
	l.vacate(at)
}

// control changes the epoll set.
func (l *loop) control(rc syscall.RawConn, op int, ev *unix.EpollEvent) error {
	var err error
	if cerr := rc.Control(func(fd uintptr) { err = unix.EpollCtl(l.fd, op, int(fd), ev) }); cerr != nil {
		return cerr
	}
	return err
}

// place finds a free place in watches.
func (l *loop) place() int32 {
	l.used++
	if n := len(l.free); n > 0 {
		at := l.free[n-1]
		l.free = l.free[:n-1]
		return at
	}
	l.watches = append(l.watches, watch{})
	return int32(len(l.watches) - 1)
}

// vacate frees a place; with the last one the epoll instance and its goroutine end.
func (l *loop) vacate(at int32) {
	l.watches[at] = watch{}
	l.free = append(l.free, at)
	if l.used--; l.used > 0 {
		return
	}
	_ = l.epoll.Close() // nothing is in it
	l.epoll, l.watches, l.free = nil, nil, nil
}

// open makes the epoll instance and starts its goroutine.
func (l *loop) open() bool {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return false
	}
	f := os.NewFile(uintptr(fd), "epoll")
	rc, err := f.SyscallConn()
	if err != nil || f.SetReadDeadline(time.Time{}) != nil { // the runtime cannot poll it
		_ = f.Close()
		return false
	}
	l.epoll, l.fd = f, fd
	go l.serve(rc)
	return true
}

// serve wakes tunnels until the epoll instance is closed.
func (l *loop) serve(rc syscall.RawConn) {
	events := make([]unix.EpollEvent, 128)
	n := 0
	wait := func(fd uintptr) bool {
		var err error
		n, err = ignoringEINTR(func() (int, error) { return unix.EpollWait(int(fd), events, 0) })
		return n > 0 || err != nil
	}
	for rc.Read(wait) == nil {
		for _, ev := range events[:max(n, 0)] {
			if t, side := l.watched(ev); t != nil {
				t.wake(side)
			}
		}
	}
}

// watched finds whom an event is for; nil if that watch has ended.
func (l *loop) watched(ev unix.EpollEvent) (*Tunnel, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(ev.Fd) >= len(l.watches) {
		return nil, 0
	}
	w := l.watches[ev.Fd]
	if w.generation != ev.Pad {
		return nil, 0
	}
	return w.t, int(w.side)
}
