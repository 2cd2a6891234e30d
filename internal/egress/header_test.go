package egress

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"

	"polyport/internal/pool"
	"polyport/internal/upstream"
)

func TestHeader(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:5000"), netip.MustParseAddrPort("[2001:db8::1]:5000")
	local4, local6 := netip.MustParseAddrPort("198.51.100.1:443"), netip.MustParseAddrPort("[2001:db8::2]:443")
	zoned := netip.MustParseAddrPort("[fe80::1%eth0]:5000")
	long := strings.Repeat("x", 200)
	tests := []struct {
		name    string
		version upstream.ProxyHeader
		header  Header
		want    string // of version 1
		local   bool
		tlvs    map[proxyproto.PP2Type]string
	}{
		{name: "v1, IPv4", version: upstream.ProxyV1, header: Header{Client: v4, Local: local4, ID: "id"}, want: "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n"},
		{name: "v1, IPv6", version: upstream.ProxyV1, header: Header{Client: v6, Local: local6}, want: "PROXY TCP6 2001:db8::1 2001:db8::2 5000 443\r\n"},
		{name: "v1, a zone means nothing elsewhere", version: upstream.ProxyV1, header: Header{Client: zoned, Local: local6}, want: "PROXY TCP6 fe80::1 2001:db8::2 5000 443\r\n"},
		{name: "v1, two families", version: upstream.ProxyV1, header: Header{Client: v4, Local: local6}, want: "PROXY UNKNOWN\r\n"},
		{name: "v1, of our own", version: upstream.ProxyV1, want: "PROXY UNKNOWN\r\n"},
		{name: "v2, IPv4", version: upstream.ProxyV2, header: Header{Client: v4, Local: local4}},
		{
			name: "v2, IPv6 with all", version: upstream.ProxyV2, header: Header{Client: v6, Local: local6, ALPN: "h2", Authority: "www.example.com", ID: "abc-1"},
			tlvs: map[proxyproto.PP2Type]string{proxyproto.PP2_TYPE_ALPN: "h2", proxyproto.PP2_TYPE_AUTHORITY: "www.example.com", proxyproto.PP2_TYPE_UNIQUE_ID: "abc-1"},
		},
		{name: "v2, a zone", version: upstream.ProxyV2, header: Header{Client: zoned, Local: local6}},
		{
			name: "v2, an identifier is not longer than may be", version: upstream.ProxyV2, header: Header{Client: v4, Local: local4, ID: long},
			tlvs: map[proxyproto.PP2Type]string{proxyproto.PP2_TYPE_UNIQUE_ID: long[:128]},
		},
		{name: "v2, two families", version: upstream.ProxyV2, header: Header{Client: v6, Local: local4}, local: true},
		{name: "v2, of our own", version: upstream.ProxyV2, local: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := tt.header.format(tt.version)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want != "" {
				if string(b) != tt.want {
					t.Errorf("the header is %q, want %q", b, tt.want)
				}
				return
			}
			checkHeader(t, b, tt.header, tt.local, tt.tlvs)
		})
	}
}

// checkHeader reads a header of version 2 back.
func checkHeader(t *testing.T, b []byte, want Header, local bool, tlvs map[proxyproto.PP2Type]string) {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(append(b, "rest"...)))
	h, err := proxyproto.Read(r)
	if err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "rest" {
		t.Errorf("behind the header there is %q, want %q", rest, "rest")
	}
	if h.Command.IsLocal() != local {
		t.Errorf("the command is local: %v, want %v", h.Command.IsLocal(), local)
	}
	if !local {
		from, to := h.SourceAddr.(*net.TCPAddr).AddrPort(), h.DestinationAddr.(*net.TCPAddr).AddrPort()
		if from.Addr().Unmap() != want.Client.Addr().WithZone("") || from.Port() != want.Client.Port() || to.Addr().Unmap() != want.Local.Addr() || to.Port() != want.Local.Port() {
			t.Errorf("it says %v to %v, want %v to %v", from, to, want.Client, want.Local)
		}
	}
	found, err := h.TLVs()
	if err != nil || len(found) != len(tlvs) {
		t.Errorf("its TLVs are %v, %v, want %q", found, err, tlvs)
	}
	for _, tlv := range found {
		if got := string(tlv.Value); got != tlvs[tlv.Type] {
			t.Errorf("TLV %#x is %q, want %q", tlv.Type, got, tlvs[tlv.Type])
		}
	}
}

// The header goes before all else, and a server that has closed by then is one that has failed.
func TestABackendThatWantsAHeader(t *testing.T) {
	got := make(chan string, 2)
	server := proxyAt(t, "127.0.0.1:0", func(_ *testProxy, c net.Conn) {
		s, _ := bufio.NewReader(c).ReadString('\n')
		got <- s
	})
	b, err := upstream.NewBackend(upstream.BackendOptions{Servers: []string{server.at.String()}, Pool: pool.Options{Name: "b"}, Header: upstream.ProxyV1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := New(Options{Policy: policy(t, false, allowAll)})
	p, err := d.AuthorizeSite(t.Context(), to(t, "www.example.com:443"), b)
	if err != nil {
		t.Fatal(err)
	}
	if p.Covers(server.at) || !p.WantsHeader() {
		t.Error("a connection that names one client may be lent to others")
	}
	header := Header{Client: netip.MustParseAddrPort("192.0.2.1:5000"), Local: netip.MustParseAddrPort("198.51.100.1:443")}
	link, err := d.Open(t.Context(), p, OpenOptions{Header: header})
	if err != nil {
		t.Fatal(err)
	}
	defer link.Conn.Close()
	if s := <-got; s != "PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\n" {
		t.Errorf("the server got %q", s)
	}
	link.Release()
	checkNoneCounted(t, b.Pool())
	if err := d.ProbeBackend(t.Context(), b, 0, Probe{}); err != nil {
		t.Errorf("ProbeBackend = %v", err)
	}
	if s := <-got; s != "PROXY UNKNOWN\r\n" {
		t.Errorf("a check says %q", s)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add("h2", "www.example.com", "id")
	f.Add("", strings.Repeat("a", 255), strings.Repeat("b", 300))
	f.Fuzz(func(t *testing.T, alpn, authority, id string) {
		h := Header{
			Client: netip.MustParseAddrPort("192.0.2.1:5000"), Local: netip.MustParseAddrPort("198.51.100.1:443"),
			ALPN: alpn, Authority: authority, ID: id,
		}
		b, err := h.format(upstream.ProxyV2)
		if err != nil {
			return // it is longer than the length field can say
		}
		want := map[proxyproto.PP2Type]string{}
		for kind, s := range map[proxyproto.PP2Type]string{
			proxyproto.PP2_TYPE_ALPN: alpn, proxyproto.PP2_TYPE_AUTHORITY: authority, proxyproto.PP2_TYPE_UNIQUE_ID: id[:min(len(id), maxUniqueID)],
		} {
			if s != "" {
				want[kind] = s
			}
		}
		checkHeader(t, b, h, false, want)
	})
}
