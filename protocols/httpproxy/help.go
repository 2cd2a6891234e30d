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

// setup is what the help page says of a listener. It holds the address under
// which clients reach it and which rows it serves, and nothing else of the
// configuration.
type setup struct {
	Address string // "host:port", as it stands in a URL
	Host    string // without brackets
	Port    string
	HTTP    bool // absolute-form requests
	Connect bool
	SOCKS4  bool
	SOCKS5  bool
	Style   template.CSS
}

// newSetup takes the listener's address apart. The error says that it is not a
// "host:port" that can be shown.
func newSetup(address string, allows func(row string) bool) (setup, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return setup{}, fmt.Errorf("the address of the help page: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !plainHost(host) {
		return setup{}, fmt.Errorf("the address of the help page: %q is not host:port", address)
	}
	return setup{
		Address: net.JoinHostPort(host, port), Host: host, Port: port,
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
// unguarded when the proxy is away. PROXY comes first since browsers can send a password there and not with SOCKS.
func (s setup) pac() []byte {
	ways := "PROXY " + s.Address
	if s.SOCKS5 {
		ways += "; SOCKS5 " + s.Address
	}
	return []byte(pacHead + ways + pacTail)
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

// help answers a request in origin-form: a person with a browser.
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
			status: statusMethodNotAllowed, allow: "GET, HEAD",
			says: "The pages of this proxy can only be read.",
		})
	}
	s, err := newSetup(address, c.s.Allows)
	if err != nil {
		return c.refuse(noHelp(err))
	}
	path, _, _ = strings.Cut(path, "?")
	switch path {
	case "/":
		body, err := s.page()
		if err != nil {
			return c.refuse(noHelp(err))
		}
		return c.reply(&answer{status: statusOK, contentType: htmlType, policy: helpPolicy, body: body})
	case "/proxy.pac", "/wpad.dat":
		return c.reply(&answer{status: statusOK, contentType: pacType, cache: "no-cache", body: s.pac()})
	}
	return c.refuse(&refusal{
		status: statusNotFound,
		says:   "There is no such page here. This is a proxy; the page / says how to use it.",
	})
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
