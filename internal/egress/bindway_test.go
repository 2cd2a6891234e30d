package egress

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"polyport/acl"
	"polyport/internal/exit"
	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// TestBindWays: nobody is awaited elsewhere than where the rule has connections leave.
func TestBindWays(t *testing.T) {
	bind := func(target, upstreamName string, exits ...string) acl.Rule {
		r := leaves(target, upstreamName, exits...)
		r.Method, r.Target = []string{"BIND"}, []string{target}
		return r
	}
	single := func(prefixes ...string) *Exit {
		s := &exit.Source{}
		for _, p := range prefixes {
			s.Addresses = append(s.Addresses, netip.MustParsePrefix(p))
		}
		return &Exit{Source: s}
	}
	exits := map[string]*Exit{
		"five": single("127.0.0.5/32"), "range": single("127.7.0.0/16"), "both": single("127.7.0.0/16", "127.0.0.6/32"), "six": single("::1/128"),
	}
	const all = "127.0.0.0/8"
	for _, tt := range []struct {
		name  string
		rules []acl.Rule
		def   string
		wish  exit.Wish
		host  string // who is awaited
		at    string // "" is an error
		says  string
	}{
		{name: "direct", rules: []acl.Rule{bind(all, "")}, host: "127.0.0.2", at: "127.0.0.1"},
		{name: "direct in spite of the default", rules: []acl.Rule{bind(all, Direct)}, def: "eu", host: "127.0.0.2", at: "127.0.0.1"},
		{name: "an upstream", rules: []acl.Rule{bind(all, "eu")}, host: "127.0.0.2", says: "BIND is not carried through upstreams"},
		{name: "the default upstream", rules: []acl.Rule{bind(all, "")}, def: "eu", host: "127.0.0.2", says: "BIND is not carried through upstreams"},
		{name: "an upstream, for anybody", rules: []acl.Rule{bind("*", "eu")}, host: "0.0.0.0", says: "BIND is not carried through upstreams"},
		{name: "an exit", rules: []acl.Rule{bind(all, "", "five")}, host: "127.0.0.2", at: "127.0.0.5"},
		{name: "an exit that is wished for", rules: []acl.Rule{bind(all, "", "five", "both")}, wish: exit.Wish{Exit: "both"}, host: "127.0.0.2", at: "127.0.0.6"},
		{name: "a range and a single address", rules: []acl.Rule{bind(all, "", "both")}, host: "127.0.0.2", at: "127.0.0.6"},
		{name: "a range", rules: []acl.Rule{bind(all, "", "range")}, host: "127.0.0.2", says: "no single local_address"},
		{name: "another family", rules: []acl.Rule{bind(all, "", "six")}, host: "127.0.0.2", says: "no local_address of that family"},
		{name: "no such exit", rules: []acl.Rule{bind(all, "")}, wish: exit.Wish{Exit: "six"}, host: "127.0.0.2", says: "do not let this be reached"},
		{name: "anybody, by an exit", rules: []acl.Rule{bind("*", "", "five")}, host: "0.0.0.0", at: "127.0.0.5"},
		{name: "anybody, of whom some come directly", rules: []acl.Rule{bind("127.0.0.9/32", "eu"), bind(all, "")}, def: "eu", host: "0.0.0.0", at: "127.0.0.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := binding(t, 1, func(o *Options) {
				o.Policy = policy(t, false, tt.rules...)
				o.Ways = oneUpstreamAnd(t, exits)
				o.Ways.Default = o.Ways.Upstreams[tt.def]
			})
			d = d.Wishing(tt.wish)
			p, err := d.AuthorizeBind(t.Context(), bindTo(t, tt.host, 0))
			var l *Listening
			if err == nil {
				l, err = d.Listen(t.Context(), p, home, false)
			}
			if tt.at == "" {
				var e *Error
				if !errors.As(err, &e) || !e.Bind || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("AuthorizeBind and Listen: %v, want %q", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if got := l.Address().Addr().String(); got != tt.at {
				t.Errorf("it listens on %s, want %s", got, tt.at)
			}
		})
	}
}

// TestBindAdmitsNoPeerOfAnotherWay: where the rule is known only once the peer has come.
func TestBindAdmitsNoPeerOfAnotherWay(t *testing.T) {
	rule := func(target, upstreamName string, exits ...string) acl.Rule {
		r := leaves(target, upstreamName, exits...)
		r.Method, r.Target = []string{"BIND"}, []string{target}
		return r
	}
	five := &Exit{Source: &exit.Source{Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.5/32")}}}
	for _, tt := range []struct {
		name string
		rule acl.Rule // for who connects
		says string   // "" is that he may
	}{
		{"directly", rule("127.0.0.2/32", ""), ""},
		{"an upstream", rule("127.0.0.2/32", "eu"), "BIND is not carried through upstreams"},
		{"an exit", rule("127.0.0.2/32", "", "five"), "names an exit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := binding(t, 1, func(o *Options) {
				o.Policy = policy(t, false, tt.rule, rule("127.0.0.3/32", ""))
				o.Ways = oneUpstreamAnd(t, map[string]*Exit{"five": five})
			})
			l := mustListen(t, d, "0.0.0.0")
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			for range maxStrangers + 1 {
				defer knock(t, elsewhere, l.Address()).Close()
				if tt.says == "" {
					break
				}
			}
			c, _, err := l.Accept(ctx)
			if c != nil {
				c.Close()
			}
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("Accept: %v, want %q", err, tt.says)
			}
		})
	}
}

// oneUpstreamAnd are ways with an upstream "eu", and exits.
func oneUpstreamAnd(t *testing.T, exits map[string]*Exit) Ways {
	t.Helper()
	w := oneUpstream(t, upstream.Options{}, "socks5://192.0.2.1")
	w.Exits = exits
	return w
}

// oneUpstream are ways with an upstream "eu".
func oneUpstream(t *testing.T, o upstream.Options, urls ...string) Ways {
	t.Helper()
	o.Pool.Name = "eu"
	o.Pool.Servers = make([]pool.Server, len(urls))
	return Ways{Upstreams: map[string]*upstream.Upstream{"eu": upstreamOf(t, o, urls...)}}
}
