// Package report makes of measurements what people read: medians, ratios,
// verdicts, tables, a plot and a page. It measures nothing itself.
package report

import (
	"cmp"
	"slices"

	"polyport/bench/measure"
)

// NoisyCores is how much of the machine others may use in a window, in cores.
const NoisyCores = 0.25

// subject is the program that the verdicts are about, otherBuild the one that it is compared with row by row.
const subject, otherBuild = "polyport", "other"

// Key is one row of one table.
type Key struct{ Work, Variant, Name, Proto string }

// Data is the measurements by row and round.
type Data struct {
	rounds map[Key]map[int][]measure.Measurement
	errors map[Key]int
	first  map[Key]string // cause of the first error
	noisy  int            // windows that were left out or kept although others were busy
	kept   int            // of these, the ones that were kept for want of a quieter one
}

// NewData sorts measurements. Of a row's measurements in a round the quiet ones
// count, or the least noisy one if there is none. Errors count in any case.
func NewData(all []measure.Measurement) *Data {
	d := &Data{rounds: map[Key]map[int][]measure.Measurement{}, errors: map[Key]int{}, first: map[Key]string{}}
	for _, m := range all {
		k := Key{m.Work, m.Variant, m.Name, m.Proto}
		d.errors[k] += m.Errors
		if d.first[k] == "" {
			d.first[k] = m.FirstErr
		}
		if d.rounds[k] == nil {
			d.rounds[k] = map[int][]measure.Measurement{}
		}
		d.rounds[k][m.Round] = append(d.rounds[k][m.Round], m)
	}
	for _, rounds := range d.rounds {
		for n, ms := range rounds {
			rounds[n] = d.quiet(ms)
		}
	}
	return d
}

func (d *Data) quiet(all []measure.Measurement) []measure.Measurement {
	var quiet []measure.Measurement
	for _, m := range all {
		if m.Metrics[measure.Other] <= NoisyCores {
			quiet = append(quiet, m)
		}
	}
	d.noisy += len(all) - len(quiet)
	if len(quiet) > 0 {
		return quiet
	}
	d.kept++
	return []measure.Measurement{slices.MinFunc(all, func(a, b measure.Measurement) int {
		return cmp.Compare(a.Metrics[measure.Other], b.Metrics[measure.Other])
	})}
}

// In is the mean of a metric in each round that has it.
func (d *Data) In(k Key, metric string) map[int]float64 {
	means := map[int]float64{}
	for n, ms := range d.rounds[k] {
		var values []float64
		for _, m := range ms {
			if v, ok := m.Metrics[metric]; ok {
				values = append(values, v)
			}
		}
		if len(values) > 0 {
			means[n] = measure.Mean(values)
		}
	}
	return means
}

// Value is the median of a metric over the rounds.
func (d *Data) Value(k Key, metric string) (float64, bool) {
	in := d.In(k, metric)
	var all []float64
	for _, v := range in {
		all = append(all, v)
	}
	return measure.Median(all), len(all) > 0
}

// Ratio is the median over the rounds of one row's metric to that of another.
func (d *Data) Ratio(of, to Key, metric string) (float64, bool) {
	return medianRatio(d.In(of, metric), d.In(to, metric))
}

func medianRatio(of, to map[int]float64) (float64, bool) {
	all := ratios(of, to)
	return measure.Median(all), len(all) > 0
}

// keys are the rows that pass, in the order of the tables.
func (d *Data) keys(pass func(Key) bool) []Key {
	var all []Key
	for k := range d.rounds {
		if pass(k) {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b Key) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Variant, b.Variant), cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Proto, b.Proto))
	})
	return all
}

// rank puts direct first, polyport behind it and another build of it behind that.
func rank(k Key) int {
	switch k.Name {
	case measure.Direct:
		return 0
	case subject:
		return 1
	case otherBuild:
		return 2
	}
	return 3
}
