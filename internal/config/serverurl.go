package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// ServerURL is the URL of an upstream server. No way of printing or marshalling it shows its credentials; see
// Upstream.Credentials. Two are equal (==) if they are the same with their credentials.
type ServerURL struct {
	Scheme string // "http", "https", "h2", "socks4", "socks4a", "socks5" or "socks5s"; "" is no URL
	Host   string // a name in lower case, or an IP address without brackets
	Port   uint16 // the scheme's own where the URL has none

	user     string
	password Secret // as it stands, never "file:" or "env:"
}

// serverScheme is what a scheme of upstream servers stands for.
type serverScheme struct {
	name string
	port uint16 // where the URL has none
	tls  bool
}

var serverSchemes = []serverScheme{
	{"socks5", 1080, false},
	{"socks5s", 443, true},
	{"http", 80, false},
	{"https", 443, true},
	{"h2", 443, true},
	{"socks4a", 1080, false},
	{"socks4", 1080, false},
}

// otherSchemes are what other programs call some of them, and what to write.
var otherSchemes = map[string]string{
	"socks":       "write socks5, or one of the others",
	"socks5h":     `write socks5, and resolve = "upstream" into the table`,
	"socks5+tls":  "write socks5s",
	"http2":       "write h2",
	"tls":         "write https, h2 or socks5s",
	"quic":        "HTTP/3 is not supported by this version",
	"h3":          "HTTP/3 is not supported by this version",
	"shadowsocks": "it is no protocol of this gateway",
	"ss":          "it is no protocol of this gateway",
	"ssh":         "it is no protocol of this gateway",
}

// TLS reports whether the server is spoken to in TLS.
func (u ServerURL) TLS() bool {
	s, _ := schemeNamed(u.Scheme)
	return s.tls
}

// Address returns "host:port", with brackets around an IPv6 address.
func (u ServerURL) Address() string { return net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port))) }

// String returns the URL with its port and without credentials.
func (u ServerURL) String() string {
	if u.Scheme == "" {
		return ""
	}
	return u.Scheme + "://" + u.Address()
}

// GoString implements fmt.GoStringer.
func (u ServerURL) GoString() string { return u.String() }

// Format implements fmt.Formatter: verbs such as %+v would print the fields otherwise.
func (u ServerURL) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, u.String()) } // fmt reports its own write errors

// MarshalText implements encoding.TextMarshaler, and so JSON and TOML.
func (u ServerURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// LogValue implements slog.LogValuer.
func (u ServerURL) LogValue() slog.Value { return slog.StringValue(u.String()) }

func (ServerURL) wanted() string { return `a URL in quotes, such as "socks5://198.51.100.7:1080"` }

// UnmarshalText reads a URL. Its errors show nothing of what may be the credentials, wherever these have ended up.
func (u *ServerURL) UnmarshalText(text []byte) error {
	name, rest, ok := strings.Cut(string(text), "://")
	if !ok {
		return errors.New(`this has no scheme: write a URL such as "socks5://198.51.100.7:1080"`)
	}
	scheme, ok := schemeNamed(strings.ToLower(name))
	if !ok {
		return unknownScheme(name)
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 && rest[i:] != "/" {
		return errors.New("nothing may stand behind host and port: in a user's name or a password, write %2F for /, %3F for ? and %23 for #")
	}
	rest = strings.TrimSuffix(rest, "/")
	parsed := ServerURL{Scheme: scheme.name}
	i := strings.LastIndexByte(rest, '@')
	if i > 0 {
		if err := parsed.setCredentials(rest[:i]); err != nil {
			return err
		}
	}
	if err := parsed.setAddress(rest[i+1:], scheme.port); err != nil {
		return err
	}
	*u = parsed
	return nil
}

func schemeNamed(name string) (serverScheme, bool) {
	for _, s := range serverSchemes {
		if s.name == name {
			return s, true
		}
	}
	return serverScheme{}, false
}

func unknownScheme(name string) error {
	const longest = 16 // more is no scheme, and may be anything
	hint, other := otherSchemes[strings.ToLower(name)]
	switch {
	case other:
		return fmt.Errorf("there is no scheme %s for upstream servers: %s", quote(name), hint)
	case len(name) > longest || !isBare(name):
		return errors.New(`this does not begin with a scheme: write a URL such as "socks5://198.51.100.7:1080"`)
	}
	known := make([]string, 0, len(serverSchemes))
	for _, s := range serverSchemes {
		known = append(known, s.name)
	}
	return fmt.Errorf("unknown scheme %s%s", quote(name), oneOf(name, known))
}

// setCredentials reads what stands before the "@" (RFC 3986 section 3.2.1).
func (u *ServerURL) setCredentials(s string) error {
	name, password, withPassword := strings.Cut(s, ":")
	var err1, err2 error
	u.user, err1 = url.PathUnescape(name)
	u.password.ref, err2 = url.PathUnescape(password)
	if err1 != nil || err2 != nil {
		return errors.New("a % in the user's name or the password does not begin an escape: write %25 for it")
	}
	if withPassword && u.user == "" {
		return errors.New(`there is a password and no user: write both, as in "socks5://user:password@host"`)
	}
	return checkCredentials(u.Scheme, u.user, u.password.ref)
}

// checkCredentials refuses what a protocol cannot carry. Its errors show neither.
func checkCredentials(scheme, user, password string) error {
	const longest = 255 // RFC 1929 section 2
	switch {
	case strings.ContainsFunc(user+password, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("the user's name or the password has control characters")
	case strings.HasPrefix(scheme, "socks4") && password != "":
		return fmt.Errorf("%s has no passwords: leave it out, or write socks5 if the server speaks that", scheme)
	case strings.HasPrefix(scheme, "socks5") && max(len(user), len(password)) > longest:
		return fmt.Errorf("the user's name or the password is longer than %d bytes (RFC 1929 section 2)", longest)
	case !strings.HasPrefix(scheme, "socks") && strings.Contains(user, ":"):
		return errors.New("the user's name has a colon, which HTTP cannot carry (RFC 7617 section 2)")
	}
	return nil
}

// setAddress reads a host with or without a port.
func (u *ServerURL) setAddress(s string, defaultPort uint16) error {
	host, port, hasPort := s, "", false
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port, hasPort = s[:i], s[i+1:], true
	}
	u.Port = defaultPort
	if hasPort {
		n, err := parsePort(port)
		if err != nil || n == 0 {
			// It may be a password whose "@" is missing.
			return errors.New(`what follows the last colon is not a port from 1 to 65535: write it as in "socks5://user:password@198.51.100.7:1080"`)
		}
		u.Port = n
	}
	if host == "" {
		return errors.New("there is no host")
	}
	if err := checkHost(host); err != nil {
		return err
	}
	u.Host = strings.ToLower(host)
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		u.Host = a.Unmap().String()
	}
	return nil
}
