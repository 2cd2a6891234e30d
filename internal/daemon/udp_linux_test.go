package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"polyport/internal/socks"
	"polyport/internal/udprelay"
)

// toTarget is a rule that admits the target of these tests.
const toTarget = "[[rule]]\nname = \"target\"\naction = \"allow\"\ntarget = [\"127.0.0.9/32\"]\n"

// datagramEcho echoes every datagram on 127.0.0.9.
func datagramEcho(t *testing.T) netip.AddrPort {
	t.Helper()
	c := datagrams(t, "127.0.0.9:0")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for b := make([]byte, 2048); ; {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-ended })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// datagrams is a UDP socket.
func datagrams(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// associate asks a listener for an association, from DST.ADDR 0.0.0.0 and DST.PORT 0.
func (s *served) associate(listener string) (c net.Conn, code socks.Code5, bound netip.AddrPort) {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address(listener))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 2)); err != nil { // the method
		s.t.Fatal(err)
	}
	reply, bound := s.socksReply(c)
	return c, socks.Code5(reply), bound
}

// associated is associate for who gets an association, with a socket that has used it.
func (s *served) associated(listener string, target netip.AddrPort) (c net.Conn, u *net.UDPConn, bound netip.AddrPort) {
	s.t.Helper()
	c, code, bound := s.associate(listener)
	if code != socks.Succeeded {
		s.t.Fatalf("the reply is %v, want success", code)
	}
	u = datagrams(s.t, "127.0.0.1:0")
	echoed(s.t, u, bound, target)
	return c, u, bound
}

// echoed sends something through an association and wants it back.
func echoed(t *testing.T, u *net.UDPConn, bound, target netip.AddrPort) {
	t.Helper()
	sent := string(socks.AppendHeader(nil, target)) + "hello"
	if _, err := u.WriteToUDPAddrPort([]byte(sent), bound); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	if n, err := u.Read(b); err != nil || string(b[:n]) != sent {
		t.Fatalf("the echo is %q, %v, want %q", b[:n], err, sent)
	}
}

// isFree reports whether nobody has a UDP port.
func isFree(at netip.AddrPort) bool {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err == nil {
		c.Close()
	}
	return err == nil
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// TestUDPBesideTCP: on the same port number, where the listener serves SOCKS5 and the file does not say otherwise.
func TestUDPBesideTCP(t *testing.T) {
	target := datagramEcho(t)
	s := serve(t, onLoopback+"[listen.http]\naddress = [\"127.0.0.1:0\"]\nprotocols = [\"http\"]\n"+
		"[listen.off]\naddress = [\"127.0.0.1:0\"]\nudp = false\n"+toTarget)
	c, u, bound := s.associated("main", target)
	if bound.String() != s.address("main") {
		t.Errorf("the client is told %v, want %s", bound, s.address("main"))
	}
	if _, err := u.WriteToUDPAddrPort(socks.AppendHeader(nil, bound), bound); err != nil { // at the gateway itself
		t.Fatal(err)
	}
	echoed(t, u, bound, target)
	if _, code, _ := s.associate("off"); code != socks.CommandNotSupported {
		t.Errorf("without UDP the reply is %v, want %v", code, socks.CommandNotSupported)
	}
	for _, listener := range []string{"http", "off"} {
		if !isFree(netip.MustParseAddrPort(s.address(listener))) {
			t.Errorf("listener %s has a UDP socket", listener)
		}
	}
	s.log.take()
	_ = c.Close()
	eventually(t, "the session is logged", func() bool { return s.d.sessions.Count() == 0 })
	log := s.log.take()
	for _, want := range []string{`"method":"UDP"`, fmt.Sprintf(`"target":%q`, target), `"datagrams_from_client":2`, `"datagrams_from_target":2`, `"datagrams_denied":1`, `"targets":1`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log is %s, want %s in it", log, want)
		}
	}
	if s.d.state.udp.Count() != 0 {
		t.Error("the association has outlived its session")
	}
}

// TestReloadOfUDP: an association goes on whatever becomes of its listener, and its socket no longer than it is needed.
func TestReloadOfUDP(t *testing.T) {
	target := datagramEcho(t)
	port := freePort(t)
	with := func(udp bool) string {
		return fmt.Sprintf("[listen.main]\naddress = [\"127.0.0.1:%d\"]\nudp = %v\n%s", port, udp, toTarget)
	}
	s := serve(t, with(true))
	c, u, bound := s.associated("main", target)
	if err := s.reload(with(false)); err != nil {
		t.Fatal(err)
	}
	echoed(t, u, bound, target)
	if _, code, _ := s.associate("main"); code != socks.CommandNotSupported {
		t.Errorf("without UDP the reply is %v", code)
	}
	if isFree(bound) {
		t.Error("the socket is closed, though an association needs it")
	}
	if err := s.reload(with(true)); err != nil {
		t.Fatal(err)
	}
	for range 4 { // whichever socket the kernel gives them to
		_, v, again := s.associated("main", target)
		if again != bound {
			t.Errorf("the client is told %v, want %v", again, bound)
		}
		echoed(t, u, bound, target)
		echoed(t, v, bound, target)
	}
	if err := s.reload(with(true)); err != nil {
		t.Fatal(err)
	}
	if err := s.reload("[listen.other]\naddress = [\"127.0.0.1:0\"]\n" + toTarget); err != nil {
		t.Fatal(err)
	}
	echoed(t, u, bound, target)
	s.associated("other", target)
	if isFree(bound) {
		t.Error("the removed listener's socket is closed, though associations need it")
	}
	_ = c.Close()
	ended := time.Now().Add(time.Minute)
	for s.d.state.udp.Count() > 5 && time.Now().Before(ended) {
		time.Sleep(time.Millisecond)
	}
	if isFree(bound) {
		t.Error("the socket is closed, though other associations need it")
	}
}

// TestRemovedSocketIsGivenBack: with the last association.
func TestRemovedSocketIsGivenBack(t *testing.T) {
	target := datagramEcho(t)
	s := serve(t, onLoopback+toTarget)
	c, u, bound := s.associated("main", target)
	if err := s.reload("[listen.other]\naddress = [\"127.0.0.2:0\"]\n" + toTarget); err != nil {
		t.Fatal(err)
	}
	echoed(t, u, bound, target)
	if !s.d.state.own.holds(bound) {
		t.Error("sessions may be pointed at the socket, since its listener is gone")
	}
	_ = c.Close()
	eventually(t, "the port is free", func() bool { return isFree(bound) })
	if s.d.state.own.holds(bound) {
		t.Error("the port counts as the gateway's own, though it is free")
	}
}

func TestUDPPortIsTaken(t *testing.T) {
	holder := datagrams(t, fmt.Sprintf("127.0.0.1:%d", freePort(t))) // for TCP as well
	at := holder.LocalAddr().(*net.UDPAddr).AddrPort()
	text := fmt.Sprintf("[listen.front]\naddress = [%q]\n", at)
	free := netip.AddrPortFrom(at.Addr(), freePort(t))
	both := fmt.Sprintf("[listen.front]\naddress = [%q, %q]\n", free, at)
	d, err := Start(t.Context(), Options{Path: write(t, "polyport.toml", both), Stdout: io.Discard, Stderr: io.Discard})
	var taken *PortTakenError
	if d != nil || !errors.As(err, &taken) || !taken.UDP || taken.Listener != "front" || taken.Address != at {
		t.Fatalf("Start = %v, %v (%+v), want that UDP is taken", d, err, taken)
	}
	want := fmt.Sprintf("listen.front: cannot listen on %s for UDP: another process, or an association of this gateway with a port of its own ([udp] ports), holds it. Stop that, choose another address with --listen or in the file, "+
		"or write udp = false into [listen.front] to serve TCP alone", at)
	if taken.Error() != want {
		t.Errorf("the error is %q, want %q", taken, want)
	}
	if l, err := net.Listen("tcp", at.String()); err != nil {
		t.Errorf("TCP was left open: %v", err)
	} else {
		l.Close()
	}
	if !isFree(free) {
		t.Errorf("UDP on %v, which was free, was left open", free)
	}
	s := serve(t, text+"udp = false\n")
	if s.address("front") != at.String() {
		t.Errorf("listening on %s, want %s", s.address("front"), at)
	}
	if err := s.reload(text); !errors.As(err, &taken) || !taken.UDP {
		t.Errorf("Reload = %v, want that UDP is taken", err)
	}
	if got := s.ask("front", get); got != "HTTP/1.1 403 Forbidden" {
		t.Errorf("after that the answer is %q", got)
	}
	holder.Close()
	if err := s.reload(text); err != nil {
		t.Errorf("Reload = %v once the port is free", err)
	}
}

// TestOwnPortsOfAssociations: they are the gateway's own as long as they are open, and no session can be pointed at one.
func TestOwnPortsOfAssociations(t *testing.T) {
	target := datagramEcho(t)
	port := freePort(t)
	text := fmt.Sprintf("%s%s[udp]\nports = \"%d\"\n", onLoopback, strings.Replace(toTarget, "127.0.0.9/32", "127.0.0.0/8", 1), port)
	s := serve(t, text)
	c, u, bound := s.associated("main", target)
	if bound.Port() != port || !s.d.state.own.holds(bound) {
		t.Errorf("the association's port is %v, known as our own: %v", bound, s.d.state.own.holds(bound))
	}
	if err := s.reload(text + "idle = \"9m\"\n"); err != nil {
		t.Fatal(err)
	}
	if !s.d.state.own.holds(bound) {
		t.Error("a reload has forgotten it")
	}
	if _, err := u.WriteToUDPAddrPort(append(socks.AppendHeader(nil, bound), socks.AppendHeader(nil, bound)...), bound); err != nil {
		t.Fatal(err)
	}
	echoed(t, u, bound, target)
	s.log.take()
	_ = c.Close()
	eventually(t, "it is given back", func() bool { return isFree(bound) && !s.d.state.own.holds(bound) })
	eventually(t, "the session is logged", func() bool { return s.d.sessions.Count() == 0 })
	if log := s.log.take(); !strings.Contains(log, `"datagrams_denied":1`) {
		t.Errorf("what was sent to the gateway itself is not denied: %s", log)
	}
}

func TestUDPOptions(t *testing.T) {
	got := udpOptions(parse(t, "[udp]\nports = \"40000-40100\"\nfilter = \"address\"\nidle = \"2m\"\nassociations = 11\n"+
		"associations_per_client = 12\ntargets = 13\ndatagrams_per_second = 14\nbytes_per_second = \"15KiB\"\n"))
	want := udprelay.Options{
		Idle: 2 * time.Minute, Associations: 11, PerClient: 12, Targets: 13, Datagrams: 14, Bytes: 15 << 10,
		Filter: udprelay.Address, FirstPort: 40000, LastPort: 40100,
	}
	if got != want {
		t.Errorf("udpOptions = %+v, want %+v", got, want)
	}
	for text, want := range map[string]udprelay.Filter{"": udprelay.Endpoint, "endpoint": udprelay.Endpoint, "endpoint-independent": udprelay.EndpointIndependent} {
		file := "[udp]\n"
		if text != "" {
			file += fmt.Sprintf("filter = %q\n", text)
		}
		if got := udpOptions(parse(t, file)).Filter; got != want {
			t.Errorf("filter %q is %v, want %v", text, got, want)
		}
	}
}

// TestUDPOptionsReachTheRelay: with a start, and with a reload.
func TestUDPOptionsReachTheRelay(t *testing.T) {
	s := serve(t, onLoopback+toTarget+"[udp]\nassociations_per_client = 1\n")
	s.associate("main")
	if _, code, _ := s.associate("main"); code != socks.GeneralFailure {
		t.Errorf("the second one gets %v, want %v", code, socks.GeneralFailure)
	}
	if err := s.reload(onLoopback + toTarget + "[udp]\nassociations_per_client = 2\n"); err != nil {
		t.Fatal(err)
	}
	if _, code, _ := s.associate("main"); code != socks.Succeeded {
		t.Errorf("after the reload it gets %v, want success", code)
	}
}

func TestUDPAddresses(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string // of listener main
		err, warns string
	}{
		{"nothing", onLoopback, nil, "", ""},
		{"an address", onLoopback + "[udp]\nadvertise = \"203.0.113.7\"\n", []string{"203.0.113.7:0"}, "", ""},
		{"an address and a port", onLoopback + "[udp]\nadvertise = \"[2001:db8::7]:1080\"\n", []string{"[2001:db8::7]:1080"}, "", ""},
		{"public_address", onLoopback + "public_address = \"203.0.113.8:8080\"\n", []string{"203.0.113.8:8080"}, "", ""},
		{"both", onLoopback + "public_address = \"203.0.113.8:8080\"\n[udp]\nadvertise = \"203.0.113.7\"\n", []string{"203.0.113.7:0"}, "", ""},
		{"a name", onLoopback + "[udp]\nadvertise = \"gateway.localhost:1080\"\n", []string{"127.0.0.1:1080", "[::1]:1080"}, "", ""},
		{"without UDP", onLoopback + "udp = false\n[udp]\nadvertise = \"no.such.name.invalid\"\n", nil, "", ""},
		{"a name that is none", onLoopback + "[udp]\nadvertise = \"no.such.name.invalid\"\n", nil, `udp.advertise: "no.such.name.invalid" cannot be resolved`, ""},
		{"public_address with a name that is none", onLoopback + "public_address = \"no.such.name.invalid:8080\"\n", nil, "", "public_address is not known"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, a := built(t, "[dns]\nservers = [\"udp://127.0.0.1:9\"]\n"+tt.file)
			log := &lockedBuffer{}
			st := &state{log: slog.New(slog.NewJSONHandler(log, nil)), resolver: resolverOf(t, f)}
			defer st.resolver.Close()
			err := st.udpAddresses(t.Context(), f, a, f)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("udpAddresses = %v, want %q", err, tt.err)
			}
			var got []string
			for _, ap := range a.listeners["main"].UDPAddress {
				got = append(got, ap.String())
			}
			slices.Sort(got) // two are of both families, of which each client is told its own
			if !slices.Equal(got, tt.want) {
				t.Errorf("the addresses are %v, want %v", got, tt.want)
			}
			if text := log.take(); (text == "") != (tt.warns == "") || !strings.Contains(text, tt.warns) {
				t.Errorf("the log says %q, want %q", text, tt.warns)
			}
		})
	}
}

func TestStrangersAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Uint64
		log := &lockedBuffer{}
		s := watchStrangers(slog.New(slog.NewJSONHandler(log, nil)), n.Load)
		for minute, tt := range []struct {
			total uint64
			want  uint64 // 0 is no line
		}{{0, 0}, {3, 3}, {3, 0}, {1003, 1000}} {
			n.Store(tt.total)
			time.Sleep(strangersEvery)
			synctest.Wait()
			var line struct {
				Msg, Within string
				Count       uint64
			}
			text := log.take()
			if text != "" {
				if err := json.Unmarshal([]byte(text), &line); err != nil || line.Msg == "" || line.Within != "1m0s" {
					t.Errorf("minute %d: the log says %q (%v)", minute, text, err)
				}
			}
			if line.Count != tt.want {
				t.Errorf("minute %d: %d are logged, want %d", minute, line.Count, tt.want)
			}
		}
		s.close()
	})
}
