package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

// nginx reads the header of either version, in front of a raw row's bytes and in front of TLS.
func TestProxyHeaderToNginx(t *testing.T) {
	t.Parallel()
	c, root := certificate(t, "v1.test", "v2.test")
	cert, key := filePair(t, t.TempDir(), c)
	plain, secure := freeAddress(t, "127.0.56.1"), freeAddress(t, "127.0.56.1")
	dir := runNginx(t, plain, fmt.Sprintf(`	log_format header '$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port $remote_addr $uri';
	access_log header.log header;
	server { listen %s proxy_protocol; location / { return 200 plain; } }
	server { listen %s ssl proxy_protocol; ssl_certificate %s; ssl_certificate_key %s; location / { return 200 secure; } }`, plain, secure, cert, key))
	config := listenBoth + "[[rule]]\naction = \"allow\"\nprotocol = [\"tls\", \"rawv1\", \"rawv2\"]\n"
	for _, v := range []string{"v1", "v2"} {
		config += fmt.Sprintf("[backend.raw%[1]s]\nproxy_protocol = %[1]q\nservers = [%[2]q]\n[protocols.raw.raw%[1]s]\nprefix = [\"GET /%[1]s\"]\nbackend = \"raw%[1]s\"\n"+
			"[backend.tls%[1]s]\nproxy_protocol = %[1]q\nservers = [%[3]q]\n[protocols.tls.route.%[1]s]\nsni = [\"%[1]s.test\"]\nbackend = \"tls%[1]s\"\n", v, plain, secure)
	}
	g := start(t, config)
	for _, v := range []string{"v1", "v2"} {
		for _, listener := range []string{"main", "six"} {
			for _, want := range []string{"plain", "secure"} {
				name := strings.Join([]string{v, listener, want}, "-")
				t.Run(name, func(t *testing.T) {
					bare := dial(t, g.addr(listener))
					conn := net.Conn(bare)
					if want == "secure" {
						conn = tls.Client(bare, &tls.Config{RootCAs: pool(t, root), ServerName: v + ".test"})
					}
					fmt.Fprintf(conn, "GET /%s/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", v, name)
					if got, err := pageOf(conn); err != nil || got != want {
						t.Fatalf("nginx said %q, %v; want %q", got, err, want)
					}
					client, local := bare.LocalAddr().(*net.TCPAddr), bare.RemoteAddr().(*net.TCPAddr)
					line := fmt.Sprintf("%v:%d %v:%d 127.0.0.1 /%s/%s", client.IP, client.Port, local.IP, local.Port, v, name)
					eventually(t, "nginx's log says "+line, "true", func() string {
						text, err := os.ReadFile(filepath.Join(dir, "header.log"))
						return fmt.Sprint(err == nil && strings.Contains("\n"+string(text), "\n"+line+"\n"))
					})
				})
			}
		}
	}
}

// headerServer hands the headers of its connections over, and answers each connection with what came behind.
func headerServer(t *testing.T) (addr string, headers <-chan *proxyproto.Header) {
	t.Helper()
	got := make(chan *proxyproto.Header, 64)
	addr = tcpServer(t, func(c *net.TCPConn) {
		conn := proxyproto.NewConn(c, proxyproto.WithPolicy(proxyproto.REQUIRE))
		got <- conn.ProxyHeader()
		fmt.Fprint(conn, "hello\n")
		_, _ = io.Copy(conn, conn)
	})
	return addr, got
}

// Version 2 says what was asked for too. A connection of a client that waits for its server carries no such thing.
func TestProxyHeaderValues(t *testing.T) {
	t.Parallel()
	addr, headers := headerServer(t)
	other := tcpServer(t, func(c *net.TCPConn) { fmt.Fprint(c, "other\n"); _, _ = io.Copy(c, c) })
	g := start(t, "[sniff]\ntimeout = \"50s\"\nsilent_after = \"300ms\"\nsilent_to = \"silent\"\n"+listenAnywhere+
		fmt.Sprintf("[backend.tls]\nproxy_protocol = \"v2\"\nservers = [%q]\n[backend.raw]\nproxy_protocol = \"v2\"\nservers = [%[1]q]\n"+
			"[backend.silent]\nproxy_protocol = \"v1\"\nservers = [%[1]q]\n[backend.other]\nservers = [%q]\n", addr, other)+
		"[protocols.raw.plain]\nprefix = [\"RAW\"]\nbackend = \"raw\"\n"+
		"[protocols.tls.route.web]\nsni = [\"*.web.test\"]\nalpn = [\"h2\"]\nbackend = \"tls\"\n"+
		"[protocols.tls.route.rest]\nsni = [\"*.web.test\"]\nbackend = \"other\"\n"+
		"[[rule]]\naction = \"allow\"\nprotocol = [\"tls\", \"plain\", \"silent\"]\n")
	hello := func(name string, alpn ...string) string {
		var first firstWrite
		_ = tls.Client(&first, &tls.Config{ServerName: name, NextProtos: alpn}).Handshake() // ends at its first read
		return string(first.bytes)
	}
	tests := []struct {
		name, says, hears, alpn, authority string
		version                            byte // 0: the server without a header
	}{
		{"raw row", "RAW", "hello\nRAW", "", "", 2},
		{"TLS with h2 alone", hello("www.web.test", "h2"), "hello\n\x16", "h2", "www.web.test", 2},
		{"TLS with h2 among others, where nobody knows yet", hello("a.b.web.test", "http/1.1", "h2"), "hello\n\x16", "", "a.b.web.test", 2},
		{"TLS without h2", hello("www.web.test", "http/1.1"), "other\n\x16", "", "", 0},
		{"silence", "", "hello\n", "", "", 1},
	}
	ids := map[string]bool{}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dialFrom(t, "127.0.57.9", g.at())
			say(t, c, tt.says)
			hear(t, c, tt.hears)
			if tt.version == 0 {
				return
			}
			h := <-headers
			if h.Version != tt.version || h.SourceAddr.String() != c.LocalAddr().String() || h.DestinationAddr.String() != g.at() {
				t.Errorf("the header of version %d is from %v to %v, want one of version %d from %v to %s", h.Version, h.SourceAddr, h.DestinationAddr, tt.version, c.LocalAddr(), g.at())
			}
			said := map[proxyproto.PP2Type]string{}
			tlvs, err := h.TLVs()
			if err != nil {
				t.Fatal(err)
			}
			for _, tlv := range tlvs {
				said[tlv.Type] = string(tlv.Value)
			}
			id := said[proxyproto.PP2_TYPE_UNIQUE_ID]
			c.Close()
			record := g.record("client=" + c.LocalAddr().String())
			if tt.version == 2 && (id != record.str("id") || id == "" || ids[id]) {
				t.Errorf("the unique id is %q, and the record has %q", id, record.str("id"))
			}
			ids[id] = true
			if said[proxyproto.PP2_TYPE_ALPN] != tt.alpn || said[proxyproto.PP2_TYPE_AUTHORITY] != tt.authority {
				t.Errorf("the header says %q, want ALPN %q and authority %q", said, tt.alpn, tt.authority)
			}
			if a := netip.MustParseAddrPort(record.str("address")); a.String() != addr {
				t.Errorf("the record's address is %v, want %s", a, addr)
			}
		})
	}
}
