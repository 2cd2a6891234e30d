package egress

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"polyport/internal/pool"
	"polyport/internal/upstream"
)

func TestFailover(t *testing.T) {
	echo := echoAt(t, "127.0.0.1:0")
	good := proxyAt(t, "127.0.0.1:0", socks5(""))
	gone := closedPort(t, "127.0.0.1:0")
	const tooMany = "HTTP 429 is not our own want, and another server is used, but any client can bring it about"
	tests := []struct {
		name   string
		scheme string
		serve  func(*testProxy, net.Conn) // nil: nobody listens
		failed bool                       // it counts against the first server, and the second one is used
		reason Reason                     // of the first one alone
		says   string
	}{
		{"down", "socks5", nil, true, ConnectionRefused, "connection refused"},
		{"silent", "socks5", silent, true, ConnectionTimeout, "silent until the time allowed was over"},
		{"garbage", "socks5", says("SSH-2.0-x\r\n"), true, ConnectionTerminated, "does not answer like a SOCKS proxy"},
		{"garbage for HTTP", "http", says("\x05\x00"), true, ConnectionTimeout, "silent"},
		{"refuses the password", "socks5", socks5("u:p"), true, ConfigurationError, "requires a user"},
		{"HTTP 407", "http", says("HTTP/1.1 407 No\r\n\r\n"), true, ConfigurationError, "requires a user"},
		{tooMany, "http", says("HTTP/1.1 429 Slower\r\n\r\n"), true, LimitReached, "wants fewer requests"},
		{"does not take CONNECT", "http", says("HTTP/1.1 405 No\r\n\r\n"), true, ConfigurationError, "no proxy for tunnels"},
		{"closes at once", "http", func(_ *testProxy, c net.Conn) { c.Read(make([]byte, 99)) }, true, ConnectionTerminated, "closed the connection without an answer"},
		{"forbids the target", "http", says("HTTP/1.1 403 No\r\n\r\n"), false, RequestDenied, "does not allow"},
		{"does not reach the target", "http", says("HTTP/1.1 502 No\r\n\r\n"), false, DestinationUnavailable, "cannot reach"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := gone
			if tt.serve != nil {
				at = proxyAt(t, "127.0.0.1:0", tt.serve).at
			}
			first := tt.scheme + "://" + at.String()
			eject := pool.Eject{Failures: 1, Pause: time.Hour, MaxPause: time.Hour}

			alone := upstreamOf(t, upstream.Options{Pool: pool.Options{Eject: eject}}, first)
			d := throughUpstream(t, alone, Options{ConnectTimeout: 300 * time.Millisecond})
			_, err := openTo(t, d, echo.String(), OpenOptions{})
			if err == nil || reasonOf(t, err) != tt.reason || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "through upstream eu") {
				t.Errorf("Open = %v, want %s that says %q and names the upstream", err, tt.reason, tt.says)
			}
			server := ""
			if !tt.failed { // it has answered for the target
				server = first
			}
			if e := (*Error)(nil); errors.As(err, &e) && e.Server != server {
				t.Errorf("the error names the server %q, want %q", e.Server, server)
			}
			if got, want := states(alone.Pool())[0] == pool.Ejected, tt.failed && tt.name != tooMany; got != want {
				t.Errorf("the server is ejected: %v, want %v", got, want)
			}
			checkNoneCounted(t, alone.Pool())

			both := upstreamOf(t, upstream.Options{Pool: pool.Options{Eject: eject}}, first, "socks5://"+good.at.String())
			d = throughUpstream(t, both, Options{ConnectTimeout: time.Second})
			link, err := openTo(t, d, echo.String(), OpenOptions{})
			if (err == nil) != tt.failed {
				t.Fatalf("Open with another server = %v, want success: %v", err, tt.failed)
			}
			if err != nil {
				checkNoneCounted(t, both.Pool())
				return
			}
			checkEcho(t, link.Conn)
			link.Conn.Close()
			if link.Server != "socks5://"+good.at.String() || link.Upstream != "eu" || link.Address != echo {
				t.Errorf("the link is %+v, want the second server and the target's address", link)
			}
			if n := both.Pool().Members()[1].Status().Connections; n != 1 {
				t.Errorf("the second server counts %d connections, want 1", n)
			}
			link.Release()
			checkNoneCounted(t, both.Pool())
		})
	}
}

// What follows a 200 is the client's own: nothing may be tried again.
func TestAProxyThatClosesAfterItsAnswer(t *testing.T) {
	bad := proxyAt(t, "127.0.0.1:0", says("HTTP/1.1 200 OK\r\n\r\n"))
	good := proxyAt(t, "127.0.0.1:0", connectProxy)
	u := upstreamOf(t, upstream.Options{}, "http://"+bad.at.String(), "http://"+good.at.String())
	link, err := openTo(t, throughUpstream(t, u, Options{}), "127.0.0.1:9", OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer link.Release()
	defer link.Conn.Close()
	link.Conn.SetDeadline(time.Now().Add(10 * time.Second))
	if b, err := io.ReadAll(link.Conn); len(b) != 0 || err != nil {
		t.Errorf("the tunnel gave %q, %v, want its end", b, err)
	}
	if n := good.connections(); n != 0 {
		t.Errorf("the second server has had %d connections, want none", n)
	}
}

// There is nothing to wait for where no server can be used.
func TestNoServerToUse(t *testing.T) {
	u := upstreamOf(t, upstream.Options{Pool: pool.Options{Servers: []pool.Server{{Drain: true}, {}}, Fall: 1}}, "socks5://127.0.0.1:1", "socks5://127.0.0.1:2")
	u.Pool().Members()[1].Checked(errors.New("no answer to a check"))
	begun := time.Now()
	_, err := openTo(t, throughUpstream(t, u, Options{}), "127.0.0.1:9", OpenOptions{})
	if reasonOf(t, err) != DestinationUnavailable {
		t.Errorf("Open = %v, want %s", err, DestinationUnavailable)
	}
	for _, says := range []string{"through upstream eu", "socks5://127.0.0.1:1: draining", "no answer to a check"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("the error says %q, want it to say %q", err, says)
		}
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("that took %v, want an answer at once", took)
	}
}

// What a client asks for tells nothing of a proxy that cannot be asked for it, nor of one that has answered and then waits for the target: it is
// neither ejected for it nor brought back, and the next one is asked.
func TestAProxyIsNotBlamedForTheTarget(t *testing.T) {
	const far = "[2606:4700::1]:80"
	echo := echoAt(t, "127.0.0.1:0")
	good := proxyAt(t, "127.0.0.1:0", socks5(""))
	good.names[far] = echo.String()
	tests := []struct {
		name, scheme, target string
		serve                func(*testProxy, net.Conn)
		reason               Reason
		says                 string
	}{
		{"greets, and is silent", "socks5", echo.String(), says("\x05\x00"), ConnectionTimeout, "silent until the time allowed was over"},
		{"IPv6 by SOCKS4", "socks4", far, silent, ConfigurationError, "SOCKS4 knows no IPv6"},
	}
	for _, tt := range tests {
		for _, state := range []pool.State{pool.Up, pool.Ejected} {
			t.Run(tt.name+", "+state.String(), func(t *testing.T) {
				first := tt.scheme + "://" + proxyAt(t, "127.0.0.1:0", tt.serve).at.String()
				eject := pool.Eject{Failures: 1, Pause: 1, MaxPause: 1} // whoever comes is the trial
				open := func(timeout time.Duration, urls ...string) (Link, error) {
					u := upstreamOf(t, upstream.Options{Pool: pool.Options{Eject: eject}}, urls...)
					if state == pool.Ejected {
						m, err := u.Pool().Choose(&pool.Request{}, nil)
						if err != nil {
							t.Fatal(err)
						}
						m.Failed(errors.New("it was down"))
						m.Release()
					}
					link, err := openTo(t, throughUpstream(t, u, Options{ConnectTimeout: timeout}), tt.target, OpenOptions{})
					if got := states(u.Pool())[0]; got != state {
						t.Errorf("the first server is %v now, want %v", got, state)
					}
					return link, err
				}
				if _, err := open(300*time.Millisecond, first); err == nil || reasonOf(t, err) != tt.reason || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("Open = %v, want %s that says %q", err, tt.reason, tt.says)
				}
				link, err := open(time.Second, first, "socks5://"+good.at.String())
				if err != nil {
					t.Fatalf("Open with another server = %v", err)
				}
				checkEcho(t, link.Conn)
				link.Conn.Close()
				link.Release()
			})
		}
	}
}

// A proxy that has answered others meanwhile is not ejected for a target that is silent.
func TestAProxyThatIsSilentForOneAlone(t *testing.T) {
	const dead = "127.0.0.1:9"
	for _, others := range []bool{true, false} {
		t.Run(fmt.Sprintf("others are answered: %v", others), func(t *testing.T) {
			asked := make(chan struct{})
			proxy := proxyAt(t, "127.0.0.1:0", func(p *testProxy, c net.Conn) {
				head := make([]byte, len("CONNECT "+dead))
				if _, err := io.ReadFull(c, head); err != nil {
					return
				}
				if string(head) == "CONNECT "+dead {
					close(asked)
					silent(p, c)
					return
				}
				says("HTTP/1.1 502 No\r\n\r\n")(p, c)
			})
			u := upstreamOf(t, upstream.Options{Pool: pool.Options{Eject: pool.Eject{Failures: 1, Pause: time.Hour, MaxPause: time.Hour}}}, "http://"+proxy.at.String())
			d := throughUpstream(t, u, Options{ConnectTimeout: time.Second})
			failed := make(chan error, 1)
			go func() {
				_, err := openTo(t, d, dead, OpenOptions{})
				failed <- err
			}()
			<-asked
			if others {
				if _, err := openTo(t, d, "127.0.0.1:80", OpenOptions{}); err == nil || reasonOf(t, err) != DestinationUnavailable {
					t.Errorf("Open for another target = %v, want %s", err, DestinationUnavailable)
				}
			}
			if err := <-failed; err == nil || reasonOf(t, err) != ConnectionTimeout {
				t.Errorf("Open = %v, want %s", err, ConnectionTimeout)
			}
			if got := states(u.Pool())[0] == pool.Ejected; got == others {
				t.Errorf("the server is ejected: %v, want %v", got, !others)
			}
			checkNoneCounted(t, u.Pool())
		})
	}
}
