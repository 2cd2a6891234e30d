package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"polyport/acl"
	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/socks"
	"polyport/internal/udprelay"
	"polyport/mux"
)

// TestAssociationEnds: with the client's connection, in whatever way it ends, after idle, or when the gateway does; the record tells.
func TestAssociationEnds(t *testing.T) {
	target := datagramEcho(t, "127.0.0.9:0")
	for _, tt := range []struct {
		name   string
		end    func(a *associating, c *net.TCPConn)
		idle   time.Duration
		reason string
		err    error
	}{
		{"the client's end", func(_ *associating, c *net.TCPConn) { _ = c.CloseWrite() }, 0, "", nil},
		{"the client closes", func(_ *associating, c *net.TCPConn) { _ = c.Close() }, 0, "", nil},
		{"after much that means nothing", func(a *associating, c *net.TCPConn) {
			if _, err := c.Write(make([]byte, 5<<20)); err != nil {
				a.t.Error(err)
			}
			_ = c.Close()
		}, 0, "", nil},
		{"a reset", func(_ *associating, c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() }, 0, "reset", syscall.ECONNRESET},
		{"idle", func(*associating, *net.TCPConn) {}, 150 * time.Millisecond, "idle_timeout", nil},
		{"killed", func(a *associating, _ *net.TCPConn) {
			now, cancel := context.WithCancel(context.Background())
			cancel()
			if killed := a.Drain(now); killed != 1 {
				a.t.Errorf("%d sessions were ended, want 1", killed)
			}
		}, 0, string(mux.ShuttingDown), net.ErrClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachServing(t, func(t *testing.T, onLoop bool) {
				a := newAssociating(t, setup{onLoop: onLoop, udp: udprelay.Options{Idle: tt.idle}})
				before := goleak.IgnoreCurrent()
				c, bound := a.associate("alice@0.0.0.0:0")
				if bound.Port() != uint16(a.addr.Port) || bound.Addr().String() != "127.0.0.1" {
					t.Errorf("the client is told %v, want the listener's address %v", bound, a.addr)
				}
				u := socketAt(t, "127.0.0.1:0")
				throughRelay(t, u, bound, target, "twelve bytes")
				for _, no := range [][]byte{
					socks.AppendHeader(nil, netip.MustParseAddrPort("127.0.0.1:23")), // a rule
					append([]byte{0, 0, 1}, socks.AppendHeader(nil, target)[3:]...),
					{0, 0, 0},
				} {
					if _, err := u.WriteToUDPAddrPort(no, bound); err != nil {
						t.Fatal(err)
					}
				}
				throughRelay(t, u, bound, target, "and one more")
				tt.end(a, c)
				r := a.record()
				want := Datagrams{FromClient: 2, FromTarget: 2, Denied: 1, Fragmented: 1, Dropped: 1, Targets: 1}
				if r.Datagrams == nil || *r.Datagrams != want || r.BytesFromClient != 24 || r.BytesFromTarget != 24 {
					t.Errorf("record = %+v with %+v, want %+v and 24 bytes each way", r, r.Datagrams, want)
				}
				if r.Target != target.String() || r.Address != target || r.Rule != "loopback" || r.Identity != "alice" || r.Method != "UDP" {
					t.Errorf("record = %+v", r)
				}
				if r.Reason != tt.reason || (r.Err == nil) != (tt.err == nil) || tt.err != nil && !errors.Is(r.Err, tt.err) || r.Setup <= 0 || r.Duration < r.Setup {
					t.Errorf("record = %+v, want reason %q and error %v", r, tt.reason, tt.err)
				}
				_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
				if _, err := io.ReadAll(c); errors.Is(err, syscall.ETIMEDOUT) {
					t.Errorf("the client's connection is open: %v", err)
				}
				if !onLoop { // a loop keeps its tasks for the next ones
					goleak.VerifyNone(t, before)
				}
				if len(a.records.ended) != 0 {
					t.Error("the session has ended more than once")
				}
				strangers := a.relay.Strangers()
				if _, err := u.WriteToUDPAddrPort(socks.AppendHeader(nil, target), bound); err != nil {
					t.Fatal(err)
				}
				for limit := time.Now().Add(30 * time.Second); a.relay.Strangers() == strangers; time.Sleep(time.Millisecond) {
					if time.Now().After(limit) {
						t.Fatal("the client's datagrams still belong to an association")
					}
				}
			})
		})
	}
}

// TestAssociationThatReachesNobody: the record tells of the first target, and why.
func TestAssociationThatReachesNobody(t *testing.T) {
	eachServing(t, func(t *testing.T, onLoop bool) {
		names := held{make(chan struct{}, 1), make(chan struct{}), netip.Addr{}}
		a := newAssociating(t, setup{onLoop: onLoop, change: func(rt *Runtime) {
			rt.Egress = egress.New(egress.Options{Policy: rt.Policy, Resolver: names})
		}})
		c, bound := a.associate("0.0.0.0:0")
		u := socketAt(t, "127.0.0.1:0")
		for _, no := range []string{
			string(socks.AppendHeader(nil, netip.MustParseAddrPort("127.0.0.1:23"))),
			string(socks.AppendHeader(nil, netip.MustParseAddrPort("192.0.2.1:80"))),
			"\x00\x00\x00\x03\x06a.test\x00\x35",
		} {
			if _, err := u.WriteToUDPAddrPort([]byte(no), bound); err != nil {
				t.Fatal(err)
			}
		}
		<-names.asked // for the last one: those before it are denied
		defer close(names.release)
		_ = c.Close()
		r := a.record()
		if r.Datagrams == nil || *r.Datagrams != (Datagrams{Denied: 2, Dropped: 1}) || !errors.Is(r.Err, egress.ErrDenied) {
			t.Errorf("record = %+v with %+v, want 2 denied, one that waited, and %v", r, r.Datagrams, egress.ErrDenied)
		}
		if r.Target != "127.0.0.1:23" || r.Address.IsValid() || r.Rule != "no telnet" || r.Reason != acl.ReasonRule {
			t.Errorf("record = %+v, want the first target and its reason", r)
		}
	})
}

// TestAssociationThroughNoUpstream: the record names the upstream that carries no datagrams.
func TestAssociationThroughNoUpstream(t *testing.T) {
	eachServing(t, func(t *testing.T, onLoop bool) {
		names := held{make(chan struct{}, 1), make(chan struct{}), netip.Addr{}}
		a := newAssociating(t, setup{onLoop: onLoop, change: func(rt *Runtime) {
			rt.Egress = egress.New(egress.Options{Policy: rt.Policy, Resolver: names, Ways: waysThrough(t, "http://127.0.0.1:9")})
		}})
		c, bound := a.associate("0.0.0.0:0")
		u, target := socketAt(t, "127.0.0.1:0"), socketAt(t, "127.0.0.1:0")
		for _, no := range []string{string(socks.AppendHeader(nil, addrOf(target))) + "x", "\x00\x00\x00\x03\x06a.test\x00\x35"} {
			if _, err := u.WriteToUDPAddrPort([]byte(no), bound); err != nil {
				t.Fatal(err)
			}
		}
		<-names.asked // for the last one: the one before it is denied
		defer close(names.release)
		_ = c.Close()
		r := a.record()
		if r.Datagrams == nil || *r.Datagrams != (Datagrams{Denied: 1, Dropped: 1}) || !errors.Is(r.Err, egress.ErrNoUDP) {
			t.Errorf("record = %+v with %+v, want one denied, one that waited, and %v", r, r.Datagrams, egress.ErrNoUDP)
		}
		if r.Target != addrOf(target).String() || r.Upstream != "eu" || r.Server != "" || r.Reason != string(egress.ConfigurationError) {
			t.Errorf("record = %+v, want the target, the upstream eu and %s", r, egress.ConfigurationError)
		}
	})
}

// TestAssociationInsideTLS: it has nothing to do with how the session came, but for who the certificate says it is.
func TestAssociationInsideTLS(t *testing.T) {
	target := datagramEcho(t, "127.0.0.9:0")
	a := newAssociating(t, setup{handler: securing(auth.Identity{Name: "carol"}, "inner"), change: func(rt *Runtime) {
		rt.Handlers["inner"] = associateFrom
	}})
	raw, err := net.DialTCP("tcp", nil, a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(30 * time.Second))
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	if _, err := io.WriteString(c, "0.0.0.0:0\n"); err != nil {
		t.Fatal(err)
	}
	got, err := line(c)
	if err != nil {
		t.Fatal(err)
	}
	throughRelay(t, socketAt(t, "127.0.0.1:0"), netip.MustParseAddrPort(got), target, "hello")
	_ = c.Close()
	if r := a.record(); r.Datagrams == nil || r.Datagrams.FromTarget != 1 || r.Identity != "carol" || r.TLS == "" || r.Reason != "" || r.Err != nil {
		t.Errorf("record = %+v", r)
	}
}

// TestAssociateRefused: where there is no UDP, where the rules admit no datagram, and beyond a limit.
func TestAssociateRefused(t *testing.T) {
	onlyTCP := func(rt *Runtime) {
		policy, err := acl.New(acl.Options{Rules: []acl.Rule{
			{Name: "tcp", Action: acl.Allow, Method: []string{"CONNECT"}, Target: []string{"127.0.0.0/8"}}, {Name: "nothing else", Action: acl.Deny},
		}})
		if err != nil {
			panic(err)
		}
		rt.Policy, rt.Egress = policy, egress.New(egress.Options{Policy: policy})
	}
	for _, tt := range []struct {
		name         string
		setup        setup
		say          string
		want         error
		rule, reason string
	}{
		{"no UDP", setup{noUDP: true}, "0.0.0.0:0", udprelay.ErrUnsupported, "", ""},
		{"the rules", setup{change: onlyTCP}, "0.0.0.0:0", egress.ErrDenied, "nothing else", acl.ReasonRule},
		{"too many", setup{udp: udprelay.Options{Associations: 1}}, "0.0.0.0:0", udprelay.ErrTooMany, "", string(egress.LimitReached)},
		{"too many of the client", setup{udp: udprelay.Options{PerClient: 1}}, "0.0.0.0:0", udprelay.ErrTooManyOfOne, "", string(egress.LimitReached)},
		{"another user", setup{}, "alice@0.0.0.0:0", udprelay.ErrAmbiguous, "", string(egress.LimitReached)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			eachServing(t, func(t *testing.T, onLoop bool) {
				tt.setup.onLoop = onLoop
				a := newAssociating(t, tt.setup)
				if tt.reason == string(egress.LimitReached) {
					a.associate("0.0.0.0:0")
				}
				_, got := a.ask(tt.say)
				if want := "no: "; !strings.HasPrefix(got, want) {
					t.Errorf("the answer is %q, want a refusal", got)
				}
				r := a.record()
				if !errors.Is(r.Err, tt.want) || r.Reason != tt.reason || r.Rule != tt.rule || r.Datagrams != nil {
					t.Errorf("record = %+v, want %v, reason %q, rule %q", r, tt.want, tt.reason, tt.rule)
				}
			})
		})
	}
}

// TestFailedHandlerClosesItsAssociation: a reply that cannot be written, and a panic.
func TestFailedHandlerClosesItsAssociation(t *testing.T) {
	for name, end := range map[string]func() error{"an error": func() error { return errNothing }, "a panic": func() error { panic("boom") }} {
		t.Run(name, func(t *testing.T) {
			eachServing(t, func(t *testing.T, onLoop bool) {
				inside := make(chan int, 1)
				a := newAssociating(t, setup{onLoop: onLoop, udp: udprelay.Options{Idle: time.Nanosecond}, handler: handlerFunc(func(_ context.Context, s *Session) error {
					if _, err := line(s.Conn()); err != nil {
						return err
					}
					if _, err := s.Associate(netip.AddrPort{}); err != nil {
						return err
					}
					inside <- s.manager.udp.Count()
					_, _ = io.WriteString(s.Conn(), "x\n")
					return end()
				})})
				a.ask("")
				r := a.record()
				if during := <-inside; r.Err == nil || r.Datagrams != nil || during != 1 || a.relay.Count() != 0 {
					t.Errorf("record = %+v; %d associations, %d afterwards", r, during, a.relay.Count())
				}
			})
		})
	}
}

// TestIdleDoesNotEndWhatHasNotBegun: the handler has the session to itself until it has answered.
func TestIdleDoesNotEndWhatHasNotBegun(t *testing.T) {
	answered := make(chan struct{})
	a := newAssociating(t, setup{udp: udprelay.Options{Idle: time.Nanosecond}, handler: handlerFunc(func(_ context.Context, s *Session) error {
		if _, err := line(s.Conn()); err != nil {
			return err
		}
		_, err := s.Associate(netip.AddrPort{})
		_, _ = io.WriteString(s.Conn(), "x\n")
		<-answered
		s.SetStatus(7)
		return err
	})})
	a.ask("")
	if a.relay.Count() != 1 {
		t.Error("the association has ended under the handler's hands")
	}
	close(answered)
	if r := a.record(); r.Reason != "idle_timeout" || r.Status != 7 || r.Datagrams == nil {
		t.Errorf("record = %+v, want idle_timeout and the status", r)
	}
}

// TestClaimedAddress: DST.PORT is believed with the client's own address, or none.
func TestClaimedAddress(t *testing.T) {
	target := datagramEcho(t, "127.0.0.9:0")
	u, beside := socketAt(t, "127.0.0.1:0"), socketAt(t, "127.0.0.1:0")
	for _, tt := range []struct {
		say      string
		believed bool
	}{
		{"0.0.0.0:%d", true},
		{"[::]:%d", true},
		{"127.0.0.1:%d", true},
		{"[::ffff:127.0.0.1]:%d", true},
		{"127.0.0.2:%d", false},
		{"192.168.1.7:%d", false},
		{"[::1]:%d", false},
		{"0.0.0.0:0", false},
		{"127.0.0.1:0", false},
		{"name", false},
	} {
		t.Run(tt.say, func(t *testing.T) {
			a := newAssociating(t, setup{onLoop: true})
			say := tt.say
			if strings.Contains(say, "%d") {
				say = fmt.Sprintf(say, addrOf(u).Port())
			}
			_, bound := a.associate(say)
			if !tt.believed {
				throughRelay(t, beside, bound, target, "whoever is first")
				return
			}
			if _, err := beside.WriteToUDPAddrPort(append(socks.AppendHeader(nil, target), "no"...), bound); err != nil {
				t.Fatal(err)
			}
			for limit := time.Now().Add(30 * time.Second); a.relay.Strangers() == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(limit) {
					t.Fatal("another port's datagram was taken")
				}
			}
			throughRelay(t, u, bound, target, "yes")
		})
	}
}

// TestAdvertised: what the client is told, by its family. A port of the association's own keeps its number.
func TestAdvertised(t *testing.T) {
	at := netip.MustParseAddrPort
	for _, tt := range []struct {
		name      string
		listener  string
		advertise []netip.AddrPort
		own       bool
		want      string // "PORT" is the one that it is
	}{
		{"nothing", "127.0.0.1", nil, false, "127.0.0.1:PORT"},
		{"nothing, IPv6", "::1", nil, false, "[::1]:PORT"},
		{"an address", "127.0.0.1", []netip.AddrPort{at("203.0.113.7:0")}, false, "203.0.113.7:PORT"},
		{"an address and a port", "127.0.0.1", []netip.AddrPort{at("203.0.113.7:1080")}, false, "203.0.113.7:1080"},
		{"both families", "127.0.0.1", []netip.AddrPort{at("[2001:db8::7]:1080"), at("203.0.113.7:1080")}, false, "203.0.113.7:1080"},
		{"both families, IPv6", "::1", []netip.AddrPort{at("203.0.113.7:1080"), at("[2001:db8::7]:1080")}, false, "[2001:db8::7]:1080"},
		{"two of one family", "127.0.0.1", []netip.AddrPort{at("203.0.113.7:1080"), at("203.0.113.8:1081")}, false, "203.0.113.7:1080"},
		{"the other family alone", "127.0.0.1", []netip.AddrPort{at("[2001:db8::7]:1080"), at("[2001:db8::8]:1081")}, false, "[2001:db8::7]:1080"},
		{"its own port", "127.0.0.1", nil, true, "127.0.0.1:PORT"},
		{"its own port, advertised", "127.0.0.1", []netip.AddrPort{at("203.0.113.7:1080")}, true, "203.0.113.7:PORT"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			with := setup{address: tt.listener, onLoop: true, change: func(rt *Runtime) {
				l := rt.Listeners["main"]
				l.UDPAddress = tt.advertise
				rt.Listeners["main"] = l
				policy, err := acl.New(acl.Options{Rules: []acl.Rule{{Name: "all", Action: acl.Allow}}})
				if err != nil {
					t.Fatal(err)
				}
				rt.Policy, rt.Egress = policy, egress.New(egress.Options{Policy: policy})
			}}
			if tt.own {
				u := socketAt(t, "127.0.0.1:0")
				with.udp.FirstPort = addrOf(u).Port()
				with.udp.LastPort = with.udp.FirstPort
				u.Close()
			}
			a := newAssociating(t, with)
			port := uint16(a.addr.Port)
			if tt.own {
				port = with.udp.FirstPort
			}
			if _, got := a.ask("0.0.0.0:0"); got != strings.Replace(tt.want, "PORT", fmt.Sprint(port), 1) {
				t.Errorf("the client is told %s, want %s with %d", got, tt.want, port)
			}
		})
	}
}
