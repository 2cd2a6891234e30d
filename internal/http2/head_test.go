package http2

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2/hpack"
)

// lines makes field lines of names and values in turn.
func lines(fields ...string) (out []hpack.HeaderField) {
	for i := 0; i < len(fields); i += 2 {
		out = append(out, hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return out
}

// with returns the fields of a GET and more.
func with(more ...string) []hpack.HeaderField {
	return lines(append(getFields[:len(getFields):len(getFields)], more...)...)
}

func TestParseHead(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lines []hpack.HeaderField
		end   bool
		want  Head
	}{
		{
			"GET", with(), true,
			Head{Method: "GET", Scheme: "https", Authority: "a.example", Path: "/", Fields: []Field{}, Length: -1, End: true},
		},
		{
			"fields in order", with("cookie", "a=1", "accept", "", "cookie", "b=2", "te", "trailers"), true,
			Head{
				Method: "GET", Scheme: "https", Authority: "a.example", Path: "/", Length: -1, End: true,
				Fields: []Field{{"cookie", "a=1"}, {"accept", ""}, {"cookie", "b=2"}, {"te", "trailers"}},
			},
		},
		{
			"length", with("content-length", "007"), false,
			Head{Method: "GET", Scheme: "https", Authority: "a.example", Path: "/", Fields: []Field{{"content-length", "007"}}, Length: 7},
		},
		{
			"host alone", lines(":method", "OPTIONS", ":scheme", "http", ":path", "*", "host", "b:81"), true,
			Head{Method: "OPTIONS", Scheme: "http", Authority: "b:81", Path: "*", Fields: []Field{{"host", "b:81"}}, Length: -1, End: true},
		},
		{
			"host with the port of the scheme", with("host", "A.example:443"), true,
			Head{Method: "GET", Scheme: "https", Authority: "a.example", Path: "/", Fields: []Field{{"host", "A.example:443"}}, Length: -1, End: true},
		},
		{
			"CONNECT", lines(connectFields...), false,
			Head{Method: "CONNECT", Authority: "a.example:443", Fields: []Field{}, Length: -1},
		},
		{
			"extended CONNECT", lines(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/ws", ":authority", "a"), false,
			Head{Method: "CONNECT", Protocol: "websocket", Scheme: "https", Path: "/ws", Authority: "a", Fields: []Field{}, Length: -1},
		},
		{
			"another scheme needs no authority", lines(":method", "GET", ":scheme", "urn", ":path", "x:y"), true,
			Head{Method: "GET", Scheme: "urn", Path: "x:y", Fields: []Field{}, Length: -1, End: true},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseHead(tt.lines, tt.end)
			if err != nil {
				t.Fatalf("parseHead: %v", err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("parseHead (-want +got):\n%s", diff)
			}
		})
	}
}

// malformed are requests that must be refused (RFC 9113 sections 8.1 to 8.3).
var malformed = []struct {
	name  string
	lines []hpack.HeaderField
	want  error
}{
	{"nothing", nil, errPseudoMissing},
	{"no method", lines(":scheme", "http", ":path", "/", ":authority", "a"), errPseudoMissing},
	{"no scheme", lines(":method", "GET", ":path", "/", ":authority", "a"), errPseudoMissing},
	{"no path", lines(":method", "GET", ":scheme", "http", ":authority", "a"), errPseudoMissing},
	{"no authority", lines(":method", "GET", ":scheme", "http", ":path", "/"), errAuthority},
	{"empty path", lines(":method", "GET", ":scheme", "http", ":path", "", ":authority", "a"), errPath},
	{"relative path", lines(":method", "GET", ":scheme", "http", ":path", "x", ":authority", "a"), errPath},
	{"asterisk", lines(":method", "GET", ":scheme", "http", ":path", "*", ":authority", "a"), errPath},
	{"fragment", lines(":method", "GET", ":scheme", "http", ":path", "/#x", ":authority", "a"), errPath},
	{"space in path", lines(":method", "GET", ":scheme", "http", ":path", "/ HTTP/1.1", ":authority", "a"), errPath},
	{"method", lines(":method", "GE T", ":scheme", "http", ":path", "/", ":authority", "a"), errMethod},
	{"scheme", lines(":method", "GET", ":scheme", "1http", ":path", "/", ":authority", "a"), errScheme},
	{"user information", lines(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "u:p@a"), errAuthority},
	{"CR in authority", lines(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a\r\nx: y"), errAuthority},
	{"pseudo twice", with(":path", "/"), errPseudoTwice},
	{"pseudo unknown", with(":x", "y"), errPseudoUnknown},
	{"pseudo of a response", with(":status", "200"), errPseudoUnknown},
	{"pseudo after regular", append(lines("a", "b"), with()...), errPseudoOrder},
	{"CONNECT with path", lines(":method", "CONNECT", ":authority", "a:1", ":path", "/"), errPseudoConnect},
	{"CONNECT with scheme", lines(":method", "CONNECT", ":authority", "a:1", ":scheme", "http"), errPseudoConnect},
	{"CONNECT without authority", lines(":method", "CONNECT", "host", "a:1"), errPseudoMissing},
	{"CONNECT to nothing", lines(":method", "CONNECT", ":authority", ""), errAuthority},
	{"CONNECT with length", lines(":method", "CONNECT", ":authority", "a:1", "content-length", "1"), errLengthConnect},
	{"protocol without CONNECT", with(":protocol", "websocket"), errProtocol},
	{"protocol without path", lines(":method", "CONNECT", ":protocol", "x", ":scheme", "http", ":authority", "a"), errPseudoMissing},
	{"upper case", with("Accept", "x"), errName},
	{"empty name", with("", "x"), errName},
	{"space in name", with("a b", "x"), errName},
	{"colon in name", with("a:b", "x"), errName},
	{"NUL in name", with("a\x00", "x"), errName},
	{"byte over 0x7f in name", with("\xe4", "x"), errName},
	{"NUL", with("a", "x\x00y"), errValue},
	{"CR", with("a", "x\ry"), errValue},
	{"LF", with("a", "x\ny"), errValue},
	{"DEL", with("a", "\x7f"), errValue},
	{"space in front", with("a", " x"), errValue},
	{"tab behind", with("a", "x\t"), errValue},
	{"connection", with("connection", "close"), errConnectionField},
	{"proxy-connection", with("proxy-connection", "close"), errConnectionField},
	{"keep-alive", with("keep-alive", "1"), errConnectionField},
	{"transfer-encoding", with("transfer-encoding", "chunked"), errConnectionField},
	{"upgrade", with("upgrade", "h2c"), errConnectionField},
	{"te", with("te", "gzip"), errTE},
	{"te with more", with("te", "trailers, gzip"), errTE},
	{"length", with("content-length", "+1"), errLength},
	{"length list", with("content-length", "1, 1"), errLength},
	{"length empty", with("content-length", ""), errLength},
	{"length too long", with("content-length", strings.Repeat("1", 19)), errLength},
	{"length twice", with("content-length", "0", "content-length", "0"), errLength},
	{"length without content", with("content-length", "1"), errLengthEnd},
	{"host differs", with("host", "b.example"), errHost},
	{"host with another port", with("host", "a.example:80"), errHost},
	{"host twice", with("host", "a.example", "host", "a.example"), errHost},
	{"host malformed", lines(":method", "GET", ":scheme", "http", ":path", "/", "host", "a b"), errHost},
}

func TestParseHeadRefuses(t *testing.T) {
	for _, tt := range malformed {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := parseHead(tt.lines, true); !errors.Is(err, tt.want) {
				t.Errorf("parseHead = %v, want %v", err, tt.want)
			}
		})
	}
}

func TestParseTrailers(t *testing.T) {
	got, err := parseTrailers(lines("a", "b", "c", "d"))
	if diff := cmp.Diff([]Field{{"a", "b"}, {"c", "d"}}, got); err != nil || diff != "" {
		t.Errorf("parseTrailers = %v, %v", got, err)
	}
	for _, name := range []string{":path", "A", "connection", ""} {
		if _, err := parseTrailers(lines(name, "x")); err == nil {
			t.Errorf("parseTrailers takes %q", name)
		}
	}
}

func TestCheckHead(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		fields []Field
		end    bool
		want   bool
	}{
		{"200", 200, []Field{{"a", "b"}}, true, true},
		{"103", 103, nil, false, true},
		{"1xx cannot end", 100, nil, true, false},
		{"101 is of HTTP/1.1", 101, nil, false, false},
		{"two digits", 99, nil, false, false},
		{"four digits", 1000, nil, false, false},
		{"upper case", 200, []Field{{"A", "b"}}, false, false},
		{"pseudo", 200, []Field{{":status", "b"}}, false, false},
		{"connection", 200, []Field{{"connection", "close"}}, false, false},
		{"CR LF", 200, []Field{{"a", "b\r\n"}}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := checkHead(tt.status, tt.fields, tt.end); got != tt.want {
				t.Errorf("checkHead(%d, %v, %v) = %v, want %v", tt.status, tt.fields, tt.end, got, tt.want)
			}
		})
	}
}

func TestParseUrgency(t *testing.T) {
	for _, tt := range []struct {
		value string
		want  uint8
	}{
		{"", 3},
		{"u=0", 0},
		{"u=7, i", 7},
		{"i, u=5", 5},
		{"i,u=2;x=y", 2},
		{"u=8", 3},
		{"u=-1", 3},
		{"u", 3},
		{"u=1.0", 3},
		{"U=1", 3},
		{"u=1,u=4", 4},
	} {
		if got := parseUrgency(tt.value, defaultUrgency); got != tt.want {
			t.Errorf("parseUrgency(%q) = %d, want %d", tt.value, got, tt.want)
		}
	}
}
