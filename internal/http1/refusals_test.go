package http1

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"
)

// refusals are requests that must be refused, and why.
var refusals = []struct {
	name, in string
	want     *ParseError
}{
	{"length and coding", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", errBothFramings},
	{"coding and length", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", errBothFramings},
	{"coding and empty length", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length:\r\n\r\n", errBothFramings},
	{"two lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", errManyLengths},
	{"the same length twice", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\ncontent-length: 5\r\n\r\n", errManyLengths},
	{"a list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5, 5\r\n\r\n", errBadLength},
	{"length with plus", "POST / HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\n", errBadLength},
	{"length with minus", "POST / HTTP/1.1\r\n" + host + "Content-Length: -5\r\n\r\n", errBadLength},
	{"length in hex", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x5\r\n\r\n", errBadLength},
	{"length with underscore", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1_0\r\n\r\n", errBadLength},
	{"length with inner space", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5 5\r\n\r\n", errBadLength},
	{"length quoted", "POST / HTTP/1.1\r\n" + host + "Content-Length: \"5\"\r\n\r\n", errBadLength},
	{"length in other digits", "POST / HTTP/1.1\r\n" + host + "Content-Length: \xd9\xa5\r\n\r\n", errBadLength},
	{"empty length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", errBadLength},
	{"length over int64", "POST / HTTP/1.1\r\n" + host + "Content-Length: 9223372036854775808\r\n\r\n", errBadLength},
	{"length over uint64", "POST / HTTP/1.1\r\n" + host + "Content-Length: 18446744073709551621\r\n\r\n", errBadLength},
	{"length of 20 digits", "POST / HTTP/1.1\r\n" + host + "Content-Length: 00000000000000000005\r\n\r\n", errBadLength},
	{"CONNECT with a length", "CONNECT a:1 HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\n", errConnectBody},
	{"CONNECT chunked", "CONNECT a:1 HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n", errConnectBody},

	{"coding gzip, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n", errBadCoding},
	{"coding chunked, chunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked, chunked\r\n\r\n", errBadCoding},
	{"coding identity", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: identity\r\n\r\n", errBadCoding},
	{"coding xchunked", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n", errBadCoding},
	{"coding with parameter", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked;a=b\r\n\r\n", errBadCoding},
	{"coding quoted", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \"chunked\"\r\n\r\n", errBadCoding},
	{"coding after empty element", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: , chunked\r\n\r\n", errBadCoding},
	{"coding with vertical tab", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \vchunked\r\n\r\n", errValue},
	{"empty coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n\r\n", errBadCoding},
	{"two codings", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", errManyCodings},
	{"coding in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", errOldCoding},

	{"obs-fold", "GET / HTTP/1.1\r\n" + host + "A: b\r\n c\r\n\r\n", errFold},
	{"obs-fold with tab", "GET / HTTP/1.1\r\n" + host + "A: b\r\n\tc\r\n\r\n", errFold},
	{"space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", errFold},
	{"a line of one space", "GET / HTTP/1.1\r\n" + host + " \r\n\r\n", errFold},
	{"space before the colon", "GET / HTTP/1.1\r\n" + host + "A : b\r\n\r\n", errNameSpace},
	{"tab before the colon", "GET / HTTP/1.1\r\n" + host + "A\t: b\r\n\r\n", errNameSpace},
	{"space before the colon of a length", "POST / HTTP/1.1\r\n" + host + "Content-Length : 5\r\n\r\n", errNameSpace},
	{"no colon", "GET / HTTP/1.1\r\n" + host + "A\r\n\r\n", errNoColon},
	{"empty name", "GET / HTTP/1.1\r\n" + host + ": b\r\n\r\n", errNoName},
	{"space in a name", "GET / HTTP/1.1\r\n" + host + "A b: c\r\n\r\n", errName},
	{"bracket in a name", "GET / HTTP/1.1\r\n" + host + "A(: c\r\n\r\n", errName},
	{"NUL in a name", "GET / HTTP/1.1\r\n" + host + "A\x00: c\r\n\r\n", errName},
	{"high byte in a name", "GET / HTTP/1.1\r\n" + host + "\xc3\xa4: c\r\n\r\n", errName},
	{"NUL in a value", "GET / HTTP/1.1\r\n" + host + "A: b\x00c\r\n\r\n", errValue},
	{"DEL in a value", "GET / HTTP/1.1\r\n" + host + "A: b\x7f\r\n\r\n", errValue},
	{"escape in a value", "GET / HTTP/1.1\r\n" + host + "A: \x1b[1m\r\n\r\n", errValue},
	{"bare CR in a value", "GET / HTTP/1.1\r\n" + host + "A: b\rc: d\r\n\r\n", errValue},
	{"CR before CR LF", "GET / HTTP/1.1\r\n" + host + "A: b\r\r\n\r\n", errValue},
	{"bare CR for the empty line", "GET / HTTP/1.1\r\n" + host + "\r\r\n\r\n", errNoColon},
	{"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", errBareLF},
	{"bare LF after a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", errBareLF},
	{"bare LF for the empty line", "GET / HTTP/1.1\r\n" + host + "\n", errBareLF},
	{"bare LF before the request", "\nGET / HTTP/1.1\r\n" + host + "\r\n", errBareLF},

	{"no Host", "GET / HTTP/1.1\r\nA: b\r\n\r\n", errNoHost},
	{"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", errManyHosts},
	{"two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", errManyHosts},
	{"Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", errBadHost},
	{"Host with a comma-separated list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", errBadHost},
	{"Host with userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", errBadHost},
	{"Host with a slash", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", errBadHost},
	{"Host with a bad port", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", errBadHost},
	{"Host with two ports", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", errBadHost},
	{"Host with an open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", errBadHost},
	{"Host with a high byte", "GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", errBadHost},

	{"two spaces after the method", "GET  / HTTP/1.1\r\n" + host + "\r\n", errRequestLine},
	{"two spaces before the version", "GET /  HTTP/1.1\r\n" + host + "\r\n", errRequestLine},
	{"space in the target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", errRequestLine},
	{"space after the version", "GET / HTTP/1.1 \r\n" + host + "\r\n", errRequestLine},
	{"space before the method", " GET / HTTP/1.1\r\n" + host + "\r\n", errMethod},
	{"tab for a space", "GET\t/\tHTTP/1.1\r\n" + host + "\r\n", errMethod},
	{"no target", "GET HTTP/1.1\r\n" + host + "\r\n", errRequestLine},
	{"only a method", "GET\r\n" + host + "\r\n", errRequestLine},
	{"HTTP/0.9", "GET /\r\n", errRequestLine},
	{"two empty lines before", "\r\n\r\nGET / HTTP/1.1\r\n" + host + "\r\n", errRequestLine},
	{"method is no token", "GE(T / HTTP/1.1\r\n" + host + "\r\n", errMethod},
	{"method with NUL", "G\x00T / HTTP/1.1\r\n" + host + "\r\n", errMethod},
	{"a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", errMethod},
	{"method too long", strings.Repeat("A", MaxMethod+1) + " / HTTP/1.1\r\n" + host + "\r\n", errLongMethod},
	{"NUL in the target", "GET /\x00 HTTP/1.1\r\n" + host + "\r\n", errTargetBytes},
	{"tab in the target", "GET /\t HTTP/1.1\r\n" + host + "\r\n", errTargetBytes},
	{"bare CR in the target", "GET /\ra HTTP/1.1\r\n" + host + "\r\n", errTargetBytes},
	{"high byte in the target", "GET /\xc3\xa4 HTTP/1.1\r\n" + host + "\r\n", errTargetBytes},
	{"fragment in the target", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", errTargetBytes},
	{"userinfo in the target", "GET http://u:p@a/ HTTP/1.1\r\n" + host + "\r\n", errTargetUserinfo},
	{"CONNECT without a port", "CONNECT a HTTP/1.1\r\n" + host + "\r\n", errConnectTarget},

	{"version HTTP/1.2", "GET / HTTP/1.2\r\n" + host + "\r\n", errVersion},
	{"version http/1.1", "GET / http/1.1\r\n" + host + "\r\n", errVersion},
	{"version HTTP/1", "GET / HTTP/1\r\n" + host + "\r\n", errVersion},
	{"version HTTP/1.10", "GET / HTTP/1.10\r\n" + host + "\r\n", errVersion},
	{"version HTTP/01.1", "GET / HTTP/01.1\r\n" + host + "\r\n", errVersion},
	{"version HTTP/1,1", "GET / HTTP/1,1\r\n" + host + "\r\n", errVersion},
	{"version HTTP/x.1", "GET / HTTP/x.1\r\n" + host + "\r\n", errVersion},
	{"version ICY", "GET / ICY/1.11\r\n" + host + "\r\n", errVersion},
	{"version HTTP/2.0, the preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", errMajor},
	{"version HTTP/0.9", "GET / HTTP/0.9\r\n" + host + "\r\n", errMajor},

	{"too many connection options", "GET / HTTP/1.1\r\n" + host + "Connection: " + strings.Repeat(",", maxOptions+1) + "\r\n\r\n", errManyOptions},
}

func TestReadRequestRefuses(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			req, _, err := readRequest(tt.in)
			checkRefused(t, tt.in, err, tt.want)
			if n := req.Fields.Len(); n != 0 || req.Target.Raw != nil {
				t.Errorf("a refused request has %d fields and target %q", n, req.Target.Raw)
			}
		})
		t.Run(tt.name+", byte by byte", func(t *testing.T) {
			r := NewReader(iotest.OneByteReader(strings.NewReader(tt.in)))
			checkRefused(t, tt.in, r.ReadRequest(new(Request)), tt.want)
		})
	}
}

func checkRefused(t *testing.T, in string, err error, want *ParseError) {
	t.Helper()
	var got *ParseError
	if !errors.As(err, &got) || *got != *want {
		t.Errorf("reading %.200q: error %v, want %d %v", in, err, want.Status, want)
	}
}
