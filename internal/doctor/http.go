package doctor

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// Bounds of an answer: nobody but a fault, or a stranger, comes near them.
const (
	maxHead    = 64 << 10 // octets
	maxInterim = 8        // 1xx responses
)

// errNotHTTP says that what came back is no HTTP/1 response.
var errNotHTTP = errors.New("not an HTTP/1 response")

// sendGet is a client of the row "http" (RFC 9112 section 3.2.2).
func sendGet(c net.Conn, x *examination) answer {
	t := x.target.String()
	head, err := x.request(c, "GET http://"+t+"/ HTTP/1.1\r\nHost: "+t+"\r\nConnection: close\r\n")
	if err != nil {
		return head.broken(err)
	}
	if token, ours := head.proxyError(); ours {
		switch token {
		case "http_protocol_error", "http_response_incomplete":
			// The row did what it should: whoever is there does not speak HTTP.
			return answer{reached, "the target was reached; it does not speak HTTP (" + token + ")"}
		}
	}
	return head.judge(x, x.given) // whatever an origin says, it was reached
}

// sendConnect is a client of the row "connect" (RFC 9110 section 9.3.6).
func sendConnect(c net.Conn, x *examination) answer {
	t := x.target.String()
	head, err := x.request(c, "CONNECT "+t+" HTTP/1.1\r\nHost: "+t+"\r\n")
	if err != nil {
		return head.broken(err)
	}
	return head.judge(x, false)
}

// sendBrowse is a browser that was pointed at the port. Whether there is a help
// page or not, somebody has to answer.
func sendBrowse(c net.Conn, x *examination) answer {
	head, err := x.exchange(c, "GET / HTTP/1.1\r\nHost: "+x.address+"\r\nConnection: close\r\n\r\n")
	switch {
	case err != nil:
		return head.broken(err)
	case head.status >= 500:
		return answer{failing, head.words()}
	case head.status >= 400:
		return answer{reached, "no help page here (" + head.words() + ")"}
	}
	return answer{reached, "there is one (" + head.words() + ")"}
}

// request adds the credentials, if there are any, and the end of the head.
func (x *examination) request(c net.Conn, head string) (response, error) {
	if x.User != "" {
		pair := base64.StdEncoding.EncodeToString([]byte(x.User + ":" + x.Password))
		head += "Proxy-Authorization: Basic " + pair + "\r\n"
	}
	return x.exchange(c, head+"\r\n")
}

// exchange sends a request and reads the head of the response.
func (x *examination) exchange(c net.Conn, request string) (response, error) {
	if _, err := io.WriteString(c, request); err != nil {
		return response{}, err
	}
	r := textproto.NewReader(bufio.NewReader(io.LimitReader(c, maxHead)))
	for range maxInterim {
		head, err := readHead(r)
		if err != nil || head.status >= 200 || head.status == http.StatusSwitchingProtocols {
			return head, err
		}
	}
	return response{}, errNotHTTP
}

// response is the head of a response.
type response struct {
	status int
	fields textproto.MIMEHeader
}

// readHead reads a status line and fields (RFC 9112 section 4).
func readHead(r *textproto.Reader) (response, error) {
	line, err := r.ReadLine()
	if err != nil {
		return response{}, err
	}
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if !strings.HasPrefix(version, "HTTP/1.") || err != nil || len(code) != 3 || status < 100 {
		return response{}, errNotHTTP
	}
	fields, err := r.ReadMIMEHeader()
	if err != nil {
		var malformed textproto.ProtocolError
		if errors.As(err, &malformed) {
			return response{}, errNotHTTP
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return response{}, err
	}
	return response{status, fields}, nil
}

// broken is the answer when there is no whole head.
func (response) broken(err error) answer {
	if errors.Is(err, errNotHTTP) {
		return answer{foreign, "what came back is not HTTP/1"}
	}
	return broken(err)
}

// words is the status line in our own words, and the error token if there is one.
func (h response) words() string {
	s := strconv.Itoa(h.status)
	if text := http.StatusText(h.status); text != "" {
		s += " " + text
	}
	if token, _ := h.proxyError(); token != "" {
		s += ", " + token
	}
	return s
}

// proxyError returns the error token of Proxy-Status (RFC 9209 section 2.3), and
// whether polyport itself made the answer.
func (h response) proxyError() (token string, ours bool) {
	for _, field := range h.fields.Values("Proxy-Status") {
		name, params, _ := strings.Cut(field, ";")
		if strings.TrimSpace(name) != "polyport" {
			continue
		}
		ours = true
		for _, p := range strings.Split(params, ";") {
			if v, ok := strings.CutPrefix(strings.TrimSpace(p), "error="); ok && isToken(v) {
				token = v
			}
		}
	}
	return token, ours
}

// isToken reports whether s looks like the error tokens of RFC 9209, so that it may be printed.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return len(s) <= 64
}

// judge says what a response amounts to. forwarded says that one which polyport did
// not make itself must be the target's.
func (h response) judge(x *examination, forwarded bool) answer {
	token, ours := h.proxyError()
	words := h.words()
	switch {
	case h.status == http.StatusProxyAuthRequired && x.User == "":
		return answer{needsUser, words}
	case h.status == http.StatusProxyAuthRequired:
		return answer{badUser, words}
	case h.status < 300, !ours && forwarded:
		return answer{reached, words}
	case !ours:
		return answer{foreign, words + " without polyport's Proxy-Status field"}
	case h.status == http.StatusForbidden:
		return answer{denied, words}
	case h.status == http.StatusTooManyRequests:
		return answer{badUser, words + ", too many wrong passwords came from here"}
	case token == "proxy_internal_error", token == "connection_limit_reached":
		return answer{failing, words}
	case h.status == http.StatusBadGateway, h.status == http.StatusServiceUnavailable, h.status == http.StatusGatewayTimeout:
		return answer{unreachable, words}
	}
	return answer{foreign, words + " to a request that is in order"}
}
