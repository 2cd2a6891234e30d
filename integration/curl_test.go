package integration

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCurl(t *testing.T) {
	g := start(t, listenAnywhere+allowLoopback)
	plain := httptest.NewServer(http.HandlerFunc(hello))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.HandlerFunc(hello))
	defer secure.Close()
	host, secureHost := strings.TrimPrefix(plain.URL, "http://"), strings.TrimPrefix(secure.URL, "https://")
	byName := strings.Replace(plain.URL, "127.0.0.1", "localhost", 1)
	tests := []struct {
		name, proxy, url, want, protocol string
	}{
		{"http", "http://", plain.URL + "/a", "hello from " + host + "/a over HTTP/1.1", "http"},
		{"http by name", "http://", byName + "/a", "hello from localhost" + host[len("127.0.0.1"):] + "/a over HTTP/1.1", "http"},
		{"https", "http://", secure.URL + "/b", "hello from " + secureHost + "/b over HTTP/1.1", "connect"},
		{"socks4", "socks4://", plain.URL + "/c", "hello from " + host + "/c over HTTP/1.1", "socks4"},
		{"socks4a", "socks4a://", byName + "/d", "/d over HTTP/1.1", "socks4"},
		{"socks5", "socks5://", plain.URL + "/e", "hello from " + host + "/e over HTTP/1.1", "socks5"},
		{"socks5h", "socks5h://", byName + "/f", "/f over HTTP/1.1", "socks5"},
		{"socks5h and tls", "socks5h://", strings.Replace(secure.URL, "127.0.0.1", "localhost", 1) + "/g", "/g over HTTP/1.1", "socks5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, "curl", "-sSk", "--http1.1", "-x", tt.proxy+g.at(), tt.url)
			if got.code != 0 || !strings.Contains(got.stdout, tt.want) {
				t.Errorf("curl ended with %d and printed %q, %q; want 0 and %q", got.code, got.stdout, got.stderr, tt.want)
			}
			g.record("protocol=" + tt.protocol)
		})
	}
}
