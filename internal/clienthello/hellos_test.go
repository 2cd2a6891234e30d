package clienthello

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// captured returns what real clients sent, by file name.
func captured(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured hellos in testdata: %v", err)
	}
	hellos := map[string][]byte{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		hellos[strings.TrimSuffix(filepath.Base(f), ".hex")] = b
	}
	return hellos
}

// firstWrite keeps what a TLS client writes first and ends the handshake.
type firstWrite struct {
	net.Conn
	sent []byte
}

func (f *firstWrite) Write(b []byte) (int, error) {
	f.sent = append(f.sent, b...)
	return len(b), nil
}

func (f *firstWrite) Read([]byte) (int, error) { return 0, io.EOF }

// goHello returns the ClientHello that crypto/tls sends with c.
func goHello(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	f := &firstWrite{}
	if err := tls.Client(f, c).Handshake(); err == nil || len(f.sent) == 0 {
		t.Fatalf("crypto/tls sent no ClientHello: %v", err)
	}
	return f.sent
}

// extension is one extension of a made hello.
type extension struct {
	id   uint16
	data []byte
}

// made describes a hello that no client at hand sends.
type made struct {
	version    uint16
	noExts     bool
	extensions []extension
}

// message returns the handshake message.
func (m made) message() []byte {
	b := []byte{byte(m.version >> 8), byte(m.version)}
	b = append(b, bytes.Repeat([]byte{0x5a}, 32)...)
	b = append(b, 0)                      // legacy_session_id
	b = append(b, 0, 4, 0x13, 1, 0xa, 10) // cipher_suites
	b = append(b, 1, 0)                   // legacy_compression_methods
	if !m.noExts {
		var exts []byte
		for _, e := range m.extensions {
			exts = append(exts, byte(e.id>>8), byte(e.id))
			exts = append(exts, vector16(e.data)...)
		}
		b = append(b, vector16(exts)...)
	}
	return handshake(typeClientHello, b)
}

// handshake puts the handshake header in front of body.
func handshake(msgType byte, body []byte) []byte {
	n := len(body)
	return append([]byte{msgType, byte(n >> 16), byte(n >> 8), byte(n)}, body...)
}

// vector16 is a vector with a length of two bytes.
func vector16(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }

// serverName is the server_name extension with one host_name.
func serverName(name string) extension {
	return extension{0, vector16(append([]byte{0}, vector16([]byte(name))...))}
}

// alpn is the application_layer_protocol_negotiation extension.
func alpn(protocols ...string) extension {
	var list []byte
	for _, p := range protocols {
		list = append(append(list, byte(len(p))), p...)
	}
	return extension{16, vector16(list)}
}

// versions is the supported_versions extension.
func versions(v ...uint16) extension {
	list := []byte{byte(2 * len(v))}
	for _, v := range v {
		list = append(list, byte(v>>8), byte(v))
	}
	return extension{43, list}
}

// padding is the padding extension of RFC 7685.
func padding(n int) extension { return extension{21, make([]byte, n)} }

// records frames a message in records of at most size bytes.
func records(message []byte, size int) []byte {
	var b []byte
	for part := range slices.Chunk(message, size) {
		b = append(b, recordHandshake, 3, 1)
		b = append(b, vector16(part)...)
	}
	return b
}

// unframed returns the message inside of well-formed records.
func unframed(raw []byte) []byte {
	var message []byte
	for len(raw) > 0 {
		n := int(raw[3])<<8 | int(raw[4])
		message = append(message, raw[recordHeaderLen:recordHeaderLen+n]...)
		raw = raw[recordHeaderLen+n:]
	}
	return message
}
