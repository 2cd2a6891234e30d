package httpproxy

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"polyport/internal/http1"
	"polyport/internal/http2"
)

// bridge is a stream of HTTP/2 as the connection of one exchange of HTTP/1.1: what is read is the request as text, what is
// written the content of a tunnel. Answers go by a sink.
type bridge struct {
	*http2.Stream
	text  []byte // of the request, not yet read: its head, then what ends a chunked body
	body  bodyForm
	ended bool   // the end of the body has been read
	key   string // Sec-WebSocket-Key of an extended CONNECT
	gone  gone
	// underway says that a response has begun whose end has not been written.
	underway atomic.Bool
	close    sync.Once
	closed   chan struct{}
}

// bodyForm is how the content of a stream is read.
type bodyForm uint8

const (
	bodyNone    bodyForm = iota // there is none
	bodyLength                  // as it is: its length is in the head
	bodyChunked                 // in chunks
	bodyTunnel                  // as it is, without an end of its own
)

func newBridge(st *http2.Stream) *bridge {
	b := &bridge{Stream: st, closed: make(chan struct{})}
	st.OnReset(b.gone.is)
	return b
}

// Close implements net.Conn. A response that breaks off is reset: END_STREAM would say that it is whole (RFC 9113 section 8.1).
func (b *bridge) Close() error {
	b.gone.do(nil)
	if b.underway.Load() {
		_ = b.Stream.SetLinger(0) // never fails
	}
	err := b.Stream.Close()
	b.close.Do(func() { close(b.closed) })
	return err
}

// translate writes the head of the request as HTTP/1.1 has it (RFC 9113 section 8.3). own says that it is for the gateway's
// own pages or sites. Everything is checked once more when it is read.
func (b *bridge) translate(own bool) *refusal {
	h := b.Head()
	w := &headText{b: make([]byte, 0, textSize(h))}
	switch {
	case h.Method == methodConnect && h.Protocol == "":
		b.body = bodyTunnel
		w.line(h.Method, h.Authority)
	case h.Method == methodConnect:
		if h.Protocol != "websocket" {
			return &refusal{status: statusNotImplemented, reason: requestError, says: "This protocol cannot be asked for by extended CONNECT here."}
		}
		b.body, b.key = bodyTunnel, newWebSocketKey()
		w.line(methodGet, requestTarget(h, own))
		w.field("upgrade", h.Protocol)
		w.field("sec-websocket-key", b.key)
	default:
		w.line(h.Method, requestTarget(h, own))
	}
	w.field("host", h.Authority)
	b.text = b.fields(w, h)
	if w.bad {
		return badRequest(errors.New("the head of the request holds bytes that HTTP does not allow (RFC 9113 section 8.2.1)"))
	}
	return nil
}

// requestTarget is the request target in origin-form for the gateway's own pages and sites, else in absolute-form.
func requestTarget(h *http2.Head, own bool) string {
	switch {
	case own:
		return h.Path
	case h.Path == "*":
		return h.Scheme + "://" + h.Authority
	}
	return h.Scheme + "://" + h.Authority + h.Path
}

// textSize is about how long the head is as text: one that grew would leave several times as much behind.
func textSize(h *http2.Head) int {
	const around = len(": \r\n")
	n := 256 + len(h.Method) + len(h.Scheme) + 2*len(h.Authority) + len(h.Path)
	for _, f := range h.Fields {
		n += len(f.Name) + len(f.Value) + around
	}
	return n
}

// fields writes the field lines, and what frames the body.
func (b *bridge) fields(w *headText, h *http2.Head) []byte {
	var cookies []string
	for _, f := range h.Fields {
		switch f.Name {
		case "host", "content-length", "sec-websocket-key":
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
			w.bad = true // they are of HTTP/1.1 alone, and here they would frame what follows (RFC 9113 section 8.2.2)
		case "cookie": // crumbs are one field again (RFC 9113 section 8.2.3)
			if f.Value != "" {
				cookies = append(cookies, f.Value)
			}
		default:
			w.field(f.Name, f.Value)
		}
	}
	if len(cookies) > 0 {
		w.field("cookie", strings.Join(cookies, "; "))
	}
	connection := "close" // one stream is one exchange
	if b.key != "" {
		connection = "close, upgrade"
	}
	w.field("connection", connection)
	switch {
	case b.body == bodyTunnel:
	case h.Length >= 0:
		b.body = bodyLength
		w.field("content-length", strconv.FormatInt(h.Length, 10))
	case !h.End:
		b.body = bodyChunked
		w.field("transfer-encoding", "chunked")
	}
	return append(w.b, "\r\n"...)
}

// headText is the text of a head.
type headText struct {
	b   []byte
	bad bool // something in it would not be what it seems
}

// line writes the request line.
func (w *headText) line(method, target string) {
	w.bad = w.bad || !visible(method) || !visible(target)
	w.b = append(w.b, method+" "+target+" HTTP/1.1\r\n"...)
}

// field writes a field line.
func (w *headText) field(name, value string) {
	w.bad = w.bad || !visible(name) || strings.Contains(name, ":") || strings.ToLower(name) != name || strings.ContainsAny(value, "\r\n\x00")
	w.b = append(w.b, name...)
	w.b = append(w.b, ": "...)
	w.b = append(w.b, value...)
	w.b = append(w.b, "\r\n"...)
}

// visible reports whether s is of visible bytes alone, so that no space or line end changes what a line means.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return s != ""
}

// chunkRoom is what a chunk has around its content.
const chunkRoom = len("0000ffff\r\n") + len("\r\n")

// Read reads the text of the request.
func (b *bridge) Read(p []byte) (int, error) {
	if len(b.text) > 0 {
		n := copy(p, b.text)
		if b.text = b.text[n:]; len(b.text) == 0 {
			b.text = nil // it may be long, and the exchange too
		}
		return n, nil
	}
	switch {
	case b.body == bodyNone || b.ended:
		return 0, io.EOF
	case b.body != bodyChunked:
		return b.Stream.Read(p)
	case len(p) <= chunkRoom:
		var small [64]byte
		n, err := b.readChunk(small[:])
		copied := copy(p, small[:n])
		b.text = slices.Concat(small[copied:n], b.text) // which holds what small had no room for
		return copied, err
	}
	return b.readChunk(p)
}

// readChunk reads some content as a chunk (RFC 9112 section 7.1), or the last one with the trailers.
func (b *bridge) readChunk(p []byte) (int, error) {
	const head = chunkRoom - len("\r\n")
	n, err := b.Stream.Read(p[head : len(p)-len("\r\n")])
	if err == io.EOF && n == 0 {
		b.ended = true
		if b.text = b.lastChunk(); b.text == nil {
			return 0, errTrailers
		}
		n := copy(p, b.text)
		b.text = b.text[n:]
		return n, nil
	}
	if n == 0 {
		return 0, err
	}
	const digits = "0123456789abcdef"
	for i := range head - len("\r\n") {
		p[i] = digits[n>>(4*(head-len("\r\n")-1-i))&0xf]
	}
	copy(p[head-len("\r\n"):], "\r\n")
	copy(p[head+n:], "\r\n")
	if err == io.EOF {
		err = nil // the next Read says so
	}
	return head + n + len("\r\n"), err
}

var errTrailers = errors.New("the trailers of the request hold bytes that HTTP does not allow")

// lastChunk is the text behind the content; nil if the trailers cannot be written.
func (b *bridge) lastChunk() []byte {
	w := headText{b: []byte("0\r\n")}
	for _, f := range b.Trailers() {
		w.field(f.Name, f.Value)
	}
	if w.bad {
		return nil
	}
	return append(w.b, "\r\n"...)
}

// newWebSocketKey makes a Sec-WebSocket-Key (RFC 6455 section 4.1), which extended CONNECT does without.
func newWebSocketKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	return base64.StdEncoding.EncodeToString(b[:])
}

// webSocketAccept is what a server answers to key (RFC 6455 section 4.2.2).
func webSocketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// sink gives a client's answers to its stream.
type sink struct{ c *client }

// Head implements http1.Sink.
func (s sink) Head(status int, fields *http1.Fields, end bool) error {
	b := s.c.bridge
	list := make([]http2.Field, 0, fields.Len())
	for name, value := range fields.All() {
		switch n := lowerName(name); n {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "sec-websocket-accept":
		default:
			list = append(list, http2.Field{Name: n, Value: string(value)})
		}
	}
	tunnel := status == statusSwitchingProtocols
	if tunnel {
		status = statusOK // the tunnel stands (RFC 8441 section 5)
	}
	if err := s.c.beginWrite(); err != nil {
		return err
	}
	if err := b.WriteHead(status, list, end); err != nil {
		return fmt.Errorf("write the head: %w", err)
	}
	b.underway.Store(status >= statusOK && !end && !tunnel)
	return nil
}

// Content implements http1.Sink.
func (s sink) Content(p []byte) error {
	_, err := s.c.stream.Write(p)
	return err
}

// End implements http1.Sink.
func (s sink) End(trailers *http1.Fields) error {
	if err := s.c.beginWrite(); err != nil {
		return err
	}
	err := s.end(trailers)
	if err == nil {
		s.c.bridge.underway.Store(false)
	}
	return err
}

func (s sink) end(trailers *http1.Fields) error {
	b := s.c.bridge
	if trailers == nil || trailers.Len() == 0 {
		return b.CloseWrite()
	}
	var list []http2.Field
	for name, value := range trailers.All() {
		list = append(list, http2.Field{Name: lowerName(name), Value: string(value)})
	}
	return b.WriteTrailers(list)
}

// lowerName is a field's name as HTTP/2 has it (RFC 9113 section 8.2).
func lowerName(name []byte) string { return strings.ToLower(string(name)) }
