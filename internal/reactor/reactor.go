// Package reactor runs TCP connections and UDP sockets on event loops, two for each processor: no
// goroutine, stack, timer or buffer of its own belongs to a connection that waits.
//
// Code on a loop comes in two forms. An Owner is called when its connection has
// something to say, and must not block. A task is straight-line code in a
// coroutine: Read, Write and Dial of a Conn look as if they blocked, and what they
// really do is to let the loop go on with others meanwhile.
//
// A loop is an epoll instance that waits inside the Go runtime's own poller, so it
// spends no thread and is scheduled like any goroutine. There are loops on Linux
// alone; elsewhere Open says so and connections are served by goroutines.
//
// The package knows no protocol and no policy, and looks at no byte.
package reactor

import (
	"errors"
	"runtime"
	"sync/atomic"
)

// ErrUnsupported says that this system has no loops.
var ErrUnsupported = errors.New("event loops are for Linux alone")

// Two loops for each processor: when one has a megabyte to move, another has something to do for those who wait. More gain nothing.
const (
	loopsPerProcessor = 2
	maxLoops          = 32
)

// Group is a number of loops. It is safe for concurrent use.
type Group struct {
	loops []*Loop
	next  atomic.Uint32
}

// Open starts n loops; zero and negative mean two for each processor, at most 32. Close ends
// them. The error is ErrUnsupported on systems other than Linux, else that of epoll.
func Open(n int) (*Group, error) {
	if n <= 0 {
		n = min(maxLoops, loopsPerProcessor*runtime.GOMAXPROCS(0))
	}
	g := new(Group)
	for range n {
		l, err := newLoop()
		if err != nil {
			g.Close()
			return nil, err
		}
		g.loops = append(g.loops, l)
	}
	return g, nil
}

// Next deals out the loops in turn. A nil Group has none.
func (g *Group) Next() *Loop {
	if g == nil {
		return nil
	}
	return g.loops[g.next.Add(1)%uint32(len(g.loops))]
}

// Kill makes every wait of a task fail with net.ErrClosed, those under way and those to come. Connections stay open.
func (g *Group) Kill() {
	if g == nil {
		return
	}
	for _, l := range g.loops {
		l.Post(l.kill)
	}
}

// Close ends the loops and waits for them. Connections that are still on one are
// closed; their owners hear nothing. No task may be under way. It may be called more than once.
func (g *Group) Close() {
	if g == nil {
		return
	}
	for _, l := range g.loops {
		l.close()
	}
}
