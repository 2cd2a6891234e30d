package httpproxy

import (
	"errors"
	"net"
	"strconv"
	"strings"

	"polyport/internal/egress"
)

// statusField is the Proxy-Status field of an answer of our own (RFC 9209): a list of one member, which is our
// name. A response that is passed on keeps what others say in it, and we add nothing.
const statusField = "Proxy-Status"

// ourName is how we are named in a Proxy-Status field.
const ourName = "polyport"

// param is a parameter beside the error of a Proxy-Status field, its value as it stands there (RFC 9651 section 4.1).
type param struct{ key, value string }

// proxyStatus is the value of a Proxy-Status field; "" is an answer that is no error.
func proxyStatus(reason token, params ...param) string {
	var b strings.Builder
	b.WriteString(ourName)
	if reason != "" {
		b.WriteString("; error=" + string(reason))
	}
	for _, p := range params {
		b.WriteString("; " + p.key + "=" + p.value)
	}
	return b.String()
}

// receivedStatus says what the origin had answered (RFC 9209 section 2.1.4).
func receivedStatus(status int) param { return param{"received-status", strconv.Itoa(status)} }

// dnsParams says what the name server had answered (RFC 9209 section 2.3.2), as far as it is known.
func dnsParams(e *egress.Error) (p []param) {
	rcode, info, ok := e.RCode()
	if !ok {
		return nil
	}
	if s, ok := sfString(rcode); ok {
		p = append(p, param{"rcode", s})
	}
	if info >= 0 {
		p = append(p, param{"info-code", strconv.Itoa(info)})
	}
	return p
}

// sfString writes a String of a structured field (RFC 9651 section 4.1.6). It is false for what cannot be one.
func sfString(s string) (string, bool) {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c < ' ' || c >= 0x7f:
			return "", false
		case c == '"' || c == '\\':
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	b.WriteByte('"')
	return b.String(), true
}

// alertParams says which alert a TLS peer had sent (RFC 9209 section 2.3.16), by its number and, where
// it is registered, its name. Package tls keeps the number to itself, but not its text.
func alertParams(err error) (p []param) {
	var e *net.OpError
	if !errors.As(err, &e) || e.Err == nil {
		return nil
	}
	id, ok := alertByText[e.Err.Error()]
	if !ok {
		return nil
	}
	p = append(p, param{"alert-id", strconv.Itoa(id)})
	if name := alertNames[uint8(id)]; name != "" {
		p = append(p, param{"alert-message", name})
	}
	return p
}
