package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/freeport"
	"polyport/internal/target"
)

var (
	home      = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	elsewhere = netip.AddrFrom4([4]byte{127, 0, 0, 2}) // of this machine as well
	// allowBind admits peers on this machine.
	allowBind = acl.Rule{Name: "ftp", Action: acl.Allow, Method: []string{"BIND"}, Target: []string{"127.0.0.0/8", "::1"}}
)

// freePorts returns the first of n ports in a row that are free at home.
func freePorts(t *testing.T, n int) uint16 {
	t.Helper()
	first, err := freeport.Find(home, n)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// binding makes a Dialer that serves BIND on n free ports.
func binding(t *testing.T, n int, change func(*Options)) (d *Dialer, first uint16) {
	t.Helper()
	first = freePorts(t, n)
	o := Options{
		Policy: policy(t, true, allowBind),
		Bind:   BindOptions{First: first, Last: first + uint16(n) - 1, Timeout: time.Minute, Binds: NewBinds(network, nil, nil)},
	}
	if change != nil {
		change(&o)
	}
	return New(o), first
}

// bindTo makes a request to wait for a host.
func bindTo(t *testing.T, host string, port uint16) acl.Request {
	t.Helper()
	tg, err := target.NewPeer(host, port)
	if err != nil {
		t.Fatal(err)
	}
	return acl.Request{Client: home, Target: tg, Protocol: "socks5", Method: "BIND"}
}

// mustListen authorizes and listens.
func mustListen(t *testing.T, d *Dialer, host string) *Listening {
	t.Helper()
	p, err := d.AuthorizeBind(t.Context(), bindTo(t, host, 0))
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Listen(t.Context(), p, home, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// knock connects to a from an address of this machine.
func knock(t *testing.T, from netip.Addr, a netip.AddrPort) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: 10 * time.Second}
	c, err := d.Dial("tcp", a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// turnedAway connects as a stranger and returns what he sees; a reset may come before he knows that he is connected.
func turnedAway(a netip.AddrPort) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: elsewhere.AsSlice()}, Timeout: 10 * time.Second}
	c, err := d.Dial("tcp", a.String())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = c.Read(make([]byte, 1))
	return err
}

// checkFree fails unless a can be listened on.
func checkFree(t *testing.T, a netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen("tcp", a.String())
	if err != nil {
		t.Errorf("%v is still in use: %v", a, err)
		return
	}
	ln.Close()
}

func TestAuthorizeBind(t *testing.T) {
	user := acl.Rule{Name: "users", Action: acl.Allow, Method: []string{"BIND"}, User: []string{"*"}}
	every := acl.Rule{Name: "every", Action: acl.Allow, Method: []string{"*"}}
	tests := []struct {
		name   string
		rules  []acl.Rule
		host   string
		port   uint16
		off    bool
		reason Reason // "" is allowed
		cause  error
		says   string
	}{
		{name: "an address", rules: []acl.Rule{allowBind}, host: "127.0.0.1"},
		{name: "an address and port", rules: []acl.Rule{allowBind}, host: "127.0.0.1", port: 20},
		{name: "a name", rules: []acl.Rule{every}, host: "public.example"},
		{name: "a name of which one address may come", rules: []acl.Rule{every}, host: "mixed.example"},
		{name: "nobody in particular", rules: []acl.Rule{allowBind}, host: "0.0.0.0"},
		{name: "nobody in particular, in IPv6", rules: []acl.Rule{allowBind}, host: "::"},
		{name: "no rule names BIND", rules: []acl.Rule{allowAll}, host: "8.8.8.8", reason: RequestDenied, cause: ErrDenied, says: "not allowed to wait for 8.8.8.8:0: no rule that names the method BIND allows it"},
		{name: "no rule names BIND, nobody in particular", rules: []acl.Rule{allowAll}, host: "0.0.0.0", reason: RequestDenied, cause: ErrDenied, says: "no rule that names the method BIND"},
		{name: "the guard", rules: []acl.Rule{every}, host: "10.0.0.1", reason: DestinationProhibited, cause: ErrDenied},
		{name: "the guard, for a name", rules: []acl.Rule{every}, host: "private.example", reason: DestinationProhibited, cause: ErrDenied},
		{name: "a user", rules: []acl.Rule{user}, host: "8.8.8.8", reason: RequestDenied, cause: ErrChallenge},
		{name: "a user, nobody in particular", rules: []acl.Rule{user}, host: "::", reason: RequestDenied, cause: ErrChallenge},
		{name: "a name that does not exist", rules: []acl.Rule{every}, host: "none.example", reason: DNSError, cause: errNoAddress},
		{name: "no ports are set up", rules: []acl.Rule{allowBind}, host: "127.0.0.1", off: true, reason: ConfigurationError, cause: ErrNoBind, says: `write ports = "40000-40100" into [bind]`},
		{name: "no ports are set up, and no permission", rules: []acl.Rule{allowAll}, host: "8.8.8.8", off: true, reason: RequestDenied, cause: ErrDenied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := binding(t, 1, func(o *Options) {
				o.Policy = policy(t, true, tt.rules...)
				o.Resolver = names(map[string]string{"public.example": "8.8.8.8", "mixed.example": "10.0.0.1 8.8.8.8", "private.example": "10.0.0.1"})
				if tt.off {
					o.Bind.First = 0
				}
			})
			p, err := d.AuthorizeBind(t.Context(), bindTo(t, tt.host, tt.port))
			var e *Error
			if errors.As(err, &e); tt.reason == "" {
				if err != nil {
					t.Fatalf("AuthorizeBind = %v", err)
				}
				if c, err := d.Dial(t.Context(), p); err == nil || len(p.Addrs()) > 0 || p.Covers(netip.AddrPortFrom(home, tt.port)) {
					t.Errorf("the permit to listen is one to dial as well: %v, %v", c, p.Addrs())
				}
				return
			}
			if e == nil || e.Reason != tt.reason || !errors.Is(err, tt.cause) || !e.Bind || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("AuthorizeBind = %v, want %s for %v that says %q", err, tt.reason, tt.cause, tt.says)
			}
		})
	}
}

func TestListenNeedsItsPermit(t *testing.T) {
	d, _ := binding(t, 1, func(o *Options) {
		o.Policy = policy(t, false, acl.Rule{Action: acl.Allow, Method: []string{"*"}, Target: []string{"127.0.0.0/8"}})
	})
	p, err := d.Authorize(t.Context(), to(t, "127.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*Permit{nil, p} {
		if _, err := d.Listen(t.Context(), p, home, false); !errors.Is(err, errNotForBind) {
			t.Errorf("Listen with %v = %v, want %v", p, err, errNotForBind)
		}
	}
}

func TestAccept(t *testing.T) {
	for _, tt := range []struct {
		name, host string
		from       netip.Addr
	}{
		{"who was named", "127.0.0.1", home},
		{"who was named, by another way", "127.0.0.2", elsewhere},
		{"nobody in particular", "0.0.0.0", elsewhere},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, first := binding(t, 1, nil)
			l := mustListen(t, d, tt.host)
			if want := netip.AddrPortFrom(home, first); l.Address() != want {
				t.Errorf("it listens on %v, want %v", l.Address(), want)
			}
			peer := knock(t, tt.from, l.Address())
			c, dec, err := l.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, bare := c.(*net.TCPConn); !bare || dec.Rule != "ftp" || c.RemoteAddr().String() != peer.LocalAddr().String() {
				t.Errorf("Accept = %T from %v by rule %q, want a *net.TCPConn from %v by rule ftp", c, c.RemoteAddr(), dec.Rule, peer.LocalAddr())
			}
			if _, err := net.Dial("tcp", l.Address().String()); err == nil {
				t.Error("a second connection is taken")
			}
			checkFree(t, netip.AddrPortFrom(home, first))
		})
	}
}

// Connections of others are reset and the wait goes on, up to a bound.
func TestAcceptTurnsStrangersAway(t *testing.T) {
	tests := []struct {
		name, host string
		rule       acl.Rule
		strangers  int
	}{
		{"one", "127.0.0.1", allowBind, 1},
		{"as many as may be", "127.0.0.1", allowBind, maxStrangers},
		{"more", "127.0.0.1", allowBind, maxStrangers + 1},
		{"one whom the rules forbid", "0.0.0.0", acl.Rule{Name: "ftp", Action: acl.Allow, Method: []string{"BIND"}, Target: []string{"127.0.0.1"}}, 1},
		{"more whom the rules forbid", "0.0.0.0", acl.Rule{Name: "ftp", Action: acl.Allow, Method: []string{"BIND"}, Target: []string{"127.0.0.1"}}, maxStrangers + 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, first := binding(t, 1, func(o *Options) { o.Policy = policy(t, false, tt.rule) })
			l := mustListen(t, d, tt.host)
			var knocking sync.WaitGroup
			knocking.Go(func() {
				for range tt.strangers {
					if err := turnedAway(l.Address()); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("a stranger sees %v, want a reset", err)
					}
				}
				if tt.strangers <= maxStrangers {
					knock(t, home, l.Address())
				}
			})
			c, dec, err := l.Accept(t.Context())
			knocking.Wait()
			if tt.strangers > maxStrangers {
				var e *Error
				if !errors.As(err, &e) || e.Reason != RequestDenied || !errors.Is(err, ErrDenied) || e.Target != l.permit.target {
					t.Errorf("Accept = %v, want a denial", err)
				}
			} else if err != nil || dec.Rule != "ftp" || c.(*net.TCPConn).Close() != nil {
				t.Errorf("Accept = %v by %+v, %v", c, dec, err)
			}
			checkFree(t, netip.AddrPortFrom(home, first))
		})
	}
}

func TestAcceptEnds(t *testing.T) {
	gone := errors.New("the client is gone")
	tests := []struct {
		name   string
		end    func(l *Listening, cancel context.CancelCauseFunc)
		reason Reason
		cause  error
	}{
		{"after the timeout", func(l *Listening, _ context.CancelCauseFunc) { l.d.bind.Timeout = 20 * time.Millisecond }, ConnectionTimeout, errNoPeer},
		{"with the context", func(_ *Listening, cancel context.CancelCauseFunc) { cancel(gone) }, ConnectionTerminated, gone},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, first := binding(t, 1, nil)
			l := mustListen(t, d, "0.0.0.0")
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			tt.end(l, cancel)
			_, _, err := l.Accept(ctx)
			var e *Error
			if !errors.As(err, &e) || e.Reason != tt.reason || !errors.Is(err, tt.cause) {
				t.Errorf("Accept = %v, want %s for %v", err, tt.reason, tt.cause)
			}
			checkFree(t, netip.AddrPortFrom(home, first))
		})
	}
}

// network is what counts as one client here: a /64.
func network(a netip.Addr) netip.Addr {
	if p, err := a.Prefix(64); err == nil {
		return p.Addr()
	}
	return a
}
