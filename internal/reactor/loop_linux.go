package reactor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxEvents   = 256      // taken from epoll at once
	scratchSize = 64 << 10 // see Loop.Scratch
)

// Loop is one event loop: a goroutine that calls the owners of its connections and runs their tasks.
//
// Where nothing else is said, a method may be called on the loop alone: by an
// owner, a task, a Timer or a function that was posted.
type Loop struct {
	file     *os.File // the epoll instance, for waiting
	raw      syscall.RawConn
	epoll    int
	event    int // the descriptor by which Post wakes the loop
	events   []unix.EpollEvent
	took     int                // how many of events the last look has found
	wait     func(uintptr) bool // made once
	batch    []*Conn            // whom events are for
	scratch  []byte
	received *reception    // of datagrams; nil until there are any
	sends    *sending      // as well
	now      time.Duration // at the beginning of this round
	round    uint64
	again    []func() // what Defer was given
	task     *Task    // that runs
	spare    []*Task  // that have ended and wait for more
	killed   bool
	ended    chan struct{}

	mu     sync.Mutex
	table  []*Conn // by descriptor
	posted []func()
	woken  bool // event has been written to, and not read yet
	dues   dues
	armed  time.Duration // when the wait ends at the latest; 0 is never
	closed bool
}

func newLoop() (*Loop, error) {
	l := &Loop{events: make([]unix.EpollEvent, maxEvents), scratch: make([]byte, scratchSize), ended: make(chan struct{})}
	l.wait = func(uintptr) bool { return l.look() }
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	if l.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		sysClose(l.epoll)
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	if err = l.watchItself(); err != nil {
		sysClose(l.epoll)
		sysClose(l.event)
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	go l.run()
	return l, nil
}

// watchItself puts the epoll instance into the runtime's poller, and event into it.
func (l *Loop) watchItself() error {
	if err := unix.SetNonblock(l.epoll, true); err != nil { // what the runtime takes for pollable
		return err
	}
	if errno := sysEpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.event, unix.EPOLLIN|unix.EPOLLET); errno != 0 {
		return errno
	}
	l.file = os.NewFile(uintptr(l.epoll), "epoll")
	var err error
	if l.raw, err = l.file.SyscallConn(); err != nil {
		return err
	}
	return l.file.SetReadDeadline(time.Time{})
}

// run is the loop.
func (l *Loop) run() {
	defer close(l.ended)
	for {
		l.await()
		l.now = time.Since(epoch)
		l.round++
		posted, closed := l.collect()
		for i, c := range l.batch {
			if c != nil {
				c.happened(l.events[i].Events)
				l.batch[i] = nil
			}
		}
		for _, f := range posted {
			f()
		}
		l.expire()
		again := l.again
		l.again = nil
		for _, f := range again {
			f()
		}
		if len(again) > 0 {
			runtime.Gosched() // a loop that never waits must not keep its processor to itself
		}
		if closed {
			return
		}
	}
}

// await looks for events, and waits for some if nothing else is to be done.
func (l *Loop) await() {
	if len(l.again) > 0 {
		l.look()
		return
	}
	l.mu.Lock()
	l.arm()
	l.mu.Unlock()
	if err := l.raw.Read(l.wait); err != nil {
		l.mu.Lock()
		l.armed = -1 // the deadline has fired and must be moved before the next wait
		l.mu.Unlock()
	}
}

// look takes the events that there are.
func (l *Loop) look() bool {
	l.took = sysEpollPoll(l.epoll, l.events)
	return l.took > 0
}

// arm makes the wait end when the first Timer is due. One that ends too early does no harm. l.mu is held.
func (l *Loop) arm() {
	switch {
	case len(l.dues) > 0 && (l.armed <= 0 || l.dues[0].at < l.armed):
		l.armed = l.dues[0].at
		_ = l.file.SetReadDeadline(epoch.Add(l.armed)) // fails on a closed file only
	case len(l.dues) == 0 && l.armed < 0:
		l.armed = 0
		_ = l.file.SetReadDeadline(time.Time{})
	}
}

// collect finds the connections that the events are for, and what was posted.
func (l *Loop) collect() (posted []func(), closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batch = l.batch[:0]
	for i := range l.took {
		fd := int(l.events[i].Fd)
		if fd == l.event {
			var b [8]byte
			_, _ = sysRead(fd, b[:]) // it only says that something was posted
			l.batch = append(l.batch, nil)
			continue
		}
		l.batch = append(l.batch, l.table[fd])
	}
	l.took = 0
	posted, l.posted, l.woken = l.posted, nil, false
	return posted, l.closed
}

// expire calls the Timers that are due.
func (l *Loop) expire() {
	for {
		l.mu.Lock()
		if len(l.dues) == 0 || l.dues[0].at > l.now {
			l.mu.Unlock()
			return
		}
		t := l.dues[0].t
		l.dues.remove(t)
		l.mu.Unlock()
		t.Owner.Expire()
	}
}

// Post has f called on the loop; once the loop has been closed it never is. It may be called from any goroutine, and
// does not wait.
func (l *Loop) Post(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.posted = append(l.posted, f)
	l.notify()
}

// notify ends the loop's wait. l.mu is held, so that event is not closed meanwhile.
func (l *Loop) notify() {
	if !l.woken {
		l.woken = true
		sysNotify(l.event)
	}
}

// Defer has f called once the others have had their turn.
func (l *Loop) Defer(f func()) { l.again = append(l.again, f) }

// Now returns the loop's time, which stands still while it works off what has happened.
func (l *Loop) Now() time.Duration { return l.now }

// Clock returns Now for comparing with other times of this process; as time of day it is wrong once the system's clock
// has been set.
func (l *Loop) Clock() time.Time { return epoch.Add(l.now) }

// Round numbers the loop's looks for events: what had happened to any connection before this one has been told.
func (l *Loop) Round() uint64 { return l.round }

// Scratch returns a buffer of 64 KiB that all connections of the loop share. It is the caller's
// until it returns, or waits.
func (l *Loop) Scratch() []byte { return l.scratch }

// Set has t expire after a delay, counted from now, instead of when it would have before.
func (l *Loop) Set(t *Timer, after time.Duration) {
	l.mu.Lock()
	l.dues.put(t, l.now+after)
	l.mu.Unlock()
}

// Stop keeps t from expiring.
func (l *Loop) Stop(t *Timer) {
	l.mu.Lock() // Watch moves the places of all
	l.dues.remove(t)
	l.mu.Unlock()
}

// Watch makes a Conn of a TCP socket that peer has connected to, gives it to an owner and has
// t expire after a delay. It may be called from any goroutine; what the socket has
// to say already, the owner hears at once. With an error nothing has changed.
func (l *Loop) Watch(fd int, peer netip.AddrPort, owner Owner, t *Timer, after time.Duration) error {
	c := &Conn{fd: fd, loop: l, peer: peer, owner: owner}
	return l.watch(c, watched, func() {
		l.dues.put(t, since(time.Now())+after)
		l.arm()
		owner.Watched(c) // from here on it may be told to go
	})
}

// watched is what is asked of epoll for every connection: bytes, urgent data, and the peer's end.
const watched = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET

// watch puts c into the table and its socket into epoll. then is called before its first event, with l.mu held.
func (l *Loop) watch(c *Conn, events uint32, then func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	for len(l.table) <= c.fd {
		l.table = append(l.table, make([]*Conn, max(64, len(l.table)))...)
	}
	l.table[c.fd] = c
	c.events = events
	if errno := sysEpollCtl(l.epoll, unix.EPOLL_CTL_ADD, c.fd, events); errno != 0 {
		l.table[c.fd] = nil
		return os.NewSyscallError("epoll_ctl", errno)
	}
	if then != nil {
		then()
	}
	return nil
}

// forget takes a connection off the table.
func (l *Loop) forget(c *Conn) {
	l.mu.Lock()
	l.table[c.fd] = nil
	l.mu.Unlock()
}

// kill is Group.Kill on one loop.
func (l *Loop) kill() {
	l.killed = true
	for _, c := range l.conns() {
		if c.waiting != nil {
			c.waiting.resume()
		}
	}
}

// conns lists the connections of the loop.
func (l *Loop) conns() (all []*Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.table {
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}

// close ends the loop. It may be called more than once: its descriptors are others' after the first time.
func (l *Loop) close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	l.notify()
	l.mu.Unlock()
	<-l.ended
	for _, c := range l.conns() {
		_ = c.Close()
	}
	for _, t := range l.spare {
		t.stop()
	}
	_ = l.file.Close() // nothing is in it any more
	sysClose(l.event)
}
