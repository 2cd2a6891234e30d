package config

import (
	"net/netip"
	"slices"
	"strings"
)

// maxChain is how many upstreams may follow one another by via: each costs a handshake of its own within one connect timeout.
const maxChain = 8

func (f *File) checkUpstreams(errs *faults, known knownNames) {
	if n := f.DefaultUpstream; n != "" {
		checkUpstreamName(errs, root.key("default_upstream"), n, known)
	}
	for _, name := range f.UpstreamNames() {
		p, u := root.key("upstream").key(name), f.Upstream[name]
		checkName(errs, p)
		if strings.EqualFold(name, DirectUpstream) {
			errs.addf(p, "%q is what rules call no upstream at all: give it another name", DirectUpstream)
		}
		f.checkUpstreamServers(errs, p, u)
		checkUpstreamUser(errs, p, u)
		if u.Via != "" {
			checkUpstreamName(errs, p.key("via"), u.Via, known)
		}
		checkEnum(errs, p.key("resolve"), u.Resolve, ResolveLocal, ResolveUpstream)
		checkBalance(errs, p, u.Balance)
		checkUpstreamTLS(errs, p.key("tls"), u.TLS)
		checkUpstreamHealth(errs, p.key("health"), u.Health)
		checkEject(errs, p.key("eject"), u.Eject)
	}
	f.checkChains(errs)
}

// checkUpstreamName accepts the name of an [upstream.NAME] where none is said by leaving the key out.
func checkUpstreamName(errs *faults, p *place, name string, known knownNames) {
	if name == DirectUpstream {
		errs.addf(p, "%q is what holds without this key: remove it", name)
		return
	}
	checkExists(errs, p, "upstream", name, known.upstreams)
}

func (f *File) checkUpstreamServers(errs *faults, p *place, u Upstream) {
	checkServerCount(errs, p.key("servers"), len(u.Servers), "socks5://198.51.100.7:1080")
	type identity struct{ url, user string } // of providers that choose the way out by the user's name
	seen := map[identity]bool{}
	for i, s := range u.Servers {
		here := p.key("servers").at(i)
		at := f.below(here, "url")
		checkWeight(errs, here, s.Weight, s.Priority)
		if s.Country != "" {
			checkCountry(errs, here.key("country"), s.Country)
		}
		checkTags(errs, here.key("tags"), s.Tags)
		if s.URL.Scheme == "" {
			errs.addf(at, `there is no URL: write one such as url = "socks5://198.51.100.7:1080"`)
			continue
		}
		f.checkServerURL(errs, at, u, s.URL)
		id := identity{s.URL.String(), s.URL.user}
		if seen[id] {
			errs.addf(at, "%s stands here twice, and not for two users: remove one, and write weight = 2 if it is to get twice as much", quote(s.URL.String()))
		}
		seen[id] = true
	}
}

func (f *File) checkServerURL(errs *faults, p *place, u Upstream, s ServerURL) {
	// Behind another upstream the same address is another machine.
	if u.Via == "" {
		if listener, loops := f.ownSocket(s.Address()); loops {
			errs.addf(p, "%s is the gateway itself (listener %q): connections would go round in circles", quote(s.String()), listener)
		}
	}
	if s.Scheme == "socks4" && u.Resolve == ResolveUpstream {
		errs.addf(p, `socks4 cannot carry names, which resolve = "upstream" sends: write socks4a if the server speaks that, or resolve = "local"`)
	}
	checkShownUser(errs, p, u, s)
}

// checkShownUser judges user and password of the table as a server of it would get them.
func checkShownUser(errs *faults, p *place, u Upstream, s ServerURL) {
	user := s.user
	if user == "" {
		user = u.User
	}
	password := s.password
	if !password.IsSet() && user != "" {
		password = u.Password
	}
	// The password is not read here: what a protocol thinks of its text is found where it is.
	if strings.HasPrefix(s.Scheme, "socks4") && password.IsSet() {
		errs.addf(p, "%s has no passwords, and this one stands in the table: take it out, or write socks5 if the server speaks that", s.Scheme)
		return
	}
	if err := checkCredentials(s.Scheme, user, ""); err != nil {
		errs.add(p, err)
	}
}

// checkUpstreamUser refuses a password that no server would be shown.
func checkUpstreamUser(errs *faults, p *place, u Upstream) {
	needed := func(s UpstreamServer) bool { return s.URL.user != "" && !s.URL.password.IsSet() }
	if u.Password.IsSet() && u.User == "" && !slices.ContainsFunc(u.Servers, needed) {
		errs.addf(p.key("password"), `it belongs to no user: write user = "...", or a user without a password into a server's URL, as in "socks5://user@198.51.100.7:1080"`)
	}
}

func checkUpstreamTLS(errs *faults, p *place, t UpstreamTLS) {
	switch {
	case t.Certificate != "" && t.Key == "":
		errs.addf(p.key("key"), `there is no key for the certificate: write the file of one, such as "client.key"`)
	case t.Key != "" && t.Certificate == "":
		errs.addf(p.key("certificate"), `there is no certificate for the key: write the file of one, such as "client.pem"`)
	}
	if t.ServerName != "" {
		if _, err := netip.ParseAddr(t.ServerName); err == nil {
			return
		}
		if err := checkHost(t.ServerName); err != nil {
			errs.add(p.key("server_name"), err)
		}
	}
}

func checkUpstreamHealth(errs *faults, p *place, h Health) {
	checkEnum(errs, p.key("probe"), h.Probe, ProbeConnect, ProbeTunnel, ProbeHTTP)
	checkHealth(errs, p, h)
	if h.Target != "" {
		if err := checkHostPort(h.Target); err != nil {
			errs.add(p.key("target"), err)
		}
	} else if h.Probe == ProbeTunnel || h.Probe == ProbeHTTP {
		errs.addf(p.key("target"), `probe = %q needs somewhere to go through the server: write one such as "www.example.com:80"`, h.Probe)
	}
}

// checkChains refuses what via makes of upstreams where it never ends, or ends too late.
func (f *File) checkChains(errs *faults) {
	const endless = -1 << 30
	length := map[string]int{} // of the chain that begins with an upstream, itself included
	for _, name := range f.UpstreamNames() {
		var path []string
		onPath := map[string]int{}
		next, n := name, 0
		for f.hasUpstream(next) {
			if done, ok := length[next]; ok {
				n = done
				break
			}
			if i, again := onPath[next]; again {
				f.addCycle(errs, path[i:])
				n = endless
				break
			}
			onPath[next] = len(path)
			path = append(path, next)
			next = f.Upstream[next].Via
		}
		for _, on := range slices.Backward(path) {
			n++
			length[on] = n
			if n == maxChain+1 { // once for each chain, however long
				errs.addf(viaPlace(on), "the chain %s has more than %d upstreams: make it shorter", f.chainFrom(on), maxChain)
			}
		}
	}
}

func (f *File) hasUpstream(name string) bool {
	_, ok := f.Upstream[name]
	return ok
}

func viaPlace(upstream string) *place { return root.key("upstream").key(upstream).key("via") }

// addCycle names a cycle once, whichever of its upstreams was come to first.
func (f *File) addCycle(errs *faults, cycle []string) {
	first := slices.Min(cycle)
	errs.addf(viaPlace(first), "%s goes round in a circle: remove one via of these", f.chainFrom(first))
}

// chainFrom returns "a -> b -> c", up to the first upstream again if it comes.
func (f *File) chainFrom(first string) string {
	text := keyName(first)
	next := f.Upstream[first].Via
	for n := 0; next != ""; n++ {
		if n > maxChain {
			return text + " -> ..."
		}
		text += " -> " + keyName(next)
		if next == first {
			return text
		}
		next = f.Upstream[next].Via
	}
	return text
}
