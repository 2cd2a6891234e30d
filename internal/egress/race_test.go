package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"polyport/acl"
)

// script says for each address how a connection to it goes.
type script map[string]behaviour

type behaviour struct {
	after time.Duration // 0: at once
	err   error         // nil: connected
}

// hangs is a behaviour that only the deadline or the context ends.
var hangs = behaviour{after: 1000 * time.Hour}

// fakeNet dials by script, and keeps account of it.
type fakeNet struct {
	script script
	start  time.Time

	mu    sync.Mutex
	log   []string // "250ms 192.0.2.1"
	open  atomic.Int32
	dials int
}

// fakeConn is a connection of a fakeNet.
type fakeConn struct {
	net.Conn
	to   netip.AddrPort
	once sync.Once
	net  *fakeNet
}

func (c *fakeConn) Close() error {
	c.once.Do(func() { c.net.open.Add(-1) })
	return nil
}

// Peer returns the other side's address, as a connection on a loop does.
func (c *fakeConn) Peer() netip.AddrPort { return c.to }

func newFakeNet(s script) *fakeNet { return &fakeNet{script: s, start: time.Now()} }

// dial is a dialFunc.
func (f *fakeNet) dial(ctx context.Context, set *dialSet, to netip.AddrPort, deadline time.Time) (net.Conn, error) {
	f.mu.Lock()
	f.dials++
	f.log = append(f.log, fmt.Sprintf("%v %v", time.Since(f.start), to.Addr()))
	f.mu.Unlock()
	if !set.covers(to) {
		return nil, errNotPinned
	}
	b, ok := f.script[to.Addr().String()]
	if !ok {
		return nil, fmt.Errorf("nobody said that %v may be dialled", to)
	}
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	if b.after > 0 {
		t := time.NewTimer(b.after)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if b.err != nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: b.err}
	}
	f.open.Add(1)
	return &fakeConn{to: to, net: f}, nil
}

// permitFor pins addresses for a.example:443.
func permitFor(t *testing.T, d *Dialer, list string) *Permit {
	t.Helper()
	d.policy = policy(t, false, acl.Rule{Name: "any", Action: acl.Allow})
	d.resolver = names(map[string]string{"a.example": list})
	p, err := d.Authorize(t.Context(), to(t, "a.example:443"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	a6, b6, c6 = "2600::a", "2600::b", "2600::c"
	a4, b4, c4 = "8.0.0.1", "8.0.0.2", "8.0.0.3"
)

func TestHappyEyeballs(t *testing.T) {
	refused, unreachable := syscall.ECONNREFUSED, syscall.ENETUNREACH
	fast := behaviour{after: 10 * time.Millisecond}
	fails := func(after time.Duration, err error) behaviour { return behaviour{after, err} }
	tests := []struct {
		name   string
		pinned string
		script script
		want   string // the address that wins; "" is an error
		took   time.Duration
		log    []string
		reason Reason
		at     string // Error.Address; "" is any
		says   []string
	}{
		{
			name: "one address, no race", pinned: a4, script: script{a4: fast},
			want: a4, took: 10 * time.Millisecond, log: []string{"0s " + a4},
		},
		{
			name: "the first one wins", pinned: a4 + " " + a6, script: script{a6: fast, a4: fast},
			want: a6, took: 10 * time.Millisecond, log: []string{"0s " + a6},
		},
		{
			name: "the next one after 250ms", pinned: a6 + " " + a4, script: script{a6: hangs, a4: fast},
			want: a4, took: 260 * time.Millisecond, log: []string{"0s " + a6, "250ms " + a4},
		},
		{
			name: "the first one after all", pinned: a6 + " " + a4, script: script{a6: {after: 300 * time.Millisecond}, a4: {after: 100 * time.Millisecond}},
			want: a6, took: 300 * time.Millisecond, log: []string{"0s " + a6, "250ms " + a4},
		},
		{
			name: "the next one at once after a failure", pinned: a6 + " " + a4, script: script{a6: fails(0, unreachable), a4: fast},
			want: a4, took: 10 * time.Millisecond, log: []string{"0s " + a6, "0s " + a4},
		},
		{
			name: "a failure starts the delay anew", pinned: a6 + " " + b6 + " " + c6,
			script: script{a6: fails(200*time.Millisecond, refused), b6: hangs, c6: fast},
			want:   c6, took: 460 * time.Millisecond, log: []string{"0s " + a6, "200ms " + b6, "450ms " + c6},
		},
		{
			name: "families take turns", pinned: strings.Join([]string{a4, b4, c4, a6, b6}, " "),
			script: script{a4: hangs, b4: hangs, c4: fast, a6: hangs, b6: hangs},
			want:   c4, took: 1010 * time.Millisecond,
			log: []string{"0s " + a6, "250ms " + a4, "500ms " + b6, "750ms " + b4, "1s " + c4},
		},
		{
			name: "a late failure of an early one", pinned: a6 + " " + b6 + " " + c6,
			script: script{a6: fails(300*time.Millisecond, refused), b6: hangs, c6: fast},
			want:   c6, took: 310 * time.Millisecond, log: []string{"0s " + a6, "250ms " + b6, "300ms " + c6},
		},
		{
			name: "all hang", pinned: a6 + " " + a4, script: script{a6: hangs, a4: hangs},
			took: 10 * time.Second, log: []string{"0s " + a6, "250ms " + a4}, reason: ConnectionTimeout, // at either
		},
		{
			name: "one hangs", pinned: a4, script: script{a4: hangs},
			took: 10 * time.Second, log: []string{"0s " + a4}, reason: ConnectionTimeout, at: a4, says: []string{"cannot connect to a.example:443 at 8.0.0.1:443: context deadline exceeded"},
		},
		{
			name: "a refusal says more than no route", pinned: a6 + " " + a4,
			script: script{a6: fails(0, unreachable), a4: fails(10*time.Millisecond, refused)},
			took:   10 * time.Millisecond, log: []string{"0s " + a6, "0s " + a4}, reason: ConnectionRefused, at: a4,
			says: []string{"cannot connect to a.example:443 at 8.0.0.1:443: connection refused; [2600::a]:443: network is unreachable"},
		},
		{
			name: "and more than silence", pinned: a6 + " " + a4, script: script{a6: hangs, a4: fails(0, refused)},
			took: 10 * time.Second, log: []string{"0s " + a6, "250ms " + a4}, reason: ConnectionRefused, at: a4,
		},
		{
			name: "silence says more than no route", pinned: a6 + " " + a4, script: script{a6: fails(0, unreachable), a4: hangs},
			took: 10 * time.Second, log: []string{"0s " + a6, "0s " + a4}, reason: ConnectionTimeout, at: a4,
		},
		{
			name: "no descriptors left: no further attempt", pinned: a6 + " " + a4, script: script{a6: fails(0, syscall.EMFILE), a4: fast},
			log: []string{"0s " + a6}, reason: LimitReached, at: a6, says: []string{"too many open files"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := New(Options{})
				f := newFakeNet(tt.script)
				d.dial = f.dial
				c, err := d.Dial(t.Context(), permitFor(t, d, tt.pinned))
				if took := time.Since(f.start); took != tt.took {
					t.Errorf("Dial took %v, want %v", took, tt.took)
				}
				synctest.Wait() // the losers have closed what they had
				if !slices.Equal(f.log, tt.log) {
					t.Errorf("the attempts were %q, want %q", f.log, tt.log)
				}
				if tt.want == "" {
					checkDialError(t, c, err, f, tt.reason, tt.at, tt.says)
					return
				}
				if err != nil {
					t.Fatalf("Dial: %v", err)
				}
				if got := c.(*fakeConn).to.Addr().String(); got != tt.want {
					t.Errorf("Dial connected to %v, want %v", got, tt.want)
				}
				if n := f.open.Load(); n != 1 {
					t.Errorf("%d connections are open, want 1", n)
				}
			})
		})
	}
}

func checkDialError(t *testing.T, c net.Conn, err error, f *fakeNet, reason Reason, at string, says []string) {
	t.Helper()
	var e *Error
	if c != nil || !errors.As(err, &e) {
		t.Fatalf("Dial = %v, %v, want an *Error and no connection", c, err)
	}
	if e.Reason != reason || at != "" && e.Address.Addr().String() != at || e.Target.Host() != "a.example" {
		t.Errorf("Dial fails with %s for %v at %v, want %s at %v", e.Reason, e.Target, e.Address, reason, at)
	}
	if errors.Is(err, ErrDenied) || errors.Is(err, ErrChallenge) {
		t.Errorf("%v is a refusal by the policy", err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("the error says %q, want it to say %q", err, s)
		}
	}
	if n := f.open.Load(); n != 0 {
		t.Errorf("%d connections are open, want none", n)
	}
}

// Two connections that stand in the same instant: one is used, one is closed.
func TestHappyEyeballsTie(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			d := New(Options{})
			f := newFakeNet(script{a6: {after: 500 * time.Millisecond}, a4: {after: 250 * time.Millisecond}})
			d.dial = f.dial
			c, err := d.Dial(t.Context(), permitFor(t, d, a6+" "+a4))
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := f.open.Load(); n != 1 {
				t.Errorf("%d connections are open, want 1", n)
			}
			c.Close()
			if n := f.open.Load(); n != 0 {
				t.Errorf("%d connections are open after Close, want 0", n)
			}
		})
	}
}

func TestHappyEyeballsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{ConnectTimeout: -1})
		f := newFakeNet(script{a6: hangs, a4: hangs, b6: hangs, b4: hangs})
		d.dial = f.dial
		p := permitFor(t, d, a6+" "+a4+" "+b6+" "+b4)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := d.Dial(ctx, p)
		if took := time.Since(f.start); took != 300*time.Millisecond || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial = %v after %v, want the context's error after 300ms", err, took)
		}
		if want := []string{"0s " + a6, "250ms " + a4}; !slices.Equal(f.log, want) {
			t.Errorf("the attempts were %q, want %q", f.log, want)
		}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		_, err = d.Dial(ctx, p)
		var e *Error
		if !errors.As(err, &e) || e.Reason != ConnectionTerminated || !errors.Is(err, context.Canceled) {
			t.Errorf("Dial after cancel = %v, want %s", err, ConnectionTerminated)
		}
	})
}

func TestConnectTimeout(t *testing.T) {
	tests := []struct {
		name    string
		timeout time.Duration
		context time.Duration
		want    time.Duration
	}{
		{"default", 0, time.Hour, 10 * time.Second},
		{"its own", 3 * time.Second, time.Hour, 3 * time.Second},
		{"the context's is nearer", 3 * time.Second, time.Second, time.Second},
		{"none of its own", -1, time.Minute, time.Minute},
	}
	for _, pinned := range []string{a4, a6 + " " + a4} {
		for _, tt := range tests {
			t.Run(tt.name+" to "+pinned, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := New(Options{ConnectTimeout: tt.timeout})
					f := newFakeNet(script{a6: hangs, a4: hangs})
					d.dial = f.dial
					ctx, cancel := context.WithTimeout(t.Context(), tt.context)
					defer cancel()
					_, err := d.Dial(ctx, permitFor(t, d, pinned))
					var e *Error
					if took := time.Since(f.start); took != tt.want || !errors.As(err, &e) || e.Reason != ConnectionTimeout {
						t.Errorf("Dial = %v after %v, want %s after %v", err, took, ConnectionTimeout, tt.want)
					}
				})
			})
		}
	}
}

// A name that changes its mind gains nothing: what was checked is dialled.
func TestRebinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeResolver{answers: map[string][][]netip.Addr{
			"rebind.example": {addrs("8.8.8.8", "192.168.0.1"), addrs("127.0.0.1"), addrs("169.254.169.254")},
		}}
		d := New(Options{Policy: policy(t, false, allowAll), Resolver: f})
		n := newFakeNet(script{"8.8.8.8": {}})
		d.dial = n.dial
		p, err := d.Authorize(t.Context(), to(t, "rebind.example:80"))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c, err := d.Dial(t.Context(), p)
			if err != nil {
				t.Fatalf("Dial: %v", err)
			}
			if got := c.(*fakeConn).to.String(); got != "8.8.8.8:80" {
				t.Errorf("Dial connected to %v, want 8.8.8.8:80", got)
			}
		}
		if len(f.asked) != 1 {
			t.Errorf("the name was resolved %d times, want once", len(f.asked))
		}
		if _, err := d.Authorize(t.Context(), to(t, "rebind.example:80")); !errors.Is(err, ErrDenied) {
			t.Errorf("the second Authorize = %v, want ErrDenied", err)
		}
		if n.dials != 3 {
			t.Errorf("%d connections were tried, want 3", n.dials)
		}
	})
}

func TestInterleave(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"none", "", ""},
		{"one", a4, a4},
		{"IPv4 only", a4 + " " + b4, a4 + " " + b4},
		{"IPv6 only", a6 + " " + b6, a6 + " " + b6},
		{"turns", strings.Join([]string{a4, b4, a6, b6}, " "), strings.Join([]string{a6, a4, b6, b4}, " ")},
		{"more of IPv4", strings.Join([]string{a4, b4, c4, a6}, " "), strings.Join([]string{a6, a4, b4, c4}, " ")},
		{"more of IPv6", strings.Join([]string{a4, a6, b6, c6}, " "), strings.Join([]string{a6, a4, b6, c6}, " ")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := addrs(strings.Fields(tt.in)...)
			interleave(got, true)
			if !slices.Equal(got, addrs(strings.Fields(tt.want)...)) {
				t.Errorf("interleave(%v) = %v, want %v", tt.in, got, tt.want)
			}
		})
	}
}

// FuzzInterleave: it is a permutation that keeps the order within a family, and
// puts IPv6 first.
func FuzzInterleave(f *testing.F) {
	f.Add([]byte{4, 6, 4, 6, 4})
	f.Add([]byte{6, 6, 6})
	f.Fuzz(func(t *testing.T, families []byte) {
		if len(families) > 255 {
			families = families[:255]
		}
		var in, want4, want6 []netip.Addr
		for i, v := range families {
			if v%2 == 0 {
				a := netip.AddrFrom4([4]byte{8, 0, 0, byte(i)})
				in, want4 = append(in, a), append(want4, a)
			} else {
				a := netip.AddrFrom16([16]byte{0: 0x20, 15: byte(i)})
				in, want6 = append(in, a), append(want6, a)
			}
		}
		interleave(in, true)
		var got4, got6 []netip.Addr
		for i, a := range in {
			if a.Is4() {
				got4 = append(got4, a)
				if i == 0 && len(want6) > 0 {
					t.Error("IPv4 stands in front of IPv6")
				}
			} else {
				got6 = append(got6, a)
			}
		}
		if !slices.Equal(got4, want4) || !slices.Equal(got6, want6) {
			t.Errorf("interleave of %v = %v", families, in)
		}
	})
}
