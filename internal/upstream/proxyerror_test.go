package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func greeted(reply string) []step {
	return []step{{"\x05\x02\x00\x02", "\x05\x00"}, {"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50", reply}}
}

func answered4(reply string) []step {
	return []step{{"\x04\x01\x00\x50\xc0\x00\x02\x07u\x00", reply}}
}

const connectIP4 = "CONNECT 192.0.2.7:80 HTTP/1.1\r\nHost: 192.0.2.7:80\r\nProxy-Authorization: Basic dTpzZWNyZXQ=\r\n\r\n"

func answeredHTTP(status string) []step {
	return []step{{connectIP4, "HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n"}}
}

// TestRefusal tells whose fault it is when there is an answer, but no tunnel.
func TestRefusal(t *testing.T) {
	const bound = "\x00\x00\x00\x00\x00\x00"
	for _, tt := range []struct {
		name, url string
		steps     []step
		reason    string
		server    bool
		status    int
		words     string
	}{
		{"407", "http", answeredHTTP("407 x"), reasonConfiguration, true, 407, `refused the user (HTTP status 407): check its user and password in [upstream.NAME]`},
		{"400", "http", answeredHTTP("400 x"), reasonConfiguration, false, 400, "does not understand CONNECT"},
		{"401", "http", answeredHTTP("401 x"), reasonConfiguration, true, 401, "does not take CONNECT"},
		{"405", "http", answeredHTTP("405 x"), reasonConfiguration, true, 405, "does not take CONNECT"},
		{"501", "http", answeredHTTP("501 x"), reasonConfiguration, true, 501, "does not take CONNECT"},
		{"302", "http", answeredHTTP("302 x"), reasonConfiguration, true, 302, "does not take CONNECT"},
		{"101", "http", answeredHTTP("101 x"), reasonConfiguration, true, 101, "does not take CONNECT"},
		{"429", "http", answeredHTTP("429 x"), reasonLimit, true, 429, "wants fewer requests"},
		{"500", "http", answeredHTTP("500 x"), reasonUnavailable, false, 500, "cannot reach"},
		{"403", "http", answeredHTTP("403 x"), reasonDenied, false, 403, "does not allow 192.0.2.7:80"},
		{"451", "http", answeredHTTP("451 x"), reasonDenied, false, 451, "does not allow 192.0.2.7:80"},
		{"404", "http", answeredHTTP("404 x"), reasonNotFound, false, 404, "does not find 192.0.2.7:80"},
		{"502", "http", answeredHTTP("502 x"), reasonUnavailable, false, 502, "cannot reach 192.0.2.7:80"},
		{"503", "http", answeredHTTP("503 x"), reasonUnavailable, false, 503, "cannot reach 192.0.2.7:80"},
		{
			"502, a loop", "http", answeredHTTP("502 x\r\nProxy-Status: polyport; error=proxy_loop_detected"),
			reasonLoop, false, 502, "says that CONNECT to 192.0.2.7:80 goes round in a circle (HTTP status 502)",
		},
		{
			"407, a loop", "http", answeredHTTP("407 x\r\nProxy-Status: polyport; error=proxy_loop_detected"),
			reasonConfiguration, true, 407, "refused the user",
		},
		{"504", "http", answeredHTTP("504 x"), reasonTimeout, false, 504, "had no answer from 192.0.2.7:80"},
		{"SSH", "http", []step{{connectIP4, "SSH-2.0-OpenSSH\r\n"}}, reasonProtocol, true, 0, "does not answer like an HTTP proxy"},
		{"SOCKS", "http", []step{{connectIP4, "\x05\xff\r\n"}}, reasonProtocol, true, 0, "does not answer like an HTTP proxy"},
		{"a head without end", "http", []step{{connectIP4, "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 1<<14)}}, reasonProtocol, true, 0, ""},
		{"interims without end", "http", []step{{connectIP4, strings.Repeat("HTTP/1.1 100 x\r\n\r\n", 100)}}, reasonProtocol, true, 0, ""},

		{"91", "socks4", answered4("\x00\x5b" + bound), reasonUnavailable, false, 91, "cannot reach 192.0.2.7:80, or does not allow it (SOCKS4 code 91"},
		{"92", "socks4a", answered4("\x00\x5c" + bound), reasonConfiguration, true, 92, "refused the user (SOCKS4 code 92"},
		{"93", "socks4", answered4("\x00\x5d" + bound), reasonConfiguration, true, 93, "refused the user"},
		{"unknown", "socks4", answered4("\x00\x01" + bound), reasonTerminated, true, 0, "does not answer like a SOCKS proxy"},
		{"garbage", "socks4", answered4("HTTP/1.1 400"), reasonTerminated, true, 0, "does not answer like a SOCKS proxy"},

		{"no method", "socks5", []step{{"\x05\x02\x00\x02", "\x05\xff"}}, reasonConfiguration, true, 255, `refused the user (SOCKS5 method FF, no acceptable methods): check`},
		{"method not offered", "socks5", []step{{"\x05\x02\x00\x02", "\x05\x01"}}, reasonConfiguration, true, 1, "chose SOCKS5 method 01, which was not offered"},
		{
			"password", "socks5",
			[]step{{"\x05\x02\x00\x02", "\x05\x02"}, {"\x01\x01u\x06secret", "\x01\x01"}},
			reasonConfiguration, true, 1,
			`upstream socks5://192.0.2.1:1080 refused the user (RFC 1929 status 1): check its user and password in [upstream.NAME]`,
		},
		{"01", "socks5", greeted("\x05\x01\x00\x01" + bound), reasonUnavailable, false, 1, "cannot reach 192.0.2.7:80 (SOCKS5 code 01"},
		{"02", "socks5", greeted("\x05\x02\x00\x01" + bound), reasonDenied, false, 2, "does not allow 192.0.2.7:80"},
		{"03", "socks5", greeted("\x05\x03\x00\x01" + bound), reasonUnroutable, false, 3, ""},
		{"04", "socks5", greeted("\x05\x04\x00\x01" + bound), reasonUnroutable, false, 4, ""},
		{"05", "socks5", greeted("\x05\x05\x00\x01" + bound), reasonRefused, false, 5, ""},
		{"06", "socks5", greeted("\x05\x06\x00\x01" + bound), reasonTimeout, false, 6, ""},
		{"07", "socks5", greeted("\x05\x07\x00\x01" + bound), reasonConfiguration, true, 7, "does not serve CONNECT (SOCKS5"},
		{"08", "socks5", greeted("\x05\x08\x00\x01" + bound), reasonUnroutable, false, 8, ""},
		{"F0", "socks5", greeted("\x05\xf0\x00\x01" + bound), reasonUnavailable, false, 240, ""},
		{"garbage", "socks5", []step{{"\x05\x02\x00\x02", "HTTP/1.1 400"}}, reasonTerminated, true, 0, "does not answer like a SOCKS proxy"},
	} {
		t.Run(tt.url+", "+tt.name, func(t *testing.T) {
			o := ProxyOptions{URL: tt.url + "://192.0.2.1", User: "u"}
			if !strings.HasPrefix(tt.url, "socks4") {
				o.Password = "secret"
			}
			dial, _, done := played(t, tt.steps, 1<<20, -1)
			got, err := mustProxy(t, o).Open(t.Context(), time.Time{}, "", dial, ip4)
			<-done
			if got != nil {
				t.Errorf("Open = %T", got)
			}
			checkError(t, err, tt.reason, tt.server, tt.status)
			if !strings.Contains(fmt.Sprint(err), tt.words) {
				t.Errorf("error %q does not say %q", err, tt.words)
			}
			if tt.server && strings.Contains(fmt.Sprint(err), ip4.String()) {
				t.Errorf("error %q is of the proxy, which others hear of, and shows the target", err)
			}
		})
	}
}

// TestNoUser tells who has no user what is missing.
func TestNoUser(t *testing.T) {
	dial, _, done := played(t, []step{{"\x05\x01\x00", "\x05\xff"}}, 1, -1)
	_, err := mustProxy(t, ProxyOptions{URL: "socks5://gw.example"}).Open(t.Context(), time.Time{}, "", dial, ip4)
	<-done
	const want = "upstream socks5://gw.example:1080 requires a user (SOCKS5 method FF, no acceptable methods): " +
		"set user and password in [upstream.NAME]"
	if err == nil || err.Error() != want {
		t.Errorf("Open: %v\nwant %s", err, want)
	}
}

// TestSilence has a proxy that says nothing: the deadline ends the wait, to the nanosecond.
func TestSilence(t *testing.T) {
	for _, url := range []string{
		"http://192.0.2.1", "https://192.0.2.1", "h2://192.0.2.1", "socks4://192.0.2.1", "socks4a://192.0.2.1",
		"socks5://192.0.2.1", "socks5s://192.0.2.1",
	} {
		t.Run(url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer server.Close()
				go func() { // it takes what comes
					b := make([]byte, 1<<10)
					for {
						if _, err := server.Read(b); err != nil {
							return
						}
					}
				}()
				p := mustProxy(t, ProxyOptions{URL: url})
				start := time.Now()
				_, err := p.Open(t.Context(), start.Add(10*time.Second), "", dialled(client), ip4)
				checkError(t, err, reasonTimeout, true, 0)
				if took := time.Since(start); took != 10*time.Second {
					t.Errorf("Open took %v, want 10s", took)
				}
			})
		})
	}
}

// TestCancel has the caller give up while the proxy is silent.
func TestCancel(t *testing.T) {
	for _, url := range []string{"https://192.0.2.1", "h2://192.0.2.1", "socks5s://192.0.2.1"} {
		t.Run(url, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer server.Close()
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				start := time.Now()
				_, err := mustProxy(t, ProxyOptions{URL: url}).Open(ctx, start.Add(time.Minute), "", dialled(client), ip4)
				checkError(t, err, reasonTerminated, false, 0)
				if took := time.Since(start); took != time.Second {
					t.Errorf("Open took %v, want 1s", took)
				}
			})
		})
	}
}

func dialled(c net.Conn) DialFunc {
	return func(context.Context) (net.Conn, error) { return c, nil }
}

// TestDialError has no connection come about.
func TestDialError(t *testing.T) {
	near := &Error{Reason: reasonDenied, Proxy: "http://near:80", words: "does not allow far:1080"}
	for _, tt := range []struct {
		name   string
		err    error
		reason string
		server bool
	}{
		{"refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, reasonRefused, true},
		{"unreachable", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, reasonUnroutable, true},
		{"reset", syscall.ECONNRESET, reasonTerminated, true},
		{"timeout", context.DeadlineExceeded, reasonTimeout, true},
		{"cancelled", context.Canceled, reasonTerminated, false},
		{"other", errors.New("no such host"), reasonUnavailable, true},
		{"the proxy in front", fmt.Errorf("hop: %w", near), reasonDenied, true},
	} {
		for _, scheme := range []string{"http", "h2", "socks5"} {
			t.Run(scheme+", "+tt.name, func(t *testing.T) {
				p := mustProxy(t, ProxyOptions{URL: scheme + "://192.0.2.1:1"})
				_, err := p.Open(t.Context(), time.Time{}, "", func(context.Context) (net.Conn, error) { return nil, tt.err }, ip4)
				checkError(t, err, tt.reason, tt.server, 0)
				if !errors.Is(err, tt.err) {
					t.Errorf("Open: %v does not keep the cause %v", err, tt.err)
				}
			})
		}
	}
}

// TestUnusable asks for what a proxy cannot do; nothing is dialled.
func TestUnusable(t *testing.T) {
	for _, tt := range []struct {
		name, url string
		to        Destination
	}{
		{"IPv6 by SOCKS4", "socks4://192.0.2.1", ip6},
		{"IPv6 by SOCKS4a", "socks4a://192.0.2.1", ip6},
		{"a name by SOCKS4", "socks4://192.0.2.1", named},
		{"nothing", "socks5://192.0.2.1", Destination{Port: 80}},
		{"a name with a line end", "http://192.0.2.1", Destination{Host: "a\r\nX: y", Port: 80}},
		{"a name with a slash", "h2://192.0.2.1", Destination{Host: "a/b", Port: 80}},
		{"a name that is too long", "socks5://192.0.2.1", Destination{Host: strings.Repeat("a", 256), Port: 80}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := mustProxy(t, ProxyOptions{URL: tt.url}).Open(t.Context(), time.Time{}, "", nil, tt.to)
			checkError(t, err, reasonConfiguration, false, 0)
		})
	}
}
