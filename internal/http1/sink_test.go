package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// sunk is a Sink that keeps what it is given, one line for each call, and fails at the call number fails.
type sunk struct {
	calls []string
	fails int
	err   error
}

func (s *sunk) Head(status int, fields *Fields, end bool) error {
	return s.note("head %d %q end=%v", status, fields.lines(), end)
}

func (s *sunk) Content(p []byte) error { return s.note("content %s", p) }

func (s *sunk) End(trailers *Fields) error {
	if trailers == nil {
		return s.note("end")
	}
	return s.note("end %q", trailers.lines())
}

func (s *sunk) note(format string, args ...any) error {
	s.calls = append(s.calls, fmt.Sprintf(format, args...))
	if s.err != nil && len(s.calls) == s.fails {
		return s.err
	}
	return nil
}

// sinkWriter makes a Writer to a new Sink.
func sinkWriter() (*Writer, *sunk) {
	s, w := new(sunk), new(Writer)
	w.ResetSink(s)
	return w, s
}

func TestSink(t *testing.T) {
	trailers := parseHead(t, "A: b", "c: D")
	for _, tt := range []struct {
		name  string
		write func(w *Writer) error
		want  []string
		count int // of content; the heads are counted as text
	}{
		{"length", func(w *Writer) error {
			w.BeginResponse(404, "")
			w.FieldBytes("A", []byte("b\tc\xe9"))
			w.EndHead(Framing{Length, 5})
			io.WriteString(w, "he")
			io.WriteString(w, "")
			io.WriteString(w, "llo")
			return w.EndBody(nil)
		}, []string{`head 404 ["A: b\tc\xe9"] end=false`, "content he", "content llo", "end"}, 5},
		{"length written by hand", func(w *Writer) error {
			w.BeginResponse(200, "Fine")
			w.Field("content-length", "05")
			w.EndHead(Framing{Length, 5})
			io.WriteString(w, "hello")
			return w.EndBody(nil)
		}, []string{`head 200 ["content-length: 5"] end=false`, "content hello", "end"}, 5},
		{"length 0", func(w *Writer) error {
			w.BeginResponse(200, "")
			w.EndHead(Framing{Kind: Length})
			return w.EndBody(nil)
		}, []string{`head 200 [] end=false`, "end"}, 0},
		{"chunked", func(w *Writer) error {
			w.BeginResponse(200, "")
			w.EndHead(Framing{Kind: Chunked})
			io.WriteString(w, "hello")
			io.WriteString(w, strings.Repeat("x", 16))
			return w.EndBody(nil)
		}, []string{`head 200 [] end=false`, "content hello", "content xxxxxxxxxxxxxxxx", "end"}, 21},
		{"chunked with trailers", func(w *Writer) error {
			w.BeginResponse(200, "")
			w.EndHead(Framing{Kind: Chunked})
			io.WriteString(w, "x")
			return w.EndBody(trailers)
		}, []string{`head 200 [] end=false`, "content x", `end ["A: b" "c: D"]`}, 1},
		{"until close", func(w *Writer) error {
			w.BeginResponse(299, "")
			w.EndHead(Framing{Kind: UntilClose})
			io.WriteString(w, "hello")
			return w.EndBody(nil)
		}, []string{`head 299 [] end=false`, "content hello", "end"}, 5},
		{"HEAD keeps its length", func(w *Writer) error {
			w.BeginResponse(200, "")
			w.Field("Content-Length", "5")
			w.EndHead(Framing{Kind: NoBody})
			return w.EndBody(nil)
		}, []string{`head 200 ["Content-Length: 5"] end=true`}, 0},
		{"304", func(w *Writer) error {
			w.BeginResponse(304, "")
			w.Field("ETag", `"x"`)
			w.EndHead(Framing{Kind: NoBody})
			return w.EndBody(nil)
		}, []string{`head 304 ["ETag: \"x\""] end=true`}, 0},
		{"trailers where there is no body", func(w *Writer) error {
			w.BeginResponse(204, "")
			w.EndHead(Framing{})
			return w.EndBody(trailers)
		}, []string{`head 204 [] end=true`}, 0},
		{"interim, then final", func(w *Writer) error {
			w.BeginResponse(103, "")
			w.Field("Link", "</a>")
			w.EndHead(Framing{Kind: NoBody})
			w.EndBody(nil)
			w.BeginResponse(204, "")
			w.EndHead(Framing{Kind: NoBody})
			return w.EndBody(nil)
		}, []string{`head 103 ["Link: </a>"] end=false`, `head 204 [] end=true`}, 0},
		{"101 ends nothing", func(w *Writer) error {
			w.BeginResponse(101, "")
			w.Field("Upgrade", "websocket")
			w.EndHead(Framing{})
			return w.EndBody(nil)
		}, []string{`head 101 ["Upgrade: websocket"] end=false`}, 0},
		{"large content goes on at once", func(w *Writer) error {
			w.BeginResponse(200, "")
			w.EndHead(Framing{Length, 2 * directWrite})
			w.Write(bytes.Repeat([]byte("x"), 2*directWrite))
			return w.EndBody(nil)
		}, []string{`head 200 [] end=false`, "content " + strings.Repeat("x", 2*directWrite), "end"}, 2 * directWrite},
		{"an empty value", func(w *Writer) error {
			w.BeginResponse(200, "")
			w.Field("A", "")
			w.Field("B", "  x ")
			w.EndHead(Framing{})
			return w.EndBody(nil)
		}, []string{`head 200 ["A: " "B: x"] end=true`}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, s := sinkWriter()
			if err := tt.write(w); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(s.calls, tt.want) {
				t.Errorf("the sink got\n%q, want\n%q", s.calls, tt.want)
			}
			if n := w.Count(); n < int64(tt.count+len("HTTP/1.1 200 \r\n")) {
				t.Errorf("Count() = %d, less than what was written", n)
			}
			if w.buf != nil {
				t.Error("holds a buffer after the end of the message")
			}
		})
	}
}

func TestSinkCounts(t *testing.T) {
	w, _ := sinkWriter()
	w.BeginResponse(200, "")
	w.Field("A", "b")
	w.EndHead(Framing{Length, 5})
	const head = len("HTTP/1.1 200 OK\r\nA: b\r\n")
	if n := w.Count(); n != int64(head) {
		t.Errorf("Count() = %d after the head, want %d", n, head)
	}
	io.WriteString(w, "hello")
	w.EndBody(nil)
	if n := w.Count(); n != int64(head+5) {
		t.Errorf("Count() = %d at the end, want %d", n, head+5)
	}
}

// Flush has nothing to do: a sink has everything already.
func TestSinkIsNeverBehind(t *testing.T) {
	w, s := sinkWriter()
	w.BeginResponse(200, "")
	if err := w.EndHead(Framing{Kind: Chunked}); err != nil || len(s.calls) != 1 {
		t.Errorf("after the head: %q, %v", s.calls, err)
	}
	if _, err := io.WriteString(w, "x"); err != nil || len(s.calls) != 2 {
		t.Errorf("after content: %q, %v", s.calls, err)
	}
	if err := w.Flush(); err != nil || len(s.calls) != 2 {
		t.Errorf("after Flush: %q, %v", s.calls, err)
	}
}

func TestSinkErrors(t *testing.T) {
	gone := errors.New("the stream is gone")
	write := func(w *Writer) (errs []error) {
		w.BeginResponse(200, "")
		errs = append(errs, w.EndHead(Framing{Kind: Chunked}))
		_, err := io.WriteString(w, "x")
		return append(errs, err, w.EndBody(nil), w.Flush())
	}
	for call, name := range []string{"head", "content", "end"} {
		t.Run(name, func(t *testing.T) {
			w, s := sinkWriter()
			s.fails, s.err = call+1, gone
			for i, err := range write(w) {
				var werr *WriteError
				if i < call && err != nil || i >= call && (!errors.As(err, &werr) || !errors.Is(err, gone)) {
					t.Errorf("step %d: %v", i, err)
				}
			}
			if len(s.calls) != call+1 {
				t.Errorf("after its error the sink was called again: %q", s.calls)
			}
		})
	}
}

// A Writer to a sink refuses what any Writer does, and the sink hears nothing of it.
func TestSinkRefuses(t *testing.T) {
	begin := func(w *Writer) { w.BeginResponse(200, "") }
	for _, tt := range []struct {
		name  string
		write func(w *Writer)
		want  error
	}{
		{"name", func(w *Writer) { begin(w); w.Field("A:", "b") }, ErrInvalidHead},
		{"value", func(w *Writer) { begin(w); w.Field("A", "b\r\nc: d") }, ErrInvalidHead},
		{"value in bytes", func(w *Writer) { begin(w); w.FieldBytes("A", []byte("b\x00")) }, ErrInvalidHead},
		{"transfer coding", func(w *Writer) { begin(w); w.Field("transfer-encoding", "chunked") }, ErrInvalidHead},
		{"two lengths", func(w *Writer) { begin(w); w.Field("Content-Length", "1"); w.Field("Content-Length", "1") }, ErrInvalidHead},
		{"a status", func(w *Writer) { w.BeginResponse(600, "") }, ErrInvalidHead},
		{"field before the start line", func(w *Writer) { w.Field("A", "b") }, ErrWriteOrder},
		{"body in the head", func(w *Writer) { begin(w); io.WriteString(w, "x") }, ErrWriteOrder},
		{"length differs", func(w *Writer) { begin(w); w.Field("Content-Length", "1"); w.EndHead(Framing{Length, 2}) }, ErrWriteOrder},
		{"204 with length", func(w *Writer) { w.BeginResponse(204, ""); w.EndHead(Framing{Length, 0}) }, ErrWriteOrder},
		{"a head that no buffer holds, as one value", func(w *Writer) { begin(w); w.Field("A", strings.Repeat("b", largeBuffer)) }, ErrInvalidHead},
		{"a head that no buffer holds, as many", func(w *Writer) {
			begin(w)
			for range 100 {
				w.Field("A", strings.Repeat("b", 1000))
			}
		}, ErrInvalidHead},
		{"a head that no buffer holds, in bytes", func(w *Writer) { begin(w); w.FieldBytes("A", bytes.Repeat([]byte("b"), largeBuffer)) }, ErrInvalidHead},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, s := sinkWriter()
			tt.write(w)
			if err := w.EndHead(Framing{}); !errors.Is(err, tt.want) {
				t.Errorf("EndHead = %v, want %v", err, tt.want)
			}
			if err := w.EndBody(nil); !errors.Is(err, tt.want) {
				t.Errorf("EndBody = %v, want that it stays %v", err, tt.want)
			}
			if len(s.calls) > 0 {
				t.Errorf("the sink got %q", s.calls)
			}
			w.ResetSink(s)
			if w.buf != nil {
				t.Error("holds a buffer after Reset")
			}
			begin(w)
			if err := w.EndHead(Framing{}); err != nil || len(s.calls) != 1 {
				t.Errorf("after Reset: %v, %q", err, s.calls)
			}
		})
	}
}

func TestSinkBodyDiffers(t *testing.T) {
	for _, tt := range []struct{ name, body string }{{"too long", "xyz"}, {"too short", "x"}} {
		w, s := sinkWriter()
		w.BeginResponse(200, "")
		w.EndHead(Framing{Length, 2})
		io.WriteString(w, tt.body)
		if err := w.EndBody(nil); !errors.Is(err, ErrWriteOrder) || strings.HasPrefix(s.calls[len(s.calls)-1], "end") {
			t.Errorf("%s: EndBody = %v, and the sink got %q", tt.name, err, s.calls)
		}
	}
}

// Everything that an origin may send fits: a head as long as any that is read, whose reason phrase
// or one value may be most of it.
func TestSinkTakesLongHeads(t *testing.T) {
	for _, tt := range []struct {
		name, in string
	}{
		{"a long value", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("b", MaxHead-200) + "\r\n\r\n"},
		{"many values", "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: "+strings.Repeat("b", 300)+"\r\n", MaxFields) + "\r\n"},
		{"a long reason phrase", "HTTP/1.1 200 " + strings.Repeat("x", MaxStartLine-20) + "\r\nA: b\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, _, err := readResponse("HEAD", tt.in)
			if err != nil {
				t.Fatal(err)
			}
			w, s := sinkWriter()
			w.BeginForwardResponse(resp)
			resp.Strip()
			w.Fields(&resp.Fields)
			w.Field("Via", "1.1 polyport")
			if err := w.EndHead(Framing{}); err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf("head 200 %q end=true", append(resp.Fields.lines(), "Via: 1.1 polyport")); s.calls[0] != want {
				t.Errorf("the sink got %.200q", s.calls[0])
			}
		})
	}
}

func TestCopyBodyToASink(t *testing.T) {
	in := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\nx\r\n0\r\nHost: a\r\nA: b\r\n\r\n"
	resp, r, err := readResponse("GET", in)
	if err != nil {
		t.Fatal(err)
	}
	w, s := sinkWriter()
	w.BeginForwardResponse(resp)
	resp.Strip()
	w.Fields(&resp.Fields)
	w.EndHead(resp.Framing)
	if n, err := CopyBody(w, r, CopyOptions{}); n != 6 || err != nil {
		t.Errorf("CopyBody = %d, %v", n, err)
	}
	if want := []string{"head 200 [] end=false", "content hello", "content x", `end ["A: b"]`}; !slices.Equal(s.calls, want) {
		t.Errorf("the sink got %q, want %q", s.calls, want)
	}
}

func TestCopyBodyToASinkCutShort(t *testing.T) {
	for _, in := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
	} {
		resp, r, err := readResponse("GET", in)
		if err != nil {
			t.Fatal(err)
		}
		w, s := sinkWriter()
		w.BeginForwardResponse(resp)
		resp.Strip()
		w.EndHead(resp.Framing)
		if _, err := CopyBody(w, r, CopyOptions{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: CopyBody = %v", in, err)
		}
		if want := []string{"head 200 [] end=false", "content hello"}; !slices.Equal(s.calls, want) {
			t.Errorf("%q: the sink got %q, want what has come and no end", in, s.calls)
		}
	}
}

// message is what a response is in any form.
type message struct {
	status   int
	fields   []string
	bodiless bool
	body     string
	trailers []string
}

// messages is a Sink that keeps messages.
type messages struct{ list []message }

func (m *messages) last() *message { return &m.list[len(m.list)-1] }

func (m *messages) Head(status int, fields *Fields, end bool) error {
	m.list = append(m.list, message{status: status, fields: fields.lines(), bodiless: end})
	return nil
}

func (m *messages) Content(p []byte) error { m.last().body += string(p); return nil }

func (m *messages) End(trailers *Fields) error {
	if trailers != nil {
		m.last().trailers = trailers.lines()
	}
	return nil
}

// FuzzSink checks that a sink is given what a Reader finds in the text that a plain Writer writes for the
// same calls, and that both refuse the same.
func FuzzSink(f *testing.F) {
	f.Add(uint16(200), "OK", "A", "b", "Content-Length", "3", "abc", uint8(Length), uint8(1), "T", "u")
	f.Add(uint16(200), "", "Set-Cookie", "", "Via", " x\t", "abc", uint8(Chunked), uint8(2), "T", "u")
	f.Add(uint16(200), "", "A", "b", "c", "d", "abc", uint8(UntilClose), uint8(9), "Host", "u")
	f.Add(uint16(204), "\xe9", "Content-Length", "007", "C", "d", "", uint8(NoBody), uint8(1), "T", "u")
	f.Add(uint16(103), "", "Link", "</x>", "transfer-encoding", "chunked", "", uint8(NoBody), uint8(1), "", "")
	f.Add(uint16(304), "", "A b", "b", "C", "d\r\ne: f", "x", uint8(NoBody), uint8(1), "", "")
	f.Add(uint16(200), "", "A", strings.Repeat("b", smallBuffer), "C", strings.Repeat("d", smallBuffer), "x", uint8(Chunked), uint8(1), "T", "u")
	f.Fuzz(func(t *testing.T, status uint16, reason, name, value, name2, value2, body string, kind, cut uint8, trailer, trailerValue string) {
		if len(reason)+len(name)+len(value)+len(name2)+len(value2) > MaxHead/2 || len(reason) > MaxStartLine/2 {
			return
		}
		framing := Framing{Kind: Kind(kind % 4)}
		if framing.Kind == Length {
			framing.Length = int64(len(body))
		}
		var trailers *Fields
		line := []byte(trailer + ": " + trailerValue)
		if s, err := parseField(line, 0, len(line)); err == nil && s.id != idContentLength && s.id != idTransferEncoding &&
			len(line) < 1000 && framing.Kind == Chunked { // a Reader gives nothing else to pass on
			trailers = &Fields{buf: line, list: []span{s}}
		}
		write := func(w *Writer) error {
			w.BeginResponse(int(status), reason)
			w.Field(name, value)
			w.FieldBytes(name2, []byte(value2))
			w.EndHead(framing)
			for rest := body; rest != ""; {
				n := min(len(rest), int(cut)+1)
				io.WriteString(w, rest[:n])
				rest = rest[n:]
			}
			return w.EndBody(trailers)
		}
		var text writes
		m, sinking := new(messages), new(Writer)
		sinking.ResetSink(m)
		plainErr, sinkErr := write(NewWriter(&text)), write(sinking)
		if plainErr != sinkErr {
			t.Fatalf("a plain writer says %v, one to a sink %v", plainErr, sinkErr)
		}
		if plainErr == nil {
			checkSameMessage(t, text.all(), framing, m)
		}
	})
}

// checkSameMessage compares what a Reader finds with what a sink was given.
func checkSameMessage(t *testing.T, text string, framing Framing, m *messages) {
	t.Helper()
	method := "GET"
	if framing.Kind == NoBody {
		method = "HEAD"
	}
	resp, r, err := readResponse(method, text)
	if err != nil {
		return // a second Content-Length in another field, Connection with too many options and the like
	}
	want := message{status: resp.Status, bodiless: framing.Kind == NoBody && resp.Status >= 200}
	added := map[string]bool{} // by EndHead
	if framing.Kind == Chunked {
		added["Transfer-Encoding: chunked"] = true
	}
	if framing.Kind == Length {
		added[fmt.Sprintf("Content-Length: %d", framing.Length)] = true
	}
	got := m.list[0]
	want.fields = resp.Fields.lines()
	if n := len(want.fields); n > len(got.fields) && added[want.fields[n-1]] {
		want.fields = want.fields[:n-1]
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return // trailers that may not be any
	}
	want.body = string(body)
	if len(m.list) != 1 || got.status != want.status || !slices.Equal(got.fields, want.fields) || got.bodiless != want.bodiless || got.body != want.body {
		t.Errorf("the sink got %+v, the text has %+v", m.list, want)
	}
	for _, line := range r.Trailers().lines() { // a Reader drops those that have no place there
		if !slices.Contains(got.trailers, line) {
			t.Errorf("trailer %q is not in %q", line, got.trailers)
		}
	}
}
