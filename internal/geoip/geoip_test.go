package geoip

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

func TestCountry(t *testing.T) {
	iso := func(code string) mmdbtype.Map { return mmdbtype.Map{"iso_code": mmdbtype.String(code)} }
	networks := []network{
		{"8.8.0.0/16", in("US")},
		{"8.8.4.0/24", in("de")},
		{"9.0.0.0/8", mmdbtype.Map{"registered_country": iso("GB"), "continent": iso("EU")}},
		{"11.0.0.0/8", mmdbtype.Map{"country": mmdbtype.Map{}, "registered_country": iso("FR"), "represented_country": iso("US")}},
		{"12.0.0.0/8", mmdbtype.Map{"country": iso("NL"), "registered_country": iso("BE")}},
		{"13.0.0.0/8", mmdbtype.Map{"represented_country": iso("US"), "continent": iso("EU")}},
		{"14.0.0.0/8", iso("US")},
		{"15.0.0.0/8", in("USA")},
		{"16.0.0.0/8", in("1A")},
		{"17.0.0.0/8", mmdbtype.Map{"country": mmdbtype.String("Iceland"), "country_code": mmdbtype.String("IS")}},
	}
	six := append(networks[:len(networks):len(networks)], network{"2a00:1450::/32", in("IE")}, network{"2001:db8::/32", in("ZZ")})
	want := map[string]string{
		"8.8.8.8": "us", "8.8.4.4": "de", "::ffff:8.8.4.4": "de", "2002:808:404::1": "de", "64:ff9b::808:808": "us", "8.9.0.1": "",
		"9.1.1.1": "gb", "11.1.1.1": "fr", "12.1.1.1": "nl", "13.1.1.1": "", "14.1.1.1": "", "15.1.1.1": "", "16.1.1.1": "", "17.1.1.1": "is",
		"10.0.0.1": "", "127.0.0.1": "", "0.0.0.0": "", "255.255.255.255": "", "::": "", "::1": "", "fe80::1%eth0": "", "2003::1": "",
		"64:ff9b:1::808:808": "", // NAT64's local prefix (RFC 8215): where the address stands in it is the network's own affair
	}
	of6 := map[string]string{"2a00:1450::1": "ie", "2a00:1450:ffff::1%eth0": "ie", "2001:db8::1": "zz", "2a00:1451::1": ""}
	for _, o := range []mmdbwriter.Options{
		{IPVersion: 6, RecordSize: 24},
		{IPVersion: 6, RecordSize: 28, DisableIPv4Aliasing: true},
		{IPVersion: 6, RecordSize: 32, DatabaseType: "Test-City", DisableMetadataPointers: true},
		{IPVersion: 6, RecordSize: 24, Description: map[string]string{}},
		{IPVersion: 4, RecordSize: 24},
	} {
		t.Run(fmt.Sprintf("IPv%d, %d bits, %q", o.IPVersion, o.RecordSize, o.DatabaseType), func(t *testing.T) {
			data := networks
			if o.IPVersion == 6 {
				data = six
			}
			_, d := opened(t, build(t, o, data...), nil)
			for range 2 { // out of the file, then out of what is remembered
				for a, want := range want {
					wantCountry(t, d, a, want)
				}
				for a, want := range of6 {
					if o.IPVersion == 4 {
						want = ""
					}
					wantCountry(t, d, a, want)
				}
			}
			if got := d.Country(netip.Addr{}); got != "" {
				t.Errorf("no address is in %q", got)
			}
		})
	}
	if got := (*Database)(nil).Country(netip.MustParseAddr("8.8.8.8")); got != "" {
		t.Errorf("without a database 8.8.8.8 is in %q", got)
	}
}

func wantCountry(t *testing.T, d *Database, addr, want string) {
	t.Helper()
	if got := d.Country(netip.MustParseAddr(addr)); got != want {
		t.Errorf("%s is in %q, want %q", addr, got, want)
	}
}

// A database of cities has more records than are remembered: they take each other's place, and never answer for each other.
func TestCountryOfManyRecords(t *testing.T) {
	const n = 20_000
	_, d := opened(t, many(t, n), nil)
	for range 2 {
		for i := range n {
			a := netip.AddrFrom4([4]byte{8, byte(i / 256), byte(i % 256), 1})
			if got, want := d.Country(a), fmt.Sprintf("%c%c", 'a'+i%26, 'a'+i/26%26); got != want {
				t.Fatalf("%v is in %q, want %q", a, got, want)
			}
		}
	}
}

func TestCountryDoesNotAllocate(t *testing.T) {
	_, d := opened(t, all(t, "DE"), nil)
	for _, s := range []string{"8.8.8.8", "::ffff:8.8.8.8", "2a00::1", "2002:808:808::1", "10.0.0.1", "2001:db8::1"} {
		a := netip.MustParseAddr(s)
		if n := testing.AllocsPerRun(100, func() { _ = d.Country(a) }); n != 0 {
			t.Errorf("the country of %s costs %v allocations, want none", s, n)
		}
	}
}

func TestOpenFaults(t *testing.T) {
	whole := all(t, "DE")
	damaged := append([]byte(nil), whole...)
	for i := range 64 { // the root of the tree
		damaged[i] = 0xff
	}
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "it is no whole database in MaxMind's format; fetch it again"},
		{"garbage", []byte(strings.Repeat("<html>not found</html>", 100)), "it is no whole database"},
		{"the end is missing", whole[:len(whole)-40], ""},
		{"the beginning is missing", whole[200:], ""},
		{"the middle is missing", append(append([]byte(nil), whole[:100]...), whole[200:]...), ""},
		{"damaged", damaged, "the database is damaged; fetch it again"},
		{
			"of networks", build(t, mmdbwriter.Options{DatabaseType: "Test-ASN"}, network{"8.0.0.0/8", mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(15169)}}),
			`the database is one of "Test-ASN" and holds no countries; take one of countries or cities`,
		},
		{"of nothing", build(t, mmdbwriter.Options{}), "holds no countries"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "country.mmdb")
			put(t, path, tt.data)
			d, err := Open(path, nil)
			if err == nil || d != nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open = %v, %v; want the file's name and %q", d, err, tt.want)
			}
		})
	}
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of no file = %v, want one that wraps fs.ErrNotExist", err)
	}
	if _, err := Open(dir, nil); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("Open of a folder = %v", err)
	}
	large := filepath.Join(dir, "large")
	if err := errors.Join(os.WriteFile(large, nil, 0o600), os.Truncate(large, maxSize+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(large, nil); err == nil || !strings.Contains(err.Error(), "is larger than 268435456 bytes") {
		t.Errorf("Open of a large file = %v", err)
	}
}

// However short a file has been cut, it is no database.
func TestTruncated(t *testing.T) {
	whole := all(t, "DE")
	for n := range whole {
		if c, err := parse(t.Context(), whole[:n:n]); err == nil {
			t.Fatalf("%d bytes of %d are taken: %v", n, len(whole), c.reader.Metadata)
		}
	}
}

func BenchmarkCountry(b *testing.B) {
	for _, n := range []int{250, 20_000} {
		b.Run(fmt.Sprintf("%d records", n), func(b *testing.B) {
			_, d := opened(b, many(b, n), nil)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				_ = d.Country(netip.AddrFrom4([4]byte{8, byte(i / 256), byte(i % 256), 1}))
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}

// FuzzParse states that a file is refused, or answers every address with two lower-case letters or nothing, twice the same.
func FuzzParse(f *testing.F) {
	f.Add(all(f, "DE"))
	f.Add(build(f, mmdbwriter.Options{IPVersion: 4, RecordSize: 24}, network{"8.0.0.0/8", in("US")}))
	f.Add(build(f, mmdbwriter.Options{RecordSize: 32}, network{"::/1", in("ZZ")}))
	f.Add([]byte("\xab\xcd\xefMaxMind.com"))
	addrs := []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("2a00::1"), netip.MustParseAddr("::")}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse(t.Context(), data)
		if err != nil {
			return
		}
		for _, a := range addrs {
			got := c.country(a)
			if again := c.country(a); again != got {
				t.Errorf("%v is in %q and then in %q", a, got, again)
			}
			if len(got) != 0 && len(got) != 2 || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz") != "" {
				t.Errorf("%v is in %q", a, got)
			}
		}
	})
}
