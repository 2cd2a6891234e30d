package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"polyport/internal/http2"
	"polyport/internal/session"
	"polyport/internal/target"
	"polyport/mux"
)

// rowHTTP2 is the row of clients that speak HTTP/2: by prior knowledge in clear text (RFC 9113 section 3.3), or by ALPN.
const rowHTTP2 = "h2"

// preface is what a client of HTTP/2 sends first (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// matchHTTP2 is the matcher of the row "h2": the whole preface, and not a byte more, since SETTINGS
// may come later.
func matchHTTP2(p []byte) mux.Verdict { return startsWith(p, preface) }

// http2Handler serves the row h2: a connection, whose every stream becomes a session of its own, and those streams. Each is
// translated to one exchange of HTTP/1.1, so that the very code of the other rows serves it.
type http2Handler struct {
	h       *handler
	streams int // at once on one connection; 0 is the default
}

// ServeSession serves a connection, or one of its streams.
func (h *http2Handler) ServeSession(ctx context.Context, s *session.Session) error {
	if b, ok := s.Carried().(*bridge); ok {
		return h.h.serveStream(ctx, s, b)
	}
	if len(s.Conn().Prefix()) == 0 && speaksHTTP1(s.Conn(), s.Timeouts().Handshake) {
		return h.h.ServeSession(ctx, s)
	}
	return h.serveConn(s)
}

// speaksHTTP1 reports whether a client that has agreed on h2 by ALPN, so that nothing of it has been sniffed, begins with a
// request of HTTP/1 all the same: Go's net/http does so to every proxy. What it reads is read again.
func speaksHTTP1(conn *mux.Conn, timeout time.Duration) bool {
	if timeout > 0 {
		_ = conn.SetReadDeadline(time.Now().Add(timeout)) // fails only on a closed connection
	}
	begin := make([]byte, 0, maxUndecided)
	defer func() { conn.Unread(begin) }()
	for len(begin) < cap(begin) {
		n, err := conn.Read(begin[len(begin):cap(begin)])
		begin = begin[:len(begin)+n]
		if len(begin) == 0 && err == nil {
			continue
		}
		if err != nil {
			return false // package http2 will see it too
		}
		one, two := max(matchHTTP(begin), matchConnect(begin)), matchHTTP2(begin)
		if one == mux.Match || two == mux.Match || one == mux.NoMatch && two == mux.NoMatch {
			return one == mux.Match
		}
	}
	return false
}

// maxUndecided bounds what is read for that. Methods that are known decide at once.
const maxUndecided = 512

// maxHeaderList bounds the header list of a request (RFC 9113 section 10.5.1). What the gateway reads of HTTP/1.1 is bounded
// in about the same way.
const maxHeaderList = 64 << 10

// serveConn serves a connection to its end.
func (h *http2Handler) serveConn(s *session.Session) error {
	s.SetVersion(versionHTTP2)
	s.Conn().Local()                      // many streams will ask for it at once
	_ = s.Conn().SetDeadline(time.Time{}) // package http2 has its own; fails only on a closed connection
	timeouts := s.Timeouts()
	conn := http2.NewConn(s.Conn(), http2.Options{
		Streams:    h.streams,
		HeaderList: maxHeaderList,
		Handshake:  timeouts.Handshake,
		Idle:       timeouts.KeepAlive,
		Serve:      func(st *http2.Stream) { openStream(s, st) },
	})
	s.OnDrain(conn.Shutdown)
	err := conn.Serve()
	s.AddBytes(conn.Bytes())
	var fault *http2.ConnError
	if errors.As(err, &fault) {
		s.SetReason(connReason(fault))
	}
	if err != nil {
		return fmt.Errorf("serve the connection: %w", err)
	}
	return nil
}

// reasonLost is for clients that go without a word, as browsers do from connections that they have opened in advance.
const reasonLost = "client_closed"

// connReason names, for the record, why a connection was ended.
func connReason(fault *http2.ConnError) string {
	switch {
	case fault.Flood != "":
		return "flood_" + fault.Flood
	case fault.Code == http2.ErrCodeNo:
		return reasonLost
	}
	return string(protocolError)
}

// openStream serves a stream to its end, that of its tunnel if it becomes one.
func openStream(s *session.Session, st *http2.Stream) {
	b := newBridge(st)
	if refused := s.Stream(st.ID(), b, b); refused != "" {
		st.Reset(http2.ErrCodeRefusedStream)
		return
	}
	<-b.closed
}

// serveStream serves the one exchange of a stream.
func (h *handler) serveStream(ctx context.Context, s *session.Session, b *bridge) error {
	s.SetVersion(versionHTTP2)
	s.SetMethod(b.Head().Method)
	if err := b.translate(h.meansSite(s, b.Head()) || meansGateway(s, b.Head())); err != nil {
		s.SetStatus(err.status)
		s.SetReason(string(err.reason))
		if writeErr := b.WriteHead(err.status, []http2.Field{{Name: "proxy-status", Value: proxyStatus(err.reason)}}, true); writeErr != nil {
			return errors.Join(err, writeErr)
		}
		return err
	}
	c := newClient(h, s)
	c.bridge = b
	c.w.ResetSink(sink{c})
	defer c.release()
	return c.serve(ctx)
}

// versionHTTP2 is how records name it (RFC 9110 section 2.5).
const versionHTTP2 = "HTTP/2"

// meansGateway reports whether a request is for the gateway's own pages: HTTP/2 has no origin-form to tell it by, so the URI
// has to name the gateway as this very client knows it.
func meansGateway(s *session.Session, h *http2.Head) bool {
	if h.Method == methodConnect {
		return false
	}
	state := s.Conn().TLS()
	scheme, port := "http", uint16(80) // of no other is it known what its paths are
	if state != nil {
		scheme, port = "https", 443
	}
	if h.Scheme != scheme {
		return false
	}
	address, _ := s.HelpPage()
	public, err := target.Parse(address)
	if err != nil {
		return false
	}
	asked, err := target.ParseAuthority(h.Authority, port)
	if err != nil || asked.Port() != public.Port() {
		return false
	}
	if asked == public || state == nil {
		return asked == public
	}
	own, err := target.New(state.ServerName, public.Port())
	return err == nil && asked == own
}

// gone is what is to be done once a client has taken its request back.
type gone struct {
	mu   sync.Mutex
	f    func() // nil is nothing
	over bool
}

// is says that the client has.
func (g *gone) is() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	if g.f != nil {
		g.f()
	}
}

// do has f called, at once if the client is gone already. Once do has returned, what was given before is not called any more.
func (g *gone) do(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.f = f; f != nil && g.over {
		f()
	}
}
