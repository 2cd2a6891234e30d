package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"polyport/internal/freeport"
	"polyport/mux"
)

func TestWithLeaving(t *testing.T) {
	row := func(name string) []mux.Row { return []mux.Row{{Name: name}} }
	before := mux.Table{"main": row("a"), "old": row("b")}
	table := mux.Table{"main": row("c"), "new": row("d")}
	got := withLeaving(table, before)
	for listener, want := range map[string]string{"main": "c", "new": "d", "old": "b"} {
		if rows := got[listener]; len(rows) != 1 || rows[0].Name != want {
			t.Errorf("listener %s has rows %v, want %q", listener, rows, want)
		}
	}
	if len(before) != 2 || len(table) != 2 {
		t.Errorf("the tables themselves were changed: %v, %v", before, table)
	}
}

// freePort returns a port that nobody listens on.
func freePort(t testing.TB) uint16 {
	t.Helper()
	port, err := freeport.Find(netip.MustParseAddr("127.0.0.1"), 1)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// hold connects to a listener and begins a request.
func (s *served) hold(listener string) net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address(listener))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, get[:2]); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// finish ends what hold began and returns the first line of the answer.
func (s *served) finish(c net.Conn) string {
	s.t.Helper()
	if _, err := io.WriteString(c, get[2:]); err != nil {
		s.t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		s.t.Fatalf("read the answer: %v", err)
	}
	line, _, _ := strings.Cut(string(answer), "\r\n")
	return line
}

func TestReloadRenamesAListenerUnderItsClients(t *testing.T) {
	port := freePort(t)
	at := fmt.Sprintf("address = [\"127.0.0.1:%d\"]\n", port)
	s := serve(t, "[listen.main]\n"+at)
	held := s.hold("main")
	acceptor := s.d.doors.open[socketKey{address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)}]
	if err := s.reload("[listen.front]\n" + at); err != nil {
		t.Fatal(err)
	}
	if got := s.d.doors.open[socketKey{address: acceptor.Addr()}]; got != acceptor {
		t.Error("the socket was opened anew")
	}
	if got := s.finish(held); got != "HTTP/1.1 403 Forbidden" {
		t.Errorf("the client that was there gets %q", got)
	}
	if got := s.ask("front", get); got != "HTTP/1.1 403 Forbidden" {
		t.Errorf("a new client gets %q", got)
	}
}

func TestReloadsUnderLoadLoseNobody(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	text := func(n int) string { return fmt.Sprintf("[listen.name%d]\naddress = [%q]\n", n%2, address) }
	s := serve(t, text(0))
	var clients sync.WaitGroup
	over := make(chan struct{})
	for range 4 {
		clients.Go(func() {
			for asked := 0; ; asked++ {
				select {
				case <-over:
					return
				default:
				}
				if got, err := askAt(address); err != nil || got != "HTTP/1.1 403 Forbidden" {
					t.Errorf("request %d got %q, %v", asked, got, err)
					return
				}
			}
		})
	}
	for n := 1; n <= 50; n++ {
		if err := s.reload(text(n)); err != nil {
			t.Error(err)
		}
	}
	close(over)
	clients.Wait()
}

// askAt sends one request and returns the first line of the answer.
func askAt(address string) (string, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, get); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	line, _, _ := strings.Cut(string(answer), "\r\n")
	return line, err
}

func TestNoReloadOnceStopped(t *testing.T) {
	s := serve(t, onLoopback)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.d.Stop(ended); err != nil {
		t.Fatal(err)
	}
	if err := s.reload("[listen.main]\naddress = [\"127.0.0.2:0\"]\n"); err == nil || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("Reload = %v, want that the gateway is shutting down", err)
	}
}

func TestReloadKeepsWhatUsersHaveShown(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := write(t, "users.htpasswd", "alice:"+string(hash)+"\n")
	text := fmt.Sprintf("%s[auth]\nhtpasswd = %q\n", onLoopback, users)
	s := serve(t, text)
	first := s.d.state.users
	if err := os.WriteFile(users, []byte("alice:"+string(hash)+"\nbob:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.reload(text + "[timeouts]\nidle = \"1m\"\n"); err != nil {
		t.Fatal(err)
	}
	if s.d.state.users != first || first.Len() != 2 {
		t.Errorf("after a reload: the same users %v, %d of them; want true, 2", s.d.state.users == first, first.Len())
	}
	if err := s.reload(text + "groups = { staff = [\"bob\"] }\n"); err != nil {
		t.Fatal(err)
	}
	if s.d.state.users == first {
		t.Error("the users do not know of the new group")
	}
	second := s.d.state.users
	if err := os.WriteFile(users, []byte("alice:plain\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.reload(text + "groups = { staff = [\"bob\"] }\n"); err == nil || !strings.Contains(err.Error(), filepath.Base(users)) {
		t.Errorf("Reload with a bad file of users = %v", err)
	}
	if s.d.state.users != second || second.Len() != 2 {
		t.Error("a reload that failed has changed the users")
	}
}

func TestRetiredResolversAreNotKept(t *testing.T) {
	s := serve(t, onLoopback)
	for n := range 5 {
		before := s.d.state.resolver
		if err := s.reload(fmt.Sprintf("%s[dns]\nservers = [\"udp://127.0.0.1:%d\"]\n", onLoopback, 5300+n)); err != nil {
			t.Fatal(err)
		}
		if s.d.state.resolver == before {
			t.Fatal("the resolver is the old one")
		}
		if slices.Contains(s.d.state.retired, before) {
			t.Error("a resolver that does nothing is kept")
		}
	}
}
