package http2

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"
)

// waiting returns how many streams wait to be sent, and how many heads for room.
func (c *Conn) waiting() (content, heads int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.ready.waiting, len(c.out.crowd)
}

// TestEndedStreamsAreLetGo has a client reset streams whose answers it does not let go out, slowly enough for no other limit:
// what has ended must not be held until there is a window, or room, for it.
func TestEndedStreamsAreLetGo(t *testing.T) {
	const rounds, atOnce = 3, 100
	resetAll := func(c *client, first uint32) {
		for i := range uint32(atOnce) {
			c.get(first + 2*i)
		}
		synctest.Wait()
		time.Sleep(2 * rapid)
		for i := range uint32(atOnce) {
			c.fr.WriteRSTStream(first+2*i, h2.ErrCodeCancel)
		}
		synctest.Wait()
	}
	t.Run("without a window", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := greet(t, Options{SendTimeout: -1, Serve: func(s *Stream) {
				s.WriteHead(200, nil, false)
				s.Write(make([]byte, 2*startWindow))
			}})
			for i := range uint32(rounds) {
				resetAll(c, 1+2*atOnce*i)
			}
			if n, _ := c.conn.waiting(); n != 0 {
				t.Errorf("%d ended streams wait to be sent", n)
			}
		})
	})
	t.Run("without room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			large := []Field{{"x-large", strings.Repeat("x", 20<<10)}}
			c := mute(t, Options{SendTimeout: -1, Serve: func(s *Stream) { s.WriteHead(200, large, false) }})
			for i := range uint32(rounds) {
				resetAll(c, 1+2*atOnce*i)
			}
			if _, n := c.conn.waiting(); n != 0 {
				t.Errorf("%d heads of ended streams wait for room", n)
			}
		})
	})
}
