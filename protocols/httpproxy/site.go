package httpproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	multierror "github.com/hashicorp/go-multierror"

	"polyport/internal/http1"
	"polyport/internal/http2"
	"polyport/internal/session"
	"polyport/internal/target"
	"polyport/internal/upstream"
	"polyport/protocols/spec"
)

// site is a web site of the owner's: what asks for it in origin-form is handed to its backend.
type site struct{ backend *upstream.Backend }

// sites finds a site by the host that is asked for. The zero value has none.
type sites struct {
	exact map[string]*site
	below map[string]*site // by the suffix behind "*."
}

// newSites makes the sites of the configuration. The error lists every fault, each beginning with its key.
func newSites(env spec.Env) (sites, error) {
	all := sites{exact: map[string]*site{}, below: map[string]*site{}}
	var faults *multierror.Error
	for _, s := range env.Sites {
		b, err := env.FindBackend(s.Backend)
		if err != nil {
			faults = multierror.Append(faults, fmt.Errorf("site.%s.backend: %w", s.Name, err))
		}
		for i, host := range s.Hosts {
			if err := all.add(host, &site{b}); err != nil {
				faults = multierror.Append(faults, fmt.Errorf("site.%s.hosts[%d]: %w", s.Name, i, err))
			}
		}
	}
	return all, faults.ErrorOrNil()
}

var errSiteAddress = errors.New("it is an address, and sites are told apart by their names")

func (s *sites) add(host string, st *site) error {
	name, wild := strings.CutPrefix(host, "*.")
	t, err := target.New(name, portHTTP)
	if err != nil {
		return err
	}
	if _, literal := t.Addr(); literal {
		return errSiteAddress
	}
	into := s.exact
	if wild {
		into = s.below
	}
	into[t.Host()] = st
	return nil
}

// find returns the site of a host, exact ones before those below a suffix, of which the longest counts; nil if there is none.
func (s *sites) find(t target.Target) *site {
	if _, literal := t.Addr(); literal {
		return nil
	}
	host := t.Host()
	if st := s.exact[host]; st != nil {
		return st
	}
	for {
		_, rest, more := strings.Cut(host, ".")
		if !more {
			return nil
		}
		if st := s.below[rest]; st != nil {
			return st
		}
		host = rest
	}
}

func (s *sites) none() bool { return len(s.exact)+len(s.below) == 0 }

// schemeOf returns the scheme of what a client asks the gateway itself for, and its port.
func schemeOf(s *session.Session) (scheme string, port uint16) {
	if s.Conn().TLS() != nil {
		return "https", portHTTPS
	}
	return "http", portHTTP
}

// siteAsked returns the site that the request in origin-form asks for, and notes it in c.dest; nil if it is none.
func (c *client) siteAsked() *site {
	host := c.req.Host()
	if c.h.sites.none() || len(host) == 0 {
		return nil
	}
	if d := &c.dest; d.site != nil && d.siteOf == &c.h.sites && d.host == string(host) {
		return d.site
	}
	_, port := schemeOf(c.s)
	t, err := target.ParseAuthority(string(host), port)
	if err != nil {
		return nil
	}
	st := c.h.sites.find(t)
	if st != nil {
		c.dest = destination{site: st, siteOf: &c.h.sites, target: t, host: string(host)}
	}
	return st
}

// serveSite hands a request to the backend of a site. No visitor is ever asked for the credentials of a proxy.
func (c *client) serveSite(ctx context.Context, st *site) (outcome, error) {
	c.s.SetURL(string(c.req.Target.PathQuery))
	if r := c.examine(); r != nil {
		return c.refuse(r)
	}
	permit, err := c.s.AuthorizeSite(ctx, c.dest.target, st.backend)
	if err != nil {
		return c.refuse(siteRefusal(err))
	}
	c.establish()
	if c.t.forwards == 0 && c.lastHop() {
		return c.answerLastHop()
	}
	return c.pass(permit)
}

// siteRefusal maps what AuthorizeSite said to an answer. It is pure.
func siteRefusal(err error) *refusal {
	r := forEgress(err)
	if r.status == statusProxyAuthRequired {
		return &refusal{status: statusForbidden, reason: requestDenied, says: "This site is not open to everybody.", err: err}
	}
	return r
}

// hides reports whether a request field, or a trailer, does not go on. What a client says to a site of itself stands where the gateway
// says it, which the site believes.
func (c *client) hides(name []byte) bool {
	if c.dest.site != nil {
		return hideClient.hides(dashed(name)) || c.h.anonymity.hides(name)
	}
	return c.h.anonymity.hides(name)
}

// dashed is the name of a field as sites tell it apart: many see X_Forwarded_For and X-Forwarded-For as one (RFC 3875 section 4.1.18).
func dashed(name []byte) []byte {
	if bytes.IndexByte(name, '_') < 0 {
		return name
	}
	return bytes.ReplaceAll(name, []byte("_"), []byte("-"))
}

// writeVisitor tells a site who its visitor is and what he has asked for (RFC 7239, and what came before it).
func (c *client) writeVisitor(w *http1.Writer) {
	client := c.s.Conn().Client().Addr()
	scheme, _ := schemeOf(c.s)
	w.Field("X-Forwarded-For", addrText(client))
	w.Field("X-Forwarded-Proto", scheme)
	w.Field("X-Forwarded-Host", c.dest.host)
	host := c.dest.host
	if strings.Contains(host, ":") {
		host = `"` + host + `"` // an authority has no bytes to escape
	}
	w.Field("Forwarded", forwardedFor(client)+";host="+host+";proto="+scheme)
}

// addrText is an address for X-Forwarded-For.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	return a.Unmap().String()
}

// meansSite reports whether a request of HTTP/2 is for one of the sites: HTTP/2 has no origin-form to tell it by. Inside TLS an https URI is
// fetched from the server that the client has connected to; in the clear the URI has to name the port that it came to.
// Who brings credentials for a proxy means the proxy.
func (h *handler) meansSite(s *session.Session, head *http2.Head) bool {
	scheme, port := schemeOf(s)
	if h.sites.none() || head.Method == methodConnect && head.Protocol == "" || head.Scheme != scheme {
		return false
	}
	for _, f := range head.Fields {
		if f.Name == "proxy-authorization" {
			return false
		}
	}
	asked, err := target.ParseAuthority(head.Authority, port)
	if err != nil || h.sites.find(asked) == nil {
		return false
	}
	if s.Conn().TLS() != nil {
		return true
	}
	address, _ := s.HelpPage()
	public, err := target.Parse(address)
	return err == nil && asked.Port() == public.Port()
}
