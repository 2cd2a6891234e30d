package report

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"polyport/bench/measure"
)

// Table is one workload.
type Table struct {
	Title string
	Head  []string
	Rows  [][]string
}

// column is a metric as it is shown.
type column struct {
	metric, head string
	unit         float64 // divides the metric
}

// layout says how a workload is shown. lead is the metric that ratios are made of.
type layout struct {
	work, title, lead string
	columns           []column
	ratio             bool // to direct
}

var rates = []column{{measure.PerSec, "per second", 1}, {measure.P50, "p50 µs", 1}, {measure.P99, "p99 µs", 1}, {measure.CPU, "CPU µs each", 1}}

var bulkColumns = []column{{measure.GBps, "GB/s", 1}, {measure.CPUPerGB, "CPU s per GB", 1}}

var layouts = []layout{
	{measure.Bulk, "Bulk transfer", measure.GBps, bulkColumns, true},
	{measure.BusyIdle, "Downloads beside 2,000 idle tunnels", measure.GBps, append(slices.Clone(bulkColumns), column{measure.OwnPerGB, "without them", 1}, column{measure.Opened, "idle tunnels", 1}), false},
	{measure.ConnRate, "New tunnels: open, echo 16 bytes, close; 32 clients", measure.PerSec, rates, true},
	{measure.PingPong, "Ping-pong: 64 bytes, 64 tunnels", measure.PerSec, rates, true},
	{measure.Alone, "One client alone", measure.PerSec, rates, true},
	{measure.HTTP, "HTTP forward: keep-alive, 1 KiB, 64 connections", measure.PerSec, append(slices.Clone(rates), column{measure.Opened, "connections", 1}), true},
	{measure.Handshakes, "TLS handshakes: connect, handshake, echo 16 bytes (alone: nothing), close; 32 clients", measure.PerSec, rates, false},
	{measure.TLSBulk, "Bulk transfer through TLS that ends at the proxy", measure.GBps, append(slices.Clone(bulkColumns), column{measure.Bytes, "MB right", 1e6}), false},
	{measure.Chain, "New tunnels through a SOCKS5 next hop: open, echo 1 byte, close; 32 clients", measure.PerSec, rates, true},
	{measure.ChainBulk, "Bulk transfer through a SOCKS5 next hop", measure.GBps, append(slices.Clone(bulkColumns), column{measure.Bytes, "MB right", 1e6}), true},
	{measure.Idle, "Idle tunnels, each", measure.PSS, []column{
		{measure.PSS, "PSS KB", 1000},
		{measure.RSS, "RSS KB", 1000},
		{measure.Kernel, "kernel KB", 1000},
		{measure.FDs, "descriptors", 1},
		{measure.Threads, "threads in all", 1},
		{measure.IdleCPU, "cores in all", 1},
		{measure.WakeP50, "wake p50 µs", 1},
		{measure.WakeP99, "wake p99 µs", 1},
		{measure.Opened, "tunnels", 1},
	}, false},
	{measure.Held, "Good clients beside 2,000 held connections", measure.PerSec, []column{
		{measure.PerSec, "per second", 1}, {measure.Kept, "× without", 1}, {measure.P99, "p99 µs", 1}, {measure.PSS, "PSS KB each", 1000}, {measure.Opened, "held", 1}, {measure.StillIn, "at the end", 1},
	}, false},
	{measure.UDP, "UDP through SOCKS5 UDP ASSOCIATE: bytes × associations echoed, or 1,200 bytes one way at a fixed rate", measure.PerSec, []column{
		{measure.PerSec, "arrive per second", 1}, {measure.Offered, "sent per second", 1}, {measure.Lost, "lost %", .01}, {measure.CPU, "CPU µs per datagram", 1},
	}, true},
	{measure.UDPIdle, "Idle UDP associations, each", measure.PSS, []column{
		{measure.PSS, "PSS KiB", 1024},
		{measure.RSS, "RSS KiB", 1024},
		{measure.Kernel, "kernel KiB", 1024},
		{measure.FDs, "descriptors", 1},
		{measure.Threads, "threads in all", 1},
		{measure.Procs, "processes in all", 1},
		{measure.IdleCPU, "cores in all", 1},
		{measure.Opened, "associations", 1},
	}, false},
	{measure.Verify, "Bytes compared with what was sent", measure.Bytes, []column{{measure.Bytes, "MB right", 1e6}}, false},
}

// Tables are all workloads that were measured.
func Tables(d *Data) []Table {
	var all []Table
	for _, l := range layouts {
		if keys := d.keys(func(k Key) bool { return k.Work == l.work }); len(keys) > 0 {
			all = append(all, l.table(d, keys))
		}
	}
	return all
}

func (l layout) table(d *Data, keys []Key) Table {
	t := Table{Title: l.title, Head: []string{"program", "protocol"}}
	varies := slices.ContainsFunc(keys, func(k Key) bool { return k.Variant != "" })
	if varies {
		t.Head = append(t.Head, "what")
	}
	for _, c := range l.columns {
		t.Head = append(t.Head, c.head)
	}
	if l.ratio {
		t.Head = append(t.Head, "× direct")
	}
	t.Head = append(t.Head, "errors")
	slices.SortStableFunc(keys, func(a, b Key) int { return strings.Compare(a.Variant, b.Variant) })
	for _, k := range keys {
		t.Rows = append(t.Rows, l.row(d, k, varies))
	}
	return t
}

func (l layout) row(d *Data, k Key, varies bool) []string {
	cells := []string{k.Name, k.Proto}
	if k.Name == measure.Direct {
		cells[1] = ""
	}
	if varies {
		cells = append(cells, k.Variant)
	}
	for _, c := range l.columns {
		cell := ""
		if v, ok := d.Value(k, c.metric); ok {
			cell = number(v / c.unit)
		}
		cells = append(cells, cell)
	}
	if l.ratio {
		cell := ""
		direct := Key{k.Work, k.Variant, measure.Direct, measure.Direct}
		if v, ok := d.Ratio(k, direct, l.lead); ok && k != direct {
			cell = number(v)
		}
		cells = append(cells, cell)
	}
	return append(cells, strconv.Itoa(d.errors[k]))
}

// verdictTable shows verdicts in the form of the targets.
func verdictTable(all []Verdict) Table {
	t := Table{Title: "Targets", Head: []string{"workload", "figure", "measured", "must", "goal", "verdict", "worst case"}}
	for _, v := range all {
		t.Rows = append(t.Rows, []string{v.Work, v.What, v.Figure, v.Must, v.Goal, v.Result, v.From})
	}
	return t
}

// Text writes all tables for a terminal.
func Text(d *Data) string {
	var b strings.Builder
	all := []Table{verdictTable(Verdicts(d))}
	if t := buildsTable(d); len(t.Rows) > 0 {
		all = append(all, t)
	}
	for _, t := range append(all, Tables(d)...) {
		b.WriteString(t.Text() + "\n")
	}
	return b.String()
}

// Text is the table in columns.
func (t Table) Text() string {
	width := make([]int, len(t.Head))
	rows := append([][]string{t.Head}, t.Rows...)
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	b.WriteString(t.Title + "\n")
	for _, r := range rows {
		line := ""
		for i, c := range r {
			line += c + strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+2)
		}
		b.WriteString(strings.TrimRight("  "+line, " ") + "\n")
	}
	return b.String()
}

// Markdown is the table without its title, and without a line end behind it.
func (t Table) Markdown() string {
	var b strings.Builder
	for i, r := range append([][]string{t.Head}, t.Rows...) {
		for _, c := range r {
			b.WriteString("| " + strings.NewReplacer("|", `\|`, "\n", " ").Replace(c) + " ")
		}
		b.WriteString("|\n")
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(t.Head)) + "|\n")
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}
