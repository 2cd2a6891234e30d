package integration

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/miekg/dns"
)

// sightImages is how many images the page loads from each of its two servers.
const sightImages = 40

// fileSize is that of the download, in bytes.
const fileSize = 16 << 20

//go:embed testdata/browser.html
var sightHTML string

// sight is a web site with everything that browsers do through a proxy, and what
// the browser reports to have seen.
type sight struct {
	plain, secure string // "host:port", by a name that only the gateway can resolve
	reports       chan map[string]any
	sum           string // of the file
	ca            string // the file of the root that the site's certificate is of
}

// siteName resolves to 127.0.0.1 for whoever asks the test's name server.
const siteName = "site.test"

// newSight starts the site.
func newSight(t *testing.T) *sight {
	t.Helper()
	s := &sight{reports: make(chan map[string]any, 1), sum: hashOf(fileBytes())}
	mux := http.NewServeMux()
	plain, secure := httptest.NewServer(mux), httptest.NewUnstartedServer(mux)
	cert, ca := certificate(t, siteName)
	s.ca, secure.TLS, secure.EnableHTTP2 = ca, &tls.Config{Certificates: []tls.Certificate{cert}}, true
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // Chromium opens more connections than it keeps
	secure.StartTLS()
	t.Cleanup(func() { plain.Close(); secure.Close() })
	s.plain, s.secure = named(t, plain.Listener), named(t, secure.Listener)
	page := template.Must(template.New("page").Parse(sightHTML))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_ = page.Execute(w, map[string]any{"Secure": s.secure, "Images": sightImages}) // fails only if the browser goes
	})
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css")
		fmt.Fprint(w, "#styled { color: rgb(1, 2, 3) }")
	})
	mux.HandleFunc("GET /image/{name}", serveImage)
	mux.HandleFunc("POST /mirror", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // the page compares it
		_, _ = w.Write(body)
	})
	mux.HandleFunc("GET /echo", webSocketEcho)
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Disposition", `attachment; filename="file.bin"`)
		w.Header().Set("Content-Length", strconv.Itoa(fileSize))
		_, _ = io.Copy(w, fileBytes())
	})
	mux.HandleFunc("POST /result", func(_ http.ResponseWriter, r *http.Request) {
		var seen map[string]any
		if err := json.NewDecoder(r.Body).Decode(&seen); err != nil {
			seen = map[string]any{"fault": err.Error()}
		}
		s.reports <- seen
	})
	return s
}

func named(t *testing.T, l net.Listener) string {
	t.Helper()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(siteName, port)
}

// serveImage serves one that is as many pixels wide as its name says.
func serveImage(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(strings.TrimSuffix(r.PathValue("name"), ".png"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "image/png")
	w.Header().Set("Cache-Control", "no-store")
	_ = png.Encode(w, image.NewGray(image.Rect(0, 0, n, 1))) // fails only if the browser goes
}

// fileBytes is what the download holds: nothing that could be compressed or guessed.
func fileBytes() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{16}), fileSize) }

func hashOf(r io.Reader) string {
	h := sha256.New()
	_, _ = io.Copy(h, r) // the checksum of what was read tells
	return hex.EncodeToString(h.Sum(nil))
}

// nameServer knows every name below test, at 127.0.0.1, and no other. It returns its address.
func nameServer(t *testing.T) string {
	t.Helper()
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: socket, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		switch q := q.Question[0]; {
		case !dns.IsSubDomain("test.", q.Name):
			a.Rcode = dns.RcodeNameError
		case q.Qtype == dns.TypeA:
			head := dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
			a.Answer = []dns.RR{&dns.A{Hdr: head, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(a)
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	t.Cleanup(func() { socket.Close(); <-ended })
	return socket.LocalAddr().String()
}

// tour has the browser look at the site, and download from it.
func (s *sight) tour(t *testing.T, b *browser) {
	t.Helper()
	if err := b.visit("http://" + s.plain + "/"); err != nil {
		t.Fatalf("the browser says %v", err)
	}
	want := map[string]any{
		"style": "rgb(1, 2, 3)", "plain": float64(sightImages), "overTLS": float64(sightImages), "mirror": true,
		"ws": "echoed, closed with 1000", "wss": "echoed, closed with 1000",
	}
	select {
	case seen := <-s.reports:
		for key, w := range want {
			if seen[key] != w {
				t.Errorf("the page reports %s as %v, want %v (all of it: %v)", key, seen[key], w, seen)
			}
		}
	case <-time.After(patience):
		t.Fatalf("the page reports nothing; its text is %q", b.evaluate("document.body.innerText"))
	}
	file, err := os.ReadFile(b.download("http://"+s.plain+"/file", "file.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if got := hashOf(bytes.NewReader(file)); got != s.sum {
		t.Errorf("the download has %d bytes with the checksum %s, want %d and %s", len(file), got, fileSize, s.sum)
	}
}

// browsing is the configuration for browsers.
func browsing(t *testing.T) string {
	t.Helper()
	return listenAnywhere + "[dns]\nservers = [\"udp://" + nameServer(t) + "\"]\n" + allowLoopback
}

// connections waits for n sessions of a row that did not fail and returns from
// how many connections of clients they came.
func (g *gateway) connections(row string, n int) int {
	g.t.Helper()
	clients := map[string]bool{}
	g.wait(fmt.Sprintf("%d sessions of %s", n, row), func(l logLine) bool {
		if l.str("msg") == "session end" && l.str("protocol") == row && strings.HasPrefix(l.str("target"), siteName) && l.str("err") == "" {
			n--
			clients[l.str("client")] = true
		}
		return n == 0
	})
	return len(clients)
}

func TestChromium(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		args func(proxy string) []string
		row  string // that the page and its images come by
		n    int    // sessions of it, at least
	}{
		{"http proxy", func(proxy string) []string { return []string{"--proxy-server=http://" + proxy} }, "http", sightImages + 4},
		{"socks5 proxy", func(proxy string) []string { return []string{"--proxy-server=socks5://" + proxy} }, "socks5", 6},
		{"pac file", func(proxy string) []string { return []string{"--proxy-pac-url=http://" + proxy + "/proxy.pac"} }, "socks5", 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, site := start(t, browsing(t)), newSight(t)
			b := startBrowser(t, tt.args(g.at())...)
			site.tour(t, b)
			b.quit() // its tunnels end with it
			got := g.connections(tt.row, tt.n)
			if got < 2 || tt.row == "http" && got > tt.n/2 {
				t.Errorf("%d sessions came over %d connections, want several connections, each used again", tt.n, got)
			}
			if tt.row == "http" {
				g.connections("connect", 2) // WebSockets and TLS
			}
		})
	}
}

// trustingHome makes a home folder whose owner trusts CAs, as "polyport cert" says how.
func trustingHome(t *testing.T, cas ...string) string {
	t.Helper()
	home := t.TempDir()
	folder := filepath.Join(home, ".pki", "nssdb")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	database := "sql:" + folder
	mustSay(t, run(t, "certutil", "-d", database, "-N", "--empty-password"), 0)
	for i, ca := range cas {
		mustSay(t, run(t, "certutil", "-d", database, "-A", "-t", "C,,", "-n", fmt.Sprintf("CA %d", i), "-i", ca), 0)
	}
	return home
}

// TestChromiumByTLS has the browser speak TLS to the gateway: by ALPN that is HTTP/2, with everything on one connection.
func TestChromiumByTLS(t *testing.T) {
	t.Parallel()
	p, site := newPapers(t), newSight(t)
	g := start(t, browsing(t)+p.table())
	_, port, err := net.SplitHostPort(g.at())
	if err != nil {
		t.Fatal(err)
	}
	proxy := []string{"--proxy-server=https://" + ownName + ":" + port, "--host-resolver-rules=MAP " + ownName + " 127.0.0.1"}
	b := startStrictBrowser(t, trustingHome(t, p.ca(), site.ca), proxy...)
	site.tour(t, b)
	b.quit()                                                  // its tunnels end with it
	if got := g.connections("http", sightImages+4); got > 2 { // Chromium has one for each kind of request
		t.Errorf("%d requests came over %d connections, want one or two", sightImages+4, got)
	}
	tunnels := map[string]int{}
	g.wait("tunnels that share a connection of HTTP/2", func(l logLine) bool { // which Chromium ends by RST_STREAM
		if l.str("msg") != "session end" || l.str("protocol") != "connect" || !strings.HasPrefix(l.str("target"), siteName) {
			return false
		}
		check(t, l, map[string]any{"version": "HTTP/2", "tls": "TLS 1.3", "server_name": ownName, "status": 200.0})
		tunnels[l.str("connection")]++
		return tunnels[l.str("connection")] > 1
	})

	stranger := startStrictBrowser(t, trustingHome(t, site.ca), proxy...)
	if err := stranger.visit("http://" + site.plain + "/"); err == nil || !strings.HasPrefix(err.Error(), "net::ERR_PROXY_CERTIFICATE_INVALID") {
		t.Errorf("a browser that does not know the CA ended its visit with %v", err)
	}
}

func TestChromiumLogsIn(t *testing.T) {
	t.Parallel()
	config := browsing(t) + "[auth]\nhtpasswd = \"users.htpasswd\"\n"
	g := prepare(t, config)
	g.addUser("alice", "correct horse")
	g.run()
	g.waitListening(1)
	site, b := newSight(t), startBrowser(t, "--proxy-server=http://"+g.at())
	asked := make(chan string, 16)
	b.answerChallenges(func(realm string) (string, string, bool) {
		asked <- realm
		if len(asked) == 1 {
			return "alice", "a typing error", true
		}
		return "alice", "correct horse", true
	})
	site.tour(t, b)
	if len(asked) != 2 || <-asked == "" {
		t.Errorf("the browser was asked %d times for a user, want 2: once more after the wrong password, and never again", len(asked))
	}
	g.record("protocol=http", "status=407")
	g.record("protocol=http", "status=200", "identity=alice")
	g.record("protocol=connect", "status=200", "identity=alice")
	failed := g.wait("the failed login", func(l logLine) bool { return l.str("msg") == "authentication failed" })
	if failed.str("user") != "alice" || strings.Contains(g.log(), "typing error") {
		t.Errorf("the failed login is logged as %v", failed)
	}
}

func TestChromiumShowsTheHelpPage(t *testing.T) {
	t.Parallel()
	g := start(t, listenAnywhere)
	b := startBrowser(t, "--no-proxy-server")
	if err := b.visit("http://" + g.at() + "/"); err != nil {
		t.Fatal(err)
	}
	loaded := "new Promise((done) => document.readyState === 'complete' ? done(document.title) : addEventListener('load', () => done(document.title)))"
	if got, want := b.evaluate(loaded), "This is a proxy: "+g.at(); got != want {
		t.Errorf("the title is %q, want %q", got, want)
	}
	// The page's policy admits one style sheet, by its hash. Without it there is no measure.
	if got := b.evaluate("getComputedStyle(document.body).maxWidth"); got == "none" || got == "" {
		t.Errorf("the help page has no style: max-width is %q", got)
	}
	if got := b.evaluate("document.body.innerText"); !strings.Contains(got, "curl -x socks5h://"+g.at()) {
		t.Errorf("the help page reads %q", got)
	}
}

// addUser has polyport write a user into the file beside the configuration.
func (g *gateway) addUser(name, password string) {
	g.t.Helper()
	cmd := command(g.t, binary, "user", "add", "--htpasswd", g.dir+"/users.htpasswd", name)
	cmd.Stdin = strings.NewReader(password + "\n")
	if out := finish(g.t, cmd); out.code != 0 {
		g.t.Fatalf("user add ended with %d: %s", out.code, out.stderr)
	}
}
