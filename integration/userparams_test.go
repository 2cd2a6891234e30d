package integration

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// outlet is a microsocks whose connections leave from an address of its own, which tells it from others.
type outlet struct {
	from, country, tags string
	addr                string
	kill                func()
}

// world is the outlets of these tests: two in Germany, one in France and one in the United States.
func world(t *testing.T) []*outlet {
	t.Helper()
	all := []*outlet{
		{from: "127.0.8.1", country: "de", tags: `"home"`}, {from: "127.0.8.2", country: "de"}, {from: "127.0.8.3", country: "fr", tags: `"home", "fast"`}, {from: "127.0.8.4", country: "US"},
	}
	port := freePorts(t, len(all))
	for i, o := range all {
		o.addr = fmt.Sprintf("127.0.0.1:%d", port+uint16(i))
		cmd := lasting(t, "microsocks", "-i", "127.0.0.1", "-p", fmt.Sprint(port+uint16(i)), "-b", o.from)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		o.kill = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
		t.Cleanup(o.kill)
		eventually(t, "microsocks", "serves", slowly(func() string {
			c, err := net.Dial("tcp", o.addr)
			if err != nil {
				return err.Error()
			}
			c.Close()
			return "serves"
		}))
	}
	return all
}

// abroad is the configuration of a gateway that leaves through them.
func abroad(all []*outlet, parameters string) string {
	var servers []string
	for _, o := range all {
		servers = append(servers, fmt.Sprintf("{ url = \"socks5://%s\", country = %q, tags = [%s] }", o.addr, o.country, o.tags))
	}
	return listenAnywhere + "[auth]\nhtpasswd = \"users.htpasswd\"\nuser_parameters = [" + parameters + "]\n" +
		"[upstream.world]\nbalance = \"random-two\"\nservers = [" + strings.Join(servers, ", ") + "]\n" + `
[exit.eu]
upstream = "world"
country  = ["de", "fr"]

[exit.home]
upstream = "world"
tag      = ["home"]

[exit.us]
upstream = "world"
country  = ["us"]

[exit.near]
local_address = ["127.0.8.9"]

[exit.secret]
upstream = "world"

[[rule]]
name   = "bob"
action = "allow"
user   = ["bob"]
target = ["127.0.0.0/8"]
exit   = ["us"]

[[rule]]
name   = "alice"
action = "allow"
user   = ["alice", "a+b"]
target = ["127.0.0.1"]
exit   = ["eu", "home", "us", "near"]
`
}

const allParameters = `"exit", "country", "session", "ttl"`

// origins serves where a request comes from.
func origins(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() { _ = http.Serve(ln, http.HandlerFunc(tellWhence)) }()
	return ln.Addr().String()
}

// tellWhence answers with the address that a request comes from.
func tellWhence(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	w.Header().Set("Connection", "close")
	fmt.Fprint(w, host)
}

// wayOut is a way into the gateway by which a user goes out. It returns what the server saw, or how the gateway refused it.
type wayOut struct {
	name  string
	ask   func(t *testing.T, g *gateway, login, origin string) string
	login string // how it refuses a login
	rule  string // how it refuses what no rule allows
	row   string // of its records
}

var waysOut = []wayOut{
	{"http", curlOut("http"), "407", "407", "protocol=http version=HTTP/1.1"},
	{"connect", curlOut("connect"), "407", "407", "protocol=connect"},
	{"socks5", curlOut("socks5h"), "status 1", "REP 2", "protocol=socks5"},
	{"h2", func(t *testing.T, g *gateway, login, origin string) string {
		name, value, _ := strings.Cut(strings.TrimSpace(basic(login)), ": ")
		status, body := newH2Client(t, dial(t, g.at())).get(t, "http://"+origin+"/", name, value)
		if status == http.StatusOK {
			return body
		}
		return fmt.Sprint(status)
	}, "407", "407", "protocol=http version=HTTP/2"},
}

// curlOut goes out by curl.
func curlOut(way string) func(t *testing.T, g *gateway, login, origin string) string {
	return func(t *testing.T, g *gateway, login, origin string) string {
		t.Helper()
		scheme, format, args := way, "%{http_code}", []string{"-q", "-s", "-S", "-U", login, "http://" + origin + "/"}
		if way == "connect" {
			scheme, format, args = "http", "%{http_connect}", append(args, "--proxytunnel")
		}
		got := run(t, "curl", append(args, "-x", scheme+"://"+g.at(), "-w", "\n"+format)...)
		body, status, _ := cutLast(got.stdout, "\n")
		switch {
		case got.code == 97 && strings.Contains(got.stderr, "rejected by the SOCKS5 server (1 1)"):
			return "status 1"
		case got.code == 97 && strings.Contains(got.stderr, "(2)"):
			return "REP 2"
		case status == "200":
			return body
		}
		return status
	}
}

// cutLast is strings.Cut at the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// loginOf is a login of alice's or bob's, with parameters in the user name.
func loginOf(user, parameters string) string { return user + parameters + ":" + user + "'s own" }

// Refusals, which each way words in its own.
const (
	badLogin = "bad login"
	badWish  = "bad wish" // a login that is good but for its parameters, answered like a bad one
	badRule  = "bad rule"
)

// TestUserParameters has users say in their names by which way they go out.
func TestUserParameters(t *testing.T) {
	t.Parallel()
	all, origin := world(t), origins(t)
	g := twoUsers(t, abroad(all, allParameters))
	tests := []struct{ user, parameters, want string }{
		{"alice", "", "127.0.8.1 127.0.8.2 127.0.8.3"},
		{"alice", "+exit-eu", "127.0.8.1 127.0.8.2 127.0.8.3"},
		{"alice", "+exit-home", "127.0.8.1 127.0.8.3"},
		{"alice", "+exit-home+country-de", "127.0.8.1"},
		{"alice", "+country-fr", "127.0.8.3"},
		{"alice", "+country-FR+session-s1", "127.0.8.3"},
		{"alice", "+exit-us", "127.0.8.4"},
		{"alice", "+ttl-10m+session-k3j+country-us+exit-us", "127.0.8.4"},
		{"alice", "+exit-near", "127.0.8.9"},
		{"bob", "", "127.0.8.4"},
		{"bob", "+exit-us+country-us", "127.0.8.4"},

		{"alice", "+exit-nowhere", badWish},
		{"alice", "+country-jp", badWish},
		{"alice", "+exit-us+country-de", badWish},
		{"alice", "+exit-near+country-de", badWish},
		{"alice", "+colour-red", badWish},
		{"alice", "+exit", badWish},
		{"alice", "+session-", badWish},
		{"alice", "+exit-eu+exit-us", badWish},
		{"alice", "+ttl-10m", badWish},
		{"alice", "+session-s+ttl-25h", badWish},
		{"alice", "+", badWish},
		{"nobody", "+exit-eu", badLogin},
		{"alice", "+country-us", badRule},  // which the first exit of her rule has not
		{"alice", "+exit-secret", badRule}, // which no rule lists
		{"bob", "+exit-eu", badRule},       // which is of another's rule
		{"bob", "+country-de", badRule},
	}
	for _, tt := range tests {
		for _, way := range waysOut {
			t.Run(tt.user+tt.parameters+" by "+way.name, func(t *testing.T) {
				mark := g.mark()
				got := way.ask(t, g, loginOf(tt.user, tt.parameters), origin)
				l := g.recordSince(mark, strings.Fields(way.row)...)
				switch tt.want {
				case badLogin, badWish:
					if got != way.login {
						t.Errorf("it is answered with %s, want %s", got, way.login)
					}
					reason := "bad_user_parameters"
					if tt.user == "nobody" {
						reason = "bad_credentials"
					}
					who := ""
					if tt.want == badWish {
						who = tt.user
					}
					check(t, l, map[string]any{"identity": who, "address": "", "reason": reason})
					return
				case badRule:
					if got != way.rule {
						t.Errorf("it is answered with %s, want %s", got, way.rule)
					}
					check(t, l, map[string]any{"identity": tt.user, "address": "", "server": "", "reason": "bad_user_parameters"})
					return
				}
				if !slices.Contains(strings.Fields(tt.want), got) {
					t.Errorf("it leaves from %s, want one of %s", got, tt.want)
				}
				check(t, l, map[string]any{"identity": tt.user, "rule": tt.user})
				for _, o := range all {
					if o.from == got {
						check(t, l, map[string]any{"upstream": "world", "server": "socks5://" + o.addr})
					}
				}
			})
		}
	}
	if strings.Contains(g.log(), `"identity":"alice+`) || strings.Contains(g.log(), "'s own") {
		t.Error("the log holds a user name with its parameters as an identity, or a password")
	}
}

// TestSessionsOfUsers has what users call a session leave by one server, while that is there.
func TestSessionsOfUsers(t *testing.T) {
	t.Parallel()
	all, origin := world(t), origins(t)
	config := abroad(all, allParameters)
	g := twoUsers(t, config)
	where := map[string]string{}
	ask := func(parameters string) string {
		t.Helper()
		from := waysOut[len(where)%len(waysOut)].ask(t, g, loginOf("alice", parameters), origin)
		if !strings.HasPrefix(from, "127.0.8.") {
			t.Fatalf("%s is answered with %s", parameters, from)
		}
		return from
	}
	same := func(what string) {
		t.Helper()
		for name, was := range where {
			for _, way := range waysOut {
				if from := way.ask(t, g, loginOf("alice", "+session-"+name), origin); from != was {
					t.Errorf("%s the session %s leaves from %s by %s, and from %s before", what, name, from, way.name, was)
				}
			}
		}
	}
	for i := 0; i < 3 || len(slices.Compact(slices.Sorted(maps.Values(where)))) < 2; i++ {
		name := fmt.Sprintf("s%d", i)
		where[name] = ask("+session-" + name)
	}
	same("later")
	if l := g.reload(config + "# the same\n"); l.str("msg") != "reloaded" {
		t.Fatal(l)
	}
	same("after SIGHUP")

	was := ask("+session-brief+ttl-1s")
	eventually(t, "whether a session of a second moves", "true", slowly(func() string { return fmt.Sprint(ask("+session-brief+ttl-1s") != was) }))

	gone := where["s0"]
	for _, o := range all {
		if o.from == gone {
			o.kill()
		}
	}
	for name, was := range where {
		from := ask("+session-" + name)
		if was != gone && from != was || from == gone {
			t.Errorf("when %s has gone the session %s leaves from %s, and from %s before", gone, name, from, was)
		}
		where[name] = from
	}
	same("after its server has gone")
}

// TestUserParametersThatAreNotAllowed has an operator who allows some, or none: "+" is then a letter like any other.
func TestUserParametersThatAreNotAllowed(t *testing.T) {
	t.Parallel()
	all, origin := world(t), origins(t)
	config := abroad(all, "")
	g := prepare(t, config)
	plus := run(t, "htpasswd", "-nbB", "-C", "4", "a+b", "a+b's own")
	mustSay(t, plus, 0)
	g.write("users.htpasswd", cheapUsers+strings.TrimSpace(plus.stdout)+"\n")
	g.run()
	g.waitListening(1)
	for _, way := range waysOut {
		mark := g.mark()
		if got := way.ask(t, g, loginOf("a+b", ""), origin); !strings.HasPrefix(got, "127.0.8.") {
			t.Errorf("by %s a+b is answered with %s", way.name, got)
		}
		check(t, g.recordSince(mark, "rule=alice"), map[string]any{"identity": "a+b"})
		if got := way.ask(t, g, loginOf("alice", "+exit-us"), origin); got != way.login {
			t.Errorf("by %s alice+exit-us is answered with %s, want %s", way.name, got, way.login)
		}
	}
	if l := g.reload(abroad(all, `"exit"`)); l.str("msg") != "reloaded" {
		t.Fatal(l)
	}
	for _, way := range waysOut {
		if got := way.ask(t, g, loginOf("alice", "+exit-us"), origin); got != "127.0.8.4" {
			t.Errorf("by %s, once it is allowed, alice+exit-us is answered with %s", way.name, got)
		}
		for _, parameters := range []string{"+session-s1", "+country-us", "+exit-us+session-s1"} {
			if got := way.ask(t, g, loginOf("alice", parameters), origin); got != way.login {
				t.Errorf("by %s alice%s is answered with %s, want %s", way.name, parameters, got, way.login)
			}
		}
	}
}

// sessionID is what differs between two answers that say the same: the session's id, and when it was.
var sessionID = regexp.MustCompile(`(?m)^Date: .*$|\b[a-z0-9]{8}-[a-z0-9]+\b`)

// TestUserParametersTellNothing has somebody without a password ask which exits there are.
func TestUserParametersTellNothing(t *testing.T) {
	t.Parallel()
	all, origin := world(t), origins(t)
	g := twoUsers(t, "[auth.lockout]\nfailures = 0\n"+abroad(all, allParameters))
	ask := func(parameters string) (answer string) {
		c := dial(t, g.at())
		say(t, c, "GET http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\nConnection: close\r\n"+basic("alice"+parameters+":a guess")+"\r\n")
		return sessionID.ReplaceAllString(answers(t, c), "")
	}
	want := ask("")
	if !strings.HasPrefix(want, "HTTP/1.1 407 ") {
		t.Fatalf("a wrong password is answered with %q", want)
	}
	for _, parameters := range []string{"+exit-eu", "+exit-nowhere", "+country-de", "+country-jp", "+exit-us+country-de", "+session-s1", "+colour-red", "+exit", "+", "+ttl-10m", "+exit-eu+exit-us"} {
		if got := ask(parameters); got != want {
			t.Errorf("alice%s with a wrong password is answered with %q, and without parameters with %q", parameters, got, want)
		}
	}
	check(t, g.record("reason=bad_credentials"), map[string]any{"identity": "", "status": 407.0})
}
