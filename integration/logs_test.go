package integration

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// Every secret of these tests holds this word, so that one search finds them all.
const secret = "SECRET"

// loggedGateway runs a gateway whose access log is a file, with the user alice, and returns both.
func loggedGateway(t *testing.T, format, more string) (g *gateway, path string) {
	t.Helper()
	g = prepare(t, "[log]\nlevel = \"debug\"\naccess = \""+format+"\"\naccess_to = \"access.log\"\n"+more+listenAnywhere+
		"[auth]\nhtpasswd = \"users\"\n"+
		"[[rule]]\nname = \"socks4\"\naction = \"allow\"\nprotocol = [\"socks4\"]\nanonymous = true\ntarget = [\"127.0.0.0/8\"]\n"+
		"[[rule]]\nname = \"a \\\"quoted\\\" \\\\ rule\"\naction = \"allow\"\ntarget = [\"127.0.0.0/8\"]\n"+
		"[[rule]]\nname = \"the rest\"\naction = \"allow\"\n")
	mustSay(t, polyport(t, g.dir, secret+" horse\n", "user", "add", "--htpasswd", "users", "alice"), 0)
	g.run()
	g.waitListening(1)
	return g, filepath.Join(g.dir, "access.log")
}

// traffic has sessions of every kind, with bytes that would like to break a line; it returns how many.
func traffic(t *testing.T, g *gateway) (sessions int) {
	t.Helper()
	origin, target := helloServer(t), tcpServer(t, echo)
	_, port, err := net.SplitHostPort(target)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	_, _ = fmt.Sscan(port, &n)
	to := string([]byte{byte(n >> 8), byte(n)}) // DST.PORT
	alice := "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("alice:"+secret+" horse")) + "\r\n"
	wrong := "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("al\"ice:"+secret+" wrong")) + "\r\n"
	get := func(path string) string {
		return "GET http://" + origin + path + " HTTP/1.1\r\nHost: " + origin + "\r\n"
	}
	password := secret + " horse"
	conversations := []string{
		get("/?token="+secret+"&b=%0a") + alice + "Cookie: " + secret + "\r\nAuthorization: Basic " + secret + "\r\nConnection: close\r\n\r\n",
		get("/a\"b\\c'<>%0d%0a{}|^`"+strings.Repeat("x", 10_000)+"?"+secret) + alice + "Connection: close\r\n\r\n",
		get("/") + "Connection: close\r\n\r\n", // nobody
		get("/") + wrong + "Connection: close\r\n\r\n",
		get("/") + "X-A: " + secret + "\r\n\x00\r\n\r\n",
		"GET http://alice:" + secret + "@" + origin + "/ HTTP/1.1\r\nHost: " + origin + "\r\n\r\n",
		"GET http://" + origin + "/\x1b[2J" + secret + " HTTP/1.1\r\nHost: " + origin + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: \"\\" + "\r\nConnection: close\r\n\r\n",
		"CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n" + alice + "\r\n" + secret + " payload",
		"CONNECT 10.0.0.1:1 HTTP/1.1\r\nHost: x\r\n" + alice + "\r\n",
		"CONNECT nothing.invalid:443 HTTP/1.1\r\nHost: x\r\n" + alice + "\r\n",
		"\x05\x01\x02\x01\x05alice" + string([]byte{byte(len(password))}) + password + "\x05\x01\x00\x01\x7f\x00\x00\x01" + to + secret + " payload",
		"\x05\x01\x02\x01\x0dalice\n\x1b[2J\"\\\xff\x04" + secret[:4],
		"\x05\x01\x02\x01\x05alice" + string([]byte{byte(len(password))}) + password + "\x05\x01\x00\x03\x07a\nb \"\\c\x00\x50",
		"\x04\x01" + to + "\x7f\x00\x00\x01us\"er\\\xff\u202e \x00" + secret + " payload",
		"\x04\x01" + to + "\x7f\x00\x00\x01us\x1b[2Jer" + secret + "\x00",
		"\x00" + secret + " nobody knows\r\n",
		"EHLO " + secret + "\r\n",
		"\x16\x03\x01\x00\x06" + secret,
	}
	for _, says := range conversations {
		c := dial(t, g.at())
		say(t, c, says)
		_ = c.CloseWrite()
		_ = hearOut(c)
		c.Close()
	}
	return len(conversations)
}

// lookForSecrets fails the test if one of them is anywhere it should not be.
func lookForSecrets(t *testing.T, where, log string) {
	t.Helper()
	for _, s := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret))[:7], base64.StdEncoding.EncodeToString([]byte("alice:"))[:7]} {
		if i := strings.Index(log, s); i >= 0 {
			t.Errorf("%s holds %q: ...%q...", where, s, log[max(0, i-100):min(len(log), i+100)])
		}
	}
}

var logFormats = map[string]*regexp.Regexp{
	"json":   regexp.MustCompile(`^\{.*\}$`),
	"text":   regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} \w+ \S+ .*bytes=\d+/\d+ .* id=\S+$`),
	"common": regexp.MustCompile(`^(\S+) - (\S+) \[\d{2}/\w{3}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4}\] "(?:[^"\\]|\\.)*" \d{3} (?:\d+|-)$`),
	"squid":  regexp.MustCompile(`^\d{10}\.\d{3} +\d+ \S+ [A-Z_]+/\d{3} \d+ \S+ \S+ \S+ [A-Z_]+/\S+ \S+$`),
}

func TestLogFormats(t *testing.T) {
	t.Parallel()
	for format, form := range logFormats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			g, path := loggedGateway(t, format, "")
			n := traffic(t, g)
			g.stop() // so that all is written
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := waitForLines(t, path, n)
			if len(lines) != n {
				t.Errorf("%d sessions left %d lines:\n%s", n, len(lines), content)
			}
			for _, line := range lines {
				if !form.MatchString(line) {
					t.Errorf("the line %q is not of the format", line)
				}
				if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }); i >= 0 {
					t.Errorf("the line %q has a character that does not print, at %d", line, i)
				}
				if len(line) > 40<<10 {
					t.Errorf("a line has %d bytes", len(line))
				}
			}
			lookForSecrets(t, "the access log", string(content))
			lookForSecrets(t, "the log", g.log())
			for line := range strings.Lines(g.log()) {
				if !json.Valid([]byte(line)) {
					t.Errorf("the log's line %q is no JSON", line)
				}
			}
		})
	}
}

// keysOfTheLog are all that a line of the JSON access log may have.
var keysOfTheLog = []string{
	"time", "level", "msg", "id", "protocol", "listener", "client", "identity", "user_id", "method", "version", "target", "url", "address",
	"backend", "rule", "reason", "status", "bytes_from_client", "bytes_from_target", "setup_s", "duration_s", "err",
}

func TestJSONLog(t *testing.T) {
	t.Parallel()
	g, path := loggedGateway(t, "json", "")
	n := traffic(t, g)
	var lines []logLine
	ids := map[string]bool{}
	for _, s := range waitForLines(t, path, n) {
		l := logLine{}
		if err := json.Unmarshal([]byte(s), &l); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		for key := range l {
			if !slices.Contains(keysOfTheLog, key) {
				t.Errorf("the line %s has the key %q", s, key)
			}
		}
		for _, key := range []string{"time", "level", "msg", "id", "protocol", "listener", "client", "bytes_from_client", "bytes_from_target", "duration_s"} {
			if l[key] == nil {
				t.Errorf("the line %s lacks the key %q", s, key)
			}
		}
		if ids[l.str("id")] {
			t.Errorf("the id %q stands twice", l.str("id"))
		}
		ids[l.str("id")] = true
		lines = append(lines, l)
	}
	find := func(what string, ok func(logLine) bool) logLine {
		t.Helper()
		i := slices.IndexFunc(lines, ok)
		if i < 0 {
			t.Fatalf("no line is of %s", what)
		}
		return lines[i]
	}
	forwarded := find("the first request", func(l logLine) bool { return l.str("protocol") == "http" && l.num("status") == 200 })
	for key, want := range map[string]any{
		"identity": "alice", "method": "GET", "version": "HTTP/1.1", "rule": `a "quoted" \ rule`, "target": forwarded["address"],
		"url": "http://" + forwarded.str("target") + "/?", "listener": "main",
	} {
		if forwarded[key] != want {
			t.Errorf("%s is %v, want %v", key, forwarded[key], want)
		}
	}
	if forwarded["setup_s"] == nil || forwarded.num("bytes_from_target") < 50 || forwarded.num("bytes_from_client") < 100 {
		t.Errorf("the line %v lacks times or bytes", forwarded)
	}
	tunnelled := find("the SOCKS5 tunnel", func(l logLine) bool { return l.str("protocol") == "socks5" && l.str("address") != "" })
	if tunnelled.str("identity") != "alice" || tunnelled.num("bytes_from_client") != int64(len(secret+" payload")) || tunnelled.num("bytes_from_target") != int64(len(secret+" payload")) {
		t.Errorf("the line %v has another user or other bytes", tunnelled)
	}
	named := find("the SOCKS4 client", func(l logLine) bool { return l.str("user_id") != "" })
	if named.str("identity") != "" || named.str("user_id") != "us\"er\\\uFFFD\u202e " {
		t.Errorf("the SOCKS4 client is %q and calls itself %q", named.str("identity"), named.str("user_id"))
	}
	for what, want := range map[string]map[string]any{
		"the guard":           {"reason": "guard", "status": 403.0, "target": "10.0.0.1:1", "rule": "the rest"},
		"a missing user":      {"reason": "needs_user", "status": 407.0},
		"a wrong password":    {"reason": "bad_credentials", "status": 407.0},
		"an unknown name":     {"reason": "dns_error", "status": 502.0, "target": "nothing.invalid:443"},
		"a malformed request": {"reason": "http_request_error", "status": 400.0},
		"an unknown protocol": {"reason": "unknown_protocol", "protocol": "reject"},
		"a broken hello":      {"reason": "malformed_client_hello", "protocol": "tls"},
	} {
		find(what, func(l logLine) bool {
			for key, value := range want {
				if l[key] != value {
					return false
				}
			}
			return true
		})
	}
}

// The log that is not redacted holds the query, and only that more.
func TestQueryInTheLog(t *testing.T) {
	t.Parallel()
	for _, redact := range []bool{true, false} {
		t.Run(fmt.Sprint(redact), func(t *testing.T) {
			g := start(t, fmt.Sprintf("[log]\nredact_query = %v\n", redact)+listenAnywhere+allowLoopback)
			origin := helloServer(t)
			c := dial(t, g.at())
			say(t, c, "GET http://"+origin+"/path?token=crumbs HTTP/1.1\r\nHost: "+origin+"\r\nCookie: cookies\r\nConnection: close\r\n\r\n")
			answers(t, c)
			l := g.record("protocol=http")
			if got := strings.Contains(l.str("url"), "token=crumbs"); got == redact || !strings.Contains(l.str("url"), "/path?") {
				t.Errorf("the URL is %q", l.str("url"))
			}
			if strings.Contains(g.log(), "cookies") {
				t.Error("the log holds a cookie")
			}
		})
	}
}

func TestLogOff(t *testing.T) {
	t.Parallel()
	g := start(t, "[log]\naccess = \"off\"\n"+listenAnywhere+allowLoopback)
	origin := helloServer(t)
	c := dial(t, g.at())
	say(t, c, "GET http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\nConnection: close\r\n\r\n")
	answers(t, c)
	g.stop()
	if strings.Contains(g.log(), "session end") {
		t.Errorf("the access log is off, and there is one:\n%s", g.log())
	}
}

// The page that a client gets names the session as the log does, so that whoever is asked can find it.
func TestErrorPageNamesTheSession(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere)
	c := dial(t, g.at())
	say(t, c, "GET http://10.0.0.1/ HTTP/1.1\r\nHost: 10.0.0.1\r\nAccept: text/html\r\nX-A: <script>\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	l := g.record("status=403", "reason=guard")
	for _, want := range []string{l.str("id"), "10.0.0.1:80", "10.0.0.1/32"} { // the last is the rule that would admit it
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(string(page), "script") {
		t.Errorf("the page shows what the client sent:\n%s", page)
	}
}
