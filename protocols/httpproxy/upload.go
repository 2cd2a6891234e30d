package httpproxy

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"polyport/internal/http1"
)

// upload is the body of a request on its way to the origin, beside the answer that
// may come before it is whole.
type upload struct {
	done  chan struct{}
	err   error        // once done is closed
	panic string       // once done is closed: what the goroutine panicked with
	moved atomic.Int64 // when bytes moved last, in nanoseconds since 1970
}

// sendBody sends the body of the request to o. What is there already goes out at
// once; the rest gets a goroutine, whose end is stopUpload or the end of the body. It sends the
// head before it waits for more, since the client may wait for the origin's word.
func (c *client) sendBody(o *origin) error {
	f := c.req.Framing
	if f.Empty() {
		return o.w.EndBody(nil)
	}
	c.t.html = acceptsHTML(&c.req.Fields) // which are gone from here on
	if f.Kind == http1.Length && f.Length <= int64(c.r.Buffered()) {
		_, err := http1.CopyBody(&o.w, &c.r, http1.CopyOptions{})
		return err
	}
	u := &upload{done: make(chan struct{})}
	u.moved.Store(now().UnixNano())
	c.t.upload = u
	c.rd.each(c.s.Timeouts().Idle)
	go c.uploadBody(o, u)
	return nil
}

// uploadBody streams the body of the request to o. It has the client's reading side
// and o's writing side until u.done is closed.
func (c *client) uploadBody(o *origin, u *upload) {
	defer func() {
		if p := recover(); p != nil { // the session's own goroutine panics in its place, where it is caught
			u.panic = fmt.Sprintf("%v\n%s", p, debug.Stack())
			close(u.done)
			o.abort()
		}
	}()
	_, err := http1.CopyBody(&o.w, &c.r, http1.CopyOptions{
		Moved:       u.note,
		DropTrailer: c.hides,
		Splice: func(n int64) (int64, error) {
			from, ok := c.RawTCP()
			if !ok || o.tcp == nil {
				return 0, nil
			}
			// The last byte goes the other way, so that isEnding is right about it.
			c.reading.Store(true)
			defer c.reading.Store(false)
			return splice(&o.stream, o.tcp, &c.stream, from, n-1, u.note)
		},
	})
	u.err = err
	close(u.done)
	if err != nil && !isWriteError(err) {
		o.abort() // the origin must not take what came for the whole
	}
}

func (u *upload) note(int64) { u.moved.Store(now().UnixNano()) }

// isDone reports whether the upload has ended.
func (u *upload) isDone() bool {
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

// lastByteGrace bounds the wait of isEnding.
const lastByteGrace = 250 * time.Millisecond

// isEnding reports whether the upload has ended or will without another byte of the
// client: an origin may answer the last byte before the goroutine that has sent it
// runs again. One that waits for the client is not about to end.
func (c *client) isEnding(u *upload) bool {
	if u.isDone() {
		return true
	}
	give := now().Add(lastByteGrace)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !c.reading.Load() && now().Before(give) {
		select {
		case <-u.done:
			return true
		case <-tick.C:
		}
	}
	return u.isDone()
}

// stopUpload ends an upload that is still running and reports whether there was
// one. Neither side's connection can be used for another exchange then.
func (c *client) stopUpload() (running bool) {
	u := c.t.upload
	if u == nil {
		return false
	}
	c.t.upload = nil
	switch running = !u.isDone(); {
	case running:
		c.stopReads()
		c.t.origin.abort()
		<-u.done
	case u.err != nil && !isWriteError(u.err):
		c.t.origin.abort() // the upload is about to: whoever closes it must not come first
	}
	if u.panic != "" {
		panic(u.panic)
	}
	return running
}

func isWriteError(err error) bool {
	var w *http1.WriteError
	return errors.As(err, &w)
}
