package integration

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// flapConfig has the pools of TestFlappingServers: what makes them notice, microsocks servers as upstream and as a backend,
// nginx servers.
const flapConfig = `
[timeouts]
connect   = "50s"
handshake = "50s"
[sniff]
timeout = "50s"
[upstream.pool]
balance = "round-robin"
servers = [%s]
%s
[backend.socks]
balance = "random-two"
servers = [%s]
%s
[backend.web]
balance = "least-connections"
servers = [%s]
%s
[protocols.raw.socks]
prefix  = ["\u0005\u0002\u0000\u0002"]
backend = "socks"
[protocols.tls.route.web]
sni     = ["web.test"]
backend = "web"
[[rule]]
name     = "routes"
action   = "allow"
protocol = ["tls", "socks"]
[[rule]]
name     = "through the pool"
action   = "allow"
target   = ["127.0.0.0/8"]
upstream = "pool"
`

// Servers die and return all the time. As long as they do so between two exchanges nobody sees an error; else those do whose server has died under
// them, and nobody else.
func TestFlappingServers(t *testing.T) {
	t.Parallel()
	const checks = "[%s.health]\nevery = \"100ms\"\ntimeout = \"20s\"\n[%[1]s.eject]\nfailures = 0\n"
	const passive = "[%s.eject]\nfailures = 2\npause = \"100ms\"\nmax_pause = \"400ms\"\n"
	tests := []struct {
		name, table, state string
		between            bool
	}{
		{"checked, between exchanges", checks, "down", true},
		{"checked, under exchanges", checks, "down", false},
		{"ejected, between exchanges", passive, "ejected", true},
		{"ejected, under exchanges", passive, "ejected", false},
	}
	for n, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { flapping(t, 40+n, tt.table, tt.state, tt.between) })
	}
}

func flapping(t *testing.T, net int, table, state string, between bool) {
	l := newLoad(t)
	socks, web := []string{}, []string{}
	cert, key := l.papers(t)
	f := &flock{t: t, serves: l.served, kill: func(do func()) { do() }}
	if between {
		f.kill = l.between
	}
	for i := range 4 {
		ip := fmt.Sprintf("127.0.%d.%d", net, i+1)
		hop := newMortalMicrosocks(t, ip)
		at := freeAddress(t, ip)
		nginx := newMortal(t, at, nginxCommand(t, publicDir(t), fmt.Sprintf(
			"access_log off; server { listen %s ssl; ssl_certificate %s; ssl_certificate_key %s; location / { return 200 $server_addr; } }", at, cert, key)))
		f.members = append(f.members, []*mortal{hop, nginx})
		f.each(i, (*mortal).live)
		l.ips = append(l.ips, ip)
		socks, web = append(socks, hop.addr), append(web, at)
	}
	quoted := func(prefix string, list []string) string {
		return `"` + prefix + strings.Join(list, `", "`+prefix) + `"`
	}
	g := start(t, listenAnywhere+fmt.Sprintf(flapConfig, quoted("socks5://", socks), fmt.Sprintf(table, "upstream.pool"),
		quoted("", socks), fmt.Sprintf(table, "backend.socks"), quoted("", web), fmt.Sprintf(table, "backend.web")))
	l.proxy = g.at()
	changed := func(to string) {
		for _, pool := range []string{"upstream.pool", "backend.socks", "backend.web"} {
			g.waitState(pool, "", to)
		}
	}
	f.missed = func() { changed(state) }
	l.begin(16)
	f.flap(4)
	l.end(400)
	changed("up")
	cut := map[string]int{}
	for _, h := range l.hurt {
		rec := g.record("client=" + h.client)
		died := slices.ContainsFunc(f.members, func(m []*mortal) bool {
			return slices.ContainsFunc(m, func(m *mortal) bool { return strings.HasSuffix(rec.str("server"), m.addr) && m.diedAfter(h.begun) })
		})
		if !died || between {
			t.Errorf("%s was not served, its server was well, or died between two exchanges: %v; the record: %v", h.way, h.err, rec)
			continue
		}
		cut[h.way]++
	}
	kills := 0
	for _, m := range f.members {
		kills += len(m[0].deaths) + len(m[1].deaths)
	}
	t.Logf("%d requests (%v), %d servers killed under them: %d were cut off by the death of their server (%v)", l.done, l.byWay, kills, len(l.hurt), cut)
}

// waitState waits until the log says that a server ("" is any) has changed to a state, behind a mark if there is one.
func (g *gateway) waitState(pool, server, state string, mark ...int) {
	g.t.Helper()
	i := 0
	g.wait("that a server of "+pool+" is "+state, func(l logLine) bool {
		i++
		return (mark == nil || i > mark[0]) && l.str("msg") == "a server has changed its state" && l.str("pool") == pool && l.str("state") == state &&
			(server == "" || l.str("server") == server)
	})
}

// load is clients of every kind, each of whom learns through which server he is served.
type load struct {
	t     *testing.T
	proxy string
	ips   []string // of the servers
	told  string   // a server that greets with the address of who connects
	web   string   // the same by HTTP
	roots *tls.Config
	stop  chan struct{}
	all   sync.WaitGroup
	busy  sync.RWMutex // held while an exchange is under way

	mu    sync.Mutex
	n     int // begun
	done  int
	least int                             // how many have to be done
	last  map[string]map[string]time.Time // by way and server: the begin of the latest exchange that it served
	byWay map[string]int
	hurt  []hurt
}

// hurt is a client that was not served.
type hurt struct {
	way, client string
	begun       time.Time
	err         error
}

// loadWays are what the clients do: each returns the IP of the server that it was served through.
var loadWays = []struct {
	name string
	do   func(l *load, c net.Conn) (string, error)
}{
	{"CONNECT", (*load).connect}, {"GET", (*load).get}, {"SOCKS5 to a backend", (*load).socks}, {"TLS to a backend", (*load).https},
}

func newLoad(t *testing.T) *load {
	t.Helper()
	l := &load{t: t, stop: make(chan struct{}), last: map[string]map[string]time.Time{}, byWay: map[string]int{}}
	for _, w := range loadWays {
		l.last[w.name] = map[string]time.Time{}
	}
	l.told = tcpServer(t, func(c *net.TCPConn) {
		ip, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		fmt.Fprintf(c, "%s\n", ip)
		_, _ = io.Copy(io.Discard, c)
	})
	l.web = tcpServer(t, func(c *net.TCPConn) {
		ip, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		if req, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_ = req.Body.Close()
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(ip), ip)
			_, _ = io.Copy(io.Discard, c)
		}
	})
	return l
}

// papers writes the certificate of web.test, which the clients believe.
func (l *load) papers(t *testing.T) (cert, key string) {
	t.Helper()
	c, root := certificate(t, "web.test")
	l.roots = &tls.Config{RootCAs: pool(t, root), ServerName: "web.test"}
	dir := t.TempDir()
	return filePair(t, dir, c)
}

// filePair writes a certificate and its key as files.
func filePair(t *testing.T, dir string, c tls.Certificate) (cert, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// begin has so many clients ask again and again.
func (l *load) begin(concurrency int) {
	for range concurrency {
		l.all.Go(func() {
			for i, more := l.next(); more; i, more = l.next() {
				l.one(i)
			}
		})
	}
}

// next numbers the clients. It ends when the load has ended.
func (l *load) next() (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.stop:
		if l.n >= l.least {
			return 0, false
		}
	default:
	}
	l.n++
	return l.n, true
}

// end lets the clients end when they were at least so many.
func (l *load) end(least int) {
	l.mu.Lock()
	l.least = least
	l.mu.Unlock()
	close(l.stop)
	l.all.Wait()
}

// between acts while no exchange is under way.
func (l *load) between(act func()) {
	l.busy.Lock()
	defer l.busy.Unlock()
	act()
}

// one is one client with an address of its own, by which its record is found.
func (l *load) one(i int) {
	l.busy.RLock()
	defer l.busy.RUnlock()
	way, begun := loadWays[i%len(loadWays)], time.Now()
	from := netip.AddrFrom4([4]byte{127, 16 + byte(i>>16), byte(i >> 8), byte(i)})
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	c, err := d.Dial("tcp4", l.proxy)
	if err != nil {
		l.t.Errorf("%s: %v", way.name, err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(begun.Add(patience))
	server, err := way.do(l, c)
	if err == nil && !slices.Contains(l.ips, server) {
		err = fmt.Errorf("it is served through %q", server)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done++
	l.byWay[way.name]++
	if err != nil {
		l.hurt = append(l.hurt, hurt{way.name, c.LocalAddr().String(), begun, err})
	} else if begun.After(l.last[way.name][server]) {
		l.last[way.name][server] = begun
	}
}

// served is the begin of the latest exchange that a server has served for every kind of client.
func (l *load) served(i int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := time.Now()
	for _, w := range loadWays {
		if at := l.last[w.name][l.ips[i]]; at.Before(first) {
			first = at
		}
	}
	return first
}

func (l *load) connect(c net.Conn) (string, error) {
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", l.told)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s, %s", resp.Status, resp.Header.Get("Proxy-Status"))
	}
	line, err := r.ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

func (l *load) get(c net.Conn) (string, error) {
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: %[1]s\r\n\r\n", l.web)
	return pageOf(c)
}

// pageOf reads a response with status 200 and returns its body.
func pageOf(c io.Reader) (string, error) {
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return "", errors.Join(err, fmt.Errorf("%s, %s", resp.Status, resp.Header.Get("Proxy-Status")))
	}
	return string(body), err
}

// socks speaks to a server of the backend itself, by its methods' order, which no other client has.
func (l *load) socks(c net.Conn) (string, error) {
	to := netip.MustParseAddrPort(l.told)
	ask := append([]byte{5, 1, 0, 1}, to.Addr().AsSlice()...)
	ask = append(ask, byte(to.Port()>>8), byte(to.Port()))
	for _, turn := range []struct {
		says  []byte
		hears int
		code  byte
	}{{[]byte{5, 2, 0, 2}, 2, 0}, {ask, 10, 0}} {
		got := make([]byte, turn.hears)
		if _, err := c.Write(turn.says); err != nil {
			return "", err
		}
		if _, err := io.ReadFull(c, got); err != nil || got[1] != turn.code {
			return "", fmt.Errorf("heard % x, %w", got, err)
		}
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

func (l *load) https(c net.Conn) (string, error) {
	secure := tls.Client(c, l.roots)
	fmt.Fprint(secure, "GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n")
	return pageOf(secure)
}
