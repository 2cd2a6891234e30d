package doctor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"golang.org/x/net/http2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// listen runs script on each connection to a port of its own.
func listen(t *testing.T, script func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { // ends when the listener is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { // ends when the client has closed
				defer c.Close()
				script(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// says is a script: for each answer it reads once and then answers; at last it hangs up, so that nothing is lost.
func says(answers ...string) func(net.Conn) {
	return func(c net.Conn) {
		b := make([]byte, 64<<10)
		for _, a := range answers {
			if _, err := c.Read(b); err != nil {
				return
			}
			io.WriteString(c, a)
		}
		c.(interface{ CloseWrite() error }).CloseWrite()
		io.Copy(io.Discard, c)
	}
}

// listens is a script that never answers.
func listens(c net.Conn) { io.Copy(io.Discard, c) }

// hangsUp is a script that closes once it has read something.
func hangsUp(c net.Conn) { c.Read(make([]byte, 64<<10)) }

// named returns a probe by the name of its check.
func named(t *testing.T, name string) probe {
	t.Helper()
	for _, p := range probes {
		if p.name == name {
			return p
		}
	}
	t.Fatalf("there is no check %q", name)
	return probe{}
}

// Answers of a gateway.
const (
	http403   = "HTTP/1.1 403 Forbidden\r\nProxy-Status: polyport; error=destination_ip_prohibited\r\nContent-Length: 0\r\n\r\n"
	http407   = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nProxy-Status: polyport; error=http_request_denied\r\n\r\n"
	http429   = "HTTP/1.1 429 Too Many Requests\r\nProxy-Status: polyport; error=http_request_denied\r\n\r\n"
	http500   = "HTTP/1.1 500 Internal Server Error\r\nProxy-Status: polyport; error=proxy_internal_error\r\n\r\n"
	http502   = "HTTP/1.1 502 Bad Gateway\r\nProxy-Status: polyport; error=connection_refused\r\n\r\n"
	noHTTP    = "HTTP/1.1 502 Bad Gateway\r\nProxy-Status: polyport; error=http_protocol_error\r\n\r\n"
	http200   = "HTTP/1.1 200 OK\r\n\r\n"
	origin404 = "HTTP/1.1 404 Not Found\r\n\r\n"
	rowOff    = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n"
	http400   = "HTTP/1.1 400 Bad Request\r\nProxy-Status: polyport; error=http_request_error\r\n\r\n"
	banner    = "SSH-2.0-OpenSSH_9.2\r\n"
)

func TestChecks(t *testing.T) {
	user := Options{User: "alice", Password: "secret"}
	reach := Options{Target: "198.51.100.7:80"}
	byName := Options{Target: "example.com:80"}
	reachAs := Options{Target: "198.51.100.7:80", User: "alice", Password: "secret"}
	const rep = "\x00\x01\x00\x00\x00\x00\x00\x00"
	for _, tt := range []struct {
		row, name string
		o         Options
		script    func(net.Conn)
		ok        bool
		detail    string // a part of it
	}{
		{"http", "guarded", Options{}, says(http403), true, "refused as it should be (403 Forbidden, destination_ip_prohibited)"},
		{"http", "a user is required", Options{}, says(http407), true, "a user is required (407"},
		{"http", "nobody listens there", Options{}, says(http502), true, "it tried the target (502 Bad Gateway, connection_refused)"},
		{"http", "interim responses first", Options{}, says("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + http403), true, "403"},
		{"http", "nothing but interim responses", Options{}, says(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20)), false, "not HTTP/1"},
		{"http", "user not taken", user, says(http407), false, "this user and password are not taken"},
		{"http", "locked out", user, says(http429), false, "too many wrong passwords"},
		{"http", "in trouble", Options{}, says(http500), false, "the gateway itself is in trouble: 500 Internal Server Error, proxy_internal_error"},
		{"http", "switched off", Options{}, says(rowOff), false, "without polyport's Proxy-Status"},
		{"http", "our request is bad", Options{}, says(http400), false, "400 Bad Request, http_request_error to a request that is in order"},
		{"http", "reached", reach, says(http200), true, "200 OK"},
		{"http", "reached, not found there", reach, says(origin404), true, "404 Not Found"},
		{"http", "reached, no HTTP there", reach, says(noHTTP), true, "it does not speak HTTP"},
		{"http", "not reached", reach, says(http502), false, "198.51.100.7:80 cannot be reached from the gateway: 502"},
		{"http", "denied", reach, says(http403), false, "polyport explain 198.51.100.7:80"},
		{"http", "a user is required to reach it", reach, says(http407), false, "Give a user and a password"},
		{"http", "another program", Options{}, says(banner), false, "what came back is not HTTP/1: another program may hold"},
		{"http", "broken fields", Options{}, says("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), false, "not HTTP/1"},
		{"http", "a hostile token", Options{}, says("HTTP/1.1 403 Forbidden\r\nProxy-Status: polyport; error=<script>\r\n\r\n"), true, "(403 Forbidden)"},
		{"http", "another proxy's token", Options{}, says("HTTP/1.1 403 Forbidden\r\nProxy-Status: other; error=http_request_denied\r\n\r\n"), false, "without polyport's"},
		{"http", "closed", Options{}, hangsUp, false, "closed without an answer: the row is switched off"},
		{"http", "closed in the middle", Options{}, says("HTTP/1.1 403 Forb"), false, "closed in the middle of its answer"},
		{"http", "silent", Options{Timeout: 50 * time.Millisecond}, listens, false, "no answer within 50ms"},

		{"connect", "guarded", Options{}, says(http403), true, "refused as it should be"},
		{"connect", "a user is required", Options{}, says(http407), true, "a user is required"},
		{"connect", "reached", reach, says(http200), true, "200 OK"},
		{"connect", "not reached", reach, says(http502), false, "cannot be reached"},
		{"connect", "not polyport", reach, says(origin404), false, "without polyport's Proxy-Status"},

		{"socks4", "guarded", Options{}, says("\x00\x5b\x00\x00\x00\x00\x00\x00"), true, "refused as it should be (reply 91, request rejected or failed)"},
		{"socks4", "a user is required", Options{}, says("\x00\x5d\x00\x00\x00\x00\x00\x00"), true, "SOCKS4 carries no password"},
		{"socks4", "a user is required to reach it", reach, says("\x00\x5d\x00\x00\x00\x00\x00\x00"), true, "SOCKS4 carries no password"},
		{"socks4", "reached", reach, says("\x00\x5a\x00\x00\x00\x00\x00\x00"), true, "reply 90"},
		{"socks4", "refused or not reached", reach, says("\x00\x5b\x00\x00\x00\x00\x00\x00"), false, "was refused or not reached"},
		{"socks4", "an unknown code", Options{}, says("\x00\x01\x00\x00\x00\x00\x00\x00"), false, "unassigned reply code"},
		{"socks4", "another program", Options{}, says(banner), false, "what came back is not SOCKS"},
		{"socks4", "closed", Options{}, hangsUp, false, "closed without an answer"},
		{"socks4", "closed in the middle", Options{}, says("\x00\x5b"), false, "closed in the middle of its answer"},
		{"socks4a", "guarded", Options{}, says("\x00\x5b\x00\x00\x00\x00\x00\x00"), true, "refused as it should be"},
		{"socks4a", "reached", byName, says("\x00\x5a\x00\x00\x00\x00\x00\x00"), true, "reply 90"},

		{"socks5", "guarded", Options{}, says("\x05\x00", "\x05\x02"+rep), true, "refused as it should be (REP 02, connection not allowed by ruleset)"},
		{"socks5", "a user is required", Options{}, says("\x05\xff"), true, "a user is required (method FF"},
		{"socks5", "nobody listens there", Options{}, says("\x05\x00", "\x05\x05"+rep), true, "it tried the target (REP 05"},
		{"socks5", "user taken", user, says("\x05\x02", "\x01\x00", "\x05\x02"+rep), true, "refused as it should be"},
		{"socks5", "user not taken", user, says("\x05\x02", "\x01\x01"), false, "not taken: authentication status 01"},
		{"socks5", "neither user nor none", user, says("\x05\xff"), false, "not taken: method FF"},
		{"socks5", "user not needed", user, says("\x05\x00", "\x05\x02"+rep), true, "refused as it should be"},
		{"socks5", "reached", reachAs, says("\x05\x02", "\x01\x00", "\x05\x00"+rep), true, "REP 00, succeeded"},
		{"socks5", "not reached", byName, says("\x05\x00", "\x05\x04"+rep), false, "example.com:80 cannot be reached from the gateway: REP 04, host unreachable"},
		{"socks5", "denied", reach, says("\x05\x00", "\x05\x02"+rep), false, "the rules refuse 198.51.100.7:80"},
		{"socks5", "in trouble", Options{}, says("\x05\x00", "\x05\x01"+rep), false, "in trouble: REP 01"},
		{"socks5", "our command unknown", Options{}, says("\x05\x00", "\x05\x07"+rep), false, "REP 07, command not supported"},
		{"socks5", "a method that was not offered", Options{}, says("\x05\x02"), false, "method 0x02 was chosen, which was not offered"},
		{"socks5", "another program", Options{}, says(http400), false, "what came back is not SOCKS"},
		{"socks5", "closed", Options{}, hangsUp, false, "closed without an answer"},
		{"socks5", "closed at the password", user, says("\x05\x02"), false, "closed without an answer"},

		{"tls", "denied", Options{}, says("\x15\x03\x03\x00\x02\x02\x31"), true, "refused as it should be (alert access_denied)"},
		{"tls", "no server name", Options{}, says("\x15\x03\x03\x00\x02\x02\x6d"), true, "alert missing_extension"},
		{"tls", "backend down", Options{}, says("\x15\x03\x03\x00\x02\x02\x50"), true, "it tried the target (alert internal_error)"},
		{"tls", "a backend's alert", Options{}, says("\x15\x03\x03\x00\x02\x02\x28"), true, "alert"},
		{"tls", "no route for the name", Options{TLSName: "git.example.com"}, says("\x15\x03\x03\x00\x02\x02\x70"), false, "git.example.com is refused: alert unrecognized_name. It needs a route"},
		{"tls", "the name's backend is down", Options{TLSName: "git.example.com"}, says("\x15\x03\x03\x00\x02\x02\x50"), false, "git.example.com cannot be reached"},
		{"tls", "a target does not matter", reach, says("\x15\x03\x03\x00\x02\x02\x31"), true, "refused as it should be"},
		{"tls", "a backend", Options{TLSName: "git.example.com"}, says("\x16\x03\x03\x00\x04\x02\x00\x00\x00"), true, "a TLS server answered"},
		{"tls", "half an alert", Options{}, says("\x15\x03\x03"), false, "not TLS"},
		{"tls", "another program", Options{}, says(banner), false, "what came back is not TLS"},
		{"tls", "closed", Options{}, hangsUp, false, "closed without an answer"},
		{"tls", "silent", Options{Timeout: 50 * time.Millisecond}, listens, false, "no answer within 50ms"},

		{"help page", "there", Options{}, says(http200), true, "there is one (200 OK)"},
		{"help page", "not there", Options{}, says(origin404), true, "no help page here (404 Not Found)"},
		{"help page", "in trouble", Options{}, says(http500), false, "in trouble: 500"},
		{"help page", "another program", Options{}, says(banner), false, "not HTTP/1"},
		{"help page", "closed", Options{}, hangsUp, false, "closed without an answer"},

		{"reject", "closed", Options{}, hangsUp, true, "closed without a word, as it should be"},
		{"reject", "a raw row", Options{}, says("hello"), true, "a raw row of yours takes these octets"},
		{"reject", "held open", Options{Timeout: 50 * time.Millisecond}, listens, false, "still open after 50ms"},
	} {
		t.Run(tt.row+", "+tt.name, func(t *testing.T) {
			t.Parallel()
			tt.o.Address = listen(t, tt.script)
			if tt.o.Timeout == 0 {
				tt.o.Timeout = 30 * time.Second
			}
			x, err := newExamination(tt.o)
			if err != nil {
				t.Fatal(err)
			}
			c := x.check(t.Context(), named(t, tt.row))
			if c.OK != tt.ok || c.Skipped || !strings.Contains(c.Detail, tt.detail) {
				t.Errorf("check = %+v, want OK %v and %q in the detail", c, tt.ok, tt.detail)
			}
			if c.Row != tt.row || c.Took <= 0 || strings.Contains(fmt.Sprint(c), "secret") || strings.Contains(c.Detail, "<script>") {
				t.Errorf("check = %+v, want the row, a time, no password and no octets of the peer", c)
			}
		})
	}
}

// gateway is a script that refuses as polyport does where a user is required.
func gateway(c net.Conn) {
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	if err != nil {
		return
	}
	switch got := string(b[:n]); {
	case strings.HasPrefix(got, http2.ClientPreface):
		io.WriteString(c, framed(http2status("407")))
	case strings.HasPrefix(got, "GET / "):
		io.WriteString(c, http200)
	case strings.HasPrefix(got, "GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"):
		io.WriteString(c, http407)
	case strings.HasPrefix(got, "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"):
		io.WriteString(c, http407)
	case got == "\x04\x01\x00\x01\x7f\x00\x00\x01\x00", got == "\x04\x01\x00\x01\x00\x00\x00\x01\x00127.0.0.1\x00":
		io.WriteString(c, "\x00\x5d\x00\x00\x00\x00\x00\x00")
	case got == "\x05\x01\x00":
		io.WriteString(c, "\x05\xff")
	case got[0] == 0x16:
		io.WriteString(c, "\x15\x03\x03\x00\x02\x02\x31")
	}
}

func TestRun(t *testing.T) {
	checks := Run(t.Context(), Options{Address: listen(t, gateway), Timeout: 30 * time.Second})
	var rows []string
	for _, c := range checks {
		rows = append(rows, c.Row)
		if !c.OK || c.Skipped {
			t.Errorf("check = %+v, want it fine", c)
		}
	}
	want := "port http connect h2 socks4 socks4a socks5 udp tls help page reject"
	if got := strings.Join(rows, " "); got != want || !Healthy(checks) {
		t.Errorf("rows = %s, healthy %v, want %s, healthy", got, Healthy(checks), want)
	}
}

func TestRunChecksOnlyRowsThatAreServed(t *testing.T) {
	checks := Run(t.Context(), Options{Address: listen(t, gateway), Rows: []string{"http", "socks5"}, Timeout: 30 * time.Second})
	var skipped []string
	for _, c := range checks {
		if c.Skipped {
			skipped = append(skipped, c.Row)
		}
	}
	if got, want := strings.Join(skipped, " "), "connect h2 socks4 socks4a tls"; got != want || !Healthy(checks) {
		t.Errorf("skipped %s, healthy %v, want %s, healthy", got, Healthy(checks), want)
	}
	if all := (&examination{Options: Options{Rows: []string{"*"}}}); !all.serves("tls") {
		t.Error(`rows = ["*"] leaves out tls, want all rows`)
	}
}

func TestRunSkipsSOCKS4ForNames(t *testing.T) {
	for _, c := range Run(t.Context(), Options{Address: listen(t, gateway), Target: "example.com:80", Timeout: 30 * time.Second}) {
		if c.Skipped != (c.Row == "socks4") {
			t.Errorf("check = %+v, want socks4 skipped and no other", c)
		}
	}
}

func TestRunWithoutPort(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	checks := Run(t.Context(), Options{Address: l.Addr().String(), Timeout: 30 * time.Second})
	if c := checks[0]; c.Row != "port" || c.OK || !strings.Contains(c.Detail, "nothing listens there. Is polyport running") {
		t.Errorf("check = %+v, want it to say that nothing listens", c)
	}
	for _, c := range checks[1:] {
		if !c.Skipped || c.OK {
			t.Errorf("check = %+v, want it skipped", c)
		}
	}
	if len(checks) != 1+len(probes) || Healthy(checks) {
		t.Errorf("%d checks, healthy %v, want %d, not healthy", len(checks), Healthy(checks), 1+len(probes))
	}
}

func TestRunWithBadOptions(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{}, "is not host:port, such as 127.0.0.1:7659"},
		{Options{Address: "127.0.0.1"}, "is not host:port"},
		{Options{Address: "127.0.0.1:"}, "is not host:port"},
		{Options{Address: "http://u:secret@127.0.0.1:1"}, "address (not shown, since a password may stand in it) is not host:port"},
		{Options{Address: DefaultAddress, Target: "example.com"}, "what to reach through the proxy"},
		{Options{Address: DefaultAddress, Rows: []string{"htp"}}, `no check for the row "htp"; there are those for http, connect, h2, socks4, socks5, tls`},
	} {
		checks := Run(t.Context(), tt.o)
		if c := checks[0]; c.OK || !strings.Contains(c.Detail, tt.want) || Healthy(checks) {
			t.Errorf("Run(%+v) = %+v, want it to say %q", tt.o, c, tt.want)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address := listen(t, func(c net.Conn) {
		if n, _ := c.Read(make([]byte, 1)); n > 0 {
			cancel() // the first row has spoken: all the others are to be let go too
		}
		listens(c)
	})
	checks := Run(ctx, Options{Address: address, Timeout: -1})
	if Healthy(checks) || len(checks) != 1+len(probes) {
		t.Errorf("checks = %+v, want every row and none fine", checks)
	}
}

func TestDialable(t *testing.T) {
	for _, tt := range []struct{ address, want string }{
		{"127.0.0.1:7659", "127.0.0.1:7659"},
		{"0.0.0.0:7659", "127.0.0.1:7659"},
		{"[::]:7659", "[::1]:7659"},
		{":7659", "127.0.0.1:7659"},
		{"proxy.example.net:7659", "proxy.example.net:7659"},
	} {
		if got, err := dialable(tt.address); err != nil || got != tt.want {
			t.Errorf("dialable(%q) = %q, %v, want %q", tt.address, got, err, tt.want)
		}
	}
}

func TestHealthy(t *testing.T) {
	fine, skipped, bad := Check{OK: true}, Check{Skipped: true}, Check{}
	for _, tt := range []struct {
		checks []Check
		want   bool
	}{
		{nil, false},
		{[]Check{skipped}, false},
		{[]Check{fine}, true},
		{[]Check{fine, skipped}, true},
		{[]Check{fine, bad}, false},
	} {
		if got := Healthy(tt.checks); got != tt.want {
			t.Errorf("Healthy(%+v) = %v, want %v", tt.checks, got, tt.want)
		}
	}
}

func TestPrint(t *testing.T) {
	checks := []Check{
		{Row: "port", What: "connect", OK: true, Took: 1234567 * time.Nanosecond, Detail: "connected"},
		{Row: "tls", What: "send a ClientHello", Skipped: true, Detail: "not checked: the listener does not serve tls"},
		{Row: "socks5", What: "CONNECT", Took: 5 * time.Second, Detail: "no answer within 5s"},
	}
	var all, wrong bytes.Buffer
	if Print(&all, checks, false) || Print(&wrong, checks, true) {
		t.Error("Print says healthy, want not")
	}
	if got, want := all.String(), ""+
		"port    ok      1.23ms  connect: connected\n"+
		"tls     -       -       send a ClientHello: not checked: the listener does not serve tls\n"+
		"socks5  FAILED  5s      CONNECT: no answer within 5s\n"; got != want {
		t.Errorf("Print =\n%swant\n%s", got, want)
	}
	if got, want := wrong.String(), "socks5  FAILED  5s  CONNECT: no answer within 5s\n"; got != want {
		t.Errorf("Print with quiet = %q, want %q", got, want)
	}
	if !Print(io.Discard, checks[:2], true) {
		t.Error("Print says not healthy, want healthy")
	}
}
