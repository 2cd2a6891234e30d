package egress

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// vias is what proxies have seen in the Via of CONNECT, in their order.
type vias struct {
	mu   sync.Mutex
	seen []string
}

// connect is connectProxy, which notes the lines of Via.
func (v *vias) connect(p *testProxy, c net.Conn) {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	v.mu.Lock()
	v.seen = append(v.seen, fmt.Sprintf("%q", req.Header["Via"]))
	v.mu.Unlock()
	p.join(c, r, req.Host, func(error) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") })
}

// TestVia: every CONNECT has what the opener says, or else what all have; those of a chain and of checks too.
func TestVia(t *testing.T) {
	echo := echoAt(t, "127.0.0.1:0")
	for _, tt := range []struct{ name, all, one, want string }{
		{"nothing", "", "", `[]`},
		{"that of all", "1.1 us", "", `["1.1 us"]`},
		{"its own", "1.1 us", "1.0 a, 2.0 us", `["1.0 a, 2.0 us"]`},
		{"its own alone", "", "1.0 a, 2.0 us", `["1.0 a, 2.0 us"]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var v vias
			near, far := proxyAt(t, "127.0.0.1:0", v.connect), proxyAt(t, "127.0.0.1:0", v.connect)
			front := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "near"}}, "http://"+near.at.String())
			u := upstreamOf(t, upstream.Options{Via: front}, "http://"+far.at.String())
			d := throughUpstream(t, u, Options{Via: tt.all})
			link, err := openTo(t, d, echo.String(), OpenOptions{Via: tt.one})
			if err != nil {
				t.Fatal(err)
			}
			checkEcho(t, link.Conn)
			link.Conn.Close()
			link.Release()
			if want := []string{tt.want, tt.want}; !slices.Equal(v.seen, want) {
				t.Errorf("the proxies saw %s, want %s", v.seen, want)
			}
			v.seen = nil
			probe := Probe{Kind: ProbeTunnel, Target: upstream.Destination{Addr: echo.Addr(), Port: echo.Port()}}
			if err := d.ProbeUpstream(t.Context(), front, 0, probe); err != nil {
				t.Fatal(err)
			}
			want := "[]"
			if tt.all != "" {
				want = fmt.Sprintf("[%q]", tt.all)
			}
			if !slices.Equal(v.seen, []string{want}) {
				t.Errorf("the proxy that was checked saw %s, want %s", v.seen, want)
			}
		})
	}
}

// TestLoopIsFinal: what goes round in a circle is asked of no other server and for no other address, or each gateway in the circle would
// multiply it.
func TestLoopIsFinal(t *testing.T) {
	round := says("HTTP/1.1 502 Bad Gateway\r\nProxy-Status: polyport; error=proxy_loop_detected\r\nContent-Length: 0\r\n\r\n")
	first, second := proxyAt(t, "127.0.0.1:0", round), proxyAt(t, "127.0.0.1:0", round)
	u := upstreamOf(t, upstream.Options{Pool: pool.Options{Eject: pool.Eject{Failures: 1}}}, "http://"+first.at.String(), "http://"+second.at.String())
	d := throughUpstream(t, u, Options{Resolver: names(map[string]string{"many.example": "127.0.0.1 127.0.0.2 127.0.0.3"})})
	_, err := openTo(t, d, "many.example:80", OpenOptions{})
	if err == nil || reasonOf(t, err) != LoopDetected || !strings.Contains(err.Error(), "goes round in a circle") || strings.Contains(err.Error(), "own sockets") {
		t.Errorf("Open = %v, want %s", err, LoopDetected)
	}
	if n := first.connections() + second.connections(); n != 1 {
		t.Errorf("the proxies were asked %d times, want once", n)
	}
	if got := states(u.Pool()); !slices.Equal(got, []pool.State{pool.Up, pool.Up}) {
		t.Errorf("the servers are %v, want them up", got)
	}
	checkNoneCounted(t, u.Pool())
}
