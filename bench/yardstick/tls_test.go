package yardstick

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"polyport/bench/certificate"
	"polyport/bench/loopback"
)

// upper is a server that answers with capitals when its client has ended.
func upper(t *testing.T) netip.AddrPort {
	l := listen(t)
	go loopback.Serve(l, func(c *net.TCPConn) {
		defer c.Close()
		all, _ := io.ReadAll(c)
		c.Write(bytes.ToUpper(all))
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestTLSEchoesOrRelays(t *testing.T) {
	cert, err := certificate.New("proxy.test")
	if err != nil {
		t.Fatal(err)
	}
	target := upper(t)
	for _, config := range []*tls.Config{nil, {Certificates: []tls.Certificate{cert}}} {
		l := listen(t)
		go TLS{Config: config, Target: target}.Serve(l)
		for sent, want := range map[string]string{"Eabc": "abc", "xyz": "XYZ"} {
			tcp, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			tcp.SetDeadline(time.Now().Add(10 * time.Second))
			c := tcp.(stream)
			if config != nil {
				c = tls.Client(tcp, &tls.Config{InsecureSkipVerify: true})
			}
			c.Write([]byte(sent))
			c.CloseWrite()
			if got, err := io.ReadAll(c); err != nil || string(got) != want {
				t.Errorf("TLS %v: %q is answered with %q, %v, want %q", config != nil, sent, got, err, want)
			}
		}
	}
}
