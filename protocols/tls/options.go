package tls

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"

	"polyport/internal/target"
	"polyport/protocols/spec"
)

// Options is the [protocols.tls] table. The zero value refuses every client.
type Options struct {
	// DialSNI dials a name that no route takes, on port 443, if the rules admit it.
	DialSNI bool `toml:"dial_sni"`
	// Route is the [protocols.tls.route.NAME] tables.
	Route map[string]Route `toml:"route"`
}

// Route hands the clients of some names to a backend.
type Route struct {
	// SNI lists names: "git.example.com", "*.example.com" (any depth below, not
	// the apex), ".example.com" (both), "*" (any name) and "" (no server name at all). Required.
	SNI []string `toml:"sni"`
	// ALPN, when not empty, narrows the route to clients that offer one of
	// these application protocols.
	ALPN []string `toml:"alpn"`
	// Backend is the name of a [backend.NAME] table. Required.
	Backend string `toml:"backend"`
}

// maxProtocol is the most bytes of one ALPN protocol name (RFC 7301 section 3.1).
const maxProtocol = 255

// routes compiles the routes. The error lists every fault, each beginning with its
// key. Routes are taken by name, so that the same file always gives the same faults.
func (o Options) routes(env spec.Env) (*routes, error) {
	var errs *multierror.Error
	r := newRoutes()
	for _, name := range slices.Sorted(maps.Keys(o.Route)) {
		key, route := "route."+name, o.Route[name]
		b, err := env.FindBackend(route.Backend)
		if err != nil {
			errs = multierror.Append(errs, fmt.Errorf("%s.backend: %w", key, err))
		}
		for i, p := range route.ALPN {
			if err := checkProtocol(p, route.ALPN[:i]); err != nil {
				errs = multierror.Append(errs, fmt.Errorf("%s.alpn[%d]: %w", key, i, err))
			}
		}
		if len(route.SNI) == 0 {
			errs = multierror.Append(errs, fmt.Errorf(`%s.sni: no name is given; "*" takes every name, "" those without one`, key))
		}
		for i, p := range route.SNI {
			err := r.add(p, way{route: name, alpn: route.ALPN, backend: b})
			if err == nil {
				err = checkOwn(env.TLS, p)
			}
			if err != nil {
				errs = multierror.Append(errs, fmt.Errorf("%s.sni[%d]: %w", key, i, err))
			}
		}
	}
	return r, errs.ErrorOrNil()
}

// checkOwn refuses a pattern whose clients the gateway answers itself.
func checkOwn(own *spec.TLS, pattern string) error {
	exact, _, _, err := parsePattern(pattern)
	if own == nil || err != nil || exact == "" || !slices.Contains(own.Names, exact) {
		return nil
	}
	return fmt.Errorf("%q is a name in the gateway's own certificates, so it answers these clients itself and this route would take none", pattern)
}

func checkProtocol(p string, before []string) error {
	switch {
	case p == "":
		return errors.New("an application protocol has a name, such as \"h2\"")
	case len(p) > maxProtocol:
		return fmt.Errorf("an application protocol's name has at most %d bytes, this one %d", maxProtocol, len(p))
	case slices.Contains(before, p):
		return fmt.Errorf("%q stands here twice", p)
	}
	return nil
}

// errPattern says what a pattern may look like.
var errPattern = errors.New(`"*" may only stand alone or in front, as in "*.example.com"`)

// parsePattern cuts a pattern into the exact name and the suffix, beginning
// with a dot, that it stands for; "" in place of either is none. every is "*".
func parsePattern(p string) (exact, suffix string, every bool, err error) {
	switch {
	case p == "*":
		return "", "", true, nil
	case strings.HasPrefix(p, "*."):
		name, err := normalName(p[2:])
		return "", "." + name, false, err
	case strings.Contains(p, "*"):
		return "", "", false, errPattern
	case strings.HasPrefix(p, "."):
		name, err := normalName(p[1:])
		return name, "." + name, false, err
	}
	exact, err = normalName(p)
	return exact, "", false, err
}

// normalName gives a name of the configuration the form in which names of
// clients are looked up.
func normalName(name string) (string, error) {
	t, err := target.New(name, port)
	if err != nil {
		return "", err
	}
	if _, ok := t.Addr(); ok {
		return "", fmt.Errorf("%q is an address; a server name never is one (RFC 6066 section 3)", name)
	}
	return t.Host(), nil
}
