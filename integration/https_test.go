package integration

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// newSecureWeb starts a TLS server for localhost, and returns its port and the root of its certificate.
func newSecureWeb(t *testing.T, handle http.HandlerFunc, hosts ...string) (port, root string) {
	t.Helper()
	cert, root := certificate(t, hosts...)
	s := httptest.NewUnstartedServer(handle)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	s.EnableHTTP2 = true // which the gateway does not ask for
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port, root
}

// trusting starts a gateway that trusts one root, besides none.
func trusting(t *testing.T, root, config string) *gateway {
	t.Helper()
	g := prepare(t, config)
	g.cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+root, "SSL_CERT_DIR="+t.TempDir())
	g.run()
	g.waitListening(1)
	return g
}

// TestForwardHTTPS: requests for https URIs without a tunnel are fetched over TLS, if the setting says so.
func TestForwardHTTPS(t *testing.T) {
	t.Parallel()
	port, root := newSecureWeb(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s over %s, %s, %q from %s", r.Method, r.Host, r.URL, r.Proto, tls.VersionName(r.TLS.Version), body, r.Header.Get("Via"))
	}, "localhost", "127.0.0.1")
	strange, _ := newSecureWeb(t, func(http.ResponseWriter, *http.Request) { t.Error("a request came by an untrusted certificate") }, "localhost")
	plain := strings.Split(helloServer(t), ":")[1]
	const on = "[http]\nforward_https = true\n"
	g := trusting(t, root, listenAnywhere+allowLoopback)
	ask := func(c net.Conn, r *bufio.Reader, request string) (int, string, http.Header) {
		t.Helper()
		say(t, c, request)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("after %.40q: %v", request, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("after %.40q: %v", request, err)
		}
		return resp.StatusCode, string(body), resp.Header
	}
	c := dial(t, g.at())
	if status, body, _ := ask(c, bufio.NewReader(c), "GET https://localhost:"+port+"/ HTTP/1.1\r\nHost: x\r\n\r\n"); status != 400 || !strings.Contains(body, "forward_https") {
		t.Errorf("without the setting: %d %q", status, body)
	}
	g.reload(listenAnywhere + on + allowLoopback)
	c = dial(t, g.at())
	r := bufio.NewReader(c)
	for _, tt := range []struct{ request, want, url string }{
		{"GET https://localhost:" + port + "/a?b HTTP/1.1\r\nHost: x\r\n\r\n", `GET localhost:` + port + ` /a?b over HTTP/1.1, TLS 1.3, "" from 1.1 polyport`, "https://localhost:" + port + "/a?"},
		{"POST https://LOCALHOST:" + port + "/c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", `POST localhost:` + port + ` /c over HTTP/1.1, TLS 1.3, "hello" from 1.1 polyport`, "https://localhost:" + port + "/c"},
		{"GET https://127.0.0.1:" + port + "/d HTTP/1.1\r\nHost: x\r\n\r\n", `GET 127.0.0.1:` + port + ` /d over HTTP/1.1, TLS 1.3, "" from 1.1 polyport`, "https://127.0.0.1:" + port + "/d"},
	} {
		if status, body, _ := ask(c, r, tt.request); status != 200 || body != tt.want {
			t.Errorf("%.40q: %d %q, want %q", tt.request, status, body, tt.want)
		}
		g.record("protocol=http", "status=200", "url="+tt.url)
	}
	for _, tt := range []struct{ name, port, token string }{
		{"an untrusted certificate", strange, "tls_certificate_error"},
		{"no TLS", plain, "tls_protocol_error"},
	} {
		if status, _, h := ask(c, r, "GET https://localhost:"+tt.port+"/ HTTP/1.1\r\nHost: x\r\n\r\n"); status != 502 || h.Get("Proxy-Status") != "polyport; error="+tt.token {
			t.Errorf("%s: %d, Proxy-Status %q", tt.name, status, h.Get("Proxy-Status"))
		}
		g.record("protocol=http", "status=502", "reason="+tt.token)
	}
}
