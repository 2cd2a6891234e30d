package reject

import (
	"bytes"
	"strconv"

	"polyport/internal/clienthello"
)

// kind is a class of first bytes.
type kind struct {
	name   string
	begins []string // any of these; nil is judged by classify itself
	hint   string
	answer []byte // what the client gets, in its own protocol; nil is nothing
	status int    // the HTTP status in answer, or outside; 0 for none
	// outside is what it gets in place of answer where nobody is served outside TLS; nil is answer.
	outside []byte
}

// Hints to the owner, who reads them in the log.
const (
	hintRow      = "if it is welcome here, put the row back into the listener's protocols"
	hintRaw      = "if it is welcome here, write a [protocols.raw.NAME] table for it"
	hintBalancer = "if a balancer of yours sends it, name the balancer in proxy_protocol_from"
)

// What clients of HTTP/1 are told.
var (
	forbidden  = forbid("HTTP is not served on this port.\n")
	wantsHTTPS = forbid("This proxy serves nobody outside TLS. Connect to it with https:// in front of its name, as in:\n" +
		"  curl --proxy https://NAME:PORT ...\n")
)

// forbid is a 403 (RFC 9110 section 15.5.4), with the token of RFC 9209. A client of HTTP/1.0 takes it too (RFC 9112 section 2.3).
func forbid(body string) []byte {
	return []byte("HTTP/1.1 403 Forbidden\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\n" +
		"Content-Length: " + strconv.Itoa(len(body)) + "\r\n" +
		"Proxy-Status: polyport; error=http_request_denied\r\n" +
		"Connection: close\r\n\r\n" + body)
}

// hintTLS is the hint on a listener that serves nobody outside TLS.
const hintTLS = "the listener has require_tls"

// kinds in the order in which they are tried.
var kinds = []kind{
	{name: "a PROXY header", begins: []string{"PROXY ", "\r\n\r\n\x00\r\nQUIT\n"}, hint: hintBalancer},
	{name: "TLS", begins: []string{"\x16\x03"}, hint: hintRow, answer: clienthello.AlertAccessDenied.Record()},
	{name: "HTTP/2 without TLS", begins: []string{"PRI * HTTP/2"}, status: 403, outside: wantsHTTPS},
	{
		name: "HTTP", hint: hintRow, answer: forbidden, status: 403, outside: wantsHTTPS,
		begins: []string{"GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "CONNECT ", "OPTIONS ", "TRACE ", "PATCH "},
	},
	{name: "SSH", begins: []string{"SSH-"}, hint: hintRaw},
	{name: "SMTP", begins: []string{"EHLO ", "HELO "}, hint: hintRaw},
	{name: "PostgreSQL", begins: []string{"\x00\x00\x00\x08\x04\xd2\x16"}, hint: hintRaw},
	{name: "RDP", begins: []string{"\x03\x00\x00"}, hint: hintRaw},
	{name: "BitTorrent", begins: []string{"\x13BitTorrent protocol"}},
	// Outside TLS no method is acceptable (RFC 1928 section 3), and a SOCKS 4 request is rejected.
	{name: "SOCKS 5", begins: []string{"\x05"}, hint: hintRow, outside: []byte("\x05\xff")},
	{name: "SOCKS 4", begins: []string{"\x04\x01", "\x04\x02"}, hint: hintRow, outside: []byte("\x00\x5b\x00\x00\x00\x00\x00\x00")},
}

// Classes of what is none of kinds.
var (
	sslv2  = kind{name: "SSL 2.0, which RFC 6176 prohibits", answer: clienthello.AlertProtocolVersion.Record()}
	text   = kind{name: "text"}
	binary = kind{name: "binary"}
	none   = kind{name: "nothing"}
)

// classify names the class of what a client sent first.
func classify(b []byte) kind {
	if len(b) == 0 {
		return none
	}
	for _, k := range kinds {
		for _, p := range k.begins {
			if bytes.HasPrefix(b, []byte(p)) {
				return k
			}
		}
	}
	// An SSL 2.0 CLIENT-HELLO: a two-byte length with its top bit set, then
	// msg_type 1 and a version (RFC 5246 appendix E.2).
	if len(b) >= 5 && b[0] == 0x80 && b[2] == 1 && (b[3] == 3 || b[3] == 0 && b[4] == 2) {
		return sslv2
	}
	for _, c := range b {
		if c >= 0x7f || c < ' ' && c != '\t' && c != '\r' && c != '\n' {
			return binary
		}
	}
	return text
}
