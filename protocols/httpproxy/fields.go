package httpproxy

import (
	"bytes"
	"net/netip"

	"polyport/internal/http1"
)

// anonymity is the [http] table's level of the same name.
type anonymity uint8

const (
	// hideClient adds Via and removes what the client says of itself.
	hideClient anonymity = iota
	// hideProxy is hideClient, but it adds no Via and removes the client's.
	hideProxy
	// anonymityOff adds Via and a Forwarded that names the client.
	anonymityOff
)

var anonymityLevels = map[string]anonymity{"off": anonymityOff, "hide-client": hideClient, "hide-proxy": hideProxy}

// hides reports whether a request field does not go on to the origin.
func (a anonymity) hides(name []byte) bool {
	if a == anonymityOff {
		return false
	}
	switch len(name) {
	case len("Via"):
		return a == hideProxy && http1.EqualFold(name, "Via")
	case len("Forwarded"): // and X-Real-IP, Client-IP
		if http1.EqualFold(name, "Forwarded") || http1.EqualFold(name, "X-Real-IP") || http1.EqualFold(name, "Client-IP") {
			return true
		}
	case len("True-Client-IP"):
		if http1.EqualFold(name, "True-Client-IP") {
			return true
		}
	}
	const prefix = "X-Forwarded-"
	return len(name) > len(prefix) && http1.EqualFold(name[:len(prefix)], prefix)
}

// forwardedFor is the value of a Forwarded field that names the client (RFC 7239
// section 4): an IPv6 address stands in brackets and quotes (section 6).
func forwardedFor(client netip.Addr) string {
	switch {
	case !client.IsValid():
		return "for=unknown"
	case client.Is6():
		return `for="[` + client.String() + `]"`
	}
	return "for=" + client.String()
}

// bindsConnection reports whether a field of that name has credentials or a
// challenge of a scheme that authenticates a connection and not a request: NTLM, and
// Negotiate (RFC 4559 section 6), of which nobody outside can tell whether it is NTLM.
func bindsConnection(f *http1.Fields, name string) bool {
	for value := range f.Values(name) {
		for element := range http1.List(value) { // a line may hold several challenges
			scheme, _, _ := bytes.Cut(element, []byte(" "))
			if http1.EqualFold(scheme, "NTLM") || http1.EqualFold(scheme, "Negotiate") {
				return true
			}
		}
	}
	return false
}

// upgradeWish returns the protocols of an Upgrade field that may be asked of the
// origin; "" if none is left. h2c is taken out: requests in it would pass by the
// checks that each request has to pass here.
func upgradeWish(value []byte) string {
	var wish []byte
	for p := range http1.List(value) {
		name, _, _ := bytes.Cut(p, []byte("/"))
		if http1.EqualFold(name, "h2c") || http1.EqualFold(name, "HTTP") {
			continue
		}
		if len(wish) > 0 {
			wish = append(wish, ", "...)
		}
		wish = append(wish, p...)
	}
	return string(wish)
}

// wished reports whether every protocol that a 101 switches to is one of wish (RFC
// 9110 section 7.8).
func wished(wish string, switched []byte) bool {
	n := 0
	for p := range http1.List(switched) {
		n++
		found := false
		for w := range http1.List([]byte(wish)) {
			found = found || bytes.EqualFold(p, w)
		}
		if !found {
			return false
		}
	}
	return n > 0
}
