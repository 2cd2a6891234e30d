package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"polyport/bench/measure"
	"polyport/bench/peer"
)

// options of a run.
type options struct {
	rounds, retries, port int
	associations          int
	window, most          time.Duration
	only, works, protos   []string
	out, page             string
	other                 string // another build of polyport, "" for none
	given                 string // flags that change what is measured, as they were written
}

// whole says whether the run has all that the page shows.
func (o options) whole() bool {
	return o.rounds >= 3 && o.other == "" && len(o.only) == 0 && len(o.works) == len(measure.Workloads) && len(o.protos) == len(measure.Protocols)
}

func parseOptions(args []string, stderr io.Writer) (options, error) {
	var o options
	var only, works, protos string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.IntVar(&o.rounds, "rounds", 3, "rounds, 1 to 20")
	fs.IntVar(&o.retries, "retries", 2, "how often to measure again when others were busy, 0 to 5")
	fs.DurationVar(&o.window, "dur", 1500*time.Millisecond, "time of one measurement, 10ms to 1m")
	fs.IntVar(&o.associations, "associations", 10000, "UDP associations at rest, 10 to 20000")
	fs.DurationVar(&o.most, "most", 30*time.Minute, "after this time nothing is measured again")
	fs.IntVar(&o.port, "port", 15000, "the first of 80 ports on 127.0.0.1 that are used")
	fs.StringVar(&only, "only", "", "these programs alone: polyport,haproxy,haproxy-splice,nginx,squid,microsocks,tinyproxy,dante,sing-box,xray,copy,gotls")
	fs.StringVar(&o.other, "other", "", "the binary of another build of polyport, which is measured beside this one with the same configuration, as the program \"other\"")
	fs.StringVar(&works, "work", strings.Join(measure.Workloads, ","), "workloads")
	fs.StringVar(&protos, "protos", strings.Join(measure.Protocols, ","), "protocols that polyport's tunnels are made by")
	fs.StringVar(&o.out, "out", "build/bench.jsonl", "file for the measurements, a line of JSON each")
	fs.StringVar(&o.page, "page", "", "write this page after a whole run, and its drawing beside it")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("%q is neither a flag nor a command", fs.Arg(0))
	}
	o.only, o.works, o.protos = split(only), split(works), split(protos)
	if o.other != "" && len(o.only) > 0 && !slices.Contains(o.only, peer.Other) {
		o.only = append(o.only, peer.Other)
	}
	unsaid := []string{"out", "page", "port", "other"} // a path is nobody's business
	fs.Visit(func(f *flag.Flag) {
		if !slices.Contains(unsaid, f.Name) {
			o.given = strings.TrimSpace(o.given + " -" + f.Name + " " + f.Value.String())
		}
	})
	return o, o.validate()
}

// split is what stands between commas.
func split(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// validate names every fault at once.
func (o options) validate() error {
	var errs []error
	within := func(name string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("-%s %d: it has to be %d to %d", name, v, low, high))
		}
	}
	within("rounds", o.rounds, 1, 20)
	within("retries", o.retries, 0, 5)
	within("associations", o.associations, 10, 20000)
	within("port", o.port, 1024, 65000)
	if o.window < 10*time.Millisecond || o.window > time.Minute {
		errs = append(errs, fmt.Errorf("-dur %v: it has to be 10ms to 1m", o.window))
	}
	var names []string
	for _, p := range peer.Table("", o.other, "", "") {
		names = append(names, p.Name)
	}
	known := func(name string, given, all []string) {
		for _, g := range given {
			if !slices.Contains(all, g) {
				errs = append(errs, fmt.Errorf("-%s %s: there are %s", name, g, strings.Join(all, ", ")))
			}
		}
	}
	known("only", o.only, names)
	known("work", o.works, measure.Workloads)
	known("protos", o.protos, measure.Protocols)
	return errors.Join(errs...)
}
