package httpproxy

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net"
	"strconv"
	"strings"
)

//go:embed help.html
var helpHTML string

//go:embed help.css
var helpCSS string

var helpPage = template.Must(template.New("help").Parse(helpHTML))

// The Content-Security-Policy of the help page and of every other answer of our
// own: nothing is loaded, nothing runs, and the one style sheet is named by its hash.
var (
	helpPolicy  = policyFor(helpCSS)
	plainPolicy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func policyFor(style string) string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// setup is what the help page says of a listener. It holds the addresses under
// which clients reach it and which rows it serves, and nothing else of the
// configuration.
type setup struct {
	Address string // "host:port", as it stands in a URL
	Host    string // without brackets
	Port    string
	Secure  string // "host:port" to be reached by TLS; "" where there is no certificate
	HTTP    bool   // absolute-form requests
	Connect bool
	SOCKS4  bool
	SOCKS5  bool
	OnlyTLS bool // nobody is served in the clear
	Style   template.CSS
}

// rowTLS is the row by which clients come into TLS to the gateway itself.
const rowTLS = "tls"

// newSetup takes the listener's address apart. secure is the host name that clients use for TLS, if any; one that could not
// be shown, such as a pattern, is none, and so is any where the row tls is not served. The error says that the address is not a "host:port" that can be.
func newSetup(address, secure string, allows func(row string) bool) (setup, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return setup{}, fmt.Errorf("the address of the help page: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !plainHost(host) {
		return setup{}, fmt.Errorf("the address of the help page: %q is not host:port", address)
	}
	if allows(rowTLS) && plainHost(secure) {
		secure = net.JoinHostPort(secure, port)
	} else {
		secure = ""
	}
	return setup{
		Address: net.JoinHostPort(host, port), Host: host, Port: port, Secure: secure,
		HTTP: allows("http"), Connect: allows("connect"), SOCKS4: allows("socks4"), SOCKS5: allows("socks5"),
		Style: template.CSS(helpCSS),
	}, nil
}

// plainHost reports whether s holds nothing but the letters of host names and IP
// addresses, so that it may stand in a shell line and in a PAC file.
func plainHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-', c == '_', c == ':':
		default:
			return false
		}
	}
	return true
}

// page renders the help page.
func (s setup) page() ([]byte, error) {
	var b bytes.Buffer
	if err := helpPage.Execute(&b, s); err != nil {
		return nil, fmt.Errorf("render the help page: %w", err)
	}
	return b.Bytes(), nil
}

// pac renders the proxy auto-configuration file. Names of the local network and
// of this machine go direct; there is no DIRECT behind the proxies, so nothing leaves
// unguarded when the proxy is away. passwords says that there are users who have one, onlyTLS that nobody is served outside TLS.
func (s setup) pac(passwords, onlyTLS bool) []byte {
	return []byte(pacHead + strings.Join(s.ways(passwords, onlyTLS), "; ") + pacTail)
}

// ways are the ways to the proxy in the order in which a browser is to try them: encrypted if it can be, then
// SOCKS5, which carries anything. Where users have passwords there is no way beside the encrypted one, or whoever keeps
// browsers from it would be sent the passwords in the clear, nor is there one where it would be refused; if there is none, PROXY comes before SOCKS5, since no browser can
// send a password with SOCKS.
func (s setup) ways(passwords, onlyTLS bool) (ways []string) {
	if s.Secure != "" {
		ways = append(ways, "HTTPS "+s.Secure)
		if passwords || onlyTLS {
			return ways
		}
	}
	proxy, socks := "PROXY "+s.Address, "SOCKS5 "+s.Address
	switch {
	case !s.SOCKS5:
		return append(ways, proxy)
	case passwords:
		return append(ways, proxy, socks)
	}
	return append(ways, socks, proxy)
}

// The PAC file. It never calls a function that resolves a name, since browsers
// wait for that.
const (
	pacHead = `function FindProxyForURL(url, host) {
  host = host.toLowerCase();
  if (isPlainHostName(host) && host.indexOf(":") < 0 ||
      dnsDomainIs(host, ".local") || dnsDomainIs(host, ".localhost") ||
      /^127\.\d+\.\d+\.\d+$/.test(host) || host === "::1" || host === "[::1]") {
    return "DIRECT";
  }
  return "`
	pacTail = `";
}
`
)

// help answers a request in origin-form that is for no site: a person with a browser.
func (c *client) help() (outcome, error) {
	path := string(c.req.Target.PathQuery)
	c.s.SetURL(path)
	address, on := c.s.HelpPage()
	if !on {
		return c.refuse(&refusal{
			status: statusBadRequest, reason: requestError, closes: true,
			says: "This is the port of a proxy, not a web server: it serves no pages of its own.",
		})
	}
	if m := c.req.Method; m != methodGet && m != methodHead {
		return c.refuse(&refusal{
			status: statusMethodNotAllowed, reason: requestError, allow: "GET, HEAD",
			says: "The pages of this proxy can only be read.",
		})
	}
	s, err := newSetup(address, c.h.secure, c.s.Allows)
	if err != nil {
		return c.refuse(noHelp(err))
	}
	s.OnlyTLS = c.s.OnlyTLS()
	path, _, _ = strings.Cut(path, "?")
	switch path {
	case "/":
		body, err := s.page()
		if err != nil {
			return c.refuse(noHelp(err))
		}
		return c.reply(&answer{status: statusOK, contentType: htmlType, policy: helpPolicy, body: body})
	case "/proxy.pac", "/wpad.dat":
		return c.reply(&answer{status: statusOK, contentType: pacType, cache: "no-cache", body: s.pac(c.s.HasUsers(), c.s.OnlyTLS())})
	}
	return c.refuse(&refusal{
		status: statusNotFound, reason: requestError,
		says: "There is no such page here. This is a proxy; the page / says how to use it.",
	})
}

// acmeAnswer answers a CA that looks whether a name is ours (RFC 8555 section 8.3). Most paths are of no challenge.
func (c *client) acmeAnswer(path string) (*answer, bool) {
	if c.h.acme == nil || c.req.Method != methodGet {
		return nil, false
	}
	text, ok := c.h.acme(string(c.req.Host()), path)
	if !ok {
		return nil, false
	}
	return &answer{status: statusOK, contentType: "application/octet-stream", body: []byte(text)}, true
}

// noHelp is the answer when the help page cannot be made.
func noHelp(err error) *refusal {
	return &refusal{
		status: statusInternalError, reason: internalError, err: err,
		says: "The help page cannot be shown.",
	}
}

// pacType is the media type by which browsers know a PAC file.
const pacType = "application/x-ns-proxy-autoconfig"
