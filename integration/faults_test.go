package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cutter is an origin that reads one request, says something, waits until the client has heard it (nil is at
// once) and ends with a reset, or in order.
func cutter(t *testing.T, says string, withReset bool, heard <-chan struct{}) string {
	t.Helper()
	return tcpServer(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, says)
		if heard != nil {
			<-heard
		}
		if withReset {
			_ = c.SetLinger(0)
		}
	})
}

// A body that the origin cuts short is never made to look whole: the client misses bytes or the last
// chunk, or, where only the end of the connection could tell, sees a reset.
func TestCutAnswers(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	tests := []struct {
		name, says string
		body       string // what of the body comes through
		reset      bool   // whether the origin resets; else it closes
		version    string // of the client
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "half", false, "1.1"},
		{"length, reset", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "half", true, "1.1"},
		{"chunked, between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "half", false, "1.1"},
		{"chunked, in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n9\r\nsec", "halfsec", false, "1.1"},
		{"chunked, in a size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n9", "half", false, "1.1"},
		{"chunked, in the trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-A: 1\r\n", "half", false, "1.1"},
		{"chunked, reset", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "half", true, "1.1"},
		{"chunked, garbage", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n", "half", false, "1.1"},
		{"until the end, reset", "HTTP/1.1 200 OK\r\n\r\nhalf", "half", true, "1.1"},
		{"length, for HTTP/1.0", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", "half", false, "1.0"},
		{"chunked, for HTTP/1.0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "half", false, "1.0"},
		{"chunked garbage, for HTTP/1.0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n", "half", false, "1.0"},
		{"until the end, reset, for HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nhalf", "half", true, "1.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			heard := make(chan struct{})
			origin := cutter(t, tt.says, tt.reset, heard)
			c := dial(t, g.at())
			say(t, c, "GET http://"+origin+"/ HTTP/"+tt.version+"\r\nHost: "+origin+"\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			hearBody(t, resp.Body, tt.body)
			close(heard)
			if more, err := io.ReadAll(resp.Body); err == nil || len(more) > 0 {
				t.Errorf("behind %q came %q, and the client took that for whole (%v)", tt.body, more, resp)
			}
			l := g.record("target="+origin, "status=200")
			if r := l.str("reason"); r != "http_response_incomplete" && r != "http_response_transfer_coding" || l.str("err") == "" {
				t.Errorf("the record says %v, want a reason and an error", l)
			}
		})
	}
}

// Where an origin says nothing whole, the client gets a bad gateway and goes on.
func TestOriginsWithoutAnswer(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+"[timeouts]\nidle = \"700ms\"\nconnect = \"5s\"\n"+allowLoopback)
	closed := tcpServer(t, func(*net.TCPConn) {})
	tests := []struct {
		name, origin string
		status       int
		reason       string
	}{
		{"it closes", cutter(t, "", false, nil), 502, "connection_terminated"},
		{"it closes before it was asked", closed, 502, "connection_terminated"},
		{"it resets", cutter(t, "", true, nil), 502, "connection_terminated"},
		{"it closes within the head", cutter(t, "HTTP/1.1 200 OK\r\nContent-", false, nil), 502, "http_response_incomplete"},
		{"it closes behind a 100", cutter(t, "HTTP/1.1 100 Continue\r\n\r\n", false, nil), 502, "connection_terminated"},
		{"it speaks another protocol", cutter(t, "220 mail.example ESMTP\r\n", false, nil), 502, "http_protocol_error"},
		{"it never answers", tcpServer(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }), 504, "http_response_timeout"},
		{"it stops within the head", tcpServer(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"); _, _ = io.Copy(io.Discard, c) }), 504, "http_response_timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, g.at())
			r := bufio.NewReader(c)
			for range 2 { // the connection goes on
				say(t, c, "GET http://"+tt.origin+"/ HTTP/1.1\r\nHost: "+tt.origin+"\r\n\r\n")
				resp, err := http.ReadResponse(r, nil)
				for err == nil && resp.StatusCode == 100 {
					resp, err = http.ReadResponse(r, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				if want := "polyport; error=" + tt.reason; err != nil || resp.StatusCode != tt.status || resp.Header.Get("Proxy-Status") != want {
					t.Errorf("status %d, Proxy-Status %q, %v; want %d and %q", resp.StatusCode, resp.Header.Get("Proxy-Status"), err, tt.status, want)
				}
				page := strings.Fields(string(body)) // it ends with the session's id
				g.record("id="+page[len(page)-1], "target="+tt.origin, "reason="+tt.reason, fmt.Sprint("status=", tt.status))
			}
		})
	}
}

// An origin that stops in the middle of its body is given up, visibly.
func TestStalledAnswer(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+"[timeouts]\nidle = \"500ms\"\n"+allowLoopback)
	origin := tcpServer(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		_, _ = io.Copy(io.Discard, c)
	})
	c := dial(t, g.at())
	say(t, c, "GET http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err == nil || string(body) != "half" {
		t.Errorf("the client got %q, %v; want half of it and an error", body, err)
	}
	g.record("status=200", "reason=connection_read_timeout")
}

// What a client does not send to its end the origin must not take for whole.
func TestCutUploads(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	tests := []struct{ name, fields, body string }{
		{"length", "Content-Length: 100\r\n", "half"},
		{"chunked", "Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n"},
		{"chunked, in a chunk", "Transfer-Encoding: chunked\r\n", "100\r\nhalf"},
	}
	for _, tt := range tests {
		for _, how := range []string{"closes", "resets"} {
			t.Run(tt.name+", the client "+how, func(t *testing.T) {
				began, ended := make(chan struct{}), make(chan error, 1)
				origin := tcpServer(t, func(c *net.TCPConn) {
					req, err := http.ReadRequest(bufio.NewReader(c))
					if err != nil {
						ended <- err
						return
					}
					half := make([]byte, 4)
					_, _ = io.ReadFull(req.Body, half)
					close(began)
					_, err = io.Copy(io.Discard, req.Body)
					ended <- err
				})
				c := dial(t, g.at())
				say(t, c, "POST http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\n"+tt.fields+"\r\n"+tt.body)
				<-began
				if how == "resets" {
					_ = c.SetLinger(0)
				}
				c.Close()
				if err := <-ended; err == nil {
					t.Error("the origin took the body for whole")
				}
				if l := g.record("target=" + origin); l.str("err") == "" {
					t.Errorf("the record says %v, want an error", l)
				}
			})
		}
	}
}

// An origin that has heard enough may answer before the body has come, and close.
func TestAnswerBeforeTheBody(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	origin := cutter(t, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 6\r\nConnection: close\r\n\r\nenough", false, nil)
	c := dial(t, g.at())
	say(t, c, "POST http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\nContent-Length: 1000000000\r\n\r\n"+strings.Repeat("x", 1<<16))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 413 || string(body) != "enough" || !resp.Close {
		t.Errorf("the client got %d %q, %v; want 413, and the end", resp.StatusCode, body, err)
	}
}

// A client that goes away while the origin thinks frees the origin's connection.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	asked, gone := make(chan struct{}), make(chan struct{})
	origin := tcpServer(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		close(asked)
		_, _ = io.Copy(io.Discard, r)
		close(gone)
	})
	c := dial(t, g.at())
	say(t, c, "GET http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\n\r\n")
	<-asked
	_ = c.SetLinger(0)
	c.Close()
	<-gone
	g.record("target=" + origin)
}

// The access log on a full disk costs its lines and nothing else.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	g := start(t, "[log]\naccess_to = \"/dev/full\"\n"+listenAnywhere+allowLoopback)
	origin := helloServer(t)
	for range 3 {
		c := dial(t, g.at())
		say(t, c, "GET http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\nConnection: close\r\n\r\n")
		if got := answers(t, c); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("the answer is %q", got)
		}
	}
	isFault := func(l logLine) bool { return strings.HasPrefix(l.str("msg"), "the access log cannot be written") }
	if l := g.wait("that lines are lost", isFault); !strings.Contains(l.str("err"), "no space left") || l.str("level") != "ERROR" {
		t.Errorf("the log says %v", l)
	}
	path := g.dir + "/access.log"
	if l := g.reload("[log]\naccess_to = \"" + path + "\"\n" + listenAnywhere + allowLoopback); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	c := tunnel(t, g.at(), tcpServer(t, echo))
	_ = c.CloseWrite()
	answers(t, c)
	if lines := waitForLines(t, path, 1); !strings.Contains(lines[0], `"protocol":"connect"`) {
		t.Errorf("the new log holds %q", lines)
	}
	if n := strings.Count(g.log(), "the access log cannot be written"); n != 1 {
		t.Errorf("the fault was logged %d times, want once", n)
	}
}

// waitForLines waits until a file has at least n whole lines and returns them.
func waitForLines(t *testing.T, path string, n int) []string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // nothing tells when a line is written
		content, err := os.ReadFile(path)
		if strings.Count(string(content), "\n") >= n {
			return strings.Split(strings.TrimSuffix(string(content), "\n"), "\n")
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s holds %q (%v), want %d lines", path, content, err, n)
		}
	}
}

// TestLogRotation moves the log away, as logrotate does, and sends SIGHUP.
func TestLogRotation(t *testing.T) {
	t.Parallel()
	config := "[log]\naccess_to = \"access.log\"\n" + listenAnywhere + allowLoopback
	g := start(t, config)
	path := filepath.Join(g.dir, "access.log")
	target := tcpServer(t, echo)
	use := func() {
		c := tunnel(t, g.at(), target)
		_ = c.CloseWrite()
		answers(t, c)
	}
	use()
	waitForLines(t, path, 1)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o027 != 0 {
		t.Errorf("the log's mode is %v (%v), want at most 0640", info.Mode(), err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	use() // still into the old file
	waitForLines(t, path+".1", 2)
	if l := g.reload(config); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	use()
	var ids []string
	for _, line := range append(waitForLines(t, path, 1), waitForLines(t, path+".1", 2)...) {
		l := logLine{}
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.str("protocol") != "connect" {
			t.Errorf("the line %q: %v", line, err)
		}
		ids = append(ids, l.str("id"))
	}
	if len(ids) != 3 || ids[0] == ids[1] || ids[1] == ids[2] {
		t.Errorf("the logs hold the sessions %q, want three", ids)
	}
}

// TestUsersChange replaces the file of users while the gateway runs.
func TestUsersChange(t *testing.T) {
	t.Parallel()
	g := prepare(t, "[auth]\nhtpasswd = \"users\"\n[auth.lockout]\nfailures = 0\n"+listenAnywhere+allowLoopback)
	mustSay(t, polyport(t, g.dir, "correct horse\n", "user", "add", "--htpasswd", "users", "alice"), 0)
	g.run()
	g.waitListening(1)
	origin := helloServer(t)
	status := func(login string) string {
		return run(t, "curl", "-q", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-x", "http://"+g.at(), "-U", login, "http://"+origin+"/").stdout
	}
	if got := status("alice:correct horse"); got != "200" {
		t.Fatalf("alice got %s, want 200", got)
	}
	g.write("users", "alice:in the clear\nbob\n")
	for deadline := time.Now().Add(patience); !strings.Contains(g.log(), "users:2"); { // the file is looked at when somebody logs in
		if got := status("alice:correct horse"); got != "200" || time.Now().After(deadline) {
			t.Fatalf("with a broken file alice got %s, and the log says %s", got, g.log())
		}
	}
	for _, want := range []string{"users:1", "users:2", `\"alice\"`} {
		if !strings.Contains(g.log(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	if strings.Contains(g.log(), "in the clear") {
		t.Error("the log holds what stood where the hash should stand")
	}
	if err := os.Remove(filepath.Join(g.dir, "users")); err != nil {
		t.Fatal(err)
	}
	mustSay(t, polyport(t, g.dir, "another horse\n", "user", "add", "--htpasswd", "users", "carol"), 0)
	deadline := time.Now().Add(patience)
	for status("carol:another horse") != "200" {
		if time.Now().After(deadline) {
			t.Fatal("the new user is not known")
		}
	}
	if got := status("alice:correct horse"); got != "407" {
		t.Errorf("alice, who is gone, got %s, want 407", got)
	}
	if n := strings.Count(g.log(), "users:1"); n != 1 {
		t.Errorf("the broken file was logged %d times, want once", n)
	}
}

// A fault of one session is that session's alone.
func TestFaultsLeaveOthersAlone(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	held := tunnel(t, g.at(), tcpServer(t, echo))
	before := g.descriptors()
	broken := cutter(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", true, nil)
	for i := range 50 {
		c := dial(t, g.at())
		say(t, c, []string{
			"GET http://" + broken + "/ HTTP/1.1\r\nHost: " + broken + "\r\n\r\n",
			"GET http://" + broken + "/ HTTP/1.1\r\nHost: a b\r\n\r\n",
			"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n",
			"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x01",
			"\x16\x03\x01\x00\x05hello",
		}[i%5])
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}
	say(t, held, fmt.Sprint("still here, ", before > 0))
	hear(t, held, "still here, true")
	g.settle(before)
}
