package integration

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// changeable is an answer that a test replaces while the server runs.
type changeable struct {
	mu  sync.Mutex
	now answerer
}

func (c *changeable) set(a answerer) { c.mu.Lock(); c.now = a; c.mu.Unlock() }

func (c *changeable) answer(w dns.ResponseWriter, q *dns.Msg) {
	c.mu.Lock()
	a := c.now
	c.mu.Unlock()
	a(w, q)
}

// TestNamesOutliveTheirServer has servers go when their answers have run out, which another gateway tells, that serves none of those.
func TestNamesOutliveTheirServer(t *testing.T) {
	t.Parallel()
	port := originEverywhere(t)
	host := net.JoinHostPort("brief.example", port)
	both := func(t *testing.T, server string) (stale, strict *gateway) {
		t.Helper()
		stale, strict = start(t, asking("max_ttl = \"2s\"\n", server)), start(t, asking("max_ttl = \"2s\"\nserve_stale = \"0s\"\n", server))
		for _, g := range []*gateway{stale, strict} { // in this order, so that the answer of strict runs out last
			if got := askedFor(t, g.at(), host); got != "200" {
				t.Fatalf("while the server is well: %s", got)
			}
		}
		return stale, strict
	}
	fails := func(t *testing.T, stale, strict *gateway, want string) {
		t.Helper()
		eventually(t, "the gateway that serves nothing stale", want, slowly(func() string { return askedFor(t, strict.at(), host) }))
		for range 3 {
			if got := askedFor(t, stale.at(), host); got != "200" {
				t.Errorf("what has run out answers %s, want 200", got)
			}
		}
		if got := askedFor(t, stale.at(), net.JoinHostPort("never-asked.example", port)); got == "200" {
			t.Error("a name that nobody has asked for answers 200")
		}
	}
	t.Run("the server is killed", func(t *testing.T) {
		t.Parallel()
		u := newUnbound(t)
		stale, strict := both(t, "udp://"+u.plain)
		u.kill()
		fails(t, stale, strict, "502 dns_error")
	})
	t.Run("the server stands still", func(t *testing.T) {
		t.Parallel()
		u := newUnbound(t)
		stale, strict := both(t, "tcp://"+u.plain)
		u.pause()
		fails(t, stale, strict, "504 dns_timeout")
	})
	t.Run("the server fails", func(t *testing.T) {
		t.Parallel()
		a := &changeable{now: records("1 A 127.0.0.1")}
		stale, strict := both(t, "udp://"+newLiar(t, map[string]answerer{"brief.example.": a.answer}).addr)
		a.set(rcode(dns.RcodeServerFailure))
		fails(t, stale, strict, `502 dns_error; rcode="SERVFAIL"`)
	})
	t.Run("the name is gone", func(t *testing.T) {
		t.Parallel()
		a := &changeable{now: records("1 A 127.0.0.1")}
		stale, _ := both(t, "udp://"+newLiar(t, map[string]answerer{"brief.example.": a.answer}).addr)
		a.set(rcode(dns.RcodeNameError)) // which is an answer, and better than an old one
		eventually(t, "what a server says of a name that is gone", `502 dns_error; rcode="NXDOMAIN"`, slowly(func() string { return askedFor(t, stale.at(), host) }))
	})
}

// TestNamesThatAreNotThere counts how often a real server is asked for a name that it does not have.
func TestNamesThatAreNotThere(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, more string
		again      bool // the second client has the server asked again
	}{
		{"kept", "negative_ttl = \"1h\"\n", false},
		{"not kept", "negative_ttl = \"0s\"\n", true},
		{"kept for a moment", "negative_ttl = \"1s\"\n", true},
		{"no cache", "cache = 0\nnegative_ttl = \"1h\"\n", true},
	}
	u := newUnbound(t)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := start(t, asking(tt.more, "udp://"+u.plain))
			name := fmt.Sprintf("missing-%d.example", i)
			ask := func() {
				t.Helper()
				if got, want := askedFor(t, g.at(), name+":80"), `502 dns_error; rcode="NXDOMAIN"`; got != want {
					t.Errorf("the answer is %s, want %s", got, want)
				}
			}
			asked := func() string { return fmt.Sprint(u.queries("A", name), " ", u.queries("AAAA", name)) }
			ask()
			eventually(t, "the queries", "1 1", slowly(asked))
			if tt.again {
				eventually(t, "whether the server is asked again", "true", slowly(func() string { ask(); return fmt.Sprint(asked() != "1 1") }))
				return
			}
			for range 20 {
				ask()
			}
			u.caughtUp()
			if got := asked(); got != "1 1" {
				t.Errorf("the server is asked %s times for A and AAAA, want 1 1", got)
			}
		})
	}
}

// TestNamesThatManyAskFor has the server hold back its second answer for a name: whoever asks meanwhile still gets the first one.
func TestNamesThatManyAskFor(t *testing.T) {
	t.Parallel()
	host := net.JoinHostPort("hot.example", originEverywhere(t))
	for _, prefetch := range []bool{true, false} {
		t.Run(fmt.Sprint("prefetch = ", prefetch), func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			var asked atomic.Int32
			l := newLiar(t, map[string]answerer{"hot.example.": func(w dns.ResponseWriter, q *dns.Msg) {
				if asked.Add(1) > 1 {
					<-release
				}
				records("60 A 127.0.0.1")(w, q)
			}})
			g := start(t, asking(fmt.Sprintf("family = \"only-ipv4\"\nmax_ttl = \"6s\"\nserve_stale = \"0s\"\nprefetch = %v\n", prefetch), "udp://"+l.addr))
			defer close(release)
			last := ""
			eventually(t, "how many queries there are", "true", slowly(func() string {
				last = askedFor(t, g.at(), host) // which, without prefetch, waits for the answer that is held back
				return fmt.Sprint(asked.Load() > 1)
			}))
			if got := last == "200"; got != prefetch {
				t.Errorf("who had the server asked again got %s", last)
			}
		})
	}
}

// TestNamesOfTheConfiguration has names that no server is asked for, and families that are not.
func TestNamesOfTheConfiguration(t *testing.T) {
	t.Parallel()
	port := originEverywhere(t)
	const four, six = "127.0.0.1", "::1"
	const hosts = "hosts = { \"intranet.example\" = [\"::1\"], \"good.example\" = [\"127.0.0.1\", \"::1\"], \"localhost\" = [\"10.0.0.1\"] }\n"
	tests := []struct {
		name, more, host, want string
		asked                  string // what the server is asked about the name
	}{
		{"overridden", hosts, "intranet.example", six, ""},
		{"overridden, in capitals", hosts, "INTRANET.example", six, ""},
		{"overridden, of the hosts file", hosts, "localhost", "", ""},
		{"overridden, with a family", hosts + "family = \"only-ipv4\"\n", "good.example", four, ""},
		{"overridden, with the other family", hosts + "family = \"only-ipv6\"\n", "good.example", six, ""},
		{"overridden, with none of the family", hosts + "family = \"only-ipv4\"\n", "intranet.example", "", ""},
		{"only IPv4", "family = \"only-ipv4\"\n", "both.example", four, "A"},
		{"only IPv6", "family = \"only-ipv6\"\n", "both.example", six, "AAAA"},
		{"only IPv4, of a name that has none", "family = \"only-ipv4\"\n", "six.example", "", "A"},
		{"IPv4 first", "family = \"prefer-ipv4\"\n", "both.example", four, "A AAAA"},
		{"IPv6 first", "family = \"prefer-ipv6\"\n", "both.example", six, "A AAAA"},
		{"IPv4 first, of a name that has none", "family = \"prefer-ipv4\"\n", "six.example", six, "A AAAA"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLiar(t, map[string]answerer{"both.example.": records("60 A 127.0.0.1", "60 AAAA ::1"), "six.example.": records("60 AAAA ::1")})
			g := start(t, asking(tt.more, "udp://"+l.addr))
			got := askedFor(t, g.at(), net.JoinHostPort(tt.host, port))
			if (got == "200") != (tt.want != "") {
				t.Errorf("the answer is %s", got)
			}
			address := ""
			if tt.want != "" {
				address = net.JoinHostPort(tt.want, port)
			}
			check(t, g.record("protocol=http"), map[string]any{"address": address})
			var asked []string
			for _, q := range l.queries(strings.ToLower(tt.host) + ".") {
				asked = append(asked, strings.Fields(q)[1])
			}
			if got := strings.Join(asked, " "); got != tt.asked {
				t.Errorf("the server is asked for %q, want %q", got, tt.asked)
			}
		})
	}
}

// TestSearchDomains has the system's resolver be told of a domain to try names in: the gateway does not.
func TestSearchDomains(t *testing.T) {
	if !apart(t) {
		return
	}
	port := originEverywhere(t)
	l := newLiarAt(t, "127.0.0.1:53", map[string]answerer{"intranet.": rcode(dns.RcodeNameError), "intranet.corp.example.": records("60 A 127.0.0.1"), "two.labels.": rcode(dns.RcodeNameError), "two.labels.corp.example.": records("60 A 127.0.0.1")})
	replace(t, "/etc/resolv.conf", "nameserver 127.0.0.1\nsearch corp.example\noptions ndots:3\n")
	for _, config := range []string{asking("", "udp://"+l.addr), strings.Replace(asking("", "udp://"+l.addr), "servers =", "#", 1)} {
		g := start(t, config)
		for _, name := range []string{"intranet", "two.labels"} {
			if got := askedFor(t, g.at(), net.JoinHostPort(name, port)); !strings.HasPrefix(got, "502 dns_error") {
				t.Errorf("%s: %s, want that it does not exist", name, got)
			}
			if len(l.queries(name+".")) == 0 {
				t.Errorf("the server was not asked for %s", name)
			}
			if got := l.queries(name + ".corp.example."); len(got) > 0 {
				t.Errorf("the server was asked %q", got)
			}
		}
	}
}

// TestHostsFile has names in it, of one label and of several, that no server is asked for.
func TestHostsFile(t *testing.T) {
	if !apart(t) {
		return
	}
	port := originEverywhere(t)
	l := newLiarAt(t, "127.0.0.1:53", map[string]answerer{})
	replace(t, "/etc/resolv.conf", "nameserver 127.0.0.1\nsearch corp.example\n")
	replace(t, "/etc/hosts", "127.0.0.1 localhost nas nas.home.example\n10.1.2.3 printer\n")
	for _, config := range []string{asking("", "udp://"+l.addr), strings.Replace(asking("", "udp://"+l.addr), "servers =", "#", 1)} {
		g := start(t, config)
		for name, want := range map[string]string{"nas": "200", "NAS": "200", "nas.home.example": "200", "localhost": "200", "printer": "403 destination_ip_prohibited"} {
			if got := askedFor(t, g.at(), net.JoinHostPort(name, port)); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
			if got := l.queries(strings.ToLower(name) + "."); len(got) > 0 {
				t.Errorf("the server was asked %q", got)
			}
		}
	}
}
