package udprelay

import (
	"sync/atomic"
	"time"
)

const (
	// departedFor is how long a client's socket counts as its user's after the association has ended: NATs keep what they have
	// mapped for as long (RFC 4787 REQ-5), so until then nobody else is there.
	departedFor = 2 * time.Minute
	// maxDeparted bounds how many are known; the oldest make room.
	maxDeparted = 8192
)

// departed are the sockets of clients whose associations have ended. Many go on sending for a while, and what is late must not pass for the
// first datagram of another user at the same address. Relay.mu is held for its methods, for reading where they are said to read.
type departed struct {
	all   map[peer]*departure
	order []*departure // the oldest first; some may have been replaced in all
}

type departure struct {
	socket   peer
	identity string
	heard    atomic.Int64 // when it last sent, as far as that counts, since epoch
}

// epoch is what moments are counted from, by a clock that nobody sets.
var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

func (d *departure) isOver() bool { return now()-d.heard.Load() > int64(departedFor) }

// add notes the socket of a user whose association has ended.
func (d *departed) add(socket peer, identity string) {
	for len(d.order) > 0 && (len(d.order) >= maxDeparted || d.order[0].isOver()) {
		first := d.order[0]
		d.order[0], d.order = nil, d.order[1:]
		if d.all[first.socket] == first {
			delete(d.all, first.socket)
		}
	}
	if d.all == nil {
		d.all = map[peer]*departure{}
	}
	gone := &departure{socket: socket, identity: identity}
	gone.heard.Store(now())
	d.all[socket] = gone
	d.order = append(d.order, gone)
}

// speaks notes that a socket still sends. It reads.
func (d *departed) speaks(socket peer) {
	if gone := d.all[socket]; gone != nil && !gone.isOver() {
		gone.heard.Store(now())
	}
}

// bars reports whether a socket is that of another than an identity. It reads.
func (d *departed) bars(identity string, socket peer) bool {
	gone := d.all[socket]
	return gone != nil && gone.identity != identity && !gone.isOver()
}
