package reject

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"polyport/internal/clienthello"
	"polyport/mux"
	"polyport/protocols/spec"
)

// wire is a client that sends nothing more, and keeps what it gets.
type wire struct {
	net.Conn
	out bytes.Buffer
	err error // of Write
}

func (w *wire) Read([]byte) (int, error)    { panic("the handler reads") }
func (w *wire) Write(b []byte) (int, error) { w.out.Write(b); return len(b), w.err }
func (w *wire) RemoteAddr() net.Addr        { return &net.TCPAddr{} }
func (w *wire) LocalAddr() net.Addr         { return &net.TCPAddr{} }

// fake is a session that keeps what it is told.
type fake struct {
	conn   *mux.Conn
	reason string
	status int
	tls    bool // the listener requires it
}

func (f *fake) RequiresTLS() bool       { return f.tls }
func (f *fake) Conn() *mux.Conn         { return f.conn }
func (f *fake) SetReason(reason string) { f.reason = cmp.Or(f.reason, reason) }
func (f *fake) SetStatus(code int)      { f.status = code }

func decodeNothing(any) error { return nil }

func TestNew(t *testing.T) {
	rows, err := New(spec.Env{}, decodeNothing)
	if err != nil || len(rows) != 1 || rows[0].Name != "reject" || rows[0].Handler == nil {
		t.Fatalf("New = %+v, %v, want the one row reject", rows, err)
	}
	for _, first := range []string{"\x00", "G", "\x16\x03\x01", "anything"} {
		if got := rows[0].Match([]byte(first)); got != mux.Match {
			t.Errorf("match(%q) = %v, want a match", first, got)
		}
	}
	bad := errors.New("bad table")
	if _, err := New(spec.Env{}, func(any) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("New: %v, want decode's error", err)
	}
}

func TestServe(t *testing.T) {
	tests := []struct {
		first, looks string
		hinted       bool
		answer       []byte
		status       int
	}{
		{"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH", true, nil, 0},
		{"EHLO mail.example.org\r\n", "SMTP", true, nil, 0},
		{"\x16\x03\x01\x02\x00\x01", "TLS", true, clienthello.AlertAccessDenied.Record(), 0},
		{"\x80\x2e\x01\x03\x01\x00", "SSL 2.0, which RFC 6176 prohibits", false, clienthello.AlertProtocolVersion.Record(), 0},
		{"\x80\x2e\x01\x00\x02\x00", "SSL 2.0, which RFC 6176 prohibits", false, clienthello.AlertProtocolVersion.Record(), 0},
		{"\x80\x2e\x01\x07\x02\x00", "binary", false, nil, 0},
		{"GET / HTTP/1.1\r\n", "HTTP", true, forbidden, 403},
		{"CONNECT a:443 HTTP/1.1\r\n", "HTTP", true, forbidden, 403},
		{"PRI * HTTP/2.0\r\n", "HTTP/2 without TLS", false, nil, 0},
		{"GETX", "text", false, nil, 0},
		{"\x05\x01\x00", "SOCKS 5", true, nil, 0},
		{"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "SOCKS 4", true, nil, 0},
		{"PROXY TCP4 192.0.2.1", "a PROXY header", true, nil, 0},
		{"\r\n\r\n\x00\r\nQUIT\n\x21", "a PROXY header", true, nil, 0},
		{"\x00\x00\x00\x08\x04\xd2\x16\x2f", "PostgreSQL", true, nil, 0},
		{"\x03\x00\x00\x13\x0e\xe0", "RDP", true, nil, 0},
		{"\x13BitTorrent protocol", "BitTorrent", false, nil, 0},
		{"hello\tthere\r\n", "text", false, nil, 0},
		{"hello\x7f", "binary", false, nil, 0},
		{"h\xc3\xa9", "binary", false, nil, 0},
		{"\x01", "binary", false, nil, 0},
		{"", "nothing", false, nil, 0},
	}
	for _, tt := range tests {
		t.Run(strconv.Quote(tt.first), func(t *testing.T) {
			w := &wire{}
			f := &fake{conn: mux.NewConn(w, "main", Name, []byte(tt.first))}
			err := handler{}.serve(f)
			var refused *Error
			if !errors.As(err, &refused) {
				t.Fatalf("serve: %v, want an *Error", err)
			}
			if refused.Looks != tt.looks || refused.Bytes != len(tt.first) || (refused.Hint != "") != tt.hinted {
				t.Errorf("serve: %+v, want it to look like %q with a hint: %v", refused, tt.looks, tt.hinted)
			}
			if !bytes.Equal(w.out.Bytes(), tt.answer) || f.status != tt.status || f.reason != "unknown_protocol" {
				t.Errorf("answer %q, status %d, reason %q, want %q, %d", w.out.Bytes(), f.status, f.reason, tt.answer, tt.status)
			}
		})
	}
}

func TestForbiddenIsHTTP(t *testing.T) {
	for says, answer := range map[string][]byte{"HTTP is not served": forbidden, "https://": wantsHTTPS} {
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // of a buffer
		if err != nil || !strings.Contains(string(body), says) || resp.StatusCode != 403 || !resp.Close {
			t.Errorf("status %d, body %q (%v), close %v; want %q in it", resp.StatusCode, body, err, resp.Close, says)
		}
		if got := resp.Header.Get("Proxy-Status"); got != "polyport; error=http_request_denied" {
			t.Errorf("Proxy-Status: %q", got)
		}
	}
}

func TestServeClientGone(t *testing.T) {
	w := &wire{err: net.ErrClosed}
	f := &fake{conn: mux.NewConn(w, "main", Name, []byte("GET / HTTP/1.1\r\n"))}
	if err := (handler{}).serve(f); !errors.Is(err, net.ErrClosed) || f.status != 0 {
		t.Errorf("serve: %v, status %d, want the write's error and no status", err, f.status)
	}
}

func TestCorpus(t *testing.T) {
	text, err := os.ReadFile("testdata/first-bytes.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(fields) != 3 || fields[2] != Name {
			t.Fatalf("%q is not a name, quoted bytes and the row %s", line, Name)
		}
		first, err := strconv.Unquote(fields[1])
		if err != nil {
			t.Fatalf("%s: %v", fields[0], err)
		}
		if got := match([]byte(first)); got != mux.Match {
			t.Errorf("%s: match = %v", fields[0], got)
		}
	}
}

// FuzzMatch: every first byte is matched, and nothing that a client sent gets into the error or the answer.
func FuzzMatch(f *testing.F) {
	f.Add([]byte("GET http://user:secret@example.com/ HTTP/1.1\r\n"))
	f.Add([]byte("\x16\x03\x01"))
	f.Add([]byte("password=hunter2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if match(b) != mux.Match {
			t.Fatalf("match(%q) is no match", b)
		}
		k := classify(b)
		known := k.name == text.name || k.name == binary.name || k.name == none.name || k.name == sslv2.name
		for _, other := range kinds {
			known = known || k.name == other.name && k.hint == other.hint && bytes.Equal(k.answer, other.answer)
		}
		if !known {
			t.Fatalf("classify(%q) = %+v, which is on no list", b, k)
		}
	})
}

func TestErrorSaysWhatToDo(t *testing.T) {
	const begins = "no row of the protocol table takes this connection; its first 8 bytes look like "
	tests := []struct {
		name string
		err  Error
		want string
	}{
		{"hint", Error{Bytes: 8, Looks: "SMTP", Hint: hintRaw}, begins + "SMTP; if it is welcome here, write a [protocols.raw.NAME] table for it"},
		{"nothing to do", Error{Bytes: 8, Looks: "text"}, begins + "text"},
		{"not told", Error{Bytes: 8, Looks: "TLS", Err: net.ErrClosed}, begins + "TLS (use of closed network connection)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("Error = %q, want %q", got, tt.want)
			}
		})
	}
}

// Where nobody is served outside TLS, everybody is told so, as far as its protocol can.
func TestServeOutsideTLS(t *testing.T) {
	tests := []struct {
		first  string
		answer string // what it begins with
		status int
	}{
		{"GET http://example.com/ HTTP/1.1\r\n", "HTTP/1.1 403 Forbidden\r\n", 403},
		{"CONNECT example.com:443 HTTP/1.1\r\n", "HTTP/1.1 403 Forbidden\r\n", 403},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 403 Forbidden\r\n", 403},
		{"\x05\x01\x00", "\x05\xff", 0},
		{"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00", 0},
		{"EHLO mail.example.org\r\n", "", 0},
	}
	for _, tt := range tests {
		t.Run(strconv.Quote(tt.first[:3]), func(t *testing.T) {
			w := &wire{}
			f := &fake{conn: mux.NewConn(w, "main", Name, []byte(tt.first)), tls: true}
			var refused *Error
			if err := (handler{}).serve(f); !errors.As(err, &refused) || !strings.Contains(refused.Hint, "require_tls") {
				t.Errorf("serve: %v, want a hint at require_tls", err)
			}
			if got := w.out.String(); !strings.HasPrefix(got, tt.answer) || tt.answer == "" && got != "" {
				t.Errorf("answer %q, want %q", got, tt.answer)
			}
			if f.reason != reasonTLS || f.status != tt.status {
				t.Errorf("reason %q, status %d; want %q, %d", f.reason, f.status, reasonTLS, tt.status)
			}
		})
	}
}
