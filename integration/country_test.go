package integration

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// countries makes a database of countries in MaxMind's format, of networks and the country of each.
func countries(t *testing.T, of map[string]string) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-Country", IncludeReservedNetworks: true, Description: map[string]string{"en": "for tests"}})
	if err != nil {
		t.Fatal(err)
	}
	for network, country := range of {
		_, n, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Insert(n, mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(country)}}); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The countries of these tests, on loopback.
var (
	countriesBefore = map[string]string{"127.0.1.0/24": "DE", "127.0.2.0/24": "FR", "127.0.3.0/24": "NL"}
	countriesAfter  = map[string]string{"127.0.1.0/24": "FR", "127.0.2.0/24": "DE", "127.0.3.0/24": "NL"}
)

// bordered is a gateway whose clients get to Germany, and those in the Netherlands to France.
const bordered = listenAnywhere + `
[geoip]
database = "countries.mmdb"

[dns]
hosts = { "de.example" = ["127.0.1.1"], "fr.example" = ["127.0.2.1"], "both.example" = ["127.0.2.1", "127.0.1.1"], "nowhere.example" = ["127.0.4.1"] }

[[rule]]
name    = "no France for France"
action  = "deny"
country = ["fr"]
client_country = ["fr"]

[[rule]]
name    = "to Germany"
action  = "allow"
country = ["De"]
target  = ["127.0.0.0/8"]

[[rule]]
name   = "from the Netherlands"
action = "allow"
client_country = ["nl"]
target = ["127.0.2.0/24"]
`

// startBordered starts it with a database.
func startBordered(t *testing.T) *gateway {
	t.Helper()
	g := prepare(t, bordered)
	g.write("countries.mmdb", countries(t, countriesBefore))
	g.run()
	g.waitListening(1)
	return g
}

// everyCountry serves hello in each country at one port, and returns the port.
func everyCountry(t *testing.T) string {
	t.Helper()
	ln := listenAt(t, "0.0.0.0:0")
	serveHello(ln)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// cross has a client of an address ask for a host, and returns the status and the rule that decided.
func cross(t *testing.T, g *gateway, from, way, host, port string) string {
	t.Helper()
	got, client := curl(t, "--interface", from, "-o", "/dev/null", "-D", "-", "-x", way+"://"+g.at(), "http://"+net.JoinHostPort(host, port)+"/")
	_, status, _ := strings.Cut(strings.SplitN(got.stdout, "\r\n", 2)[0], " ")
	status, _, _ = strings.Cut(status, " ")
	if way != "http" && got.code == 97 {
		status = "403"
	}
	return status + " " + g.record("client="+client).str("rule")
}

// TestCountries has rules go by where a target is, and where a client is.
func TestCountries(t *testing.T) {
	t.Parallel()
	g, port := startBordered(t), everyCountry(t)
	tests := []struct{ name, from, host, want string }{
		{"an address in Germany", "127.0.0.1", "127.0.1.9", "200 to Germany"},
		{"a name in Germany", "127.0.0.1", "de.example", "200 to Germany"},
		{"an address in France", "127.0.0.1", "127.0.2.9", "403 "},
		{"a name in France", "127.0.0.1", "fr.example", "403 "},
		{"an address in no country", "127.0.0.1", "127.0.4.1", "403 "},
		{"a name in no country", "127.0.0.1", "nowhere.example", "403 "},
		{"a name in both", "127.0.0.1", "both.example", "200 to Germany"},
		{"a name in France, from the Netherlands", "127.0.3.5", "fr.example", "200 from the Netherlands"},
		{"an address in France, from the Netherlands", "127.0.3.5", "127.0.2.1", "200 from the Netherlands"},
		{"a name in France, from Germany", "127.0.1.5", "fr.example", "403 "},
		{"a name in France, from France", "127.0.2.5", "fr.example", "403 no France for France"},
		{"an address in France, from France", "127.0.2.5", "127.0.2.77", "403 no France for France"},
		{"a name in Germany, from France", "127.0.2.5", "de.example", "200 to Germany"},
		{"a name in no country, from the Netherlands", "127.0.3.5", "nowhere.example", "403 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, way := range []string{"http", "socks5h"} {
				if got := cross(t, g, tt.from, way, tt.host, port); got != tt.want {
					t.Errorf("by %s: %q, want %q", way, got, tt.want)
				}
			}
		})
	}
}

// TestCountriesChange replaces the database under a running gateway, by good ones and by others.
func TestCountriesChange(t *testing.T) {
	t.Parallel()
	g, port := startBordered(t), everyCountry(t)
	ask := func() string {
		return cross(t, g, "127.0.0.1", "http", "de.example", port) + ", " + cross(t, g, "127.0.0.1", "http", "127.0.2.1", port)
	}
	const before, after = "200 to Germany, 403 ", "403 , 200 to Germany"
	holds := func(what, want string) {
		t.Helper()
		if got := ask(); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	hup := func() logLine { return g.reload(bordered) }
	holds("at first", before)
	g.write("countries.mmdb", countries(t, countriesAfter))
	eventually(t, "the new database", after, slowly(ask))

	g.write("countries.mmdb", countries(t, countriesBefore)[:200])
	g.wait("that half of a database is not taken", func(l logLine) bool {
		return strings.Contains(l.str("msg"), "the database of countries was changed, but the change cannot be taken and the old one holds") && l.str("level") == "ERROR"
	})
	holds("beside half of a database", after)
	if l := hup(); !strings.HasPrefix(l.str("msg"), "not reloaded") || !strings.Contains(fmt.Sprint(l), "geoip.database") {
		t.Errorf("SIGHUP with half of a database: %v", l)
	}
	holds("after a SIGHUP with half of a database", after)

	g.write("countries.mmdb", countries(t, countriesBefore))
	if l := hup(); l.str("msg") != "reloaded" {
		t.Fatalf("SIGHUP with a good database: %v", l)
	}
	holds("right after SIGHUP", before)
	g.write("countries.mmdb", countries(t, countriesAfter))
	eventually(t, "a database that is new after SIGHUP", after, slowly(ask))
}

// TestCountriesMissing has a configuration whose database is not there, or is something else.
func TestCountriesMissing(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"not there": "", "a text": "DE FR NL\n"} {
		t.Run(name, func(t *testing.T) {
			g := prepare(t, bordered)
			if content != "" {
				g.write("countries.mmdb", content)
			}
			mustSay(t, run(t, binary, "check", "-c", g.file), 1, "geoip.database", "countries.mmdb")
		})
	}
}
