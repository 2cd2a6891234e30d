package socks

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// checkMessage checks what holds of every Parse function and a valid message: it takes exactly the message,
// in one piece and with data behind it, and any part of it is short, with a least length
// that is neither too much nor already there.
func checkMessage[M any](t *testing.T, parse func([]byte) (M, int, error), wire string, want M) {
	t.Helper()
	for _, behind := range []string{"", "\x05", "\x00", "GET / HTTP/1.1\r\n\r\n"} {
		got, n, err := parse([]byte(wire + behind))
		if err != nil || n != len(wire) || !reflect.DeepEqual(got, want) {
			t.Errorf("parse(%q) = %+v, %d, %v, want %+v, %d, nil", wire+behind, got, n, err, want, len(wire))
		}
	}
	for i := range len(wire) {
		_, need, err := parse([]byte(wire[:i]))
		if err != ErrShort || need <= i || need > len(wire) {
			t.Errorf("parse(%q) = %d, %v, want a length from %d to %d and ErrShort", wire[:i], need, err, i+1, len(wire))
		}
	}
}

// checkRefused checks that a message is refused with want, no matter what follows.
func checkRefused[M any](t *testing.T, parse func([]byte) (M, int, error), wire string, want error) {
	t.Helper()
	for _, behind := range []string{"", "\x00", strings.Repeat("x", 600)} {
		if _, n, err := parse([]byte(wire + behind)); !errors.Is(err, want) || n != 0 {
			t.Errorf("parse(%q) = %d, %v, want 0 and %v", wire+behind, n, err, want)
		}
	}
}

func name(host string, port uint16) Address { return Address{Name: host, Port: port} }

func ip(s string) Address {
	ap := netip.MustParseAddrPort(s)
	return Address{IP: ap.Addr(), Port: ap.Port()}
}

func TestParseGreeting(t *testing.T) {
	for _, tt := range []struct{ name, wire, methods string }{
		{"nc, Chromium, Go", "\x05\x01\x00", "\x00"},
		{"curl with GSSAPI", "\x05\x02\x00\x01", "\x00\x01"},
		{"curl with a user", "\x05\x03\x00\x01\x02", "\x00\x01\x02"},
		{"Java, Dante", "\x05\x02\x00\x02", "\x00\x02"},
		{"the most methods", "\x05\xff" + strings.Repeat("\x80", 255), strings.Repeat("\x80", 255)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkMessage(t, ParseGreeting, tt.wire, Greeting{Methods: []byte(tt.methods)})
		})
	}
	checkRefused(t, ParseGreeting, "\x05\x00", ErrMalformed)
	checkRefused(t, ParseGreeting, "\x04", ErrMalformed)
}

func TestParseRequest5(t *testing.T) {
	for _, tt := range []struct {
		name, wire string
		want       Request5
	}{
		{"IPv4", "\x05\x01\x00\x01\xc0\x00\x02\x01\x00P", Request5{Connect, ip("192.0.2.1:80")}},
		{"name", "\x05\x01\x00\x03\x0bexample.com\x00P", Request5{Connect, name("example.com", 80)}},
		{"name of one octet", "\x05\x01\x00\x03\x01a\x01\xbb", Request5{Connect, name("a", 443)}},
		{"name of 255 octets", "\x05\x01\x00\x03\xff" + strings.Repeat("a", 255) + "\x00\x01", Request5{Connect, name(strings.Repeat("a", 255), 1)}},
		{"name beyond ASCII", "\x05\x01\x00\x03\x08b\xc3\xbccher.\x00P", Request5{Connect, name("bücher.", 80)}},
		{"IPv6", "\x05\x01\x00\x04 \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00P", Request5{Connect, ip("[2001:db8::1]:80")}},
		{"IPv4 mapped into IPv6 stays so", "\x05\x01\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01\x00P", Request5{Connect, ip("[::ffff:127.0.0.1]:80")}},
		{"RSV is not looked at", "\x05\x01\x01\x01\xc0\x00\x02\x01\x00P", Request5{Connect, ip("192.0.2.1:80")}},
		{"BIND", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", Request5{Bind, ip("0.0.0.0:0")}},
		{"UDP ASSOCIATE", "\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", Request5{UDPAssociate, ip("0.0.0.0:0")}},
		{"Tor's RESOLVE", "\x05\xf0\x00\x03\x01a\x00\x00", Request5{0xf0, name("a", 0)}},
	} {
		t.Run(tt.name, func(t *testing.T) { checkMessage(t, ParseRequest5, tt.wire, tt.want) })
	}
	for _, tt := range []struct {
		name, wire string
		want       error
	}{
		{"not version 5", "\x04", ErrMalformed},
		{"address type 2", "\x05\x01\x00\x02", ErrAddressType},
		{"address type 0", "\x05\x01\x00\x00", ErrAddressType},
		{"name of length zero", "\x05\x01\x00\x03\x00", ErrMalformed},
		{"name with NUL", "\x05\x01\x00\x03\x03a\x00b\x00P", ErrMalformed},
		{"name with a line end", "\x05\x01\x00\x03\x03a\r\n\x00P", ErrMalformed},
		{"name with DEL", "\x05\x01\x00\x03\x02a\x7f\x00P", ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) { checkRefused(t, ParseRequest5, tt.wire, tt.want) })
	}
	if !errors.Is(ErrAddressType, ErrMalformed) {
		t.Error("ErrAddressType is not an ErrMalformed")
	}
}

func TestParseReply5(t *testing.T) {
	for _, tt := range []struct {
		name, wire string
		want       Reply5
	}{
		{"succeeded", "\x05\x00\x00\x01\x7f\x00\x00\x01\x04\xd2", Reply5{Succeeded, ip("127.0.0.1:1234")}},
		{"succeeded over IPv6", "\x05\x00\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x04\xd2", Reply5{Succeeded, ip("[::1]:1234")}},
		{"bound to a name", "\x05\x00\x00\x03\x02gw\x04\xd2", Reply5{Succeeded, name("gw", 1234)}},
		{"refused", "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00", Reply5{ConnectionRefused, ip("0.0.0.0:0")}},
	} {
		t.Run(tt.name, func(t *testing.T) { checkMessage(t, ParseReply5, tt.wire, tt.want) })
	}
	checkRefused(t, ParseReply5, "HTTP/1.1 400", ErrMalformed)
	checkRefused(t, ParseReply5, "\x05\x00\x00\x03\x00", ErrMalformed)
}

func TestParseCredentials(t *testing.T) {
	long := strings.Repeat("p", 255)
	for _, tt := range []struct {
		name, wire string
		want       Credentials
	}{
		{"plain", "\x01\x01u\x01p", Credentials{"u", "p"}},
		{"Java without a password", "\x01\x04root\x00", Credentials{"root", ""}},
		{"both empty", "\x01\x00\x00", Credentials{}},
		{"both of 255 octets", "\x01\xff" + long + "\xff" + long, Credentials{long, long}},
		{"any octet in the password", "\x01\x01u\x03\x00\n\xff", Credentials{"u", "\x00\n\xff"}},
	} {
		t.Run(tt.name, func(t *testing.T) { checkMessage(t, ParseCredentials, tt.wire, tt.want) })
	}
	checkRefused(t, ParseCredentials, "\x05", ErrMalformed)
	checkRefused(t, ParseCredentials, "\x01\x02a\n\x01p", ErrMalformed)
	checkRefused(t, ParseCredentials, "\x01\x02a\x00\x01p", ErrMalformed)
}

func TestParseSelectionAndStatus(t *testing.T) {
	checkMessage(t, ParseSelection, "\x05\x00", NoAuthentication)
	checkMessage(t, ParseSelection, "\x05\x02", UsernamePassword)
	checkMessage(t, ParseSelection, "\x05\xff", NoAcceptable)
	checkRefused(t, ParseSelection, "\x04", ErrMalformed)
	checkMessage(t, ParseStatus, "\x01\x00", StatusSuccess)
	checkMessage(t, ParseStatus, "\x01\x01", StatusFailure)
	checkRefused(t, ParseStatus, "\x05", ErrMalformed)
}

func TestParseRequest4(t *testing.T) {
	text := strings.Repeat("a", 255)
	for _, tt := range []struct {
		name, wire string
		want       Request4
	}{
		{"curl, nc, Chromium", "\x04\x01\x00P\xc0\x00\x02\x01\x00", Request4{Connect, ip("192.0.2.1:80"), ""}},
		{"Java, with USERID", "\x04\x01\x00P\xc0\x00\x02\x01root\x00", Request4{Connect, ip("192.0.2.1:80"), "root"}},
		{"BIND", "\x04\x02\x00P\xc0\x00\x02\x01\x00", Request4{Bind, ip("192.0.2.1:80"), ""}},
		{"4a", "\x04\x01\x00P\x00\x00\x00\x01\x00example.com\x00", Request4{Connect, name("example.com", 80), ""}},
		{"4a, any x", "\x04\x01\x00P\x00\x00\x00\xffme\x00example.com\x00", Request4{Connect, name("example.com", 80), "me"}},
		{"0.0.0.0 is an address", "\x04\x01\x00P\x00\x00\x00\x00\x00", Request4{Connect, ip("0.0.0.0:80"), ""}},
		{"0.0.1.1 is an address", "\x04\x01\x00P\x00\x00\x01\x01\x00", Request4{Connect, ip("0.0.1.1:80"), ""}},
		{"the longest of all", "\x04\x01\x00P\x00\x00\x00\x01" + text + "\x00" + text + "\x00", Request4{Connect, name(text, 80), text}},
		{"USERID beyond ASCII", "\x04\x01\x00P\xc0\x00\x02\x01J\xfcrgen\x00", Request4{Connect, ip("192.0.2.1:80"), "J\xfcrgen"}},
	} {
		t.Run(tt.name, func(t *testing.T) { checkMessage(t, ParseRequest4, tt.wire, tt.want) })
	}
	for _, tt := range []struct{ name, wire string }{
		{"not version 4", "\x05"},
		{"command 0", "\x04\x00"},
		{"command 3", "\x04\x03"},
		{"USERID too long", "\x04\x01\x00P\xc0\x00\x02\x01" + text + "a"},
		{"USERID with a line end", "\x04\x01\x00P\xc0\x00\x02\x01a\n"},
		{"USERID with DEL", "\x04\x01\x00P\xc0\x00\x02\x01\x7f"},
		{"no name", "\x04\x01\x00P\x00\x00\x00\x01\x00\x00"},
		{"name too long", "\x04\x01\x00P\x00\x00\x00\x01\x00" + text + "a"},
		{"name with a control character", "\x04\x01\x00P\x00\x00\x00\x01\x00a\x1b"},
	} {
		t.Run(tt.name, func(t *testing.T) { checkRefused(t, ParseRequest4, tt.wire, ErrMalformed) })
	}
}

func TestParseReply4(t *testing.T) {
	bound := netip.MustParseAddrPort("127.0.0.1:1234")
	checkMessage(t, ParseReply4, "\x00\x5a\x04\xd2\x7f\x00\x00\x01", Reply4{Granted, bound})
	checkMessage(t, ParseReply4, "\x04\x5b\x04\xd2\x7f\x00\x00\x01", Reply4{Rejected, bound})
	checkRefused(t, ParseReply4, "\x05", ErrMalformed)
}

func TestEncodeRefuses(t *testing.T) {
	long := strings.Repeat("a", 256)
	both := Address{Name: "a", IP: netip.MustParseAddr("192.0.2.1"), Port: 80}
	for _, tt := range []struct {
		name   string
		encode func() ([]byte, error)
	}{
		{"a greeting without methods", func() ([]byte, error) { return AppendGreeting(nil) }},
		{"a greeting with 256 methods", func() ([]byte, error) { return AppendGreeting(nil, make([]Method, 256)...) }},
		{"a user name of 256 octets", func() ([]byte, error) { return AppendCredentials(nil, Credentials{User: long}) }},
		{"a password of 256 octets", func() ([]byte, error) { return AppendCredentials(nil, Credentials{Password: long}) }},
		{"a user name with NUL", func() ([]byte, error) { return AppendCredentials(nil, Credentials{User: "a\x00"}) }},
		{"5: nothing", func() ([]byte, error) { return AppendRequest5(nil, Request5{}) }},
		{"5: a name of 256 octets", func() ([]byte, error) { return AppendRequest5(nil, Request5{Target: name(long, 1)}) }},
		{"5: a name with NUL", func() ([]byte, error) { return AppendRequest5(nil, Request5{Target: name("a\x00", 1)}) }},
		{"5: a name and an address", func() ([]byte, error) { return AppendRequest5(nil, Request5{Target: both}) }},
		{"5: a reply bound to a name with NUL", func() ([]byte, error) { return AppendReply5(nil, Reply5{Bound: name("\x00", 1)}) }},
		{"4: nothing", func() ([]byte, error) { return AppendRequest4(nil, Request4{}) }},
		{"4: a name of 256 octets", func() ([]byte, error) { return AppendRequest4(nil, Request4{Target: name(long, 1)}) }},
		{"4: a name with NUL", func() ([]byte, error) { return AppendRequest4(nil, Request4{Target: name("a\x00", 1)}) }},
		{"4: a name and an address", func() ([]byte, error) { return AppendRequest4(nil, Request4{Target: both}) }},
		{"4: 0.0.0.1, which would say that a name follows", func() ([]byte, error) { return AppendRequest4(nil, Request4{Target: ip("0.0.0.1:80")}) }},
		{"4: a USERID of 256 octets", func() ([]byte, error) { return AppendRequest4(nil, Request4{Target: name("a", 1), UserID: long}) }},
		{"4: a USERID with NUL", func() ([]byte, error) { return AppendRequest4(nil, Request4{Target: name("a", 1), UserID: "\x00"}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if b, err := tt.encode(); err == nil {
				t.Errorf("encoded as %q, want an error", b)
			} else if strings.Contains(err.Error(), long) && strings.Contains(tt.name, "password") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestEncodeFallsBack(t *testing.T) {
	reply, err := AppendReply5(nil, Reply5{Code: NotAllowed})
	if want := "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"; err != nil || string(reply) != want {
		t.Errorf("AppendReply5 without a bound address = %q, %v, want %q", reply, err, want)
	}
	v6 := Reply4{Code: Granted, Bound: netip.MustParseAddrPort("[2001:db8::1]:1234")}
	if got, want := AppendReply4(nil, v6), []byte("\x00\x5a\x04\xd2\x00\x00\x00\x00"); !bytes.Equal(got, want) {
		t.Errorf("AppendReply4 with IPv6 = %q, want %q", got, want)
	}
	got, err := AppendRequest4(nil, Request4{Command: Connect, Target: ip("[2001:db8::1]:80")})
	if want := "\x04\x01\x00P\x00\x00\x00\x01\x002001:db8::1\x00"; err != nil || string(got) != want {
		t.Errorf("AppendRequest4 with IPv6 = %q, %v, want %q", got, err, want)
	}
}

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		value interface{ String() string }
		want  string
	}{
		{Connect, "CONNECT"},
		{Bind, "BIND"},
		{UDPAssociate, "UDP"},
		{Command(0xf0), "0xf0"},
		{NotAllowed, "connection not allowed by ruleset"},
		{AddressTypeNotSupported, "address type not supported"},
		{Code5(9), "unassigned reply code"},
		{Granted, "request granted"},
		{Rejected, "request rejected or failed"},
		{NoIdentd, "request rejected because the client's identd cannot be reached"},
		{WrongIdentity, "request rejected because the user could not be confirmed"},
		{Code4(0), "unassigned reply code"},
		{name("a", 80), "a:80"},
		{ip("[2001:db8::1]:80"), "[2001:db8::1]:80"},
		{Credentials{"u", "secret"}, "(credentials)"},
	} {
		if got := tt.value.String(); got != tt.want {
			t.Errorf("String() of %T = %q, want %q", tt.value, got, tt.want)
		}
	}
	if got := (Credentials{"u", "secret"}).GoString(); strings.Contains(got, "secret") {
		t.Errorf("GoString() = %q shows the password", got)
	}
}
