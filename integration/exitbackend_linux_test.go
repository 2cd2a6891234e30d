package integration

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

// seenThroughTLS is seenFrom for clients that speak TLS with the server itself.
func seenThroughTLS(t *testing.T, cert tls.Certificate) (port string) {
	t.Helper()
	port = "8443"
	inFar(t, func() error {
		for _, a := range []string{far4, far6} {
			ln, err := net.Listen("tcp", net.JoinHostPort(a, port))
			if err != nil {
				return err
			}
			s := &http.Server{Handler: http.HandlerFunc(tellFrom), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
			t.Cleanup(func() { s.Close() })
			go func() { _ = s.ServeTLS(ln, "", "") }()
		}
		return nil
	})
	return port
}

// toBackend is a way to a backend, by which its server is asked where it is asked from.
type toBackend struct {
	name string
	ask  func(t *testing.T, g *gateway) (answer, client string) // no answer is ""
}

// TestExitsTowardsBackends has connections to servers of our own leave as an exit says, or not at all, and that at once: who waited for the
// time of connecting would outlast the test.
func TestExitsTowardsBackends(t *testing.T) {
	if !apart(t) {
		return
	}
	farNetwork(t)
	const ofLink = "fe80::5"
	ip(t, strings.Fields("addr add "+ofLink+"/64 dev first nodad")...)
	cert, ca := certificate(t, "www.test")
	port, tlsPort := seenFrom(t), seenThroughTLS(t, cert)
	config := func(server, exit string) string {
		plain, secret := net.JoinHostPort(server, port), net.JoinHostPort(server, tlsPort)
		return listenAnywhere + "[timeouts]\nconnect = \"10m\"\n[auth]\nhtpasswd = \"users.htpasswd\"\n[backend.plain]\nservers = [\"" + plain + "\"]\n[backend.secret]\nservers = [\"" + secret + "\"]\n" +
			"[protocols.raw.seen]\nprefix = [\"SEEN\"]\nbackend = \"plain\"\n[protocols.tls.route.www]\nsni = [\"www.test\"]\nbackend = \"secret\"\n" +
			"[site.plain]\nhosts = [\"plain.test\"]\nbackend = \"plain\"\n[exit.out]\n" + exit + "\n" +
			"[[rule]]\naction = \"allow\"\nbackend = [\"plain\", \"secret\"]\nanonymous = true\nexit = [\"out\"]\n"
	}
	ways := []toBackend{
		{"seen", func(t *testing.T, g *gateway) (string, string) {
			c := dial(t, g.at())
			say(t, c, "SEEN / HTTP/1.1\r\nHost: plain.test\r\n\r\n")
			all, err := io.ReadAll(c)
			c.Close() // else the tunnel stands, half closed, and there is no record of it
			if err != nil {
				t.Errorf("the raw row: %v", err)
			}
			_, body, _ := strings.Cut(string(all), "\r\n\r\n")
			return body, c.LocalAddr().String()
		}},
		{"tls", func(t *testing.T, g *gateway) (string, string) {
			got, client := curl(t, "--cacert", ca, "--connect-to", "www.test:443:"+g.at(), "https://www.test/")
			return got.stdout, client
		}},
		{"http", func(t *testing.T, g *gateway) (string, string) {
			got, client := curl(t, "--fail", "--connect-to", "plain.test:80:"+g.at(), "http://plain.test/")
			return got.stdout, client
		}},
	}
	const none = "exit out has no local_address of that family of IP"
	tests := []struct {
		name, server, exit string
		from               string // an address, or a prefix; "" is a refusal
		reason, says       string // of that
	}{
		{"an address", far4, `local_address = ["` + farSingle + `"]`, farSingle, "", ""},
		{"a range", far4, `local_address = ["` + farRange + `"]`, farRange, "", ""},
		{"a prefix", far6, `local_address = ["` + farPrefix + `"]`, farPrefix, "", ""},
		{"an address of a link", far6, "interface = \"first\"\nlocal_address = [\"" + ofLink + "\"]", ofLink, "", ""},
		{"an interface", far4, `interface = "second"`, farSecond, "", ""},
		{"a mark", far4, "mark = 7", farSecond, "", ""},
		{"IPv6 alone, to a server of IPv4", far4, `local_address = ["` + farPrefix + `"]`, "", "destination_ip_unroutable", none},
		{"IPv4 alone, to a server of IPv6", far6, `local_address = ["` + farRange + `"]`, "", "destination_ip_unroutable", none},
		{"an address that is not ours", far4, `local_address = ["203.0.113.77"]`, "", "proxy_configuration_error", "this machine does not have that address"},
		{"no such interface", far4, `interface = "third"`, "", "proxy_configuration_error", "there is no such interface"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := twoUsers(t, config(tt.server, tt.exit))
			for _, way := range ways {
				answer, client := way.ask(t, g)
				l := g.record("client=" + client)
				check(t, l, map[string]any{"protocol": way.name, "exit": "out"})
				if tt.from == "" {
					if answer != "" || l.str("reason") != tt.reason || !strings.Contains(l.str("err"), tt.says) || l.str("address") != "" {
						t.Errorf("by %s the answer is %.60q, and the record is %v", way.name, answer, l)
					}
					continue
				}
				p, err := netip.ParsePrefix(tt.from)
				if a, no := netip.ParseAddr(answer); no != nil || answer != tt.from && (err != nil || !p.Contains(a)) {
					t.Errorf("by %s it leaves from %.60q, want %s", way.name, answer, tt.from)
				}
			}
		})
	}
}
