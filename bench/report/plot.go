package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"polyport/bench/measure"
)

// panel is one group of bars.
type panel struct {
	title string
	less  bool // less is better
	bars  []bar
}

type bar struct {
	label string
	value float64
	ours  bool
}

// subjects of the panels. The subject of the page is there with each protocol that it was measured by.
var panelsOf = []struct {
	title, work, variant, metric string
	unit                         float64
	less                         bool
}{
	{"CPU seconds per GB, 8 tunnels down", measure.Bulk, "down8", measure.CPUPerGB, 1, true},
	{"New tunnels per second", measure.ConnRate, "", measure.PerSec, 1, false},
	{"HTTP requests per second, keep-alive, 1 KiB", measure.HTTP, "", measure.PerSec, 1, false},
	{"PSS per idle tunnel, KB", measure.Idle, "", measure.PSS, 1000, true},
}

func panels(d *Data) []panel {
	var all []panel
	for _, s := range panelsOf {
		p := panel{title: s.title, less: s.less}
		keys := d.keys(func(k Key) bool { return k.Work == s.work && k.Variant == s.variant && k.Name != measure.Direct })
		for _, k := range keys {
			if v, ok := d.Value(k, s.metric); ok {
				p.bars = append(p.bars, bar{k.Name + ", " + k.Proto, v / s.unit, k.Name == subject})
			}
		}
		if len(p.bars) > 0 {
			slices.SortStableFunc(p.bars, p.better)
			all = append(all, p)
		}
	}
	return all
}

func (p panel) better(a, b bar) int {
	if p.less {
		return cmp.Compare(a.value, b.value)
	}
	return cmp.Compare(b.value, a.value)
}

// Measures of the drawing, in pixels.
const (
	plotWidth  = 880
	labelWidth = 190
	valueWidth = 90
	barStep    = 24
	barHeight  = 16
	titleStep  = 40
	plotMargin = 16
)

const plotStyle = `
    text { font: 14px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
    .title { font-size: 16px; font-weight: 600; }
    .soft { fill: #59636e; font-size: 13px; font-weight: 400; }
    .end { text-anchor: end; }
    .ours { font-weight: 600; }
    .bar { fill: #afb8c1; }
    .bar.ours { fill: #0969da; }
    .axis { stroke: #818b98; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .soft { fill: #9198a1; }
      .bar { fill: #4c545d; }
      .bar.ours { fill: #4493f8; }
      .axis { stroke: #656c76; }
    }
  `

// Plot draws the main figures as an SVG with nothing from outside in it. It is
// empty if there are none.
func Plot(d *Data) string {
	all := panels(d)
	if len(all) == 0 {
		return ""
	}
	var body strings.Builder
	y := plotMargin
	for _, p := range all {
		y = p.draw(&body, y)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="title about">`+"\n", plotWidth, y)
	fmt.Fprintf(&b, "  <title id=\"title\">polyport beside other proxies</title>\n  <desc id=\"about\">%s</desc>\n", escape(describe(all)))
	fmt.Fprintf(&b, "  <style>%s</style>\n%s</svg>\n", plotStyle, body.String())
	return b.String()
}

// draw draws the panel from y down and returns where it ends.
func (p panel) draw(b *strings.Builder, y int) int {
	way := "more is better"
	if p.less {
		way = "less is better"
	}
	fmt.Fprintf(b, "  <text class=\"title\" x=\"%d\" y=\"%d\">%s <tspan class=\"soft\">%s</tspan></text>\n", plotMargin, y+18, escape(p.title), way)
	y += titleStep - 8
	top := y
	most := slices.MaxFunc(p.bars, func(a, b bar) int { return cmp.Compare(a.value, b.value) }).value
	for _, r := range p.bars {
		r.draw(b, y, most)
		y += barStep
	}
	fmt.Fprintf(b, "  <path class=\"axis\" d=\"M%d %dV%d\"/>\n", labelWidth, top-2, y-4)
	return y + plotMargin
}

// draw draws one bar; most is the value of the longest one.
func (r bar) draw(b *strings.Builder, y int, most float64) {
	ours := ""
	if r.ours {
		ours = " ours"
	}
	length := 0.0
	if most > 0 {
		length = max(0, r.value/most) * (plotWidth - labelWidth - valueWidth)
	}
	fmt.Fprintf(b, "  <text class=\"end%s\" x=\"%d\" y=\"%d\">%s</text>\n", ours, labelWidth-8, y+13, escape(r.label))
	fmt.Fprintf(b, "  <rect class=\"bar%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>\n", ours, labelWidth, y, length, barHeight)
	fmt.Fprintf(b, "  <text class=\"soft%s\" x=\"%.1f\" y=\"%d\">%s</text>\n", ours, labelWidth+length+6, y+13, number(r.value))
}

// describe says in words what the drawing shows.
func describe(all []panel) string {
	var parts []string
	for _, p := range all {
		var values []string
		for _, r := range p.bars {
			values = append(values, r.label+" "+number(r.value))
		}
		parts = append(parts, p.title+": "+strings.Join(values, "; "))
	}
	return strings.Join(parts, ". ") + "."
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;")

func escape(s string) string { return escaper.Replace(s) }
