package httpproxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/session"
)

// The grammar of structured fields as far as Proxy-Status uses it (RFC 9651 section 3).
var (
	sfKey     = regexp.MustCompile(`^[a-z*][a-z0-9_.*-]*`)
	sfToken   = regexp.MustCompile("^[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")
	sfInteger = regexp.MustCompile(`^-?[0-9]{1,15}`)
	sfQuoted  = regexp.MustCompile(`^"(?:[ !#-\[\]-~]|\\["\\])*"`)
)

// kinds are the types of the parameters (RFC 9209 sections 2.1 and 2.3).
var kinds = map[string]*regexp.Regexp{
	"error": sfToken, "details": sfQuoted, "received-status": sfInteger, "next-hop": sfQuoted, "rcode": sfQuoted, "info-code": sfInteger,
	"alert-id": sfInteger, "alert-message": sfToken,
}

// parseProxyStatus reads a field of one member, strictly.
func parseProxyStatus(value string) (name string, params map[string]string, err error) {
	take := func(re *regexp.Regexp) (found string) {
		found = re.FindString(value)
		value = value[len(found):]
		return found
	}
	if name = take(sfToken); name == "" {
		return "", nil, errors.New("the member is no token")
	}
	params = map[string]string{}
	for value != "" {
		if value[0] != ';' {
			return "", nil, fmt.Errorf("%q where a parameter may stand", value)
		}
		value = strings.TrimLeft(value[1:], " ")
		key := take(sfKey)
		kind := kinds[key]
		if kind == nil || params[key] != "" {
			return "", nil, fmt.Errorf("parameter %q is unknown, or twice there", key)
		}
		if take(regexp.MustCompile(`^=`)) == "" {
			return "", nil, fmt.Errorf("parameter %q has no value", key)
		}
		if params[key] = take(kind); params[key] == "" {
			return "", nil, fmt.Errorf("parameter %q has a value of another type", key)
		}
	}
	return name, params, nil
}

// checkProxyStatus checks the fields of any answer that a test gets: what is ours is well-formed.
func checkProxyStatus(t testing.TB, resp *http.Response) {
	t.Helper()
	for _, value := range resp.Header.Values("Proxy-Status") {
		if !strings.HasPrefix(value, "polyport") {
			continue // of an origin
		}
		name, params, err := parseProxyStatus(value)
		if err != nil || name != "polyport" {
			t.Errorf("Proxy-Status %q: %v", value, err)
		}
		if (resp.StatusCode >= 400) != (params["error"] != "") {
			t.Errorf("status %d with Proxy-Status %q", resp.StatusCode, value)
		}
	}
}

func TestParseProxyStatus(t *testing.T) {
	for _, bad := range []string{
		"", "; error=x", "polyport;error", "polyport; error=\"x\"", "polyport; Error=x", "polyport, polyport", "polyport ; error=x", "polyport; rcode=NXDOMAIN",
		"polyport; error=x y", "polyport; received-status=abc", "polyport; error=x; error=y", "polyport;", `polyport; details="a\x"`, `polyport; details="a`,
	} {
		if name, params, err := parseProxyStatus(bad); err == nil {
			t.Errorf("parseProxyStatus(%q) = %q, %q, want an error", bad, name, params)
		}
	}
}

// TestEveryAnswerOfOurs has the field, and what is passed on has none of ours.
func TestEveryAnswerOfOurs(t *testing.T) {
	origin, _ := replies(t, okAnswer)
	cdn, _ := replies(t, "HTTP/1.1 504 Gateway Timeout\r\nProxy-Status: cdn.example; error=connection_timeout\r\nProxy-Status: inner\r\nContent-Length: 0\r\n\r\n")
	wants407, _ := replies(t, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
	switches, _ := replies(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
	garbage, _ := replies(t, "garbage\r\n\r\n")
	some := []acl.Rule{{Name: "some", Action: acl.Allow, Target: []string{"127.0.0.0/8", "*.test"}, Anonymous: true}}
	needs := func(o *gatewayOptions) {
		o.users, o.requireUser = users{}, true
		o.rules = []acl.Rule{{Name: "loopback", Action: acl.Allow, Target: []string{"127.0.0.0/8"}}}
	}
	const basic = "Proxy-Authorization: Basic %s\r\n"
	for _, tt := range []struct {
		name, request string
		change        func(*gatewayOptions)
		status        int
		want          string
	}{
		{"help page", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", nil, 200, "polyport"},
		{"help page, HEAD", "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", nil, 200, "polyport"},
		{"PAC file", "GET /proxy.pac HTTP/1.1\r\nHost: x\r\n\r\n", nil, 200, "polyport"},
		{"no such page", "GET /x HTTP/1.1\r\nHost: x\r\n\r\n", nil, 404, "polyport; error=http_request_error"},
		{"another method", "DELETE / HTTP/1.1\r\nHost: x\r\n\r\n", nil, 405, "polyport; error=http_request_error"},
		{"no pages", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", func(o *gatewayOptions) { o.noHelp = true }, 400, "polyport; error=http_request_error"},
		{"a bad address for the page", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", func(o *gatewayOptions) { o.address = "x" }, 500, "polyport; error=proxy_internal_error"},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", nil, 200, "polyport"},
		{"OPTIONS, last hop", "OPTIONS http://" + origin.addr() + "/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", nil, 200, "polyport"},
		{"TRACE, last hop", "TRACE http://" + origin.addr() + "/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", nil, 200, "polyport"},
		{"malformed", "GET http://x/ HTTP/1.1\r\nHost : x\r\n\r\n", nil, 400, "polyport; error=http_request_error"},
		{"another version", "GET http://x/ HTTP/3.0\r\nHost: x\r\n\r\n", nil, 505, "polyport; error=http_request_error"},
		{"another scheme", "GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 400, "polyport; error=http_request_error"},
		{"https, off", "GET https://x/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 400, "polyport; error=http_request_error"},
		{"expectation", "GET http://x/ HTTP/1.1\r\nHost: x\r\nExpect: cake\r\n\r\n", nil, 417, "polyport; error=http_request_error"},
		{"a row that is not served", "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", func(o *gatewayOptions) { o.rows = map[string]bool{"http": true} }, 403, "polyport; error=http_request_denied"},
		{"rule", "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 403, "polyport; error=http_request_denied"},
		{"rule, CONNECT", "CONNECT 192.0.2.1:1 HTTP/1.1\r\nHost: x\r\n\r\n", nil, 403, "polyport; error=http_request_denied"},
		{"challenge", "GET http://" + origin.addr() + "/ HTTP/1.1\r\nHost: x\r\n\r\n", needs, 407, "polyport; error=http_request_denied"},
		{"wrong scheme", "GET http://" + origin.addr() + "/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Bearer x\r\n\r\n", needs, 407, "polyport; error=http_request_denied"},
		{"locked out", "GET http://" + origin.addr() + "/ HTTP/1.1\r\nHost: x\r\n" + fmt.Sprintf(basic, "Ym9iOng=") + "\r\n", needs, 429, "polyport; error=http_request_denied"},
		{"busy", "GET http://" + origin.addr() + "/ HTTP/1.1\r\nHost: x\r\n" + fmt.Sprintf(basic, "Y2Fyb2w6eA==") + "\r\n", needs, 503, "polyport; error=proxy_internal_error"},
		{"no name, the system's resolver", "GET http://unknown.test/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 502, "polyport; error=dns_error"},
		{"no name", "GET http://nxdomain.test/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 502, `polyport; error=dns_error; rcode="NXDOMAIN"`},
		{"no name, blocked", "CONNECT blocked.test:443 HTTP/1.1\r\nHost: x\r\n\r\n", nil, 502, `polyport; error=dns_error; rcode="REFUSED"; info-code=15`},
		{"DNS timeout", "GET http://slow.test/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 504, "polyport; error=dns_timeout"},
		{"refused", "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n", nil, 502, "polyport; error=connection_refused"},
		{"407 of an origin", "GET http://" + wants407.addr() + "/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 502, "polyport; error=http_protocol_error; received-status=407"},
		{"101 of an origin", "GET http://" + switches.addr() + "/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 502, "polyport; error=http_upgrade_failed; received-status=101"},
		{"no HTTP", "GET http://" + garbage.addr() + "/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 502, "polyport; error=http_protocol_error"},
		{"passed on", "GET http://" + origin.addr() + "/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 200, ""},
		{"passed on with what another proxy says", "GET http://" + cdn.addr() + "/ HTTP/1.1\r\nHost: x\r\n\r\n", nil, 504, "cdn.example; error=connection_timeout, inner"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := gatewayOptions{rules: some}
			if tt.change != nil {
				tt.change(&o)
			}
			g := newGateway(t, o)
			c := g.connect()
			c.send("%s", tt.request)
			resp, _ := c.response(tt.request[:strings.IndexByte(tt.request, ' ')])
			if got := strings.Join(resp.Header.Values("Proxy-Status"), ", "); resp.StatusCode != tt.status || got != tt.want {
				t.Errorf("answer %d, Proxy-Status %q; want %d, %q", resp.StatusCode, got, tt.status, tt.want)
			}
		})
	}
}

// TestSlowHeadHasProxyStatus: the one answer that no request asks for.
func TestSlowHeadHasProxyStatus(t *testing.T) {
	g := newGateway(t, gatewayOptions{timeouts: brief(func(o *session.Timeouts) { o.Handshake = 20e6 })})
	c := g.connect()
	c.send("GET ")
	resp, _ := c.response(http.MethodGet)
	if got := resp.Header.Get("Proxy-Status"); resp.StatusCode != 408 || got != "polyport; error=http_request_error" {
		t.Errorf("answer %d, Proxy-Status %q", resp.StatusCode, got)
	}
}

// TestForPolicy: where nobody has a password none is asked for.
func TestForPolicy(t *testing.T) {
	challenge := &egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Action: acl.Challenge}, Err: egress.ErrChallenge}
	denied := &egress.Error{Reason: egress.RequestDenied, Err: egress.ErrDenied}
	for _, tt := range []struct {
		name      string
		err       error
		passwords bool
		status    int
		says      string
	}{
		{"a password helps", challenge, true, 407, "user name and password"},
		{"a certificate helps", challenge, false, 403, "client certificate: connect to it by TLS"},
		{"nothing helps", denied, true, 403, "rules"},
		{"nothing helps, no passwords", denied, false, 403, "rules"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := forPolicy(tt.err, tt.passwords)
			if r.status != tt.status || r.reason != requestDenied || !strings.Contains(r.says, tt.says) || !errors.Is(r, tt.err) {
				t.Errorf("forPolicy = %d %s %q", r.status, r.reason, r.says)
			}
			for _, f := range r.fields() {
				if f.name == "Proxy-Authenticate" && r.status != 407 {
					t.Error("there is a challenge")
				}
			}
		})
	}
}

func TestAlertParams(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"a known one", &net.OpError{Op: "remote error", Err: tls.AlertError(40)}, "polyport; error=tls_alert_received; alert-id=40; alert-message=handshake_failure"},
		{"without a name", &net.OpError{Op: "remote error", Err: tls.AlertError(200)}, "polyport; error=tls_alert_received; alert-id=200"},
		{"wrapped", fmt.Errorf("read: %w", &net.OpError{Op: "remote error", Err: tls.AlertError(116)}), "polyport; error=tls_alert_received; alert-id=116; alert-message=certificate_required"},
		{"not an alert", &net.OpError{Op: "remote error", Err: errors.New("x")}, "polyport; error=tls_alert_received"},
	} {
		r := tlsRefusal(tt.err)
		if got := proxyStatus(r.reason, r.params...); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if len(alertByText) != 256 {
		t.Errorf("%d alerts can be told apart by their texts, want 256", len(alertByText))
	}
	for id, name := range alertNames {
		if sfToken.FindString(name) != name {
			t.Errorf("the name %q of alert %d is no token", name, id)
		}
	}
}

// FuzzSFString: what comes out is a String, and says the same.
func FuzzSFString(f *testing.F) {
	f.Add("NXDOMAIN")
	f.Add(`a "b" \c`)
	f.Add("a\r\nb\x7f")
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := sfString(s)
		if printable := regexp.MustCompile(`^[ -~]*$`).MatchString(s); ok != printable {
			t.Fatalf("sfString(%q) is possible: %v", s, ok)
		}
		if !ok {
			return
		}
		if sfQuoted.FindString(got) != got {
			t.Errorf("sfString(%q) = %s, which is no String", s, got)
		}
		if back, err := strconv.Unquote(got); err != nil || back != s {
			t.Errorf("sfString(%q) = %s, which says %q, %v", s, got, back, err)
		}
	})
}

// answered is what a name server said, as package resolve has it.
type answered struct {
	rcode string
	info  int
}

func (a answered) Error() string                { return a.rcode }
func (a answered) RCode() (rcode string, i int) { return a.rcode, a.info }
