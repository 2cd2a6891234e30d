package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"polyport/internal/socks"
)

// Scheme is the protocol that a next-hop proxy speaks. The zero value is none.
type Scheme uint8

// The schemes, as the URL of a proxy names them.
const (
	HTTP    Scheme = iota + 1 // HTTP/1.1 (RFC 9112); tunnels by CONNECT (RFC 9110 section 9.3.6)
	HTTPS                     // HTTP/1.1 in TLS
	H2                        // HTTP/2 in TLS (RFC 9113 section 8.5): many tunnels on one connection
	SOCKS4                    // SOCKS4: IPv4 addresses alone
	SOCKS4A                   // SOCKS4 with names
	SOCKS5                    // RFC 1928, with RFC 1929 where there are credentials
	SOCKS5S                   // SOCKS5 in TLS
)

// schemes holds the name and the default port of each Scheme.
var schemes = [...]struct {
	name string
	port uint16
}{
	HTTP: {"http", 80}, HTTPS: {"https", 443}, H2: {"h2", 443},
	SOCKS4: {"socks4", 1080}, SOCKS4A: {"socks4a", 1080}, SOCKS5: {"socks5", 1080}, SOCKS5S: {"socks5s", 443},
}

// String returns the scheme as a URL has it, "" for one that does not exist.
func (s Scheme) String() string {
	if int(s) < len(schemes) {
		return schemes[s].name
	}
	return ""
}

// parseScheme returns the zero Scheme for a name that is none.
func parseScheme(name string) Scheme {
	for s, row := range schemes {
		if row.name != "" && strings.EqualFold(row.name, name) {
			return Scheme(s)
		}
	}
	return 0
}

// secure reports whether the proxy is spoken to in TLS.
func (s Scheme) secure() bool { return s == HTTPS || s == H2 || s == SOCKS5S }

// ProxyOptions describes a next-hop proxy.
type ProxyOptions struct {
	// URL is "scheme://[user[:password]@]host[:port]". The port defaults to 80 for http, to 443 for https, h2 and
	// socks5s, and to 1080 for the others.
	URL string
	// User and Password are for a URL that has none. Both "" means no credentials.
	User, Password string
	// RootCAs are who may sign the proxy's certificate. Nil means the system's. This and what follows is not looked at
	// where the scheme has no TLS.
	RootCAs *x509.CertPool
	// Certificate returns the certificate that is shown to a proxy which asks for one, anew for each connection. Nil
	// means none.
	Certificate func() (*tls.Certificate, error)
	// ServerName is the name that the proxy's certificate must be for, and that is sent as SNI (RFC 6066 section 3).
	// "" means the host of the URL.
	ServerName string
}

// Proxy is a next-hop proxy: it opens tunnels over connections that others dial. It is safe for concurrent use and must
// not be copied.
type Proxy struct {
	scheme         Scheme
	server         Server
	name           string // what String returns
	user, password string
	authorization  string
	tls            *tls.Config // nil where the scheme has none
	h2             *h2Pool     // nil for other schemes
}

// Destination is where a tunnel is to end.
type Destination struct {
	// Host is a name, which is sent on unresolved; "" when Addr is set.
	Host string
	// Addr is an address, which is sent unmapped and without its zone. It is not looked at when Host is set.
	Addr netip.Addr
	// Port is in host order.
	Port uint16
	// Via is the Via field of CONNECT (RFC 9110 section 7.6.3), which http, https and h2 are asked by; "" sends none. Others are not told.
	Via string
}

// addr returns the address as it is sent; invalid where there is a name.
func (d Destination) addr() netip.Addr {
	if d.Host != "" {
		return netip.Addr{}
	}
	return d.Addr.Unmap().WithZone("")
}

// String returns "host:port", IPv6 in brackets.
func (d Destination) String() string {
	if d.Host == "" {
		return netip.AddrPortFrom(d.addr(), d.Port).String()
	}
	return net.JoinHostPort(d.Host, strconv.FormatUint(uint64(d.Port), 10))
}

// valid reports whether there is somewhere to go. A name must be safe to stand in a request line: it has been
// normalised elsewhere, so what is wrong with it here would be a way around that.
func (d Destination) valid() bool {
	if d.Host == "" {
		return d.Addr.IsValid()
	}
	for i := range len(d.Host) {
		if c := d.Host[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"#%/:<>?@[\]^{|}`+"`", c) >= 0 {
			return false
		}
	}
	return len(d.Host) <= socks.MaxName
}

// validVia reports whether Via can be a field value (RFC 9110 section 5.5). It has been read from a field elsewhere, so what is wrong
// with it here would be a way to write fields of others.
func (d Destination) validVia() bool {
	for i := range len(d.Via) {
		if c := d.Via[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

var (
	errURL = errors.New(`the URL cannot be read: write "socks5://user:password@192.0.2.1:1080", and other ` +
		`characters than letters, digits and "-._~" in a user or a password as %XX`)
	errRest = errors.New("nothing may follow the port in the URL of a proxy")
)

// NewProxy checks the options; it dials nothing. The error says what to write instead. It never shows a password, not
// even that of a URL that cannot be read.
func NewProxy(o ProxyOptions) (*Proxy, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Opaque != "" {
		return nil, errURL // the cause would quote the URL
	}
	p := &Proxy{scheme: parseScheme(u.Scheme), user: o.User, password: o.Password}
	switch {
	case p.scheme == 0 && u.Scheme == "":
		return nil, errURL
	case p.scheme == 0:
		return nil, fmt.Errorf("scheme %q is none of http, https, h2, socks4, socks4a, socks5, socks5s", u.Scheme)
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return nil, errRest
	}
	if u.User != nil {
		p.user = u.User.Username()
		p.password, _ = u.User.Password()
	}
	port := u.Port()
	if port == "" {
		port = strconv.Itoa(int(schemes[p.scheme].port))
	}
	if p.server, err = ParseServer(net.JoinHostPort(u.Hostname(), port)); err != nil {
		return nil, err
	}
	p.name = p.scheme.String() + "://" + p.server.String()
	if err := p.setCredentials(); err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	p.setTLS(o)
	return p, nil
}

// setCredentials checks that the scheme can carry user and password.
func (p *Proxy) setCredentials() error {
	if p.user == "" && p.password == "" {
		return nil
	}
	switch p.scheme {
	case SOCKS4, SOCKS4A:
		if p.password != "" {
			return errors.New("SOCKS4 has no passwords: leave it out, or use socks5")
		}
		_, err := socks.AppendRequest4(nil, socks.Request4{
			Command: socks.Connect, Target: socks.Address{IP: netip.IPv4Unspecified()}, UserID: p.user,
		})
		return err
	case SOCKS5, SOCKS5S:
		_, err := socks.AppendCredentials(nil, socks.Credentials{User: p.user, Password: p.password})
		return err
	}
	if strings.Contains(p.user, ":") {
		return errors.New("a user of HTTP has no colon in his name (RFC 7617 section 2)")
	}
	p.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.password))
	return nil
}

// setTLS prepares the handshakes.
func (p *Proxy) setTLS(o ProxyOptions) {
	if !p.scheme.secure() {
		return
	}
	p.tls = &tls.Config{
		RootCAs:            o.RootCAs,
		ServerName:         o.ServerName,
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
	if o.ServerName == "" {
		p.tls.ServerName = p.server.Name
		if p.server.Addr.IsValid() {
			p.tls.ServerName = p.server.Addr.WithZone("").String()
		}
	}
	if o.Certificate != nil {
		p.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return o.Certificate() }
	}
	switch p.scheme {
	case HTTPS:
		p.tls.NextProtos = []string{"http/1.1"}
	case H2:
		p.tls.NextProtos = []string{"h2"}
		p.h2 = &h2Pool{proxy: p, conns: make(map[*h2Conn]struct{}), dials: make(map[string]*h2Dial)}
	}
}

// Server returns where the proxy is to be dialled.
func (p *Proxy) Server() Server { return p.server }

// Scheme returns the protocol of the proxy.
func (p *Proxy) Scheme() Scheme { return p.scheme }

// String returns "socks5://198.51.100.7:1080", never with credentials.
func (p *Proxy) String() string { return p.name }

// Blocks reports whether Open, OpenForward, Associate and Check need a goroutine of their own, as TLS and HTTP/2 do.
// Else they use nothing but Read, Write and the deadlines of the connection, and start neither goroutine nor timer.
func (p *Proxy) Blocks() bool { return p.scheme.secure() }

// Authorization returns the value of Proxy-Authorization (RFC 7617 section 2): "" where there are no credentials, and
// for SOCKS.
func (p *Proxy) Authorization() string { return p.authorization }
