package egress

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"polyport/acl"
	"polyport/internal/target"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeResolver answers from a table, each time with the next line of a name's
// answers; the last one stays. It counts what it is asked.
type fakeResolver struct {
	answers map[string][][]netip.Addr
	errs    map[string]error
	asked   []string
}

func (f *fakeResolver) Lookup(_ context.Context, _ netip.Addr, host string) ([]netip.Addr, error) {
	n := 0
	for _, h := range f.asked {
		if h == host {
			n++
		}
	}
	f.asked = append(f.asked, host)
	if err := f.errs[host]; err != nil {
		return nil, err
	}
	lines := f.answers[host]
	if len(lines) == 0 {
		return nil, nil
	}
	return lines[min(n, len(lines)-1)], nil
}

// names makes a resolver that knows each name by one answer.
func names(m map[string]string) *fakeResolver {
	f := &fakeResolver{answers: map[string][][]netip.Addr{}}
	for host, list := range m {
		f.answers[host] = [][]netip.Addr{addrs(strings.Fields(list)...)}
	}
	return f
}

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// policy compiles rules.
func policy(t testing.TB, hasUsers bool, rules ...acl.Rule) *acl.Policy {
	t.Helper()
	p, err := acl.New(acl.Options{Rules: rules, HasUsers: hasUsers})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// to makes a request for "host:port" by a client on this machine.
func to(t testing.TB, hostport string) acl.Request {
	t.Helper()
	tg, err := target.Parse(hostport)
	if err != nil {
		t.Fatal(err)
	}
	return acl.Request{Client: netip.MustParseAddr("127.0.0.1"), Target: tg, Protocol: "connect", Method: "CONNECT"}
}

var allowAll = acl.Rule{Name: "all", Action: acl.Allow}

func TestAuthorize(t *testing.T) {
	allowPrivate := acl.Rule{Name: "lan", Action: acl.Allow, Target: []string{"10.0.0.0/8"}}
	denyNet := acl.Rule{Name: "no net", Action: acl.Deny, Target: []string{"198.41.0.0/16"}}
	denyName := acl.Rule{Name: "no ads", Action: acl.Deny, Target: []string{"*.ads.example"}}
	userNet := acl.Rule{Name: "users net", Action: acl.Allow, User: []string{"*"}, Target: []string{"8.8.0.0/16"}}
	resolver := map[string]string{
		"public.example":  "8.8.8.8 2001:4860:4860::8888 8.8.4.4",
		"mapped.example":  "::ffff:8.8.8.8 8.8.8.8",
		"private.example": "10.0.0.1 192.168.0.1 fd00::1",
		"mixed.example":   "10.0.0.1 8.8.8.8 127.0.0.1 ::1",
		"hidden.example":  "64:ff9b::7f00:1 2002:7f00:1::1",
		"denied.example":  "198.41.0.4",
		"denied2.example": "10.0.0.1 198.41.0.4",
		"own.example":     "8.8.8.8",
		"own2.example":    "10.9.9.9",
		"x.ads.example":   "8.8.8.8",
	}
	tests := []struct {
		name   string
		rules  []acl.Rule // none: allowAll
		target string
		want   string // the pinned addresses in order; "" is a refusal
		rule   string
		reason Reason
		cause  error
		dns    int    // how many look-ups
		says   string // part of the error
	}{
		{name: "name, families interleaved", target: "public.example:443", want: "2001:4860:4860::8888 8.8.8.8 8.8.4.4", rule: "all", dns: 1},
		{name: "mapped address, only once", target: "mapped.example:443", want: "8.8.8.8", rule: "all", dns: 1},
		{name: "literal", target: "8.8.8.8:443", want: "8.8.8.8", rule: "all"},
		{name: "literal in IPv6", target: "[2001:4860:4860::8888]:443", want: "2001:4860:4860::8888", rule: "all"},
		{name: "decimal literal", target: "134744072:443", want: "8.8.8.8", rule: "all"},
		{name: "octal and hexadecimal literal", target: "010.0x8.2056:443", want: "8.8.8.8", rule: "all"},
		{name: "mapped literal", target: "[::ffff:8.8.8.8]:443", want: "8.8.8.8", rule: "all"},
		{name: "full-width literal", target: "８.８.８.８:443", want: "8.8.8.8", rule: "all"},

		{name: "guarded literal", target: "127.0.0.1:80", reason: DestinationProhibited, cause: ErrDenied, rule: "all", says: "127.0.0.1:80: its address is for loopback"},
		{name: "guarded literal, decimal", target: "2130706433:80", reason: DestinationProhibited, cause: ErrDenied, rule: "all"},
		{name: "guarded literal, short", target: "127.1:80", reason: DestinationProhibited, cause: ErrDenied, rule: "all"},
		{name: "guarded literal, hexadecimal", target: "0x7f.0.0.1:80", reason: DestinationProhibited, cause: ErrDenied, rule: "all"},
		{name: "guarded literal, mapped", target: "[::ffff:169.254.169.254]:80", reason: DestinationProhibited, cause: ErrDenied, rule: "all", says: "metadata"},
		{name: "guarded literal, NAT64", target: "[64:ff9b::a9fe:a9fe]:80", reason: DestinationProhibited, cause: ErrDenied, rule: "all"},
		{name: "guarded name", target: "private.example:443", reason: DestinationProhibited, cause: ErrDenied, rule: "all", dns: 1, says: "private.example:443 at 10.0.0.1:443: its address is for private use"},
		{name: "guarded name, hidden", target: "hidden.example:443", reason: DestinationProhibited, cause: ErrDenied, rule: "all", dns: 1},
		{name: "mixed answers keep the good one", target: "mixed.example:443", want: "8.8.8.8", rule: "all", dns: 1},
		{name: "a prefix opens the guard", rules: []acl.Rule{allowPrivate}, target: "mixed.example:443", want: "10.0.0.1", rule: "lan", dns: 1},
		{name: "a prefix opens the guard for a literal", rules: []acl.Rule{allowPrivate}, target: "10.0.0.1:443", want: "10.0.0.1", rule: "lan"},

		{name: "denied by name, no DNS", rules: []acl.Rule{denyName, allowAll}, target: "x.ads.example:443", reason: RequestDenied, cause: ErrDenied, rule: "no ads", says: "rules forbid it (rule no ads)"},
		{name: "denied by address", rules: []acl.Rule{denyNet, allowAll}, target: "denied.example:443", reason: RequestDenied, cause: ErrDenied, rule: "no net", dns: 1, says: "at 198.41.0.4:443"},
		{name: "no rule, no DNS", rules: []acl.Rule{denyName}, target: "public.example:443", reason: RequestDenied, cause: ErrDenied, says: "no rule allows it"},
		{name: "a rule's deny says more than the guard's", rules: []acl.Rule{denyNet, allowAll}, target: "denied2.example:443", reason: RequestDenied, cause: ErrDenied, rule: "no net", dns: 1},
		{name: "a challenge says more than a deny", rules: []acl.Rule{denyNet, userNet}, target: "mixed.example:443", reason: RequestDenied, cause: ErrChallenge, rule: "users net", dns: 0, says: "a user is required to reach mixed.example:443"},
		{name: "a challenge for one address", rules: []acl.Rule{{Name: "lan", Action: acl.Allow, Target: []string{"172.16.0.0/12"}}, userNet}, target: "mixed.example:443", reason: RequestDenied, cause: ErrChallenge, rule: "users net", dns: 1},

		{name: "own socket, literal", rules: []acl.Rule{{Name: "lan", Action: acl.Allow, Target: []string{"10.9.9.9"}}}, target: "10.9.9.9:7659", reason: LoopDetected, cause: ErrDenied, rule: "lan", says: "own sockets"},
		{name: "own address, other port", rules: []acl.Rule{{Name: "lan", Action: acl.Allow, Target: []string{"10.9.9.9"}}}, target: "10.9.9.9:7660", want: "10.9.9.9", rule: "lan"},
		{name: "own socket by name", rules: []acl.Rule{{Name: "lan", Action: acl.Allow, Target: []string{"10.9.9.9"}}}, target: "own2.example:7659", reason: LoopDetected, cause: ErrDenied, rule: "lan", dns: 1},
		{name: "own socket that no rule allows is only that", target: "10.9.9.9:7659", reason: DestinationProhibited, cause: ErrDenied, rule: "all"},

		{name: "no such name", target: "nowhere.example:443", reason: DNSError, cause: errNoAddress, dns: 1, says: "cannot resolve nowhere.example:443"},
		{name: "the resolver fails", target: "broken.example:443", reason: DNSError, dns: 1, says: "SERVFAIL"},
		{name: "the resolver hangs", target: "slow.example:443", reason: DNSTimeout, dns: 1, says: "cannot resolve slow.example:443"},
		{name: "the client leaves", target: "left.example:443", reason: ConnectionTerminated, cause: context.Canceled, dns: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := names(resolver)
			f.errs = map[string]error{"broken.example": errors.New("SERVFAIL"), "slow.example": context.DeadlineExceeded, "left.example": context.Canceled}
			rules := tt.rules
			if rules == nil {
				rules = []acl.Rule{allowAll}
			}
			d := New(Options{Policy: policy(t, true, rules...), Resolver: f, Own: func(ap netip.AddrPort) bool {
				return ap == netip.MustParseAddrPort("10.9.9.9:7659")
			}})
			r := to(t, tt.target)
			p, err := d.Authorize(t.Context(), r)
			if len(f.asked) != tt.dns {
				t.Errorf("the resolver was asked for %q, want %d questions", f.asked, tt.dns)
			}
			checkExplanation(t, d, r, p, err)
			if tt.want != "" {
				checkPermit(t, p, err, r.Target, tt.want, tt.rule)
				return
			}
			checkRefusal(t, p, err, r.Target, tt.reason, tt.cause, tt.rule, tt.says)
		})
	}
}

func checkPermit(t *testing.T, p *Permit, err error, tg target.Target, want, rule string) {
	t.Helper()
	if err != nil {
		t.Fatalf("Authorize(%v) = %v, want a permit for %v", tg, err, want)
	}
	if got := p.Addrs(); !slices.Equal(got, addrs(strings.Fields(want)...)) {
		t.Errorf("Authorize(%v) pins %v, want %v", tg, got, want)
	}
	if p.Target() != tg || p.Decision().Rule != rule || p.Decision().Action != acl.Allow || p.Backend() != "" {
		t.Errorf("Authorize(%v) is a permit for %v, backend %q, by %+v, want rule %q", tg, p.Target(), p.Backend(), p.Decision(), rule)
	}
	for _, a := range p.Addrs() {
		if !p.Covers(netip.AddrPortFrom(a, tg.Port())) || p.Covers(netip.AddrPortFrom(a, tg.Port()+1)) {
			t.Errorf("the permit does not cover %v with just its port", a)
		}
	}
	if p.Covers(netip.AddrPortFrom(netip.MustParseAddr("192.0.2.254"), tg.Port())) {
		t.Error("the permit covers an address that it does not pin")
	}
}

func checkRefusal(t *testing.T, p *Permit, err error, tg target.Target, reason Reason, cause error, rule, says string) {
	t.Helper()
	var e *Error
	if p != nil || !errors.As(err, &e) {
		t.Fatalf("Authorize(%v) = %v, %v, want an *Error", tg, p, err)
	}
	if e.Reason != reason || e.Target != tg || e.Decision.Rule != rule {
		t.Errorf("Authorize(%v) is refused with %s for %v by %+v, want %s by %q", tg, e.Reason, e.Target, e.Decision, reason, rule)
	}
	if cause != nil && !errors.Is(err, cause) {
		t.Errorf("Authorize(%v) = %v, want it to be %v", tg, err, cause)
	}
	if errors.Is(err, ErrDenied) && errors.Is(err, ErrChallenge) {
		t.Errorf("%v is both a deny and a challenge", err)
	}
	if errors.Is(err, ErrChallenge) != (e.Decision.Action == acl.Challenge) || e.Decision.Action == acl.Allow {
		t.Errorf("%v comes with the decision %+v", err, e.Decision)
	}
	if !strings.Contains(err.Error(), says) {
		t.Errorf("the error says %q, want it to say %q", err, says)
	}
}

// checkExplanation asks Explain the same and expects the same answer.
func checkExplanation(t *testing.T, d *Dialer, r acl.Request, p *Permit, err error) {
	t.Helper()
	x := d.Explain(t.Context(), r)
	if x.Allowed() != (p != nil) || x.Challenged() != errors.Is(err, ErrChallenge) {
		t.Fatalf("Explain says %+v, Authorize %v, %v", x, p, err)
	}
	if _, literal := r.Target.Addr(); literal && (x.Resolved || len(x.Verdicts) != 1) {
		t.Errorf("Explain of a literal says %+v", x)
	}
	if x.Resolved && x.ResolveErr == nil && len(x.Verdicts) == 0 {
		t.Errorf("Explain judged none of %v", x.Addresses)
	}
	if p == nil {
		if x.Err.Error() != err.Error() || x.Final.Action == acl.Allow || x.Dial != nil {
			t.Errorf("Explain says %+v, Authorize %v", x, err)
		}
		return
	}
	for i, a := range p.Addrs() {
		if x.Dial[i] != netip.AddrPortFrom(a, r.Target.Port()) {
			t.Errorf("Explain would dial %v, Authorize %v", x.Dial, p.Addrs())
		}
	}
	if x.Final != p.Decision() {
		t.Errorf("Explain's decision is %+v, Authorize's %+v", x.Final, p.Decision())
	}
}

func TestExplainTellsEachVerdict(t *testing.T) {
	d := New(Options{
		Policy:   policy(t, true, acl.Rule{Name: "lan", Action: acl.Allow, Target: []string{"10.0.0.0/8"}}, allowAll),
		Resolver: names(map[string]string{"mixed.example": "192.168.0.1 10.0.0.1 10.9.9.9 8.8.8.8"}),
		Own:      func(ap netip.AddrPort) bool { return ap.Addr() == netip.MustParseAddr("10.9.9.9") },
	})
	x := d.Explain(t.Context(), to(t, "mixed.example:443"))
	if !x.NeedAddress || !x.Resolved || !x.Allowed() {
		t.Errorf("Explain = %+v, want it to need addresses, resolve and allow", x)
	}
	var got []string
	for _, v := range x.Verdicts {
		s := v.Address.String() + " " + v.Decision.Action.String() + " " + v.Decision.Rule + " " + v.Decision.Reason
		if v.Own {
			s += " own"
		}
		got = append(got, s)
	}
	want := []string{
		"192.168.0.1:443 deny all guard",
		"10.0.0.1:443 allow lan rule",
		"10.9.9.9:443 deny lan guard own",
		"8.8.8.8:443 allow all rule",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the verdicts are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTheDecisionIsThatOfTheFirstAddressDialled(t *testing.T) {
	d := New(Options{
		Policy:   policy(t, false, acl.Rule{Name: "v6", Action: acl.Allow, Target: []string{"2000::/3"}}, allowAll),
		Resolver: names(map[string]string{"a.example": "8.8.8.8 2001:4860:4860::8888"}),
	})
	p, err := d.Authorize(t.Context(), to(t, "a.example:443"))
	if err != nil || p.Decision().Rule != "v6" {
		t.Errorf("Authorize = %+v, %v, want the rule v6", p, err)
	}
}

func TestAuthorizeWithoutParts(t *testing.T) {
	if _, err := New(Options{}).Authorize(t.Context(), to(t, "8.8.8.8:1")); !errors.Is(err, ErrDenied) {
		t.Errorf("without a policy Authorize = %v, want ErrDenied", err)
	}
	d := New(Options{Policy: policy(t, false, allowAll)})
	if _, err := d.Authorize(t.Context(), to(t, "a.example:1")); !errors.Is(err, errNoResolver) {
		t.Errorf("without a resolver Authorize = %v, want %v", err, errNoResolver)
	}
	if _, err := d.Authorize(t.Context(), acl.Request{}); !errors.Is(err, errNoTarget) {
		t.Errorf("without a target Authorize = %v, want %v", err, errNoTarget)
	}
	if _, err := d.AuthorizeBackend(t.Context(), acl.Request{}, nil); !errors.Is(err, errNoTarget) {
		t.Errorf("without a target AuthorizeBackend = %v, want %v", err, errNoTarget)
	}
	if _, err := d.AuthorizeBackend(t.Context(), to(t, "a.example:1"), nil); !errors.Is(err, errNoServer) {
		t.Errorf("without a backend AuthorizeBackend = %v, want %v", err, errNoServer)
	}
	if _, err := d.Dial(t.Context(), nil); !errors.Is(err, errNoPermit) {
		t.Errorf("without a permit Dial = %v, want %v", err, errNoPermit)
	}
}

func TestAuthorizeBackend(t *testing.T) {
	ssh := newBackend("ssh", "127.0.0.1:22")
	tests := []struct {
		name   string
		rules  []acl.Rule
		target target.Target
		reason Reason // "" is a permit
		cause  error
		rule   string
	}{
		{"the guard does not look at a backend", []acl.Rule{allowAll}, target.Name("ssh"), "", nil, "all"},
		{"by backend", []acl.Rule{{Name: "other", Action: acl.Deny, Backend: []string{"git"}}, {Name: "one", Action: acl.Allow, Backend: []string{"ssh"}}}, target.Name("ssh"), "", nil, "one"},
		{"of another backend", []acl.Rule{{Name: "other", Action: acl.Allow, Backend: []string{"git"}}}, target.Name("ssh"), RequestDenied, ErrDenied, ""},
		{"by protocol", []acl.Rule{{Name: "raw", Action: acl.Allow, Protocol: []string{"connect"}}}, target.Name("ssh"), "", nil, "raw"},
		{"by SNI", []acl.Rule{{Name: "git", Action: acl.Allow, Target: []string{"git.example.com"}}}, to(t, "git.example.com:443").Target, "", nil, "git"},
		{"a rule for addresses does not match", []acl.Rule{{Name: "net", Action: acl.Deny, Target: []string{"0.0.0.0/0", "::/0"}}, allowAll}, to(t, "git.example.com:443").Target, "", nil, "all"},
		{"nor does one that allows", []acl.Rule{{Name: "net", Action: acl.Allow, Target: []string{"0.0.0.0/0", "::/0"}}}, to(t, "git.example.com:443").Target, RequestDenied, ErrDenied, ""},
		{"denied", []acl.Rule{{Name: "no", Action: acl.Deny, Target: []string{".example.com"}}, allowAll}, to(t, "git.example.com:443").Target, RequestDenied, ErrDenied, "no"},
		{"challenged", []acl.Rule{{Name: "users", Action: acl.Allow, User: []string{"*"}}}, target.Name("ssh"), RequestDenied, ErrChallenge, "users"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := names(nil)
			d := New(Options{Policy: policy(t, true, tt.rules...), Resolver: f})
			r := to(t, "placeholder.example:1")
			r.Target = tt.target
			p, err := d.AuthorizeBackend(t.Context(), r, ssh)
			if len(f.asked) != 0 {
				t.Errorf("the resolver was asked for %q", f.asked)
			}
			if tt.reason != "" {
				checkRefusal(t, p, err, tt.target, tt.reason, tt.cause, tt.rule, "")
				return
			}
			if err != nil || p.Backend() != "ssh" || p.Decision().Rule != tt.rule || p.Target() != tt.target {
				t.Fatalf("AuthorizeBackend = %+v, %v, want a permit by %q", p, err, tt.rule)
			}
			if p.Covers(netip.MustParseAddrPort("127.0.0.1:22")) || p.Addrs() != nil {
				t.Error("the permit for a backend covers connections, want none to be shared")
			}
		})
	}
}
