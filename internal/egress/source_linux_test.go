package egress

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"polyport/acl"
	"polyport/internal/exit"
	"polyport/internal/pool"
	"polyport/internal/reactor"
	"polyport/internal/upstream"
)

// sourceOf makes a Source.
func sourceOf(local string, change func(*exit.Source)) *exit.Source {
	s := &exit.Source{}
	for _, p := range strings.Fields(local) {
		s.Addresses = append(s.Addresses, netip.MustParsePrefix(p))
	}
	if change != nil {
		change(s)
	}
	return s
}

// onALoop runs f in a task of a loop, and waits for it.
func onALoop(t *testing.T, f func(l *reactor.Loop)) {
	t.Helper()
	loops, err := reactor.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer loops.Close()
	l, done := loops.Next(), make(chan struct{})
	l.Post(func() {
		l.Go(func() {
			defer close(done)
			f(l)
		})
	})
	<-done
}

// optionsOf reads the device and the mark of a connection's socket back.
func optionsOf(t *testing.T, c net.Conn) (device string, mark int) {
	t.Helper()
	read := func(fd int) {
		var err1, err2 error
		device, err1 = unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
		mark, err2 = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK)
		if err := errors.Join(err1, err2); err != nil {
			t.Error(err)
		}
	}
	if on, ok := c.(*reactor.Conn); ok {
		read(on.FD())
		return device, mark
	}
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { read(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	return device, mark
}

func TestSources(t *testing.T) {
	// Without the capability this fails, and says which one it takes: CAP_NET_ADMIN, which root in a container may lack.
	marked := func(s *exit.Source) { s.Mark = 7 }
	onLo := func(s *exit.Source) { s.Interface = "lo" }
	tests := []struct {
		name   string
		source *exit.Source
		target string // of the loopback
		from   string // a prefix that it has to come from
		device string
		mark   int
		reason Reason
		says   string
	}{
		{name: "an address", source: sourceOf("127.3.2.1/32", nil), target: "127.0.0.1", from: "127.3.2.1/32"},
		{name: "a prefix", source: sourceOf("127.7.0.0/16", nil), target: "127.0.0.1", from: "127.7.0.0/16"},
		{name: "the target's family", source: sourceOf("127.3.2.1/32 ::1/128", nil), target: "::1", from: "::1/128"},
		{name: "an interface", source: sourceOf("", onLo), target: "127.0.0.1", from: "127.0.0.0/8", device: "lo"},
		{name: "a mark", source: sourceOf("", marked), target: "127.0.0.1", from: "127.0.0.0/8", mark: 7},
		{name: "all", source: sourceOf("127.3.2.1/32", func(s *exit.Source) { marked(s); onLo(s) }), target: "127.0.0.1", from: "127.3.2.1/32", device: "lo", mark: 7},
		{
			name: "an address that is not ours", source: sourceOf("192.0.2.77/32", nil), target: "127.0.0.1",
			reason: ConfigurationError, says: "exit x, local_address 192.0.2.77: bind: cannot assign requested address; this machine does not have that address",
		},
		{
			name: "an interface that there is not", source: sourceOf("", func(s *exit.Source) { s.Interface = "gone0" }), target: "127.0.0.1",
			reason: ConfigurationError, says: `exit x, interface "gone0": setsockopt: no such device; there is no such interface`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := proxyAt(t, net.JoinHostPort(tt.target, "0"), silent)
			d := New(Options{
				Policy: policy(t, false, with(loopback, func(r *acl.Rule) { r.Exit = []string{"x"} })),
				Ways:   Ways{Exits: map[string]*Exit{"x": {Source: tt.source}}},
			})
			p, err := d.Authorize(t.Context(), to(t, server.at.String()))
			if err != nil {
				t.Fatal(err)
			}
			check := func(link Link, err error) {
				if tt.reason != "" {
					if err == nil || reasonOf(t, err) != tt.reason || !strings.Contains(err.Error(), tt.says) {
						t.Errorf("Open = %v, want %s that says %q", err, tt.reason, tt.says)
					}
					return
				}
				if err != nil {
					t.Errorf("Open = %v", err)
					return
				}
				defer link.Conn.Close()
				defer link.Release()
				from := link.Conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
				if !netip.MustParsePrefix(tt.from).Contains(from) || link.Exit != "x" {
					t.Errorf("it leaves from %v by exit %q, want %s and x", from, link.Exit, tt.from)
				}
				if device, mark := optionsOf(t, link.Conn); strings.TrimRight(device, "\x00") != tt.device || mark != tt.mark {
					t.Errorf("its device is %q and its mark %d, want %q and %d", device, mark, tt.device, tt.mark)
				}
			}
			check(d.Open(t.Context(), p, OpenOptions{}))
			onALoop(t, func(l *reactor.Loop) { check(d.Open(t.Context(), p, OpenOptions{Loop: l})) })
		})
	}
}

// A socket that cannot be made to leave as it must is closed, in a race too.
func TestSourcesLeaveNoDescriptor(t *testing.T) {
	d := New(Options{
		Policy:   policy(t, false, leaves("r", "", "x"), loopback),
		Resolver: names(map[string]string{"a.example": "8.8.8.8 8.8.4.4 2600::1"}),
		Ways:     Ways{Exits: map[string]*Exit{"x": {Source: sourceOf("192.0.2.77/32 2001:db8::77/128", nil)}}},
	})
	p, err := d.Authorize(t.Context(), to(t, "a.example:80"))
	if err != nil {
		t.Fatal(err)
	}
	fails := func(o OpenOptions) {
		if _, err := d.Open(t.Context(), p, o); err == nil || reasonOf(t, err) != ConfigurationError {
			t.Errorf("Open = %v, want %s", err, ConfigurationError)
		}
	}
	fails(OpenOptions{})
	onALoop(t, func(l *reactor.Loop) {
		fails(OpenOptions{Loop: l})
		lowest := lowestDescriptor(t)
		for range 20 {
			fails(OpenOptions{})
			fails(OpenOptions{Loop: l})
		}
		if now := lowestDescriptor(t); now != lowest {
			t.Errorf("the next descriptor is %d, was %d", now, lowest)
		}
	})
}

// lowestDescriptor is the number that the next descriptor gets.
func lowestDescriptor(t *testing.T) int {
	t.Helper()
	fd, err := syscall.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(fd)
	return fd
}

// An exit's address is for the proxies of its upstream, the nearest of a chain; what it cannot do is no fault of theirs.
func TestSourcesToProxies(t *testing.T) {
	echo := echoAt(t, "127.0.0.1:0")
	near, far := proxyAt(t, "127.0.0.1:0", socks5("")), proxyAt(t, "127.0.0.1:0", socks5(""))
	eject := pool.Eject{Failures: 1}
	u1 := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "near", Eject: eject}}, "socks5://"+near.at.String())
	u2 := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "far", Eject: eject}, Via: u1}, "socks5://"+far.at.String())
	ways := Ways{Exits: map[string]*Exit{
		"x": {Upstream: u2, Source: sourceOf("127.3.2.1/32", nil)}, "bad": {Upstream: u2, Source: sourceOf("192.0.2.77/32", nil)},
		"v6": {Upstream: u2, Source: sourceOf("::1/128", nil)},
	}}
	open := func(name string) (Link, error) {
		d := New(Options{Policy: policy(t, false, with(loopback, func(r *acl.Rule) { r.Exit = []string{name} })), Ways: ways})
		return openTo(t, d, echo.String(), OpenOptions{})
	}
	link, err := open("x")
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, link.Conn)
	link.Conn.Close()
	link.Release()
	if !slices.Equal(near.from, addrs("127.3.2.1")) || !slices.Equal(far.from, addrs("127.0.0.1")) {
		t.Errorf("the proxies were reached from %v and %v, want 127.3.2.1 and 127.0.0.1", near.from, far.from)
	}
	for name, want := range map[string]Reason{"bad": ConfigurationError, "v6": DestinationUnroutable} {
		if _, err := open(name); err == nil || reasonOf(t, err) != want {
			t.Errorf("Open by exit %s = %v, want %s", name, err, want)
		}
	}
	for _, u := range []*upstream.Upstream{u1, u2} {
		if got := states(u.Pool()); got[0] != pool.Up {
			t.Errorf("upstream %s is %v, want it up", u.Name(), got)
		}
	}
	checkNoneCounted(t, u1.Pool(), u2.Pool())
}

// A backend is reached from the address of the rule's exit, but never through an upstream.
func TestSourcesToBackends(t *testing.T) {
	server := proxyAt(t, "127.0.0.1:0", silent)
	u := upstreamOf(t, upstream.Options{}, "socks5://192.0.2.1")
	ways := Ways{
		Default: u, Upstreams: map[string]*upstream.Upstream{"eu": u},
		Exits: map[string]*Exit{"x": {Upstream: u, Countries: []string{"de"}, Source: sourceOf("127.3.2.1/32", nil)}},
	}
	for _, tt := range []struct {
		name string
		rule acl.Rule
		from string
		exit string
	}{
		{"the default upstream", leaves("r", ""), "127.0.0.1", ""},
		{"the rule's upstream", leaves("r", "eu"), "127.0.0.1", ""},
		{"an exit", leaves("r", "", "x"), "127.3.2.1", "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := New(Options{Policy: policy(t, false, tt.rule), Ways: ways})
			b := newBackend("b", server.at.String())
			p, err := d.AuthorizeBackend(t.Context(), to(t, "row.example:1"), b)
			if err != nil {
				t.Fatal(err)
			}
			link, err := d.Open(t.Context(), p, OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			link.Conn.Close()
			link.Release()
			from := link.Conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
			if from.String() != tt.from || link.Exit != tt.exit || link.Upstream != "" || link.Server != server.at.String() {
				t.Errorf("it leaves from %v, and the link is %+v, want %s and exit %q", from, link, tt.from, tt.exit)
			}
			checkNoneCounted(t, b.Pool())
		})
	}
}
