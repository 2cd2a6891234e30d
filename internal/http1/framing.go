package http1

// Kind is how the end of a body is found (RFC 9112 section 6.3).
type Kind uint8

// The kinds of framing.
const (
	NoBody     Kind = iota // the message ends with its head
	Length                 // Content-Length bytes
	Chunked                // Transfer-Encoding: chunked
	UntilClose             // until the connection ends; responses only
)

// String returns the kind as tests and logs print it.
func (k Kind) String() string {
	switch k {
	case NoBody:
		return "no body"
	case Length:
		return "length"
	case Chunked:
		return "chunked"
	case UntilClose:
		return "until close"
	}
	return "invalid kind"
}

// Framing is how the body of a message is delimited. It is comparable.
type Framing struct {
	Kind Kind
	// Length is the body's length in bytes for Kind Length, which may be 0; else it
	// is 0.
	Length int64
}

var (
	errBothFramings = &ParseError{400, "the message has both Content-Length and Transfer-Encoding"}
	errManyLengths  = &ParseError{400, "the message has more than one Content-Length"}
	errBadLength    = &ParseError{400, "Content-Length is not a decimal number"}
	errManyCodings  = &ParseError{400, "the message has more than one Transfer-Encoding"}
	errBadCoding    = &ParseError{400, "Transfer-Encoding is not just chunked"}
	errOldCoding    = &ParseError{400, "an HTTP/1.0 message has a Transfer-Encoding"}
)

// RequestFraming decides how the body of a request is delimited (RFC 9112 section 6.3).
// minor is the request's minor version. The error is a *ParseError with status 400.
func RequestFraming(minor int, f *Fields) (Framing, error) {
	return declaredFraming(minor, f, Framing{Kind: NoBody})
}

// ResponseFraming decides how the body of a response is delimited (RFC 9112 section
// 6.3). method is that of the request, minor the response's minor version. Fields that
// would be refused with a body are refused without one too, except in a 2xx to CONNECT, where
// they must be ignored (RFC 9110 section 9.3.6). The error is a *ParseError with status 502.
func ResponseFraming(method string, status, minor int, f *Fields) (Framing, error) {
	if method == "CONNECT" && status >= 200 && status < 300 {
		return Framing{Kind: NoBody}, nil
	}
	framing, err := declaredFraming(minor, f, Framing{Kind: UntilClose})
	if err != nil {
		return Framing{}, fromOrigin(err)
	}
	if method == "HEAD" || status < 200 || status == 204 || status == 304 {
		return Framing{Kind: NoBody}, nil
	}
	return framing, nil
}

// declaredFraming is what the fields say of the body, or undeclared if they say
// nothing.
func declaredFraming(minor int, f *Fields, undeclared Framing) (Framing, error) {
	length, lengths := f.only(idContentLength)
	coding, codings := f.only(idTransferEncoding)
	switch {
	case lengths == 0 && codings == 0:
		return undeclared, nil
	case lengths > 0 && codings > 0:
		return Framing{}, errBothFramings
	case lengths > 1:
		return Framing{}, errManyLengths
	case codings > 1:
		return Framing{}, errManyCodings
	case codings == 1:
		if minor == 0 {
			return Framing{}, errOldCoding
		}
		if !EqualFold(coding, "chunked") {
			return Framing{}, errBadCoding
		}
		return Framing{Kind: Chunked}, nil
	}
	n, ok := parseDigits(length)
	if !ok {
		return Framing{}, errBadLength
	}
	return Framing{Kind: Length, Length: n}, nil
}

// ForReceiver returns the framing under which a response body that came framed as f
// goes on to a client of that minor version: what has no length is chunked for HTTP/1.1
// and delimited by the end of the connection for HTTP/1.0.
func (f Framing) ForReceiver(minor int) Framing {
	switch {
	case f.Kind != Chunked && f.Kind != UntilClose:
		return f
	case minor == 0:
		return Framing{Kind: UntilClose}
	}
	return Framing{Kind: Chunked}
}

// Empty reports whether there is no body, or one of length 0.
func (f Framing) Empty() bool { return f.Kind == NoBody || f.Kind == Length && f.Length == 0 }
