package httpproxy

import (
	"errors"
	"sync/atomic"
	"time"

	"polyport/internal/http1"
)

// upload is the body of a request on its way to the origin, beside the answer that
// may come before it is whole.
type upload struct {
	done  chan struct{}
	err   error        // once done is closed
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
	_, err := http1.CopyBody(&o.w, &c.r, http1.CopyOptions{
		Moved:       u.note,
		DropTrailer: c.h.anonymity.hides,
		Splice: func(n int64) (int64, error) {
			from, ok := c.RawTCP()
			if !ok || o.tcp == nil {
				return 0, nil
			}
			return splice(&o.stream, o.tcp, &c.stream, from, n, u.note)
		},
	})
	u.err = err
	close(u.done)
	if err != nil && !isWriteError(err) {
		o.abort() // the origin must not take what came for the whole
	}
}

func (u *upload) note(int64) { u.moved.Store(now().UnixNano()) }

// isDone reports whether the upload has ended, and waits a moment for one that
// is about to.
func (u *upload) isDone(wait time.Duration) bool {
	select {
	case <-u.done:
		return true
	default:
	}
	if wait <= 0 {
		return false
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-u.done:
		return true
	case <-t.C:
		return false
	}
}

// lastByteGrace is how long the answer waits for an upload whose last byte the
// origin has just seen, before it tells the client that the connection will end.
const lastByteGrace = 5 * time.Millisecond

// stopUpload ends an upload that is still running and reports whether there was
// one. Neither side's connection can be used for another exchange then.
func (c *client) stopUpload() (running bool) {
	u := c.t.upload
	if u == nil {
		return false
	}
	c.t.upload = nil
	if u.isDone(0) {
		return false
	}
	c.stopReads()
	c.t.origin.abort()
	<-u.done
	return true
}

func isWriteError(err error) bool {
	var w *http1.WriteError
	return errors.As(err, &w)
}
