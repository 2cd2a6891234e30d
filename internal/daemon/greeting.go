package daemon

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"

	"polyport/internal/config"
)

// greet prints one line per kind of client, ready to paste, for the listener
// that a reader of this terminal can use best: a loopback one if there is one.
// secureName is the gateway's host name in TLS; "" is no TLS.
func greet(w io.Writer, f *config.File, listening map[string][]netip.AddrPort, secureName string) {
	name, at := bestAddress(f, listening)
	if name == "" {
		return
	}
	l := f.Listen[name]
	user := ""
	if f.RequireUser(name) && f.Auth.Htpasswd != "" {
		user = "USER:PASSWORD@"
	}
	lines := []struct {
		row, label, text string
	}{
		{"tls", "TLS", secureLine(secureName, user, at)},
		{"http", "HTTP", "curl -x http://" + user + at + " http://example.com/"},
		{"connect", "HTTPS", "curl -x http://" + user + at + " https://example.com/"},
		{"socks5", "SOCKS5", "curl -x socks5h://" + user + at + " https://example.com/"},
		{"socks4", "SOCKS4a", "curl -x socks4a://" + at + " https://example.com/"},
		{"connect", "anything", "export http_proxy=http://" + user + at + " https_proxy=http://" + user + at},
	}
	fmt.Fprintf(w, "polyport serves every kind of proxy client on %s:\n", at)
	for _, line := range lines {
		if line.text == "" || l.RequireTLS && line.row != "tls" {
			continue
		}
		if l.Serves(line.row) && (line.row != "socks4" || user == "") {
			fmt.Fprintf(w, "  %-9s %s\n", line.label, line.text)
		}
	}
	if f.HelpPage(name) && l.Serves("http") && !l.RequireTLS {
		fmt.Fprintf(w, "  %-9s http://%s/proxy.pac\n", "PAC", at)
		fmt.Fprintf(w, "  %-9s http://%s/ in a browser\n", "help", at)
	}
}

// secureLine is the line of clients that use TLS to the gateway itself; "" is none.
func secureLine(name, user, at string) string {
	_, port, err := net.SplitHostPort(at)
	if name == "" || err != nil {
		return ""
	}
	return "curl -x https://" + user + net.JoinHostPort(name, port) + " https://example.com/"
}

// bestAddress chooses the address to show: public_address where there is one, a
// loopback listener before others, and something that can be dialled for 0.0.0.0.
func bestAddress(f *config.File, listening map[string][]netip.AddrPort) (name, at string) {
	for _, n := range f.ListenerNames() {
		if len(listening[n]) == 0 {
			continue
		}
		better := name == "" || f.Listen[n].Loopback() && !f.Listen[name].Loopback()
		if !better {
			continue
		}
		name, at = n, shown(listening[n][0])
		if p := f.Listen[n].PublicAddress; p != "" {
			at = p
		}
	}
	return name, at
}

// shown is an address as a client would write it.
func shown(ap netip.AddrPort) string {
	host := ap.Addr().String()
	if ap.Addr().IsUnspecified() {
		host = "127.0.0.1"
		if ap.Addr().Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(int(ap.Port())))
}
