package httpproxy

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"polyport/internal/auth"
)

func TestHelpPage(t *testing.T) {
	g := newGateway(t, gatewayOptions{address: "proxy.example.net:7659"})
	c := g.connect()
	c.send("GET / HTTP/1.1\r\nHost: evil.example\r\nUser-Agent: echo-me\r\nAccept: text/html\r\n\r\n")
	resp, body := c.response(http.MethodGet)
	if resp.StatusCode != 200 || resp.Close {
		t.Errorf("answer %d, close %v; want 200 on a connection that goes on", resp.StatusCode, resp.Close)
	}
	for name, value := range map[string]string{
		"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
	} {
		want(t, name, resp.Header.Get(name), value)
	}
	for _, s := range []string{
		"curl -x http://proxy.example.net:7659", "curl -x socks5h://proxy.example.net:7659", "curl -x socks4a://proxy.example.net:7659",
		"http://proxy.example.net:7659/proxy.pac", "https_proxy=http://proxy.example.net:7659", "git config",
		"nc -X 5 -x proxy.example.net:7659 %h %p", "nc -X connect", "Windows", "macOS", "Android", "iPhone", "GNOME", "Firefox", "socks5 proxy.example.net 7659",
	} {
		if !strings.Contains(body, s) {
			t.Errorf("the page does not say %q", s)
		}
	}
	for _, s := range []string{"evil.example", "echo-me", "<script", "javascript:", "src=", "<link", "@import", "url("} {
		if strings.Contains(body, s) {
			t.Errorf("the page has %q", s)
		}
	}
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindStringSubmatch(body)
	if style == nil {
		t.Fatal("the page has no style")
	}
	sum := sha256.Sum256([]byte(style[1]))
	policy := resp.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, base64.StdEncoding.EncodeToString(sum[:])) {
		t.Errorf("the policy %q does not admit the page's own style", policy)
	}
	if !strings.Contains(style[1], "prefers-color-scheme: dark") {
		t.Error("the style knows no dark mode")
	}
}

func TestHelpPageSaysOnlyWhatIsServed(t *testing.T) {
	tests := []struct {
		name      string
		rows      []string
		secure    string
		has, lack []string
	}{
		{"http alone", []string{"http"}, "", []string{"curl -x http://"}, []string{"socks", "ssh", "git config", "https_proxy", "TLS", "--proxy https"}},
		{"http and socks5", []string{"http", "socks5"}, "", []string{"socks5h://", "ALL_PROXY", "nc -X 5"}, []string{"socks4a", "nc -X connect", "https_proxy", "TLS"}},
		{"http and connect", []string{"http", "connect"}, "", []string{"https_proxy", "proxy.pac", "nc -X connect"}, []string{"socks", "TLS"}},
		{
			"http alone by TLS",
			[]string{"http", "tls"},
			"proxy.test",
			[]string{"curl --proxy https://proxy.test:7659 http://example.com/", "<h2>By TLS</h2>"},
			[]string{"socat", "HTTP/2", "https://proxy.test:7659 https://", "https://proxy.test:7659/proxy.pac"},
		},
		{
			"everything by TLS", []string{"http", "connect", "socks5", "tls"}, "proxy.test", []string{
				"curl --proxy https://proxy.test:7659 http://example.com/", "curl --proxy https://proxy.test:7659 https://example.com/",
				"chromium --proxy-server=https://proxy.test:7659", "https://proxy.test:7659/proxy.pac", "--proxy-http2", "OPENSSL:proxy.test:7659",
				"curl -x http://127.0.0.1:7659", // and without it as before
			}, nil,
		},
		{"no row for TLS", []string{"http"}, "proxy.test", nil, []string{"TLS", "proxy.test"}},
		{"an address by TLS", []string{"http", "tls"}, "2001:db8::1", []string{"--proxy https://[2001:db8::1]:7659"}, nil},
		{"a pattern is no name", []string{"http", "tls"}, "*.proxy.test", nil, []string{"TLS", "*"}},
		{"nor is this", []string{"http", "tls"}, "a$(id)", nil, []string{"TLS", "$(id)"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows := map[string]bool{}
			for _, r := range tt.rows {
				rows[r] = true
			}
			s, err := newSetup("127.0.0.1:7659", tt.secure, func(row string) bool { return rows[row] })
			if err != nil {
				t.Fatal(err)
			}
			b, err := s.page()
			if err != nil {
				t.Fatal(err)
			}
			for _, has := range tt.has {
				if !strings.Contains(string(b), has) {
					t.Errorf("the page does not say %q", has)
				}
			}
			for _, lack := range tt.lack {
				if strings.Contains(string(b), lack) {
					t.Errorf("the page says %q", lack)
				}
			}
		})
	}
}

func TestPAC(t *testing.T) {
	web := map[string]bool{"http": true, "connect": true}
	webTLS := map[string]bool{"http": true, "connect": true, "tls": true}
	tests := []struct {
		name, address, secure string
		rows                  map[string]bool
		users                 auth.Authenticator
		want                  string
	}{
		{"everything", "proxy.example.net:7659", "", nil, nil, "SOCKS5 proxy.example.net:7659; PROXY proxy.example.net:7659"},
		{"no socks", "proxy.example.net:7659", "", web, nil, "PROXY proxy.example.net:7659"},
		{"IPv6", "[2001:db8::1]:7659", "", nil, nil, "SOCKS5 [2001:db8::1]:7659; PROXY [2001:db8::1]:7659"},
		{"passwords", "proxy.example.net:7659", "", nil, users{}, "PROXY proxy.example.net:7659; SOCKS5 proxy.example.net:7659"},
		{"TLS", "192.0.2.1:7659", "proxy.example.net", nil, nil, "HTTPS proxy.example.net:7659; SOCKS5 192.0.2.1:7659; PROXY 192.0.2.1:7659"},
		{"TLS, passwords", "192.0.2.1:7659", "proxy.example.net", nil, users{}, "HTTPS proxy.example.net:7659"},
		{"TLS, no socks", "192.0.2.1:7659", "proxy.example.net", webTLS, nil, "HTTPS proxy.example.net:7659; PROXY 192.0.2.1:7659"},
		{"TLS that is not served here", "192.0.2.1:7659", "proxy.example.net", web, users{}, "PROXY 192.0.2.1:7659"},
		{"a name that is none", "192.0.2.1:7659", `"; DIRECT`, webTLS, nil, "PROXY 192.0.2.1:7659"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, gatewayOptions{address: tt.address, rows: tt.rows, secureName: tt.secure, users: tt.users})
			c := g.connect()
			for _, path := range []string{"/proxy.pac", "/wpad.dat", "/proxy.pac?x=1"} {
				c.send("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
				resp, body := c.response(http.MethodGet)
				want(t, "content type", resp.Header.Get("Content-Type"), "application/x-ns-proxy-autoconfig")
				if resp.StatusCode != 200 || !strings.Contains(body, "return \""+tt.want+"\";\n}") || !strings.Contains(body, "function FindProxyForURL(url, host)") {
					t.Errorf("%s: %d %q", path, resp.StatusCode, body)
				}
				if strings.Count(body, "{") != strings.Count(body, "}") || strings.Count(body, "(") != strings.Count(body, ")") {
					t.Errorf("%s has brackets that do not match: %q", path, body)
				}
			}
		})
	}
}

// TestWaysWithoutClearText: where nobody is served outside TLS a browser is not sent there, which would only show where it goes.
func TestWaysWithoutClearText(t *testing.T) {
	s := setup{Address: "192.0.2.1:7659", Secure: "proxy.example.net:7659", SOCKS5: true}
	if got, want := strings.Join(s.ways(false, true), "; "), "HTTPS proxy.example.net:7659"; got != want {
		t.Errorf("the ways are %q, want %q", got, want)
	}
}

func TestHelpPageAddressIsTheClientsOwn(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("GET / HTTP/1.0\r\n\r\n")
	if _, body := c.response(http.MethodGet); !strings.Contains(body, "http://"+c.RemoteAddr().String()) {
		t.Errorf("the page does not name %v, where the client is connected to", c.RemoteAddr())
	}
}

// TestBadAddress: an address of the configuration that is none is not put into a page.
func TestBadAddress(t *testing.T) {
	for _, a := range []string{"", "host", "host:0", "host:x", "a b:80", "a\"b:80", "a;b:80", "<b>:80", "$(id):80", "[::1%eth0]:80"} {
		if s, err := newSetup(a, "", func(string) bool { return true }); err == nil {
			t.Errorf("newSetup(%q) = %+v, want an error", a, s)
		}
	}
}

func TestOtherPages(t *testing.T) {
	tests := []struct {
		name, request string
		help          bool
		status        int
	}{
		{"nothing there", "GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n", true, 404},
		{"no way up", "GET /../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", true, 404},
		{"POST", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", true, 405},
		{"off", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false, 400},
		{"off, PAC", "GET /proxy.pac HTTP/1.1\r\nHost: x\r\n\r\n", false, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, gatewayOptions{noHelp: !tt.help})
			c := g.connect()
			c.send("%s", tt.request)
			resp, body := c.response(http.MethodGet)
			if resp.StatusCode != tt.status {
				t.Errorf("answer %d, want %d", resp.StatusCode, tt.status)
			}
			if !tt.help && (strings.Contains(body, "127.0.0.1") || !strings.Contains(body, "proxy")) {
				t.Errorf("the page is %q", body)
			}
			if resp.StatusCode == 405 {
				want(t, "Allow", resp.Header.Get("Allow"), "GET, HEAD")
			}
		})
	}
}

func TestHelpPageForHEAD(t *testing.T) {
	g := newGateway(t, gatewayOptions{})
	c := g.connect()
	c.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\nGET /proxy.pac HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, _ := c.response(http.MethodHead); resp.StatusCode != 200 || resp.ContentLength <= 0 {
		t.Errorf("answer %d with length %d", resp.StatusCode, resp.ContentLength)
	}
	if resp, body := c.response(http.MethodGet); resp.StatusCode != 200 || !strings.HasPrefix(body, "function") {
		t.Errorf("then %d %q", resp.StatusCode, body)
	}
}

// Where nobody is served in the clear, the page offers no way that would be refused.
func TestHelpPageOfAListenerThatWantsTLS(t *testing.T) {
	s, err := newSetup("192.0.2.1:7659", "proxy.test", func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	s.OnlyTLS = true
	b, err := s.page()
	if err != nil {
		t.Fatal(err)
	}
	for _, has := range []string{"It serves nobody outside TLS", "curl --proxy https://proxy.test:7659", "OPENSSL:proxy.test:7659", "https://USER:PASSWORD@proxy.test:7659"} {
		if !strings.Contains(string(b), has) {
			t.Errorf("the page does not say %q", has)
		}
	}
	for _, lack := range []string{"http://192.0.2.1", "socks5h://192.0.2.1", "nc -X", "proxychains"} {
		if strings.Contains(string(b), lack) {
			t.Errorf("the page says %q", lack)
		}
	}
}
