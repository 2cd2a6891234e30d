package integration

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"
)

// stage is a running gateway, and the places that its clients may ask for.
type stage struct {
	g *gateway
	// open has servers that the test itself speaks for; forbidden has too, but the
	// rules let nobody there; nothing listens at closed, and hole never answers.
	open, forbidden, closed, hole place
	served                        chan *net.TCPConn // the server ends of open
	trespassed                    chan *net.TCPConn // the server ends of forbidden
	idle                          int               // descriptors of the gateway without a session
	config                        string
}

// newStage starts a gateway for the matrix.
func newStage(t *testing.T) *stage {
	t.Helper()
	st := &stage{served: make(chan *net.TCPConn, 64), trespassed: make(chan *net.TCPConn, 64)}
	st.open = place{"open", deskPort(t, st.served)}
	st.forbidden = place{"forbidden", deskPort(t, st.trespassed)}
	st.closed = place{"closed", closedPort(t)}
	st.hole = place{"hole", holePort(t)}
	st.config = "[sniff]\ntimeout = \"50s\"\n[timeouts]\nhandshake = \"50s\"\nconnect = \"400ms\"\ndrain = \"50s\"\n" + listenAnywhere
	for _, p := range []place{st.open, st.forbidden, st.closed, st.hole} {
		st.config += fmt.Sprintf("[backend.%[1]s]\nservers = [\"127.0.0.1:%[2]d\"]\n[protocols.tls.route.%[1]s]\nsni = [\"%[1]s.test\"]\nbackend = %[1]q\n"+
			"[protocols.raw.%[1]s]\nprefix = [%[3]q]\nbackend = %[1]q\n", p.name, p.port, string(askRaw(dialect{}, p)[:len(p.name)+3]))
	}
	st.config += fmt.Sprintf("[[rule]]\nname = \"never\"\naction = \"deny\"\nport = [\"%d\"]\n[[rule]]\nname = \"never by name\"\naction = \"deny\"\ntarget = [\"forbidden.test\"]\n"+
		"[[rule]]\nname = \"never by row\"\naction = \"deny\"\nprotocol = [\"forbidden\"]\n", st.forbidden.port) +
		"[[rule]]\nname = \"routes\"\naction = \"allow\"\nprotocol = [\"tls\", \"open\", \"closed\", \"hole\"]\n" + allowLoopback
	st.g = start(t, st.config)
	st.idle = st.g.descriptors()
	return st
}

// dualListen listens at one port of both loopback addresses.
func dualListen(t *testing.T, listen func(network, addr string) (io.Closer, uint16, error)) uint16 {
	t.Helper()
	var faults []error
	for range 20 {
		four, port, err := listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		six, _, err := listen("tcp6", fmt.Sprintf("[::1]:%d", port))
		if err == nil {
			t.Cleanup(func() { four.Close(); six.Close() })
			return port
		}
		faults = append(faults, err, four.Close()) // taken on ::1: another one
	}
	t.Fatalf("no port is free on both 127.0.0.1 and ::1: %v", errors.Join(faults...))
	return 0
}

// deskPort hands the connections of a port to whoever reads from desk.
func deskPort(t *testing.T, desk chan<- *net.TCPConn) uint16 {
	t.Helper()
	return dualListen(t, func(network, addr string) (io.Closer, uint16, error) {
		ln, err := net.Listen(network, addr)
		if err != nil {
			return nil, 0, err
		}
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				desk <- c.(*net.TCPConn)
			}
		}()
		return ln, ln.Addr().(*net.TCPAddr).AddrPort().Port(), nil
	})
}

// closedPort is one that nobody listens on, and that nobody else can take.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	return dualListen(t, func(network, addr string) (io.Closer, uint16, error) { return socket(network, addr, -1) })
}

// holePort is one where connections are never answered: a socket whose queue of
// connections that nobody accepts is full, so that the system drops what comes.
func holePort(t *testing.T) uint16 {
	t.Helper()
	return dualListen(t, func(network, addr string) (io.Closer, uint16, error) {
		s, port, err := socket(network, addr, 0)
		if err != nil {
			return nil, 0, err
		}
		host, _, _ := net.SplitHostPort(addr)
		for range 16 {
			c, err := net.DialTimeout(network, net.JoinHostPort(host, fmt.Sprint(port)), 200*time.Millisecond)
			if err != nil {
				return s, port, nil
			}
			t.Cleanup(func() { c.Close() })
		}
		t.Fatal("the queue of a listening socket does not fill up")
		return nil, 0, nil
	})
}

// descriptor is a bare socket.
type descriptor int

func (d descriptor) Close() error { return syscall.Close(int(d)) }

// socket binds a socket and, unless backlog is negative, listens; it never accepts.
func socket(network, addr string, backlog int) (descriptor, uint16, error) {
	a, err := net.ResolveTCPAddr(network, addr)
	if err != nil {
		return 0, 0, err
	}
	family, sa := syscall.AF_INET, syscall.Sockaddr(&syscall.SockaddrInet4{Port: a.Port, Addr: [4]byte{127, 0, 0, 1}})
	if network == "tcp6" {
		family, sa = syscall.AF_INET6, &syscall.SockaddrInet6{Port: a.Port, Addr: [16]byte{15: 1}}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, err
	}
	err = syscall.Bind(fd, sa)
	if err == nil && backlog >= 0 {
		err = syscall.Listen(fd, backlog)
	}
	if err != nil {
		return 0, 0, errors.Join(err, syscall.Close(fd))
	}
	switch bound, err := syscall.Getsockname(fd); b := bound.(type) {
	case *syscall.SockaddrInet4:
		return descriptor(fd), uint16(b.Port), err
	case *syscall.SockaddrInet6:
		return descriptor(fd), uint16(b.Port), err
	}
	return 0, 0, errors.New("a socket without an address")
}

// tunnelled is a tunnel of which the test holds both ends.
type tunnelled struct {
	d              dialect
	client, server *net.TCPConn
	sent, heard    int64 // by the client, in bytes, as the record counts them
}

// take returns the next connection of a desk.
func take(t *testing.T, desk <-chan *net.TCPConn) *net.TCPConn {
	t.Helper()
	select {
	case c := <-desk:
		t.Cleanup(func() { c.Close() })
		return c
	case <-time.After(patience):
		t.Fatal("nobody connected to the server")
		return nil
	}
}

// tunnel opens one by a dialect. early is sent in the same piece as what is
// asked; pace writes to the client's connection.
func (st *stage) tunnel(t *testing.T, d dialect, early string, pace func(*testing.T, net.Conn, []byte)) *tunnelled {
	t.Helper()
	tn := &tunnelled{d: d, client: dial(t, st.g.at())}
	asked := d.bytes(st.open)
	pace(t, tn.client, append(bytes.Clone(asked), early...))
	tn.server = take(t, st.served)
	if d.accept != nil {
		d.accept(t, tn.server)
	}
	tn.sent = int64(len(early))
	if d.welcome == nil {
		hear(t, tn.server, string(asked))
		tn.sent += int64(len(asked))
	} else if answer := d.welcome(t, tn.client); d.counts {
		tn.sent += int64(len(asked))
		tn.heard += int64(len(answer))
	}
	hear(t, tn.server, early)
	return tn
}

// inOnePiece writes as much at once as the system takes.
func inOnePiece(t *testing.T, c net.Conn, b []byte) { t.Helper(); say(t, c, string(b)) }

// byteByByte sends every byte in a segment of its own.
func byteByByte(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	tick := time.NewTicker(500 * time.Microsecond)
	defer tick.Stop()
	for _, one := range b {
		say(t, c, string(one))
		<-tick.C
	}
}

// toServer sends by the client and hears at the server.
func (tn *tunnelled) toServer(t *testing.T, s string) {
	t.Helper()
	say(t, tn.client, s)
	hear(t, tn.server, s)
	tn.sent += int64(len(s))
}

// toClient sends by the server and hears at the client.
func (tn *tunnelled) toClient(t *testing.T, s string) {
	t.Helper()
	say(t, tn.server, s)
	hear(t, tn.client, s)
	tn.heard += int64(len(s))
}

// close ends both directions, each side seeing the other's end.
func (tn *tunnelled) close(t *testing.T) {
	t.Helper()
	shut(t, tn.client, tn.server)
	shut(t, tn.server, tn.client)
}

// shut ends the direction from one end to the other, and waits until it has arrived.
func shut(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	if err := from.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(to); err != nil || len(b) != 0 {
		t.Fatalf("at the end of the stream the other side got %q, %v", b, err)
	}
}

// checkRecord looks at the access-log line of a tunnel.
func (st *stage) checkRecord(t *testing.T, tn *tunnelled, reason string) {
	t.Helper()
	d := tn.d
	l := st.g.record("client=" + tn.client.LocalAddr().String())
	rule, address := "test servers", tn.server.LocalAddr().String()
	if d.host == "" {
		rule = "routes"
	}
	check(t, l, map[string]any{
		"protocol": d.rowFor(st.open), "target": d.target(st.open), "address": address, "rule": rule,
		"status": float64(d.ok), "reason": reason, "version": d.version, "method": d.method,
		"bytes_from_client": float64(tn.sent), "bytes_from_target": float64(tn.heard),
	})
}

// check compares keys of a log line. What is empty may be absent.
func check(t *testing.T, l logLine, want map[string]any) {
	t.Helper()
	for key, w := range want {
		got, present := l[key]
		if !present && (w == "" || w == float64(0)) {
			continue
		}
		if got != w {
			t.Errorf("the record's %s is %v, want %v: %v", key, got, w, l)
		}
	}
}

func TestTunnels(t *testing.T) {
	st := newStage(t)
	scenarios := []struct {
		name string
		play func(*testing.T, *stage, dialect)
	}{
		{"ok", playOK},
		{"denied", playDenied},
		{"refused", playRefused},
		{"timeout", playTimeout},
		{"client ends first", playClientEnds},
		{"server ends first", playServerEnds},
		{"byte by byte", playSlow},
		{"early data", playEarly},
		{"server speaks first", playServerFirst},
		{"client resets", playClientResets},
		{"server resets", playServerResets},
		{"64 MiB each way", playLarge},
	}
	for _, d := range dialects() {
		t.Run(d.name, func(t *testing.T) {
			for _, sc := range scenarios {
				t.Run(sc.name, func(t *testing.T) { sc.play(t, st, d) })
			}
		})
	}
	st.g.settle(st.idle)
	if len(st.trespassed) > 0 {
		t.Errorf("%d connections reached a server that the rules forbid", len(st.trespassed))
	}
}

func playOK(t *testing.T, st *stage, d dialect) {
	tn := st.tunnel(t, d, "", inOnePiece)
	tn.toServer(t, "a question")
	tn.toClient(t, "an answer")
	tn.toServer(t, "another question")
	tn.close(t)
	st.checkRecord(t, tn, "")
}

// playRefusal asks for a place that cannot be had.
func playRefusal(t *testing.T, st *stage, d dialect, p place, want answer, rule, reason string) {
	t.Helper()
	c := dial(t, st.g.at())
	asked := d.bytes(p)
	inOnePiece(t, c, asked)
	got := make([]byte, len(want.begins))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want.begins {
		t.Fatalf("the refusal begins with %q, %v; want %q", got[:n], err, want.begins)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("behind the refusal %q comes %q and %v, want the end", got, rest, err)
	}
	l := st.g.record("client=" + c.LocalAddr().String())
	wantRecord := map[string]any{
		"protocol": d.rowFor(p), "target": d.target(p), "rule": rule, "reason": reason, "status": float64(want.status),
		"bytes_from_client": float64(0), "bytes_from_target": float64(0),
	}
	if want.status >= 400 { // HTTP's refusals are exchanges
		wantRecord["bytes_from_client"] = float64(len(asked))
		wantRecord["bytes_from_target"] = float64(len(got) + len(rest))
	}
	check(t, l, wantRecord)
	if l.str("err") == "" {
		t.Errorf("the record does not say what went wrong: %v", l)
	}
}

func playDenied(t *testing.T, st *stage, d dialect) {
	rule := "never"
	switch {
	case d.row == "tls":
		rule = "never by name"
	case d.row == "":
		rule = "never by row"
	}
	playRefusal(t, st, d, st.forbidden, d.denied, rule, "rule")
}

// allowedBy is the rule that lets a dialect go where it is not forbidden.
func allowedBy(d dialect) string {
	if d.host == "" {
		return "routes"
	}
	return "test servers"
}

func playRefused(t *testing.T, st *stage, d dialect) {
	playRefusal(t, st, d, st.closed, d.refused, allowedBy(d), "connection_refused")
}

func playTimeout(t *testing.T, st *stage, d dialect) {
	playRefusal(t, st, d, st.hole, d.timeout, allowedBy(d), "connection_timeout")
}

func playClientEnds(t *testing.T, st *stage, d dialect) {
	tn := st.tunnel(t, d, "", inOnePiece)
	tn.toServer(t, "all that I have to say")
	shut(t, tn.client, tn.server)
	for range 3 {
		tn.toClient(t, "and now the server talks on")
	}
	shut(t, tn.server, tn.client)
	st.checkRecord(t, tn, "")
}

func playServerEnds(t *testing.T, st *stage, d dialect) {
	tn := st.tunnel(t, d, "", inOnePiece)
	tn.toClient(t, "all that I have to say")
	shut(t, tn.server, tn.client)
	for range 3 {
		tn.toServer(t, "and now the client talks on")
	}
	shut(t, tn.client, tn.server)
	st.checkRecord(t, tn, "")
}

func playSlow(t *testing.T, st *stage, d dialect) {
	tn := st.tunnel(t, d, "", byteByByte)
	for _, b := range "slowly" {
		tn.toServer(t, string(b))
		tn.toClient(t, string(b))
	}
	tn.close(t)
	st.checkRecord(t, tn, "")
}

func playEarly(t *testing.T, st *stage, d dialect) {
	tn := st.tunnel(t, d, "sent before the answer came", inOnePiece)
	tn.toServer(t, ", and after it")
	tn.toClient(t, "all of it arrived")
	tn.close(t)
	st.checkRecord(t, tn, "")
}

// playServerFirst has a server that talks as soon as it can, so that its data may
// come together with the answer that opens the tunnel.
func playServerFirst(t *testing.T, st *stage, d dialect) {
	loud := d
	loud.accept = func(t *testing.T, c net.Conn) {
		t.Helper()
		if d.accept != nil {
			d.accept(t, c)
		}
		say(t, c, "220 a banner\r\n")
	}
	tn := st.tunnel(t, loud, "", inOnePiece)
	hear(t, tn.client, "220 a banner\r\n")
	tn.heard += int64(len("220 a banner\r\n"))
	tn.toServer(t, "thank you")
	tn.close(t)
	st.checkRecord(t, tn, "")
}

// reset closes a connection by a reset, and looks for it at the other end.
func reset(t *testing.T, from, to *net.TCPConn) {
	t.Helper()
	if err := errors.Join(from.SetLinger(0), from.Close()); err != nil {
		t.Fatal(err)
	}
	if n, err := to.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after a reset the other side reads %d bytes, %v; want %v", n, err, syscall.ECONNRESET)
	}
}

func playClientResets(t *testing.T, st *stage, d dialect) {
	tn := st.tunnel(t, d, "", inOnePiece)
	tn.toServer(t, "in the middle of a")
	reset(t, tn.client, tn.server)
	st.checkRecord(t, tn, "reset")
}

func playServerResets(t *testing.T, st *stage, d dialect) {
	tn := st.tunnel(t, d, "", inOnePiece)
	tn.toClient(t, "in the middle of a")
	reset(t, tn.server, tn.client)
	st.checkRecord(t, tn, "reset")
}

// large is how much goes each way in one tunnel.
const large = 64 << 20

// playLarge sends much both ways at once, and compares checksums.
func playLarge(t *testing.T, st *stage, d dialect) {
	tn := st.tunnel(t, d, "", inOnePiece)
	type sum struct {
		got [sha256.Size]byte
		n   int64
		err error
	}
	sums := make(chan [2]sum, 2)
	carry := func(from, to *net.TCPConn, seed byte) {
		sent := make(chan sum, 1)
		go func() {
			h := sha256.New()
			n, err := io.CopyN(io.MultiWriter(h, from), rand.NewChaCha8([32]byte{seed}), large)
			err = errors.Join(err, from.CloseWrite())
			sent <- sum{[sha256.Size]byte(h.Sum(nil)), n, err}
		}()
		h := sha256.New()
		n, err := io.Copy(h, to)
		sums <- [2]sum{<-sent, {[sha256.Size]byte(h.Sum(nil)), n, err}}
	}
	go carry(tn.client, tn.server, 1)
	go carry(tn.server, tn.client, 2)
	for range 2 {
		if s := <-sums; s[0] != s[1] || s[0].n != large || s[0].err != nil {
			t.Errorf("sent %d bytes, %v; %d came, %v; the checksums are equal: %v", s[0].n, s[0].err, s[1].n, s[1].err, s[0].got == s[1].got)
		}
	}
	tn.sent += large
	tn.heard += large
	st.checkRecord(t, tn, "")
}

func TestTunnelsOutliveAReload(t *testing.T) {
	st := newStage(t)
	var open []*tunnelled
	for _, d := range dialects() {
		tn := st.tunnel(t, d, "", inOnePiece)
		tn.toServer(t, "before")
		open = append(open, tn)
	}
	deny := st.config + "[[rule]]\nname = \"last\"\naction = \"deny\"\n"
	if l := st.g.reload(deny); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	nobody := "[[rule]]\nname = \"nobody\"\naction = \"deny\"\n"
	if l := st.g.reload(listenAnywhere + nobody); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	for _, tn := range open {
		t.Run(tn.d.name, func(t *testing.T) {
			tn.toServer(t, "after")
			tn.toClient(t, "after")
			tn.close(t)
			st.checkRecord(t, tn, "")
		})
	}
	st.g.settle(st.idle)
}

func TestTunnelsOutliveAShutdown(t *testing.T) {
	st := newStage(t)
	var open []*tunnelled
	for _, d := range dialects() {
		open = append(open, st.tunnel(t, d, "", inOnePiece))
	}
	st.g.signal(syscall.SIGTERM)
	st.g.wait("the beginning of the end", func(l logLine) bool { return l.str("msg") == "shutting down" })
	for _, tn := range open {
		t.Run(tn.d.name, func(t *testing.T) {
			tn.toServer(t, "a last question")
			tn.toClient(t, "a last answer")
			tn.close(t)
			st.checkRecord(t, tn, "")
		})
	}
	<-st.g.exited
	if st.g.status != nil {
		t.Errorf("polyport ended with %v", st.g.status)
	}
}
