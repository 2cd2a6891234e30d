package resolve

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// webServer is a name server over HTTPS.
type webServer struct {
	addr  netip.AddrPort
	conns atomic.Int32

	mu       sync.Mutex
	requests []string
}

// overHTTPS makes the Options to ask it.
func (s *webServer) overHTTPS(name string, roots *x509.CertPool) Options {
	server := Server{Network: HTTPS, Addrs: []netip.AddrPort{s.addr}, Name: name}
	return Options{Servers: []Server{server}, RootCAs: roots, Timeout: 30 * time.Second}
}

// startWeb serves h over HTTP/2, or HTTP/1.1 alone, until the test ends.
func startWeb(t *testing.T, cert tls.Certificate, http2 bool, h http.HandlerFunc) *webServer {
	t.Helper()
	l, addr := listen(t)
	s := &webServer{addr: addr}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Proto+" "+r.Method+" "+r.Host+" "+r.URL.Path+" "+r.Header.Get("Content-Type"))
		s.mu.Unlock()
		h(w, r)
	}))
	srv.Listener.Close()
	srv.Listener = countingListener{l, &s.conns}
	srv.EnableHTTP2 = http2
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return s
}

// webAnswer answers a POST with records, before which change may change the message.
func webAnswer(w http.ResponseWriter, r *http.Request, change func(*dns.Msg), records ...string) {
	body, err := io.ReadAll(r.Body)
	q := new(dns.Msg)
	if err != nil || q.Unpack(body) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	m := message(q, dns.RcodeSuccess, records...)
	if change != nil {
		change(m)
	}
	wire, err := m.Pack()
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", messageType)
	w.Write(wire)
}

func webGood(w http.ResponseWriter, r *http.Request) {
	webAnswer(w, r, nil, "% 60 A 192.0.2.1", "% 60 AAAA 2001:db8::1")
}

func TestServersOverHTTPS(t *testing.T) {
	cert, roots := authority(t, time.Now().Add(time.Hour), "dns.example")
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", messageType)
			w.Header().Set("Location", "/elsewhere")
			if r.URL.Path == "/elsewhere" {
				webGood(w, r)
				return
			}
			w.WriteHeader(code)
		}
	}
	kind := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			webGood(kindWriter{w, s}, r)
		}
	}
	changed := func(f func(*dns.Msg)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { webAnswer(w, r, f, "% 60 A 192.0.2.1") }
	}
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		want []string
		kind error
		says string
	}{
		{"good", webGood, goodAddrs, nil, ""},
		{"a parameter of the type", kind(messageType + "; charset=utf-8"), goodAddrs, nil, ""},
		{"NXDOMAIN", changed(func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }), nil, ErrNotFound, "NXDOMAIN"},
		{"SERVFAIL", changed(func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }), nil, ErrServer, "SERVFAIL"},
		{"status 500", status(500), nil, ErrServer, "HTTP status 500"},
		{"status 204", status(204), nil, ErrServer, "HTTP status 204"},
		{"redirect", status(307), nil, ErrServer, "HTTP status 307"},
		{"wrong type", kind("text/html"), nil, ErrServer, `"text/html"`},
		{"no type", kind(";"), nil, ErrServer, `";"`},
		{"another ID", changed(func(m *dns.Msg) { m.Id = 7 }), nil, ErrServer, "another question"},
		{"another question", changed(func(m *dns.Msg) {
			m.Question[0].Name = "other.example."
		}), nil, ErrServer, "another question"},
		{"not a response", changed(func(m *dns.Msg) { m.Response = false }), nil, ErrServer, "another question"},
		{"truncated", changed(func(m *dns.Msg) { m.Truncated = true }), nil, ErrServer, "truncated"},
		{"garbage", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", messageType)
			io.WriteString(w, "<html>")
		}, nil, ErrServer, "unreadable"},
		{"empty", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", messageType)
		}, nil, ErrServer, "unreadable"},
		{"without end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", messageType)
			for buf := make([]byte, 32<<10); ; {
				if _, err := w.Write(buf); err != nil {
					return
				}
			}
		}, nil, ErrServer, "more than 65535 bytes"},
		{"a huge header", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 10*maxHeader))
			webGood(w, r)
		}, nil, ErrServer, ""},
		{"cut", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "500")
			webGood(w, r)
		}, nil, ErrServer, "read the answer"},
		{"silence", func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, nil, ErrTimeout, "silent"},
	} {
		for _, http2 := range []bool{true, false} {
			t.Run(tt.name+map[bool]string{true: ", HTTP/2", false: ", HTTP/1.1"}[http2], func(t *testing.T) {
				t.Parallel()
				s := startWeb(t, cert, http2, tt.h)
				o := s.overHTTPS("dns.example", roots)
				if tt.kind == ErrTimeout {
					o.Timeout = 600 * time.Millisecond
				}
				r := New(o)
				defer r.Close()
				got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
				checkLookup(t, got, err, tt.want, tt.kind, tt.says)
			})
		}
	}
}

// kindWriter states a type of its own.
type kindWriter struct {
	http.ResponseWriter
	kind string
}

func (w kindWriter) Write(b []byte) (int, error) {
	w.Header().Set("Content-Type", w.kind)
	return w.ResponseWriter.Write(b)
}

// What is asked, and that it is asked on one connection, or few.
func TestRequestsOverHTTPS(t *testing.T) {
	cert, roots := authority(t, time.Now().Add(time.Hour), "dns.example", "127.0.0.1")
	for _, tt := range []struct {
		name   string
		server Server
		http2  bool
		want   string // of the port, "%"
	}{
		{"HTTP/2", Server{Name: "dns.example"}, true, "HTTP/2.0 POST dns.example:% /dns-query application/dns-message"},
		{"HTTP/1.1", Server{Name: "dns.example"}, false, "HTTP/1.1 POST dns.example:% /dns-query application/dns-message"},
		{"by address", Server{Path: "/q"}, true, "HTTP/2.0 POST 127.0.0.1:% /q application/dns-message"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startWeb(t, cert, tt.http2, webGood)
			o := s.overHTTPS(tt.server.Name, roots)
			o.Servers[0].Path, o.Family = tt.server.Path, OnlyIPv4
			r := New(o)
			defer r.Close()
			for _, host := range []string{"a.example", "b.example", "c.example"} {
				got, err := r.Lookup(t.Context(), netip.Addr{}, host)
				checkLookup(t, got, err, goodAddrs[:1], nil, "")
			}
			_, port, _ := strings.Cut(s.addr.String(), ":")
			want := slices.Repeat([]string{strings.ReplaceAll(tt.want, "%", port)}, 3)
			if !slices.Equal(s.requests, want) {
				t.Errorf("requests %q, want %q", s.requests, want)
			}
			if got := s.conns.Load(); got != 1 {
				t.Errorf("%d connections, want 1", got)
			}
		})
	}
}

// A server that closes each connection after one answer costs no look-up.
func TestWebServerCloses(t *testing.T) {
	cert, roots := authority(t, time.Now().Add(time.Hour), "dns.example")
	s := startWeb(t, cert, false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		webGood(w, r)
	})
	r := New(s.overHTTPS("dns.example", roots))
	defer r.Close()
	for _, host := range []string{"a.example", "b.example", "c.example"} {
		got, err := r.Lookup(t.Context(), netip.Addr{}, host)
		checkLookup(t, got, err, goodAddrs, nil, "")
	}
}

// A connection that was kept and has died meanwhile costs no look-up.
func TestKeptWebConnectionDied(t *testing.T) {
	cert, roots := authority(t, time.Now().Add(time.Hour), "dns.example")
	for _, http2 := range []bool{true, false} {
		var n atomic.Int32
		s := startWeb(t, cert, http2, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) != 2 {
				webGood(w, r)
				return
			}
			panic(http.ErrAbortHandler) // HTTP/1.1: the connection; HTTP/2: the stream
		})
		o := s.overHTTPS("dns.example", roots)
		o.Family = OnlyIPv4
		r := New(o)
		defer r.Close()
		for _, host := range []string{"a.example", "b.example", "c.example"} {
			got, err := r.Lookup(t.Context(), netip.Addr{}, host)
			checkLookup(t, got, err, goodAddrs[:1], nil, "")
		}
	}
}

// No proxy of the environment, and no certificate but one of the server's name.
func TestWebCertificate(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	cert, roots := authority(t, time.Now().Add(time.Hour), "dns.example")
	s := startWeb(t, cert, true, webGood)
	for name, says := range map[string]string{"dns.example": "", "dns.example.net": "not dns.example.net", "": "127.0.0.1"} {
		r := New(s.overHTTPS(name, roots))
		defer r.Close()
		got, err := r.Lookup(t.Context(), netip.Addr{}, "a.example")
		if says == "" {
			checkLookup(t, got, err, goodAddrs, nil, "")
		} else {
			checkLookup(t, got, err, nil, ErrServer, says)
		}
	}
}

func TestWebURL(t *testing.T) {
	for want, s := range map[string]Server{
		"https://dns.example/dns-query":       {Name: "dns.example", Addrs: addrPorts("192.0.2.1:443")},
		"https://dns.example:8443/q":          {Name: "dns.example.", Path: "/q", Addrs: addrPorts("[2001:db8::1]:8443")},
		"https://192.0.2.1/dns-query":         {Addrs: addrPorts("192.0.2.1:443")},
		"https://[2001:db8::1]:53/dns-query":  {Addrs: addrPorts("[2001:db8::1]:53", "192.0.2.1:53")},
		"https://[fe80::1]/dns-query":         {Addrs: addrPorts("[fe80::1%lo]:443")},
		"https://nowhere.example/dns-query":   {Name: "nowhere.example"},
		"https://dns.example/%7Bkey%7D/a%2Fb": {Name: "dns.example", Path: "/%7Bkey%7D/a%2Fb", Addrs: addrPorts("192.0.2.1:443")},
		"https://dns.example/100%25":          {Name: "dns.example", Path: "/100%", Addrs: addrPorts("192.0.2.1:443")},
	} {
		if got := webURL(s); got != want {
			t.Errorf("webURL(%+v) = %s, want %s", s, got, want)
		}
	}
}

func addrPorts(s ...string) (list []netip.AddrPort) {
	for _, a := range s {
		list = append(list, netip.MustParseAddrPort(a))
	}
	return list
}

// The time in HTTP caches counts against all lives.
func TestMature(t *testing.T) {
	q := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	for age, want := range map[string]uint32{
		"": 60, "0": 60, "25": 35, "60": 0, "61": 0, "18446744073709551615": 0, "-5": 60, "later": 60, "99999999999999999999": 60,
	} {
		m := message(q, dns.RcodeSuccess, "% 60 A 192.0.2.1")
		m.Ns = []dns.RR{dns.Copy(m.Answer[0])}
		mature(m, age)
		if got := m.Answer[0].Header().Ttl; got != want || m.Ns[0].Header().Ttl != want {
			t.Errorf("Age %q leaves %d and %d of 60 s, want %d", age, got, m.Ns[0].Header().Ttl, want)
		}
	}
}

// FuzzMature: no life becomes longer, whatever Age says.
func FuzzMature(f *testing.F) {
	f.Add("25", uint32(60))
	f.Add("-1", uint32(0))
	f.Fuzz(func(t *testing.T, age string, ttl uint32) {
		m := &dns.Msg{Answer: []dns.RR{&dns.A{Hdr: dns.RR_Header{Ttl: ttl}}}}
		mature(m, age)
		if got := m.Answer[0].Header().Ttl; got > ttl {
			t.Errorf("Age %q makes %d of %d", age, got, ttl)
		}
	})
}
