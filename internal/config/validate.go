package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Bounds of values that would otherwise only fail far away.
const (
	maxNameLength = 64
	maxSockets    = 4096 // that one gateway listens on
	maxLimit      = 1 << 24
)

// Validate judges what the values mean, all faults at once (see Join). rows are
// the names of the rows of the protocol table, users' raw rows included; with nil rows
// the names of protocols are not judged. Patterns of targets, times and what the rules mean together, an open
// proxy among it, are judged by package acl, whose faults At gives their places.
func (f *File) Validate(rows []string) error {
	errs := f.newFaults()
	known := knownNames{
		rows: slices.Clone(rows), listeners: f.ListenerNames(), backends: f.BackendNames(), groups: sortedKeys(f.Auth.Groups),
		upstreams: f.UpstreamNames(), exits: f.ExitNames(),
	}
	slices.Sort(known.rows)
	f.checkListeners(errs, known)
	f.checkSockets(errs)
	f.checkSniff(errs, known)
	f.checkTimeouts(errs)
	f.checkLimits(errs)
	f.checkUDP(errs)
	f.checkAuth(errs)
	f.checkTLS(errs)
	checkEnum(errs, root.key("http").key("anonymity"), f.HTTP.Anonymity, AnonymityOff, AnonymityHideClient, AnonymityHideProxy)
	f.checkBind(errs)
	f.checkRules(errs, known)
	f.checkUpstreams(errs, known)
	f.checkExits(errs, known)
	f.checkBackends(errs)
	f.checkSites(errs, known)
	f.checkLog(errs)
	f.checkDNS(errs)
	return errs.err()
}

// knownNames is what a file may name, each list sorted. Of nil rows nothing is known.
type knownNames struct{ rows, listeners, backends, groups, upstreams, exits []string }

func checkEnum(errs *faults, p *place, value string, known ...string) {
	if !slices.Contains(known, value) {
		errs.addf(p, "unknown value %s%s", quote(value), oneOf(value, known))
	}
}

// checkName refuses names of tables that would read badly in a log or a rule.
func checkName(errs *faults, p *place) {
	if p.name == "" || !isBare(p.name) || len(p.name) > maxNameLength {
		errs.addf(p, "this is not a name: write 1 to %d letters, digits, - and _", maxNameLength)
	}
}

// checkNames refuses empty lists, empty strings and, unless known is nil, names that
// do not stand in known, which is sorted. "*" names all of them.
func checkNames(errs *faults, p *place, what string, names, known []string) {
	checkEmpty(errs, p, names)
	for i, n := range names {
		checkNamed(errs, p.at(i), what, n, known)
	}
}

func checkNamed(errs *faults, p *place, what, name string, known []string) {
	if name == "" {
		errs.addf(p, "the name is empty: remove it")
		return
	}
	if known != nil && name != "*" {
		checkExists(errs, p, what, name, known)
	}
}

// checkExists refuses a name that does not stand in known, which is sorted.
func checkExists(errs *faults, p *place, what, name string, known []string) {
	if _, ok := slices.BinarySearch(known, name); ok {
		return
	}
	hint := ""
	if !errs.full() { // else nobody will read it
		hint = didYouMean(name, known)
	}
	errs.addf(p, "there is no %s %s%s", what, quote(name), hint)
}

// checkEmpty refuses a list that is there and empty: who takes the last entry out of a
// list does not mean "everything", which is what a missing list says.
func checkEmpty[T any](errs *faults, p *place, values []T) {
	if values != nil && len(values) == 0 {
		errs.addf(p, "an empty list would match everything: name something, or remove the key if everything is meant")
	}
}

func (f *File) checkListeners(errs *faults, known knownNames) {
	for _, name := range f.ListenerNames() {
		p, l := root.key("listen").key(name), f.Listen[name]
		checkName(errs, p)
		if len(l.Address) == 0 {
			errs.addf(p.key("address"), "there is no address: write one such as [%q]", DefaultAddress)
		}
		checkProtocols(errs, p.key("protocols"), l.Protocols, known.rows)
		if l.PublicAddress != "" {
			if err := checkHostPort(l.PublicAddress); err != nil {
				errs.add(p.key("public_address"), err)
			}
		}
	}
}

func checkProtocols(errs *faults, p *place, names, rows []string) {
	if len(names) == 0 {
		errs.addf(p, `an empty list would serve nobody: write ["*"] for every protocol`)
		return
	}
	if slices.Contains(names, "*") {
		if len(names) > 1 {
			errs.addf(p, `"*" is every protocol: leave the other names out`)
		}
		return
	}
	for i, n := range names {
		checkNamed(errs, p.at(i), "protocol", n, rows)
		if slices.Contains(names[:i], n) {
			errs.addf(p.at(i), "%s is named twice", quote(n))
		}
	}
}

// checkHostPort accepts "host:port" with a name or an address that is harmless
// in a page, a PAC file and a log.
func checkHostPort(s string) error {
	i := strings.LastIndexByte(s, ':')
	if strings.Contains(s, "://") {
		return fmt.Errorf(`%s is a URL: write its host and port alone, as in "www.example.com:80"`, quote(s))
	}
	if i < 0 {
		return fmt.Errorf(`%s has no port: write it as "proxy.example.net:7659"`, quote(s))
	}
	if port, err := parsePort(s[i+1:]); err != nil || port == 0 {
		return fmt.Errorf("%s does not end in a port from 1 to 65535", quote(s))
	}
	return checkHost(s[:i])
}

// checkHost accepts a host name (RFC 1123 section 2.1, and "_"), an IPv4
// address, or an IPv6 address in brackets.
func checkHost(host string) error {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, closed := strings.CutSuffix(inner, "]")
		if a, err := netip.ParseAddr(inner); err != nil || !closed || !a.Is6() {
			return fmt.Errorf("%s is not an IPv6 address in brackets", quote(host))
		}
		return nil
	}
	switch {
	case host == "":
		return errors.New("there is no host before the port")
	case strings.Contains(host, ":"):
		return fmt.Errorf(`%s is not a host: an IPv6 address stands in brackets, as in "[2001:db8::1]:22"`, quote(host))
	case len(host) > 253:
		return fmt.Errorf("%s is longer than a host name may be", quote(host))
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || !isBare(label) || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%s is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)", quote(host))
		}
	}
	return nil
}

// checkSockets refuses sockets that could not all be bound.
func (f *File) checkSockets(errs *faults) {
	type owner struct {
		p *place
		a AddrRange
	}
	var owners []owner
	total := 0
	for _, name := range f.ListenerNames() {
		for i, a := range f.Listen[name].Address {
			if !a.Addr.IsValid() {
				continue // a fault of its own
			}
			p := root.key("listen").key(name).key("address").at(i)
			for _, o := range owners {
				if shared, ok := overlap(o.a, a); ok {
					errs.addf(p, "%s and %s of %s share port %s, and only one can have it", quote(a.String()), quote(o.a.String()), o.p, shared)
					break
				}
			}
			if total += int(a.Ports.Last) - int(a.Ports.First) + 1; total > maxSockets {
				errs.addf(p, "the listeners have more than %d sockets in all: write smaller ranges", maxSockets)
				return
			}
			owners = append(owners, owner{p, a})
		}
	}
}

// overlap returns the ports that two ranges want of the same address. An
// unspecified address is every address of its family: IPv6 sockets are bound for IPv6 alone.
func overlap(a, b AddrRange) (PortRange, bool) {
	if a.Addr.Is4() != b.Addr.Is4() || a.Addr != b.Addr && !a.Addr.IsUnspecified() && !b.Addr.IsUnspecified() {
		return PortRange{}, false
	}
	return a.Ports.overlap(b.Ports)
}

func (f *File) checkSniff(errs *faults, known knownNames) {
	p := root.key("sniff")
	checkPositive(errs, p.key("timeout"), f.Sniff.Timeout)
	checkPositive(errs, p.key("silent_after"), f.Sniff.SilentAfter)
	if f.Sniff.SilentTo == "" {
		return
	}
	checkNamed(errs, p.key("silent_to"), "backend", f.Sniff.SilentTo, known.backends)
	if f.Sniff.SilentAfter >= f.Sniff.Timeout && f.Sniff.Timeout > 0 {
		errs.addf(p.key("silent_after"), "%s must be below timeout, %s, or no silent client is ever handed over", f.Sniff.SilentAfter, f.Sniff.Timeout)
	}
}

func checkPositive(errs *faults, p *place, d Duration) {
	if d <= 0 {
		errs.addf(p, "this must be longer than 0: without it a client could hold its connection for ever")
	}
}

func (f *File) checkTimeouts(errs *faults) {
	p := root.key("timeouts")
	checkPositive(errs, p.key("handshake"), f.Timeouts.Handshake)
	checkPositive(errs, p.key("connect"), f.Timeouts.Connect)
	checkPositive(errs, p.key("keep_alive"), f.Timeouts.KeepAlive)
}

func (f *File) checkLimits(errs *faults) {
	p := root.key("limits")
	for _, l := range []struct {
		key string
		n   int
	}{
		{"connections", f.Limits.Connections},
		{"connections_per_client", f.Limits.ConnectionsPerClient},
		{"unfinished", f.Limits.Unfinished},
		{"unfinished_per_client", f.Limits.UnfinishedPerClient},
		{"streams_per_connection", f.Limits.StreamsPerConnection},
	} {
		checkCount(errs, p.key(l.key), l.n)
	}
}

func checkCount(errs *faults, p *place, n int) {
	if n < 1 || n > maxLimit {
		errs.addf(p, "%d is not a limit: write a number from 1 to %d", n, maxLimit)
	}
}

func (f *File) checkAuth(errs *faults) {
	p := root.key("auth")
	for _, name := range sortedKeys(f.Auth.Groups) {
		checkName(errs, p.key("groups").key(name))
		for i, u := range f.Auth.Groups[name] {
			if u == "" || strings.Contains(u, ":") {
				errs.addf(p.key("groups").key(name).at(i), "%s is not a user: a name is not empty and has no colon (RFC 7617 section 2)", quote(u))
			}
		}
	}
	f.checkUserParameters(errs)
	l := f.Auth.Lockout
	if l.Failures < 0 {
		errs.addf(p.key("lockout").key("failures"), "%d is negative: write 0 to turn the lockout off", l.Failures)
	}
	if l.Failures > 0 && (l.Window <= 0 || l.Ban <= 0) {
		key := "window"
		if l.Window > 0 {
			key = "ban"
		}
		errs.addf(p.key("lockout").key(key), "this must be longer than 0: write failures = 0 to turn the lockout off")
	}
}

// ownSocket returns the listener that a server's address belongs to, as far as
// the file can tell.
func (f *File) ownSocket(server string) (listener string, ok bool) {
	i := strings.LastIndexByte(server, ':')
	port, _ := strconv.ParseUint(server[i+1:], 10, 16) // checkHostPort has seen it
	host := strings.Trim(server[:i], "[]")
	addr, err := netip.ParseAddr(host)
	if strings.EqualFold(host, "localhost") {
		addr, err = netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	if err != nil {
		return "", false
	}
	own := AddrRange{addr.Unmap(), PortRange{uint16(port), uint16(port)}}
	for _, name := range f.ListenerNames() {
		for _, a := range f.Listen[name].Address {
			wild := a.Addr.IsUnspecified() && !own.Addr.IsLoopback() && !own.Addr.IsUnspecified()
			if _, shared := overlap(a, own); shared && !wild {
				return name, true
			}
		}
	}
	return "", false
}

func (f *File) checkLog(errs *faults) {
	p := root.key("log")
	checkEnum(errs, p.key("level"), f.Log.Level, "debug", "info", "warn", "error")
	checkEnum(errs, p.key("access"), f.Log.Access, AccessAuto, AccessText, AccessJSON, AccessCommon, AccessSquid, AccessOff)
	if f.Log.AccessTo == "" {
		errs.addf(p.key("access_to"), `this is empty: write "stderr", "stdout" or a path; access = "off" writes no access log`)
	}
}
