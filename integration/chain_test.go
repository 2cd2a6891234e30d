package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestChains goes through several proxies, one behind the other, with TLS in the middle.
func TestChains(t *testing.T) {
	t.Parallel()
	p, w, server := newPapers(t), newWeb(t), talker(t)
	near, middle, far := newMicrosocks(t, false), newMicrosocks(t, true), newSquid(t, false, "")
	front, nghttpx := newStunnel(t, p, middle), newNghttpx(t, p, far)
	believed := fmt.Sprintf("tls = { ca = %q, server_name = %q }", p.ca(), ownName)
	all := []next{
		{name: "near", scheme: "socks5", login: hopLogin, at: near},
		{name: "middle", scheme: "socks5s", at: front, table: believed + "\nvia = \"near\""},
		{name: "two", scheme: "http", login: hopLogin, at: far, table: "via = \"near\""},
		{name: "three", scheme: "http", login: hopLogin, at: far, table: "via = \"middle\""},
		{name: "three-h2", scheme: "h2", login: hopLogin, at: nghttpx, table: believed + "\nvia = \"middle\""},
	}
	config := nextsConfig(all)
	g := startDiscreet(t, config)
	last := map[string]string{ // of what the nearest one is asked for
		"two": far.addr, "three": front.addr, "three-h2": front.addr,
	}
	for _, n := range all[2:] {
		t.Run(n.name, func(t *testing.T) {
			for _, way := range upstreamWays {
				url := way.url + "://" + w.plain + "/by/" + n.name
				if way.url == "https" {
					url = way.url + "://" + w.secure + "/by/" + n.name
				}
				got, client := curl(t, append([]string{"--cacert", w.ca, "-H", "Connection: close", "-x", way.scheme + g.addr(n.name), url}, way.args...)...)
				_, address, _ := strings.Cut(url, "//")
				if want := "hello from " + address + " over HTTP/1.1"; got.code != 0 || got.stdout != want {
					t.Fatalf("curl by %s ended with %d and printed %q, %q; want 0 and %q", way.name, got.code, got.stdout, got.stderr, want)
				}
				check(t, g.record("client="+client), map[string]any{"protocol": way.row, "upstream": n.name, "server": n.server(), "rule": "by " + n.name})
			}
			c := tunnel(t, g.addr(n.name), server)
			converse(t, c, keepsEnds)
			g.record("client="+c.LocalAddr().String(), "upstream="+n.name)
			near.logs("connected to " + last[n.name])
		})
	}
	g.reload(config) // lets idle connections go, since squid tells of a tunnel at its end
	far.logs("GET http://" + w.plain + "/by/two")
	far.logs("GET http://" + w.plain + "/by/three")
	far.logs("CONNECT " + w.secure)
	far.logs("CONNECT " + server)
	middle.logs("connected to " + far.addr)
	middle.logs("connected to " + nghttpx.addr)

	t.Run("explain", func(t *testing.T) {
		got := polyport(t, g.dir, "", "explain", "-c", g.file, "--listener", "three", w.plain)
		mustSay(t, got, 0, `allowed by rule "by three"`, "it would leave through upstream three, which is reached through middle, and that through near", "http://"+far.addr)
		lookForSecrets(t, "what explain says", got.stdout+got.stderr)
	})
	t.Run("doctor", func(t *testing.T) {
		got := polyport(t, g.dir, "", "doctor", "-c", g.file, "--target", server, "--row", "connect", g.addr("three"))
		mustSay(t, got, 0)
		for _, n := range all {
			if line := lineWith(got.stdout, "by "+n.server()); !strings.HasPrefix(line, "upstream "+n.name+" ") && n.scheme != "http" || !strings.Contains(line, " ok ") {
				t.Errorf("doctor says %q of %s: %s", line, n.name, got.stdout)
			}
		}
		lookForSecrets(t, "what doctor says", got.stdout+got.stderr)
	})
	t.Run("a dead one in the middle", func(t *testing.T) {
		middle.kill()
		got, c := refusedConnect(t, g.addr("three"), server)
		c.Close()
		l := g.record("client=" + c.LocalAddr().String())
		if !strings.HasPrefix(got.status, "502 ") || !strings.Contains(l.str("err"), "socks5s://"+front.addr) {
			t.Errorf("the answer is %q and the record's err %q, want 502 and the name of the dead one", got.status, l.str("err"))
		}
		check(t, l, map[string]any{"upstream": "middle", "rule": "by three"}) // the one that failed
		if c := tunnel(t, g.addr("two"), server); c != nil {                  // the others go on
			converse(t, c, keepsEnds)
		}
		doctor := polyport(t, g.dir, "", "doctor", "-c", g.file, "--target", server, "--row", "connect", g.addr("two"))
		if doctor.code != 1 || !strings.Contains(lineWith(doctor.stdout, "upstream middle "), "it is down") || strings.Contains(lineWith(doctor.stdout, "upstream near "), "it is down") {
			t.Errorf("doctor ended with %d and says %s, want that middle is down and near is not", doctor.code, doctor.stdout)
		}
	})
}

// TestChainFaults has check and serve refuse what cannot be.
func TestChainFaults(t *testing.T) {
	t.Parallel()
	addr := freeAddress(t, "127.0.0.1")
	_, port, _ := net.SplitHostPort(addr)
	dir := inFolder(t, "polyport.toml", `default_upstream = "nobody"
[listen.main]
address = ["`+addr+`"]
[upstream.a]
servers = ["http://192.0.2.1", "socks9://alice:`+secret+`@192.0.2.2"]
via = "b"
[upstream.b]
servers = ["http://192.0.2.1"]
via = "c"
[upstream.c]
servers = ["http://alice:`+secret+`@192.0.2.1:99999"]
via = "a"
[upstream.d]
servers = ["http://127.0.0.1:`+port+`"]
[upstream.e]
servers = ["http://192.0.2.1"]
via = "nowhere"
[[rule]]
action = "allow"
upstream = "unknown"
[[rule]]
action = "deny"
upstream = "a"
[[rule]]
action = "allow"
exit = ["unknown"]
`)
	for _, command := range []string{"check", "serve"} {
		got := polyport(t, dir, "", command, "-c", "polyport.toml")
		mustSay(t, got, 1,
			"default_upstream: there is no upstream \"nobody\"",
			"upstream.a.servers[1]", "socks9",
			"goes round in a circle",
			"upstream.c.servers[0]",
			"upstream.d.servers[0]", "is the gateway itself",
			"upstream.e.via: there is no upstream \"nowhere\"",
			"rule[0].upstream (the 1st [[rule]]): there is no upstream \"unknown\"",
			"rule[1].upstream",
			"rule[2].exit[0] (the 3rd [[rule]]): there is no exit \"unknown\"",
		)
		lookForSecrets(t, "what "+command+" says", got.stdout+got.stderr)
	}
}
