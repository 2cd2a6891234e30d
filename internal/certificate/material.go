package certificate

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// material is all that a handshake needs, at one moment. It is immutable.
type material struct {
	pairs    []*pair
	byName   map[string][]*pair // the preferred first; wildcards as "*.example.com"
	byIP     map[netip.Addr][]*pair
	fallback map[string]struct{} // names that only Fallback has
	clients  *clients
	config   *tls.Config // nil until the Store has made it
	http1    *tls.Config // likewise; without h2
}

func newMaterial(pairs []*pair, fallbackNames []string, c *clients) *material {
	m := &material{
		pairs: pairs, clients: c,
		byName: make(map[string][]*pair), byIP: make(map[netip.Addr][]*pair), fallback: make(map[string]struct{}),
	}
	for _, p := range pairs {
		for _, n := range p.names() {
			if !slices.Contains(m.byName[n], p) {
				m.byName[n] = append(m.byName[n], p)
			}
		}
		for _, ip := range p.leaf.IPAddresses {
			if a, ok := netip.AddrFromSlice(ip); ok {
				m.byIP[a.Unmap()] = append(m.byIP[a.Unmap()], p)
			}
		}
	}
	for _, list := range m.byName {
		slices.SortStableFunc(list, byRank)
	}
	for _, list := range m.byIP {
		slices.SortStableFunc(list, byRank)
	}
	for _, n := range fallbackNames {
		m.fallback[normal(n)] = struct{}{}
	}
	return m
}

func byRank(a, b *pair) int { return a.rank() - b.rank() }

// wildcard returns the wildcard that covers a name: the leftmost label only (RFC 9525 section 6.3).
func wildcard(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return "*" + name[i:]
	}
	return ""
}

func (m *material) owns(name string) bool {
	name = normal(name)
	return name != "" && (m.ownsExactly(name) || m.ownsExactly(wildcard(name)))
}

// fromFile takes a name in its normal form.
func (m *material) fromFile(name string) bool {
	return len(m.byName[name]) > 0 || len(m.byName[wildcard(name)]) > 0
}

// ownsExactly takes wildcards for names.
func (m *material) ownsExactly(name string) bool {
	if name == "" {
		return false
	}
	_, fallback := m.fallback[name]
	return fallback || len(m.byName[name]) > 0
}

func (m *material) names() []string {
	all := slices.AppendSeq(slices.Collect(maps.Keys(m.byName)), maps.Keys(m.fallback))
	slices.Sort(all)
	return slices.Compact(all)
}

// lacks reports whether no certificate has a name or address that one must have.
func (m *material) lacks(name string) bool {
	if a, err := netip.ParseAddr(name); err == nil {
		return len(m.byIP[a.Unmap()]) == 0
	}
	return !m.owns(name)
}

// missing returns a fault for each name that no certificate has.
func (m *material) missing(names []string) (faults []error) {
	for i, n := range names {
		if m.lacks(n) {
			faults = append(faults, fmt.Errorf("names[%d]: no certificate has the name %q", i, n))
		}
	}
	return faults
}

// candidates returns the pairs for a client, the preferred first.
func (m *material) candidates(hello *tls.ClientHelloInfo) []*pair {
	if name := normal(hello.ServerName); name != "" {
		return slices.Concat(m.byName[name], m.byName[wildcard(name)])
	}
	if list := m.byIP[localIP(hello.Conn)]; len(list) > 0 {
		return list
	}
	if len(m.pairs) == 0 {
		return nil
	}
	if names := m.pairs[0].names(); len(names) > 0 { // another pair may have another kind of key for it
		return m.byName[names[0]]
	}
	return m.pairs[:1]
}

// choose returns the certificate for a client, nil if there is none.
func (m *material) choose(hello *tls.ClientHelloInfo) *tls.Certificate {
	list := m.candidates(hello)
	for _, p := range list {
		if hello.SupportsCertificate(p.cert) == nil {
			return p.cert
		}
	}
	if len(list) > 0 {
		return list[0].cert // and the handshake fails with the alert for what is lacking
	}
	return nil
}

func localIP(c net.Conn) netip.Addr {
	if c == nil || c.LocalAddr() == nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap().WithZone("")
}

func (m *material) warnings() (all []string) {
	for _, p := range m.pairs {
		all = append(all, p.warnings...)
	}
	for _, n := range slices.Sorted(maps.Keys(m.byName)) {
		list := m.byName[n]
		for i, p := range list[1:] {
			if p.rank() == list[i].rank() {
				all = append(all, fmt.Sprintf("%s: %s stands in certificate.%s too, which answers for it", p.key("certificate"), n, list[i].name))
			}
		}
	}
	if m.clients != nil {
		all = append(all, m.clients.warnings...)
	}
	return all
}
