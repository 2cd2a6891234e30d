package daemon

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGreet(t *testing.T) {
	tests := []struct{ name, file, listening, want string }{
		{
			"loopback", onLoopback, "main=127.0.0.1:7659",
			`polyport serves every kind of proxy client on 127.0.0.1:7659:
  HTTP      curl -x http://127.0.0.1:7659 http://example.com/
  HTTPS     curl -x http://127.0.0.1:7659 https://example.com/
  SOCKS5    curl -x socks5h://127.0.0.1:7659 https://example.com/
  SOCKS4a   curl -x socks4a://127.0.0.1:7659 https://example.com/
  anything  export http_proxy=http://127.0.0.1:7659 https_proxy=http://127.0.0.1:7659
  PAC       http://127.0.0.1:7659/proxy.pac
  help      http://127.0.0.1:7659/ in a browser
`,
		},
		{
			"users", onNetwork + "[auth]\nhtpasswd = \"u\"\n", "main=0.0.0.0:7659",
			`polyport serves every kind of proxy client on 127.0.0.1:7659:
  HTTP      curl -x http://USER:PASSWORD@127.0.0.1:7659 http://example.com/
  HTTPS     curl -x http://USER:PASSWORD@127.0.0.1:7659 https://example.com/
  SOCKS5    curl -x socks5h://USER:PASSWORD@127.0.0.1:7659 https://example.com/
  anything  export http_proxy=http://USER:PASSWORD@127.0.0.1:7659 https_proxy=http://USER:PASSWORD@127.0.0.1:7659
`,
		},
		{
			"a public address, and one row", onLoopback + "protocols = [\"socks5\"]\npublic_address = \"proxy.example.net:1080\"\n", "main=127.0.0.1:7659",
			`polyport serves every kind of proxy client on proxy.example.net:1080:
  SOCKS5    curl -x socks5h://proxy.example.net:1080 https://example.com/
`,
		},
		{
			"the loopback listener of two", "[listen.a]\naddress = [\"192.0.2.1:1\"]\n[listen.b]\naddress = [\"[::1]:2\"]\nprotocols = [\"http\"]\nhelp_page = false\n",
			"a=192.0.2.1:1 b=[::1]:2",
			`polyport serves every kind of proxy client on [::1]:2:
  HTTP      curl -x http://[::1]:2 http://example.com/
`,
		},
		{
			"IPv6 for all", "[listen.main]\naddress = [\"[::]:7659\"]\nprotocols = [\"http\"]\n", "main=[::]:7659",
			`polyport serves every kind of proxy client on [::1]:7659:
  HTTP      curl -x http://[::1]:7659 http://example.com/
`,
		},
		{"nothing", onLoopback, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			listening := map[string][]netip.AddrPort{}
			for _, l := range strings.Fields(tt.listening) {
				name, at, _ := strings.Cut(l, "=")
				listening[name] = append(listening[name], netip.MustParseAddrPort(at))
			}
			var got strings.Builder
			greet(&got, parse(t, tt.file), listening, "")
			if diff := cmp.Diff(tt.want, got.String()); diff != "" {
				t.Errorf("greet (-want +got):\n%s", diff)
			}
		})
	}
}
