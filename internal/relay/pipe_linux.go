package relay

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is the default of /proc/sys/fs/pipe-max-size, the most that an
	// unprivileged process may ask for.
	pipeSize = 1 << 20
	// minPipeSize is what a pipe needs to be better than copying. Past
	// pipe-user-pages-soft an unprivileged user gets two pages (pipe(7)), which is worse.
	minPipeSize = 64 << 10
	// pipeRetry is how long no new pipe is tried after one could not be had.
	pipeRetry = time.Second
)

// pipe is the kernel buffer that spliced bytes pass through.
type pipe struct{ r, w int }

func (p *pipe) close() {
	_ = unix.Close(p.r) // nothing can be done about a pipe that does not close
	_ = unix.Close(p.w)
}

// pipePool lends pipes. A pipe is out only while a flow's bytes are in
// it, and comes back only when it is empty: what another flow finds in it would
// be another user's data. When no flow uses the pool any more all pipes are closed.
//
// A flow that finds its destination full may hold its pipe until there is room, which saves looking for room beforehand and
// lets a socket be filled to its end. Only so many may: receivers that stall must not leave the others without.
type pipePool struct {
	open  func() (*pipe, error)
	max   int // pipes in all
	holds int // how many of them may be held

	held  atomic.Int64
	mu    sync.Mutex
	idle  []*pipe
	out   int
	users int
	retry time.Time // no new pipe before
}

// pipes serves all tunnels. Beside the pipes that are held there is no use for many more than flows run at once; and 1 MiB
// each, 64 are all that an unprivileged user gets.
var pipes = &pipePool{open: openPipe, max: heldPipes + max(16, 2*runtime.GOMAXPROCS(0)), holds: heldPipes}

// heldPipes is how many pipes may wait for room in their destinations.
const heldPipes = 32

// openPipe makes a pipe as large as the kernel lets us.
func openPipe() (*pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, fmt.Errorf("open a pipe: %w", err)
	}
	p := &pipe{r: fds[0], w: fds[1]}
	for size := pipeSize; size >= minPipeSize; size /= 4 {
		_, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, size)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, unix.EPERM) {
			break
		}
	}
	size, err := unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0)
	if err == nil && size >= minPipeSize {
		return p, nil
	}
	p.close()
	return nil, fmt.Errorf("open a pipe: it would hold %d bytes only; raise fs.pipe-user-pages-soft", size)
}

// join says that a flow is going to ask for pipes.
func (p *pipePool) join() {
	p.mu.Lock()
	p.users++
	p.mu.Unlock()
}

// leave takes join back.
func (p *pipePool) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
	if p.users > 0 {
		return
	}
	for _, q := range p.idle {
		q.close()
	}
	p.idle = nil
}

// mayHold says that a flow that asks for a pipe now is likely to be let hold it.
func (p *pipePool) mayHold() bool { return p.held.Load() < int64(p.holds) }

// hold lets a flow keep a pipe with bytes in it, until release. False means that it must empty it and put it back.
func (p *pipePool) hold() bool {
	if p.held.Add(1) <= int64(p.holds) {
		return true
	}
	p.held.Add(-1)
	return false
}

// release takes hold back.
func (p *pipePool) release() { p.held.Add(-1) }

// get lends an empty pipe, or returns nil: then the caller has to copy.
func (p *pipePool) get() *pipe {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		q := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.out++
		return q
	}
	if p.out >= p.max || !p.retry.IsZero() && time.Now().Before(p.retry) {
		return nil
	}
	q, err := p.open()
	if err != nil {
		p.retry = time.Now().Add(pipeRetry) // the reason is of no use to anyone: copying serves as well
		return nil
	}
	p.retry = time.Time{}
	p.out++
	return q
}

// put takes a pipe back. left is how many bytes are in it; with any it is closed.
func (p *pipePool) put(q *pipe, left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out--
	if left != 0 {
		q.close()
		return
	}
	p.idle = append(p.idle, q)
}
