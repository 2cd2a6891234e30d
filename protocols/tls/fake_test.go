package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/internal/pool"
	"polyport/internal/session"
	"polyport/internal/target"
	"polyport/internal/upstream"
	"polyport/mux"
	"polyport/protocols/spec"
)

// wire is a client that has sent its bytes already, and keeps what it gets.
type wire struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (w *wire) Read(b []byte) (int, error)  { return w.in.Read(b) }
func (w *wire) Write(b []byte) (int, error) { return w.out.Write(b) }
func (w *wire) RemoteAddr() net.Addr        { return &net.TCPAddr{} }
func (w *wire) LocalAddr() net.Addr         { return &net.TCPAddr{} }

// fake is a session that answers as it is told and keeps what it was asked.
type fake struct {
	conn         *mux.Conn
	authorizeErr error
	dialErr      error

	asked   string // "target" or "target -> backend", as Authorize saw it
	version string
	reason  string
	relayed net.Conn

	named       string // by SetTarget
	alpn        string
	established bool

	without      string // the row that the listener does not serve
	serverName   string
	onLoop, left bool
	carried      any
	secured      *tls.Conn
	identity     auth.Identity
	injected     string // what Inject was given, behind "row "
}

func (f *fake) Allows(row string) bool     { return row != f.without }
func (f *fake) Timeouts() session.Timeouts { return session.Timeouts{Handshake: time.Second} }
func (f *fake) OnLoop() bool               { return f.onLoop }
func (f *fake) LeaveLoop(carry any)        { f.onLoop, f.left, f.carried = false, true, carry }
func (f *fake) Carried() any               { return f.carried }
func (f *fake) Inject(row string)          { f.injected = "row " + row }

func (f *fake) Secure(layer *tls.Conn, id auth.Identity) {
	f.conn.Secure(layer)
	f.secured, f.identity = layer, id
}

func (f *fake) Conn() *mux.Conn         { return f.conn }
func (f *fake) SetServerName(n string)  { f.serverName = n }
func (f *fake) SetVersion(v string)     { f.version = v }
func (f *fake) SetReason(reason string) { f.reason = reason }
func (f *fake) Relay(target net.Conn)   { f.relayed = target }

func (f *fake) SetALPN(p string)          { f.alpn = p }
func (f *fake) SetTarget(t target.Target) { f.named = t.String() }
func (f *fake) Established()              { f.established = true }

func (f *fake) Authorize(_ context.Context, t target.Target) (*egress.Permit, error) {
	f.asked = t.String()
	return &egress.Permit{}, f.authorizeErr
}

func (f *fake) AuthorizeBackend(_ context.Context, t target.Target, b *upstream.Backend) (*egress.Permit, error) {
	f.asked = t.String() + " -> " + b.Name()
	return &egress.Permit{}, f.authorizeErr
}

func (f *fake) Dial(context.Context, *egress.Permit) (net.Conn, error) {
	if f.asked == "" || !f.established {
		return nil, errors.New("dialled without having asked, or as an unfinished session")
	}
	if f.dialErr != nil {
		return nil, f.dialErr
	}
	return server, nil
}

// server stands for every connection that fakes dial.
var server net.Conn = &wire{}

// backends is an Env that knows the backends of these names.
func backends(names ...string) spec.Env {
	known := map[string]*upstream.Backend{}
	for _, name := range names {
		known[name] = newBackend(name, "127.0.0.1:1")
	}
	return spec.Env{Backend: func(name string) (*upstream.Backend, bool) {
		b, ok := known[name]
		return b, ok
	}}
}

// decoded is a decode function that gives these options.
func decoded(o Options) func(any) error {
	return func(into any) error {
		*into.(*Options) = o
		return nil
	}
}

// newHandler makes the handler of these options.
func newHandler(t *testing.T, o Options) *handler {
	t.Helper()
	rows, err := New(backends("one", "two", "three"), decoded(o))
	if err != nil {
		t.Fatal(err)
	}
	return rows[0].Handler.(*handler)
}

// newBackend makes a backend of servers that are well written.
func newBackend(name string, servers ...string) *upstream.Backend {
	b, err := upstream.NewBackend(upstream.BackendOptions{Servers: servers, Pool: pool.Options{Name: name}}, nil)
	if err != nil {
		panic(err)
	}
	return b
}
