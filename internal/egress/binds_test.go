package egress

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

func TestListenIsShortOfPorts(t *testing.T) {
	d, first := binding(t, 1, nil)
	p, err := d.AuthorizeBind(t.Context(), bindTo(t, "127.0.0.1", 0))
	if err != nil {
		t.Fatal(err)
	}
	l := mustListen(t, d, "127.0.0.1")
	_, err = d.Listen(t.Context(), p, home, false)
	var e *Error
	if !errors.As(err, &e) || e.Reason != LimitReached || !errors.Is(err, errNoPort) {
		t.Errorf("a second Listen on one port = %v, want %s", err, LimitReached)
	}
	l.Close()
	l.Close() // a second time does nothing
	again := mustListen(t, d, "127.0.0.1")
	if want := netip.AddrPortFrom(home, first); again.Address() != want {
		t.Errorf("it listens on %v, want %v once more", again.Address(), want)
	}
}

// A port that somebody else has is passed over, and so is one of the gateway's own.
func TestListenPassesOverPorts(t *testing.T) {
	d, first := binding(t, 3, func(o *Options) { // o.Bind.First is the gateway's own
		own := o.Bind.First
		o.Own = func(a netip.AddrPort) bool { return a.Port() == own }
	})
	other, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: home.AsSlice(), Port: int(first) + 1})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 4 {
		l := mustListen(t, d, "127.0.0.1")
		if l.Address().Port() != first+2 {
			t.Errorf("it listens on port %d, want %d", l.Address().Port(), first+2)
		}
		l.Close()
	}
}

// The ports are taken in turn, so that what is late for one BIND does not meet the next.
func TestListenTakesPortsInTurn(t *testing.T) {
	const ports = 4
	d, _ := binding(t, ports, nil)
	seen := map[uint16]bool{}
	for range ports {
		l := mustListen(t, d, "127.0.0.1")
		seen[l.Address().Port()] = true
		l.Close()
	}
	if len(seen) != ports {
		t.Errorf("%d ports of %d were used", len(seen), ports)
	}
}

func TestListenPerClient(t *testing.T) {
	client := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	d, _ := binding(t, 8, func(o *Options) { o.Bind.PerClient = 2 })
	listen := func(c netip.Addr) (*Listening, error) {
		r := bindTo(t, "127.0.0.1", 0)
		r.Client = c
		p, err := d.AuthorizeBind(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return d.Listen(t.Context(), p, home, false)
	}
	tests := []struct {
		name   string
		client string
		ok     bool
	}{
		{"the first", "2001:db8::1", true},
		{"the second, of the same network", "2001:db8::2", true},
		{"the third", "2001:db8::ffff:1", false},
		{"another network's", "2001:db8:0:1::1", true},
		{"IPv4", "192.0.2.1", true},
		{"IPv4, mapped", "::ffff:192.0.2.1", true},
		{"IPv4, the third", "192.0.2.1", false},
		{"its neighbour", "192.0.2.2", true},
	}
	var open []*Listening
	for _, tt := range tests {
		l, err := listen(client(tt.client))
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, errManyBinds) {
			t.Fatalf("%s: Listen = %v, want it to succeed: %v", tt.name, err, tt.ok)
		}
		if l != nil {
			open = append(open, l)
		}
	}
	for _, l := range open {
		l.Close()
	}
	if n := len(d.bind.Binds.waiting) + len(d.bind.Binds.taken); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// What is in use outlives a Dialer: the next one counts it, and takes its own range.
func TestBindsOutliveADialer(t *testing.T) {
	old, first := binding(t, 1, func(o *Options) { o.Bind.PerClient = 1 })
	l := mustListen(t, old, "127.0.0.1")
	second := freePorts(t, 1)
	next := New(Options{Policy: policy(t, false, allowBind), Bind: BindOptions{First: second, Last: second, PerClient: 1, Binds: old.bind.Binds}})
	p, err := next.AuthorizeBind(t.Context(), bindTo(t, "127.0.0.1", 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.Listen(t.Context(), p, home, false); !errors.Is(err, errManyBinds) {
		t.Errorf("Listen = %v, want %v", err, errManyBinds)
	}
	knock(t, home, netip.AddrPortFrom(home, first))
	c, _, err := l.Accept(t.Context()) // the old one goes on under the new configuration
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	again, err := next.Listen(t.Context(), p, home, false)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Address().Port() != second {
		t.Errorf("it listens on port %d, want %d of the new range", again.Address().Port(), second)
	}
}

// The address counts as the gateway's own from before it can be reached until it no longer can.
func TestBindsTellWhatIsOpen(t *testing.T) {
	var events []string
	note := func(what string) func(netip.AddrPort) {
		return func(a netip.AddrPort) { events = append(events, what+" "+a.String()) }
	}
	d, first := binding(t, 1, func(o *Options) { o.Bind.Binds = NewBinds(network, note("open"), note("close")) })
	l := mustListen(t, d, "127.0.0.1")
	at := netip.AddrPortFrom(home, first).String()
	if len(events) != 1 || events[0] != "open "+at {
		t.Errorf("events %q, want one that opens %s", events, at)
	}
	l.Close()
	if len(events) != 2 || events[1] != "close "+at {
		t.Errorf("events %q, want a second one that closes %s", events, at)
	}
}

func TestListenAddress(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	tests := []struct {
		name      string
		host      string
		local     string
		only4     bool
		advertise []netip.Addr
		want      string // the address that is told; "" is a refusal
	}{
		{"as it is", "0.0.0.0", "127.0.0.1", false, nil, "127.0.0.1"},
		{"mapped", "0.0.0.0", "::ffff:127.0.0.1", true, nil, "127.0.0.1"},
		{"advertised", "0.0.0.0", "127.0.0.1", false, []netip.Addr{v6, v4}, "192.0.2.7"},
		{"advertised in the other family alone", "0.0.0.0", "127.0.0.1", false, []netip.Addr{v6}, "127.0.0.1"},
		{"IPv6", "::", "::1", false, []netip.Addr{v4, v6}, "2001:db8::7"},
		{"IPv6 where IPv4 is asked for", "::", "::1", true, nil, ""},
		{"a peer in IPv6 where IPv4 is asked for", "::1", "127.0.0.1", true, nil, ""},
		{"a peer in IPv6", "::1", "127.0.0.1", false, nil, "::1"},
		{"an address of nobody's", "0.0.0.0", "192.0.2.55", false, nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, first := binding(t, 1, func(o *Options) { o.Bind.Advertise = tt.advertise })
			p, err := d.AuthorizeBind(t.Context(), bindTo(t, tt.host, 0))
			if err != nil {
				t.Fatal(err)
			}
			l, err := d.Listen(t.Context(), p, netip.MustParseAddr(tt.local), tt.only4)
			if tt.want == "" {
				var e *Error
				if !errors.As(err, &e) || e.Reason != DestinationUnroutable {
					t.Errorf("Listen = %v, want %s", err, DestinationUnroutable)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if want := netip.AddrPortFrom(netip.MustParseAddr(tt.want), first); l.Address() != want {
				t.Errorf("it tells %v, want %v", l.Address(), want)
			}
		})
	}
}
