package main

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"polyport/bench/loopback"
	"polyport/bench/measure"
	"polyport/bench/peer"
)

// TestMain lets the test's own binary be the origin and the yardstick, as the benchmark's is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"origin", "copy", "hop", "gotls"}, os.Args[1]) {
		main()
		return
	}
	os.Exit(m.Run())
}

// freePort begins a stretch of free ports, below those that the system gives to clients.
func freePort(t *testing.T) string {
	t.Helper()
	for base := 20000 + os.Getpid()%100*100; base < 32000; base += 100 {
		if free(base) {
			return strconv.Itoa(base)
		}
	}
	t.Fatal("no stretch of ports is free")
	return ""
}

func free(base int) bool {
	for port := base; port < base+80; port++ {
		l, err := loopback.Listen("127.0.0.1:" + strconv.Itoa(port))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

func TestARunMeasuresTheYardstick(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the benchmark reads /proc")
	}
	out, page := filepath.Join(t.TempDir(), "out.jsonl"), filepath.Join(t.TempDir(), "page.md")
	var stdout, stderr bytes.Buffer
	args := []string{"-only", "copy", "-work", "pingpong,connrate", "-rounds", "2", "-dur", "20ms", "-retries", "0", "-port", freePort(t), "-out", out, "-page", page}
	if err := command(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	info, all, err := measure.ReadFiles([]string{out})
	if err != nil {
		t.Fatal(err)
	}
	if info.Rounds != 2 || info.Machine.Cores == 0 || len(info.Programs) != 1 {
		t.Errorf("the run is described as %+v", info)
	}
	count := map[string]int{}
	for _, m := range all {
		count[m.Name+" "+m.Work]++
		if m.Errors > 0 {
			t.Errorf("%s", summary(m))
		}
	}
	for _, row := range []string{"direct pingpong", "direct connrate", "copy pingpong", "copy connrate"} {
		if count[row] < 2 {
			t.Errorf("%d measurements of %s", count[row], row)
		}
	}
	if !strings.Contains(stdout.String(), "copy") || !strings.Contains(stderr.String(), "left as it is") {
		t.Errorf("it says\n%s\n%s", stdout.String(), stderr.String())
	}
	if _, err := os.Stat(page); err == nil {
		t.Error("a run of one program has written the page")
	}
	reportOf(t, out)
}

func TestARunMeasuresTheYardstickOfTLS(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the benchmark reads /proc")
	}
	out := filepath.Join(t.TempDir(), "out.jsonl")
	var stdout, stderr bytes.Buffer
	args := []string{"-only", "gotls", "-work", "handshakes,tlsbulk,connrate", "-rounds", "1", "-dur", "20ms", "-retries", "0", "-port", freePort(t), "-out", out}
	if err := command(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	_, all, err := measure.ReadFiles([]string{out})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range all {
		if m.Name != measure.Direct {
			got = append(got, m.Proto+" "+m.Variant)
		} else if m.Work != measure.ConnRate {
			t.Errorf("the origin speaks no TLS, but is measured by %s", m.Work)
		}
		if m.Errors > 0 {
			t.Errorf("%s", summary(m))
		}
	}
	want := []string{"raw plain", "raw-tls full", "raw-tls resumed", "raw-tls full alone", "raw-tls resumed alone", "raw-tls down1", "raw-tls up1", "raw-tls down8", "raw-tls up8", "raw-tls down", "raw-tls up"}
	if !slices.Equal(got, want) {
		t.Errorf("measured %q, want %q", got, want)
	}
}

func TestARunMeasuresUDP(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the benchmark reads /proc")
	}
	out := filepath.Join(t.TempDir(), "out.jsonl")
	var stdout, stderr bytes.Buffer
	args := []string{"-only", "copy,gotls", "-work", "udp,udpidle", "-rounds", "2", "-dur", "20ms", "-retries", "0", "-associations", "50", "-port", freePort(t), "-out", out}
	if err := command(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	_, all, err := measure.ReadFiles([]string{out})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, m := range all {
		count[m.Name+" "+m.Work]++
		if m.Errors > 0 {
			t.Errorf("%s", summary(m))
		}
		if m.Work == measure.UDPIdle && m.Metrics[measure.Opened] != 50 {
			t.Errorf("%s", summary(m))
		}
	}
	if want := map[string]int{"direct udp": 40, "copy udp": 20, "copy udpidle": 2}; !maps.Equal(count, want) {
		t.Errorf("measured %v, want %v", count, want)
	}
}

func TestARunMeasuresChains(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the benchmark reads /proc")
	}
	out := filepath.Join(t.TempDir(), "out.jsonl")
	var stdout, stderr bytes.Buffer
	args := []string{"-only", "copy,gotls", "-work", "chain,chainbulk", "-rounds", "2", "-dur", "20ms", "-retries", "0", "-port", freePort(t), "-out", out}
	if err := command(t.Context(), args, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	_, all, err := measure.ReadFiles([]string{out})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, m := range all {
		count[m.Name+" "+m.Proto+" "+m.Work]++
		if m.Errors > 0 {
			t.Errorf("%s", summary(m))
		}
	}
	want := map[string]int{"direct direct chain": 2, "hop socks5 chain": 2, "copy socks5 chain": 2, "direct direct chainbulk": 8, "hop socks5 chainbulk": 8, "copy socks5 chainbulk": 8}
	if !maps.Equal(count, want) {
		t.Errorf("measured %v, want %v", count, want)
	}
}

func TestAnotherBuildIsMeasuredWhateverOnlySays(t *testing.T) {
	o, err := parseOptions([]string{"-only", "polyport", "-other", "a/file"}, io.Discard)
	if err != nil || !slices.Equal(o.only, []string{"polyport", "other"}) {
		t.Errorf("programs %v, %v", o.only, err)
	}
	if _, err := parseOptions([]string{"-only", "other"}, io.Discard); err == nil {
		t.Error("another build is accepted without a binary")
	}
}

func TestFittingAssociations(t *testing.T) {
	tests := []struct {
		n     int
		limit uint64
		want  int
	}{
		{10000, 1 << 20, 10000},
		{10000, 31000, 10000},
		{10000, 20000, 6333},
		{10, 20000, 10},
		{10, 500, 0},
	}
	for _, tt := range tests {
		if got := fittingAssociations(tt.n, tt.limit); got != tt.want {
			t.Errorf("fittingAssociations(%d, %d) = %d, want %d", tt.n, tt.limit, got, tt.want)
		}
	}
}

// reportOf makes a page of a file.
func reportOf(t *testing.T, file string) {
	t.Helper()
	page := filepath.Join(t.TempDir(), "page.md")
	if err := command(t.Context(), []string{"report", "-page", page, file}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil || !bytes.Contains(text, []byte("| copy | socks5 |")) || !bytes.Contains(text, []byte("(page.svg)")) {
		t.Errorf("the page lacks the yardstick, %v:\n%s", err, text)
	}
	if host, _ := os.Hostname(); len(host) > 3 && bytes.Contains(text, []byte(host)) {
		t.Errorf("the page names the host, %s", host)
	}
	if _, err := os.Stat(strings.TrimSuffix(page, ".md") + ".svg"); err != nil {
		t.Error(err)
	}
}

func TestAnInterruptedRunEnds(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the benchmark reads /proc")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	args := []string{"-only", "copy", "-rounds", "1", "-port", freePort(t), "-out", filepath.Join(t.TempDir(), "out")}
	if err := command(ctx, args, io.Discard, io.Discard); err == nil {
		t.Error("a run goes on although it was interrupted")
	}
}

func TestOptionsNameEveryFault(t *testing.T) {
	_, err := parseOptions([]string{"-rounds", "0", "-dur", "2h", "-only", "squib", "-work", "nap", "-protos", "ftp", "-port", "80", "-associations", "1"}, io.Discard)
	if err == nil {
		t.Fatal("nonsense is accepted")
	}
	for _, want := range []string{"-rounds 0", "-dur 2h", "-only squib", "-work nap", "-protos ftp", "-port 80", "-associations 1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %q", err, want)
		}
	}
}

func TestOnlyAWholeRunWritesThePage(t *testing.T) {
	tests := []struct {
		args  string
		whole bool
	}{
		{"", true},
		{"-dur 2s -rounds 5", true},
		{"-rounds 2", false},
		{"-only polyport", false},
		{"-work bulk", false},
		{"-protos socks5", false},
		{"-only copy,other -other x", false},
	}
	for _, tt := range tests {
		o, err := parseOptions(strings.Fields(tt.args), io.Discard)
		if err != nil || o.whole() != tt.whole || o.given != strings.TrimSuffix(tt.args, " -other x") {
			t.Errorf("%q: whole = %v, given %q, %v, want %v", tt.args, o.whole(), o.given, err, tt.whole)
		}
	}
}

func TestServersRefuseOtherAddresses(t *testing.T) {
	for _, args := range [][]string{{"copy", "0.0.0.0:15999"}, {"origin", "0.0.0.0:15998", "127.0.0.1:15999"}, {"copy"}, {"copy", "127.0.0.1:0", "192.0.2.1:80"}, {"hop"}, {"hop", "0.0.0.0:15997", "127.0.0.1:15999"}, {"hop", "127.0.0.1:0", "192.0.2.1:80"}, {"origin"}, {"gotls"}, {"gotls", "127.0.0.1:0", "127.0.0.1:0", "192.0.2.1:80", "", ""}, {"unknown"}} {
		if err := command(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}

// TestAnOlderBuildIsCheckedByWhatIsMeasured: it may not know the rest.
func TestAnOlderBuildIsCheckedByWhatIsMeasured(t *testing.T) {
	s := &session{opts: options{works: []string{measure.ConnRate, measure.Chain}, protos: []string{"socks5", "tls"}}}
	other := peer.Table("", "a/file", "", "")[1]
	tests := []struct {
		name, proto string
		program     peer.Program
		want        bool
	}{
		{"a protocol of the run", "tls", other, true},
		{"one that the run leaves out", "socks4", other, false},
		{"one of a workload that the run leaves out", measure.Socks5UDP, other, false},
		{"behind the next hop", "socks5", other.Chained(), true},
		{"behind the next hop there is no other", "tls", other.Chained(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := s.measures(&peer.Process{Program: tt.program}, tt.proto); got != tt.want {
				t.Errorf("measures(%s) = %v, want %v", tt.proto, got, tt.want)
			}
		})
	}
}
