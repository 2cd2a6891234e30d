package http2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestResetsUnread has a client open streams that are all reset by who serves them, slowly enough for no other limit, and
// read nothing of it: what waits to be sent must not grow without end.
func TestResetsUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		c := NewConn(server, Options{SendTimeout: -1, Serve: func(s *Stream) { s.Reset(ErrCodeRefusedStream) }})
		ended := make(chan error, 1)
		go func() { ended <- c.Serve() }()

		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		fr := h2.NewFramer(client, nil)
		io.WriteString(client, h2.ClientPreface)
		fr.WriteSettings()
		const enough = 4 * maxAnswers
		opened := uint32(0)
		for ; opened < enough; opened++ {
			block.Reset()
			enc.WriteField(hpack.HeaderField{Name: ":method", Value: "CONNECT"})
			enc.WriteField(hpack.HeaderField{Name: ":authority", Value: "example.test:443"})
			client.SetWriteDeadline(time.Now().Add(time.Second))
			if fr.WriteHeaders(h2.HeadersFrameParam{StreamID: 2*opened + 1, BlockFragment: block.Bytes(), EndHeaders: true}) != nil {
				break
			}
			synctest.Wait()
			c.mu.Lock()
			if n := len(c.out.batch); n > batchSize {
				t.Fatalf("%d bytes wait to be sent", n)
			}
			c.mu.Unlock()
		}
		client.Close()
		var ce *ConnError
		if err := <-ended; !errors.As(err, &ce) || ce.Flood != "control_queue" {
			t.Errorf("Serve after %d streams: %v, want a flood of control_queue", opened, err)
		}
	})
}
