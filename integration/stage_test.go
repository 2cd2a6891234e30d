package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
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
	connect                       func(t *testing.T, addr string) end // a client's way to the gateway
	tls                           string                              // what the records say of it
}

// listenBoth has a listener for each IP version.
const listenBoth = listenAnywhere + "[listen.six]\naddress = [\"[::1]:0\"]\n"

// listener is the one that a dialect goes to: who asks for an IPv6 address comes by one.
func listener(d dialect) string {
	if d.host == "::1" {
		return "six"
	}
	return "main"
}

// stageConfig is the gateway's configuration but for its places.
const stageConfig = `
[sniff]
timeout = "50s"
[timeouts]
handshake = "50s"
connect   = "1500ms"
drain     = "50s"
[[rule]]
name   = "never"
action = "deny"
port   = ["%d"]
[[rule]]
name   = "never by name"
action = "deny"
target = ["forbidden.test"]
[[rule]]
name     = "never by row"
action   = "deny"
protocol = ["forbidden"]
[[rule]]
name     = "routes"
action   = "allow"
protocol = ["tls", "open", "closed", "hole"]
` + allowLoopback + listenBoth

// placeConfig is for one place: its name, port, and the prefix of its raw row.
const placeConfig = `
[backend.%[1]s]
servers = ["127.0.0.1:%[2]d"]
[protocols.tls.route.%[1]s]
sni     = ["%[1]s.test"]
backend = "%[1]s"
[protocols.raw.%[1]s]
prefix  = ["%[3]s"]
backend = "%[1]s"
`

// newStage starts a gateway for the matrix.
func newStage(t *testing.T, more ...string) *stage {
	t.Helper()
	st := &stage{served: make(chan *net.TCPConn, 64), trespassed: make(chan *net.TCPConn, 64)}
	st.connect = func(t *testing.T, addr string) end { t.Helper(); return dial(t, addr) }
	st.open = place{"open", deskPort(t, st.served)}
	st.forbidden = place{"forbidden", deskPort(t, st.trespassed)}
	st.closed = place{"closed", closedPort(t)}
	st.hole = place{"hole", holePort(t)}
	st.config = fmt.Sprintf(stageConfig, st.forbidden.port) + strings.Join(more, "")
	for _, p := range []place{st.open, st.forbidden, st.closed, st.hole} {
		st.config += fmt.Sprintf(placeConfig, p.name, p.port, strings.ToUpper(p.name)+"/1")
	}
	st.g = start(t, st.config)
	st.idle = st.g.descriptors()
	return st
}

// tunnelled is a tunnel of which the test holds both ends.
type tunnelled struct {
	d              dialect
	client, server end
	sent, heard    int64 // by the client, in bytes, as the record counts them
}

// tunnel opens one by a dialect. early is sent in the same piece as what is
// asked; pace writes to the client's connection.
func (st *stage) tunnel(t *testing.T, d dialect, early string, pace func(*testing.T, net.Conn, []byte)) *tunnelled {
	t.Helper()
	if d.open != nil {
		tn := &tunnelled{d: d, client: d.open(t, st, early), sent: int64(len(early))}
		tn.server = take(t, st.served)
		if d.accept != nil {
			d.accept(t, tn.server)
		}
		hear(t, tn.server, early)
		return tn
	}
	tn := &tunnelled{d: d, client: st.connect(t, st.g.addr(listener(d)))}
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
		say(t, c, string([]byte{one}))
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
func shut(t *testing.T, from, to end) {
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
	l := st.g.record("client="+tn.client.LocalAddr().String(), "protocol="+d.rowFor(st.open)) // of whom HTTP/2 has another
	check(t, l, map[string]any{
		"protocol": d.rowFor(st.open), "listener": listener(d), "target": d.target(st.open), "address": tn.server.LocalAddr().String(), "rule": allowedBy(d),
		"status": float64(d.ok), "reason": reason, "version": d.version, "method": d.method,
		"bytes_from_client": float64(tn.sent), "bytes_from_target": float64(tn.heard), "tls": st.tls,
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

// allowedBy is the rule that lets a dialect go where it is not forbidden.
func allowedBy(d dialect) string {
	if d.host == "" {
		return "routes"
	}
	return "test servers"
}
