package geoip

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// network is one network of a database under test.
type network struct {
	prefix string
	record mmdbtype.Map
}

// in is a record of a database of countries.
func in(country string) mmdbtype.Map {
	return mmdbtype.Map{"country": mmdbtype.Map{"geoname_id": mmdbtype.Uint32(1), "iso_code": mmdbtype.String(country)}}
}

// build makes the bytes of a database.
func build(tb testing.TB, o mmdbwriter.Options, networks ...network) []byte {
	tb.Helper()
	if o.DatabaseType == "" {
		o.DatabaseType = "Test-Country"
	}
	if o.Description == nil {
		o.Description = map[string]string{"en": "for tests"}
	}
	o.IncludeReservedNetworks = true
	tree, err := mmdbwriter.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	for _, n := range networks {
		_, prefix, err := net.ParseCIDR(n.prefix)
		if err != nil {
			tb.Fatal(err)
		}
		if err := tree.Insert(prefix, n.record); err != nil {
			tb.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// all is a database in which all of 8.0.0.0/8 and 2a00::/16 is in one country.
func all(tb testing.TB, country string) []byte {
	return build(tb, mmdbwriter.Options{}, network{"8.0.0.0/8", in(country)}, network{"2a00::/16", in(country)})
}

// put writes a file in one step.
func put(tb testing.TB, path string, data []byte) {
	tb.Helper()
	next := filepath.Join(filepath.Dir(path), "next")
	if err := os.WriteFile(next, data, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		tb.Fatal(err)
	}
}

// opened opens a database of these bytes. What it logs is a failure, unless log is given.
func opened(tb testing.TB, data []byte, log func(error)) (path string, d *Database) {
	tb.Helper()
	if log == nil {
		log = func(err error) { tb.Errorf("it complained: %v", err) }
	}
	path = filepath.Join(tb.TempDir(), "country.mmdb")
	put(tb, path, data)
	d, err := Open(path, log)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	return path, d
}

// many is a database with one network for each of n countries, more than recent has room for where n is large.
func many(tb testing.TB, n int) []byte {
	networks := make([]network, n)
	for i := range networks {
		record := in(fmt.Sprintf("%c%c", 'A'+i%26, 'A'+i/26%26))
		record["number"] = mmdbtype.Uint32(i) // records that are equal are stored once
		networks[i] = network{fmt.Sprintf("8.%d.%d.0/24", i/256, i%256), record}
	}
	return build(tb, mmdbwriter.Options{}, networks...)
}
