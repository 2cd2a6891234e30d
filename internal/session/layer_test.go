package session

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"polyport/internal/auth"
	"polyport/internal/egress"
	"polyport/mux"
)

// gatewayTLS is the gateway's side of TLS.
var gatewayTLS = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"gw.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

// securing is a handler of the row "test" that secures the connection, for a client with that certificate, and injects row.
func securing(identity auth.Identity, row string) Handler {
	return handlerFunc(func(_ context.Context, s *Session) error {
		s.SetVersion("TLSv1.3")
		layer := tls.Server(s.Conn().Beneath(), gatewayTLS())
		if err := layer.Handshake(); err != nil {
			return err
		}
		s.Secure(layer, identity)
		s.Inject(row)
		return nil
	})
}

// newInside is a manager whose row "test" secures, with inner for the row "inner" inside.
func newInside(t *testing.T, outer, inner Handler, sniff mux.SniffOptions) *harness {
	t.Helper()
	h := newHarness(t, outer, func(rt *Runtime) { rt.Handlers["inner"] = inner })
	server := mux.NewServer(mux.Options{Sniff: sniff})
	server.SetInside(mux.Table{"main": {
		{Name: "inner", Match: func(p []byte) mux.Verdict {
			if p[0] == 'i' {
				return mux.Match
			}
			return mux.NoMatch
		}},
		{Name: "nobody serves it", Match: func(p []byte) mux.Verdict {
			if p[0] == 'n' {
				return mux.Match
			}
			return mux.NoMatch
		}},
		{Name: "slow", Match: func(p []byte) mux.Verdict { return mux.NeedMore }},
	}})
	h.classify = server.Inject
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		h.Drain(now)
		_ = server.Shutdown(context.Background())
	})
	return h
}

// secured is the client's end of a secured connection.
func (h *harness) secured(t *testing.T) *tls.Conn {
	t.Helper()
	c := tls.Client(h.connect(t, ""), &tls.Config{ServerName: "gw.test", InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestInject(t *testing.T) {
	h := newInside(t, securing(auth.Identity{}, ""), handlerFunc(func(_ context.Context, s *Session) error {
		b := make([]byte, 6)
		if _, err := io.ReadFull(s.Conn(), b); err != nil {
			return err
		}
		if _, ok := s.Conn().RawTCP(); ok || s.RequiresTLS() || s.Carried() != nil {
			return errors.New("it is not inside TLS")
		}
		_, err := fmt.Fprintf(s.Conn(), "%s %s %s", s.Conn().Row(), s.ID(), b)
		return err
	}), mux.SniffOptions{})
	c := h.secured(t)
	_, _ = io.WriteString(c, "inside")
	got, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("the answer ended with %v, want close_notify", err)
	}
	r := <-h.records.ended
	if want := "inner " + r.ID.String() + " inside"; string(got) != want {
		t.Errorf("the answer is %q, want %q", got, want)
	}
	if r.Protocol != "inner" || r.Version != "" || r.TLS != "TLS 1.3" || r.ServerName != "gw.test" || r.Err != nil || r.Reason != "" || r.Stream != 0 {
		t.Errorf("record = %+v", r)
	}
	if h.records.started != 1 || len(h.records.ended) != 0 {
		t.Errorf("%d records began, and %d more ended; want one in all", h.records.started, len(h.records.ended))
	}
}

func TestInjectARow(t *testing.T) {
	for _, tt := range []struct{ name, row, want, err string }{
		{"one that is served", "inner", "inner", ""},
		{"one that is not", "h2", mux.RowReject, "no handler"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newInside(t, securing(auth.Identity{}, tt.row), handlerFunc(func(_ context.Context, s *Session) error {
				_, err := io.WriteString(s.Conn(), "first") // the client has said nothing
				return err
			}), mux.SniffOptions{})
			_, _ = io.ReadAll(h.secured(t))
			if r := <-h.records.ended; r.Protocol != tt.want || (r.Err == nil) != (tt.err == "") || r.Err != nil && !strings.Contains(r.Err.Error(), tt.err) {
				t.Errorf("record = %+v", r)
			}
		})
	}
}

func TestInjectFails(t *testing.T) {
	never := handlerFunc(func(context.Context, *Session) error { return errors.New("the inner handler was called") })
	for _, tt := range []struct {
		name   string
		send   func(c *tls.Conn)
		change func(h *harness)
		reason string
	}{
		{"silence", func(*tls.Conn) {}, nil, string(mux.SniffTimeout)},
		{"never decided", func(c *tls.Conn) { _, _ = io.WriteString(c, "x") }, nil, string(mux.SniffTimeout)},
		{"closed", func(c *tls.Conn) { c.Close() }, nil, string(mux.ClosedEarly)},
		{"reset", func(c *tls.Conn) { _ = c.NetConn().(*net.TCPConn).SetLinger(0); c.NetConn().Close() }, nil, string(mux.ClosedEarly)},
		{"nothing is found inside", func(*tls.Conn) {}, func(h *harness) {
			h.classify = NewManager(h.Runtime(), Options{}).classify
		}, string(mux.ClosedEarly)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newInside(t, securing(auth.Identity{}, ""), never, mux.SniffOptions{Timeout: 20 * time.Millisecond, Pause: time.Millisecond})
			if tt.change != nil {
				tt.change(h)
			}
			c := h.secured(t)
			tt.send(c)
			r := <-h.records.ended
			if r.Reason != tt.reason || r.Err == nil || !strings.Contains(r.Err.Error(), "inside TLS") || r.Protocol != "test" || r.TLS != "TLS 1.3" {
				t.Errorf("record = %+v, want reason %q", r, tt.reason)
			}
		})
	}
}

func TestInjectAfterAnError(t *testing.T) {
	h := newInside(t, handlerFunc(func(_ context.Context, s *Session) error {
		s.Inject("inner")
		return errors.New("and yet it failed")
	}), handlerFunc(func(context.Context, *Session) error { panic("called") }), mux.SniffOptions{})
	_, _ = io.ReadAll(h.connect(t, ""))
	if r := <-h.records.ended; r.Err == nil || r.Err.Error() != "and yet it failed" || r.Protocol != "test" {
		t.Errorf("record = %+v", r)
	}
}

func TestUnusedRowInside(t *testing.T) {
	h := newInside(t, securing(auth.Identity{}, ""), nil, mux.SniffOptions{})
	c := h.secured(t)
	_, _ = io.WriteString(c, "n")
	if r := <-h.records.ended; !errors.Is(r.Err, errNoHandler) || r.Protocol != "nobody serves it" {
		t.Errorf("record = %+v", r)
	}
}

func TestPanicInside(t *testing.T) {
	h := newInside(t, securing(auth.Identity{}, "inner"), handlerFunc(func(_ context.Context, s *Session) error {
		_, _ = io.WriteString(s.Conn(), "half an ans")
		panic("boom")
	}), mux.SniffOptions{})
	if got, err := io.ReadAll(h.secured(t)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %q, %v; want a reset and no close_notify", got, err)
	}
	if r := <-h.records.ended; r.Reason != string(egress.InternalError) {
		t.Errorf("record = %+v", r)
	}
}

// Who was killed in the middle of an answer inside TLS gets no close_notify.
func TestKilledInside(t *testing.T) {
	began := make(chan struct{})
	h := newInside(t, securing(auth.Identity{}, "inner"), handlerFunc(func(_ context.Context, s *Session) error {
		s.Established()
		_, _ = io.WriteString(s.Conn(), "half an ans")
		close(began)
		_, err := io.ReadAll(s.Conn())
		return err
	}), mux.SniffOptions{})
	c := h.secured(t)
	<-began
	now, cancel := context.WithCancel(t.Context())
	cancel()
	h.Drain(now)
	if got, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %q, %v; want a reset", got, err)
	}
}

func TestCertifiedIdentity(t *testing.T) {
	carol := auth.Identity{Name: "carol", Groups: []string{"certified"}}
	for _, tt := range []struct {
		name    string
		users   auth.Authenticator
		methods string
	}{
		{"users", oneUser{}, "true true"},
		{"certificates alone", nil, "true false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			streams := make(chan string, 1)
			h := newInside(t, securing(carol, "inner"), handlerFunc(func(ctx context.Context, s *Session) error {
				if s.Carried() != nil {
					streams <- s.Identity().Name
					return nil
				}
				var seen []string
				note := func(s *Session) {
					anonymous, password := s.UserMethods()
					seen = append(seen, fmt.Sprint(s.Identity().Name, s.Identity().Groups, s.request(mustParse("127.0.0.1:80")).Identity, " ", anonymous, password))
				}
				note(s)
				if _, err := s.Authenticate(ctx, auth.Credentials{User: "alice", Password: "right"}); (err == nil) != (tt.users != nil) {
					return fmt.Errorf("authenticate: %w", err)
				}
				seen = append(seen, s.Identity().Name)
				s = s.Next(nil)
				note(s)
				_, _ = s.Authenticate(ctx, auth.Credentials{User: "alice", Password: "wrong"})
				seen = append(seen, s.Identity().Name)
				s.Stream(1, newClosed(), "carried")
				_, err := io.WriteString(s.Conn(), strings.Join(seen, ";"))
				return err
			}), mux.SniffOptions{})
			rt := *h.Runtime()
			rt.Auth = tt.users
			rt.Listeners = map[string]Listener{"main": {RequireUser: true}}
			h.SetRuntime(&rt)
			got, err := io.ReadAll(h.secured(t))
			second := "alice"
			if tt.users == nil {
				second = "carol"
			}
			wanted := strings.Join([]string{"carol[certified]carol " + tt.methods, second, "carol[certified]carol " + tt.methods, "carol"}, ";")
			if string(got) != wanted || err != nil {
				t.Errorf("got %q, %v\nwant %q", got, err, wanted)
			}
			if name := <-streams; name != "carol" {
				t.Errorf("a stream is %q's", name)
			}
			for _, want := range []string{second, "carol", "carol"} {
				if r := <-h.records.ended; r.Identity != want {
					t.Errorf("record = %+v, want identity %q", r, want)
				}
			}
		})
	}
}

// TestDrainDoesNotWaitForTLS: a client that takes nothing in keeps the end of its idle connection waiting, and nobody else.
func TestDrainDoesNotWaitForTLS(t *testing.T) {
	h := newInside(t, securing(auth.Identity{}, ""), handlerFunc(func(_ context.Context, s *Session) error {
		b := make([]byte, 1)
		if _, err := io.ReadFull(s.Conn(), b); err != nil {
			return err
		}
		s.End(nil)
		_, _ = s.Conn().Write(b)
		_, _ = s.Conn().Read(b) // to the end
		return nil
	}), mux.SniffOptions{})
	ours, theirs := net.Pipe() // in which nothing has room
	go h.Serve(mux.NewConn(theirs, "main", "test", nil))
	defer ours.Close()
	c := tls.Client(ours, &tls.Config{ServerName: "gw.test", InsecureSkipVerify: true})
	_, _ = io.WriteString(c, "i")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	h.BeginDrain()
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("BeginDrain has waited for %v", d)
	}
}
