package httpproxy

import (
	"bytes"

	"polyport/mux"
)

const (
	// maxMethod bounds a method token. The longest registered one, UPDATEREDIRECTREF,
	// has 17 letters.
	maxMethod = 64
	// maxSniffedLine bounds how much of a request line is asked for before a
	// method that is not known decides. Known methods never come here, so
	// their request targets may be as long as the wire layer takes them.
	maxSniffedLine = 4 << 10
)

// known are the methods at which, with the space behind them, a connection is
// HTTP for certain: those of RFC 9110 section 9.3 but CONNECT, PATCH (RFC
// 5789), QUERY and what WebDAV and CalDAV clients send. Any other token needs the
// rest of the request line, for `EHLO host` and `PING x` are tokens and a space too.
var known = [...]string{
	"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "QUERY",
	"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH", "MKCALENDAR", "ACL",
}

const (
	connectLine = methodConnect + " "
	versionMark = "HTTP/1."
)

// matchConnect is the matcher of the row "connect": the method (RFC 9110 section
// 9.3.6, case-sensitive) and a space.
func matchConnect(p []byte) mux.Verdict {
	p, v := skipEmptyLine(p)
	if v != mux.Match {
		return v
	}
	return startsWith(p, connectLine)
}

// matchHTTP is the matcher of the row "http": any method but CONNECT.
func matchHTTP(p []byte) mux.Verdict {
	p, v := skipEmptyLine(p)
	if v != mux.Match {
		return v
	}
	n := tokenLen(p)
	if n == len(p) && n <= maxMethod {
		return mux.NeedMore
	}
	if n == 0 || n > maxMethod || p[n] != ' ' {
		return mux.NoMatch
	}
	method := p[:n]
	for _, k := range known {
		if string(method) == k {
			return mux.Match
		}
	}
	if string(method) == methodConnect {
		return mux.NoMatch
	}
	return matchLine(p, n+1)
}

// matchLine judges the request line of a method that is not known, whose
// request target begins at p[start].
func matchLine(p []byte, start int) mux.Verdict {
	whole := p
	if len(p) > maxSniffedLine {
		p = p[:maxSniffedLine]
	}
	rest := p[start:]
	n := 0
	for n < len(rest) && rest[n] > ' ' && rest[n] < 0x7f {
		n++
	}
	v := mux.NeedMore
	switch {
	case n == len(rest):
	case n == 0 || rest[n] != ' ':
		v = mux.NoMatch
	case n+1 < len(rest):
		v = startsWith(rest[n+1:], versionMark)
	}
	if v == mux.NeedMore && len(whole) >= maxSniffedLine {
		return mux.NoMatch
	}
	return v
}

// skipEmptyLine returns p behind the one empty line that may stand before a request
// line (RFC 9112 section 2.2). The verdict is Match once something stands behind it.
func skipEmptyLine(p []byte) ([]byte, mux.Verdict) {
	if p[0] != '\r' {
		return p, mux.Match
	}
	v := startsWith(p, "\r\n")
	if v == mux.Match && len(p) == 2 {
		v = mux.NeedMore
	}
	return p[min(len(p), 2):], v
}

// startsWith judges p by a fixed beginning.
func startsWith(p []byte, want string) mux.Verdict {
	n := min(len(p), len(want))
	switch {
	case !bytes.Equal(p[:n], []byte(want[:n])):
		return mux.NoMatch
	case n < len(want):
		return mux.NeedMore
	}
	return mux.Match
}

// tokenLen returns how many bytes of a token (RFC 9110 section 5.6.2) p begins
// with; it looks at no more than maxMethod+1.
func tokenLen(p []byte) int {
	n := 0
	for n < len(p) && n <= maxMethod && isTokenByte[p[n]] {
		n++
	}
	return n
}

// isTokenByte is the set tchar of RFC 9110 section 5.6.2.
var isTokenByte = func() (set [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		set[c] = true
	}
	return set
}()
