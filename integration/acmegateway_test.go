package integration

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"polyport/internal/acme"
)

// certifiedHost is where the gateways of these tests listen: like pebbleHost, an address at which a free port stays free.
const certifiedHost = "127.0.7.2"

// certified is a gateway's place: an address known beforehand, at which a CA looks for every challenge, and a storage.
type certified struct {
	t       *testing.T
	at      string // "host:port"
	port    int
	storage string
	ca      *pebble
}

// newCertified finds a place and starts a CA.
func newCertified(t *testing.T, settings ...func(map[string]any)) *certified {
	t.Helper()
	c := &certified{t: t, at: freeAddress(t, certifiedHost), storage: filepath.Join(t.TempDir(), "acme")}
	_, port, _ := net.SplitHostPort(c.at)
	c.port, _ = strconv.Atoi(port)
	c.ca = startPebbleFor(t, certifiedHost, c.port, c.port, settings...)
	return c
}

// listen is the listener, with further keys of its own.
func (c *certified) listen(more string) string {
	return fmt.Sprintf("[listen.main]\naddress = [%q]\n%s\n", c.at, more)
}

// table asks for certificates of names, with further keys of its own.
func (c *certified) table(more string, names ...string) string {
	return acmeTable(c.ca.directory, c.ca.rootFile, c.storage, more, names...)
}

func acmeTable(directory, directoryCA, storage, more string, names ...string) string {
	return fmt.Sprintf("[tls.acme]\nnames = [\"%s\"]\ndirectory = %q\ndirectory_ca = %q\nstorage = %q\naccept_terms = true\n%s\n",
		strings.Join(names, `", "`), directory, directoryCA, storage, more)
}

// serial returns the number of the certificate that a client of name is shown, or the error.
func (c *certified) serial(name string) string {
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: &tls.Config{ServerName: name, RootCAs: c.ca.issued}}
	conn, err := d.Dial("tcp", c.at)
	if err != nil {
		return "error: " + err.Error()
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// wait waits until name has a certificate, and returns its number.
func (c *certified) wait(name string) (serial string) {
	c.t.Helper()
	eventually(c.t, "certificate of "+name, "there", slowly(func() string {
		if serial = c.serial(name); strings.HasPrefix(serial, "error: ") {
			return serial
		}
		return "there"
	}))
	return serial
}

// curl goes by TLS to the gateway, under a name of its own.
func (c *certified) curl(name, user string, args ...string) output {
	c.t.Helper()
	got, _ := curl(c.t, append([]string{
		"--resolve", fmt.Sprintf("%s:%d:%s", name, c.port, certifiedHost), "--proxy", fmt.Sprintf("https://%s%s:%d", user, name, c.port), "--proxy-cacert", c.ca.issuedFile,
	}, args...)...)
	return got
}

// serves wants a page by TLS to the gateway.
func (c *certified) serves(w *web, name, user string) {
	c.t.Helper()
	for _, way := range [][]string{nil, {"--proxytunnel"}} {
		if got := c.curl(name, user, append(way, "http://"+w.plain+"/")...); got.code != 0 || !strings.HasPrefix(got.stdout, "hello from ") {
			c.t.Errorf("curl by https://%s %v ended with %d and printed %q, %q", name, way, got.code, got.stdout, got.stderr)
		}
	}
}

// stopAndWait ends a gateway before its test does.
func (g *gateway) stopAndWait() {
	g.t.Helper()
	g.stop()
	select {
	case <-g.exited:
	default:
		g.t.Fatal("the gateway does not end")
	}
}

// TestACMEOnTheGatewaysPort has a CA come to the one port by each way, past users, rules and client certificates. What it gave
// is served at once by the next process, without the CA.
func TestACMEOnTheGatewaysPort(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{acme.TLSALPN01, acme.HTTP01} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			c, w := newCertified(t), newWeb(t)
			names := []string{"one." + challenge + ".test", "two." + challenge + ".test"}
			config := c.listen("help_page = false\nrequire_user = true") + c.table(fmt.Sprintf("challenges = [%q]", challenge), names...) +
				"[auth]\nhtpasswd = \"users.htpasswd\"\n[[rule]]\nname = \"closed\"\naction = \"deny\"\nprotocol = [\"tls\"]\n" + allowLoopback
			g := prepare(t, config)
			g.addUser(clubUser, clubPassword)
			g.run()
			g.waitListening(1)
			serials := map[string]string{}
			for _, name := range names {
				serials[name] = c.wait(name)
				c.serves(w, name, clubLogin)
			}
			if challenge == acme.HTTP01 {
				l := g.wait("a challenge that is answered", func(l logLine) bool {
					return strings.HasPrefix(l.str("url"), "/.well-known/acme-challenge/") && l.num("status") == 200
				})
				check(t, l, map[string]any{"protocol": "http", "method": "GET", "identity": "", "reason": "", "tls": ""})
			} else {
				check(t, g.record("reason=acme_challenge"), map[string]any{"protocol": "tls", "identity": "", "address": "", "err": ""})
			}
			for _, path := range []string{"/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/x", "/.well-known/acme-challenge/../x"} {
				got, _ := curl(t, "--path-as-is", "-w", "%{http_code}", "-o", "/dev/null", "--resolve", fmt.Sprintf("%s:%d:%s", names[0], c.port, certifiedHost),
					fmt.Sprintf("http://%s:%d%s", names[0], c.port, path))
				if got.stdout != "400" {
					t.Errorf("GET %s is answered with %q, %q; want 400", path, got.stdout, got.stderr)
				}
			}
			g.stopAndWait()

			c.ca.kill()
			again := prepare(t, config)
			again.addUser(clubUser, clubPassword)
			again.run()
			again.waitListening(1)
			for _, name := range names {
				if got := c.serial(name); got != serials[name] {
					t.Errorf("after a restart %s has %s, want %s at once", name, got, serials[name])
				}
				c.serves(w, name, clubLogin)
			}
			if log := again.log(); strings.Contains(log, "certificate obtained") || strings.Contains(log, `"level":"WARN","msg":"acme`) {
				t.Errorf("after a restart the CA was asked: %s", log)
			}
			checkStorageModes(t, c.storage)
		})
	}
}

// TestACMEWithClientCertificates: a CA has none to show.
func TestACMEWithClientCertificates(t *testing.T) {
	t.Parallel()
	c, w, p := newCertified(t), newWeb(t), newPapers(t)
	alice := p.client("alice")
	g := start(t, c.listen("require_tls = true")+c.table("", "strict.test")+p.clientTable("client_certificate = \"require\"\n")+allowLoopback)
	g.wait("the certificate", func(l logLine) bool { return l.str("msg") == "certificate obtained" && l.str("name") == "strict.test" })
	eventually(t, "curl with a certificate", "hello", slowly(func() string {
		got := c.curl("strict.test", "", append(alice.curl(), "http://"+w.plain+"/")...)
		if strings.HasPrefix(got.stdout, "hello from ") {
			return "hello"
		}
		return got.stdout + got.stderr
	}))
	if got := c.curl("strict.test", "", "http://"+w.plain+"/"); got.code == 0 {
		t.Errorf("without a certificate curl printed %q", got.stdout)
	}
	// Outside of TLS nobody is served, so that challenge is not even tried.
	if log := g.log(); strings.Contains(log, "/.well-known/") || strings.Contains(log, `"msg":"acme: `) {
		t.Errorf("the CA was offered http-01, which cannot be answered: %s", log)
	}
}

// TestACMEReload adds ACME, a name, and takes all away. Clients notice nothing of it.
func TestACMEReload(t *testing.T) {
	t.Parallel()
	c, w := newCertified(t), newWeb(t)
	without := c.listen("") + allowLoopback
	g := start(t, without)
	reload := func(config string) {
		t.Helper()
		if l := g.reload(config); l.str("msg") != "reloaded" {
			t.Fatalf("reload: %v", l)
		}
	}
	reload(without + c.table("", "first.test"))
	first := c.wait("first.test")
	var failed atomic.Pointer[string]
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-over:
				return
			default:
			}
			if got := c.serial("first.test"); got != first {
				failed.CompareAndSwap(nil, &got)
			}
		}
	}()
	reload(without + c.table("", "first.test") + "[log]\nlevel = \"debug\"\n")
	reload(without + c.table("", "first.test", "second.test"))
	c.wait("second.test")
	reload(without + c.table("", "second.test", "first.test"))
	close(over)
	<-done
	if got := failed.Load(); got != nil {
		t.Errorf("while others were asked for, first.test had %s, want %s", *got, first)
	}
	c.serves(w, "second.test", "")
	if n := strings.Count(g.log(), "certificate obtained"); n != 2 {
		t.Errorf("%d certificates were obtained, want 2", n)
	}
	reload(without)
	if got := c.serial("first.test"); !strings.Contains(got, "unrecognized name") {
		t.Errorf("without [tls.acme] a client gets %s, want the alert unrecognized_name", got)
	}
	reload(without + c.table("", "first.test"))
	if got := c.serial("first.test"); got != first {
		t.Errorf("with [tls.acme] again first.test has %s, want %s at once", got, first)
	}
}

// muteCA is a directory that answers nothing. It counts who asks, and tells when the first one has gone.
type muteCA struct {
	directory, rootFile string
	asked               atomic.Int32
	first, gone         chan struct{}
}

func newMuteCA(t *testing.T) *muteCA {
	t.Helper()
	ca := &muteCA{first: make(chan struct{}), gone: make(chan struct{})}
	over := make(chan struct{})
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n := ca.asked.Add(1)
		if n == 1 {
			close(ca.first)
		}
		select {
		case <-over:
		case <-r.Context().Done():
			if n == 1 {
				close(ca.gone)
			}
		}
	}))
	t.Cleanup(func() { close(over); s.Close() })
	ca.directory, ca.rootFile = s.URL+"/dir", filepath.Join(t.TempDir(), "root.pem")
	write(t, ca.rootFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	return ca
}

// TestACMEReloadKeepsAnOrder: what [tls.acme] says nothing new about goes on. Without that table it ends.
func TestACMEReloadKeepsAnOrder(t *testing.T) {
	t.Parallel()
	ca := newMuteCA(t)
	table := acmeTable(ca.directory, ca.rootFile, filepath.Join(t.TempDir(), "acme"), "", "kept.test")
	g := start(t, listenAnywhere+table)
	<-ca.first
	for _, config := range []string{
		listenAnywhere + table, listenAnywhere + table + "[log]\nlevel = \"debug\"\n", listenAnywhere + table + "[listen.more]\naddress = [\"127.0.0.1:0\"]\n",
	} {
		if l := g.reload(config); l.str("msg") != "reloaded" {
			t.Fatalf("reload: %v", l)
		}
	}
	if l := g.reload(listenAnywhere + strings.Replace(table, "accept_terms = true", "", 1)); !strings.HasPrefix(l.str("msg"), "not reloaded") {
		t.Fatalf("reload: %v", l)
	}
	select {
	case <-ca.gone:
		t.Error("a reload that changes nothing of [tls.acme] ends the order")
	default:
	}
	if l := g.reload(listenAnywhere); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	<-ca.gone
	if n := ca.asked.Load(); n != 1 {
		t.Errorf("the CA was asked %d times, want once", n)
	}
}

// TestACMEBeforeTheFirstCertificate: a client of the name is told by an alert, the log says why, and others are served.
func TestACMEBeforeTheFirstCertificate(t *testing.T) {
	t.Parallel()
	ca, p, w := newMuteCA(t), newPapers(t), newWeb(t)
	g := start(t, listenAnywhere+p.table()+acmeTable(ca.directory, ca.rootFile, filepath.Join(t.TempDir(), "acme"), "", "early.test")+allowLoopback)
	<-ca.first
	for args, says := range map[string]string{"": "no certificate for early.test yet", "-alpn h2": "no certificate for early.test yet", "-alpn acme-tls/1": "no challenge is open for early.test"} {
		mark := g.mark()
		got := run(t, "openssl", append([]string{"s_client", "-connect", g.at(), "-servername", "early.test"}, strings.Fields(args)...)...)
		if !strings.Contains(got.stderr, "alert number 80") { // internal_error
			t.Errorf("s_client %s says %q, want alert 80", args, got.stderr)
		}
		l := g.recordSince(mark, "protocol=tls")
		check(t, l, map[string]any{"reason": "tls_handshake_failed", "address": ""})
		if !strings.Contains(l.str("err"), says) {
			t.Errorf("behind s_client %s the record says %q, want %q", args, l.str("err"), says)
		}
	}
	if got, _ := p.secureCurl(g.at(), "", "http://"+w.plain+"/"); !strings.HasPrefix(got.stdout, "hello from ") {
		t.Errorf("by the name of the file curl ended with %d and printed %q, %q", got.code, got.stdout, got.stderr)
	}
}

// TestACMEBesideAFile: names of the file are served by it, also one that the CA is asked for too.
func TestACMEBesideAFile(t *testing.T) {
	t.Parallel()
	c, w, p := newCertified(t), newWeb(t), newPapers(t)
	const foreign = "xn--bcher-kva.test" // as clients send bücher.test
	config := c.listen("") + p.table() + c.table("", "beside.test", ownName, "bücher.test") + allowLoopback
	if err := os.Chmod(p.path("server.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	g := start(t, config)
	for _, name := range []string{"beside.test", foreign} {
		c.wait(name)
		c.serves(w, name, "")
	}
	g.wait("the certificate that nobody needs", func(l logLine) bool { return l.str("msg") == "certificate obtained" && l.str("name") == ownName })
	if got := c.serial(ownName); !strings.Contains(got, "unknown authority") {
		t.Errorf("%s has the CA's certificate %s, want the file's", ownName, got)
	}
	got, _ := curl(t, "--resolve", fmt.Sprintf("%s:%d:%s", ownName, c.port, certifiedHost), "-x", fmt.Sprintf("https://%s:%d", ownName, c.port), "--proxy-cacert", p.ca(), "http://"+w.plain+"/")
	if !strings.HasPrefix(got.stdout, "hello from ") {
		t.Errorf("by the name of the file curl ended with %d and printed %q, %q", got.code, got.stdout, got.stderr)
	}
	mustSay(t, polyport(t, g.dir, "", "check", "-c", g.file), 0,
		"warning: "+g.file+":8: tls.acme.names[1]: a file has a certificate for \""+ownName+"\"", "warning: "+g.file+":6: tls.certificate.main.key: ")
}

// TestACMERefusedOrder: the CA gives nothing, and the gateway serves on.
func TestACMERefusedOrder(t *testing.T) {
	t.Parallel()
	c, w := newCertified(t, func(c map[string]any) { c["domainBlocklist"] = []string{"refused.test"} }), newWeb(t)
	g := start(t, c.listen("")+c.table("", "refused.test", "taken.test")+allowLoopback)
	l := g.wait("the refusal", func(l logLine) bool { return l.str("level") == "WARN" && strings.HasPrefix(l.str("msg"), "acme: ") })
	if text := fmt.Sprint(l); !strings.Contains(text, "refused.test") || !strings.Contains(text, "rejectedIdentifier") {
		t.Errorf("the log says %v, and not whom the CA refuses and why", l)
	}
	c.wait("taken.test")
	c.serves(w, "taken.test", "")
	if got, _ := curl(t, "-x", "http://"+g.at(), "http://"+w.plain+"/"); !strings.HasPrefix(got.stdout, "hello from ") {
		t.Errorf("curl without TLS ended with %d and printed %q, %q", got.code, got.stdout, got.stderr)
	}
	if got := c.serial("refused.test"); !strings.Contains(got, "internal error") {
		t.Errorf("a client of refused.test gets %s, want the alert internal_error", got)
	}
}

// TestACMEFaults: what is wrong with [tls.acme] is said with its place, by check and at the start.
func TestACMEFaults(t *testing.T) {
	t.Parallel()
	dir := inFolder(t, "file", "")
	tests := []struct {
		name, table string
		says        []string
	}{
		{"everything at once", `[tls.acme]
names = ["*.example.net", "192.0.2.1", "a.test", "A.test", "under score", ""]
email = "admin at example.com"
directory = "http://ca.test/dir"
directory_ca = "none.pem"
challenges = ["tls-alpn-01", "dns-01"]
`, []string{
			`polyport.toml:2: tls.acme.names[0]: "*.example.net" is a wildcard`, `polyport.toml:2: tls.acme.names[1]: "192.0.2.1" is an address`,
			`polyport.toml:2: tls.acme.names[3]: "A.test" is there twice`, `polyport.toml:2: tls.acme.names[4]`, `polyport.toml:2: tls.acme.names[5]`,
			"polyport.toml:3: tls.acme.email", "polyport.toml:4: tls.acme.directory", "polyport.toml:5: tls.acme.directory_ca", "polyport.toml:6: tls.acme.challenges[1]",
			"polyport.toml:1: tls.acme.storage: is not set", "polyport.toml:1: tls.acme.accept_terms: must be true",
		}},
		{"a file for a folder", "[tls.acme]\nnames = [\"a.test\"]\naccept_terms = true\nstorage = \"file\"\n", []string{"polyport.toml:4: tls.acme.storage: ", "is not a folder"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			writeFile(t, dir, "polyport.toml", tt.table+listenAnywhere)
			got := polyport(t, dir, "", "check", "-c", "polyport.toml")
			mustSay(t, got, 1, tt.says...)
			if serve := polyport(t, dir, "", "serve", "-c", "polyport.toml"); serve.code != 1 || serve.stderr != got.stderr {
				t.Errorf("serve ended with %d and said %q, want what check says: %q", serve.code, serve.stderr, got.stderr)
			}
			if n := strings.Count(got.stderr, "tls.acme.challenges"); n > 1 {
				t.Errorf("one fault is said %d times: %s", n, got.stderr)
			}
		})
	}
	// What only a start can find: check makes no folder.
	writeFile(t, dir, "polyport.toml", "[tls.acme]\nnames = [\"a.test\"]\naccept_terms = true\nstorage = \"/proc/acme\"\n"+listenAnywhere)
	mustSay(t, polyport(t, dir, "", "check", "-c", "polyport.toml"), 0, "is fine")
	got := polyport(t, dir, "", "serve", "-c", "polyport.toml")
	mustSay(t, got, 1, "polyport.toml:4: tls.acme.storage: ")
	if strings.Contains(got.stdout+got.stderr, "listening") {
		t.Errorf("it listened before: %s%s", got.stdout, got.stderr)
	}
}

// TestACMEChallengesThatNobodyCanAnswer warns.
func TestACMEChallengesThatNobodyCanAnswer(t *testing.T) {
	t.Parallel()
	const says = "tls.acme.challenges: the CA will find no answer"
	tests := []struct {
		name, listen, challenges string
		warns                    bool
	}{
		{"http-01 and require_tls", "require_tls = true\n", `challenges = ["http-01"]`, true},
		{"http-01 and no row http", "protocols = [\"connect\", \"tls\"]\n", `challenges = ["http-01"]`, true},
		{"tls-alpn-01 and no row tls", "protocols = [\"http\"]\n", `challenges = ["tls-alpn-01"]`, true},
		{"require_tls", "require_tls = true\n", "", false},
		{"no row http", "protocols = [\"connect\", \"tls\"]\n", "", false},
		{"http-01 by another listener", "require_tls = true\n[listen.web]\naddress = [\"127.0.0.1:0\"]\nprotocols = [\"http\"]\n", `challenges = ["http-01"]`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := inFolder(t, "polyport.toml", listenAnywhere+tt.listen+acmeTable("", "", "acme", tt.challenges, "a.test"))
			got := polyport(t, dir, "", "check", "-c", "polyport.toml")
			mustSay(t, got, 0)
			if strings.Contains(got.stdout, says) != tt.warns {
				t.Errorf("check says %q; a warning is wanted: %v", got.stdout, tt.warns)
			}
		})
	}
}
