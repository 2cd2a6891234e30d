package httpproxy

import (
	"errors"
	"fmt"

	"polyport/internal/http1"
	"polyport/internal/target"
)

// destination is where absolute-form requests go. One client mostly asks the same
// host again and again, so the last one is kept, taken apart.
type destination struct {
	authority string // as the client sent it
	target    target.Target
	host      string // the Host field: the normal form, without port 80
	base      string // the URI up to its path
	url       string // the whole URI, as it was asked for last
}

// url is the URI that is asked for, in its normal form, for the record.
func (c *client) url() string {
	d, rest := &c.dest, c.req.Target.PathQuery
	if len(d.url) != len(d.base)+len(rest) || d.url[len(d.base):] != string(rest) {
		d.url = d.base + string(rest)
	}
	return d.url
}

var errScheme = errors.New("only http:// URIs are fetched here; for https and everything else send CONNECT host:port")

// locate sets c.dest from the request target in absolute-form.
func (c *client) locate() error {
	t := &c.req.Target
	if !http1.EqualFold(t.Scheme, "http") {
		return errScheme
	}
	if c.dest.authority != "" && string(t.Authority) == c.dest.authority {
		return nil
	}
	authority := string(t.Authority)
	to, err := target.ParseAuthority(authority, 80)
	if err != nil {
		return fmt.Errorf("the URI has no usable host: %w", err)
	}
	host := hostField(to)
	c.dest = destination{authority: authority, target: to, host: host, base: "http://" + host}
	return nil
}

// hostField is how a Host field names t (RFC 9110 section 7.2).
func hostField(t target.Target) string {
	if t.Port() != 80 {
		return t.String()
	}
	if a, ok := t.Addr(); ok && a.Is6() {
		return "[" + a.String() + "]"
	}
	return t.Host()
}
