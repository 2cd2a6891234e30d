package clienthello

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// checkHello reads raw, with other bytes behind it, and compares everything.
func checkHello(t *testing.T, raw []byte, want Hello) {
	t.Helper()
	behind := []byte("early data")
	r := bytes.NewReader(slices.Concat(raw, behind))
	got, consumed, err := Read(r)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	if !equal(got, want) {
		t.Errorf("Read = %+v, want %+v", got, want)
	}
	if !bytes.Equal(consumed, raw) {
		t.Errorf("Read consumed %d bytes, want the %d of the hello", len(consumed), len(raw))
	}
	if r.Len() != len(behind) {
		t.Errorf("Read left %d bytes behind the hello, want %d", r.Len(), len(behind))
	}
	peeked, whole, err := Peek(slices.Concat(raw, behind))
	if !whole || err != nil || !equal(peeked, want) {
		t.Errorf("Peek = %+v, %v, %v, want %+v", peeked, whole, err, want)
	}
}

func equal(a, b Hello) bool {
	return a.ServerName == b.ServerName && a.ECH == b.ECH &&
		slices.Equal(a.ALPN, b.ALPN) && slices.Equal(a.Versions, b.Versions)
}

var (
	v13to12 = []uint16{tls.VersionTLS13, tls.VersionTLS12}
	v12to10 = []uint16{tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10}
	all     = []uint16{tls.VersionTLS13, tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10}
	web     = []string{"h2", "http/1.1"}
)

func TestReadCaptured(t *testing.T) {
	const name = "git.example.com"
	want := map[string]Hello{
		"chromium":              {name, web, v13to12, true},
		"chromium-trailing-dot": {name + ".", web, v13to12, true},
		"curl":                  {name, web, all, false},
		"gnutls-wget":           {"localhost", nil, all, false},
		"java":                  {name, web, v13to12, false},
		"node":                  {name, web, v13to12, false},
		"openssl-default":       {name, nil, all, false},
		"openssl-no-sni":        {"", nil, all, false},
		"openssl-tls10":         {name, nil, v12to10[2:], false},
		"openssl-tls11":         {name, nil, v12to10[1:], false},
		"openssl-tls12":         {name, []string{"http/1.1"}, v12to10, false},
		"openssl-tls13":         {"Git.Example.COM", web, v13to12[:1], false},
		"python":                {name, nil, v13to12, false},
	}
	hellos := captured(t)
	if len(hellos) != len(want) {
		t.Errorf("testdata holds %d hellos, this table %d", len(hellos), len(want))
	}
	for file, raw := range hellos {
		t.Run(file, func(t *testing.T) { checkHello(t, raw, want[file]) })
	}
}

func TestReadGo(t *testing.T) {
	const name = "git.example.com"
	tests := []struct {
		name   string
		config *tls.Config
		want   Hello
	}{
		{"default", &tls.Config{ServerName: name}, Hello{name, nil, v13to12, false}},
		{"upper case", &tls.Config{ServerName: "GIT.Example.com"}, Hello{"GIT.Example.com", nil, v13to12, false}},
		{"h2", &tls.Config{ServerName: name, NextProtos: web}, Hello{name, web, v13to12, false}},
		{"an address is not sent", &tls.Config{ServerName: "192.0.2.1"}, Hello{"", nil, v13to12, false}},
		{"no name", &tls.Config{InsecureSkipVerify: true}, Hello{"", nil, v13to12, false}},
		{"only 1.3", &tls.Config{ServerName: name, MinVersion: tls.VersionTLS13}, Hello{name, nil, v13to12[:1], false}},
		{"1.0 to 1.2", &tls.Config{ServerName: name, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12}, Hello{name, nil, v12to10, false}},
		{"only 1.0", &tls.Config{ServerName: name, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, Hello{name, nil, v12to10[2:], false}},
		{"post-quantum", &tls.Config{ServerName: name, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.SecP384r1MLKEM1024}}, Hello{name, nil, v13to12, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkHello(t, goHello(t, tt.config), tt.want) })
	}
}

func TestReadMade(t *testing.T) {
	grease := extension{0x1a1a, []byte{0}}
	tests := []struct {
		name string
		made made
		want Hello
	}{
		{"SSL 3.0 with a name", made{version: 0x0300, extensions: []extension{serverName("a.example")}}, Hello{"a.example", nil, nil, false}},
		{"no extensions at all", made{version: 0x0301, noExts: true}, Hello{"", nil, v12to10[2:], false}},
		{"empty extensions", made{version: 0x0303}, Hello{"", nil, v12to10, false}},
		{
			"GREASE everywhere",
			made{version: 0x0303, extensions: []extension{grease, versions(0x2a2a, 0x0304), alpn("\x3a\x3a", "h2"), serverName("a.example"), {0x4a4a, nil}}},
			Hello{"a.example", []string{"\x3a\x3a", "h2"}, []uint16{0x0304}, false},
		},
		{
			"ECH, inner",
			made{version: 0x0303, extensions: []extension{versions(0x0304), {extECH, []byte{1}}, serverName("a.example")}},
			Hello{"a.example", nil, []uint16{0x0304}, true},
		},
		{
			"ECH, outer",
			made{version: 0x0303, extensions: []extension{versions(0x0304), {extECH, []byte{0, 0, 1, 0, 1, 7, 0, 1, 9, 0, 2, 9, 9}}, serverName("public.example")}},
			Hello{"public.example", nil, []uint16{0x0304}, true},
		},
		{"16 KiB", made{version: 0x0303, extensions: []extension{padding(16 << 10), serverName("a.example")}}, Hello{"a.example", nil, v12to10, false}},
		{"just under 64 KiB", made{version: 0x0303, extensions: []extension{padding(65_000), serverName("a.example")}}, Hello{"a.example", nil, v12to10, false}},
		{
			"another kind of name", // RFC 6066 section 3: to be ignored
			made{version: 0x0303, extensions: []extension{{0, vector16(slices.Concat([]byte{7}, vector16([]byte("x")), []byte{0}, vector16([]byte("a.example"))))}}},
			Hello{"a.example", nil, v12to10, false},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			checkHello(t, records(tt.made.message(), maxFragment), tt.want)
		})
	}
}

func TestReadAnySplit(t *testing.T) {
	for file, raw := range captured(t) {
		message := unframed(raw)
		want, _, err := Read(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		t.Run(file+"/one byte at a time", func(t *testing.T) {
			got, consumed, err := Read(iotest.OneByteReader(bytes.NewReader(raw)))
			if err != nil || !equal(got, want) || !bytes.Equal(consumed, raw) {
				t.Errorf("Read = %+v, %d bytes, %v, want %+v", got, len(consumed), err, want)
			}
		})
		t.Run(file+"/records of 1 to 9 bytes", func(t *testing.T) {
			for size := 1; size < 10; size++ {
				checkHello(t, records(message, size), want)
			}
		})
		t.Run(file+"/two records, cut everywhere", func(t *testing.T) {
			for cut := 1; cut < len(message); cut++ {
				checkHello(t, append(records(message[:cut], maxFragment), records(message[cut:], maxFragment)...), want)
			}
		})
	}
}

// A record may carry more than the hello; that is for whoever gets the bytes.
func TestReadStopsInsideRecord(t *testing.T) {
	message := made{version: 0x0303, extensions: []extension{serverName("a.example")}}.message()
	record := records(slices.Concat(message, []byte{14, 0, 0, 0}), maxFragment)
	checkHello(t, record[:recordHeaderLen+len(message)], Hello{"a.example", nil, v12to10, false})
	h, whole, err := Peek(record)
	if !whole || err != nil || h.ServerName != "a.example" {
		t.Errorf("Peek = %+v, %v, %v", h, whole, err)
	}
}

func TestPeekTruncated(t *testing.T) {
	for file, raw := range captured(t) {
		for n := range len(raw) {
			if h, whole, err := Peek(raw[:n]); whole || err != nil {
				t.Fatalf("%s: Peek of %d bytes of %d = %+v, %v, %v, want more to be needed", file, n, len(raw), h, whole, err)
			}
		}
	}
}

func TestReadCutShort(t *testing.T) {
	raw := captured(t)["openssl-default"]
	for n := range len(raw) {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		_, consumed, err := Read(bytes.NewReader(raw[:n]))
		if !errors.Is(err, want) || !bytes.Equal(consumed, raw[:n]) {
			t.Fatalf("Read of %d bytes: %d bytes, %v, want %v", n, len(consumed), err, want)
		}
	}
}

// The last bytes may come together with an error; the hello is whole all the same.
func TestReadDataWithError(t *testing.T) {
	raw := captured(t)["curl"]
	if _, _, err := Read(iotest.DataErrReader(bytes.NewReader(raw))); err != nil {
		t.Errorf("Read: %v", err)
	}
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

func TestReaderFailures(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		name string
		r    io.Reader
		want error
	}{
		{"at once", iotest.ErrReader(broken), broken},
		{"half way", io.MultiReader(strings.NewReader("\x16\x03\x01"), iotest.ErrReader(broken)), broken},
		{"nothing, for ever", emptyReader{}, io.ErrNoProgress},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := Read(tt.r); !errors.Is(err, tt.want) {
				t.Errorf("Read: %v, want %v", err, tt.want)
			}
		})
	}
}

func TestReadRefused(t *testing.T) {
	whole := made{version: 0x0303, extensions: []extension{serverName("a.example")}}.message()
	framed := func(exts ...extension) string {
		return string(records(made{version: 0x0303, extensions: exts}.message(), maxFragment))
	}
	tests := []struct {
		name  string
		bytes string
		at    int // bytes after which it must be refused; 0 for the end
		want  *Error
	}{
		{"HTTP", "GET / HTTP/1.1\r\n", 1, ErrNotTLS},
		{"SSL 2.0", "\x80\x2e\x01\x03\x01", 1, ErrSSLv2},
		{"major version 2", "\x16\x02", 2, ErrNotTLS},
		{"alert record", "\x15\x03\x01\x00\x02\x02\x28", 1, ErrNotTLS},
		{"alert in the middle", string(records(whole[:10], 10)) + "\x15\x03\x01\x00\x02\x02\x28", 16, ErrNotTLS},
		{"0x80 in the middle", string(records(whole[:10], 10)) + "\x80", 16, ErrNotTLS},
		{"empty record", "\x16\x03\x01\x00\x00", 5, ErrEmpty},
		{"empty record in the middle", string(records(whole[:10], 10)) + "\x16\x03\x01\x00\x00", 20, ErrEmpty},
		{"record of 16385 bytes", "\x16\x03\x01\x40\x01", 5, ErrOverflow},
		{"ServerHello", "\x16\x03\x01\x00\x30\x02", 6, ErrNotHello},
		{"one byte over 64 KiB", "\x16\x03\x01\x40\x00\x01\x00\xff\xfd", 9, ErrTooLarge},
		{"16 MiB", "\x16\x03\x01\x40\x00\x01\xff\x00\x00", 9, ErrTooLarge},
		{"too many records", string(records(handshake(1, make([]byte, 60_000)), 1)), 0, ErrFragmented},
		{"empty hello", "\x16\x03\x01\x00\x04\x01\x00\x00\x00", 0, ErrMalformed},
		{"nothing but zeros", string(records(handshake(1, make([]byte, 100)), maxFragment)), 0, ErrMalformed},
		{"empty name", framed(serverName("")), 0, ErrMalformed},
		{"two names", framed(extension{0, vector16([]byte("\x00\x00\x01a\x00\x00\x01b"))}), 0, ErrMalformed},
		{"empty name list", framed(extension{0, []byte{0, 0}}), 0, ErrMalformed},
		{"name too long for its list", framed(extension{0, []byte{0, 4, 0, 0, 9, 'a'}}), 0, ErrMalformed},
		{"bytes behind the name list", framed(extension{0, append(serverName("a").data, 0)}), 0, ErrMalformed},
		{"the same extension twice", framed(serverName("a.example"), serverName("b.example")), 0, ErrMalformed},
		{"empty ALPN", framed(extension{16, []byte{0, 0}}), 0, ErrMalformed},
		{"empty protocol", framed(extension{16, []byte{0, 1, 0}}), 0, ErrMalformed},
		{"bytes behind ALPN", framed(extension{16, append(alpn("h2").data, 0)}), 0, ErrMalformed},
		{"odd versions", framed(extension{43, []byte{3, 3, 4, 3}}), 0, ErrMalformed},
		{"empty versions", framed(extension{43, []byte{0}}), 0, ErrMalformed},
		{"extension cut short", string(records(handshake(1, append(made{version: 0x0303, noExts: true}.message()[4:], 0, 9, 0, 0, 0, 9, 1)), maxFragment)), 0, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The pipe never ends: a refusal that waits for more bytes would hang.
			r := io.MultiReader(strings.NewReader(tt.bytes), iotest.ErrReader(errors.New("it waited for more")))
			_, raw, err := Read(r)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Read: %v, want %v", err, tt.want)
			}
			if !strings.HasPrefix(tt.bytes, string(raw)) {
				t.Errorf("Read returned other bytes than it read")
			}
			if tt.at > 0 {
				checkRefusedAt(t, tt.bytes, tt.at, tt.want)
			}
		})
	}
}

// checkRefusedAt checks that the verdict comes with the byte that can decide.
func checkRefusedAt(t *testing.T, s string, at int, want *Error) {
	t.Helper()
	if _, _, err := Peek([]byte(s[:at])); !errors.Is(err, want) {
		t.Errorf("Peek of %d bytes: %v, want %v", at, err, want)
	}
	if _, _, err := Peek([]byte(s[:at-1])); err != nil {
		t.Errorf("Peek of %d bytes: %v, want more to be needed", at-1, err)
	}
}

func TestVersion(t *testing.T) {
	tests := []struct {
		versions []uint16
		want     string
	}{
		{nil, "SSLv3"},
		{v12to10[2:], "TLSv1.0"},
		{v12to10[1:], "TLSv1.1"},
		{v12to10, "TLSv1.2"},
		{v13to12, "TLSv1.3"},
		{[]uint16{0x7f1c, 0x0303}, "TLSv1.2"}, // a draft counts for nothing
	}
	for _, tt := range tests {
		if got := (Hello{Versions: tt.versions}).Version(); got != tt.want {
			t.Errorf("Version of %x = %q, want %q", tt.versions, got, tt.want)
		}
	}
}

// Memory follows what has come, not what a header announces.
func TestReadMemoryBound(t *testing.T) {
	announced := "\x16\x03\x01\x40\x00\x01\x00\xff\x00"
	_, raw, err := Read(strings.NewReader(announced))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("Read: %v", err)
	}
	if cap(raw) > 2*firstRead {
		t.Errorf("%d bytes were made ready for %d that came", cap(raw), len(announced))
	}
}

func TestAlert(t *testing.T) {
	tests := []struct {
		alert Alert
		code  byte
		name  string
	}{
		{AlertUnexpectedMessage, 10, "unexpected_message"},
		{AlertRecordOverflow, 22, "record_overflow"},
		{AlertIllegalParameter, 47, "illegal_parameter"},
		{AlertAccessDenied, 49, "access_denied"},
		{AlertDecodeError, 50, "decode_error"},
		{AlertProtocolVersion, 70, "protocol_version"},
		{AlertInternalError, 80, "internal_error"},
		{AlertMissingExtension, 109, "missing_extension"},
		{AlertUnrecognizedName, 112, "unrecognized_name"},
		{Alert(3), 3, "alert(3)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, want := tt.alert.Record(), []byte{21, 3, 3, 0, 2, 2, tt.code}; !bytes.Equal(got, want) {
				t.Errorf("Record = %x, want %x", got, want)
			}
			if got := tt.alert.String(); got != tt.name {
				t.Errorf("String = %q, want %q", got, tt.name)
			}
		})
	}
}

// answering is a server that answers the first bytes of a client with b.
type answering struct {
	firstWrite
	b []byte
}

func (a *answering) Read(b []byte) (int, error) {
	if len(a.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, a.b)
	a.b = a.b[n:]
	return n, nil
}

// crypto/tls clients of every version take the alert for what it is.
func TestAlertIsUnderstood(t *testing.T) {
	for v := uint16(tls.VersionTLS10); v <= tls.VersionTLS13; v++ {
		t.Run(tls.VersionName(v), func(t *testing.T) {
			c := &tls.Config{ServerName: "a.example", MinVersion: v, MaxVersion: v}
			err := tls.Client(&answering{b: AlertAccessDenied.Record()}, c).Handshake()
			if err == nil || !strings.Contains(err.Error(), "remote error: tls: access denied") {
				t.Errorf("the client says %v", err)
			}
		})
	}
}

func BenchmarkPeek(b *testing.B) {
	for _, name := range []string{"chromium", "openssl-default", "openssl-tls12"} {
		raw := captured(b)[name]
		b.Run(fmt.Sprintf("%s-%dB", name, len(raw)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, whole, err := Peek(raw); !whole || err != nil {
					b.Fatal(whole, err)
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	raw := captured(b)["chromium"]
	message := unframed(raw)
	for _, bm := range []struct {
		name  string
		bytes []byte
		wrap  func(io.Reader) io.Reader
	}{
		{"whole", raw, func(r io.Reader) io.Reader { return r }},
		{"byte-by-byte", raw, iotest.OneByteReader},
		{"records-of-1-byte", records(message, 1), func(r io.Reader) io.Reader { return r }},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Read(bm.wrap(bytes.NewReader(bm.bytes))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
