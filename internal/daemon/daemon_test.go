package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// served is a Daemon in the test's own process, with its log.
type served struct {
	t    *testing.T
	d    *Daemon
	path string
	out  *lockedBuffer
	log  *lockedBuffer
}

// serve starts a Daemon on a configuration and stops it at the end of the test; no goroutine may be left.
func serve(t *testing.T, text string) *served {
	t.Helper()
	s := &served{t: t, path: write(t, "polyport.toml", text), out: &lockedBuffer{}, log: &lockedBuffer{}}
	before := goleak.IgnoreCurrent()
	d, err := Start(t.Context(), Options{Path: s.path, Stdout: s.out, Stderr: s.log})
	if err != nil {
		t.Fatal(err)
	}
	s.d = d
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel() // what is under way is ended at once
		if err := d.Stop(ended); err != nil {
			t.Errorf("Stop: %v", err)
		}
		goleak.VerifyNone(t, before)
	})
	return s
}

// reload replaces the configuration.
func (s *served) reload(text string) error {
	s.t.Helper()
	if err := os.WriteFile(s.path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return s.d.Reload(s.t.Context())
}

// address returns where a listener listens.
func (s *served) address(listener string) string {
	s.t.Helper()
	for key, a := range s.d.doors.open {
		for _, w := range wanted(s.d.file) {
			if w.key == key && w.name == listener {
				return a.Addr().String()
			}
		}
	}
	s.t.Fatalf("there is no listener %s", listener)
	return ""
}

// ask sends one request to a listener and returns the first line of the answer.
func (s *served) ask(listener, request string) string {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address(listener))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, request); err != nil {
		s.t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil {
		s.t.Fatalf("read the answer: %v", err)
	}
	line, _, _ := strings.Cut(string(answer), "\r\n")
	return line
}

// get asks for a target that the guard denies, so that nothing is dialled.
const get = "GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n"

func TestStartServesAndGreets(t *testing.T) {
	s := serve(t, onLoopback)
	if got := s.ask("main", get); got != "HTTP/1.1 403 Forbidden" {
		t.Errorf("the answer is %q", got)
	}
	if got := s.out.take(); !strings.Contains(got, "curl -x http://"+s.address("main")+" ") {
		t.Errorf("the greeting is %q", got)
	}
	var first struct{ Level, Msg, Address, Listener string }
	line, _, _ := strings.Cut(s.log.take(), "\n")
	if err := json.Unmarshal([]byte(line), &first); err != nil || first.Msg != "listening" || first.Address != s.address("main") || first.Listener != "main" {
		t.Errorf("the first line of the log is %q (%v)", line, err)
	}
}

func TestStartFaults(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	tests := []struct{ name, file, want string }{
		{"a broken file", "[listen.main]\nadress = [\"127.0.0.1:0\"]\n", "did you mean"},
		{"an open proxy", onNetwork + allowAll, "allow_open_proxy = true"},
		{"no users", onLoopback + "[auth]\nhtpasswd = \"nobody\"\n", "polyport user add"},
		{"no folder for the log", onLoopback + "[log]\naccess_to = \"no/such/folder/log\"\n", "no/such/folder/log"},
		{"a taken port", fmt.Sprintf("[listen.main]\naddress = [%q]\n", taken.Addr()), "holds it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			d, err := Start(t.Context(), Options{Path: write(t, "polyport.toml", tt.file), Stdout: io.Discard, Stderr: io.Discard})
			if err == nil || d != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start: %v, want %q", err, tt.want)
			}
			var port *PortTakenError
			if got := errors.As(err, &port); got != (tt.name == "a taken port") {
				t.Errorf("a PortTakenError: %v", got)
			}
		})
	}
}

func TestReloadTakesAllOrNothing(t *testing.T) {
	s := serve(t, onLoopback)
	tests := []struct{ name, file, want string }{
		{"a fault of syntax", "[listen.main\n", "to end table name"},
		{"several faults", "[timeouts]\nidle = 5\n[limits]\nconections = 1\n", "connections"},
		{"an open proxy", onNetwork + allowAll, "open proxy"},
		{"no users", onLoopback + "[auth]\nhtpasswd = \"nobody\"\n", "nobody"},
		{"no folder for the log", onLoopback + "[log]\naccess_to = \"no/such/folder/log\"\n", "no/such/folder/log"},
		{"an address of another machine", "[listen.main]\naddress = [\"127.0.0.1:0\", \"192.0.2.1:1\"]\n", "192.0.2.1:1"},
	}
	address, generation := s.address("main"), s.d.sessions.Runtime().Generation
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := s.reload(tt.file); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Reload: %v, want %q", err, tt.want)
			}
			if got := s.d.sessions.Runtime().Generation; got != generation {
				t.Errorf("the generation is %d, want %d still", got, generation)
			}
			if got := s.address("main"); got != address {
				t.Errorf("listening on %s, want %s still", got, address)
			}
			if got := s.ask("main", get); got != "HTTP/1.1 403 Forbidden" {
				t.Errorf("the answer is %q", got)
			}
		})
	}
}

func TestReloadIsLive(t *testing.T) {
	s := serve(t, onLoopback)
	address := s.address("main")
	if err := s.reload(onLoopback + "[[rule]]\nname = \"off\"\naction = \"deny\"\n[log]\nlevel = \"debug\"\n"); err != nil {
		t.Fatal(err)
	}
	if got := s.address("main"); got != address {
		t.Errorf("listening on %s, want %s still", got, address)
	}
	if rt := s.d.sessions.Runtime(); rt.Generation != 2 {
		t.Errorf("the generation is %d, want 2", rt.Generation)
	}
	if !s.d.log.Enabled(t.Context(), -4) {
		t.Error("the level of the log has not changed")
	}
	if got := s.ask("main", get); got != "HTTP/1.1 403 Forbidden" {
		t.Errorf("the answer is %q", got)
	}
	if log := s.log.take(); !strings.Contains(log, `"msg":"reloaded","generation":2`) {
		t.Errorf("the log says %s", log)
	}
}

func TestReloadRelistens(t *testing.T) {
	s := serve(t, onLoopback)
	old := s.address("main")
	if err := s.reload("[listen.main]\naddress = [\"127.0.0.2:0\"]\n[listen.socks]\naddress = [\"127.0.0.3:0\"]\nprotocols = [\"socks5\"]\n"); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", old); err == nil {
		c.Close()
		t.Errorf("%s still accepts", old)
	}
	if got := s.ask("main", get); got != "HTTP/1.1 403 Forbidden" {
		t.Errorf("the answer at the new address is %q", got)
	}
	if got := s.ask("socks", "GET / HTTP/1.1\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403 ") {
		t.Errorf("HTTP at a listener for SOCKS5 gets %q", got)
	}
	own := s.d.state.own
	for _, listener := range []string{"main", "socks"} {
		ap := netip.MustParseAddrPort(s.address(listener))
		if !own.holds(ap) {
			t.Errorf("%s is not known as one of the gateway's own", ap)
		}
	}
	if log := s.log.take(); !strings.Contains(log, `"relisten":"listen.main.address, listen.socks"`) {
		t.Errorf("the log does not say what was opened anew: %s", log)
	}
}
