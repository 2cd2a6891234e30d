package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// Each row is a URL as it is written and what it is, or what is said of it.
func TestServerURL(t *testing.T) {
	long := strings.Repeat("u", 256)
	tests := []struct{ in, want, user, password string }{
		{"socks5://198.51.100.7", "socks5://198.51.100.7:1080", "", ""},
		{"socks5://u:p@198.51.100.7:1081", "socks5://198.51.100.7:1081", "u", "p"},
		{"SOCKS5://u@H.example/", "socks5://h.example:1080", "u", ""},
		{"socks5s://h.example", "socks5s://h.example:443", "", ""},
		{"socks4://id@h.example", "socks4://h.example:1080", "id", ""},
		{"socks4a://h.example", "socks4a://h.example:1080", "", ""},
		{"http://u:@h.example", "http://h.example:80", "u", ""},
		{"https://@h.example", "https://h.example:443", "", ""},
		{"h2://[2001:db8::1]", "h2://[2001:db8::1]:443", "", ""},
		{"h2://[2001:DB8:0::1]:8443", "h2://[2001:db8::1]:8443", "", ""},
		{"http://[::ffff:192.0.2.1]:1", "http://192.0.2.1:1", "", ""},
		{"http://a%40b:c%3Ad%2F%23+@h.example:1", "http://h.example:1", "a@b", "c:d/#+"},
		{"http://u:p@ss@h.example:1", "http://h.example:1", "u", "p@ss"},
		{"http://u:env:X@h.example:1", "http://h.example:1", "u", "env:X"},

		{"198.51.100.7:1080", `!this has no scheme: write a URL such as "socks5://198.51.100.7:1080"`, "", ""},
		{"socks6://h", `!unknown scheme "socks6": did you mean "socks5"?`, "", ""},
		{"gopher://h", `!unknown scheme "gopher": write one of "socks5", "socks5s", "http", "https", "h2", "socks4a", "socks4"`, "", ""},
		{"socks://h", `!there is no scheme "socks" for upstream servers: write socks5, or one of the others`, "", ""},
		{"socks5h://h", `!there is no scheme "socks5h" for upstream servers: write socks5, and resolve = "upstream" into the table`, "", ""},
		{"user:secret@h://h", `!this does not begin with a scheme: write a URL such as "socks5://198.51.100.7:1080"`, "", ""},
		{"http://", `!there is no host`, "", ""},
		{"http://u:p@:80", `!there is no host`, "", ""},
		{"http://a b", `!"a b" is not a host name: labels are 1 to 63 letters, digits and -, with dots between them (write other scripts as xn--)`, "", ""},
		{"http://2001:db8::1", `!"2001:db8:" is not a host: an IPv6 address stands in brackets, as in "[2001:db8::1]:22"`, "", ""},
		{"http://h:0", `!what follows the last colon is not a port from 1 to 65535: write it as in "socks5://user:password@198.51.100.7:1080"`, "", ""},
		{"http://u:secret", `!what follows the last colon is not a port from 1 to 65535: write it as in "socks5://user:password@198.51.100.7:1080"`, "", ""},
		{"http://h/path", `!nothing may stand behind host and port: in a user's name or a password, write %2F for /, %3F for ? and %23 for #`, "", ""},
		{"http://u:sec#ret@h", `!nothing may stand behind host and port: in a user's name or a password, write %2F for /, %3F for ? and %23 for #`, "", ""},
		{"http://u:100%@h", `!a % in the user's name or the password does not begin an escape: write %25 for it`, "", ""},
		{"http://:p@h", `!there is a password and no user: write both, as in "socks5://user:password@host"`, "", ""},
		{"http://u:%0d%0aX@h", `!the user's name or the password has control characters`, "", ""},
		{"http://a%3Ab:p@h", `!the user's name has a colon, which HTTP cannot carry (RFC 7617 section 2)`, "", ""},
		{"socks4a://u:p@h", `!socks4a has no passwords: leave it out, or write socks5 if the server speaks that`, "", ""},
		{"socks5://" + long + ":p@h", `!the user's name or the password is longer than 255 bytes (RFC 1929 section 2)`, "", ""},
		{"http://" + long + ":p@h", "http://h:80", long, "p"},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			var u ServerURL
			err := u.UnmarshalText([]byte(tt.in))
			if want, faulty := strings.CutPrefix(tt.want, "!"); faulty {
				if errorText(err) != want || u != (ServerURL{}) {
					t.Errorf("UnmarshalText = %v, %v; want the error %q", u, err, want)
				}
				return
			}
			if err != nil || u.String() != tt.want || u.user != tt.user || u.password.ref != tt.password {
				t.Errorf("UnmarshalText = %v with user %q and password %q, %v; want %s, %q and %q", u, u.user, u.password.ref, err, tt.want, tt.user, tt.password)
			}
		})
	}
}

// Whatever prints a server, however deep it stands, prints nothing of its credentials.
func TestServerURLIsPrintedWithoutCredentials(t *testing.T) {
	f := parseWell(t, "[upstream.eu]\nservers = [\"socks5://mallory:hunter2@h.example\"]\n")
	u := f.Upstream["eu"]
	var outputs []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c"} {
		outputs = append(outputs, fmt.Sprintf(verb, u.Servers[0].URL), fmt.Sprintf(verb, &u.Servers[0]), fmt.Sprintf(verb, u))
	}
	asJSON, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	asTOML, err := toml.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "u", u.Servers[0].URL, "deep", u)
	for _, out := range append(outputs, string(asJSON), string(asTOML), log.String()) {
		for _, hidden := range []string{"mallory", "hunter2", fmt.Sprintf("%x", "mallory"), fmt.Sprintf("%x", "hunter2")} {
			if strings.Contains(strings.ToLower(out), hidden) {
				t.Errorf("printed as %q", out)
			}
		}
	}
}

// Each row is a table and what its servers are shown.
func TestCredentials(t *testing.T) {
	t.Setenv("POLYPORT_TEST_PASSWORD", "from the environment")
	t.Setenv("POLYPORT_TEST_EMPTY", "")
	const servers = "servers = [\"http://a\", \"http://u@b\", \"http://u:p@c\"]\n"
	tests := []struct{ name, table, want string }{
		{"none", "", ": u: u:p"},
		{"a user and a password", "user = \"x\"\npassword = \"y\"\n", "x:y u:y u:p"},
		{"a user alone", "user = \"x\"\n", "x: u: u:p"},
		{"a password alone", "password = \"env:POLYPORT_TEST_PASSWORD\"\n", ": u:from the environment u:p"},
		{"a password that is not there", "password = \"env:POLYPORT_TEST_EMPTY\"\n", `: read a secret: the environment variable "POLYPORT_TEST_EMPTY" is not set or empty u:p`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := parseWell(t, "[upstream.eu]\n"+servers+tt.table).Upstream["eu"]
			var all []string
			for i := range u.Servers {
				user, password, err := u.Credentials(i)
				if err != nil {
					all = append(all, err.Error())
					continue
				}
				all = append(all, user+":"+password)
			}
			if got := strings.Join(all, " "); got != tt.want {
				t.Errorf("Credentials = %q, want %q", got, tt.want)
			}
		})
	}
}

// The property: the credentials that are put into a URL come out of it, and show in nothing that is printed of it, whether it is accepted
// or refused; what is printed is read as the same server without them.
func FuzzServerURL(f *testing.F) {
	for _, scheme := range []string{"socks5://", "https://", "socks4a://", "x://", "", "http://h:"} {
		for _, rest := range []string{"198.51.100.7:1080", "H.example/", "[2001:db8::1]:1", "a/b", "@h", ""} {
			f.Add(scheme, "user", "hunter2", rest)
			f.Add(scheme, "", "p:@/?#%", rest)
		}
	}
	f.Fuzz(func(t *testing.T, before, user, password, rest string) {
		const mark = "zq9"
		if strings.Contains(strings.ToLower(before+rest), mark) {
			return
		}
		user, password = mark+user, mark+password
		in := before + url.PathEscape(user) + ":" + url.PathEscape(password) + "@" + rest
		var u, again ServerURL
		err := u.UnmarshalText([]byte(in))
		printed := u.String() + fmt.Sprintf("%+v %#v", u, UpstreamServer{URL: u}) + errorText(err)
		if strings.Contains(strings.ToLower(printed), mark) {
			t.Errorf("%q shows its credentials: %q", in, printed)
		}
		if err != nil {
			return
		}
		if strings.HasSuffix(before, "://") && !strings.Contains(rest, "@") && (u.user != user || u.password.ref != password) {
			t.Errorf("%q is read with user %q and password %q", in, u.user, u.password.ref)
		}
		bare := u
		bare.user, bare.password = "", Secret{}
		if err := again.UnmarshalText([]byte(u.String())); err != nil || again != bare {
			t.Errorf("%q prints as %q, which is read as %q, %v", in, u, again, err)
		}
	})
}
