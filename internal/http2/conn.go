package http2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// maxWindow is the largest flow-control window (RFC 9113 section 6.9.1).
	maxWindow = 1<<31 - 1
	// maxStreamID is the last stream there can be.
	maxStreamID = 1<<31 - 1
	// shutdownGrace is how long Shutdown waits for the answer of a client to its PING:
	// by then it knows of the GOAWAY, and what it had sent before has arrived.
	shutdownGrace = time.Second
	// flushTimeout is how long what is left to send may take once a connection has
	// failed: it is not worth more than the GOAWAY.
	flushTimeout = time.Second
	// lingerTimeout and lingerBytes bound what is read after the end, for a client that
	// has not seen the GOAWAY yet: closing on unread bytes resets a TCP connection, and
	// what was sent is lost.
	lingerTimeout = 500 * time.Millisecond
	lingerBytes   = 1 << 20
)

// aLongTimeAgo is a deadline that makes all waiting return.
var aLongTimeAgo = time.Unix(1, 0)

// shutdownPing is what the PING of Shutdown holds.
var shutdownPing = [8]byte{'s', 'h', 'u', 't', 'd', 'o', 'w', 'n'}

// Conn is the server side of a connection.
type Conn struct {
	nc  net.Conn
	o   Options
	in  input      // of the goroutine of Serve, as are the next two
	fr  *h2.Framer // the frames that come; the frames that go are written under mu
	blk block

	unread   atomic.Int64 // content read since the last credit for the connection
	sent     atomic.Int64
	handlers sync.WaitGroup
	written  chan struct{} // closed when nothing more is written

	mu      sync.Mutex
	streams map[uint32]*Stream // those that have not ended on the wire
	closed  closedList
	running int    // Serve under way
	heads   int    // what their heads amount to, in bytes
	maxID   uint32 // of the streams that the client has opened
	recvWin int64  // what the client may still send
	allow   allowances
	out     output

	over      bool // no more frames are taken, err says why
	dead      bool // nothing can be written any more
	err       *ConnError
	greeted   bool // the first SETTINGS has come
	leaving   bool // the connection ends with the last stream
	goingAway bool // Shutdown has been called
	goneAway  bool // the last GOAWAY has been sent: streams after lastID are ignored
	lastID    uint32

	handshake, idle, grace *time.Timer
	idleSince              time.Time
	idleArmed              bool
}

// NewConn makes the server side of a connection on which the client has sent nothing
// that was read yet. Serve serves it.
func NewConn(nc net.Conn, o Options) *Conn {
	o = o.withDefaults()
	c := &Conn{
		nc: nc, o: o, in: input{nc: nc},
		written: make(chan struct{}),
		streams: make(map[uint32]*Stream),
		closed:  closedList{most: 2 * o.Streams},
		allow:   newAllowances(o.Streams),
		recvWin: int64(o.ConnWindow),
	}
	c.fr = h2.NewFramer(&c.out, &c.in)
	c.fr.SetMaxReadFrameSize(minFrame)
	c.blk.init(o.HeaderList)
	c.out.init(&c.mu)
	c.greet()
	return c
}

// greet queues our part of the preface (RFC 9113 section 3.4). Its write cannot fail, nor
// can that of any other frame: they go to a buffer.
func (c *Conn) greet() {
	c.fr.WriteSettings(
		h2.Setting{ID: h2.SettingMaxConcurrentStreams, Val: uint32(c.o.Streams)},
		h2.Setting{ID: h2.SettingInitialWindowSize, Val: uint32(c.o.StreamWindow)},
		h2.Setting{ID: h2.SettingMaxHeaderListSize, Val: uint32(c.o.HeaderList)},
		h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 1},
		h2.Setting{ID: h2.SettingNoRFC7540Priorities, Val: 1},
	)
	if more := c.o.ConnWindow - startWindow; more > 0 {
		c.fr.WriteWindowUpdate(0, uint32(more))
	}
}

// Serve reads frames until the connection ends, and returns when all Serve of its streams
// have. It returns nil if the end was in order: the client left, was idle or Shutdown was
// called, and no stream was cut off. Otherwise the error is a *ConnError. It closes
// nothing but streams: the connection belongs to the caller, who closes it then. Serve
// may be called once.
func (c *Conn) Serve() error {
	c.startTimers()
	go c.writeFrames()
	err := c.readFrames()
	c.mu.Lock()
	c.end(c.whyEnded(err))
	c.mu.Unlock()
	<-c.written
	c.linger(err)
	c.handlers.Wait()
	c.release()
	if c.err != nil {
		return c.err
	}
	return nil
}

// Bytes returns how many bytes have been read from and written to the connection.
func (c *Conn) Bytes() (read, written int64) { return c.in.n.Load(), c.sent.Load() }

func (c *Conn) startTimers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.o.Handshake > 0 {
		c.handshake = time.AfterFunc(c.o.Handshake, c.handshakeExpired)
	}
}

func (c *Conn) handshakeExpired() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.greeted {
		c.end(connError(ErrCodeSettingsTimeout, "the preface took too long"))
	}
}

// rest notes that no Serve is under way. The timer of idleness is left running when a
// stream comes: setting it for each would cost more than looking once.
func (c *Conn) rest() {
	if c.leaving {
		c.end(nil)
		return
	}
	c.idleSince = time.Now()
	if c.idleArmed || c.over || c.o.Idle <= 0 {
		return
	}
	c.idleArmed = true
	if c.idle == nil {
		c.idle = time.AfterFunc(c.o.Idle, c.idleExpired)
	} else {
		c.idle.Reset(c.o.Idle)
	}
}

func (c *Conn) idleExpired() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idleArmed = false
	if c.over || c.running > 0 {
		return
	}
	if wait := c.o.Idle - time.Since(c.idleSince); wait > 0 {
		c.idleArmed = true
		c.idle.Reset(wait)
		return
	}
	c.end(nil)
}

// Shutdown ends the connection gracefully (RFC 9113 section 6.8): a first GOAWAY asks the
// client to open no more streams, a second, once the client knows of it or after 1 s, says
// which was the last. Serve returns when the streams under way have ended.
func (c *Conn) Shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.goingAway {
		return
	}
	c.goingAway = true
	c.fr.WriteGoAway(maxStreamID, ErrCodeNo, nil)
	c.fr.WritePing(false, shutdownPing)
	c.out.wake()
	c.grace = time.AfterFunc(shutdownGrace, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.goAway()
	})
}

// goAway is the second step of Shutdown.
func (c *Conn) goAway() {
	if c.over || c.goneAway {
		return
	}
	c.sayGoAway(ErrCodeNo, "")
	c.leave()
}

// leave ends the connection with its last stream.
func (c *Conn) leave() {
	c.leaving = true
	if c.running == 0 {
		c.end(nil)
	}
}

func (c *Conn) sayGoAway(code ErrCode, why string) {
	c.goneAway, c.lastID = true, c.maxID
	c.fr.WriteGoAway(c.maxID, code, []byte(why))
	c.out.wake()
}

// end ends the connection, in order if err is nil. What is queued is still sent.
func (c *Conn) end(err *ConnError) {
	if c.over {
		return
	}
	c.over, c.err = true, err
	cause := error(net.ErrClosed)
	switch {
	case err == nil && !c.goneAway:
		c.sayGoAway(ErrCodeNo, "")
	case err != nil:
		cause = err
		c.sayGoAway(err.Code, err.Err.Error())
		c.nc.SetWriteDeadline(time.Now().Add(flushTimeout))
	}
	for _, s := range c.streams {
		s.abort(&lostError{cause})
	}
	clear(c.streams)
	c.nc.SetReadDeadline(aLongTimeAgo)
	c.out.wake()
}

// whyEnded makes a ConnError of the error that ended the reading; nil if the client has
// left and misses nothing.
func (c *Conn) whyEnded(err error) *ConnError {
	var ce *ConnError
	switch {
	case errors.As(err, &ce):
		return ce
	case err == io.EOF && c.greeted && len(c.streams) == 0:
		return nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return &ConnError{Err: err}
}

// linger reads on for a moment, so that the last frames reach the client.
func (c *Conn) linger(readErr error) {
	if c.dead || c.in.err != nil && !isTimeout(c.in.err) || errors.Is(readErr, io.EOF) {
		return
	}
	c.in.err = nil
	c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
	c.in.skip(lingerBytes)
}

// isTimeout tells a read that we have ended from one that has failed.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// release stops the timers and gives the buffers back.
func (c *Conn) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range []*time.Timer{c.handshake, c.idle, c.grace} {
		if t != nil {
			t.Stop()
		}
	}
	c.in.release()
	recycle(c.out.take())
	c.nc.SetDeadline(time.Time{})
}

// block is the decoder of heads and the field lines of the head under way.
type block struct {
	dec   *hpack.Decoder
	lines []hpack.HeaderField
	size  int // as SETTINGS_MAX_HEADER_LIST_SIZE counts
	limit int
}

// maxLines is how many field lines a block keeps room for between heads.
const maxLines = 128

func (b *block) init(limit int) {
	b.limit = limit
	b.dec = hpack.NewDecoder(tableSize, b.emit)
	b.dec.SetMaxStringLength(headerListTimes * limit)
}

func (b *block) emit(f hpack.HeaderField) {
	b.size += int(f.Size())
	if !b.tooLong() {
		b.lines = append(b.lines, f)
	}
}

func (b *block) tooLong() bool { return b.size > b.limit }

func (b *block) reset() {
	b.size = 0
	clear(b.lines)
	b.lines = b.lines[:0]
	if cap(b.lines) > maxLines {
		b.lines = nil
	}
}

// readPreface reads the client's part of the preface (RFC 9113 section 3.4), and gives up
// at the first byte that differs.
func (c *Conn) readPreface() error {
	want := []byte(h2.ClientPreface)
	for len(want) > 0 {
		b, err := c.in.next(len(want))
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(want, b) {
			return connError(ErrCodeProtocol, "the preface is not that of HTTP/2")
		}
		want = want[len(b):]
	}
	return nil
}
