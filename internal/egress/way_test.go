package egress

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"polyport/acl"
	"polyport/internal/exit"
	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// leaves is an allow rule that names a way out.
func leaves(name, upstreamName string, exits ...string) acl.Rule {
	return acl.Rule{Name: name, Action: acl.Allow, Upstream: upstreamName, Exit: exits}
}

// with returns a rule that has been changed.
func with(r acl.Rule, change func(*acl.Rule)) acl.Rule {
	change(&r)
	return r
}

// testWays are upstreams "eu" and "us", which resolves names, and exits of each kind.
func testWays(t *testing.T) Ways {
	t.Helper()
	server := func(country string, tags ...string) pool.Server { return pool.Server{Country: country, Tags: tags} }
	eu := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "eu", Servers: []pool.Server{server("de", "home"), server("fr")}}}, "socks5://192.0.2.1", "socks5://192.0.2.2")
	us := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "us", Servers: []pool.Server{server("us")}}, ResolvesNames: true}, "socks5://192.0.2.3")
	local := func(list ...string) *exit.Source {
		s := &exit.Source{}
		for _, p := range list {
			s.Addresses = append(s.Addresses, netip.MustParsePrefix(p))
		}
		return s
	}
	return Ways{
		Upstreams: map[string]*upstream.Upstream{"eu": eu, "us": us},
		Exits: map[string]*Exit{
			"eu": {Upstream: eu}, "us": {Upstream: us},
			"germany": {Upstream: eu, Countries: []string{"de"}},
			"v4":      {Source: local("192.0.2.9/32")},
			"v6":      {Source: local("2001:db8::9/128")},
			"any":     {Source: &exit.Source{Mark: 7}},
		},
	}
}

func TestWays(t *testing.T) {
	byPrefix := func(r acl.Rule, target string) acl.Rule {
		return with(r, func(r *acl.Rule) { r.Target = []string{target} })
	}
	private := acl.Rule{Name: "no net", Action: acl.Deny, Target: []string{"8.8.0.0/16"}}
	tests := []struct {
		name   string
		rules  []acl.Rule
		def    string // the default upstream
		wish   exit.Wish
		target string // default both.example:443
		want   Route
		rule   string
		addrs  string // as they are tried
		dns    int
		reason Reason // "" is a permit
		says   string
	}{
		{name: "none", rules: []acl.Rule{leaves("r", "")}, rule: "r", addrs: "2600::1 8.8.4.4", dns: 1},
		{name: "the default upstream", rules: []acl.Rule{leaves("r", "")}, def: "eu", want: Route{Upstream: "eu"}, rule: "r", addrs: "2600::1 8.8.4.4", dns: 1},
		{name: "direct in spite of the default", rules: []acl.Rule{leaves("r", Direct)}, def: "eu", rule: "r", addrs: "2600::1 8.8.4.4", dns: 1},
		{name: "the rule's upstream", rules: []acl.Rule{leaves("r", "eu")}, def: "us", want: Route{Upstream: "eu"}, rule: "r", addrs: "2600::1 8.8.4.4", dns: 1},
		{name: "by name", rules: []acl.Rule{leaves("r", "us")}, want: Route{Upstream: "us", ByName: true}, rule: "r"},
		{name: "by name through the default", rules: []acl.Rule{leaves("r", "")}, def: "us", want: Route{Upstream: "us", ByName: true}, rule: "r"},
		{name: "direct is resolved although the default is not", rules: []acl.Rule{leaves("r", Direct)}, def: "us", rule: "r", addrs: "2600::1 8.8.4.4", dns: 1},
		{name: "an address to an upstream that resolves", rules: []acl.Rule{leaves("r", "us")}, target: "8.8.4.4:443", want: Route{Upstream: "us"}, rule: "r", addrs: "8.8.4.4"},
		{
			name: "an address that is guarded, to an upstream that resolves", rules: []acl.Rule{leaves("r", "us")}, target: "10.0.0.1:443",
			reason: DestinationProhibited, says: "its address is for",
		},
		{name: "an address that is denied, to an upstream that resolves", rules: []acl.Rule{private, leaves("r", "us")}, target: "8.8.4.4:443", reason: RequestDenied, says: "rule no net"},
		{name: "a mapped address that is denied", rules: []acl.Rule{private, leaves("r", "us")}, target: "[::ffff:8.8.4.4]:443", reason: RequestDenied, says: "rule no net"},
		{name: "rules by prefix in front, by name: only the name counts", rules: []acl.Rule{private, leaves("r", "us")}, want: Route{Upstream: "us", ByName: true}, rule: "r"},
		{
			name: "rules by prefix in front, resolved here", rules: []acl.Rule{private, leaves("r", "eu")},
			want: Route{Upstream: "eu"}, rule: "r", addrs: "2600::1", dns: 1,
		},
		{name: "a rule by prefix alone: the name is resolved for it", rules: []acl.Rule{byPrefix(leaves("p", "us"), "8.8.4.4/32")}, want: Route{Upstream: "us"}, rule: "p", addrs: "8.8.4.4", dns: 1},
		{
			name: "addresses of another way are dropped", rules: []acl.Rule{byPrefix(leaves("p", "eu"), "2600::/16"), leaves("r", Direct)},
			want: Route{Upstream: "eu"}, rule: "p", addrs: "2600::1", dns: 1,
		},
		{
			name: "addresses of the same way by another rule are not", rules: []acl.Rule{byPrefix(leaves("p", "eu"), "2600::/16"), leaves("r", "eu")},
			want: Route{Upstream: "eu"}, rule: "p", addrs: "2600::1 8.8.4.4", dns: 1,
		},
		{name: "the first exit", rules: []acl.Rule{leaves("r", "", "eu", "us")}, want: Route{Exit: "eu", Upstream: "eu"}, rule: "r", addrs: "2600::1 8.8.4.4", dns: 1},
		{name: "an exit has no default upstream", rules: []acl.Rule{leaves("r", "", "any")}, def: "eu", want: Route{Exit: "any"}, rule: "r", addrs: "2600::1 8.8.4.4", dns: 1},
		{name: "an exit of one family", rules: []acl.Rule{leaves("r", "", "v4")}, want: Route{Exit: "v4"}, rule: "r", addrs: "8.8.4.4", dns: 1},
		{
			name: "and the rule is that of what is left", rules: []acl.Rule{byPrefix(leaves("p", "", "v4"), "2600::/16"), leaves("r", "", "v4")},
			want: Route{Exit: "v4"}, rule: "r", addrs: "8.8.4.4", dns: 1,
		},
		{
			name: "an exit without the target's family", rules: []acl.Rule{leaves("r", "", "v4")}, target: "[2600::1]:443",
			reason: DestinationUnroutable, says: "exit v4 has no local_address of that family of IP",
		},
		{name: "an exit that is wished for", rules: []acl.Rule{leaves("r", "", "eu", "us")}, wish: exit.Wish{Exit: "us"}, want: Route{Exit: "us", Upstream: "us", ByName: true}, rule: "r"},
		{name: "an exit that the rule does not name", rules: []acl.Rule{leaves("r", "", "eu")}, wish: exit.Wish{Exit: "us"}, reason: RequestDenied, says: `do not let this be reached by the exit "us"`},
		{name: "an exit where the rule names an upstream", rules: []acl.Rule{leaves("r", "eu")}, wish: exit.Wish{Exit: "eu"}, reason: RequestDenied, says: `by the exit "eu"`},
		{name: "an exit where the rule names nothing", rules: []acl.Rule{leaves("r", "")}, wish: exit.Wish{Exit: "eu"}, reason: RequestDenied, says: `by the exit "eu"`},
		{name: "a wish opens nothing", rules: []acl.Rule{private}, wish: exit.Wish{Exit: "eu"}, target: "8.8.4.4:443", reason: RequestDenied, says: "rule no net"},
		{name: "a country", rules: []acl.Rule{leaves("r", "eu")}, wish: exit.Wish{Country: "fr"}, want: Route{Upstream: "eu"}, rule: "r", addrs: "2600::1 8.8.4.4", dns: 1},
		{name: "a country that the upstream is not in", rules: []acl.Rule{leaves("r", "eu")}, wish: exit.Wish{Country: "us"}, reason: RequestDenied, says: `no such server in the country "us"`},
		{name: "a country that the exit is not in", rules: []acl.Rule{leaves("r", "", "germany")}, wish: exit.Wish{Country: "fr"}, reason: RequestDenied, says: `in the country "fr"`},
		{name: "a country, directly", rules: []acl.Rule{leaves("r", Direct)}, def: "eu", wish: exit.Wish{Country: "de"}, reason: RequestDenied, says: `in the country "de"`},
		{
			name: "a wish that a rule by address alone meets", rules: []acl.Rule{byPrefix(leaves("p", "eu"), "2600::/16"), leaves("r", "us")},
			wish: exit.Wish{Country: "de"}, want: Route{Upstream: "eu"}, rule: "p", addrs: "2600::1", dns: 1,
		},
		{name: "a session alone", rules: []acl.Rule{leaves("r", "")}, wish: exit.Wish{Session: "k"}, rule: "r", addrs: "2600::1 8.8.4.4", dns: 1},
		{name: "an upstream that there is not", rules: []acl.Rule{leaves("r", "gone")}, reason: ConfigurationError, says: "there is no [upstream.gone]"},
		{name: "an exit that there is not", rules: []acl.Rule{leaves("r", "", "gone")}, reason: ConfigurationError, says: "there is no [exit.gone]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ways := testWays(t)
			ways.Default = ways.Upstreams[tt.def]
			resolver := names(map[string]string{"both.example": "8.8.4.4 2600::1"})
			d := New(Options{Policy: policy(t, false, tt.rules...), Resolver: resolver, Ways: ways}).Wishing(tt.wish)
			if tt.target == "" {
				tt.target = "both.example:443"
			}
			p, err := d.Authorize(t.Context(), to(t, tt.target))
			if tt.reason != "" {
				if err == nil || reasonOf(t, err) != tt.reason || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("Authorize = %v, want %s that says %q", err, tt.reason, tt.says)
				}
				if met := !strings.Contains(tt.says, "exit \"") && !strings.Contains(tt.says, "country"); errors.Is(err, ErrWish) == met {
					t.Errorf("Authorize = %v: it is an ErrWish: %v", err, !met)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Route(); got != tt.want {
				t.Errorf("the way out is %+v, want %+v", got, tt.want)
			}
			if got := p.Decision().Rule; got != tt.rule {
				t.Errorf("the rule is %q, want %q", got, tt.rule)
			}
			if got := p.Addrs(); !slices.Equal(got, addrs(strings.Fields(tt.addrs)...)) {
				t.Errorf("the addresses are %v, want %s", got, tt.addrs)
			}
			if got := len(resolver.asked); got != tt.dns {
				t.Errorf("%d names were looked up, want %d", got, tt.dns)
			}
		})
	}
}

func TestMeets(t *testing.T) {
	tests := []struct {
		wish exit.Wish
		says string // "" is that it may be met
	}{
		{exit.Wish{}, ""},
		{exit.Wish{Session: "k"}, ""},
		{exit.Wish{Exit: "eu"}, ""},
		{exit.Wish{Exit: "v4"}, ""},
		{exit.Wish{Exit: "gone"}, `there is no exit "gone"`},
		{exit.Wish{Country: "us"}, ""},
		{exit.Wish{Country: "jp"}, `no server in the country "jp"`},
		{exit.Wish{Exit: "eu", Country: "de"}, ""},
		{exit.Wish{Exit: "germany", Country: "de"}, ""},
		{exit.Wish{Exit: "germany", Country: "fr"}, `exit "germany" has no server in the country "fr"`},
		{exit.Wish{Exit: "v4", Country: "de"}, `exit "v4" has no server in the country "de"`},
	}
	d := New(Options{Ways: testWays(t)})
	for _, tt := range tests {
		err := d.Meets(tt.wish)
		if (err == nil) != (tt.says == "") || err != nil && (!errors.Is(err, ErrWish) || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("Meets(%+v) = %v, want %q", tt.wish, err, tt.says)
		}
	}
}

// A country is that of the address that is dialled, and of the client; mapped addresses are the same as others.
func TestCountries(t *testing.T) {
	in := func(name string, action acl.Action, country ...string) acl.Rule {
		return acl.Rule{Name: name, Action: action, Country: country}
	}
	known := map[string]string{"8.8.8.8": "us", "9.9.9.9": "ch", "2600::1": "de"}
	asked := 0
	countryOf := func(a netip.Addr) string { asked++; return known[a.Unmap().String()] }
	tests := []struct {
		name   string
		rules  []acl.Rule
		client string
		target string
		addrs  string // "" is a refusal
		rule   string
	}{
		{"a country that is denied", []acl.Rule{in("no us", acl.Deny, "US"), allowAll}, "127.0.0.1", "8.8.8.8:80", "", "no us"},
		{"mapped", []acl.Rule{in("no us", acl.Deny, "us"), allowAll}, "127.0.0.1", "[::ffff:8.8.8.8]:80", "", "no us"},
		{"another one", []acl.Rule{in("no us", acl.Deny, "us"), allowAll}, "127.0.0.1", "9.9.9.9:80", "9.9.9.9", "all"},
		{"of a name some addresses", []acl.Rule{in("no us", acl.Deny, "us"), allowAll}, "127.0.0.1", "mixed.example:80", "2600::1 9.9.9.9", "all"},
		{"a name by allowed countries", []acl.Rule{in("ch", acl.Allow, "ch")}, "127.0.0.1", "mixed.example:80", "9.9.9.9", "ch"},
		{"nobody knows it", []acl.Rule{in("ch", acl.Allow, "ch")}, "127.0.0.1", "4.4.4.4:80", "", ""},
		{"of the client", []acl.Rule{{Name: "ch", Action: acl.Allow, ClientCountry: []string{"ch"}}}, "9.9.9.9", "4.4.4.4:80", "4.4.4.4", "ch"},
		{"of the client, mapped", []acl.Rule{{Name: "ch", Action: acl.Allow, ClientCountry: []string{"ch"}}}, "::ffff:9.9.9.9", "4.4.4.4:80", "4.4.4.4", "ch"},
		{"of another client", []acl.Rule{{Name: "ch", Action: acl.Allow, ClientCountry: []string{"ch"}}}, "8.8.8.8", "4.4.4.4:80", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resolver := names(map[string]string{"mixed.example": "8.8.8.8 9.9.9.9 2600::1"})
			d := New(Options{Policy: policy(t, false, tt.rules...), Resolver: resolver, Country: countryOf})
			r := to(t, tt.target)
			r.Client = netip.MustParseAddr(tt.client)
			p, err := d.Authorize(t.Context(), r)
			if tt.addrs == "" {
				var e *Error
				if !errors.As(err, &e) || e.Decision.Rule != tt.rule || !errors.Is(err, ErrDenied) {
					t.Errorf("Authorize = %v, want a refusal by rule %q", err, tt.rule)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Addrs(); !slices.Equal(got, addrs(strings.Fields(tt.addrs)...)) || p.Decision().Rule != tt.rule {
				t.Errorf("the addresses are %v by rule %s, want %s by %s", got, p.Decision().Rule, tt.addrs, tt.rule)
			}
		})
	}
	asked = 0
	d := New(Options{Policy: policy(t, false, allowAll), Country: countryOf})
	if _, err := d.Authorize(t.Context(), to(t, "8.8.8.8:80")); err != nil || asked != 0 {
		t.Errorf("Authorize = %v, and %d countries were asked for that no rule looks at", err, asked)
	}
}

// Nobody's connection is lent to one who would have got another way.
func TestKeysOfWays(t *testing.T) {
	ways := testWays(t)
	sticky := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "sticky", Balance: pool.StickyUser}}, "socks5://192.0.2.7")
	ways.Upstreams["sticky"] = sticky
	ways.Upstreams["behind"] = upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "behind"}, Via: sticky}, "socks5://192.0.2.8")
	ways.Exits["mine"] = &Exit{Source: &exit.Source{Choose: exit.StickyUser, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}
	base := New(Options{Ways: ways})
	key := func(rule acl.Rule, wish exit.Wish, user string) string {
		d := base.Wishing(wish)
		d.policy = policy(t, true, rule)
		r := to(t, "8.8.8.8:80")
		r.Identity = user
		p, err := d.Authorize(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return p.Key()
	}
	two := leaves("r", "", "eu", "us")
	tests := []struct {
		name string
		a, b string
		same bool
	}{
		{"two users", key(leaves("r", "eu"), exit.Wish{}, "a"), key(leaves("r", "eu"), exit.Wish{}, "b"), true},
		{"direct and not", key(leaves("r", "eu"), exit.Wish{}, "a"), key(leaves("r", Direct), exit.Wish{}, "a"), false},
		{"two upstreams", key(leaves("r", "eu"), exit.Wish{}, "a"), key(leaves("r", "us"), exit.Wish{}, "a"), false},
		{"an exit and its upstream", key(leaves("r", "eu"), exit.Wish{}, "a"), key(leaves("r", "", "eu"), exit.Wish{}, "a"), false},
		{"two exits", key(two, exit.Wish{}, "a"), key(two, exit.Wish{Exit: "us"}, "a"), false},
		{"two countries", key(leaves("r", "eu"), exit.Wish{Country: "de"}, "a"), key(leaves("r", "eu"), exit.Wish{Country: "fr"}, "a"), false},
		{"two sessions", key(leaves("r", "eu"), exit.Wish{Session: "1"}, "a"), key(leaves("r", "eu"), exit.Wish{Session: "2"}, "a"), false},
		{"the same session of two users", key(leaves("r", "eu"), exit.Wish{Session: "1"}, "a"), key(leaves("r", "eu"), exit.Wish{Session: "1"}, "b"), false},
		{"two users of a balance that is sticky", key(leaves("r", "sticky"), exit.Wish{}, "a"), key(leaves("r", "sticky"), exit.Wish{}, "b"), false},
		{"two users of a balance that is sticky, in front", key(leaves("r", "behind"), exit.Wish{}, "a"), key(leaves("r", "behind"), exit.Wish{}, "b"), false},
		{"two users of an exit that is sticky", key(leaves("r", "", "mine"), exit.Wish{}, "a"), key(leaves("r", "", "mine"), exit.Wish{}, "b"), false},
	}
	for _, tt := range tests {
		if same := tt.a == tt.b; same != tt.same {
			t.Errorf("%s: the keys are the same: %v, want %v", tt.name, same, tt.same)
		}
	}
}
