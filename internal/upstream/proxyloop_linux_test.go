package upstream

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"polyport/internal/reactor"
)

// TestTunnelInTask opens tunnels, and fails to, in tasks of a real event loop.
func TestTunnelInTask(t *testing.T) {
	loops, err := reactor.Open(1)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer loops.Close()
	loop := loops.Next()
	inTask := func(f func()) {
		done := make(chan struct{})
		loop.Post(func() {
			loop.Go(func() {
				defer close(done)
				f()
			})
		})
		<-done
	}
	for _, tt := range tunnels {
		t.Run(tt.name, func(t *testing.T) {
			to := listening(t, func(c net.Conn) {
				playSteps(t, c, tt.steps)
				_, _ = io.WriteString(c, "later")
			})
			silent := listening(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
			p := mustProxy(t, ProxyOptions{URL: tt.url})
			inTask(func() {
				deadline := time.Now().Add(time.Minute)
				var dialled net.Conn
				c, err := p.Open(t.Context(), deadline, "", func(ctx context.Context) (_ net.Conn, err error) {
					dialled, err = loop.Dial(ctx, to, deadline, nil)
					return dialled, err
				}, tt.to)
				if err != nil {
					t.Errorf("Open: %v", err)
					return
				}
				defer c.Close()
				if _, ok := c.(*reactor.Conn); !ok && tt.url[:4] != "http" {
					t.Errorf("Open = %T, want the connection of the loop", c)
				}
				if b, err := io.ReadAll(c); err != nil || string(b) != "later" {
					t.Errorf("the tunnel says %q, %v", b, err)
				}
			})
			inTask(func() {
				deadline := time.Now().Add(time.Millisecond)
				_, err := p.Open(t.Context(), deadline, "", func(ctx context.Context) (net.Conn, error) {
					return loop.Dial(ctx, silent, time.Time{}, nil)
				}, tt.to)
				checkError(t, err, reasonTimeout, true, 0)
			})
		})
	}
}
