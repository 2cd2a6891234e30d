package socks

// Request5 is a SOCKS5 request (RFC 1928 section 4). It is a comparable value.
type Request5 struct {
	Command Command
	Target  Address // DST.ADDR and DST.PORT
}

// ParseRequest5 decodes VER, CMD, RSV, ATYP, DST.ADDR and DST.PORT. RSV is not
// looked at: a client that sends something there means a flag of a later draft that we would ignore anyway.
// An unknown CMD passes, so that it can be answered (REP 07).
func ParseRequest5(b []byte) (r Request5, n int, err error) {
	if len(b) > 0 && b[0] != Version5 {
		return r, 0, malformed("VER of the request is not 5")
	}
	code, a, n, err := parseBody5(b)
	if err != nil {
		return r, n, err
	}
	return Request5{Command: Command(code), Target: a}, n, nil
}

// AppendRequest5 encodes a request. The error says why the address cannot be sent.
func AppendRequest5(dst []byte, r Request5) ([]byte, error) {
	return appendAddress(append(dst, Version5, byte(r.Command), 0), r.Target)
}

// Code5 is REP of a SOCKS5 reply (RFC 1928 section 6).
type Code5 byte

// The reply codes.
const (
	Succeeded               Code5 = 0x00
	GeneralFailure          Code5 = 0x01
	NotAllowed              Code5 = 0x02
	NetworkUnreachable      Code5 = 0x03
	HostUnreachable         Code5 = 0x04
	ConnectionRefused       Code5 = 0x05
	TTLExpired              Code5 = 0x06
	CommandNotSupported     Code5 = 0x07
	AddressTypeNotSupported Code5 = 0x08
)

// String returns the words of RFC 1928 section 6.
func (c Code5) String() string {
	words := [...]string{
		"succeeded", "general SOCKS server failure", "connection not allowed by ruleset", "network unreachable",
		"host unreachable", "connection refused", "TTL expired", "command not supported", "address type not supported",
	}
	if int(c) < len(words) {
		return words[c]
	}
	return "unassigned reply code"
}

// Reply5 is a SOCKS5 reply (RFC 1928 section 6). It is a comparable value.
type Reply5 struct {
	Code  Code5
	Bound Address // BND.ADDR and BND.PORT
}

// ParseReply5 decodes VER, REP, RSV, ATYP, BND.ADDR and BND.PORT. RSV is not looked at.
func ParseReply5(b []byte) (r Reply5, n int, err error) {
	if len(b) > 0 && b[0] != Version5 {
		return r, 0, malformed("VER of the reply is not 5")
	}
	code, a, n, err := parseBody5(b)
	if err != nil {
		return r, n, err
	}
	return Reply5{Code: Code5(code), Bound: a}, n, nil
}

// AppendReply5 encodes a reply. An invalid Bound address is sent as 0.0.0.0 with
// its port, as servers do that have none to name.
func AppendReply5(dst []byte, r Reply5) ([]byte, error) {
	if !r.Bound.IP.IsValid() && r.Bound.Name == "" {
		r.Bound.IP = unspecified4
	}
	return appendAddress(append(dst, Version5, byte(r.Code), 0), r.Bound)
}

// parseBody5 decodes what requests and replies share. VER has been looked at.
func parseBody5(b []byte) (code byte, a Address, n int, err error) {
	const head = 3 // VER, CMD or REP, RSV
	if len(b) < head {
		return 0, a, head + 5, ErrShort
	}
	a, n, err = parseAddress(b[head:])
	if err == nil || err == ErrShort {
		n += head
	}
	return b[1], a, n, err
}
