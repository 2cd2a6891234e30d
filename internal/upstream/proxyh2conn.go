package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	h2 "golang.org/x/net/http2"

	"polyport/internal/tlsconn"
)

const (
	h2IdleTimeout = 90 * time.Second // after which a connection without tunnels is closed
	h2ReadIdle    = 20 * time.Second // after which a silent connection is asked for a sign of life (PING)
	h2PingTimeout = 10 * time.Second // within which that must come
	h2WriteStall  = 30 * time.Second // after which a connection that takes no byte is closed
	// h2StreamWindow is how much of a tunnel may wait for its reader, in bytes. There is no such bound on the connection:
	// a tunnel that nobody reads would hold up all the others.
	h2StreamWindow = 1 << 20
	h2MaxHeader    = 64 << 10 // bytes of a response's fields
)

// h2Conn is an HTTP/2 connection to a proxy. It is net/http's: its ClientConn is one connection that others pool, as x/net's
// is, which is deprecated in its favour. It is given the connection as if that were in the clear, since only so it is
// content with a wrapper of the TLS connection; the h2Wire is needed for what net/http does not tell.
type h2Conn struct {
	proxy *Proxy
	from  string // where it leaves from
	cc    *http.ClientConn
	wire  *h2Wire
}

// h2Wire watches the bytes of a connection.
type h2Wire struct {
	net.Conn                // does TLS
	settled   chan struct{} // closed when the proxy's SETTINGS are in force, or the connection is closed
	settle    func()
	reads     atomic.Int64          // how often something has come
	end       atomic.Pointer[error] // of Read, which net/http does not tell
	header    []byte                // of the first frame, as far as it has come
	missing   int                   // bytes of the first frame that have not come; of the reading goroutine
	inForce   bool                  // the same
	closeOnce func() error
	flow      *flowGuard
	preface   int // bytes of the connection preface that have not been sent
}

// frameHeader is the length of a frame's header (RFC 9113 section 4.1).
const frameHeader = 9

// connectH2 makes a connection and waits for the proxy's SETTINGS, which say how many tunnels it takes. closed, which may
// be nil, is told when it is closed.
func (p *Proxy) connectH2(ctx context.Context, deadline time.Time, dial DialFunc, closed func(*h2Conn)) (*h2Conn, error) {
	raw, err := p.connect(ctx, deadline, dial)
	if err != nil {
		return nil, err
	}
	if raw.(*tlsconn.Conn).ConnectionState().NegotiatedProtocol != "h2" {
		_ = raw.Close()
		return nil, &Error{
			Reason: reasonTLS, Server: true, Proxy: p.name,
			words: `does not speak HTTP/2 (ALPN "h2"): perhaps its scheme is https`,
		}
	}
	c := &h2Conn{proxy: p}
	c.wire = newH2Wire(raw, func() {
		if closed != nil {
			closed(c)
		}
	})
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// start gives the connection to net/http, and closes it after an error.
func (c *h2Conn) start(ctx context.Context) error {
	// From here on the deadline is that of ctx alone, or net/http might take it for an error of the connection first.
	err := c.proxy.cleared(c.wire)
	stop := c.proxy.watch(ctx, c.wire)
	if err == nil {
		err = c.settle(ctx)
	}
	if !stop() {
		err = c.proxy.broken(ctx.Err())
	}
	if err != nil {
		_ = c.wire.Close() // the error is why
	}
	return err
}

// settle waits until the proxy's SETTINGS are in force.
func (c *h2Conn) settle(ctx context.Context) (err error) {
	transport := &http.Transport{
		DialContext:            func(context.Context, string, string) (net.Conn, error) { return c.wire, nil },
		Protocols:              new(http.Protocols),
		DisableCompression:     true,
		IdleConnTimeout:        h2IdleTimeout,
		MaxResponseHeaderBytes: h2MaxHeader,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: h2ReadIdle, PingTimeout: h2PingTimeout, WriteByteTimeout: h2WriteStall,
			MaxReceiveBufferPerStream: h2StreamWindow,
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	if c.cc, err = transport.NewClientConn(ctx, "http", c.proxy.server.String()); err != nil {
		return c.proxy.broken(err)
	}
	<-c.wire.settled // ctx ends this too, by way of the connection
	if err := c.cc.Err(); err != nil {
		return c.noHTTP2(err)
	}
	return nil
}

// noHTTP2 is the error of a connection that ended before the proxy's SETTINGS: the proxy has ended it, or net/http for what came.
func (c *h2Conn) noHTTP2(err error) *Error {
	p := c.proxy
	if end := c.wire.end.Load(); end != nil && c.wire.reads.Load() == 0 {
		return p.broken(*end)
	}
	return &Error{
		Reason: reasonProtocol, Server: true, Proxy: p.name, Err: err,
		words: "does not begin HTTP/2 with its SETTINGS (RFC 9113 section 3.4)",
	}
}

// finish lets the connection end with its last tunnel.
func (c *h2Conn) finish() {
	end := func(cc *http.ClientConn) {
		if cc.InFlight() == 0 {
			_ = cc.Close()
		}
	}
	c.cc.SetStateHook(end)
	end(c.cc)
}

// open asks for a tunnel (RFC 9113 section 8.5), for which a place has been reserved. ctx is for the time until the answer.
func (c *h2Conn) open(ctx context.Context, to Destination) (net.Conn, error) {
	t, body := newTunnel(c)
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	stop := context.AfterFunc(ctx, cancel)
	authority := to.String()
	request := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Host: authority}, Host: authority,
		Header: http.Header{"User-Agent": nil}, // none, that is
		Body:   body, ContentLength: -1,
	}
	if c.proxy.authorization != "" {
		request.Header.Set("Proxy-Authorization", c.proxy.authorization)
	}
	if to.Via != "" {
		request.Header.Set("Via", to.Via)
	}
	response, err := c.cc.RoundTrip(request.WithContext(life))
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err == nil {
		err = c.proxy.answered(response, to)
	}
	if response != nil {
		t.body = response.Body
	}
	if err != nil {
		_ = t.Close()
		return nil, err
	}
	go t.receive()
	return t, nil
}

// answered judges the answer to CONNECT. net/http ends a body at its Content-Length, which RFC 9110 section 9.3.6 forbids
// the proxy to send here, so better no tunnel than one that is cut.
func (p *Proxy) answered(response *http.Response, to Destination) error {
	answer := connectAnswer{status: response.StatusCode, loop: slices.ContainsFunc(response.Header.Values(statusField), saysLoop)}
	switch {
	case !answer.stands():
		return p.refusedStatus(answer, to)
	case response.Header["Content-Length"] != nil:
		return &Error{
			Reason: reasonProtocol, Server: true, Status: response.StatusCode, Proxy: p.name,
			words: "sends Content-Length with a tunnel (RFC 9110 section 9.3.6)",
		}
	}
	return nil
}

// mayRetry reports whether a tunnel that failed may succeed on another connection.
func (c *h2Conn) mayRetry(ctx context.Context, err error, fresh bool) bool {
	var (
		refusal *Error
		reset   h2.StreamError
	)
	switch {
	case ctx.Err() != nil, errors.As(err, &refusal):
		return false
	case errors.As(err, &reset):
		return reset.Code == h2.ErrCodeRefusedStream // RFC 9113 section 8.7
	case c.cc.Err() == nil:
		return true // GOAWAY, or a place was lost to new SETTINGS
	}
	return !fresh
}

// untunnelled is the error of a tunnel that failed on the last connection it was asked for on. heard says that the proxy is alive.
func (p *Proxy) untunnelled(ctx context.Context, err error, to Destination, heard bool) error {
	var (
		refusal *Error
		reset   h2.StreamError
	)
	switch {
	case errors.As(err, &refusal):
		return refusal
	case ctx.Err() != nil:
		return p.unanswered(ctx.Err(), heard)
	case !errors.As(err, &reset):
		return p.broken(err)
	}
	e := &Error{ // Heard, since that may stand in the place of an answer, as the end of a connection does elsewhere
		Reason: reasonTerminated, Server: true, Heard: true, Proxy: p.name,
		words: fmt.Sprintf("reset the stream (HTTP/2 %v)", reset.Code), // without the target, as in refused5
	}
	switch reset.Code {
	case h2.ErrCodeConnect:
		e.Reason, e.Server, e.Heard = reasonUnavailable, false, false
		e.words = fmt.Sprintf("reset the stream to %v (HTTP/2 %v)", to, reset.Code)
	case h2.ErrCodeRefusedStream, h2.ErrCodeEnhanceYourCalm:
		e.Reason = reasonLimit
	case h2.ErrCodeProtocol:
		e.Reason, e.Heard = reasonProtocol, false
	}
	return e
}

func newH2Wire(c net.Conn, closed func()) *h2Wire {
	w := &h2Wire{Conn: c, settled: make(chan struct{}), missing: frameHeader, flow: newFlowGuard(), preface: len(h2.ClientPreface)}
	w.settle = sync.OnceFunc(func() { close(w.settled) })
	w.closeOnce = sync.OnceValue(func() error {
		w.settle()
		closed()
		return c.Close()
	})
	return w
}

// Read implements net.Conn. Whoever reads on has dealt with what came before: that tells when SETTINGS are in force.
func (w *h2Wire) Read(b []byte) (int, error) {
	if w.missing == 0 && !w.inForce {
		w.inForce = true
		w.settle()
	}
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.reads.Add(1)
	}
	if err != nil {
		w.end.Store(&err)
	}
	if w.missing > 0 {
		w.watch(b[:n])
	}
	if broken := w.flow.received(b[:n]); broken != nil {
		return 0, broken
	}
	return n, err
}

// Write implements net.Conn. net/http writes one thing after the other.
func (w *h2Wire) Write(b []byte) (int, error) {
	// Before it goes out: the peer may answer at once.
	skip := min(w.preface, len(b))
	w.preface -= skip
	w.flow.sent(b[skip:])
	return w.Conn.Write(b)
}

// watch looks for the end of the first frame. net/http sees to it that it is SETTINGS.
func (w *h2Wire) watch(b []byte) {
	if n := min(frameHeader-len(w.header), len(b)); n > 0 {
		w.header = append(w.header, b[:n]...)
		if w.missing, b = w.missing-n, b[n:]; w.missing == 0 {
			w.missing = int(w.header[0])<<16 | int(w.header[1])<<8 | int(w.header[2])
		}
	}
	w.missing -= min(w.missing, len(b))
}

// Close implements net.Conn.
func (w *h2Wire) Close() error { return w.closeOnce() }
