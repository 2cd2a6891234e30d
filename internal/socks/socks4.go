package socks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

var unspecified4 = netip.AddrFrom4([4]byte{})

// Request4 is a SOCKS4 request, or a SOCKS4a one if its target is a name. It is a comparable value.
type Request4 struct {
	Command Command
	Target  Address
	// UserID is what the client says of itself, at most 255 octets without NUL and
	// control characters. It proves nothing.
	UserID string
}

// ParseRequest4 decodes VN, CD, DSTPORT, DSTIP, USERID and NUL, and with a DSTIP of
// 0.0.0.x (x not zero) the domain name and NUL that SOCKS4a adds. CD is 1 or 2; no other was ever defined.
func ParseRequest4(b []byte) (r Request4, n int, err error) {
	const fixed = 8 // octets before USERID
	if len(b) > 0 && b[0] != Version4 {
		return r, 0, malformed("VN of the request is not 4")
	}
	if len(b) > 1 && b[1] != byte(Connect) && b[1] != byte(Bind) {
		return r, 0, malformed("CD of the request is neither 1 nor 2")
	}
	if len(b) < fixed {
		return r, fixed + 1, ErrShort
	}
	r.Command, r.Target.Port = Command(b[1]), binary.BigEndian.Uint16(b[2:])
	userID, n, err := parseText(b, fixed, MaxUserID, "USERID")
	if err != nil {
		return Request4{}, n, err
	}
	if ip := [4]byte(b[4:fixed]); ip[0]|ip[1]|ip[2] != 0 || ip[3] == 0 {
		r.Target.IP, r.UserID = netip.AddrFrom4(ip), string(userID)
		return r, n, nil
	}
	name, n, err := parseText(b, n, MaxName, "the domain name")
	if err != nil {
		return Request4{}, n, err
	}
	if len(name) == 0 {
		return Request4{}, 0, malformed("the domain name has length zero")
	}
	r.Target.Name, r.UserID = string(name), string(userID)
	return r, n, nil
}

// parseText reads the text that begins at from and ends in NUL; n is behind the NUL.
func parseText(b []byte, from, most int, what string) (text []byte, n int, err error) {
	text = b[from:]
	end := bytes.IndexByte(text, 0)
	if end >= 0 {
		text = text[:end]
	}
	switch {
	case len(text) > most:
		return nil, 0, malformed(what + " is longer than 255 octets")
	case hasControl(text):
		return nil, 0, malformed(what + " holds a control character")
	case end < 0:
		return nil, len(b) + 1, ErrShort
	}
	return text, from + end + 1, nil
}

// AppendRequest4 encodes a request. IPv6 addresses, which SOCKS4 cannot carry, are sent in
// the 4a form as their text, which our own server and most others understand. The error never quotes USERID, which is a secret with some.
func AppendRequest4(dst []byte, r Request4) ([]byte, error) {
	if len(r.UserID) > MaxUserID || hasControl(r.UserID) {
		return nil, fmt.Errorf("encode a SOCKS4 request: USERID has more than %d octets or holds a control character", MaxUserID)
	}
	ip, name := [4]byte{3: 1}, r.Target.Name // 0.0.0.1 says that a name follows
	switch a := r.Target.IP; {
	case a.IsValid() && name != "":
		return nil, errors.New("encode a SOCKS4 request: the target has both a name and an IP address")
	case a.Is4():
		if ip = a.As4(); ip[0]|ip[1]|ip[2] == 0 && ip[3] != 0 {
			return nil, fmt.Errorf("encode a SOCKS4 request: %v cannot be sent, since SOCKS4a gives 0.0.0.x another meaning", a)
		}
	case a.IsValid():
		name = a.String()
	}
	if !r.Target.IP.Is4() {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	dst = binary.BigEndian.AppendUint16(append(dst, Version4, byte(r.Command)), r.Target.Port)
	dst = append(append(append(dst, ip[:]...), r.UserID...), 0)
	if name != "" {
		dst = append(append(dst, name...), 0)
	}
	return dst, nil
}

// Code4 is CD of a SOCKS4 reply (the memo).
type Code4 byte

// The reply codes.
const (
	Granted       Code4 = 90
	Rejected      Code4 = 91 // rejected or failed
	NoIdentd      Code4 = 92 // the client's identd could not be asked
	WrongIdentity Code4 = 93 // the client and identd report different users: here, that a user is required
)

// String returns the words of the memo, shortened.
func (c Code4) String() string {
	switch c {
	case Granted:
		return "request granted"
	case Rejected:
		return "request rejected or failed"
	case NoIdentd:
		return "request rejected because the client's identd cannot be reached"
	case WrongIdentity:
		return "request rejected because the user could not be confirmed"
	}
	return "unassigned reply code"
}

// Reply4 is a SOCKS4 reply. It is a comparable value.
type Reply4 struct {
	Code  Code4
	Bound netip.AddrPort // DSTIP and DSTPORT
}

// ParseReply4 decodes VN, CD, DSTPORT and DSTIP. VN is 0 by the memo; 4, which some
// servers send instead, passes too.
func ParseReply4(b []byte) (r Reply4, n int, err error) {
	const whole = 8
	if len(b) > 0 && b[0] != 0 && b[0] != Version4 {
		return r, 0, malformed("VN of the reply is neither 0 nor 4")
	}
	if len(b) < whole {
		return r, whole, ErrShort
	}
	ip := netip.AddrFrom4([4]byte(b[4:whole]))
	return Reply4{Code: Code4(b[1]), Bound: netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:]))}, whole, nil
}

// AppendReply4 encodes a reply. A bound address that is not IPv4 is sent as 0.0.0.0 with its port.
func AppendReply4(dst []byte, r Reply4) []byte {
	ip := r.Bound.Addr()
	if !ip.Is4() {
		ip = unspecified4
	}
	v4 := ip.As4()
	dst = binary.BigEndian.AppendUint16(append(dst, 0, byte(r.Code)), r.Bound.Port())
	return append(dst, v4[:]...)
}
