package load

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"polyport/bench/certificate"
	"polyport/bench/loopback"
	"polyport/bench/measure"
	"polyport/bench/yardstick"
)

// newTLSLoad is a load through the yardstick of TLS, with TLS if it has a configuration.
func newTLSLoad(t *testing.T, proto string, change func(*tls.Config)) *Load {
	t.Helper()
	cert, err := certificate.New("proxy.test")
	if err != nil {
		t.Fatal(err)
	}
	tunnels, web := startOrigin(t)
	proxy, y := listen(t), yardstick.TLS{Target: netip.MustParseAddrPort(tunnels)}
	if proto != measure.Raw {
		y.Config = &tls.Config{Certificates: []tls.Certificate{cert}}
		change(y.Config)
	}
	go y.Serve(proxy)
	e, err := NewEndpoint(proto, proxy.Addr().String(), tunnels, web, "bench.test")
	if err != nil {
		t.Fatal(err)
	}
	if proto != measure.Raw {
		e = e.Secured("proxy.test", cert.Certificate[0])
	}
	return New("gotls", 1, e, still{}, small)
}

func asItIs(*tls.Config) {}

func TestTLSWorkloads(t *testing.T) {
	for _, tt := range []struct{ work, proto, variants string }{
		{measure.Handshakes, measure.Raw, "plain"},
		{measure.Handshakes, measure.RawTLS, "full resumed full alone resumed alone"},
		{measure.TLSBulk, measure.RawTLS, "down1 up1 down8 up8 down up"},
	} {
		t.Run(tt.work+"/"+tt.proto, func(t *testing.T) {
			l := newTLSLoad(t, tt.proto, asItIs)
			if err := l.Check(); err != nil {
				t.Error(err)
			}
			var variants []string
			for _, m := range l.Run(tt.work) {
				variants = append(variants, m.Variant)
				if m.Errors > 0 || m.Metrics[measure.PerSec]+m.Metrics[measure.GBps]+m.Metrics[measure.Bytes] <= 0 || m.Work != tt.work {
					t.Errorf("%s %s: %d errors (%s), %v", m.Work, m.Variant, m.Errors, m.FirstErr, m.Metrics)
				}
			}
			if got := strings.Join(variants, " "); got != tt.variants {
				t.Errorf("variants %s, want %s", got, tt.variants)
			}
		})
	}
}

func TestAHandshakeOfAnotherKindIsAnError(t *testing.T) {
	other, err := certificate.New("proxy.test")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*tls.Config)
		want   string
	}{
		{"TLS 1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, "protocol version"},
		{"another key exchange", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }, "handshake"},
		{"another certificate", func(c *tls.Config) { c.Certificates = []tls.Certificate{other} }, "not the one of this run"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := newTLSLoad(t, measure.RawTLS, tt.change).Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestResumption: what was resumed is told from what was not.
func TestResumption(t *testing.T) {
	l := newTLSLoad(t, measure.RawTLS, asItIs)
	keeps := l.end.secure.Clone()
	keeps.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i, tt := range []struct {
		config  *tls.Config
		resumed bool
		ok      bool
	}{
		{l.end.secure, false, true}, {l.end.secure, false, true}, {l.end.secure, true, false}, // it keeps no ticket
		{keeps, true, false}, {keeps, true, true}, {keeps, false, false},
	} {
		if err := l.echoSecure(tt.config, tt.resumed); (err == nil) != tt.ok {
			t.Errorf("handshake %d: %v, want ok = %v", i, err, tt.ok)
		}
	}
}

func TestAnotherCipherIsAnError(t *testing.T) {
	s := tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_256_GCM_SHA384, CurveID: tls.X25519}
	if err := checkState(s, nil); err == nil || !strings.Contains(err.Error(), "AES_256") {
		t.Errorf("checkState = %v", err)
	}
}

// connectTLS is a proxy that grants CONNECT in TLS and is the target itself.
func connectTLS(t *testing.T, cert tls.Certificate) string {
	l := listen(t)
	go loopback.Serve(l, func(tcp *net.TCPConn) {
		c := tls.Server(tcp, &tls.Config{Certificates: []tls.Certificate{cert}})
		defer c.Close()
		r := bufio.NewReader(c)
		if q, err := http.ReadRequest(r); err != nil || q.Method != http.MethodConnect {
			return
		}
		c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
		if b, _ := r.ReadByte(); b == 'E' {
			io.Copy(c, r)
		}
	})
	return l.Addr().String()
}

func TestConnectInTLS(t *testing.T) {
	cert, err := certificate.New("proxy.test")
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEndpoint(measure.ConnectTLS, connectTLS(t, cert), "127.0.0.1:1", "127.0.0.1:2", "")
	if err != nil {
		t.Fatal(err)
	}
	l := New("x", 1, e.Secured("proxy.test", cert.Certificate[0]), still{}, small)
	if err := l.Check(); err != nil {
		t.Error(err)
	}
}
