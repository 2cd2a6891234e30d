package upstream

import (
	"strings"
	"testing"
)

func TestNewProxy(t *testing.T) {
	for _, tt := range []struct {
		name                   string
		o                      ProxyOptions
		scheme                 Scheme
		text, server           string
		user, password, header string
		blocks                 bool
	}{
		{"http", ProxyOptions{URL: "http://gw.example"}, HTTP, "http://gw.example:80", "gw.example:80", "", "", "", false},
		{"https", ProxyOptions{URL: "HTTPS://GW.example./"}, HTTPS, "https://gw.example:443", "gw.example:443", "", "", "", true},
		{"h2", ProxyOptions{URL: "h2://[2001:db8::1]"}, H2, "h2://[2001:db8::1]:443", "[2001:db8::1]:443", "", "", "", true},
		{"socks4", ProxyOptions{URL: "socks4://192.0.2.1", User: "u"}, SOCKS4, "socks4://192.0.2.1:1080", "192.0.2.1:1080", "u", "", "", false},
		{"socks4a", ProxyOptions{URL: "socks4a://192.0.2.1:9050"}, SOCKS4A, "socks4a://192.0.2.1:9050", "192.0.2.1:9050", "", "", "", false},
		{"socks5", ProxyOptions{URL: "socks5://u:p@192.0.2.1"}, SOCKS5, "socks5://192.0.2.1:1080", "192.0.2.1:1080", "u", "p", "", false},
		{"socks5s", ProxyOptions{URL: "socks5s://192.0.2.1"}, SOCKS5S, "socks5s://192.0.2.1:443", "192.0.2.1:443", "", "", "", true},
		{
			"user beside the URL",
			ProxyOptions{URL: "http://192.0.2.1", User: "a", Password: "b:c"},
			HTTP, "http://192.0.2.1:80", "192.0.2.1:80", "a", "b:c", "Basic YTpiOmM=", false,
		},
		{
			"user in the URL",
			ProxyOptions{URL: "http://%C3%A4:%3a%40@192.0.2.1", User: "a", Password: "b"},
			HTTP, "http://192.0.2.1:80", "192.0.2.1:80", "ä", ":@", "Basic w6Q6OkA=", false,
		},
		{
			"user without password",
			ProxyOptions{URL: "http://u@192.0.2.1", User: "a", Password: "b"},
			HTTP, "http://192.0.2.1:80", "192.0.2.1:80", "u", "", "Basic dTo=", false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustProxy(t, tt.o)
			if p.Scheme() != tt.scheme || p.String() != tt.text || p.Server().String() != tt.server || p.Blocks() != tt.blocks {
				t.Errorf("NewProxy(%q) = %v, %v, server %v, Blocks %t", tt.o.URL, p.Scheme(), p, p.Server(), p.Blocks())
			}
			if p.user != tt.user || p.password != tt.password || p.Authorization() != tt.header {
				t.Errorf("NewProxy(%q) has %q, %q, %q", tt.o.URL, p.user, p.password, p.Authorization())
			}
		})
	}
}

func TestNewProxyRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, url, want string
	}{
		{"nothing", "", "the URL cannot be read"},
		{"no scheme", "secret@192.0.2.1:1080", "the URL cannot be read"},
		{"no slashes", "socks5:u:secret@192.0.2.1", "the URL cannot be read"},
		{"a port that is none", "socks5://u:secret@192.0.2.1:x", "the URL cannot be read"},
		{"a bad escape", "socks5://u:secret%@192.0.2.1", "the URL cannot be read"},
		{"a control character", "socks5://u:secret\x01@192.0.2.1", "the URL cannot be read"},
		{"unknown scheme", "quic://u:secret@192.0.2.1", `scheme "quic" is none of http, https`},
		{"port 0", "socks5://u:secret@192.0.2.1:0", "port is not a number from 1 to 65535"},
		{"no host", "socks5://u:secret@:1080", `":1080"`},
		{"a path", "http://u:secret@192.0.2.1/x", "nothing may follow the port"},
		{"a query", "http://u:secret@192.0.2.1?x", "nothing may follow the port"},
		{"a fragment", "http://u:secret@192.0.2.1#x", "nothing may follow the port"},
		{"password of SOCKS4", "socks4://u:secret@192.0.2.1", "SOCKS4 has no passwords"},
		{"user of SOCKS4", "socks4://secret%00@192.0.2.1", "socks4://192.0.2.1:1080"},
		{"colon in a user of HTTP", "http://a%3ab:secret@192.0.2.1", "no colon"},
		{"long user of SOCKS5", "socks5://" + strings.Repeat("u", 256) + ":secret@192.0.2.1", "255"},
		{"long password of SOCKS5", "socks5://u:" + strings.Repeat("secret", 50) + "@192.0.2.1", "255"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := NewProxy(ProxyOptions{URL: tt.url})
			if p != nil || err == nil {
				t.Fatalf("NewProxy(%q) = %v, %v", tt.url, p, err)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("NewProxy(%q): %v; want %q, and no secret", tt.url, err, tt.want)
			}
		})
	}
}

func TestSchemeString(t *testing.T) {
	for s := Scheme(0); s < 20; s++ {
		if got := parseScheme(s.String()); s <= SOCKS5S && got != s || s > SOCKS5S && got != 0 {
			t.Errorf("parseScheme(%q) = %d, want %d", s, got, s)
		}
	}
}

// FuzzNewProxy checks that what is accepted can be written again as String has it, and names the same proxy.
func FuzzNewProxy(f *testing.F) {
	for _, url := range []string{
		"http://u:p@gw.example:3128", "h2://[::1]", "socks4a://u@192.0.2.1/", "socks5s://[fe80::1%25eth0]:443", "HTTPS://ä.example", "x:y",
	} {
		f.Add(url, "")
		f.Add(url, "u")
	}
	f.Fuzz(func(t *testing.T, url, user string) {
		p, err := NewProxy(ProxyOptions{URL: url, User: user})
		if err != nil {
			return
		}
		text := p.String()
		if p.Server().Addr.Zone() != "" {
			text = strings.Replace(text, "%", "%25", 1)
		}
		again, err := NewProxy(ProxyOptions{URL: text, User: p.user, Password: p.password})
		if err != nil {
			t.Fatalf("NewProxy(%q) = %v, which is refused: %v", url, p, err)
		}
		if again.String() != p.String() || again.Server() != p.Server() || again.Authorization() != p.Authorization() {
			t.Errorf("NewProxy(%q) = %v, read again %v", url, p, again)
		}
	})
}
