package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"polyport/internal/pool"
	"polyport/internal/target"
	"polyport/internal/upstream"
)

// backendPermit makes a Dialer on f and a permit for the servers.
func backendPermit(t *testing.T, f *fakeNet, r Resolver, servers ...string) (*Dialer, *Permit) {
	t.Helper()
	d := New(Options{Policy: policy(t, false, allowAll), Resolver: r})
	d.dial = f.dial
	req := to(t, "placeholder.example:1")
	req.Target = target.Name("row")
	p, err := d.AuthorizeBackend(t.Context(), req, newBackend("b", servers...))
	if err != nil {
		t.Fatal(err)
	}
	return d, p
}

func TestDialBackend(t *testing.T) {
	refused := behaviour{err: syscall.ECONNREFUSED}
	tests := []struct {
		name    string
		servers []string
		script  script
		want    string // "" is an error
		log     []string
		reason  Reason
		says    []string
	}{
		{
			name: "the first one, on a private address", servers: []string{"127.0.0.1:22", "10.0.0.1:22"},
			script: script{"127.0.0.1": {}}, want: "127.0.0.1:22", log: []string{"0s 127.0.0.1"},
		},
		{
			name: "the second one", servers: []string{"127.0.0.1:22", "10.0.0.1:23"},
			script: script{"127.0.0.1": refused, "10.0.0.1": {}}, want: "10.0.0.1:23", log: []string{"0s 127.0.0.1", "0s 10.0.0.1"},
		},
		{
			name: "each has its share of the time", servers: []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"},
			script: script{"10.0.0.1": hangs, "10.0.0.2": hangs, "10.0.0.3": refused, "10.0.0.4": {after: 4 * time.Second}},
			want:   "10.0.0.4:1", log: []string{"0s 10.0.0.1", "2.5s 10.0.0.2", "5s 10.0.0.3", "5s 10.0.0.4"},
		},
		{
			name: "a name, its addresses unguarded and raced", servers: []string{"git.example:22"},
			script: script{"fd00::1": hangs, "10.0.0.7": {}}, want: "10.0.0.7:22", log: []string{"0s fd00::1", "250ms 10.0.0.7"},
		},
		{
			name: "a name that does not resolve", servers: []string{"gone.example:22", "10.0.0.1:22"},
			script: script{"10.0.0.1": {}}, want: "10.0.0.1:22", log: []string{"0s 10.0.0.1"},
		},
		{
			name: "a zone is kept", servers: []string{"[fe80::1%eth0]:22"},
			script: script{"fe80::1%eth0": {}}, want: "[fe80::1%eth0]:22", log: []string{"0s fe80::1%eth0"},
		},
		{
			name: "none answers", servers: []string{"10.0.0.1:22", "10.0.0.2:22", "gone.example:22"},
			script: script{"10.0.0.1": hangs, "10.0.0.2": refused}, log: []string{"0s 10.0.0.1", "3.333333333s 10.0.0.2"},
			reason: ConnectionRefused, says: []string{"cannot connect to backend b for row at 10.0.0.2:22: connection refused", "10.0.0.1:22: context deadline exceeded", "server gone.example: the name has no address"},
		},
		{
			name: "no name resolves", servers: []string{"gone.example:22"}, reason: DNSError,
			says: []string{"cannot resolve backend b for row: server gone.example: the name has no address"},
		},
		{
			name: "no descriptors left", servers: []string{"10.0.0.1:22", "10.0.0.2:22"},
			script: script{"10.0.0.1": {err: syscall.EMFILE}}, log: []string{"0s 10.0.0.1"}, reason: LimitReached, says: []string{"too many open files"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeNet(tt.script)
				d, p := backendPermit(t, f, names(map[string]string{"git.example": "10.0.0.7 fd00::1"}), tt.servers...)
				c, err := d.Dial(t.Context(), p)
				synctest.Wait()
				if !slices.Equal(f.log, tt.log) {
					t.Errorf("the attempts were %q, want %q", f.log, tt.log)
				}
				if tt.want != "" {
					if err != nil {
						t.Fatalf("Dial: %v", err)
					}
					if got := c.(*fakeConn).to.String(); got != tt.want {
						t.Errorf("Dial connected to %v, want %v", got, tt.want)
					}
					return
				}
				var e *Error
				if !errors.As(err, &e) || e.Reason != tt.reason || e.Backend != "b" {
					t.Fatalf("Dial = %v, want %s of backend b", err, tt.reason)
				}
				for _, s := range tt.says {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("the error says %q, want it to say %q", err, s)
					}
				}
			})
		})
	}
}

// A server that has failed as often as the pool bears is left alone for a while, and then tried again.
func TestABackendServerThatKeepsFailingIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNet(script{"10.0.0.1": hangs, "10.0.0.2": {}})
		d, p := backendPermit(t, f, nil, "10.0.0.1:22", "10.0.0.2:22")
		dial := func(want ...string) {
			t.Helper()
			f.log, f.start = nil, time.Now()
			if _, err := d.Dial(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(f.log, want) {
				t.Errorf("the attempts were %q, want %q", f.log, want)
			}
		}
		for range 5 {
			dial("0s 10.0.0.1", "5s 10.0.0.2")
		}
		dial("0s 10.0.0.2")
		f.script["10.0.0.1"] = behaviour{}
		time.Sleep(5 * time.Second)
		dial("0s 10.0.0.1")
	})
}

// A client that leaves says nothing about the server.
func TestABackendServerIsNotBlamedForTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNet(script{"10.0.0.1": hangs, "10.0.0.2": {}})
		d, p := backendPermit(t, f, nil, "10.0.0.1:22", "10.0.0.2:22")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := d.Dial(ctx, p)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial = %v, want the context's error", err)
		}
		f.script["10.0.0.1"] = behaviour{}
		c, err := d.Dial(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.(*fakeConn).to.String(); got != "10.0.0.1:22" {
			t.Errorf("Dial connected to %v, want 10.0.0.1:22", got)
		}
	})
}

// hangingResolver answers when its context ends.
type hangingResolver struct{}

func (hangingResolver) Lookup(ctx context.Context, _ netip.Addr, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestABackendNameThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNet(script{"10.0.0.2": {}})
		d, p := backendPermit(t, f, hangingResolver{}, "slow.example:22", "10.0.0.2:22")
		if _, err := d.Dial(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		if want := []string{"5s 10.0.0.2"}; !slices.Equal(f.log, want) {
			t.Errorf("the attempts were %q, want %q", f.log, want)
		}
		d, p = backendPermit(t, f, hangingResolver{}, "slow.example:22")
		_, err := d.Dial(t.Context(), p)
		var e *Error
		if !errors.As(err, &e) || e.Reason != DNSTimeout {
			t.Errorf("Dial = %v, want %s", err, DNSTimeout)
		}
	})
}

func TestDialBackendForReal(t *testing.T) {
	good, gone := echoAt(t, "127.0.0.1:0"), closedPort(t, "127.0.0.1:0")
	d := New(Options{Policy: policy(t, false, allowAll), Resolver: names(map[string]string{"b.example": "127.0.0.1"})})
	for _, servers := range [][]string{
		{good.String()},
		{gone.String(), good.String()},
		{gone.String(), fmt.Sprintf("b.example:%d", good.Port())},
	} {
		r := to(t, "git.example:443")
		p, err := d.AuthorizeBackend(t.Context(), r, newBackend("b", servers...))
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Dial(t.Context(), p)
		if err != nil {
			t.Fatalf("Dial of %q: %v", servers, err)
		}
		if _, ok := c.(*net.TCPConn); !ok {
			t.Errorf("Dial gave a %T, want a *net.TCPConn", c)
		}
		checkEcho(t, c)
		c.Close()
	}
}

// A server's name that leads to the gateway itself would have connections go round in circles.
func TestABackendServerThatIsTheGatewayItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNet(script{"10.0.0.1": {}})
		d, p := backendPermit(t, f, names(map[string]string{"self.example": "10.0.0.9", "both.example": "10.0.0.9 10.0.0.1"}), "self.example:7659")
		d.own = func(a netip.AddrPort) bool { return a == netip.MustParseAddrPort("10.0.0.9:7659") }
		_, err := d.Dial(t.Context(), p)
		var e *Error
		if !errors.As(err, &e) || e.Reason != LoopDetected || !strings.Contains(err.Error(), "one of this gateway's own sockets") {
			t.Errorf("Dial = %v, want %s", err, LoopDetected)
		}
		p.backend = newBackend("b", "both.example:7659")
		c, err := d.Dial(t.Context(), p)
		if err != nil || c.(*fakeConn).to.String() != "10.0.0.1:7659" {
			t.Errorf("Dial = %v, %v, want the other address", c, err)
		}
	})
}

// newBackend makes a backend of servers that are well written.
func newBackend(name string, servers ...string) *upstream.Backend {
	b, err := upstream.NewBackend(upstream.BackendOptions{Servers: servers, Pool: pool.Options{Name: name}}, nil)
	if err != nil {
		panic(err)
	}
	return b
}
