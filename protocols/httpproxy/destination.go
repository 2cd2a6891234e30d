package httpproxy

import (
	"errors"
	"fmt"

	"polyport/internal/http1"
	"polyport/internal/target"
)

// destination is where requests go that are passed on. One client mostly asks the same
// host again and again, so the last one is kept, taken apart.
type destination struct {
	authority string // as the client sent it
	secure    bool   // the scheme is https
	target    target.Target
	host      string // the Host field: the normal form, without the scheme's own port
	base      string // the URI up to its path
	url       string // the whole URI, as it was asked for last

	// Of a request in origin-form, whose Host field is host:
	site   *site
	siteOf *sites // that site is one of
}

// url is the URI that is asked for, in its normal form, for the record.
func (c *client) url() string {
	d, rest := &c.dest, c.req.Target.PathQuery
	if len(d.url) != len(d.base)+len(rest) || d.url[len(d.base):] != string(rest) {
		d.url = d.base + string(rest)
	}
	return d.url
}

// absoluteForm is the request target for a proxy that forwards the request (RFC 9112 section 3.2.2). OPTIONS without a path
// means the server itself (section 3.2.4).
func (c *client) absoluteForm() string {
	rest := c.req.Target.PathQuery
	if len(rest) > 0 && rest[0] == '/' || len(rest) == 0 && c.req.Method == methodOptions {
		return c.url()
	}
	return c.dest.base + "/" + string(rest)
}

var (
	errScheme = errors.New("URIs of this scheme are not fetched here: send CONNECT host:port")
	errHTTPS  = errors.New("https:// URIs are not fetched here: send CONNECT host:port, " +
		"or have whoever runs this proxy write forward_https = true in [http] of its configuration")
)

// The ports that URIs mean when they name none (RFC 9110 sections 4.2.1 and 4.2.2).
const (
	portHTTP  = 80
	portHTTPS = 443
)

// locate sets c.dest from the request target in absolute-form.
func (c *client) locate() error {
	t := &c.req.Target
	secure := http1.EqualFold(t.Scheme, "https")
	switch {
	case secure && c.h.tls == nil:
		return errHTTPS
	case !secure && !http1.EqualFold(t.Scheme, "http"):
		return errScheme
	case c.dest.site == nil && c.dest.authority != "" && string(t.Authority) == c.dest.authority && secure == c.dest.secure:
		return nil
	}
	scheme, port := "http://", uint16(portHTTP)
	if secure {
		scheme, port = "https://", portHTTPS
	}
	authority := string(t.Authority)
	to, err := target.ParseAuthority(authority, port)
	if err != nil {
		return fmt.Errorf("the URI has no usable host: %w", err)
	}
	host := hostField(to, port)
	c.dest = destination{authority: authority, secure: secure, target: to, host: host, base: scheme + host}
	return nil
}

// hostField is how a Host field names t in a request of a scheme with that port (RFC 9110 section 7.2).
func hostField(t target.Target, port uint16) string {
	if t.Port() != port {
		return t.String()
	}
	if a, ok := t.Addr(); ok && a.Is6() {
		return "[" + a.String() + "]"
	}
	return t.Host()
}
