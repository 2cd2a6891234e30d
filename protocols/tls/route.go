package tls

import (
	"fmt"
	"strings"

	"polyport/internal/upstream"
)

// routes finds a client's backend. It is immutable once made.
type routes struct {
	exact   map[string]*choice // "git.example.com"; "" is a client without a server name
	suffix  map[string]*choice // ".example.com"
	every   *choice            // "*"; nil is none
	longest int                // the most dots in a suffix, so that a hostile name costs no more look-ups than that
}

// choice is what stands under one name: a way for some of the application
// protocols, and one for every other client. Either may be absent.
type choice struct {
	byALPN map[string]way
	plain  *way
}

// way is a route as one of its names sees it.
type way struct {
	route   string // the key of its table
	alpn    []string
	backend *upstream.Backend
}

// nameOf names other in a fault of w.
func (w way) nameOf(other way) string {
	if other.route == w.route {
		return "this route itself"
	}
	return "route." + other.route
}

func newRoutes() *routes {
	return &routes{exact: map[string]*choice{}, suffix: map[string]*choice{}}
}

// add puts w under a pattern. Two routes may share a name only if their
// application protocols tell them apart.
func (r *routes) add(pattern string, w way) error {
	if pattern == "" {
		return put(r.exact, "", pattern, w)
	}
	exact, suffix, every, err := parsePattern(pattern)
	if err != nil {
		return err
	}
	if every {
		if r.every == nil {
			r.every = &choice{}
		}
		return r.every.add(pattern, w)
	}
	if exact != "" {
		err = put(r.exact, exact, pattern, w)
	}
	if suffix != "" && err == nil {
		r.longest = max(r.longest, strings.Count(suffix, "."))
		err = put(r.suffix, suffix, pattern, w)
	}
	return err
}

func put(m map[string]*choice, name, pattern string, w way) error {
	c := m[name]
	if c == nil {
		c = &choice{}
		m[name] = c
	}
	return c.add(pattern, w)
}

func (c *choice) add(pattern string, w way) error {
	if len(w.alpn) == 0 {
		if c.plain != nil {
			return fmt.Errorf("%q is already taken by %s", pattern, w.nameOf(*c.plain))
		}
		c.plain = &w
		return nil
	}
	for _, p := range w.alpn {
		if other, ok := c.byALPN[p]; ok {
			return fmt.Errorf("%q with %q is already taken by %s", pattern, p, w.nameOf(other))
		}
	}
	if c.byALPN == nil {
		c.byALPN = map[string]way{}
	}
	for _, p := range w.alpn {
		c.byALPN[p] = w
	}
	return nil
}

// exactly returns the backend of a route that names this very name and takes a client that offers these protocols; nil is none.
func (r *routes) exactly(name string, alpn []string) *upstream.Backend {
	return r.exact[name].find(alpn)
}

// find returns the backend of a normalised name ("" for none) and the
// protocols that the client offers, or nil. The most specific name that has a way for this client wins: the exact
// one, then the longest suffix, then "*".
func (r *routes) find(name string, alpn []string) *upstream.Backend {
	if b := r.exact[name].find(alpn); b != nil || name == "" {
		return b
	}
	if len(r.suffix) > 0 {
		for rest := fewLabels(name, r.longest); rest != ""; rest = cutLabel(rest) {
			if b := r.suffix[rest].find(alpn); b != nil {
				return b
			}
		}
	}
	return r.every.find(alpn)
}

// find returns the way of the first protocol in the client's order of
// preference that has one, else the way for every client.
func (c *choice) find(alpn []string) *upstream.Backend {
	if c == nil {
		return nil
	}
	if c.byALPN != nil {
		for _, p := range alpn {
			if w, ok := c.byALPN[p]; ok {
				return w.backend
			}
		}
	}
	if c.plain == nil {
		return nil
	}
	return c.plain.backend
}

// fewLabels returns the end of name that begins with its n-th dot from the
// right, or with its first if there are fewer; "" if there is none.
func fewLabels(name string, n int) string {
	at := len(name)
	for ; n > 0; n-- {
		dot := strings.LastIndexByte(name[:at], '.')
		if dot < 0 {
			break
		}
		at = dot
	}
	return name[at:]
}

// cutLabel turns ".git.example.com" into ".example.com", and ".com" into "".
func cutLabel(suffix string) string {
	dot := strings.IndexByte(suffix[1:], '.')
	if dot < 0 {
		return ""
	}
	return suffix[1+dot:]
}
