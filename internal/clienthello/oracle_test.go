package clienthello

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// errParsed stops crypto/tls once it has parsed the hello.
var errParsed = errors.New("the ClientHello has been parsed")

// byCryptoTLS decodes one handshake message by a crypto/tls server that is
// stopped as soon as it has done so. It is the second opinion on parse.
func byCryptoTLS(message []byte) (h Hello, err error) {
	c := &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		h = Hello{
			ServerName: info.ServerName,
			ALPN:       info.SupportedProtos,
			Versions:   slices.DeleteFunc(info.SupportedVersions, isGREASE),
			ECH:        slices.Contains(info.Extensions, extECH),
		}
		if !slices.Contains(info.Extensions, extSupportedVersions) {
			// It extrapolates TLS 1.3 from a legacy_version of 0x0304.
			h.Versions = slices.DeleteFunc(h.Versions, func(v uint16) bool { return v == tls.VersionTLS13 })
		}
		return nil, errParsed
	}}
	conn := &sent{r: bytes.NewReader(records(message, maxFragment))}
	if err := tls.Server(conn, c).Handshake(); !errors.Is(err, errParsed) {
		return Hello{}, err
	}
	return h, nil
}

// sent is a client that has sent its bytes and hears nothing.
type sent struct {
	net.Conn
	r io.Reader
}

func (s *sent) Read(b []byte) (int, error)  { return s.r.Read(b) }
func (s *sent) Write(b []byte) (int, error) { return len(b), nil }

// FuzzParse: what crypto/tls takes we take, and see the same in it. What only we take is
// a trailing dot, or a fault in an extension that we do not look into.
func FuzzParse(f *testing.F) {
	for _, raw := range captured(f) {
		f.Add(unframed(raw)[messageHeaderLen:])
	}
	for _, m := range []made{
		{version: 0x0300, noExts: true},
		{version: 0x0304},
		{version: 0x0303, extensions: []extension{versions(0x2a2a, 0x0304), alpn("h2", "http/1.1"), serverName("a.example")}},
		{version: 0x0303, extensions: []extension{{extECH, []byte{1}}, serverName("a.example.")}},
	} {
		f.Add(m.message()[messageHeaderLen:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > MaxMessage-messageHeaderLen {
			return
		}
		message := handshake(typeClientHello, body)
		want, oracleErr := byCryptoTLS(message)
		got, err := parse(message)
		switch {
		case oracleErr == nil && err != nil:
			t.Fatalf("parse: %v, but crypto/tls takes it: %+v", err, want)
		case oracleErr == nil && !equal(got, want):
			t.Fatalf("parse = %+v, crypto/tls says %+v", got, want)
		case err == nil && strings.Count(string(body), got.ServerName) == 0:
			t.Fatalf("parse found the name %q, which is not there", got.ServerName)
		}
	})
}

// The corpus has no hello of which crypto/tls thinks otherwise, but for the dot.
func TestParseAgrees(t *testing.T) {
	for file, raw := range captured(t) {
		if file == "chromium-trailing-dot" {
			continue
		}
		want, err := byCryptoTLS(unframed(raw))
		if err != nil {
			t.Fatalf("%s: crypto/tls: %v", file, err)
		}
		if got, err := parse(unframed(raw)); err != nil || !equal(got, want) {
			t.Errorf("%s: parse = %+v, %v, crypto/tls says %+v", file, got, err, want)
		}
	}
}

func BenchmarkCryptoTLS(b *testing.B) {
	message := unframed(captured(b)["chromium"])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := byCryptoTLS(message); err != nil {
			b.Fatal(err)
		}
	}
}
