package httpproxy

import (
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf8"

	"polyport/internal/auth"
)

// challenge is the Proxy-Authenticate field of a 407 (RFC 7617 sections 2 and 2.1).
const challenge = `Basic realm="polyport", charset="UTF-8"`

// errCredentials says that a Proxy-Authorization field cannot be used. It never
// holds anything of the field.
var errCredentials = errors.New("the Proxy-Authorization field holds no usable Basic credentials")

// parseBasic reads the value of a Proxy-Authorization field (RFC 9110 section
// 11.7.2) with the Basic scheme (RFC 7617 section 2).
func parseBasic(value string) (auth.Credentials, error) {
	scheme, token, ok := strings.Cut(value, " ")
	if !ok || !strings.EqualFold(scheme, "Basic") {
		return auth.Credentials{}, errCredentials
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimLeft(token, " "))
	if err != nil {
		return auth.Credentials{}, errCredentials
	}
	user, password, ok := strings.Cut(string(raw), ":")
	if !ok || !plainText(user) || !plainText(password) {
		return auth.Credentials{}, errCredentials
	}
	return auth.Credentials{User: user, Password: password}, nil
}

// plainText reports whether s is UTF-8 without control characters, as RFC 7617
// section 2 wants both halves to be.
func plainText(s string) bool {
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return false
		}
	}
	return utf8.ValidString(s)
}
