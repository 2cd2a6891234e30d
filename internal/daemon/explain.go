package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"polyport/acl"
	"polyport/internal/config"
	"polyport/internal/egress"
	"polyport/internal/target"
)

// Question is what Explain is asked.
type Question struct {
	Client   netip.Addr
	User     string // "" for nobody
	Protocol string // the row; "" is "connect"
	Method   string // "" is what the row would say
	Listener string // "" is the first one
	Target   string // "host:port"
	At       time.Time
}

// ErrDenied is what Explain returns when the answer is no.
var ErrDenied = errors.New("denied")

// Explain prints which rule decides a question, and why, by name and for each
// resolved address. Nothing is dialled. The error is ErrDenied when the answer is
// no.
func Explain(ctx context.Context, o Options, q Question, w io.Writer) error {
	f, err := load(o)
	if err != nil {
		return err
	}
	a, err := assemble(f)
	if err != nil {
		return err
	}
	f.Log.Access, f.Log.AccessTo = config.AccessOff, config.ToStderr // a question leaves no line, and makes no file
	st, err := newState(f, Options{Stderr: io.Discard, Stdout: io.Discard}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer st.close()
	for _, l := range wanted(f) {
		st.own.add(l.key.address)
	}
	r, err := request(f, rowNames(a.rows), q)
	if err != nil {
		return err
	}
	x := a.runtime(f, st, 1).Egress.Explain(ctx, r)
	printExplanation(w, a.policy, r, x)
	if !x.Allowed() {
		return ErrDenied
	}
	return nil
}

// request makes of a question what a session would ask.
func request(f *config.File, rows []string, q Question) (acl.Request, error) {
	t, err := target.Parse(q.Target)
	if err != nil {
		return acl.Request{}, err
	}
	if q.Listener == "" {
		q.Listener = f.ListenerNames()[0]
	} else if _, ok := f.Listen[q.Listener]; !ok {
		return acl.Request{}, fmt.Errorf("there is no listener %q; there are %s", q.Listener, strings.Join(f.ListenerNames(), ", "))
	}
	switch {
	case q.Protocol == "":
		q.Protocol = "connect"
	case !contains(rows, q.Protocol):
		return acl.Request{}, fmt.Errorf("there is no protocol %q; there are %s", q.Protocol, strings.Join(rows, ", "))
	}
	if q.Method == "" {
		q.Method = methodOf(q.Protocol)
	}
	return acl.Request{
		Client:      q.Client,
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
		if user != "" && contains(members, user) {
			groups = append(groups, name)
		}
	}
	return groups
}

// printExplanation writes the answer first and the reasons below it.
func printExplanation(w io.Writer, p *acl.Policy, r acl.Request, x egress.Explanation) {
	fmt.Fprintf(w, "%s: %s\n", r.Target, answer(x))
	who := "nobody"
	if r.Identity != "" {
		who = "user " + r.Identity
	}
	fmt.Fprintf(w, "  asked as client %s, %s, protocol %s, method %q, listener %s\n", r.Client, who, r.Protocol, r.Method, r.Listener)
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
		printSteps(w, p.Explain(r, v.Address.Addr()))
	}
	if len(x.Dial) > 0 {
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
	case errors.Is(x.Err, egress.ErrChallenge):
		return "needs a user (" + decisionText(x.Final) + ")"
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
