package httpproxy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"polyport/acl"
	"polyport/internal/egress"
	"polyport/internal/exit"
	"polyport/internal/session"
	"polyport/internal/upstream"
)

func TestUpstreamRefusal(t *testing.T) {
	to := mustTarget(t, "example.com:80")
	said := func(reason string, server bool, status int, proxy string) error {
		return fmt.Errorf("wrapped: %w", &upstream.Error{Reason: reason, Server: server, Status: status, Proxy: proxy, Err: io.EOF})
	}
	const http, socks = "http://192.0.2.1:80", "socks5://192.0.2.1:1080"
	tests := []struct {
		name   string
		reason egress.Reason
		err    error
		status int
		field  string
		says   string
	}{
		{
			"not reached", egress.ConnectionRefused, io.EOF, 502,
			`polyport; error=connection_refused; next-hop="up"`, "The upstream proxy refused the connection. Only whoever runs this proxy can tell more.",
		},
		{
			"none is left", egress.DestinationUnavailable, io.EOF, 503,
			`polyport; error=destination_unavailable; next-hop="up"`, "The upstream proxy cannot be reached at the moment. Only whoever runs this proxy can tell more.",
		},
		{
			"no descriptor is left here", egress.LimitReached, io.EOF, 503,
			`polyport; error=connection_limit_reached; next-hop="up"`, "This proxy cannot open more connections at the moment.",
		},
		{
			"wrong credentials", egress.ConfigurationError, said("proxy_configuration_error", true, 407, http), 500,
			`polyport; error=proxy_configuration_error; next-hop="http://192.0.2.1:80"; received-status=407`,
			"The upstream proxy cannot be used as this proxy is configured. Only whoever runs this proxy can tell more.",
		},
		{
			"it forbids the target", egress.RequestDenied, said("http_request_denied", false, 403, http), 403,
			`polyport; error=http_request_denied; next-hop="http://192.0.2.1:80"; received-status=403`, "The upstream proxy does not allow this request.",
		},
		{
			"it does not reach the target", egress.DestinationUnavailable, said("destination_unavailable", false, 502, http), 503,
			`polyport; error=destination_unavailable; next-hop="http://192.0.2.1:80"; received-status=502`, "The target cannot be reached at the moment.",
		},
		{
			"it has found a loop", egress.LoopDetected, said("proxy_loop_detected", false, 502, http), 502,
			`polyport; error=proxy_loop_detected; next-hop="http://192.0.2.1:80"; received-status=502`,
			"The upstream proxy says that this request goes round in a circle. Only whoever runs this proxy can end that.",
		},
		{
			"its name leads to us", egress.LoopDetected, egress.ErrDenied, 502,
			`polyport; error=proxy_loop_detected; next-hop="up"`, "The upstream proxy is this proxy itself. Only whoever runs this proxy can tell more.",
		},
		{
			"it does not know the target", destinationNotFound, said("destination_not_found", false, 404, http), 500,
			`polyport; error=destination_not_found; next-hop="http://192.0.2.1:80"; received-status=404`, "The target could not be found.",
		},
		{
			"a code of SOCKS", egress.ConnectionRefused, said("connection_refused", false, 5, socks), 502,
			`polyport; error=connection_refused; next-hop="socks5://192.0.2.1:1080"; details="SOCKS code 5"`,
			"The target refused the connection: nothing listens on that port.",
		},
		{
			"its certificate", "tls_certificate_error", said("tls_certificate_error", true, 0, http), 502,
			`polyport; error=tls_certificate_error; next-hop="http://192.0.2.1:80"`, "The upstream proxy has a certificate that is not trusted. Only whoever runs this proxy can tell more.",
		},
		{
			"no TLS", "tls_protocol_error", said("tls_protocol_error", true, 0, http), 502,
			`polyport; error=tls_protocol_error; next-hop="http://192.0.2.1:80"`, "The upstream proxy and this proxy could not agree on TLS. Only whoever runs this proxy can tell more.",
		},
		{
			"no HTTP", "http_protocol_error", said("http_protocol_error", true, 0, http), 502,
			`polyport; error=http_protocol_error; next-hop="http://192.0.2.1:80"`, "The upstream proxy does not answer as one. Only whoever runs this proxy can tell more.",
		},
		{
			"too slow", egress.ConnectionTimeout, said("connection_timeout", true, 0, http), 504,
			`polyport; error=connection_timeout; next-hop="http://192.0.2.1:80"`, "The upstream proxy did not answer in time. Only whoever runs this proxy can tell more.",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := forEgress(fmt.Errorf("dial: %w", &egress.Error{Reason: tt.reason, Target: to, Upstream: "up", Err: tt.err}))
			if r.status != tt.status {
				t.Errorf("status %d, want %d", r.status, tt.status)
			}
			want(t, "Proxy-Status", r.fields()[0].value, tt.field)
			want(t, "the page says", r.says, tt.says)
			if rule := ruleFor(r.egress); rule != "" {
				t.Errorf("it shows the rule %q, which would not help", rule)
			}
		})
	}
}

// TestForWishes: what a client has added to its user name and cannot have is told with a challenge, since another name would help.
func TestForWishes(t *testing.T) {
	wish := fmt.Errorf("%w: there is no exit %q", egress.ErrWish, "<x>")
	for _, tt := range []struct {
		name string
		r    *refusal
		says string
	}{
		{"when it logs in", forAuth(fmt.Errorf("%w: %w", session.ErrWish, wish), now()), `there is no exit "<x>"`},
		{"a malformed one", forAuth(fmt.Errorf("%w: %w", session.ErrWish, errors.New("ttl-x: no time")), now()), "ttl-x: no time"},
		{
			"for this target", forPolicy(&egress.Error{Reason: egress.RequestDenied, Decision: acl.Decision{Action: acl.Allow}, Err: wish}, false),
			`there is no exit "<x>"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.r.status != 407 || tt.r.reason != requestDenied {
				t.Errorf("status %d, reason %s, want 407", tt.r.status, tt.r.reason)
			}
			want(t, "it says", tt.r.says, "What your user name asks for cannot be had: "+tt.says+".")
			a := page{refusal: tt.r, id: "1", loopback: true}.answer(true)
			if text := string(a.body); strings.Contains(text, "<x>") || strings.Contains(text, "[[rule]]") {
				t.Errorf("the page is %q", text)
			}
			if f := a.fields[1]; f.name != "Proxy-Authenticate" || f.value != challenge {
				t.Errorf("field %v, want the challenge", f)
			}
		})
	}
}

// TestWishesOverTheWire: the connection goes on, so that another user name can be tried, and no rule is shown.
func TestWishesOverTheWire(t *testing.T) {
	proxy, heads := replies(t, okAnswer)
	u := upstreamTo(t, upstream.ProxyOptions{URL: "http://" + proxy.addr()}, nil)
	g := newGateway(t, gatewayOptions{
		users: users{}, requireUser: true, parameters: exit.Parameters{Exit: true, Session: true},
		rules: []acl.Rule{{Name: "user", Action: acl.Allow, Target: []string{"127.0.0.0/8"}, Exit: []string{"eu"}}},
		ways: egress.Ways{
			Upstreams: map[string]*upstream.Upstream{"up": u}, Exits: map[string]*egress.Exit{"eu": {Upstream: u}, "us": {Upstream: u}},
		},
	})
	c := g.connect()
	for _, tt := range []struct {
		user   string
		status int
		says   string
	}{
		{"al+exit-gone", 407, "gone"},
		{"al+exit-us", 407, "us"},
		{"al+color-red", 407, "color"},
		{"al+exit-eu+session-a", 200, ""},
		{"al", 200, ""},
	} {
		for _, method := range []string{"GET", "CONNECT"} {
			target := "http://127.0.0.1/"
			if method == "CONNECT" {
				if target = "127.0.0.1:443"; tt.status == 200 {
					continue // the connection would be a tunnel
				}
			}
			c.send("%s %s HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic %s\r\n\r\n", method, target, base64.StdEncoding.EncodeToString([]byte(tt.user+":x")))
			resp, body := c.response(http.MethodGet)
			if resp.StatusCode != tt.status || resp.Close || (resp.Header.Get("Proxy-Authenticate") != "") != (tt.status == 407) {
				t.Errorf("%s: answer %d, close %v, %v", tt.user, resp.StatusCode, resp.Close, resp.Header)
			}
			if !strings.Contains(body, tt.says) || strings.Contains(body, "[[rule]]") {
				t.Errorf("%s: the page says %q", tt.user, body)
			}
			if rec := g.record(); (rec.Reason == "bad_user_parameters") != (tt.status == 407) {
				t.Errorf("%s: record %+v", tt.user, rec)
			}
		}
	}
	if n := len(heads); n != 2 || proxy.count() != 2 {
		t.Errorf("%d requests over %d connections, want 2 over 2: users with sessions of their own share none", n, proxy.count())
	}
}
