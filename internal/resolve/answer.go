package resolve

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// maxAliases is how many CNAME records are followed (RFC 1034 section 3.6.2 says
// only that loops are an error).
const maxAliases = 16

// readAnswer takes the addresses of host out of a response. Only records that a
// chain of CNAME records leads to are taken: a server may put anything beside them.
func readAnswer(m *dns.Msg, host string, qtype uint16) (answer, error) {
	switch m.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		return answer{}, notFound(m, host, "NXDOMAIN: there is no such name")
	default:
		return answer{}, said(m, rcodeName(m.Rcode))
	}
	if isReferral(m) {
		return answer{}, said(m, "it refers to other servers instead of asking them")
	}
	name, ttl := dns.CanonicalName(host), uint32(1<<31-1) // RFC 2181 section 8
	for range maxAliases + 1 {
		alias, life, ok := aliasOf(m, name)
		if !ok {
			return addressesOf(m, host, name, qtype, ttl)
		}
		name, ttl = alias, min(ttl, life)
	}
	return answer{}, fmt.Errorf("its CNAME records go round in a circle, or on for more than %d", maxAliases)
}

// isReferral reports whether a server that does not recurse only names others that may know
// (RFC 2308 section 2.2), which says nothing of the name.
func isReferral(m *dns.Msg) bool {
	if m.Authoritative || m.RecursionAvailable || len(m.Answer) > 0 {
		return false
	}
	has := func(t uint16) bool {
		return slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == t })
	}
	return has(dns.TypeNS) && !has(dns.TypeSOA)
}

// aliasOf finds the CNAME record of name.
func aliasOf(m *dns.Msg, name string) (alias string, ttl uint32, ok bool) {
	for _, rr := range m.Answer {
		if c, is := rr.(*dns.CNAME); is && c.Hdr.Class == dns.ClassINET && dns.CanonicalName(c.Hdr.Name) == name {
			return dns.CanonicalName(c.Target), c.Hdr.Ttl, true
		}
	}
	return "", 0, false
}

// addressesOf collects the address records of name, which stands at the end of
// the chain that began at host.
func addressesOf(m *dns.Msg, host, name string, qtype uint16, ttl uint32) (answer, error) {
	var a answer
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Rrtype != qtype || h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != name {
			continue
		}
		var addr netip.Addr
		switch rr := rr.(type) {
		case *dns.A:
			addr, _ = netip.AddrFromSlice(rr.A)
		case *dns.AAAA:
			addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if addr.IsValid() {
			a.addrs, ttl = append(a.addrs, addr), min(ttl, h.Ttl)
		}
	}
	if len(a.addrs) == 0 {
		return answer{}, notFound(m, host, ErrNotFound.Error())
	}
	a.ttl = time.Duration(ttl) * time.Second
	return a, nil
}

// notFound makes the Error of an answer without addresses. It lives as the SOA record beside
// it says (RFC 2308 section 5); without one it is kept as shortly as a failure.
func notFound(m *dns.Msg, host, says string) *Error {
	e := &Error{Host: host, Kind: ErrNotFound, Err: said(m, says), life: failureTTL, lives: true}
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok && soa.Hdr.Class == dns.ClassINET {
			e.life = time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
			break
		}
	}
	return e
}

// answerError is an answer that has no addresses.
type answerError struct {
	says  string
	rcode int
	info  int // negative for none
}

// said makes the answerError of m.
func said(m *dns.Msg, says string) *answerError {
	e := &answerError{says: says, rcode: m.Rcode, info: -1}
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok {
				e.info = int(ede.InfoCode)
				break
			}
		}
	}
	return e
}

// Error implements error.
func (e *answerError) Error() string { return e.says }

// RCode returns the name of the answer's RCODE and its INFO-CODE (RFC 8914), negative for none.
func (e *answerError) RCode() (rcode string, info int) { return rcodeName(e.rcode), e.info }

func rcodeName(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE %d", rcode)
}
