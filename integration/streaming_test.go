package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An event must reach the client before the origin says anything more.
func TestEventStream(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	next := make(chan struct{})
	origin := tcpServer(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
		for i := range 3 {
			fmt.Fprintf(c, "9\r\ndata: %d\n\n\r\n", i)
			<-next
		}
		_, _ = io.WriteString(c, "0\r\n\r\n")
	})
	c := dial(t, g.at())
	say(t, c, "GET http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		hearBody(t, resp.Body, fmt.Sprintf("data: %d\n\n", i))
		next <- struct{}{}
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 {
		t.Errorf("behind the last event came %q, %v", rest, err)
	}
}

// hearBody is hear for a body.
func hearBody(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("the body goes on with %q, %v; want %q", got[:n], err, want)
	}
}

// An upload is not kept back either: the origin has the first half before the client sends the second.
func TestUploadStreams(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	heard := make(chan string)
	origin := tcpServer(t, func(c *net.TCPConn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		for b := make([]byte, 4); ; {
			if _, err := io.ReadFull(req.Body, b); err != nil {
				break
			}
			heard <- string(b)
		}
		_, _ = io.WriteString(c, okAnswer)
	})
	c := dial(t, g.at())
	say(t, c, "POST http://"+origin+"/ HTTP/1.1\r\nHost: "+origin+"\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, part := range []string{"half", "more", "last"} {
		say(t, c, "4\r\n"+part+"\r\n")
		if got := <-heard; got != part {
			t.Errorf("the origin heard %q, want %q", got, part)
		}
	}
	say(t, c, "0\r\n\r\n")
	if line := hearHead(t, c); line != "HTTP/1.1 200 OK" {
		t.Errorf("the answer is %q", line)
	}
}

// peakMemory returns VmHWM of a process in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

const gibibyte = 1 << 30

// nothings is an endless body.
type nothings struct{}

func (nothings) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestGibibyteDoesNotGrowMemory(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	bodies := map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	}
	const chunk = 1 << 20
	origin := tcpServer(t, func(c *net.TCPConn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		if req.Method == http.MethodPost {
			n, _ := io.Copy(io.Discard, req.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Got: %d\r\nContent-Length: 0\r\n\r\n", n)
			return
		}
		kind := req.URL.Path[1:]
		_, _ = io.WriteString(c, bodies[kind])
		if kind != "chunked" {
			_, _ = io.CopyN(c, nothings{}, gibibyte)
			return
		}
		data := append([]byte(fmt.Sprintf("%x\r\n", chunk)), make([]byte, chunk+2)...)
		copy(data[len(data)-2:], "\r\n")
		for range gibibyte / chunk {
			if _, err := c.Write(data); err != nil {
				return
			}
		}
		_, _ = io.WriteString(c, "0\r\n\r\n")
	})
	ask := func(request string, body func(c net.Conn)) *http.Response {
		c := dial(t, g.at())
		say(t, c, request)
		if body != nil {
			body(c)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	head := " HTTP/1.1\r\nHost: " + origin + "\r\nConnection: close\r\n"
	_ = ask("GET http://"+origin+"/nothing"+head+"\r\n", nil) // so that all is warm
	before := peakMemory(t, g.cmd.Process.Pid)
	for kind := range bodies {
		resp := ask("GET http://"+origin+"/"+kind+head+"\r\n", nil)
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != gibibyte {
			t.Errorf("%s: the body had %d bytes, %v", kind, n, err)
		}
	}
	resp := ask("POST http://"+origin+"/"+head+"Content-Length: 1073741824\r\n\r\n", func(c net.Conn) { _, _ = io.CopyN(c, nothings{}, gibibyte) })
	if got := resp.Header.Get("X-Got"); got != strconv.Itoa(gibibyte) {
		t.Errorf("the origin got %s bytes", got)
	}
	if grown := peakMemory(t, g.cmd.Process.Pid) - before; grown > 48<<20 {
		t.Errorf("the process has grown by %d MiB over bodies of 1 GiB", grown>>20)
	}
}

// newNginx runs Debian's nginx on a folder and returns its "host:port".
func newNginx(t *testing.T, root string) string {
	t.Helper()
	addr, dir := freeAddress(t, "127.0.0.1"), t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s/pid; error_log stderr;
events { worker_connections 512; }
http {
	access_log %[1]s/access.log; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	log_format connections '$connection'; access_log %[1]s/connections connections;
	keepalive_timeout 60s; keepalive_requests 10000; client_max_body_size 0; sendfile on; gzip on; gzip_proxied any; gzip_min_length 1; gzip_types text/plain;
	types { text/plain txt; } default_type application/octet-stream;
	server { listen %[2]s; root %[3]s; location /put { return 204; } }
}
`, dir, addr, root)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(need(t, "/usr/sbin/nginx"), "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf"))
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-exited
	})
	deadline := time.Now().Add(patience)
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr
		}
		select {
		case <-exited:
			t.Fatalf("nginx ended: %s", &stderr)
		case <-time.After(20 * time.Millisecond): // nothing tells when it listens
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen: %v", err)
		}
	}
}

func TestNginx(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere+allowLoopback)
	root := t.TempDir()
	const size = 256 << 20
	large, err := os.Create(filepath.Join(root, "large"))
	if err != nil {
		t.Fatal(err)
	}
	if err := large.Truncate(size); err != nil {
		t.Fatal(err)
	}
	large.Close()
	text := strings.Repeat("many small words ", 1000)
	if err := os.WriteFile(filepath.Join(root, "small.txt"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	origin := newNginx(t, root)
	c := dial(t, g.at())
	r := bufio.NewReader(c)
	get := func(method, path, fields string) (*http.Response, []byte) {
		t.Helper()
		say(t, c, method+" http://"+origin+path+" HTTP/1.1\r\nHost: "+origin+"\r\n"+fields+"\r\n")
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return resp, body
	}
	for i := range 50 { // all on one connection, on both sides
		if resp, body := get("GET", "/small.txt", ""); resp.StatusCode != 200 || string(body) != text {
			t.Fatalf("request %d: status %d, %d bytes", i, resp.StatusCode, len(body))
		}
	}
	if resp, body := get("GET", "/small.txt", "Accept-Encoding: gzip\r\n"); resp.Header.Get("Content-Encoding") != "gzip" || len(resp.TransferEncoding) != 1 || len(body) == 0 || len(body) >= len(text) {
		t.Errorf("with gzip: %v, %v, %d bytes", resp.Header, resp.TransferEncoding, len(body))
	}
	if resp, body := get("GET", "/large", "Range: bytes=1000-1999\r\n"); resp.StatusCode != 206 || len(body) != 1000 {
		t.Errorf("with a range: status %d, %d bytes", resp.StatusCode, len(body))
	}
	if resp, body := get("HEAD", "/large", ""); resp.ContentLength != size || len(body) != 0 {
		t.Errorf("HEAD: length %d, %d bytes", resp.ContentLength, len(body))
	}
	if resp, body := get("GET", "/large", ""); len(body) != size {
		t.Errorf("large file: status %d, %d bytes", resp.StatusCode, len(body))
	}
	resp, _ := get("GET", "/small.txt", "")
	if resp, _ := get("GET", "/small.txt", "If-None-Match: "+resp.Header.Get("ETag")+"\r\n"); resp.StatusCode != 304 {
		t.Errorf("with the ETag: status %d", resp.StatusCode)
	}
	if resp, _ := get("GET", "/no/such/file", ""); resp.StatusCode != 404 || resp.Header.Get("Proxy-Status") != "" {
		t.Errorf("what is not there: status %d, Proxy-Status %q", resp.StatusCode, resp.Header.Get("Proxy-Status"))
	}
	// Last, since nginx answers before it has read everything, and the connection ends with that.
	if resp, _ := get("PUT", "/put", "Transfer-Encoding: chunked\r\n\r\n100000\r\n"+strings.Repeat("x", 1<<20)+"\r\n0\r\n"); resp.StatusCode != 204 {
		t.Errorf("PUT: status %d", resp.StatusCode)
	}
}
