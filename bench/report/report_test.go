package report

import (
	"encoding/xml"
	"flag"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"polyport/bench/measure"
)

var update = flag.Bool("update", false, "write the golden files anew")

// row is one measurement of a round, with a quiet machine.
func row(name, proto, work, variant string, round int, metrics ...any) measure.Measurement {
	m := measure.Measurement{Name: name, Proto: proto, Work: work, Variant: variant, Round: round, Metrics: map[string]float64{}}
	for i := 0; i < len(metrics); i += 2 {
		m.Metrics[metrics[i].(string)] = metrics[i+1].(float64)
	}
	return m
}

// sample is a small run of three rounds.
func sample() []measure.Measurement {
	var all []measure.Measurement
	for round := 1; round <= 3; round++ {
		x := float64(round)
		all = append(all,
			row("direct", "direct", measure.Bulk, "down8", round, measure.GBps, 5*x),
			row("polyport", "socks5", measure.Bulk, "down8", round, measure.GBps, 3*x, measure.CPUPerGB, .1),
			row("polyport", "tls", measure.Bulk, "down8", round, measure.GBps, 2.5*x, measure.CPUPerGB, .15),
			row("haproxy", "tls", measure.Bulk, "down8", round, measure.GBps, 2*x, measure.CPUPerGB, .5),
			row("direct", "direct", measure.ConnRate, "", round, measure.PerSec, 14000.),
			row("polyport", "socks5", measure.ConnRate, "", round, measure.PerSec, 7000., measure.P50, 4000., measure.P99, 9000., measure.CPU, 90.),
			row("microsocks", "socks5", measure.ConnRate, "", round, measure.PerSec, 7400., measure.CPU, 114.),
			row("tinyproxy", "connect", measure.ConnRate, "", round, measure.PerSec, 7200.),
			row("haproxy", "tls", measure.ConnRate, "", round, measure.PerSec, 7300., measure.CPU, 100.),
			row("polyport", "socks5", measure.Idle, "", round, measure.PSS, 900., measure.FDs, 2.0003, measure.Threads, 17.),
			row("haproxy", "tls", measure.Idle, "", round, measure.PSS, 3400., measure.FDs, 2., measure.Threads, 2.),
			row("polyport", "http", measure.HTTP, "", round, measure.PerSec, 50000.),
			row("squid", "http", measure.HTTP, "", round, measure.PerSec, 10000.),
			row("polyport", "raw", measure.Handshakes, measure.Plain, round, measure.PerSec, 9000., measure.CPU, 70.),
			row("polyport", "raw-tls", measure.Handshakes, measure.Full, round, measure.PerSec, 1800., measure.CPU, 290.),
			row("polyport", "raw-tls", measure.Handshakes, measure.Resumed, round, measure.PerSec, 1900., measure.CPU, 260.),
			row("polyport", "connect-tls", measure.Handshakes, measure.Full, round, measure.PerSec, 900., measure.CPU, 900.),
			row("haproxy", "raw-tls", measure.Handshakes, measure.Full, round, measure.PerSec, 1500., measure.CPU, 400.),
			row("haproxy", "raw-tls", measure.Handshakes, measure.Resumed, round, measure.PerSec, 2000., measure.CPU, 380.),
			row("gotls", "raw", measure.Handshakes, measure.Plain, round, measure.PerSec, 14000., measure.CPU, 30.),
			row("polyport", "raw-tls", measure.Handshakes, measure.FullAlone, round, measure.CPU, 220.),
			row("polyport", "raw-tls", measure.Handshakes, measure.ResumedAlone, round, measure.CPU, 190.),
			row("gotls", "raw-tls", measure.Handshakes, measure.FullAlone, round, measure.CPU, 200.),
			row("gotls", "raw-tls", measure.Handshakes, measure.ResumedAlone, round, measure.CPU, 160.),
			row("gotls", "raw-tls", measure.Handshakes, measure.Full, round, measure.PerSec, 1800., measure.CPU, 230.),
			row("gotls", "raw-tls", measure.Handshakes, measure.Resumed, round, measure.PerSec, 2000., measure.CPU, 190.),
			row("polyport", "connect-tls", measure.TLSBulk, "down1", round, measure.GBps, .9, measure.CPUPerGB, .8),
			row("polyport", "connect-tls", measure.TLSBulk, "up8", round, measure.GBps, .6, measure.CPUPerGB, .9),
			row("polyport", "connect-tls", measure.TLSBulk, "up", round, measure.Bytes, 1e8),
			row("haproxy", "raw-tls", measure.TLSBulk, "down1", round, measure.GBps, .9, measure.CPUPerGB, .8),
			row("haproxy", "raw-tls", measure.TLSBulk, "up8", round, measure.GBps, .8, measure.CPUPerGB, .9),
			row("direct", "direct", measure.UDP, "echo64x1", round, measure.PerSec, 400000.),
			row("polyport", "socks5-udp", measure.UDP, "echo64x1", round, measure.PerSec, 240000., measure.CPU, 1.5, measure.Lost, 0.),
			row("polyport", "socks5-udp", measure.UDP, "paced20000", round, measure.PerSec, 19800., measure.CPU, 6., measure.Offered, 20000., measure.Lost, .01),
			row("dante", "socks5-udp", measure.UDP, "echo64x1", round, measure.PerSec, 100000., measure.CPU, 4.),
			row("dante", "socks5-udp", measure.UDP, "paced20000", round, measure.PerSec, 20000., measure.CPU, 9.),
			row("sing-box", "socks5-udp", measure.UDP, "echo64x1", round, measure.PerSec, 120000., measure.CPU, 3.),
			row("sing-box", "socks5-udp", measure.UDP, "paced20000", round, measure.PerSec, 20000., measure.CPU, 5.),
			row("copy", "socks5-udp", measure.UDP, "echo64x1", round, measure.PerSec, 200000., measure.CPU, 2.),
			row("direct", "direct", measure.Chain, "", round, measure.PerSec, 14000.),
			row("hop", "socks5", measure.Chain, "", round, measure.PerSec, 5000., measure.CPU, 120.),
			row("polyport", "socks5", measure.Chain, "", round, measure.PerSec, 3600., measure.CPU, 130.),
			row("sing-box", "socks5", measure.Chain, "", round, measure.PerSec, 2400., measure.CPU, 300.),
			row("xray", "socks5", measure.Chain, "", round, measure.PerSec, 3000., measure.CPU, 260.),
			row("copy", "socks5", measure.Chain, "", round, measure.PerSec, 3900., measure.CPU, 140.),
			row("polyport", "socks5", measure.ChainBulk, "down1", round, measure.GBps, 1.8, measure.CPUPerGB, .12),
			row("sing-box", "socks5", measure.ChainBulk, "down1", round, measure.GBps, 2., measure.CPUPerGB, .1),
			row("xray", "socks5", measure.ChainBulk, "down1", round, measure.GBps, 1., measure.CPUPerGB, .4),
			row("polyport", "socks5", measure.ChainBulk, "down", round, measure.Bytes, 1e8),
			row("polyport", "socks5-udp", measure.UDPIdle, measure.Silent, round, measure.PSS, 2048., measure.FDs, 1., measure.Opened, 10000.),
			row("polyport", "socks5-udp", measure.UDPIdle, measure.Answered, round, measure.PSS, 3072., measure.FDs, 2., measure.Opened, 10000.),
		)
	}
	return all
}

func TestRatiosAreMadeWithinARound(t *testing.T) {
	d := NewData([]measure.Measurement{
		row("direct", "direct", "w", "", 1, "m", 10.), row("direct", "direct", "w", "", 1, "m", 30.), row("x", "p", "w", "", 1, "m", 10.),
		row("direct", "direct", "w", "", 2, "m", 100.), row("x", "p", "w", "", 2, "m", 60.),
		row("direct", "direct", "w", "", 3, "m", 1.), row("x", "p", "w", "", 3, "m", 9.),
		row("x", "p", "w", "", 4, "m", 9.), // no direct in this round
	})
	x, direct := Key{"w", "", "x", "p"}, Key{"w", "", "direct", "direct"}
	if got, ok := d.Ratio(x, direct, "m"); !ok || got != .6 {
		t.Errorf("Ratio = %v, %v, want 0.6", got, ok)
	}
	if got, ok := d.Value(direct, "m"); !ok || got != 20 {
		t.Errorf("Value = %v, %v, want 20", got, ok)
	}
	if _, ok := d.Ratio(x, direct, "other"); ok {
		t.Error("a ratio without measurements")
	}
}

func TestAQuietWindowReplacesANoisyOne(t *testing.T) {
	noisy := row("x", "p", "w", "", 1, "m", 1., measure.Other, .9)
	noisy.Errors = 2
	d := NewData([]measure.Measurement{
		noisy, row("x", "p", "w", "", 1, "m", 5., measure.Other, .1),
		row("y", "p", "w", "", 1, "m", 1., measure.Other, .9), row("y", "p", "w", "", 1, "m", 2., measure.Other, .4),
	})
	for name, want := range map[string]float64{"x": 5, "y": 2} {
		if got, _ := d.Value(Key{"w", "", name, "p"}, "m"); got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	if got := d.errors[Key{"w", "", "x", "p"}]; got != 2 {
		t.Errorf("%d errors, want those of the window that was left out too", got)
	}
	if d.noisy != 3 || d.kept != 1 {
		t.Errorf("%d noisy, %d kept, want 3 and 1", d.noisy, d.kept)
	}
}

func TestResult(t *testing.T) {
	tests := []struct {
		v          float64
		must, goal Limit
		want       string
	}{
		{.5, most(.5), most(.3), holds},
		{.51, most(.5), most(.3), misses},
		{.3, most(.5), most(.3), reachesGoal},
		{.55, least(.55), least(.66), holds},
		{.54, least(.55), least(.66), misses},
		{.7, least(.55), least(.66), reachesGoal},
		{0, most(0), most(0), reachesGoal},
		{1, most(0), most(0), misses},
		{math.NaN(), most(1), most(1), misses},
	}
	for _, tt := range tests {
		if got := result(tt.v, tt.must, tt.goal); got != tt.want {
			t.Errorf("result(%v, %v, %v) = %q, want %q", tt.v, tt.must, tt.goal, got, tt.want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	got := map[string]string{}
	for _, v := range Verdicts(NewData(sample())) {
		got[v.What] = v.Figure + " " + v.Result + " " + v.From
	}
	for what, want := range map[string]string{
		"CPU per GB, × haproxy":                    "0.30 goal tls down8",
		"GB/s, × direct":                           "0.50 misses tls down8",
		"CPU per GB, × nginx":                      "– not measured ",
		"× the better of microsocks and tinyproxy": "0.95 holds socks5",
		"× direct":                                 "0.50 goal socks5",
		"× haproxy":                                "0.90 goal socks5",
		"PSS, KB":                                  "0.90 goal socks5",
		"descriptors":                              "2 goal socks5",
		"threads of the process":                   "17 misses socks5",
		"× squid":                                  "5 goal http",
		"errors, lost or changed bytes":            "0 goal ",
	} {
		if got[what] != want {
			t.Errorf("%s: %q, want %q", what, got[what], want)
		}
	}
}

func TestVerdictsOnTLS(t *testing.T) {
	got := map[string]string{}
	for _, v := range Verdicts(NewData(sample())) {
		got[v.Work] = v.Figure + " " + v.Result + " " + v.From
	}
	for work, want := range map[string]string{
		"TLS handshakes, full":                               "1.20 goal raw-tls full", // not that of connect-tls
		"TLS handshakes, resumed":                            "0.95 holds raw-tls resumed",
		"TLS handshakes, both, with nothing inside":          "1.19 misses resumed alone: 190 µs, gotls 160 µs",
		"bulk through TLS, 1 and 8 tunnels, both directions": "0.75 misses connect-tls up8",
	} {
		if got[work] != want {
			t.Errorf("%s: %q, want %q", work, got[work], want)
		}
	}
}

func TestVerdictsOnUDP(t *testing.T) {
	got := map[string]string{}
	for _, v := range Verdicts(NewData(sample())) {
		if what := v.Work + ", " + v.What; got[what] == "" { // the first of its name
			got[what] = v.Figure + " " + v.Result + " " + v.From
		}
	}
	for what, want := range map[string]string{
		"UDP echo, 64 and 1,200 bytes, 1 and 8 associations, per second, × the best of dante, sing-box and xray": "2 goal socks5-udp echo64x1", // not that of paced20000
		", per second, × copy": "1.20 holds socks5-udp echo64x1",
		"UDP, echoed and at fixed rates, CPU per datagram, × the lowest of all others": "1.20 misses socks5-udp paced20000",
		"idle UDP association, silent and answered, PSS, KiB":                          "3 goal socks5-udp answered",
	} {
		if got[what] != want {
			t.Errorf("%s: %q, want %q", what, got[what], want)
		}
	}
}

func TestVerdictsOnChains(t *testing.T) {
	got := map[string]string{}
	for _, v := range Verdicts(NewData(sample())) {
		got[v.What] = v.Figure + " " + v.Result + " " + v.From
	}
	for what, want := range map[string]string{
		"× the better of sing-box and xray":                "1.20 goal socks5",
		"CPU per tunnel, × the lower of sing-box and xray": "0.50 goal socks5",
		"GB/s, × the better of sing-box and xray":          "0.90 holds socks5 down1",
		"CPU per GB, × the lower of sing-box and xray":     "1.20 misses socks5 down1",
	} {
		if got[what] != want {
			t.Errorf("%s: %q, want %q", what, got[what], want)
		}
	}
}

func TestBuildsAreComparedWithinARound(t *testing.T) {
	all := []measure.Measurement{
		row("polyport", "socks5", measure.ConnRate, "", 1, measure.PerSec, 90.), row("other", "socks5", measure.ConnRate, "", 1, measure.PerSec, 100.),
		row("polyport", "socks5", measure.ConnRate, "", 2, measure.PerSec, 30.), row("other", "socks5", measure.ConnRate, "", 2, measure.PerSec, 20.),
		row("polyport", "socks5", measure.ConnRate, "", 3, measure.PerSec, 40.), row("other", "socks5", measure.ConnRate, "", 3, measure.PerSec, 40.),
		row("polyport", "socks5", measure.ConnRate, "", 4, measure.PerSec, 99.),                                                                   // the other has none in this round
		row("polyport", "tls", measure.ConnRate, "", 1, measure.PerSec, 50.), row("haproxy", "tls", measure.ConnRate, "", 1, measure.PerSec, 50.), // no build beside it
	}
	want := [][]string{{measure.ConnRate, "socks5", "", "per second", "1", "0.90", "1.50", "3"}}
	if d := cmp.Diff(want, buildsTable(NewData(all)).Rows); d != "" {
		t.Error(d)
	}
	if text := Text(NewData(all)); !strings.Contains(text, "This build / the other build") {
		t.Errorf("the comparison is not shown:\n%s", text)
	}
	if text := Text(NewData(sample())); strings.Contains(text, "the other build") {
		t.Errorf("a comparison with nothing:\n%s", text)
	}
}

// TestHandshakeCPUWithoutItsYardstick: a part of the rows gives no figure.
func TestHandshakeCPUWithoutItsYardstick(t *testing.T) {
	tls := slices.DeleteFunc(sample(), func(m measure.Measurement) bool { return m.Name == "gotls" })
	if got := handshakeCPU(NewData(tls)); len(got) > 0 {
		t.Errorf("%v, want nothing", got)
	}
}

func TestAnyErrorMissesTheTarget(t *testing.T) {
	all := sample()
	all[1].Errors, all[1].FirstErr = 1, "reset"
	v := Verdicts(NewData(all))
	if last := v[len(v)-1]; last.Result != misses || !strings.Contains(last.From, "reset") {
		t.Errorf("verdict on errors = %+v", last)
	}
}

func TestPlotIsWellFormed(t *testing.T) {
	all := append(sample(), row(`<&">`, "p", measure.HTTP, "", 1, measure.PerSec, 0.))
	dec := xml.NewDecoder(strings.NewReader(Plot(NewData(all))))
	count := map[string]int{}
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			count[e.Name.Local]++
		}
	}
	if d := cmp.Diff(map[string]int{"svg": 1, "title": 1, "desc": 1, "style": 1, "text": 28, "tspan": 4, "rect": 12, "path": 4}, count); d != "" {
		t.Error(d)
	}
	if got := Plot(NewData(nil)); got != "" {
		t.Errorf("a plot of nothing: %q", got)
	}
}

func TestPage(t *testing.T) {
	run := measure.Run{
		Date: "2026-01-02", Rounds: 3, Window: "1.5s", Flags: "-only polyport", Account: "nobody", Limits: []string{"The moon was full."},
		Machine:  measure.Machine{CPU: "A CPU", Cores: 2, Memory: 8 << 30, System: "Debian", Kernel: "6.1", Go: "go1.26"},
		Programs: []measure.Program{{Name: "haproxy", Version: "2.6", Note: "a | b"}},
	}
	for _, tt := range []struct {
		file string
		run  measure.Run
		data *Data
	}{
		{"testdata/page.md", run, NewData(sample())},
		{"testdata/empty.md", measure.Run{}, NewData(nil)},
	} {
		got, err := Page(tt.run, tt.data, "performance.svg")
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(tt.file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(tt.file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (go test -update writes it anew): %s", tt.file, d)
		}
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", .1234: "0.123", .5: "0.50", 1.5: "1.50", 2: "2", 12.34: "12.3", 123.4: "123", 1234567: "1,234,567", -1234.5: "-1,234", 999: "999",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestText(t *testing.T) {
	got := Table{Title: "T", Head: []string{"a", "figure"}, Rows: [][]string{{"xyz", "1"}, {"×", ""}}}.Text()
	if want := "T\n  a    figure\n  xyz  1\n  ×\n"; got != want {
		t.Errorf("Text = %q, want %q", got, want)
	}
}
