package daemon

import (
	"bytes"
	"errors"
	"flag"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

var update = flag.Bool("update", false, "write testdata anew")

const explainFile = `
[listen.main]
address = ["127.0.0.1:7659"]
[listen.out]
address      = ["10.0.0.1:7659"]
require_user = true
[auth]
htpasswd = "users.htpasswd"
groups   = { staff = ["alice"] }
[[rule]]
name   = "no ads"
action = "deny"
target = ["*.ads.example"]
[[rule]]
name   = "the lab"
action = "allow"
group  = ["staff"]
target = ["10.1.0.0/16", "127.0.0.1"]
[[rule]]
name      = "by day"
action    = "allow"
client    = ["10.0.0.0/8"]
port      = ["443"]
time      = "Mon-Fri 08:00-18:00 Europe/Berlin"
anonymous = true
[[rule]]
name     = "ourselves"
action   = "allow"
client   = ["127.0.0.0/8"]
listener = ["main"]
`

const unservedFile = onLoopback + `
[upstream.old]
servers = ["socks4://192.0.2.1", { url = "socks4a://192.0.2.2", priority = 1 }]
[upstream.mixed]
servers = ["socks4://192.0.2.1", { url = "socks5://192.0.2.2", priority = 1 }]
[upstream.drained]
servers = [{ url = "socks5://192.0.2.3", drain = true }]
[exit.six]
local_address = ["2001:db8::/64"]
[backend.web]
servers = [{ address = "192.0.2.4:80", drain = true }]
[site.web]
hosts   = ["www.example.com"]
backend = "web"
[[rule]]
name     = "old"
action   = "allow"
port     = ["80", "443"]
upstream = "old"
[[rule]]
name     = "mixed"
action   = "allow"
port     = ["444"]
upstream = "mixed"
[[rule]]
name     = "drained"
action   = "allow"
port     = ["81"]
upstream = "drained"
[[rule]]
name   = "six"
action = "allow"
port   = ["82"]
exit   = ["six"]
`

const routedFile = `
[listen.main]
address = ["127.0.0.1:7659"]
[listen.web]
address   = ["127.0.0.2:7659"]
protocols = ["http"]
[sniff]
silent_to = "ssh"
[backend.ssh]
servers = ["10.0.0.1:22", "10.0.0.2:22"]
[backend.git]
servers = ["10.0.0.3:443"]
[backend.web]
servers = ["10.0.0.4:80"]
[site.blog]
hosts   = ["www.example.com"]
backend = "web"
[protocols.raw.ssh]
prefix  = ["SSH-"]
backend = "ssh"
[protocols.tls.route.git]
sni     = ["*.git.example.com"]
backend = "git"
[[rule]]
name   = "the lab, by address"
action = "deny"
target = ["10.0.0.0/8"]
[[rule]]
name     = "servers of our own"
action   = "allow"
protocol = ["ssh", "tls"]
target   = ["ssh", "*.git.example.com"]
[[rule]]
name    = "visitors"
action  = "allow"
backend = ["web"]
method  = ["GET", "HEAD"]
`

const explainBindFile = `
[listen.main]
address = ["127.0.0.1:7659"]
[bind]
ports = "40000-40100"
[[rule]]
name   = "active FTP"
action = "allow"
client = ["198.51.100.0/24"]
method = ["BIND"]
target = ["192.0.32.0/24", "ftp.example.com"]
[[rule]]
name   = "everything else"
action = "allow"
client = ["198.51.100.0/24", "10.0.0.0/8"]
`

const explainThroughFile = `
default_upstream = "web"
[listen.main]
address = ["127.0.0.1:7659"]
[upstream.web]
servers = ["http://192.0.2.1:8080"]
[bind]
ports = "40000-40100"
[[rule]]
name   = "all"
action = "allow"
client = ["198.51.100.0/24"]
method = ["*"]
`

// aliceLine is the user alice; nobody logs in here.
const aliceLine = "alice:$2a$10$ph9XsZdfdhnBJDc7lpbt5ekXWq5P81yWt413w9U8nAG4V4I/JAcyu\n"

func TestExplain(t *testing.T) {
	dir := t.TempDir()
	path, routed, bind := filepath.Join(dir, "polyport.toml"), filepath.Join(dir, "routed.toml"), filepath.Join(dir, "bind.toml")
	portless, through, unserved := filepath.Join(dir, "portless.toml"), filepath.Join(dir, "through.toml"), filepath.Join(dir, "unserved.toml")
	for name, text := range map[string]string{unserved: unservedFile, through: explainThroughFile, path: explainFile, routed: routedFile, bind: explainBindFile, portless: strings.Replace(explainBindFile, "ports =", "#", 1), filepath.Join(dir, "users.htpasswd"): aliceLine} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wednesday := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	anybody := netip.MustParseAddr("198.51.100.9")
	tests := []struct {
		name string
		q    Question
		err  error
	}{
		{"routed row", Question{Client: anybody, Protocol: "ssh"}, nil},
		{"routed silence", Question{Client: anybody, Protocol: "silent"}, ErrDenied},
		{"routed name", Question{Client: anybody, Protocol: "tls", Target: "a.git.example.com:443"}, nil},
		{"routed name that has no route", Question{Client: anybody, Protocol: "tls", Target: "example.com:443"}, ErrDenied},
		{"routed site", Question{Client: anybody, Site: true, Target: "www.example.com:80"}, nil},
		{"routed site by another method", Question{Client: anybody, Site: true, Method: "PUT", Target: "www.example.com:80"}, ErrDenied},
		{"routed name of a site by the proxy", Question{Client: anybody, Protocol: "http", Target: "www.example.com:80"}, ErrDenied},
		{"routed no name", Question{Client: anybody, Protocol: "tls"}, ErrDenied},
		{"routed listener that does not serve it", Question{Client: anybody, Protocol: "ssh", Listener: "web"}, ErrDenied},
		{"allowed", Question{Client: netip.MustParseAddr("10.2.3.4"), Listener: "out", Target: "192.0.32.7:443"}, nil},
		{"denied by a rule", Question{Client: netip.MustParseAddr("127.0.0.1"), Target: "x.ads.example:80"}, ErrDenied},
		{"no rule matches", Question{Client: netip.MustParseAddr("198.51.100.9"), User: "bob", Listener: "out", Target: "192.0.32.7:80"}, ErrDenied},
		{"the guard", Question{Client: netip.MustParseAddr("127.0.0.1"), User: "bob", Target: "10.9.9.9:80", Protocol: "http"}, ErrDenied},
		{"a prefix lifts the guard", Question{Client: netip.MustParseAddr("127.0.0.1"), User: "alice", Target: "10.1.9.9:22", Protocol: "socks5"}, nil},
		{"needs a user", Question{Client: netip.MustParseAddr("127.0.0.1"), Target: "192.0.32.7:80", Protocol: "http"}, ErrDenied},
		{"our own socket", Question{Client: netip.MustParseAddr("127.0.0.1"), User: "alice", Target: "127.0.0.1:7659"}, ErrDenied},
		{"bind without ports", Question{Client: anybody, Protocol: "socks5", Method: "BIND", Target: "192.0.32.7:0"}, ErrDenied},
		{"bind allowed", Question{Client: anybody, Protocol: "socks5", Method: "BIND", Target: "192.0.32.7:0"}, nil},
		{"bind by nobody in particular", Question{Client: anybody, Protocol: "socks5", Method: "BIND", Target: "0.0.0.0:0"}, nil},
		{"bind refused", Question{Client: anybody, Protocol: "socks4", Method: "bind", Target: "192.0.33.7:20"}, ErrDenied},
		{"bind refused to nobody in particular", Question{Client: netip.MustParseAddr("10.0.0.9"), Protocol: "socks5", Method: "BIND", Target: "[::]:0"}, ErrDenied},
		{"through an upstream", Question{Client: anybody, Protocol: "connect", Target: "192.0.32.7:443"}, nil},
		{"through no upstream for UDP", Question{Client: anybody, Protocol: "socks5", Method: "UDP", Target: "192.0.32.7:53"}, ErrDenied},
		{"through no upstream for BIND", Question{Client: anybody, Protocol: "socks5", Method: "BIND", Target: "192.0.32.7:0"}, ErrDenied},
		{"unserved by SOCKS4", Question{Client: anybody, Target: "[2606:4700::1]:443"}, ErrDenied},
		{"unserved by one of them", Question{Client: anybody, Target: "[2606:4700::1]:444"}, nil},
		{"unserved UDP by one of them", Question{Client: anybody, Protocol: "socks5", Method: "UDP", Target: "192.0.32.7:444"}, nil},
		{"unserved since all drain", Question{Client: anybody, Target: "192.0.32.7:81"}, ErrDenied},
		{"unserved by a backend", Question{Client: anybody, Site: true, Target: "www.example.com:80"}, ErrDenied},
		{"unserved by an exit of another family", Question{Client: anybody, Target: "192.0.32.7:82"}, ErrDenied},
		{"a name without addresses", Question{Client: netip.MustParseAddr("127.0.0.1"), User: "alice", Target: "example.onion:80"}, ErrDenied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.q.At = wednesday
			var out strings.Builder
			file := path
			switch first, _, _ := strings.Cut(tt.name, " "); {
			case first == "routed":
				file = routed
			case tt.name == "bind without ports":
				file = portless
			case first == "through":
				file = through
			case first == "unserved":
				file = unserved
			case first == "bind":
				file = bind
			}
			if err := Explain(t.Context(), Options{Path: file}, tt.q, &out); !errors.Is(err, tt.err) {
				t.Fatalf("Explain: %v, want %v", err, tt.err)
			}
			golden := filepath.Join("testdata", "explain", strings.ReplaceAll(tt.name, " ", "-")+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

func TestExplainFaults(t *testing.T) {
	path := write(t, "polyport.toml", onLoopback)
	tests := []struct {
		name string
		o    Options
		q    Question
		want string
	}{
		{"no target", Options{Path: path}, Question{}, "names no target"},
		{"no port", Options{Path: path}, Question{Target: "example.com"}, "it has no port"},
		{"no such site", Options{Path: path}, Question{Target: "www.example.com:80", Site: true}, "www.example.com is in the hosts of no [site.NAME]"},
		{"a site without a target", Options{Path: path}, Question{Site: true}, "names no target"},
		{"no such listener", Options{Path: path}, Question{Target: "192.0.32.7:80", Listener: "mian"}, `there is no listener "mian"; there are main`},
		{"no such protocol", Options{Path: path}, Question{Target: "192.0.32.7:80", Protocol: "socks"}, `there is no protocol "socks"; there are http, connect, socks4, socks5, tls`},
		{"no such file", Options{Path: path + "x"}, Question{Target: "192.0.32.7:80"}, "there is no file"},
		{"a broken file", Options{Path: write(t, "polyport.toml", "[listen.main]\naddres = []\n")}, Question{Target: "192.0.32.7:80"}, "did you mean"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			err := Explain(t.Context(), tt.o, tt.q, &out)
			if err == nil || errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Explain: %v, want %q", err, tt.want)
			}
			if out.Len() > 0 {
				t.Errorf("it printed %q beside the error", &out)
			}
		})
	}
}

// The steps tell of the countries that the decision was made with.
func TestExplainCountries(t *testing.T) {
	const de, fr = "203.0.113.9", "192.0.32.7"
	path := write(t, "polyport.toml", onLoopback+`[geoip]
database = "countries.mmdb"
[[rule]]
name = "into France"
action = "allow"
country = ["fr"]
client_country = ["de"]
`)
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-Country", Description: map[string]string{"en": "for tests"}, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for a, country := range map[string]mmdbtype.String{de: "DE", fr: "FR"} {
		network := net.IPNet{IP: net.ParseIP(a).To4(), Mask: net.CIDRMask(24, 32)}
		if err := tree.Insert(&network, mmdbtype.Map{"country": mmdbtype.Map{"iso_code": country}}); err != nil {
			t.Fatal(err)
		}
	}
	var data bytes.Buffer
	if _, err := tree.WriteTo(&data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "countries.mmdb"), data.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, client, target string
		err                  error
		want                 string
	}{
		{"both match", de, fr, nil, "it matches by client_country, country"},
		{"the target's does not", de, de, ErrDenied, "country: de of 203.0.113.9 is not fr"},
		{"the client's does not", fr, fr, ErrDenied, "client_country: fr of 192.0.32.7 is not de"},
		{"unknown", "198.51.100.9", fr, ErrDenied, "client_country: that of 198.51.100.9, which is not known, is not de"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			q := Question{Client: netip.MustParseAddr(tt.client), Target: tt.target + ":80", At: time.Now()}
			if err := Explain(t.Context(), Options{Path: path}, q, &out); !errors.Is(err, tt.err) || !strings.Contains(out.String(), tt.want) {
				t.Errorf("Explain: %v, want %v, and prints\n%s\nwant %q", err, tt.err, &out, tt.want)
			}
		})
	}
}

// A question costs nothing but the answer: no log file is made for it.
func TestExplainMakesNoFile(t *testing.T) {
	path := write(t, "polyport.toml", onLoopback+"[log]\naccess_to = \"access.log\"\n")
	var out strings.Builder
	if err := Explain(t.Context(), Options{Path: path}, Question{Client: netip.MustParseAddr("127.0.0.1"), Target: "192.0.32.7:80", At: time.Now()}, &out); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Errorf("the folder holds %v, %v; want the configuration alone", files, err)
	}
}
