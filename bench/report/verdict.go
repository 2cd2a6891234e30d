package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"polyport/bench/measure"
)

// Limit is a bound on a figure.
type Limit struct {
	Value float64
	Least bool // the figure has to be at least the value; else at most
}

func least(v float64) Limit { return Limit{v, true} }
func most(v float64) Limit  { return Limit{v, false} }

// Holds says whether a figure keeps the limit.
func (l Limit) Holds(v float64) bool {
	if l.Least {
		return v >= l.Value
	}
	return v <= l.Value
}

// String returns the limit as the tables show it.
func (l Limit) String() string {
	sign := "≤"
	if l.Least {
		sign = "≥"
	}
	return sign + " " + number(l.Value)
}

// figure is what a criterion found: a value and the case that it comes from.
type figure struct {
	value float64
	from  string
}

// criterion is one line of the targets. Of all its cases the worst one counts.
type criterion struct {
	work, what string
	must, goal Limit
	cases      func(*Data) []figure
}

// Verdict is how a criterion came out.
type Verdict struct {
	Work, What, Figure, Must, Goal, From, Result string
}

// Results of a verdict.
const (
	reachesGoal = "goal"
	holds       = "holds"
	misses      = "misses"
	notMeasured = "not measured"
)

// Verdicts weighs all criteria.
func Verdicts(d *Data) []Verdict {
	var all []Verdict
	for _, c := range criteria {
		all = append(all, c.weigh(d))
	}
	return all
}

func (c criterion) weigh(d *Data) Verdict {
	v := Verdict{Work: c.work, What: c.what, Must: c.must.String(), Goal: c.goal.String(), Figure: "–", Result: notMeasured}
	found := c.cases(d)
	if len(found) == 0 {
		return v
	}
	worst := found[0]
	for _, f := range found[1:] {
		if f.value < worst.value == c.must.Least {
			worst = f
		}
	}
	v.Figure, v.From = number(worst.value), worst.from
	v.Result = result(worst.value, c.must, c.goal)
	return v
}

func result(v float64, must, goal Limit) string {
	switch {
	case math.IsNaN(v) || !must.Holds(v):
		return misses
	case goal.Holds(v):
		return reachesGoal
	}
	return holds
}

// criteria are the targets of the project, line by line.
var criteria = []criterion{
	{"bulk, 1 and 8 tunnels, both directions, each tunnel protocol", "CPU per GB, × haproxy", most(.5), most(.3), against(measure.Bulk, measure.CPUPerGB, nil, "haproxy")},
	{"", "CPU per GB, × nginx", most(.5), most(.3), against(measure.Bulk, measure.CPUPerGB, nil, "nginx")},
	{"", "CPU per GB, × copy", most(1.3), most(1), against(measure.Bulk, measure.CPUPerGB, nil, "copy")},
	{"", "GB/s, × direct", least(.55), least(.66), against(measure.Bulk, measure.GBps, nil, measure.Direct)},
	{"bulk beside 2,000 idle tunnels, unprivileged user", "GB/s, × copy", least(1.4), least(1.7), against(measure.BusyIdle, measure.GBps, nil, "copy")},
	{"", "CPU per GB, × its own without them", most(1.5), most(1.2), besideIdle},
	{"new tunnels per second, socks5 and connect", "× the better of microsocks and tinyproxy", least(.8), least(1.1), against(measure.ConnRate, measure.PerSec, []string{"socks5", "connect"}, "microsocks", "tinyproxy")},
	{"", "× direct", least(.38), least(.5), against(measure.ConnRate, measure.PerSec, []string{"socks5", "connect"}, measure.Direct)},
	{"new tunnels per second, TLS by server name", "× the better of haproxy and nginx", least(.8), least(1), against(measure.ConnRate, measure.PerSec, []string{"tls"}, "haproxy", "nginx")},
	{"CPU per new tunnel", "× haproxy", most(1.3), most(.9), against(measure.ConnRate, measure.CPU, nil, "haproxy")},
	{"ping-pong, 64 tunnels", "× nginx", least(.85), least(.95), against(measure.PingPong, measure.PerSec, nil, "nginx")},
	{"HTTP forward, keep-alive, 1 KiB", "× squid", least(3.5), least(4.5), against(measure.HTTP, measure.PerSec, nil, "squid")},
	{"", "× haproxy as a reverse proxy", least(.8), least(1), against(measure.HTTP, measure.PerSec, nil, "haproxy")},
	{"TLS handshakes, full", "per second, × haproxy", least(.8), least(1), variant(measure.Full, against(measure.Handshakes, measure.PerSec, []string{measure.RawTLS}, "haproxy"))},
	{"TLS handshakes, resumed", "per second, × haproxy", least(.8), least(1), variant(measure.Resumed, against(measure.Handshakes, measure.PerSec, []string{measure.RawTLS}, "haproxy"))},
	{"TLS handshakes, both, with nothing inside", "CPU each, × gotls", most(1.1), most(1.1), handshakeCPU},
	{"bulk through TLS, 1 and 8 tunnels, both directions", "GB/s, × haproxy", least(.8), least(1), against(measure.TLSBulk, measure.GBps, nil, "haproxy")},
	{"UDP echo, 64 and 1,200 bytes, 1 and 8 associations", "per second, × the best of dante, sing-box and xray", least(1), least(2), variants("echo", against(measure.UDP, measure.PerSec, nil, "dante", "sing-box", "xray"))},
	{"", "per second, × copy", least(1), least(1.3), variants("echo", against(measure.UDP, measure.PerSec, nil, "copy"))},
	{"the same, datagrams that the kernel cuts", "per second, × the best of dante, sing-box and xray", least(1), least(2), variants("segments", against(measure.UDP, measure.PerSec, nil, "dante", "sing-box", "xray"))},
	{"", "per second, × copy", least(1), least(1.3), variants("segments", against(measure.UDP, measure.PerSec, nil, "copy"))},
	{"UDP, echoed and at fixed rates", "CPU per datagram, × the lowest of all others", most(1), most(1), againstLowest(measure.UDP, measure.CPU, nil, "dante", "sing-box", "xray", "copy")},
	// No slower than the fastest other program; a ratio that differs by 15 % says nothing.
	{"new tunnels per second through a SOCKS5 next hop", "× the better of sing-box and xray", least(.85), least(1), against(measure.Chain, measure.PerSec, nil, "sing-box", "xray")},
	{"", "CPU per tunnel, × the lower of sing-box and xray", most(1.15), most(1), againstLowest(measure.Chain, measure.CPU, nil, "sing-box", "xray")},
	{"bulk through a SOCKS5 next hop, 1 tunnel, both directions", "GB/s, × the better of sing-box and xray", least(.85), least(1), against(measure.ChainBulk, measure.GBps, nil, "sing-box", "xray")},
	{"", "CPU per GB, × the lower of sing-box and xray", most(1.15), most(1), againstLowest(measure.ChainBulk, measure.CPUPerGB, nil, "sing-box", "xray")},
	{"idle UDP association, silent and answered", "PSS, KiB", most(4), most(4), own(measure.UDPIdle, measure.PSS, 1024)},
	{"idle tunnel", "PSS, KB", most(3.4), most(1), own(measure.Idle, measure.PSS, 1000)},
	{"", "descriptors", most(2), most(2), own(measure.Idle, measure.FDs, 1)},
	{"", "threads of the process", most(16), most(16), own(measure.Idle, measure.Threads, 1)},
	{"2,000 held connections", "good clients' rate, × without them", least(.9), least(.95), own(measure.Held, measure.Kept, 1)},
	{"all workloads", "errors, lost or changed bytes", most(0), most(0), faults},
}

// ours are the subject's rows of a workload, of the protocols if there are any.
func ours(d *Data, work string, protos []string) []Key {
	return d.keys(func(k Key) bool {
		if k.Work != work || k.Name != subject {
			return false
		}
		for _, p := range protos {
			if p == k.Proto {
				return true
			}
		}
		return len(protos) == 0
	})
}

// rowsOf are a program's rows beside k: the same workload and variant.
func rowsOf(d *Data, k Key, name string) []Key {
	return d.keys(func(o Key) bool { return o.Work == k.Work && o.Variant == k.Variant && o.Name == name })
}

func label(k Key) string { return strings.TrimSpace(k.Proto + " " + k.Variant) }

// against compares each of our rows with that of the other programs which is the highest in its round.
func against(work, metric string, protos []string, names ...string) func(*Data) []figure {
	return againstBest(math.Max, work, metric, protos, names)
}

// againstLowest compares each of our rows with that of the other programs which is the lowest in its round.
func againstLowest(work, metric string, protos []string, names ...string) func(*Data) []figure {
	return againstBest(math.Min, work, metric, protos, names)
}

// againstBest compares each of our rows with that of the other programs which better prefers in its round.
func againstBest(better func(a, b float64) float64, work, metric string, protos, names []string) func(*Data) []figure {
	return func(d *Data) []figure {
		var all []figure
		for _, k := range ours(d, work, protos) {
			best := map[int]float64{}
			for _, name := range names {
				for _, o := range rowsOf(d, k, name) {
					for n, v := range d.In(o, metric) {
						if so, ok := best[n]; ok {
							v = better(so, v)
						}
						best[n] = v
					}
				}
			}
			if v, ok := medianRatio(d.In(k, metric), best); ok {
				all = append(all, figure{v, label(k)})
			}
		}
		return all
	}
}

// variant keeps the cases of one variant.
func variant(name string, cases func(*Data) []figure) func(*Data) []figure {
	return func(d *Data) []figure {
		return slices.DeleteFunc(cases(d), func(f figure) bool { return !strings.HasSuffix(f.from, " "+name) })
	}
}

// variants keeps the cases whose variants begin with a word.
func variants(begin string, cases func(*Data) []figure) func(*Data) []figure {
	return func(d *Data) []figure {
		return slices.DeleteFunc(cases(d), func(f figure) bool { return !strings.Contains(f.from, " "+begin) })
	}
}

// handshakeCPU compares what a connection costs that is nothing but a handshake: on a proxy, and on crypto/tls with nothing around it.
func handshakeCPU(d *Data) []figure {
	var all []figure
	for _, v := range []string{measure.FullAlone, measure.ResumedAlone} {
		it := d.In(Key{measure.Handshakes, v, subject, measure.RawTLS}, measure.CPU)
		theirs := d.In(Key{measure.Handshakes, v, "gotls", measure.RawTLS}, measure.CPU)
		if r, ok := medianRatio(it, theirs); ok {
			from := fmt.Sprintf("%s: %s µs, gotls %s µs", v, number(medianOf(it)), number(medianOf(theirs)))
			all = append(all, figure{r, from})
		}
	}
	return all
}

func medianOf(rounds map[int]float64) float64 {
	return measure.Median(slices.Collect(maps.Values(rounds)))
}

// besideIdle compares each of our rows beside idle tunnels with the same process before them.
func besideIdle(d *Data) []figure {
	var all []figure
	for _, k := range ours(d, measure.BusyIdle, nil) {
		if v, ok := medianRatio(d.In(k, measure.CPUPerGB), d.In(k, measure.OwnPerGB)); ok {
			all = append(all, figure{v, label(k)})
		}
	}
	return all
}

// own takes a metric as it is, in units of unit.
func own(work, metric string, unit float64) func(*Data) []figure {
	return func(d *Data) []figure {
		var all []figure
		for _, k := range ours(d, work, nil) {
			if v, ok := d.Value(k, metric); ok {
				all = append(all, figure{math.Round(v/unit*100) / 100, label(k)}) // a descriptor of the process is none of a tunnel
			}
		}
		return all
	}
}

// faults counts what went wrong anywhere.
func faults(d *Data) []figure {
	f := figure{}
	rows := d.keys(func(k Key) bool { return k.Name == subject })
	for _, k := range rows {
		f.value += float64(d.errors[k])
		if d.errors[k] > 0 && f.from == "" {
			f.from = fmt.Sprintf("%s %s: %s", k.Work, label(k), d.first[k])
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return []figure{f}
}
