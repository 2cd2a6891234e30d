package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type tlsRoute struct {
	SNI     []string `toml:"sni"`
	Backend string   `toml:"backend"`
}

type tlsOptions struct {
	DialSNI bool                `toml:"dial_sni"`
	Wait    time.Duration       `toml:"wait"`
	Route   map[string]tlsRoute `toml:"route"`
}

func TestDecodeProtocol(t *testing.T) {
	f := parseWell(t, `
[protocols.tls]
dial_sni = true
wait = "3s"
[protocols.tls.route.git]
sni = ["git.example.com"]
backend = "git"
`)
	o := tlsOptions{Wait: time.Second}
	if err := f.DecodeProtocol("tls", &o); err != nil {
		t.Fatal(err)
	}
	want := tlsOptions{true, 3 * time.Second, map[string]tlsRoute{"git": {[]string{"git.example.com"}, "git"}}}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("DecodeProtocol (-want +got):\n%s", diff)
	}
	other := tlsOptions{Wait: time.Second}
	if err := f.DecodeProtocol("socks5", &other); err != nil || !cmp.Equal(other, tlsOptions{Wait: time.Second}) {
		t.Errorf("without a table: %+v, %v; want it left as it was", other, err)
	}
	if err := f.Unknown(); err != nil {
		t.Errorf("Unknown = %v; want nothing", err)
	}
}

func TestDecodeProtocolFaults(t *testing.T) {
	f := parseWell(t, `
[protocols.tls]
dial-sni = true
wait = 3
[protocols.tls.route.git]
sni = "git.example.com"
Backend = "git"
[protocols.tsl]
[protocols.Tls]
`)
	errs := f.DecodeProtocol("tls", &tlsOptions{})
	errs = Join(errs, f.DecodeProtocol("socks5", &struct{}{}), f.Unknown())
	want := []string{
		`f.toml:3: protocols.tls.dial-sni: unknown key: did you mean "dial_sni"?`,
		`f.toml:4: protocols.tls.wait: "3" has no unit: write "3s" if seconds are meant`,
		`f.toml:6: protocols.tls.route.git.sni: this must be an array, and is a string: put it in brackets, ["..."]`,
		`f.toml:7: protocols.tls.route.git.Backend: unknown key: did you mean "backend"?`,
		`f.toml:8: protocols.tsl: unknown key: did you mean "tls"?`,
		`f.toml:9: protocols.Tls: unknown key: did you mean "tls"?`,
	}
	if diff := cmp.Diff(want, faultTexts(errs)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// A folder may decode its table in parts; what no part knows is unknown.
func TestDecodeProtocolInParts(t *testing.T) {
	f := parseWell(t, "[protocols.raw]\na = 1\nb = 2\nc = 3\n")
	var a struct {
		A int `toml:"a"`
	}
	var b struct {
		B int `toml:"b"`
	}
	if err := Join(f.DecodeProtocol("raw", &a), f.DecodeProtocol("raw", &b)); err != nil || a.A != 1 || b.B != 2 {
		t.Fatalf("DecodeProtocol: %+v, %+v, %v", a, b, err)
	}
	want := []string{`f.toml:4: protocols.raw.c: unknown key: did you mean "a"?`}
	if diff := cmp.Diff(want, faultTexts(f.Unknown())); diff != "" {
		t.Errorf("Unknown (-want +got):\n%s", diff)
	}
}

func TestDecodeKindsOfValues(t *testing.T) {
	type inner struct{ X int }
	type embedded struct {
		E string `toml:"e"`
	}
	type options struct {
		embedded
		embeddedToo `toml:"-"`
		U8          uint8             `toml:"u8"`
		I8          int8              `toml:"i8"`
		F           float64           `toml:"f"`
		G           float32           `toml:"g"`
		B           *bool             `toml:"b"`
		Any         any               `toml:"any"`
		Names       map[string]string `toml:"names"`
		Tables      []inner           `toml:"tables"`
		Bad         chan int          `toml:"bad"`
		unexported  int
	}
	f := parseWell(t, `
[protocols.p]
e = "embedded"
u8 = 256
i8 = -129
f = 1.5
g = 2
b = false
any = { x = [1, "y"] }
names = { a = "b" }
tables = [{ x = 7 }, { x = "seven" }]
bad = 1
unexported = 1
`)
	var o options
	err := f.DecodeProtocol("p", &o)
	want := []string{
		`f.toml:4: protocols.p.u8: 256 is too large`,
		`f.toml:5: protocols.p.i8: -129 is too small`,
		`f.toml:11: protocols.p.tables[1].x: this must be a whole number, and is a string`,
		`f.toml:12: protocols.p.bad: cannot decode into a chan int`,
	}
	if diff := cmp.Diff(want, faultTexts(err)); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if o.E != "embedded" || o.F != 1.5 || o.G != 2 || o.B == nil || *o.B || o.Names["a"] != "b" || o.Tables[0].X != 7 || o.unexported != 0 || o.embeddedToo != (embeddedToo{}) {
		t.Errorf("decoded %+v", o)
	}
	if diff := cmp.Diff(map[string]any{"x": []any{int64(1), "y"}}, o.Any); diff != "" {
		t.Errorf("any (-want +got):\n%s", diff)
	}
	if err := f.DecodeProtocol("p", o); err == nil {
		t.Error("decoding into a value that is no pointer: no error")
	}
}

type embeddedToo struct{}
