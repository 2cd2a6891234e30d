package doctor

import (
	"errors"
	"fmt"
	"net"

	"polyport/internal/socks"
	"polyport/internal/target"
)

// notIPv4 says why SOCKS4 cannot ask for a target.
func notIPv4(t target.Target) string {
	if a, ok := t.Addr(); ok && a.Is4() {
		return ""
	}
	return "SOCKS4 carries IPv4 addresses only, and the target is none"
}

// sendSOCKS4 asks for an address.
func sendSOCKS4(c net.Conn, x *examination) answer { return request4(c, addressOf(x.target)) }

// sendSOCKS4a asks for a name; an address is sent as its text.
func sendSOCKS4a(c net.Conn, x *examination) answer {
	return request4(c, socks.Address{Name: x.target.Host(), Port: x.target.Port()})
}

// addressOf is a target as SOCKS carries it.
func addressOf(t target.Target) socks.Address {
	if a, ok := t.Addr(); ok {
		return socks.Address{IP: a, Port: t.Port()}
	}
	return socks.Address{Name: t.Host(), Port: t.Port()}
}

// request4 sends a request and reads the reply.
func request4(c net.Conn, to socks.Address) answer {
	b, err := socks.AppendRequest4(nil, socks.Request4{Command: socks.Connect, Target: to})
	if err != nil {
		return answer{failing, err.Error()}
	}
	r := socks.NewExactReader(c)
	defer r.Release()
	reply, err := exchange(c, r, b, socks.ParseReply4)
	if err != nil {
		return brokenSOCKS(err)
	}
	words := fmt.Sprintf("reply %d, %v", byte(reply.Code), reply.Code)
	switch reply.Code {
	case socks.Granted:
		return answer{reached, words}
	case socks.Rejected:
		return answer{denied, words} // or not reached: the protocol has one code for both
	case socks.WrongIdentity, socks.NoIdentd:
		return answer{needsUser, words}
	}
	return answer{foreign, words}
}

// sendSOCKS5 is a client of the row "socks5" that wants a tunnel.
func sendSOCKS5(c net.Conn, x *examination) answer {
	r := socks.NewExactReader(c)
	defer r.Release()
	if a, ok := greet5(c, r, x); !ok {
		return a
	}
	return request5(c, r, x)
}

// greet5 offers a password if there is one, and no authentication in any case. ok is true if a request may follow.
func greet5(c net.Conn, r *socks.Reader, x *examination) (a answer, ok bool) {
	methods := []socks.Method{socks.NoAuthentication}
	if x.User != "" {
		methods = append(methods, socks.UsernamePassword)
	}
	b, err := socks.AppendGreeting(nil, methods...)
	if err != nil {
		return answer{failing, err.Error()}, false
	}
	method, err := exchange(c, r, b, socks.ParseSelection)
	switch {
	case err != nil:
		return brokenSOCKS(err), false
	case method == socks.NoAcceptable && x.User != "":
		return answer{badUser, "method FF, it takes neither a password nor none"}, false
	case method == socks.NoAcceptable:
		return answer{needsUser, "method FF, no acceptable methods"}, false
	case method == socks.UsernamePassword && x.User != "":
		return logIn(c, r, x)
	case method != socks.NoAuthentication:
		return answer{foreign, fmt.Sprintf("method %#02x was chosen, which was not offered", byte(method))}, false
	}
	return answer{}, true
}

// logIn is RFC 1929. ok is true if the user was taken.
func logIn(c net.Conn, r *socks.Reader, x *examination) (a answer, ok bool) {
	b, err := socks.AppendCredentials(nil, socks.Credentials{User: x.User, Password: x.Password})
	if err != nil {
		return answer{badUser, err.Error()}, false
	}
	status, err := exchange(c, r, b, socks.ParseStatus)
	switch {
	case err != nil:
		return brokenSOCKS(err), false
	case status != socks.StatusSuccess:
		return answer{badUser, fmt.Sprintf("authentication status %02x", status)}, false
	}
	return answer{}, true
}

// request5 sends the request and reads the reply.
func request5(c net.Conn, r *socks.Reader, x *examination) answer {
	b, err := socks.AppendRequest5(nil, socks.Request5{Command: socks.Connect, Target: addressOf(x.target)})
	if err != nil {
		return answer{failing, err.Error()}
	}
	reply, err := exchange(c, r, b, socks.ParseReply5)
	if err != nil {
		return brokenSOCKS(err)
	}
	words := fmt.Sprintf("REP %02X, %v", byte(reply.Code), reply.Code)
	switch reply.Code {
	case socks.Succeeded:
		return answer{reached, words}
	case socks.NotAllowed:
		return answer{denied, words}
	case socks.NetworkUnreachable, socks.HostUnreachable, socks.ConnectionRefused, socks.TTLExpired:
		return answer{unreachable, words}
	case socks.GeneralFailure:
		return answer{failing, words}
	}
	return answer{foreign, words}
}

// exchange sends a message and reads the one that answers it.
func exchange[M any](c net.Conn, r *socks.Reader, message []byte, parse func([]byte) (M, int, error)) (m M, err error) {
	if _, err := c.Write(message); err != nil {
		return m, err
	}
	return socks.Read(r, parse)
}

// brokenSOCKS is the answer when there is no whole message.
func brokenSOCKS(err error) answer {
	if errors.Is(err, socks.ErrMalformed) {
		return answer{foreign, "what came back is not SOCKS: " + err.Error()}
	}
	return broken(err)
}
