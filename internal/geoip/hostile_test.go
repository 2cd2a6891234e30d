package geoip

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
)

// handmade makes a database of IPv6 with records of 32 bits out of a tree and a data section.
func handmade(nodes [][2]uint32, data []byte) []byte {
	var b []byte
	for _, n := range nodes {
		b = binary.BigEndian.AppendUint32(b, n[0])
		b = binary.BigEndian.AppendUint32(b, n[1])
	}
	b = append(b, make([]byte, 16)...)
	b = append(b, data...)
	b = append(b, "\xab\xcd\xefMaxMind.com"...)
	str := func(s string) { b = append(append(b, 0x40|byte(len(s))), s...) }
	b = append(b, 0xe9)
	str("binary_format_major_version")
	b = append(b, 0xa1, 2)
	str("binary_format_minor_version")
	b = append(b, 0xa0)
	str("build_epoch")
	b = append(b, 0x01, 0x02, 1)
	str("database_type")
	str("Test")
	str("description")
	b = append(b, 0xe1)
	str("en")
	str("x")
	str("ip_version")
	b = append(b, 0xa1, 6)
	str("languages")
	b = append(b, 0x00, 0x04)
	str("node_count")
	b = append(b, 0xc4)
	b = binary.BigEndian.AppendUint32(b, uint32(len(nodes)))
	str("record_size")
	b = append(b, 0xa1, 32)
	return b
}

// heavy is a database of which each record, of four octets, points to the same array of 30,000: to check it takes a millisecond for each.
func heavy(records int) []byte {
	const elements, longArray = 30_000, 285 // the least length of an array whose length has two octets
	data := append([]byte{0x1e, 0x04}, binary.BigEndian.AppendUint16(nil, elements-longArray)...)
	data = append(data, bytes.Repeat([]byte{0x40}, elements)...) // empty texts
	inner := records - 1
	nodes := make([][2]uint32, inner)
	at := uint32(0)
	for i := range nodes {
		for side := range 2 {
			below := 2*i + 1 + side
			if below < inner {
				nodes[i][side] = uint32(below)
				continue
			}
			nodes[i][side] = uint32(inner) + 16 + at
			at = uint32(len(data))
			data = append(data, 0x01, 0x04, 0x20, 0x00) // an array of one pointer to the first record
		}
	}
	return handmade(nodes, data[:at])
}

// shared is a database of 127 nodes whose two branches lead to the same one below, so that it has 2^127 networks.
func shared() []byte {
	nodes := make([][2]uint32, 127)
	for i := range nodes {
		nodes[i] = [2]uint32{uint32(i + 1), uint32(i + 1)}
	}
	nodes[126] = [2]uint32{127 + 16, 127 + 16} // the first record
	return handmade(nodes, []byte{0x40})
}

// aliased is one whose branches lead back to where IPv4 begins too, by 2^94 ways: whoever leaves out such ways goes them all the same.
func aliased() []byte {
	const four = 96 // the node at which IPv4 begins
	nodes := make([][2]uint32, four+1)
	for i := range nodes {
		nodes[i] = [2]uint32{uint32(i + 1), uint32(i + 1)}
	}
	nodes[0][1] = 1
	nodes[four] = [2]uint32{four + 1 + 16, four + 1 + 16}
	return handmade(nodes, []byte("\xe1\x4ccountry_code\x42DE"))
}

// TestHostile opens databases that would take hours to check.
func TestHostile(t *testing.T) {
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"records that stand for many": {heavy(1 << 15), errSlow.Error()}, "nodes below several": {shared(), "holds no countries"}, "aliases by many ways": {aliased(), ""},
	} {
		t.Run(name, func(t *testing.T) {
			data := tt.data
			ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errSlow)
			defer cancel()
			begun := time.Now()
			if _, err := parse(ctx, data); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("parse = %v, want %q", err, tt.want)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("it is refused after %v", took)
			}
		})
	}
	path, d := opened(t, all(t, "DE"), nil)
	put(t, path, heavy(1<<15))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.reread(ctx, time.Now().Add(time.Hour)) // which ends, and complains of nothing, since nobody wants it any more
	wantCountry(t, d, "8.8.8.8", "de")
}

// FuzzReplace states that whatever a database is replaced by, it is taken, or the old one holds and one clear line says so.
func FuzzReplace(f *testing.F) {
	german := all(f, "DE")
	for _, data := range [][]byte{
		all(f, "FR"), german[:len(german)/2], nil, shared(), heavy(8), aliased(), handmade([][2]uint32{{0, 0}}, []byte{0x40}), handmade([][2]uint32{{17, 17}}, []byte{0x20, 0x00}),
		handmade([][2]uint32{{17, 17}}, []byte("\xe1\x4ccountry_code\x42DE")), handmade(nil, nil),
		[]byte("\xab\xcd\xefMaxMind.comX000000000000\x0100000000000000"), // control characters in what is wrong
	} {
		f.Add(data)
	}
	path := filepath.Join(f.TempDir(), "country.mmdb")
	f.Fuzz(func(t *testing.T, data []byte) {
		var said []string
		old, err := parse(t.Context(), german)
		if err != nil {
			t.Fatal(err)
		}
		d := &Database{path: path, log: func(err error) { said = append(said, err.Error()) }}
		d.now.Store(old)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		begun := time.Now()
		for hours := range 3 {
			d.reread(ctx, begun.Add(time.Duration(1+hours)*time.Hour))
		}
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("it takes %v", took)
		}
		taken := d.now.Load() != old
		switch {
		case ctx.Err() != nil:
		case taken == (len(said) > 0) || len(said) > 1:
			t.Errorf("it is taken: %v, and %q is said", taken, said)
		case !taken && (!strings.Contains(said[0], "the old one holds: "+path+": ") || strings.ContainsFunc(said[0], unicode.IsControl) || len(said[0]) > 600):
			t.Errorf("it says %q", said[0])
		}
		for _, s := range []string{"8.8.8.8", "255.255.255.255", "2a00::1", "::"} {
			a := netip.MustParseAddr(s)
			if got := d.Country(a); got != d.Country(a) || len(got) != 0 && len(got) != 2 || strings.Trim(got, "abcdefghijklmnopqrstuvwxyz") != "" {
				t.Errorf("%s is in %q", s, got)
			}
		}
		if !taken {
			wantCountry(t, d, "8.8.8.8", "de")
		}
	})
}
