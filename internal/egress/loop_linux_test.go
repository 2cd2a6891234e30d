package egress

import (
	"net"
	"testing"
	"time"

	"polyport/internal/reactor"
)

// TestDialAZoneOnALoop: a loop cannot dial an address with a zone by itself, and gets the connection all the same.
func TestDialAZoneOnALoop(t *testing.T) {
	_, port, err := net.SplitHostPort(echoAt(t, "[::1]:0").String())
	if err != nil {
		t.Fatal(err)
	}
	loops, err := reactor.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(loops.Close)
	server := net.JoinHostPort("::1%lo", port)
	d := New(Options{Policy: policy(t, false, allowAll)})
	for name, servers := range map[string][]string{"alone": {server}, "behind one that refuses": {closedPort(t, "[::1]:0").String(), server}} {
		t.Run(name, func(t *testing.T) {
			p, err := d.AuthorizeBackend(t.Context(), to(t, "git.example:443"), newBackend("b", servers...))
			if err != nil {
				t.Fatal(err)
			}
			back := make(chan *net.TCPConn, 1)
			l := loops.Next()
			l.Post(func() {
				l.Go(func() {
					defer close(back)
					link, err := d.Open(t.Context(), p, OpenOptions{Loop: l})
					if err != nil {
						t.Errorf("Open = %v", err)
						return
					}
					on, ok := link.Conn.(*reactor.Conn)
					if !ok || on.Loop() != l {
						t.Errorf("Open gave a %T, want a *reactor.Conn of the loop", link.Conn)
						return
					}
					if nc, err := on.Detach(); err != nil {
						t.Errorf("Detach = %v", err)
					} else {
						back <- nc
					}
				})
			})
			select {
			case c := <-back:
				if c != nil {
					defer c.Close()
					checkEcho(t, c)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("the dial does not end")
			}
		})
	}
}
