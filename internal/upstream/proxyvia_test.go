package upstream

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// via is what the tests send.
const via = "1.0 fred, 1.1 example.com (a, b), 1.1 polyport"

// TestVia has CONNECT carry a Via; proxies of SOCKS are not told (see TestTunnel for none).
func TestVia(t *testing.T) {
	told := named
	told.Via = via
	for _, tt := range tunnels {
		if tt.to != named {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			steps := append([]step(nil), tt.steps...)
			steps[0].read = strings.Replace(steps[0].read, "\r\n\r\n", "\r\nVia: "+via+"\r\n\r\n", 1)
			dial, _, done := played(t, steps, 1<<10, -1)
			c, err := mustProxy(t, ProxyOptions{URL: tt.url}).Open(t.Context(), time.Now().Add(time.Minute), "", dial, told)
			if err != nil {
				t.Fatalf("Open: %v", err)
			}
			c.Close()
			<-done
		})
	}
}

// TestH2Via is TestVia in a stream of HTTP/2, and tells of a loop.
func TestH2Via(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header["Via"]; len(got) != 1 || got[0] != via || len(r.Header) != 2 {
				t.Errorf("the proxy got the fields %v, want %q in one Via", r.Header, via)
			}
			w.Header().Set("Proxy-Status", "polyport; error=proxy_loop_detected")
			w.WriteHeader(http.StatusBadGateway)
		})
		told := named
		told.Via = via
		_, err := p.Open(t.Context(), time.Now().Add(time.Minute), "", l.dial, told)
		checkError(t, err, reasonLoop, false, http.StatusBadGateway)
		checkSays(t, err, "says that CONNECT to example.com:443 goes round in a circle (HTTP status 502)")
	})
}

// TestBadVia sends nothing that would be more than a field's value.
func TestBadVia(t *testing.T) {
	for _, bad := range []string{"1.1 a\r\nX: y", "1.1 a\nX: y", "1.1 a\rb", "1.1 a\x00", "1.1 a\x7f", "\x1b[1m"} {
		for _, url := range []string{"http://192.0.2.1", "https://192.0.2.1", "h2://192.0.2.1"} {
			to := named
			to.Via = bad
			_, err := mustProxy(t, ProxyOptions{URL: url}).Open(t.Context(), time.Time{}, "", nil, to)
			checkError(t, err, reasonConfiguration, false, 0)
		}
	}
}

// FuzzVia checks that a Via is refused or arrives as it is, and that nothing else comes with it.
func FuzzVia(f *testing.F) {
	for _, in := range []string{via, "", " \t", "1.1 a\r\nX: y", "\n", "1.1 \xff", "a\x7f"} {
		f.Add(in)
	}
	p := mustProxy(f, ProxyOptions{URL: "http://192.0.2.1"})
	f.Fuzz(func(t *testing.T, in string) {
		to := named
		to.Via = in
		if p.Takes(to) != nil {
			return
		}
		b := bytes.NewReader(p.appendConnect(nil, to))
		r, err := http.ReadRequest(bufio.NewReaderSize(b, 1<<20))
		if err != nil {
			t.Fatalf("%q makes a request that cannot be read: %v", in, err)
		}
		want := 1
		if in == "" {
			want = 0
		}
		if got := r.Header.Get("Via"); len(r.Header) != want || got != strings.Trim(in, " \t") || b.Len() != 0 {
			t.Errorf("%q arrives as %q", in, r.Header)
		}
	})
}

// TestSaysLoop reads Proxy-Status.
func TestSaysLoop(t *testing.T) {
	for _, tt := range []struct {
		line string
		want bool
	}{
		{"polyport; error=proxy_loop_detected", true},
		{"polyport;error=proxy_loop_detected", true},
		{`polyport; next-hop="http://192.0.2.1:80"; error=proxy_loop_detected; received-status=502`, true},
		{`a; error=connection_timeout, "b, c"; error=proxy_loop_detected`, true},
		{"", false},
		{"proxy_loop_detected", false},
		{"polyport; error=proxy_loop_detected_not", false},
		{"polyport; error=dns_error", false},
		{"polyport; xerror=proxy_loop_detected", false},
	} {
		if got := saysLoop(tt.line); got != tt.want {
			t.Errorf("saysLoop(%q) = %v, want %v", tt.line, got, tt.want)
		}
	}
}

// FuzzSaysLoop checks that no member hides another one's loop, and that nothing is a loop which does not name it.
func FuzzSaysLoop(f *testing.F) {
	for _, in := range []string{"", `a; details="x`, "polyport; error=proxy_loop_detected", "a, b;;"} {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if saysLoop(in) && !strings.Contains(in, "error="+reasonLoop) {
			t.Errorf("saysLoop(%q)", in)
		}
		if line := in + ", polyport; error=" + reasonLoop; !saysLoop(line) {
			t.Errorf("saysLoop(%q) is false", line)
		}
	})
}
