package http1

// nameClass says what is to be known of a field name. It is found once, when the field
// line is parsed.
type nameClass uint8

const (
	// hopByHop fields belong to one connection (RFC 9110 section 7.6.1) or, like
	// Proxy-Authorization, to the proxy next to it.
	hopByHop nameClass = 1 << iota
	// endToEnd fields are defined for all recipients, so a connection option that
	// names one is never appropriate (RFC 9110 section 7.6.1) and is ignored.
	endToEnd
	// notInTrailer fields have no place in a trailer section (RFC 9110 section
	// 6.5.1): framing, routing, request modifiers, authentication, response control
	// data, and what says how to process the content.
	notInTrailer
)

// fieldID names the fields that this package acts on by itself.
type fieldID uint8

const (
	otherField fieldID = iota
	idConnection
	idContentLength
	idExpect
	idHost
	idMaxForwards
	idProxyConnection
	idTE
	idTransferEncoding
	idUpgrade
)

type knownName struct {
	name  string
	id    fieldID
	class nameClass
}

// knownNames is where every decision about a field name is written down.
var knownNames = []knownName{
	{"Connection", idConnection, hopByHop | notInTrailer},
	{"Proxy-Connection", idProxyConnection, hopByHop | notInTrailer},
	{"Keep-Alive", 0, hopByHop | notInTrailer},
	{"TE", idTE, hopByHop | notInTrailer},
	{"Transfer-Encoding", idTransferEncoding, hopByHop | notInTrailer},
	{"Upgrade", idUpgrade, hopByHop | notInTrailer},
	{"HTTP2-Settings", 0, hopByHop | notInTrailer},
	{"Proxy-Authorization", 0, hopByHop | notInTrailer},
	// An origin has no business to ask for or confirm credentials that are the
	// proxy's; those of an upstream proxy concern only us.
	{"Proxy-Authenticate", 0, hopByHop | notInTrailer},
	{"Proxy-Authentication-Info", 0, hopByHop | notInTrailer},

	{"Host", idHost, endToEnd | notInTrailer},
	{"Content-Length", idContentLength, endToEnd | notInTrailer},
	{"Expect", idExpect, endToEnd | notInTrailer},
	{"Max-Forwards", idMaxForwards, endToEnd | notInTrailer},
	{"Content-Encoding", 0, endToEnd | notInTrailer},
	{"Content-Type", 0, endToEnd | notInTrailer},
	{"Content-Range", 0, endToEnd | notInTrailer},
	{"Content-Language", 0, endToEnd},
	{"Content-Location", 0, endToEnd | notInTrailer},
	{"Trailer", 0, endToEnd | notInTrailer},
	{"Authorization", 0, endToEnd | notInTrailer},
	{"WWW-Authenticate", 0, endToEnd | notInTrailer},
	{"Authentication-Info", 0, endToEnd},
	{"Cookie", 0, endToEnd | notInTrailer},
	{"Set-Cookie", 0, endToEnd | notInTrailer},
	{"Cache-Control", 0, endToEnd | notInTrailer},
	{"Pragma", 0, endToEnd | notInTrailer},
	{"Age", 0, endToEnd | notInTrailer},
	{"Date", 0, endToEnd | notInTrailer},
	{"Expires", 0, endToEnd | notInTrailer},
	{"Vary", 0, endToEnd | notInTrailer},
	{"Warning", 0, endToEnd | notInTrailer},
	{"Location", 0, endToEnd | notInTrailer},
	{"Retry-After", 0, endToEnd | notInTrailer},
	{"ETag", 0, endToEnd},
	{"Last-Modified", 0, endToEnd},
	{"Range", 0, endToEnd | notInTrailer},
	{"Accept-Ranges", 0, endToEnd},
	{"If-Match", 0, endToEnd | notInTrailer},
	{"If-None-Match", 0, endToEnd | notInTrailer},
	{"If-Modified-Since", 0, endToEnd | notInTrailer},
	{"If-Unmodified-Since", 0, endToEnd | notInTrailer},
	{"If-Range", 0, endToEnd | notInTrailer},
	{"Accept", 0, endToEnd | notInTrailer},
	{"Accept-Encoding", 0, endToEnd | notInTrailer},
	{"Accept-Language", 0, endToEnd | notInTrailer},
	{"Allow", 0, endToEnd},
	{"From", 0, endToEnd},
	{"Referer", 0, endToEnd},
	{"Server", 0, endToEnd},
	{"User-Agent", 0, endToEnd},
	{"Via", 0, endToEnd | notInTrailer},
	{"Forwarded", 0, endToEnd | notInTrailer},
}

// knownByLength sorts knownNames by the length of the name, so that a look-up compares
// with a handful of names.
var knownByLength = groupByLength(knownNames)

func groupByLength(names []knownName) (groups [32][]knownName) {
	for _, k := range names {
		groups[len(k.name)] = append(groups[len(k.name)], k)
	}
	return groups
}

// lookUp returns what is known of a field name; zeros if nothing is.
func lookUp(name []byte) (fieldID, nameClass) {
	if len(name) < len(knownByLength) {
		for i := range knownByLength[len(name)] {
			if k := &knownByLength[len(name)][i]; EqualFold(name, k.name) {
				return k.id, k.class
			}
		}
	}
	return otherField, 0
}

// EqualFold reports whether name is want, in any case of ASCII letters.
func EqualFold(name []byte, want string) bool { return sameFold(name, want) }

func sameFold[A, B string | []byte](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower[a[i]] != lower[b[i]] {
			return false
		}
	}
	return true
}
