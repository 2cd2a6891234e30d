package acl

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func TestExplainCountry(t *testing.T) {
	p := mustPolicy(t, Options{Rules: []Rule{
		{Name: "client", ClientCountry: []string{"FR", "it"}},
		{Name: "name", Target: []string{"www.example.com"}, Country: []string{"US"}},
		{Name: "prefix", Target: []string{"10.0.0.0/8"}, Country: []string{"us"}},
		{Name: "rest", Action: Allow, ClientCountry: []string{"de"}, Country: []string{"nl"}},
	}})
	r := Request{Client: netip.MustParseAddr("192.0.2.9"), ClientCountry: "de", Target: mustTarget("www.example.com:80")}
	client := Step{"client", Deny, NoMatch, "client_country", "client_country: de of 192.0.2.9 is not fr, it"}
	const depends = "whether it matches depends on the address of www.example.com, which is not known here"
	tests := []struct {
		name, addr, country, from string
		byName                    bool
		want                      []Step
	}{
		{"no address", "", "", "de", false, []Step{
			client,
			{"name", Deny, NeedsAddress, "country", depends},
			{"prefix", Deny, NeedsAddress, "target", depends},
			{"rest", Allow, NeedsAddress, "country", depends},
		}},
		{"an address", "8.8.8.8", "nl", "de", false, []Step{
			client,
			{"name", Deny, NoMatch, "country", "country: nl of 8.8.8.8 is not us"},
			{"prefix", Deny, NoMatch, "target", "target: www.example.com at 8.8.8.8 is not 10.0.0.0/8"},
			{"rest", Allow, Decides, "", "it matches by client_country, country"},
		}},
		{"an address of no country", "8.8.8.8", "", "", false, []Step{
			{"client", Deny, NoMatch, "client_country", "client_country: that of 192.0.2.9, which is not known, is not fr, it"},
			{"name", Deny, NoMatch, "country", "country: that of 8.8.8.8, which is not known, is not us"},
			{"prefix", Deny, NoMatch, "target", "target: www.example.com at 8.8.8.8 is not 10.0.0.0/8"},
			{"rest", Allow, NoMatch, "client_country", "client_country: that of 192.0.2.9, which is not known, is not de"},
		}},
		{"by name alone", "", "", "de", true, []Step{
			client,
			{"name", Deny, NoMatch, "country", "country: that of a name without an address is not us"},
			{"prefix", Deny, NoMatch, "target", "target: www.example.com is not 10.0.0.0/8"},
			{"rest", Allow, NoMatch, "country", "country: that of a name without an address is not nl"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, a := r, netip.Addr{}
			q.ClientCountry, q.TargetCountry = tt.from, tt.country
			if tt.addr != "" {
				a = netip.MustParseAddr(tt.addr)
			}
			got := p.Explain(q, a).Steps
			if tt.byName {
				got = p.ExplainName(q).Steps
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("the steps are\n%+v, want\n%+v", got, tt.want)
			}
		})
	}
}

func TestLooksAtCountry(t *testing.T) {
	any, target, client := Rule{}, Rule{Country: []string{"de"}}, Rule{ClientCountry: []string{"de"}}
	for _, tt := range []struct {
		name  string
		rules []Rule
		want  bool
	}{
		{"the defaults", nil, false},
		{"no rule", []Rule{any, any}, false},
		{"the target's", []Rule{target, any}, true},
		{"the client's", []Rule{any, client}, true},
	} {
		if got := mustPolicy(t, Options{Rules: tt.rules}).LooksAtCountry(); got != tt.want {
			t.Errorf("%s: LooksAtCountry() = %v, want %v", tt.name, got, tt.want)
		}
	}
	if (*Policy)(nil).LooksAtCountry() {
		t.Error("a policy that there is not looks at countries")
	}
}

func TestAdmitsAnonymousByCountry(t *testing.T) {
	p := mustPolicy(t, Options{HasUsers: true, Rules: []Rule{
		{Name: "abroad", ClientCountry: []string{"fr"}},
		{Name: "far", Country: []string{"us"}},
		{Name: "home", Action: Allow, ClientCountry: []string{"de", "fr"}, Country: []string{"de"}},
		{Name: "users", Action: Allow, User: []string{"*"}},
	}})
	for country, want := range map[string]bool{"de": true, "fr": false, "us": false, "": false} {
		if got := p.AdmitsAnonymous(netip.MustParseAddr("192.0.2.1"), country, "http", "main", false); got != want {
			t.Errorf("AdmitsAnonymous from %q = %v, want %v", country, got, want)
		}
	}
}

func TestWays(t *testing.T) {
	rules := []Rule{
		{Name: "no", Port: mustPorts("25")},
		{Name: "a", Action: Allow, Method: []string{"UDP"}, Upstream: "eu"},
		{Name: "b", Action: Allow, Method: []string{"BIND"}, Exit: []string{"us", "eu"}},
		{Name: "c", Action: Allow, Method: []string{"GET"}, Exit: []string{"eu", "us"}},
		{Name: "d", Action: Allow, Port: mustPorts("80"), Upstream: "eu"},
		{Name: "e", Action: Allow},
	}
	p := mustPolicy(t, Options{Rules: rules})
	r := Request{Client: netip.MustParseAddr("10.0.0.9"), Method: "UDP", Target: mustTarget("8.8.8.8:53")}
	reach := p.MayReach(r)
	again, _ := p.Decide(r)
	if inWords(reach) != "allow a upstream=eu" || reach != again {
		t.Errorf("MayReach = %+v, then Decide = %+v; want the same allow by a, which goes through eu", reach, again)
	}
	r.Method = "BIND"
	if got := p.MayBind(r); inWords(got) != "allow b exit=us,eu" {
		t.Errorf("MayBind = %+v, want the exits of b", got)
	}
	r.Target, r.Method = mustTarget("8.8.8.8:443"), "CONNECT"
	if d, _ := p.Decide(r); inWords(d) != "allow e" {
		t.Errorf("Decide = %+v, want an allow that names no way", d)
	}
}

func TestDecideByCountryDoesNotAllocate(t *testing.T) {
	p := mustPolicy(t, Options{Rules: []Rule{
		{Country: []string{"kp", "ir"}}, {ClientCountry: []string{"kp"}}, {Action: Allow, ClientCountry: []string{"de"}, Country: []string{"us"}, Exit: []string{"eu"}},
	}})
	r := Request{Client: netip.MustParseAddr("192.0.2.1"), ClientCountry: "de", TargetCountry: "us", Target: mustTarget("example.com:443")}
	a := netip.MustParseAddr("8.8.8.8")
	if n := testing.AllocsPerRun(100, func() { _ = p.DecideAddr(r, a) }); n != 0 {
		t.Errorf("DecideAddr allocates %v times, want 0", n)
	}
}

// FuzzCountry states that two ASCII letters are a country, nothing else is, and that it matches itself and only itself.
func FuzzCountry(f *testing.F) {
	for _, s := range []string{"de", "US", "xK", "", "*", "deu", "d", "ß", "d1", "{{", "@a", "Za"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		isCountry := len(s) == 2 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
		p, err := New(Options{Rules: []Rule{{Name: "rule", Country: []string{s}}}})
		if (err == nil) != isCountry {
			t.Fatalf("New with the country %q = %v", s, err)
		}
		if err != nil {
			return
		}
		r := Request{Target: mustTarget("8.8.8.8:80"), TargetCountry: strings.ToLower(s)}
		if d, _ := p.Decide(r); d.Rule != "rule" {
			t.Errorf("the country %q does not match itself: %+v", s, d)
		}
		for _, other := range []string{"", strings.ToLower(s[1:] + s[:1])} {
			r.TargetCountry = other
			if d, _ := p.Decide(r); (d.Rule == "rule") != strings.EqualFold(s, other) {
				t.Errorf("the country %q and %q: %+v", s, other, d)
			}
		}
	})
}
