package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"polyport/acl"
	"polyport/internal/config"
	"polyport/internal/egress"
	"polyport/internal/exit"
	"polyport/internal/pool"
	"polyport/internal/session"
	"polyport/internal/target"
	"polyport/internal/upstream"
	"polyport/mux"
)

// Question is what Explain is asked.
type Question struct {
	Client   netip.Addr
	Port     uint16 // that the client connects from; 0 is not known
	User     string // "" for nobody; with the parameters that it would log in with
	Protocol string // the row; "" is "connect"
	Method   string // "" is what the row would say
	Listener string // "" is the first one
	Target   string // "host:port"; "" is fine for rows whose clients cannot say
	Site     bool   // Target is asked for in origin-form, as visitors of a web site do; the row is http
	At       time.Time
}

var (
	// ErrDenied is what Explain returns when the answer is no.
	ErrDenied = errors.New("denied")
	// ErrNoTarget is what Explain returns where the question needs a target and has none.
	ErrNoTarget = errors.New("the question names no target")
)

// router is a Handler whose clients are handed to backends: it says to which, and what the
// rules are asked about them. A nil backend is the target itself.
type router interface {
	Route(t target.Target) (asked target.Target, b *upstream.Backend, err error)
}

// siteFinder is a Handler that hands what visitors of a site ask for to a backend; nil for a target that is no site.
type siteFinder interface {
	Site(t target.Target) *upstream.Backend
}

// Explain prints which rule decides a question, and why, by name and for each
// resolved address. Nothing is dialled. The error is ErrDenied when the answer is
// no.
func Explain(ctx context.Context, o Options, q Question, w io.Writer) error {
	f, err := load(o)
	if err != nil {
		return err
	}
	a, err := assemble(f, lent{})
	if err != nil {
		return err
	}
	defer a.close()
	f.Log.Access, f.Log.AccessTo = config.AccessOff, config.ToStderr // a question leaves no line, and makes no file
	st, err := newState(f, Options{Stderr: io.Discard, Stdout: io.Discard}, slog.New(slog.DiscardHandler), newKept(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	defer st.close()
	for _, l := range wanted(f) {
		st.own.add(l.key.address)
	}
	return a.explain(ctx, f, a.runtime(f, st, 1).Egress, q, w)
}

// explain answers q by what a and dialer would do.
func (a *assembly) explain(ctx context.Context, f *config.File, dialer *egress.Dialer, q Question, w io.Writer) error {
	if q.Site {
		q.Protocol = "http"
	}
	handler, err := a.handler(&q)
	if err != nil {
		return err
	}
	r, dialer, err := a.asked(f, dialer, q, w)
	if err != nil {
		return err
	}
	if q.Site {
		return a.explainSite(ctx, handler, dialer, r, w)
	}
	if rt, ok := handler.(router); ok {
		asked, b, err := rt.Route(r.Target)
		if err != nil {
			return refusedBefore(q, w, err)
		}
		if r.Target = asked; b != nil {
			return a.explainBackend(ctx, dialer, r, b, w)
		}
	}
	if !r.Target.IsValid() {
		return ErrNoTarget
	}
	if bindsUnknown(r) {
		return explainUnknown(w, a.policy, f, r)
	}
	x := dialer.Explain(ctx, r)
	printExplanation(w, f, a.policy, r, x, dialer.Country)
	if !x.Allowed() {
		return ErrDenied
	}
	if x.Unserved != nil {
		fmt.Fprintf(w, "\nbut it is refused: %v\n", x.Unserved)
		return ErrDenied
	}
	return explainPorts(w, f, r)
}

// handler finds the handler of the protocol that q is about.
func (a *assembly) handler(q *Question) (session.Handler, error) {
	q.Protocol = cmp.Or(q.Protocol, "connect")
	var names []string
	for _, r := range a.rows {
		switch r.Name {
		case mux.RowReject, rowHTTP2: // whose requests are of http and connect
		case q.Protocol:
			return r.Handler, nil
		default:
			names = append(names, r.Name)
		}
	}
	return nil, fmt.Errorf("there is no protocol %q; there are %s", q.Protocol, strings.Join(names, ", "))
}

// asked is what a session would ask, and by which Dialer, for what gets as far as the rules.
func (a *assembly) asked(f *config.File, dialer *egress.Dialer, q Question, w io.Writer) (acl.Request, *egress.Dialer, error) {
	user, wish, err := exit.ParseUser(q.User, userParameters(f))
	if err == nil {
		err = dialer.Meets(wish)
	}
	if err != nil {
		return acl.Request{}, nil, refusedBefore(q, w, err)
	}
	q.User, dialer = user, dialer.Wishing(wish)
	r, err := request(f, q)
	if err != nil {
		return acl.Request{}, nil, err
	}
	r.ClientCountry = dialer.Country(r.Client)
	if rows := a.listeners[r.Listener].Rows; rows != nil && !rows[r.Protocol] {
		return acl.Request{}, nil, refusedBefore(q, w, fmt.Errorf("listen.%s does not serve %s", r.Listener, r.Protocol))
	}
	return r, dialer, nil
}

// refusedBefore is the answer for what no rule is asked about.
func refusedBefore(q Question, w io.Writer, err error) error {
	fmt.Fprintf(w, "%s: refused before any rule is asked: %v\n", cmp.Or(q.Target, q.Protocol), err)
	return ErrDenied
}

// explainSite is the answer for what visitors of a site ask for.
func (a *assembly) explainSite(ctx context.Context, h session.Handler, dialer *egress.Dialer, r acl.Request, w io.Writer) error {
	if !r.Target.IsValid() {
		return ErrNoTarget
	}
	if f, ok := h.(siteFinder); ok {
		if b := f.Site(r.Target); b != nil {
			return a.explainBackend(ctx, dialer, r, b, w)
		}
	}
	return fmt.Errorf("%s is in the hosts of no [site.NAME]: leave --site out to ask about the proxy", r.Target.Host())
}

// explainBackend is the answer for what is handed to a backend.
func (a *assembly) explainBackend(ctx context.Context, dialer *egress.Dialer, r acl.Request, b *upstream.Backend, w io.Writer) error {
	_, err := dialer.AuthorizeBackend(ctx, r, b)
	r.Backend = b.Name()
	e := a.policy.ExplainName(r)
	printQuestion(w, r, answer(egress.Explanation{Final: e.Decision, Err: err}))
	fmt.Fprintln(w, "\nby name alone, since a backend gets it:")
	printSteps(w, e)
	if err != nil {
		return ErrDenied
	}
	fmt.Fprintf(w, "\nit would be handed to backend %s\n", b.Name())
	choices := b.Pool().Explain(&pool.Request{Client: r.Client, User: r.Identity}, nil)
	printChoices(w, choices)
	if !slices.ContainsFunc(choices, func(c pool.Choice) bool { return c.Considered }) {
		fmt.Fprintf(w, "\nbut it is refused: no server of backend %s can be used\n", b.Name())
		return ErrDenied
	}
	return nil
}

// request makes of a question what a session would ask.
func request(f *config.File, q Question) (acl.Request, error) {
	var t target.Target
	if q.Target != "" {
		var err error
		if t, err = parseTarget(q); err != nil {
			return acl.Request{}, err
		}
	}
	if q.Listener == "" {
		q.Listener = f.ListenerNames()[0]
	} else if _, ok := f.Listen[q.Listener]; !ok {
		return acl.Request{}, fmt.Errorf("there is no listener %q; there are %s", q.Listener, strings.Join(f.ListenerNames(), ", "))
	}
	if q.Method == "" {
		q.Method = methodOf(q.Protocol)
	}
	return acl.Request{
		Client:      q.Client,
		ClientPort:  q.Port,
		Identity:    q.User,
		Groups:      groupsOf(f, q.User),
		Protocol:    q.Protocol,
		Method:      q.Method,
		Listener:    q.Listener,
		RequireUser: f.RequireUser(q.Listener),
		Target:      t,
		Time:        q.At,
	}, nil
}

// methodOf is what sessions of a row say of themselves when nothing else is asked.
func methodOf(row string) string {
	switch row {
	case "http":
		return "GET"
	case "connect", "socks4", "socks5":
		return "CONNECT"
	}
	return ""
}

// groupsOf returns the groups that list a user.
func groupsOf(f *config.File, user string) []string {
	var groups []string
	for name, members := range f.Auth.Groups {
		if user != "" && slices.Contains(members, user) {
			groups = append(groups, name)
		}
	}
	return groups
}

// printQuestion writes the answer, and what was asked.
func printQuestion(w io.Writer, r acl.Request, answer string) {
	fmt.Fprintf(w, "%s: %s\n", r.Target, answer)
	who := "nobody"
	if r.Identity != "" {
		who = "user " + r.Identity
	}
	fmt.Fprintf(w, "  asked as client %s, %s, protocol %s, method %q, listener %s\n", r.Client, who, r.Protocol, r.Method, r.Listener)
}

// printExplanation writes the answer first and the reasons below it.
func printExplanation(w io.Writer, f *config.File, p *acl.Policy, r acl.Request, x egress.Explanation, country func(netip.Addr) string) {
	printQuestion(w, r, answer(x))
	if _, literal := r.Target.Addr(); !literal { // its one address is explained below
		fmt.Fprintln(w, "\nby name:")
		printSteps(w, p.Explain(r, netip.Addr{}))
	}
	switch {
	case x.ResolveErr != nil:
		fmt.Fprintf(w, "\nthe name could not be resolved: %v\n", x.ResolveErr)
	case x.Resolved:
		fmt.Fprintf(w, "\nresolved to %s\n", plural(len(x.Addresses), "address"))
	}
	for _, v := range x.Verdicts {
		text := decisionText(v.Decision)
		if v.Own {
			text = ownText
		}
		fmt.Fprintf(w, "\naddress %s: %s\n", v.Address.Addr(), text)
		r.TargetCountry = country(v.Address.Addr())
		printSteps(w, p.Explain(r, v.Address.Addr()))
	}
	switch {
	case len(x.Dial) > 0 && isBind(r.Method):
		printPeers(w, x.Dial)
	case x.Allowed() && x.Route.Upstream != "":
		printWay(w, f, x)
		if len(x.Dial) > 0 && x.Unserved == nil {
			fmt.Fprintf(w, "  the upstream is asked for %s\n", strings.Join(texts(x.Dial), ", and if that does not answer for "))
		}
	case len(x.Dial) > 0:
		printWay(w, f, x)
		fmt.Fprintf(w, "\nit would leave directly, to %s\n", x.Dial[0])
		for _, a := range x.Dial[1:] {
			fmt.Fprintf(w, "  or, if that does not answer, to %s\n", a)
		}
	}
}

// ownText is the answer that no rule can change.
const ownText = "denied: it is one of the gateway's own listening sockets, which no rule can open"

// answer says in words what a session would get.
func answer(x egress.Explanation) string {
	var e *egress.Error
	switch {
	case x.Allowed():
		return decisionText(x.Final)
	case errors.As(x.Err, &e) && e.Reason == egress.LoopDetected:
		return ownText
	case x.ResolveErr != nil:
		return "cannot be resolved"
	case x.Challenged():
		return "needs a user (" + decisionText(x.Final) + ")"
	case x.Final.Action == acl.Allow && errors.As(x.Err, &e) && e.Err != nil: // by a way that there is not
		return fmt.Sprintf("refused, although rule %q allows it: %v", x.Final.Rule, e.Err)
	}
	return decisionText(x.Final)
}

// decisionText says who decided what.
func decisionText(d acl.Decision) string {
	verb := map[acl.Action]string{acl.Allow: "allowed", acl.Deny: "denied", acl.Challenge: "a user is required"}[d.Action]
	switch d.Reason {
	case acl.ReasonNoRule:
		return verb + ", since no rule matches"
	case acl.ReasonGuard:
		return fmt.Sprintf("%s by the guard, although rule %q would allow it", verb, d.Rule)
	case "":
		return verb
	}
	return fmt.Sprintf("%s by rule %q", verb, d.Rule)
}

// printSteps writes one line per rule.
func printSteps(w io.Writer, e acl.Explanation) {
	if e.Special != "" {
		fmt.Fprintf(w, "  (the address is %s)\n", e.Special)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range e.Steps {
		fmt.Fprintf(t, "  %s\t%q\t%s\t%s\n", s.Action, s.Rule, s.Result, s.Why)
	}
	_ = t.Flush() // what cannot be written does not change the answer
}
