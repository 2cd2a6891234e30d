package accesslog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"polyport/internal/session"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// full is a record with every field.
func full() session.Record {
	return session.Record{
		ID: session.NewID("abc-", 1), Start: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Client: netip.MustParseAddrPort("192.0.2.7:51000"),
		Listener: "main", Protocol: "http", Method: "GET", Version: "HTTP/1.1", Identity: "alice", UserID: "al",
		URL: "http://example.com/a?token=secret", Target: "example.com:80", Address: netip.MustParseAddrPort("198.51.100.1:80"),
		Backend: "web", Rule: "staff", Reason: "idle_timeout", Status: 200, BytesFromClient: 120, BytesFromTarget: 3456,
		Setup: 1500 * time.Microsecond, Duration: 2250 * time.Millisecond, Err: errors.New("cut short"),
	}
}

func tunnelRecord() session.Record {
	r := full()
	r.Protocol, r.Method, r.Version, r.URL, r.Status, r.Identity, r.Err, r.Reason = "socks5", "CONNECT", "SOCKS5", "", 0, "", nil, ""
	return r
}

func deniedRecord() session.Record {
	r := full()
	r.Status, r.Reason, r.Setup, r.Address = 403, "guard", 0, netip.AddrPort{}
	return r
}

// secureRecord is full, of a client that came by TLS.
func secureRecord() session.Record {
	r := full()
	r.TLS, r.ServerName = "TLS 1.3", "proxy.example.net"
	return r
}

// streamRecord is full, of a stream of HTTP/2.
func streamRecord() session.Record {
	r := secureRecord()
	r.Version, r.Connection, r.Stream = "HTTP/2", session.NewID("abc-", 36), 4294967295
	return r
}

// udpRecord is a UDP association on which all went well.
func udpRecord() session.Record {
	r := full()
	r.Protocol, r.Method, r.Version, r.URL, r.Target, r.Address, r.Backend, r.Status, r.Reason, r.Err = "socks5", "UDP", "SOCKS5", "", "", netip.AddrPort{}, "", 0, "", nil
	r.Datagrams = &session.Datagrams{FromClient: 12, FromTarget: 10, Targets: 3}
	return r
}

// lossyRecord is one with all that can go wrong.
func lossyRecord() session.Record {
	r := udpRecord()
	r.Datagrams = &session.Datagrams{FromClient: 1, Denied: 2, Fragmented: 3, Limited: 4, Dropped: 5, Unreachable: 6, Targets: 1}
	return r
}

// chainedRecord is one that left through an upstream, by name.
func chainedRecord() session.Record {
	r := tunnelRecord()
	r.Address, r.Backend = netip.AddrPort{}, ""
	r.Upstream, r.Server, r.Exit, r.ByName = "eu", "socks5://[2001:db8::7]:1080", "frankfurt", true
	return r
}

func TestLines(t *testing.T) {
	bare := session.Record{ID: session.NewID("abc-", 2), Start: full().Start, Client: full().Client, Listener: "main", Protocol: "reject"}
	tests := []struct {
		name   string
		append func([]byte, *session.Record, bool) []byte
		record session.Record
		want   string
	}{
		{"json", appendJSON, full(), `{"time":"2026-03-01T12:00:02.250Z","level":"INFO","msg":"session end","id":"abc-1","protocol":"http","listener":"main","client":"192.0.2.7:51000","identity":"alice","user_id":"al","method":"GET","version":"HTTP/1.1","target":"example.com:80","url":"http://example.com/a?","address":"198.51.100.1:80","backend":"web","rule":"staff","reason":"idle_timeout","status":200,"bytes_from_client":120,"bytes_from_target":3456,"setup_s":0.001500,"duration_s":2.250000,"err":"cut short"}`},
		{"json, nothing known", appendJSON, bare, `{"time":"2026-03-01T12:00:00.000Z","level":"INFO","msg":"session end","id":"abc-2","protocol":"reject","listener":"main","client":"192.0.2.7:51000","bytes_from_client":0,"bytes_from_target":0,"duration_s":0.000000}`},
		{"json, by TLS", appendJSON, secureRecord(), `{"time":"2026-03-01T12:00:02.250Z","level":"INFO","msg":"session end","id":"abc-1","protocol":"http","listener":"main","client":"192.0.2.7:51000","identity":"alice","user_id":"al","tls":"TLS 1.3","server_name":"proxy.example.net","method":"GET","version":"HTTP/1.1","target":"example.com:80","url":"http://example.com/a?","address":"198.51.100.1:80","backend":"web","rule":"staff","reason":"idle_timeout","status":200,"bytes_from_client":120,"bytes_from_target":3456,"setup_s":0.001500,"duration_s":2.250000,"err":"cut short"}`},
		{"json, a stream", appendJSON, streamRecord(), `{"time":"2026-03-01T12:00:02.250Z","level":"INFO","msg":"session end","id":"abc-1","protocol":"http","listener":"main","client":"192.0.2.7:51000","identity":"alice","user_id":"al","tls":"TLS 1.3","server_name":"proxy.example.net","connection":"abc-10","stream":4294967295,"method":"GET","version":"HTTP/2","target":"example.com:80","url":"http://example.com/a?","address":"198.51.100.1:80","backend":"web","rule":"staff","reason":"idle_timeout","status":200,"bytes_from_client":120,"bytes_from_target":3456,"setup_s":0.001500,"duration_s":2.250000,"err":"cut short"}`},
		{"json, UDP", appendJSON, udpRecord(), `{"time":"2026-03-01T12:00:02.250Z","level":"INFO","msg":"session end","id":"abc-1","protocol":"socks5","listener":"main","client":"192.0.2.7:51000","identity":"alice","user_id":"al","method":"UDP","version":"SOCKS5","rule":"staff","bytes_from_client":120,"bytes_from_target":3456,"datagrams_from_client":12,"datagrams_from_target":10,"targets":3,"setup_s":0.001500,"duration_s":2.250000}`},
		{"json, UDP with losses", appendJSON, lossyRecord(), `{"time":"2026-03-01T12:00:02.250Z","level":"INFO","msg":"session end","id":"abc-1","protocol":"socks5","listener":"main","client":"192.0.2.7:51000","identity":"alice","user_id":"al","method":"UDP","version":"SOCKS5","rule":"staff","bytes_from_client":120,"bytes_from_target":3456,"datagrams_from_client":1,"datagrams_from_target":0,"targets":1,"datagrams_denied":2,"datagrams_fragmented":3,"datagrams_limited":4,"datagrams_dropped":5,"unreachable":6,"setup_s":0.001500,"duration_s":2.250000}`},
		{"json, through an upstream", appendJSON, chainedRecord(), `{"time":"2026-03-01T12:00:02.250Z","level":"INFO","msg":"session end","id":"abc-1","protocol":"socks5","listener":"main","client":"192.0.2.7:51000","user_id":"al","method":"CONNECT","version":"SOCKS5","target":"example.com:80","upstream":"eu","server":"socks5://[2001:db8::7]:1080","exit":"frankfurt","resolved_by":"upstream","rule":"staff","bytes_from_client":120,"bytes_from_target":3456,"setup_s":0.001500,"duration_s":2.250000}`},
		{"text, through an upstream", appendText, chainedRecord(), `12:00:02.250 socks5 192.0.2.7:51000 CONNECT example.com:80 SOCKS5 upstream=eu server=socks5://[2001:db8::7]:1080 exit=frankfurt resolved_by=upstream bytes=120/3456 2.25s rule="staff" id=abc-1`},
		{"squid, through an upstream", appendSquid, chainedRecord(), `1772366402.250   2250 192.0.2.7 TCP_TUNNEL/200 3456 CONNECT example.com:80 - FIRSTUP_PARENT/2001:db8::7 -`},
		{"text, UDP", appendText, udpRecord(), `12:00:02.250 socks5 192.0.2.7:51000 user=alice UDP SOCKS5 bytes=120/3456 datagrams=12/10 targets=3 2.25s rule="staff" id=abc-1`},
		{"common, UDP", appendCommon, udpRecord(), `192.0.2.7 - alice [01/Mar/2026:12:00:00 +0000] "UDP SOCKS5" 200 3456`},
		{"squid, UDP", appendSquid, udpRecord(), `1772366402.250   2250 192.0.2.7 NONE_NONE/200 3456 UDP - alice HIER_NONE/- -`},
		{"text", appendText, full(), `12:00:02.250 http 192.0.2.7:51000 user=alice GET http://example.com/a? HTTP/1.1 status=200 address=198.51.100.1:80 backend=web bytes=120/3456 2.25s rule="staff" reason="idle_timeout" err="cut short" id=abc-1`},
		{"text, nothing known", appendText, bare, `12:00:00.000 reject 192.0.2.7:51000 - bytes=0/0 0s id=abc-2`},
		{"common", appendCommon, full(), `192.0.2.7 - alice [01/Mar/2026:12:00:00 +0000] "GET http://example.com/a? HTTP/1.1" 200 3456`},
		{"common, a stream", appendCommon, streamRecord(), `192.0.2.7 - alice [01/Mar/2026:12:00:00 +0000] "GET http://example.com/a? HTTP/2" 200 3456`},
		{"common, tunnel", appendCommon, tunnelRecord(), `192.0.2.7 - - [01/Mar/2026:12:00:00 +0000] "CONNECT example.com:80 SOCKS5" 200 3456`},
		{"common, nothing known", appendCommon, bare, `192.0.2.7 - - [01/Mar/2026:12:00:00 +0000] "-" 503 -`},
		{"squid", appendSquid, full(), `1772366402.250   2250 192.0.2.7 TCP_MISS_ABORTED/200 3456 GET http://example.com/a? alice HIER_DIRECT/198.51.100.1 -`},
		{"squid, tunnel", appendSquid, tunnelRecord(), `1772366402.250   2250 192.0.2.7 TCP_TUNNEL/200 3456 CONNECT example.com:80 - HIER_DIRECT/198.51.100.1 -`},
		{"squid, denied", appendSquid, deniedRecord(), `1772366402.250   2250 192.0.2.7 TCP_DENIED/403 3456 GET http://example.com/a? alice HIER_NONE/- -`},
		{"squid, nothing known", appendSquid, bare, `1772366400.000      0 192.0.2.7 NONE_NONE/503 0 - - - HIER_NONE/- -`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(tt.append(nil, &tt.record, true)); got != tt.want+"\n" {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

func TestQueryStaysWhereItIsWanted(t *testing.T) {
	r := full()
	if got := string(appendCommon(nil, &r, false)); !strings.Contains(got, "a?token=secret") {
		t.Errorf("got %s", got)
	}
}

// hostile holds what a client may put into a field to forge lines or to play with a terminal.
var hostile = []string{
	"a\nb", "a\r\nfake line", "\x1b[2J", "\x00", "\x7f", "\u009b31m", "\u202egnp.exe", "\u061c1.2", "\u2028", "quote\" and \\", "tab\t", "\xff\xfe", " space ",
	"%0a", strings.Repeat("x", 100_000),
}

func TestHostileFieldsStayInTheirLine(t *testing.T) {
	for name, appendLine := range formats {
		if appendLine == nil {
			continue
		}
		for _, h := range hostile {
			r := full()
			r.Method, r.Version, r.Identity, r.UserID, r.URL, r.Target, r.Backend, r.Rule, r.Reason, r.Err = h, h, h, h, h, h, h, h, h, errors.New(h)
			r.ServerName = h
			got := string(appendLine(nil, &r, true))
			if strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, "\n") {
				t.Errorf("%s: %q made %q", name, h, got)
			}
			if i := strings.IndexFunc(got[:len(got)-1], func(r rune) bool {
				return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0x061c || r == 0x2028
			}); i >= 0 {
				t.Errorf("%s: %q let a control character through at %d: %q", name, h, i, got)
			}
			if len(got) > 12*(maxField*6+100) {
				t.Errorf("%s: a line of %d bytes", name, len(got))
			}
			if name == Squid && len(strings.Fields(got)) != 10 {
				t.Errorf("%s: %q has %d fields, want 10", name, got, len(strings.Fields(got)))
			}
		}
	}
}

var commonLine = regexp.MustCompile(`^(\S+) - (\S+) \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d{3}|0) (\d+|-)$`)

func FuzzFields(f *testing.F) {
	for _, h := range hostile {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := full()
		r.Identity, r.URL, r.Err = s, s, errors.New(s)
		// Property: a JSON line parses back to the value, as far as it was valid and short.
		var got struct{ Identity, URL, Err string }
		if err := json.Unmarshal(appendJSON(nil, &r, false), &got); err != nil {
			t.Fatalf("no JSON: %v", err)
		}
		if want := strings.ToValidUTF8(s, ""); s == want && !strings.ContainsRune(s, 0xfffd) && len(s) <= maxField && got.Identity != want {
			t.Errorf("identity %q came back as %q", want, got.Identity)
		}
		// Property: a common line keeps its fields apart.
		if line := strings.TrimSuffix(string(appendCommon(nil, &r, false)), "\n"); !commonLine.MatchString(line) {
			t.Errorf("not the common format: %q", line)
		}
	})
}

func newTestLog(t *testing.T, o Options) (*Log, *bytes.Buffer) {
	t.Helper()
	var faults bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&lockedWriter{w: &faults}, nil))
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return l, &faults
}

// lockedWriter makes a writer safe for use from several goroutines.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func TestEveryLineIsWrittenOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l, _ := newTestLog(t, Options{Format: JSON, Path: path})
	var writers sync.WaitGroup
	const goroutines, each = 8, 500
	for g := range goroutines {
		writers.Go(func() {
			for i := range each {
				r := full()
				r.ID = session.NewID(fmt.Sprintf("%d-", g), uint64(i))
				l.SessionEnded(r)
			}
		})
	}
	writers.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for line := range strings.Lines(string(data)) {
		var got struct{ ID string }
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		ids[got.ID]++
	}
	if len(ids) != goroutines*each {
		t.Errorf("%d lines, want %d", len(ids), goroutines*each)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, want 0640", info.Mode().Perm())
	}
}

func TestLinesAppearAtOnceOnAWriter(t *testing.T) {
	r, w := io.Pipe()
	l, _ := newTestLog(t, Options{Format: Common, Writer: w})
	l.SessionEnded(full())
	b := make([]byte, 4096)
	n, err := r.Read(b)
	if err != nil || !commonLine.MatchString(strings.TrimSpace(string(b[:n]))) {
		t.Errorf("read %q, %v", b[:n], err)
	}
	r.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestReopenAfterTheFileWasMoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l, _ := newTestLog(t, Options{Format: Common, Path: path})
	l.SessionEnded(full())
	l.flush()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	l.SessionEnded(full())
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.SessionEnded(full())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]int{path + ".1": 2, path: 1} {
		data, err := os.ReadFile(file)
		if got := strings.Count(string(data), "\n"); err != nil || got != want {
			t.Errorf("%s has %d lines (%v), want %d", filepath.Base(file), got, err, want)
		}
	}
}

func TestFullDisk(t *testing.T) {
	l, faults := newTestLog(t, Options{Format: JSON, Path: "/dev/full"})
	for range 3 {
		l.SessionEnded(full())
		l.flush()
	}
	err := l.Close()
	if err == nil || !strings.Contains(err.Error(), "3 lines") {
		t.Errorf("Close = %v, want the number of lost lines", err)
	}
	if n := strings.Count(faults.String(), "cannot be written"); n != 1 {
		t.Errorf("the fault was logged %d times, want once:\n%s", n, faults)
	}
}

// disk takes so many bytes and no more.
type disk struct {
	room    int
	content bytes.Buffer
}

func (d *disk) Write(p []byte) (int, error) {
	n := min(len(p), d.room)
	d.room -= n
	d.content.Write(p[:n])
	if n < len(p) {
		return n, errors.New("no space left")
	}
	return n, nil
}

// A disk that fills up in the middle of a line leaves half of one, and no line behind it is joined to that.
func TestDiskThatFillsUp(t *testing.T) {
	line := len(appendJSON(nil, ptr(full()), false))
	d := &disk{room: line + line/2}
	l, faults := newTestLog(t, Options{Format: JSON, Writer: d})
	for _, room := range []int{0, 0, 10 * line} {
		l.SessionEnded(full())
		l.SessionEnded(full())
		l.flush()
		l.writing.Lock()
		d.room += room
		l.writing.Unlock()
	}
	l.SessionEnded(full())
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	var whole int
	for _, s := range strings.Split(strings.TrimSuffix(d.content.String(), "\n"), "\n") {
		if json.Valid([]byte(s)) {
			whole++
		} else if !strings.HasPrefix(string(appendJSON(nil, ptr(full()), false)), s) {
			t.Errorf("the line %q is more than half of one", s)
		}
	}
	if whole != 2 || !strings.Contains(faults.String(), "lines_lost=5") {
		t.Errorf("%d whole lines and the faults %s; want 2, and 5 that were lost", whole, faults)
	}
}

func ptr[T any](v T) *T { return &v }

func TestSlowWriterDropsAndSaysSo(t *testing.T) {
	r, w := io.Pipe()
	l, faults := newTestLog(t, Options{Format: JSON, Writer: w})
	rec := full()
	rec.URL = strings.Repeat("u", maxField)
	const lines = 2 * maxPending / maxField
	for range lines {
		l.SessionEnded(rec) // nobody reads yet: this must not block
	}
	l.mu.Lock()
	dropped := l.pending.dropped
	l.mu.Unlock()
	read := make(chan int)
	go func() {
		data, _ := io.ReadAll(r)
		read <- bytes.Count(data, []byte("\n"))
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	w.Close()
	if got := <-read; dropped == 0 || got+int(dropped) != lines {
		t.Errorf("%d lines written and %d dropped, want %d together", got, dropped, lines)
	}
	if !strings.Contains(faults.String(), "were dropped") {
		t.Error("the dropped lines were not reported")
	}
}

func TestUnknownFormatAndPath(t *testing.T) {
	if _, err := New(Options{Format: "xml"}); err == nil {
		t.Error("an unknown format was taken")
	}
	if _, err := New(Options{Path: filepath.Join(t.TempDir(), "no", "such", "folder")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("err = %v, want not exist", err)
	}
}

func TestOffWritesNothing(t *testing.T) {
	var b bytes.Buffer
	l, _ := newTestLog(t, Options{Format: Off, Writer: &b})
	l.SessionEnded(full())
	if err := l.Close(); err != nil || b.Len() != 0 {
		t.Errorf("wrote %q, %v", b.String(), err)
	}
}

// TestNumbers: what is formatted by hand reads as package time and strconv write it.
func TestNumbers(t *testing.T) {
	begin := time.Date(2026, 3, 1, 11, 59, 59, 999_499_999, time.FixedZone("", 3600))
	for d := time.Duration(0); d < 48*time.Hour; d = d*2 + 1_234_567 {
		at := begin.Add(d)
		if got, want := string(appendTime(nil, at)), at.UTC().Format("2006-01-02T15:04:05.000Z07:00"); got != want {
			t.Errorf("time %s, want %s", got, want)
		}
		if got, want := string(appendSeconds(nil, d)), strconv.FormatFloat(d.Seconds(), 'f', 6, 64); got != want {
			t.Errorf("%v is %s seconds, want %s", d, got, want)
		}
	}
}

// TestReconfigureUnderWay: no line of the old form comes to the new place.
func TestReconfigureUnderWay(t *testing.T) {
	dir := t.TempDir()
	l, err := New(Options{Format: JSON, Path: filepath.Join(dir, "json")})
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				l.SessionEnded(full())
			}
		}
	}()
	for range 20 {
		for _, f := range []Format{Squid, JSON} {
			if err := l.Reconfigure(Options{Format: f, Path: filepath.Join(dir, string(f))}); err != nil {
				t.Error(err)
			}
			l.SessionEnded(full()) // whenever the other goroutine runs
		}
	}
	close(stop)
	<-stopped
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, string(Squid)))
	if err != nil || len(text) == 0 || bytes.Contains(text, []byte{'{'}) {
		t.Errorf("the file of the other form has %d bytes, JSON among them %v; %v", len(text), bytes.Contains(text, []byte{'{'}), err)
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	r := full()
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = appendJSON(buf[:0], &r, true)
	}
}
