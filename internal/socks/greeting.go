package socks

import (
	"bytes"
	"errors"
	"fmt"
)

// Method is an authentication method (RFC 1928 section 3).
type Method byte

// The methods that this package can carry out, and the refusal.
const (
	NoAuthentication Method = 0x00
	UsernamePassword Method = 0x02
	NoAcceptable     Method = 0xff
)

// Greeting is the version identifier/method selection message (RFC 1928 section 3).
type Greeting struct {
	// Methods are 1 to 255 methods in the client's order. The slice lies in the
	// buffer that was parsed.
	Methods []byte
}

// Offers reports whether the client offers a method.
func (g Greeting) Offers(m Method) bool { return bytes.IndexByte(g.Methods, byte(m)) >= 0 }

// ParseGreeting decodes VER, NMETHODS and METHODS.
func ParseGreeting(b []byte) (g Greeting, n int, err error) {
	if len(b) > 0 && b[0] != Version5 {
		return g, 0, malformed("VER of the greeting is not 5")
	}
	if len(b) < 2 {
		return g, 3, ErrShort
	}
	if b[1] == 0 {
		return g, 0, malformed("the greeting offers no method")
	}
	if n = 2 + int(b[1]); len(b) < n {
		return g, n, ErrShort
	}
	return Greeting{Methods: b[2:n:n]}, n, nil
}

// AppendGreeting encodes a greeting. The error says that there are no methods or more than 255.
func AppendGreeting(dst []byte, methods ...Method) ([]byte, error) {
	if len(methods) == 0 || len(methods) > 255 {
		return nil, fmt.Errorf("encode a SOCKS5 greeting: %d methods, not 1 to 255", len(methods))
	}
	dst = append(dst, Version5, byte(len(methods)))
	for _, m := range methods {
		dst = append(dst, byte(m))
	}
	return dst, nil
}

// ParseSelection decodes the server's method selection message (RFC 1928 section 3).
func ParseSelection(b []byte) (m Method, n int, err error) {
	if len(b) > 0 && b[0] != Version5 {
		return 0, 0, malformed("VER of the method selection is not 5")
	}
	if len(b) < 2 {
		return 0, 2, ErrShort
	}
	return Method(b[1]), 2, nil
}

// AppendSelection encodes a method selection message.
func AppendSelection(dst []byte, m Method) []byte { return append(dst, Version5, byte(m)) }

// passwordVersion is VER of the username/password subnegotiation (RFC 1929 section 2).
const passwordVersion = 0x01

// Credentials is the username/password request (RFC 1929 section 2). It must not be logged.
type Credentials struct{ User, Password string }

// String hides the password from whoever prints it by mistake.
func (Credentials) String() string { return "(credentials)" }

// GoString hides the password from %#v.
func (Credentials) GoString() string { return "(credentials)" }

// ParseCredentials decodes VER, ULEN, UNAME, PLEN and PASSWD. Lengths of zero, which
// RFC 1929 does not allow, pass: Java's and Dante's clients send them, and they should hear that
// the password is wrong instead of seeing the connection closed. A user name
// with control characters does not pass, since HTTP could not carry it either.
func ParseCredentials(b []byte) (c Credentials, n int, err error) {
	if len(b) > 0 && b[0] != passwordVersion {
		return c, 0, malformed("VER of the username/password request is not 1")
	}
	if len(b) < 2 {
		return c, 3, ErrShort
	}
	plen := 2 + int(b[1]) // where PLEN stands
	if len(b) <= plen {
		return c, plen + 1, ErrShort
	}
	if n = plen + 1 + int(b[plen]); len(b) < n {
		return c, n, ErrShort
	}
	if hasControl(b[2:plen]) {
		return c, 0, malformed("UNAME holds NUL or a control character")
	}
	return Credentials{User: string(b[2:plen]), Password: string(b[plen+1 : n])}, n, nil
}

// AppendCredentials encodes a username/password request. The error says that a
// field has more than 255 octets, or that the user name holds control characters; it never quotes either.
func AppendCredentials(dst []byte, c Credentials) ([]byte, error) {
	if len(c.User) > 255 || len(c.Password) > 255 {
		return nil, errors.New("encode SOCKS5 credentials: the user name or the password has more than 255 octets")
	}
	if hasControl(c.User) {
		return nil, errors.New("encode SOCKS5 credentials: the user name holds a control character")
	}
	dst = append(append(dst, passwordVersion, byte(len(c.User))), c.User...)
	return append(append(dst, byte(len(c.Password))), c.Password...), nil
}

// STATUS of the username/password reply (RFC 1929 section 2).
const (
	StatusSuccess byte = 0x00
	StatusFailure byte = 0x01 // any other value is a failure too
)

// ParseStatus decodes the username/password reply.
func ParseStatus(b []byte) (status byte, n int, err error) {
	if len(b) > 0 && b[0] != passwordVersion {
		return 0, 0, malformed("VER of the username/password reply is not 1")
	}
	if len(b) < 2 {
		return 0, 2, ErrShort
	}
	return b[1], 2, nil
}

// AppendStatus encodes a username/password reply.
func AppendStatus(dst []byte, status byte) []byte { return append(dst, passwordVersion, status) }
