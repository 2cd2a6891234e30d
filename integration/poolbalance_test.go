package integration

import (
	"encoding/base64"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
)

// The weights of the servers in TestBalance. What keys lead to is chance, as the ports of the servers are: with these few the
// shares of ten thousand keys lie within 5 % but once in thousands of times.
var (
	three = []int{2, 3, 5}
	two   = []int{4, 6}
)

// counter is a server that tells everybody its number, and counts whom it has told. It does so at once, or as a SOCKS5 server that
// connects nobody.
type counter struct {
	addr string
	told atomic.Int64
}

// newCounters starts as many as there are weights.
func newCounters(t *testing.T) (all []*counter) {
	t.Helper()
	for n := range three {
		c := &counter{}
		c.addr = tcpServer(t, func(conn *net.TCPConn) {
			first := make([]byte, 3) // of a raw row, or a SOCKS5 greeting with one method
			if _, err := io.ReadFull(conn, first); err != nil {
				return
			}
			if first[0] == 5 {
				_, _ = conn.Write([]byte{5, 0})
				if _, err := io.ReadFull(conn, make([]byte, 10)); err != nil {
					return
				}
				_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
			}
			c.told.Add(1)
			_, _ = conn.Write([]byte{'0' + byte(n)})
			_ = conn.CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		})
		all = append(all, c)
	}
	return all
}

// balancing are the ways to the pools of TestBalance.
var balancing = []struct {
	balance string
	ask     func(p *balanced, c net.Conn, key int) error // of the balance's pool
	// stand is how many connections each client leaves standing. Two balances look at those that stand: with hardly any a server that
	// happens to be idle gets more than its share of the new ones.
	stand   int
	weights []int
}{
	{"first", (*balanced).askRaw, 0, three},
	{"round-robin", (*balanced).askRaw, 0, three},
	{"random-two", (*balanced).askRaw, 12, three},
	{"least-connections", (*balanced).askRaw, 12, three},
	{"sticky-client", (*balanced).askRaw, 0, two},
	{"sticky-user", (*balanced).askUser, 0, two},
	{"sticky-session", (*balanced).askSession, 0, two},
}

// balanced is a pool behind a running gateway.
type balanced struct {
	proxy   string
	tag     string // the prefix of its raw row
	target  string // that its upstream is for
	ask     func(p *balanced, c net.Conn, key int) error
	clients bool // each key has an address of its own
}

const manyUsers = 10_000

// newBalanced starts a gateway with a pool for each balance.
func newBalanced(t *testing.T, servers []*counter) (g *gateway, config string, pools []*balanced) {
	t.Helper()
	var text strings.Builder
	text.WriteString(listenAnywhere + "require_user = false\n[timeouts]\nconnect = \"50s\"\nhandshake = \"50s\"\n[sniff]\ntimeout = \"50s\"\n" +
		"[log]\naccess = \"off\"\n[auth]\nhtpasswd = \"users.htpasswd\"\nuser_parameters = [\"session\"]\n")
	rules := "[[rule]]\naction = \"allow\"\nprotocol = [\"pool0\", \"pool1\", \"pool2\", \"pool3\", \"pool4\"]\n"
	for i, b := range balancing {
		p := &balanced{tag: fmt.Sprintf("P%d\n", i), target: fmt.Sprintf("192.0.2.1:%d", 1000+i), ask: b.ask, clients: i < 5}
		pools = append(pools, p)
		list := make([]string, len(b.weights))
		for n, weight := range b.weights {
			if p.clients {
				list[n] = fmt.Sprintf("{ address = %q, weight = %d }", servers[n].addr, weight)
			} else {
				list[n] = fmt.Sprintf("{ url = %q, weight = %d }", "socks5://"+servers[n].addr, weight)
			}
		}
		kind := "upstream"
		if p.clients {
			kind = "backend"
			fmt.Fprintf(&text, "[protocols.raw.pool%d]\nprefix = [%q]\nbackend = \"pool%[1]d\"\n", i, p.tag)
		} else {
			rules += fmt.Sprintf("[[rule]]\naction = \"allow\"\ntarget = [\"192.0.2.1\"]\nport = [\"%d\"]\nupstream = \"pool%d\"\nuser = [\"*\"]\n", 1000+i, i)
		}
		fmt.Fprintf(&text, "[%s.pool%d]\nbalance = %q\nservers = [%s]\n", kind, i, b.balance, strings.Join(list, ", "))
	}
	config = text.String() + rules
	g = prepare(t, config)
	g.write("users.htpasswd", userList())
	g.run()
	g.waitListening(1)
	for _, p := range pools {
		p.proxy = g.at()
	}
	return g, config, pools
}

// userList has many users with one password, whose hash costs next to nothing.
func userList() string {
	salt := []byte("sixteen of salt!")
	key := argon2.IDKey([]byte("secret"), salt, 1, 8, 1, 16)
	enc := base64.RawStdEncoding
	hash := "$argon2id$v=19$m=8,t=1,p=1$" + enc.EncodeToString(salt) + "$" + enc.EncodeToString(key)
	var b strings.Builder
	for i := range manyUsers {
		fmt.Fprintf(&b, "user%d:%s\n", i, hash)
	}
	return b.String()
}

func (p *balanced) askRaw(c net.Conn, _ int) error {
	_, err := io.WriteString(c, p.tag)
	return err
}

func (p *balanced) askUser(c net.Conn, key int) error { return p.askAs(c, fmt.Sprintf("user%d", key)) }

func (p *balanced) askSession(c net.Conn, key int) error {
	return p.askAs(c, fmt.Sprintf("user7+session-s%d", key))
}

func (p *balanced) askAs(c net.Conn, user string) error {
	_, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\nProxy-Authorization: Basic %s\r\n\r\n", p.target, base64.StdEncoding.EncodeToString([]byte(user+":secret")))
	return err
}

// serverOf asks with a key, and returns the number of the server that it got.
func (p *balanced) serverOf(key int) (int, error) {
	c, server, err := p.open(key)
	if err != nil {
		return 0, err
	}
	return server, c.Close()
}

// open is serverOf that leaves the connection standing.
func (p *balanced) open(key int) (net.Conn, int, error) {
	d := net.Dialer{}
	if p.clients {
		from := netip.AddrFrom4([4]byte{127, 77, byte(key >> 8), byte(key)})
		d.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	c, err := d.Dial("tcp4", p.proxy)
	if err != nil {
		return nil, 0, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	server, err := p.number(c, key)
	if err != nil {
		c.Close()
	}
	return c, server, err
}

// number asks, and reads the number of the server.
func (p *balanced) number(c net.Conn, key int) (int, error) {
	if err := p.ask(p, c, key); err != nil {
		return 0, err
	}
	got, err := io.ReadAll(c)
	number := -1
	if len(got) > 0 && (p.clients || strings.HasPrefix(string(got), "HTTP/1.1 200 ")) {
		number = int(got[len(got)-1]) - '0'
	}
	if err != nil || number < 0 || number >= len(three) {
		return 0, fmt.Errorf("heard %q, %w", got, err)
	}
	return number, nil
}

// Every balance follows the weights, and the sticky ones hold on to their keys, over a reload too.
func TestBalance(t *testing.T) {
	t.Parallel()
	const connections, concurrency, sticking = 10_000, 16, 60
	servers := newCounters(t)
	g, config, pools := newBalanced(t, servers)
	for i, b := range balancing {
		t.Run(b.balance, func(t *testing.T) {
			before := make([]int64, len(servers))
			for n, s := range servers {
				before[n] = s.told.Load()
			}
			var next, failures atomic.Int64
			var clients sync.WaitGroup
			for range concurrency {
				clients.Go(func() {
					var standing []net.Conn
					for key := next.Add(1); key <= connections; key = next.Add(1) {
						c, _, err := pools[i].open(int(key) - 1)
						if err != nil {
							if failures.Add(1) < 5 {
								t.Errorf("client %d: %v", key, err)
							}
							continue
						}
						if standing = append(standing, c); len(standing) > b.stand {
							standing[0].Close()
							standing = standing[1:]
						}
					}
					for _, c := range standing {
						c.Close()
					}
				})
			}
			clients.Wait()
			if f := failures.Load(); f > 0 {
				t.Fatalf("%d of %d were not served", f, connections)
			}
			got := make([]int64, len(servers))
			for n, s := range servers {
				got[n] = s.told.Load() - before[n]
			}
			t.Logf("%d connections went to servers of the weights %v as %v", connections, b.weights, got)
			if b.balance == "first" {
				if got[0] != connections {
					t.Errorf("the first server got %d of %d", got[0], connections)
				}
				return
			}
			for n, w := range b.weights {
				want := connections * float64(w) / 10
				if off := math.Abs(float64(got[n])-want) / want; off > 0.05 {
					t.Errorf("server %d of weight %d got %d, want %.0f: %.1f %% off", n, w, got[n], want, off*100)
				}
			}
		})
	}
	kept := make([][]int, len(pools))
	each := func(do func(p, key, server int)) {
		for p := range pools {
			for key := range sticking {
				server, err := pools[p].serverOf(key * 97)
				if err != nil {
					t.Fatalf("%s: %v", balancing[p].balance, err)
				}
				do(p, key, server)
			}
		}
	}
	each(func(p, _, server int) { kept[p] = append(kept[p], server) })
	check := func(when string) {
		t.Helper()
		moved := make([]int, len(pools))
		each(func(p, key, server int) {
			if kept[p][key] != server {
				moved[p]++
			}
		})
		for p, b := range balancing {
			switch sticky := strings.HasPrefix(b.balance, "sticky-"); {
			case sticky && moved[p] != 0:
				t.Errorf("%s: %d of %d have moved %s", b.balance, moved[p], sticking, when)
			case sticky && len(slices.Compact(slices.Sorted(slices.Values(kept[p])))) != len(b.weights):
				t.Errorf("%s: %d keys do not use all servers: %v", b.balance, sticking, kept[p])
			case b.balance == "round-robin" && moved[p] == 0:
				t.Errorf("%s sticks", b.balance)
			}
		}
	}
	check("without a reason")
	if l := g.reload(config + "[limits]\nconnections = 4000\n"); l.str("msg") != "reloaded" {
		t.Fatalf("reload: %v", l)
	}
	check("with the reload")
}
