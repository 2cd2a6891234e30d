package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
)

// get is a request in absolute-form for a path at the open place.
func (st *stage) get(path string, fields ...string) string {
	host := fmt.Sprintf("127.0.0.1:%d", st.open.port)
	return "GET http://" + host + path + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

// hearRequest reads a request head at the origin.
func hearRequest(t *testing.T, c net.Conn, begins string) {
	t.Helper()
	if line := hearHead(t, c); !strings.HasPrefix(line, begins) {
		t.Fatalf("the origin was asked %q, want %q", line, begins)
	}
}

// hearResponse reads a response head and says whether it has a field line.
func hearResponse(t *testing.T, c net.Conn, begins string, lines ...string) {
	t.Helper()
	head := hearAll(t, c, "\r\n\r\n")
	if !strings.HasPrefix(head, begins) {
		t.Fatalf("the response head is %q, want %q", head, begins)
	}
	for _, l := range lines {
		if !strings.Contains(head, "\r\n"+l+"\r\n") {
			t.Errorf("the response head %q lacks %q", head, l)
		}
	}
}

// ended reads a connection to its end and wants nothing more on it.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if rest, err := io.ReadAll(c); err != nil || len(rest) != 0 {
		t.Errorf("at the end came %q, %v; want nothing", rest, err)
	}
}

func TestExchanges(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	sockets := st.g.sockets()
	for _, sc := range []struct {
		name string
		play func(*testing.T, *stage)
	}{
		{"kept alive on both sides", playKeptAlive},
		{"pipelined", playPipelined},
		{"client ends first", playRequestThenEnd},
		{"a body that ends with the connection", playUntilClose},
		{"byte by byte", playSlowExchange},
		{"origin resets in the middle of a body", playCutBody},
		{"client goes away in the middle of a body", playGoneClient},
	} {
		t.Run(sc.name, func(t *testing.T) { sc.play(t, st) })
	}
	if l := st.g.reload(st.config); l.str("msg") != "reloaded" { // lets go of idle connections to origins
		t.Fatalf("reload: %v", l)
	}
	st.g.settleSockets(sockets)
}

func playKeptAlive(t *testing.T, st *stage) {
	c := dial(t, st.g.at())
	say(t, c, st.get("/one"))
	origin := take(t, st.served)
	hearRequest(t, origin, "GET /one HTTP/1.1")
	say(t, origin, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
	hearResponse(t, c, "HTTP/1.1 200 ")
	hear(t, c, "one")
	say(t, c, st.get("/two"))
	hearRequest(t, origin, "GET /two HTTP/1.1") // on the same connection
	say(t, origin, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
	hearResponse(t, c, "HTTP/1.1 404 ")
	for path, status := range map[string]float64{"one": 200, "two": 404} {
		host := fmt.Sprintf("127.0.0.1:%d", st.open.port)
		l := st.g.record("client="+c.LocalAddr().String(), "url=http://"+host+"/"+path)
		check(t, l, map[string]any{
			"protocol": "http", "method": "GET", "version": "HTTP/1.1", "status": status, "target": host, "address": host, "rule": "test servers", "reason": "",
		})
	}
}

func playPipelined(t *testing.T, st *stage) {
	c := dial(t, st.g.at())
	say(t, c, st.get("/slow")+st.get("/fast", "Connection: close"))
	origin := take(t, st.served)
	hearRequest(t, origin, "GET /slow HTTP/1.1")
	say(t, origin, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
	hearResponse(t, c, "HTTP/1.1 200 ")
	say(t, origin, "slow")
	hear(t, c, "slow")
	hearRequest(t, origin, "GET /fast HTTP/1.1")
	say(t, origin, "HTTP/1.1 203 OK\r\nContent-Length: 4\r\n\r\nfast")
	hearResponse(t, c, "HTTP/1.1 203 ", "Connection: close")
	hear(t, c, "fast")
	ended(t, c)
}

// playRequestThenEnd has a client that closes its side behind the request, as some
// scripts do; it still gets its whole answer.
func playRequestThenEnd(t *testing.T, st *stage) {
	c := dial(t, st.g.at())
	asked := st.get("/")
	say(t, c, asked)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	origin := take(t, st.served)
	hearRequest(t, origin, "GET / HTTP/1.1")
	say(t, origin, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nfirst, ")
	hearResponse(t, c, "HTTP/1.1 200 ")
	hear(t, c, "first, ")
	say(t, origin, "!")
	hear(t, c, "!")
	ended(t, c)
	check(t, st.g.record("client="+c.LocalAddr().String()), map[string]any{"status": 200.0, "reason": "", "bytes_from_client": float64(len(asked))})
}

// old makes a request one of HTTP/1.0.
func old(request string) string { return strings.Replace(request, "HTTP/1.1", "HTTP/1.0", 1) }

func playUntilClose(t *testing.T, st *stage) {
	c := dial(t, st.g.at())
	say(t, c, old(st.get("/")))
	origin := take(t, st.served)
	hearRequest(t, origin, "GET / HTTP/1.1")
	say(t, origin, "HTTP/1.0 200 OK\r\n\r\nas long as ")
	head := hearAll(t, c, "\r\n\r\n")
	hear(t, c, "as long as ")
	say(t, origin, "it lasts")
	hear(t, c, "it lasts")
	origin.Close()
	ended(t, c)
	check(t, st.g.record("client="+c.LocalAddr().String()), map[string]any{
		"status": 200.0, "reason": "", "bytes_from_target": float64(len(head) + len("as long as it lasts")),
	})
}

func playSlowExchange(t *testing.T, st *stage) {
	c := dial(t, st.g.at())
	host := fmt.Sprintf("127.0.0.1:%d", st.open.port)
	asked := "POST http://" + host + "/ HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
	body := "5\r\nfirst\r\n1;note=x\r\n!\r\n0\r\nX-Sum: 6\r\n\r\n"
	byteByByte(t, c, []byte(asked))
	origin := take(t, st.served)
	hearRequest(t, origin, "POST / HTTP/1.1")
	byteByByte(t, c, []byte(body))
	got := hearAll(t, origin, "\r\n\r\n")
	if data := strings.Join(strings.Split(got, "\r\n"), "|"); !strings.HasSuffix(got, "0\r\nX-Sum: 6\r\n\r\n") || !strings.Contains(data, "!") {
		t.Errorf("the origin got the body %q", got)
	}
	byteByByte(t, origin, []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nslow\r\n0\r\n\r\n"))
	hearResponse(t, c, "HTTP/1.1 200 ", "Transfer-Encoding: chunked")
	if body := hearAll(t, c, "0\r\n\r\n"); strings.Map(onlyLetters, body) != "slow" {
		t.Errorf("the client got the body %q", body)
	}
	ended(t, c)
	check(t, st.g.record("client="+c.LocalAddr().String()), map[string]any{
		"method": "POST", "status": 200.0, "reason": "", "bytes_from_client": float64(len(asked) + len(body)),
	})
}

func onlyLetters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

// playCutBody has an origin that breaks off; the client must not take what it got for the whole.
func playCutBody(t *testing.T, st *stage) {
	for _, tt := range []struct{ name, request, framing, comes string }{
		{"length", st.get("/"), "Content-Length: 100", "4\r\nhalf\r\n"},
		{"chunked", st.get("/"), "Transfer-Encoding: chunked", "4\r\nhalf\r\n"},
		{"until close", st.get("/"), "X-Framing: none", "9\r\n4\r\nhalf\r\n\r\n"}, // becomes chunked
		{"until close, to a client of HTTP/1.0", old(st.get("/")), "X-Framing: none", "4\r\nhalf\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, st.g.at())
			say(t, c, tt.request)
			origin := take(t, st.served)
			hearRequest(t, origin, "GET / HTTP/1.1")
			say(t, origin, "HTTP/1.1 200 OK\r\n"+tt.framing+"\r\n\r\n4\r\nhalf\r\n")
			hearResponse(t, c, "HTTP/1.1 200 ")
			hear(t, c, tt.comes)
			if err := errors.Join(origin.SetLinger(0), origin.Close()); err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(c)
			if strings.Contains(string(rest), "0\r\n") || strings.Contains(tt.request, "HTTP/1.0") && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the cut body ends with %q, %v, as if it were whole", rest, err)
			}
			check(t, st.g.record("client="+c.LocalAddr().String()), map[string]any{"status": 200.0, "reason": "http_response_incomplete"})
		})
	}
}

// playGoneClient has a client that does not want the rest; the origin hears of it.
func playGoneClient(t *testing.T, st *stage) {
	c := dial(t, st.g.at())
	say(t, c, st.get("/"))
	origin := take(t, st.served)
	hearRequest(t, origin, "GET / HTTP/1.1")
	say(t, origin, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nthe first of many")
	hearResponse(t, c, "HTTP/1.1 200 ")
	hear(t, c, "the first of many")
	if err := errors.Join(c.SetLinger(0), c.Close()); err != nil {
		t.Fatal(err)
	}
	for err := error(nil); err == nil; { // until the gateway has closed
		_, err = origin.Write(make([]byte, 64<<10))
	}
	l := st.g.record("client=" + c.LocalAddr().String())
	if l.str("err") == "" {
		t.Errorf("the record does not say what went wrong: %v", l)
	}
}

func TestExchangeOutlivesAReload(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	c := dial(t, st.g.at())
	say(t, c, st.get("/"))
	origin := take(t, st.served)
	hearRequest(t, origin, "GET / HTTP/1.1")
	say(t, origin, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nbefore")
	hearResponse(t, c, "HTTP/1.1 200 ")
	hear(t, c, "before")
	if l := st.g.reload(listenBoth + "[[rule]]\nname = \"nobody\"\naction = \"deny\"\n"); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	say(t, origin, "after")
	hear(t, c, "after")
	say(t, c, st.get("/", "Connection: close"))
	hearResponse(t, c, "HTTP/1.1 403 ", "Connection: close")
	check(t, st.g.record("status=200"), map[string]any{"rule": "test servers", "reason": ""})
	check(t, st.g.record("status=403"), map[string]any{"rule": "nobody", "reason": "rule", "client": c.LocalAddr().String()})
}

func TestExchangeOutlivesAShutdown(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	c := dial(t, st.g.at())
	say(t, c, st.get("/"))
	origin := take(t, st.served)
	hearRequest(t, origin, "GET / HTTP/1.1")
	say(t, origin, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nbefore")
	hearResponse(t, c, "HTTP/1.1 200 ")
	hear(t, c, "before")
	st.g.signal(syscall.SIGTERM)
	st.g.wait("the beginning of the end", func(l logLine) bool { return l.str("msg") == "shutting down" })
	say(t, origin, "after")
	hear(t, c, "after")
	ended(t, c)
	<-st.g.exited
	if st.g.status != nil {
		t.Errorf("polyport ended with %v", st.g.status)
	}
	check(t, st.g.record("status=200"), map[string]any{"rule": "test servers", "reason": "", "client": c.LocalAddr().String()})
}
