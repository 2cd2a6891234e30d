package egress

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// A chain asks each proxy for the next one, and the last one for the target.
func TestChain(t *testing.T) {
	echo := echoAt(t, "127.0.0.1:0")
	near, middle, far := proxyAt(t, "127.0.0.1:0", socks5("")), proxyAt(t, "127.0.0.1:0", connectProxy), proxyAt(t, "127.0.0.1:0", socks5(""))
	gone := closedPort(t, "127.0.0.1:0")
	resolver := names(map[string]string{"far.example": "127.0.0.2 127.0.0.1"})
	near.names[fmt.Sprintf("middle.example:%d", middle.at.Port())] = middle.at.String()

	u1 := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "near"}, ResolvesNames: true}, "socks5://"+near.at.String())
	u2 := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "middle"}, Via: u1}, fmt.Sprintf("http://middle.example:%d", middle.at.Port()))
	u3 := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "far"}, Via: u2}, "socks5://"+gone.String(), fmt.Sprintf("socks5://far.example:%d", far.at.Port()))
	d := throughUpstream(t, u3, Options{Resolver: resolver})

	link, err := openTo(t, d, echo.String(), OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, link.Conn)
	if _, bare := link.Conn.(*net.TCPConn); !bare {
		t.Errorf("the tunnel is a %T, want a bare connection", link.Conn)
	}
	for _, u := range []*upstream.Upstream{u1, u2, u3} {
		members := u.Pool().Members()
		if n := members[len(members)-1].Status().Connections; n != 1 {
			t.Errorf("upstream %s counts %d connections, want 1", u.Name(), n)
		}
	}
	checkKeptByAChain(t, d, echo.String(), &link, u3.Pool().Members()[0], u2.Pool().Members()[0])
	link.Conn.Close()
	link.Release()
	checkNoneCounted(t, u1.Pool(), u2.Pool(), u3.Pool())
	if want := fmt.Sprintf("socks5://far.example:%d", far.at.Port()); link.Server != want || link.Upstream != "far" {
		t.Errorf("the link names %s of %s, want %s of far", link.Server, link.Upstream, want)
	}
	wantMiddle := []string{gone.String(), fmt.Sprintf("127.0.0.2:%d", far.at.Port()), far.at.String()}
	if got := middle.heard(); !slices.Equal(got, wantMiddle) {
		t.Errorf("the middle proxy was asked for %q, want %q", got, wantMiddle)
	}
	if got := far.heard(); !slices.Equal(got, []string{echo.String()}) {
		t.Errorf("the far proxy was asked for %q, want the target", got)
	}
}

// checkKeptByAChain: a connection that stays open is used again once the server that goes before one on its way is down, and not where one on
// its way is.
func checkKeptByAChain(t *testing.T, d *Dialer, hostport string, link *Link, before, on *pool.Member) {
	t.Helper()
	p, err := d.Authorize(t.Context(), to(t, hostport))
	if err != nil {
		t.Fatal(err)
	}
	down := func(m *pool.Member) {
		for range 3 {
			m.Checked(errors.New("it is being mended"))
		}
	}
	var kept [3]bool
	kept[0] = p.Keeps(link)
	down(before)
	kept[1] = p.Keeps(link)
	down(on)
	kept[2] = p.Keeps(link)
	if kept != [3]bool{false, true, false} {
		t.Errorf("kept: %v, want false with a server before it, true once that is down, and false when one on the way is too", kept)
	}
}

// That nobody in front can be used tells nothing of those behind.
func TestAChainWhoseFirstProxyIsDown(t *testing.T) {
	eject := pool.Eject{Failures: 1, Pause: time.Hour, MaxPause: time.Hour}
	near := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "near", Eject: eject}}, "socks5://"+closedPort(t, "127.0.0.1:0").String())
	far := upstreamOf(t, upstream.Options{Pool: pool.Options{Name: "far", Eject: eject}, Via: near}, "socks5://192.0.2.1:1", "socks5://192.0.2.2:1")
	d := throughUpstream(t, far, Options{})
	_, err := openTo(t, d, "127.0.0.1:9", OpenOptions{})
	if reasonOf(t, err) != ConnectionRefused || !strings.Contains(err.Error(), "through upstream near") {
		t.Errorf("Open = %v, want %s through upstream near", err, ConnectionRefused)
	}
	if got := states(far.Pool()); !slices.Equal(got, []pool.State{pool.Up, pool.Up}) {
		t.Errorf("the servers behind are %v, want them up", got)
	}
	if got := states(near.Pool()); !slices.Equal(got, []pool.State{pool.Ejected}) {
		t.Errorf("the server in front is %v, want it ejected", got)
	}
	checkNoneCounted(t, near.Pool(), far.Pool())
}
