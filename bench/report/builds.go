package report

import (
	"maps"
	"slices"

	"polyport/bench/measure"
)

// compared are the metrics of two builds whose ratio says something.
var compared = []string{
	measure.PerSec, measure.GBps, measure.CPU, measure.CPUPerGB, measure.P50, measure.P99, measure.PSS, measure.RSS, measure.Kernel, measure.FDs, measure.WakeP50,
}

// buildsTable compares this build with another one that ran beside it, row by
// row. It has no rows if there was none. The ratios of single rounds show how far to trust their median.
func buildsTable(d *Data) Table {
	t := Table{Title: "This build / the other build, within a round", Head: []string{"workload", "protocol", "what", "figure", "median", "lowest", "highest", "rounds"}}
	for _, l := range layouts {
		for _, k := range ours(d, l.work, nil) {
			theirs := k
			theirs.Name = otherBuild
			for _, c := range l.columns {
				if slices.Contains(compared, c.metric) {
					t.Rows = append(t.Rows, buildsRow(k, c, ratios(d.In(k, c.metric), d.In(theirs, c.metric)))...)
				}
			}
		}
	}
	return t
}

// buildsRow is a row, or none if there is no ratio.
func buildsRow(k Key, c column, all []float64) [][]string {
	if len(all) == 0 {
		return nil
	}
	low, high := number(slices.Min(all)), number(slices.Max(all))
	return [][]string{{k.Work, k.Proto, k.Variant, c.head, number(measure.Median(all)), low, high, number(float64(len(all)))}}
}

// ratios of the rounds that both have.
func ratios(of, to map[int]float64) []float64 {
	var all []float64
	for _, n := range slices.Sorted(maps.Keys(of)) {
		if base := to[n]; base > 0 {
			all = append(all, of[n]/base)
		}
	}
	return all
}
