package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// behindLiar is a gateway that asks l, whose clients may reach 127.0.0.1 and all public addresses.
func behindLiar(l *liar) string {
	return listenAnywhere + "[dns]\nservers = [\"udp://" + l.addr + "\"]\n" +
		"[[rule]]\nname = \"advertisements\"\naction = \"deny\"\ntarget = [\"*.ads.example\"]\n" +
		"[[rule]]\nname = \"here\"\naction = \"allow\"\ntarget = [\"127.0.0.1\"]\n" +
		"[[rule]]\nname = \"anywhere\"\naction = \"allow\"\n" +
		"[protocols.tls]\ndial_sni = true\n"
}

// askedFor sends a GET by proxy and returns the status with what Proxy-Status says.
func askedFor(t *testing.T, proxy, host string) string {
	t.Helper()
	c := dial(t, proxy)
	defer c.Close()
	say(t, c, "GET http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, reason, _ := strings.Cut(resp.Header.Get("Proxy-Status"), "error=")
	return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", reason))
}

// socks5Code asks for a name by SOCKS5 and returns REP.
func socks5Code(t *testing.T, proxy, host string) byte {
	t.Helper()
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, proxy)
	defer c.Close()
	say(t, c, "\x05\x01\x00")
	hear(t, c, "\x05\x00")
	request := append([]byte{5, 1, 0, 3, byte(len(name))}, name...)
	say(t, c, string(append(request, byte(n>>8), byte(n))))
	var b [2]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
	return b[1]
}

func TestDNSAnswers(t *testing.T) {
	t.Parallel()
	origin := helloServer(t)
	_, port, _ := net.SplitHostPort(origin)
	var hundred []string // that the guard denies
	for i := range 100 {
		hundred = append(hundred, fmt.Sprintf("60 A 198.51.100.%d", i))
	}
	l := newLiar(t, map[string]answerer{
		"good.example.":       records("60 A 127.0.0.1"),
		"private.example.":    records("60 A 10.0.0.1"),
		"other.example.":      records("60 A 127.0.0.9"),
		"metadata.example.":   records("60 A 169.254.169.254"),
		"six.example.":        records("60 AAAA ::1"),
		"mapped.example.":     records("60 AAAA ::ffff:10.0.0.1"),
		"nat64.example.":      records("60 AAAA 64:ff9b::7f00:9"),
		"zero.example.":       records("60 A 0.0.0.0"),
		"mixed.example.":      records("60 A 10.0.0.1", "60 A 127.0.0.1", "60 AAAA fd00::1"),
		"alias.example.":      chain("alias.example. 60 CNAME b.example.", "b.example. 60 CNAME c.example.", "c.example. 60 A 127.0.0.1"),
		"hijack.example.":     chain("elsewhere.example. 60 A 127.0.0.1"),
		"to-private.example.": chain("to-private.example. 60 CNAME inside.example.", "inside.example. 60 A 192.168.1.1"),
		"circle.example.":     chain("circle.example. 60 CNAME round.example.", "round.example. 60 CNAME circle.example."),
		"itself.example.":     chain("itself.example. 60 CNAME itself.example."),
		"empty.example.":      records(),
		"servfail.example.":   rcode(dns.RcodeServerFailure),
		"refused.example.":    rcode(dns.RcodeRefused),
		"notimp.example.":     rcode(dns.RcodeNotImplemented),
		"truncated.example.": func(w dns.ResponseWriter, q *dns.Msg) {
			if w.LocalAddr().Network() == "udp" {
				m := new(dns.Msg).SetReply(q)
				m.Truncated = true
				_ = w.WriteMsg(m)
				return
			}
			records("60 A 127.0.0.1")(w, q)
		},
		"garbage.example.": func(w dns.ResponseWriter, q *dns.Msg) { // before the answer
			for _, b := range []string{"", "x", "not a message at all", strings.Repeat("\xff", 512)} {
				_, _ = w.Write([]byte(b))
			}
			forged := new(dns.Msg).SetReply(q)
			forged.Id++
			_ = w.WriteMsg(forged)
			another := new(dns.Msg).SetReply(q)
			another.Question[0].Name = "good.example."
			_ = w.WriteMsg(another)
			records("60 A 127.0.0.1")(w, q)
		},
		"hundred.example.":         records(hundred...),
		"hundred-and-one.example.": records(append([]string{"60 A 127.0.0.1"}, hundred...)...),
		"a.ads.example.":           records("60 A 127.0.0.1"),
	})
	g := start(t, behindLiar(l)+"[timeouts]\nconnect = \"3s\"\n")
	tests := []struct {
		name string // without "example."
		want string // from HTTP
		code byte   // from SOCKS5
	}{
		{"good", "200", 0},
		{"GOOD", "200", 0},
		{"private", "403 destination_ip_prohibited", 2},
		{"other", "403 destination_ip_prohibited", 2},
		{"metadata", "403 destination_ip_prohibited", 2},
		{"six", "403 destination_ip_prohibited", 2},
		{"mapped", "403 destination_ip_prohibited", 2},
		{"nat64", "403 destination_ip_prohibited", 2},
		{"zero", "403 destination_ip_prohibited", 2},
		{"mixed", "200", 0},
		{"alias", "200", 0},
		{"hijack", `502 dns_error; rcode="NOERROR"`, 4},
		{"to-private", "403 destination_ip_prohibited", 2},
		{"circle", "502 dns_error", 4},
		{"itself", "502 dns_error", 4},
		{"empty", `502 dns_error; rcode="NOERROR"`, 4},
		{"servfail", `502 dns_error; rcode="SERVFAIL"`, 4},
		{"refused", `502 dns_error; rcode="REFUSED"`, 4},
		{"notimp", `502 dns_error; rcode="NOTIMP"`, 4},
		{"nxdomain", `502 dns_error; rcode="NXDOMAIN"`, 4},
		{"truncated", "200", 0},
		{"garbage", "200", 0},
		{"hundred", "403 destination_ip_prohibited", 2},
		{"hundred-and-one", "200", 0},
		{"a.ads", "403 http_request_denied", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			host := net.JoinHostPort(tt.name+".example", port)
			if got := askedFor(t, g.at(), host); got != tt.want {
				t.Errorf("by HTTP: %s, want %s", got, tt.want)
			}
			if got := socks5Code(t, g.at(), host); got != tt.code {
				t.Errorf("by SOCKS5: REP %02x, want %02x", got, tt.code)
			}
		})
	}
	// Nothing but the name itself is asked, once for each family, and not at all if the rules do not need it.
	for name, want := range map[string]string{
		"good.example.":      "udp A good.example., udp AAAA good.example.",
		"truncated.example.": "tcp A truncated.example., tcp AAAA truncated.example., udp A truncated.example., udp AAAA truncated.example.",
		"a.ads.example.":     "",
		"inside.example.":    "",
	} {
		if got := strings.Join(l.queries(name), ", "); got != want {
			t.Errorf("the name server was asked %q, want %q", got, want)
		}
	}
}

// TestDNSThatHangs waits for the resolver's own deadline.
func TestDNSThatHangs(t *testing.T) {
	t.Parallel()
	l := newLiar(t, map[string]answerer{"silent.example.": silence, "other.example.": silence, "fourth.example.": silence, "tls.example.": silence})
	g := start(t, behindLiar(l))
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		if got, want := askedFor(t, g.at(), "silent.example:80"), "504 dns_timeout"; got != want {
			t.Errorf("by HTTP: %s, want %s", got, want)
		}
	})
	all.Go(func() {
		if got := socks5Code(t, g.at(), "other.example:80"); got != 4 {
			t.Errorf("by SOCKS5: REP %02x, want 04", got)
		}
	})
	all.Go(func() {
		c := dial(t, g.at())
		say(t, c, "\x04\x01\x00\x50\x00\x00\x00\x01\x00fourth.example\x00")
		hear(t, c, "\x00\x5b")
	})
	all.Go(func() {
		out := run(t, "openssl", "s_client", "-connect", g.at(), "-servername", "tls.example")
		if !strings.Contains(out.stderr+out.stdout, "alert internal error") {
			t.Errorf("by TLS: %s %s", out.stdout, out.stderr)
		}
	})
	all.Wait()
	g.record("protocol=http", "reason=dns_timeout", "status=504")
	g.record("protocol=socks5", "reason=dns_timeout", "status=4")
	g.record("protocol=socks4", "reason=dns_timeout", "status=91")
	g.record("protocol=tls", "reason=dns_timeout")
}

// TestDNSRebinding changes its mind between one answer and the next: what was checked is what is dialled.
func TestDNSRebinding(t *testing.T) {
	t.Parallel()
	origin := helloServer(t)
	_, port, _ := net.SplitHostPort(origin)
	trap, err := net.Listen("tcp4", "127.0.0.9:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer trap.Close()
	go func() {
		for {
			c, err := trap.Accept()
			if err != nil {
				return
			}
			t.Errorf("%s was connected to the trap", c.RemoteAddr())
			c.Close()
		}
	}()
	var mu sync.Mutex
	answers := 0
	l := newLiar(t, map[string]answerer{"rebind.example.": func(w dns.ResponseWriter, q *dns.Msg) {
		if q.Question[0].Qtype != dns.TypeA {
			records()(w, q)
			return
		}
		mu.Lock()
		answers++
		a := "0 A 127.0.0.1"
		if answers > 1 {
			a = "0 A 127.0.0.9"
		}
		mu.Unlock()
		records(a)(w, q)
	}})
	g := start(t, behindLiar(l))
	host := net.JoinHostPort("rebind.example", port)
	if got := askedFor(t, g.at(), host); got != "200" {
		t.Fatalf("the first answer leads to %s, want 200", got)
	}
	if n := len(l.queries("rebind.example.")); n != 2 {
		t.Errorf("the name server was asked %d times for one request, want once for each family", n)
	}
	for deadline := time.Now().Add(patience); ; {
		got := askedFor(t, g.at(), host)
		if got == "403 destination_ip_prohibited" {
			break // the answer of no life has been asked for again
		}
		if got != "200" || time.Now().After(deadline) {
			t.Fatalf("while the first answer is remembered: %s", got)
		}
	}
	g.record("target="+host, "address=127.0.0.1:"+port)
}

// A kept-alive connection of the gateway's to an origin is no way around what the name says now.
func TestDNSRebindingOnKeptAliveConnection(t *testing.T) {
	t.Parallel()
	origin := helloServer(t)
	_, port, _ := net.SplitHostPort(origin)
	var mu sync.Mutex
	says := "0 A 127.0.0.1"
	l := newLiar(t, map[string]answerer{"moved.example.": func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		defer mu.Unlock()
		records(says)(w, q)
	}})
	g := start(t, behindLiar(l))
	host := net.JoinHostPort("moved.example", port)
	c := dial(t, g.at())
	r := bufio.NewReader(c)
	ask := func() int {
		say(t, c, "GET http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	if got := ask(); got != 200 {
		t.Fatalf("status %d", got)
	}
	mu.Lock()
	says = "0 A 10.0.0.1"
	mu.Unlock()
	for deadline := time.Now().Add(patience); ; {
		got := ask()
		if got == 403 {
			return
		}
		if got != 200 || time.Now().After(deadline) {
			t.Fatalf("status %d", got)
		}
	}
}

// Many who ask for one name at once cost one look-up.
func TestDNSSingleFlight(t *testing.T) {
	t.Parallel()
	origin := helloServer(t)
	_, port, _ := net.SplitHostPort(origin)
	release := make(chan struct{})
	l := newLiar(t, map[string]answerer{"one.example.": func(w dns.ResponseWriter, q *dns.Msg) {
		<-release
		records("60 A 127.0.0.1")(w, q)
	}})
	g := start(t, behindLiar(l))
	host := net.JoinHostPort("one.example", port)
	var clients []net.Conn
	for range 50 {
		c := dial(t, g.at())
		say(t, c, "GET http://"+host+"/ HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		clients = append(clients, c)
	}
	close(release)
	for _, c := range clients {
		if got := answers(t, c); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("the answer is %q", got)
		}
	}
	if got := l.queries("one.example."); len(got) != 2 {
		t.Errorf("the name server was asked %q, want once for each family", got)
	}
}

// TestDNSServersInTurn has servers that are silent, or not there, in front of a good one.
func TestDNSServersInTurn(t *testing.T) {
	t.Parallel()
	origin := helloServer(t)
	_, port, _ := net.SplitHostPort(origin)
	silent := newLiar(t, map[string]answerer{"good.example.": silence})
	failing := newLiar(t, map[string]answerer{"good.example.": rcode(dns.RcodeServerFailure)})
	good := newLiar(t, map[string]answerer{"good.example.": records("60 A 127.0.0.1")})
	g := start(t, strings.Replace(behindLiar(good), "servers = [", fmt.Sprintf("servers = [%q, %q, %q, ", "udp://"+freeAddress(t, "127.0.0.1"), "udp://"+failing.addr, "udp://"+silent.addr), 1))
	if got := askedFor(t, g.at(), net.JoinHostPort("good.example", port)); got != "200" {
		t.Errorf("the answer is %s, want 200", got)
	}
	if len(failing.queries("good.example.")) == 0 || len(silent.queries("good.example.")) == 0 {
		t.Error("the servers in front were not asked")
	}
}

// A server that is written tcp:// never gets a datagram.
func TestDNSOverTCP(t *testing.T) {
	t.Parallel()
	origin := helloServer(t)
	_, port, _ := net.SplitHostPort(origin)
	l := newLiar(t, map[string]answerer{"good.example.": records("60 A 127.0.0.1")})
	g := start(t, strings.Replace(behindLiar(l), "udp://", "tcp://", 1))
	if got := askedFor(t, g.at(), net.JoinHostPort("good.example", port)); got != "200" {
		t.Errorf("the answer is %s, want 200", got)
	}
	if got, want := strings.Join(l.queries("good.example."), ", "), "tcp A good.example., tcp AAAA good.example."; got != want {
		t.Errorf("the name server was asked %q, want %q", got, want)
	}
}

// Names that belong to this machine, or to nobody, are nobody's business.
func TestNamesThatAreNotAsked(t *testing.T) {
	t.Parallel()
	origin := helloServer(t)
	_, port, _ := net.SplitHostPort(origin)
	l := newLiar(t, map[string]answerer{
		"localhost.": records("60 A 198.51.100.1"), "a.localhost.": records("60 A 198.51.100.1"), "x.onion.": records("60 A 127.0.0.1"),
		"intranet.": records("60 A 127.0.0.1"),
	})
	g := start(t, behindLiar(l))
	for name, want := range map[string]string{"localhost": "200", "a.localhost": "200", "x.onion": "502 dns_error", "intranet": "200", "127.0.0.1": "200", "0x7f.1": "200", "2130706433": "200"} {
		if got := askedFor(t, g.at(), net.JoinHostPort(name, port)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for _, name := range []string{"localhost.", "a.localhost.", "x.onion.", "127.0.0.1.", "0x7f.1.", "2130706433."} {
		if got := l.queries(name); len(got) > 0 {
			t.Errorf("the name server was asked %q", got)
		}
	}
	if got := l.queries("intranet."); len(got) != 2 {
		t.Errorf("a name of one label was asked as %q", got)
	}
}
