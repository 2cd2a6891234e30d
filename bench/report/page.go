package report

import (
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"polyport/bench/measure"
)

//go:embed page.md.tmpl
var pageText string

// pageData is what the template of the page sees.
type pageData struct {
	Run      measure.Run
	Measured bool
	Plot     string // the file's name
	Verdicts Table
	Counts   map[string]int // verdicts by result
	Tables   []Table
	Programs Table
	Noisy    int
	Kept     int
}

// Page is docs/performance.md. plot is the path of the drawing from there.
func Page(run measure.Run, d *Data, plot string) (string, error) {
	t, err := template.New("page").Parse(pageText)
	if err != nil {
		return "", err
	}
	verdicts := Verdicts(d)
	p := pageData{
		Run: run, Measured: len(d.rounds) > 0, Plot: plot, Verdicts: verdictTable(verdicts), Counts: map[string]int{},
		Tables: Tables(d), Programs: programTable(run.Programs), Noisy: d.noisy, Kept: d.kept,
	}
	for _, v := range verdicts {
		p.Counts[v.Result]++
	}
	var b strings.Builder
	if err := t.Execute(&b, p); err != nil {
		return "", err
	}
	return b.String(), nil
}

// Memory is the machine's, in GiB.
func (p pageData) Memory() string {
	return fmt.Sprintf("%.0f GiB", float64(p.Run.Machine.Memory)/(1<<30))
}

func programTable(all []measure.Program) Table {
	t := Table{Head: []string{"program", "version", "how it runs"}}
	for _, p := range all {
		t.Rows = append(t.Rows, []string{p.Name, p.Version, p.Note})
	}
	return t
}
