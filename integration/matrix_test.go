package integration

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// scenarios are what happens to tunnels.
var scenarios = []struct {
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

func TestTunnels(t *testing.T) {
	t.Parallel()
	st := newStage(t)
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
	c := st.connect(t, st.g.addr(listener(d)))
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
		"bytes_from_client": float64(0), "bytes_from_target": float64(0), "tls": st.tls,
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
func reset(t *testing.T, from, to end) {
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
	reason := "reset"
	if d.version == "HTTP/2" {
		reason = "cancelled" // that is what clients of HTTP/2 reset streams with
	}
	st.checkRecord(t, tn, reason)
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
	carry := func(from, to end, seed byte) {
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
	t.Parallel()
	st := newStage(t)
	var open []*tunnelled
	for _, d := range dialects() {
		tn := st.tunnel(t, d, "", inOnePiece)
		tn.toServer(t, "before")
		open = append(open, tn)
	}
	nobody := "[[rule]]\nname = \"nobody\"\naction = \"deny\"\n" // and no backend, route or row
	if l := st.g.reload(listenBoth + nobody); l.str("msg") != "reloaded" {
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
	t.Parallel()
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

func TestTunnelsEndWithTheDrain(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	if l := st.g.reload(strings.Replace(st.config, "drain     = \"50s\"", "drain = \"300ms\"", 1)); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	var open []*tunnelled
	for _, d := range dialects() {
		tn := st.tunnel(t, d, "", inOnePiece)
		tn.toServer(t, "in the middle of a")
		open = append(open, tn)
	}
	st.g.signal(syscall.SIGTERM)
	<-st.g.exited
	for _, tn := range open {
		t.Run(tn.d.name, func(t *testing.T) {
			for side, c := range map[string]end{"client": tn.client, "server": tn.server} {
				if b, err := io.ReadAll(c); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the %s of a tunnel that was cut off got %q, %v; want its end", side, b, err)
				}
			}
			st.checkRecord(t, tn, "shutting_down")
		})
	}
}
