package resolve

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/http2"
)

const (
	// messageType is the media type of a message (RFC 8484 section 6).
	messageType = "application/dns-message"
	// defaultPath is the one that all examples of RFC 8484 have.
	defaultPath = "/dns-query"
	// webConns bounds the connections to one server that speaks HTTP/1.1 only.
	webConns = 16
	// maxHeader bounds the header of a response in bytes.
	maxHeader = 16 << 10
	// pingTimeout is how long an HTTP/2 connection may be silent before it must answer a
	// PING, and how long that may take.
	pingTimeout = 2 * time.Second
)

// web is the transport over HTTPS.
type web struct {
	url       string
	transport *http.Transport
	ctx       context.Context // ends with close
	stop      context.CancelFunc
}

// newWeb makes the transport to a server that dial reaches. HTTP/2 is used if its TLS chose that.
func newWeb(s Server, dial func(context.Context) (net.Conn, error)) *web {
	w := &web{url: webURL(s)}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.transport = &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, tryTimeout) // it outlives the query that began it
			defer cancel()
			defer context.AfterFunc(w.ctx, cancel)()
			return dial(ctx)
		},
		ForceAttemptHTTP2:      true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingTimeout, PingTimeout: pingTimeout},
		MaxConnsPerHost:        webConns,
		MaxIdleConnsPerHost:    webConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true,
	}
	// The HTTP/2 of net/http in Go 1.26.8 waits for itself for ever when a server opens a stream's window beyond its limit (RFC 9113
	// section 6.9.1); that of x/net does not. It fails where HTTP/2 has been set up already, which nobody has.
	//lint:ignore SA1019 net/http is to be preferred once its fault is mended
	if _, err := http2.ConfigureTransports(w.transport); err != nil {
		panic(err)
	}
	return w
}

// webURL is the address that queries are posted to.
func webURL(s Server) string {
	u := url.URL{Scheme: "https", Host: strings.TrimSuffix(s.Name, "."), Path: s.Path}
	if u.Path == "" {
		u.Path = defaultPath
	}
	if plain, err := url.PathUnescape(s.Path); err == nil && s.Path != "" {
		u.Path, u.RawPath = plain, s.Path // what is escaped stays so
	}
	if len(s.Addrs) == 0 {
		return u.String()
	}
	addr, port := s.Addrs[0].Addr().Unmap().WithZone(""), int(s.Addrs[0].Port())
	switch {
	case u.Host == "" && addr.Is6():
		u.Host = "[" + addr.String() + "]"
	case u.Host == "":
		u.Host = addr.String()
	}
	if port != 443 {
		u.Host += ":" + strconv.Itoa(port)
	}
	return u.String()
}

// exchange implements transport.
func (w *web) exchange(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
	q.Id = 0 // RFC 8484 section 4.1: for caches
	wire, err := q.Pack()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(wire))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", messageType)
	req.Header.Set("Accept", messageType)
	req.Header.Set("User-Agent", "") // sends none
	// The empty key is not sent. It allows Transport to repeat the query when a kept
	// connection turns out to be dead.
	req.Header["Idempotency-Key"] = []string{}
	// Not http.Client, since redirects and cookies are none of a resolver's affair.
	resp, err := w.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readResponse(resp, q)
}

// readResponse reads the answer to q.
func readResponse(resp *http.Response, q *dns.Msg) (*dns.Msg, error) {
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d", resp.StatusCode)
	}
	kind := resp.Header.Get("Content-Type")
	if t, _, err := mime.ParseMediaType(kind); err != nil || t != messageType {
		return nil, fmt.Errorf("an answer of type %q instead of %s", kind, messageType)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, dns.MaxMsgSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > dns.MaxMsgSize {
		return nil, fmt.Errorf("an answer of more than %d bytes", dns.MaxMsgSize)
	}
	m, err := readMessage(body, q)
	if err != nil {
		return nil, err
	}
	mature(m, resp.Header.Get("Age"))
	return m, nil
}

// mature takes the time that an answer has spent in HTTP caches, the Age of RFC 9111 section
// 5.1 in seconds, off its records (RFC 8484 section 5.1).
func mature(m *dns.Msg, age string) {
	seconds, err := strconv.ParseUint(age, 10, 64)
	if err != nil {
		return
	}
	for _, section := range [...][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			h := rr.Header()
			h.Ttl -= uint32(min(uint64(h.Ttl), seconds))
		}
	}
}

// close implements transport.
func (w *web) close() {
	w.stop()
	w.transport.CloseIdleConnections()
}
