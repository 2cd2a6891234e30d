package measure

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedianAndPercentile(t *testing.T) {
	tests := []struct {
		in   []float64
		want float64
	}{
		{nil, 0},
		{[]float64{3}, 3},
		{[]float64{3, 1}, 2},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	}
	for _, tt := range tests {
		if got := Median(tt.in); got != tt.want {
			t.Errorf("Median(%v) = %v, want %v", tt.in, got, tt.want)
		}
	}
	if got := Percentile([]float64{1, 2, 3, 4, 5}, .5); got != 3 {
		t.Errorf("Percentile(.5) = %v, want 3", got)
	}
	if got := Mean([]float64{1, 2, 6}); got != 3 {
		t.Errorf("Mean = %v, want 3", got)
	}
}

func TestLinesComeBackAsTheyWere(t *testing.T) {
	run := Run{Date: "2026-01-02", Machine: Machine{CPU: "a CPU", Cores: 2}, Programs: []Program{{Name: "nginx", Version: "1"}}}
	m := Measurement{Name: "nginx", Proto: "tls", Work: Bulk, Variant: "down1", Round: 1, Metrics: map[string]float64{GBps: 1.5}, Errors: 2, FirstErr: "x"}
	var b bytes.Buffer
	if err := WriteRun(&b, run); err != nil {
		t.Fatal(err)
	}
	if err := Write(&b, m); err != nil {
		t.Fatal(err)
	}
	gotRun, got, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(run, gotRun); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]Measurement{m}, got); d != "" {
		t.Error(d)
	}
	if _, _, err := Read(strings.NewReader("{}\nnonsense\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("Read of nonsense = %v, want the line", err)
	}
}

func TestRoundsOfLaterFilesAreCountedOn(t *testing.T) {
	var paths []string
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(`{"name":"x","round":1}`+"\n"+`{"name":"x","round":2}`+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	run, all, err := ReadFiles(paths)
	if err != nil {
		t.Fatal(err)
	}
	var rounds []int
	for _, m := range all {
		rounds = append(rounds, m.Round)
	}
	if d := cmp.Diff([]int{1, 2, 3, 4}, rounds); d != "" || run.Rounds != 4 {
		t.Errorf("%d rounds: %s", run.Rounds, d)
	}
}
