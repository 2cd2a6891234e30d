package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	multierror "github.com/hashicorp/go-multierror"

	"polyport/acl"
	"polyport/internal/config"
	"polyport/internal/egress"
	"polyport/internal/session"
	"polyport/mux"
	"polyport/protocols"
	"polyport/protocols/spec"
)

// builtInRows are the rows that every gateway has; users' raw rows come on top.
var builtInRows = []string{"http", "connect", rowHTTP2, "socks4", "socks5", "tls", rowSilent, mux.RowReject}

// rowSilent serves clients that send nothing.
const rowSilent = "silent"

// rowHTTP2 serves connections whose streams are sessions of the rows http and connect.
const rowHTTP2 = "h2"

// rowTLS is the way into TLS to the gateway itself.
const rowTLS = "tls"

// assembly is what a configuration comes to: everything but what lives longer
// than one configuration (state) and what touches the network.
type assembly struct {
	policy    *acl.Policy
	rows      []spec.Row
	listeners map[string]session.Listener
	table     mux.Table // outside TLS
	inside    mux.Table // inside TLS to the gateway itself
	ways      *ways
	security  *security    // nil where there is no such TLS
	advertise []netip.Addr // by whoever runs it: what [bind] advertise stands for
}

// close lets go of what the assembly reads in the background.
func (a *assembly) close() {
	a.security.close()
	a.ways.close()
}

// assemble builds and checks everything that f describes. The caller closes the assembly. The error lists every fault.
func assemble(f *config.File, l lent) (*assembly, error) {
	var errs *multierror.Error
	a := &assembly{listeners: map[string]session.Listener{}, table: mux.Table{}, inside: mux.Table{}}
	var err error
	a.ways, err = makeWays(f, l)
	errs = multierror.Append(errs, err)
	a.security, err = openSecurity(f, l)
	errs = multierror.Append(errs, err)
	env := spec.Env{
		Backend:    a.ways.finder(f),
		Sites:      sites(f),
		SilentTo:   f.Sniff.SilentTo,
		HTTP:       spec.HTTP{Anonymity: f.HTTP.Anonymity, Streams: f.Limits.StreamsPerConnection, ForwardHTTPS: f.HTTP.ForwardHTTPS},
		TLS:        a.security.spec(),
		SecureName: a.security.name(f),
	}
	if l.acme != nil {
		env.ACMEAnswer = l.acme.answer
	}
	a.rows, err = protocols.Rows(env, f.DecodeProtocol)
	errs = multierror.Append(errs, placeRows(f, err), f.Unknown())
	errs = multierror.Append(errs, f.Validate(rowNames(a.rows)))
	a.policy, err = acl.New(policyOptions(f))
	errs = multierror.Append(errs, f.At("", err))
	if a.policy != nil {
		errs = multierror.Append(errs, f.At("", refuseOpenProxy(f, a.policy)))
	}
	if err := errs.ErrorOrNil(); err != nil {
		a.close()
		return nil, config.Join(err)
	}
	for name := range f.Listen {
		a.addListener(f, name)
	}
	return a, nil
}

// placeRows gives the faults of rows their places in the file: those of [protocols], and of what rows get from elsewhere.
func placeRows(f *config.File, err error) error {
	var errs *multierror.Error
	for _, e := range multierror.Append(nil, err).Errors {
		text := e.Error()
		site, isSite := strings.CutPrefix(text, "httpproxy.site.")
		silent, isSilent := strings.CutPrefix(text, "raw.silent_to: ")
		switch {
		case isSite:
			errs = multierror.Append(errs, f.AtUntold("", errors.New("site."+site)))
		case isSilent:
			errs = multierror.Append(errs, f.AtUntold("", errors.New("sniff.silent_to: "+silent)))
		default:
			errs = multierror.Append(errs, f.At("protocols", e))
		}
	}
	return errs.ErrorOrNil()
}

// rowNames returns the names that a listener's protocols and a rule's protocol may use.
func rowNames(rows []spec.Row) []string {
	names := append([]string(nil), builtInRows...)
	for _, r := range rows {
		if !slices.Contains(names, r.Name) {
			names = append(names, r.Name)
		}
	}
	return names
}

// addListener works out what the sessions and the sniffing of one listener need.
func (a *assembly) addListener(f *config.File, name string) {
	l := f.Listen[name]
	sl := session.Listener{
		RequireUser:   f.RequireUser(name),
		RequireTLS:    l.RequireTLS,
		Loopback:      l.Loopback(),
		HelpPage:      f.HelpPage(name),
		PublicAddress: l.PublicAddress,
	}
	if !slices.Contains(l.Protocols, "*") {
		sl.Rows = map[string]bool{}
		for _, p := range l.Protocols {
			sl.Rows[p] = true
		}
	}
	a.listeners[name] = sl
	for _, r := range a.rows {
		if sl.Rows != nil && !sl.Rows[r.Name] && r.Name != mux.RowReject {
			continue
		}
		a.inside[name] = append(a.inside[name], r.Row)
		if !sl.RequireTLS || r.Name == rowTLS || r.Name == mux.RowReject {
			a.table[name] = append(a.table[name], r.Row)
		}
	}
}

// runtime makes the Runtime of this assembly with the state that outlives it.
func (a *assembly) runtime(f *config.File, st *state, generation uint64) *session.Runtime {
	rt := &session.Runtime{
		Generation: generation,
		Policy:     a.policy,
		Egress: egress.New(egress.Options{
			Policy:         a.policy,
			Resolver:       st.resolver,
			Own:            st.own.holds,
			ConnectTimeout: time.Duration(f.Timeouts.Connect),
			Ways:           a.ways.egress(f),
			Country:        a.ways.country(),
			Families:       st.families,
			Terms:          st.terms,
			PreferIPv4:     f.DNS.Family == config.FamilyPreferIPv4,
			Bind:           a.bindOptions(f, st),
			Via:            ownVia(f),
		}),
		Handlers:       map[string]session.Handler{},
		OnLoop:         map[string]bool{},
		Listeners:      a.listeners,
		UserParameters: userParameters(f),
		Timeouts: session.Timeouts{
			Handshake: time.Duration(f.Timeouts.Handshake),
			Connect:   time.Duration(f.Timeouts.Connect),
			Idle:      neverIfZero(f.Timeouts.Idle),
			KeepAlive: time.Duration(f.Timeouts.KeepAlive),
			Lifetime:  time.Duration(f.Timeouts.Lifetime),
		},
	}
	if st.users != nil {
		rt.Auth = st.users
	}
	if a.security != nil {
		rt.Certified = a.security.certified
	}
	for _, r := range a.rows {
		rt.Handlers[r.Name] = r.Handler
		rt.OnLoop[r.Name] = r.OnLoop
	}
	return rt
}

// ownVia is the Via field of CONNECT for clients that have sent no request of HTTP: it begins with us, in the version of the CONNECT.
func ownVia(f *config.File) string {
	if f.HTTP.Anonymity == config.AnonymityHideProxy {
		return ""
	}
	return "1.1 " + spec.Pseudonym
}

// neverIfZero translates the file's "0 is no limit" to the session's "negative is never".
func neverIfZero(d config.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}

func muxLimits(f *config.File) mux.Limits {
	return mux.Limits{
		Connections:          f.Limits.Connections,
		ConnectionsPerClient: f.Limits.ConnectionsPerClient,
		Unfinished:           f.Limits.Unfinished,
		UnfinishedPerClient:  f.Limits.UnfinishedPerClient,
	}
}

func muxSniff(f *config.File) mux.SniffOptions {
	o := mux.SniffOptions{Timeout: time.Duration(f.Sniff.Timeout), SilentAfter: time.Duration(f.Sniff.SilentAfter)}
	if f.Sniff.SilentTo != "" {
		o.SilentRow = rowSilent
	}
	return o
}

// policyOptions translates the [[rule]] tables, and those that flags have made.
func policyOptions(f *config.File) acl.Options {
	o := acl.Options{HasUsers: f.HasUsers()}
	for _, r := range f.Rule {
		o.Rules = append(o.Rules, aclRule(r))
	}
	if f.DefaultRules {
		o.Rules = append(o.Rules, acl.DefaultRules()...)
	}
	return o
}

func aclRule(r config.Rule) acl.Rule {
	out := acl.Rule{
		Name: r.Name, User: r.User, Group: r.Group, Protocol: r.Protocol, Listener: r.Listener, Backend: r.Backend,
		Target: r.Target, Method: r.Method, Time: r.Time, Anonymous: r.Anonymous,
		Country: r.Country, ClientCountry: r.ClientCountry, Upstream: r.Upstream, Exit: r.Exit,
		Client: prefixes(r.Client), ClientPort: ports(r.ClientPort), Port: ports(r.Port),
	}
	if r.Action == config.ActionAllow {
		out.Action = acl.Allow
	}
	return out
}

func prefixes(in []config.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, len(in))
	for i, p := range in {
		out[i] = p.Prefix
	}
	return out
}

func ports(in []config.PortRange) []acl.PortRange {
	out := make([]acl.PortRange, len(in))
	for i, p := range in {
		out[i] = acl.PortRange(p)
	}
	return out
}

// refuseOpenProxy finds the listeners that anyone on the network could use.
func refuseOpenProxy(f *config.File, p *acl.Policy) error {
	if f.AllowOpenProxy {
		return nil
	}
	ours := ""
	if names := f.BackendNames(); len(names) > 0 {
		ours = fmt.Sprintf("; if it is about servers of your own alone, write backend = [%q] into it", names[0])
	}
	var errs *multierror.Error
	for _, name := range f.ListenerNames() {
		if f.Listen[name].Loopback() {
			continue
		}
		if rule, open := p.OpenTo(name, f.RequireUser(name)); open {
			errs = multierror.Append(errs, fmt.Errorf(
				"listen.%s: rule %q would let anyone who can reach this port use it without a user: %w. "+
					"Name who may, for instance client = [\"192.168.0.0/16\"] in that rule, or set up users with [auth] htpasswd%s; "+
					"if the whole network is really meant, write allow_open_proxy = true (or --allow-open-proxy)", name, rule, errOpenProxy, ours))
		}
	}
	return errs.ErrorOrNil()
}

// errOpenProxy is why the gateway does not start on a policy that admits everyone.
var errOpenProxy = errors.New("that is an open proxy")
