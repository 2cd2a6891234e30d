package main

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"polyport/bench/load"
	"polyport/bench/measure"
	"polyport/bench/peer"
	"polyport/bench/report"
)

// Names in ClientHellos: TLS to one ends at the proxy, TLS to the other goes on to the origin.
const (
	ownName    = "proxy.test"
	routedName = "bench.test"
)

// afterResume is what a program gets to find its feet.
const afterResume = 50 * time.Millisecond

// apart are the workloads for which each program gets a fresh process.
var apart = []string{measure.Idle, measure.BusyIdle, measure.UDPIdle}

// round goes over all workloads once.
func (s *session) round(ctx context.Context, n int) error {
	order := slices.Concat(s.programs[(n-1)*3%len(s.programs):], s.programs[:(n-1)*3%len(s.programs)])
	for _, work := range chains {
		if slices.Contains(s.opts.works, work) {
			if err := s.chain(ctx, work, n, order); err != nil {
				return err
			}
		}
	}
	for _, work := range apart {
		if work == measure.UDPIdle && n > 1 {
			continue // opening thousands takes long, and memory is the same in each round
		}
		if slices.Contains(s.opts.works, work) {
			if err := s.apart(ctx, work, n, order); err != nil {
				return err
			}
		}
	}
	return s.together(ctx, n, order)
}

// apart measures each program in a process of its own.
func (s *session) apart(ctx context.Context, work string, round int, order []peer.Program) error {
	if work == measure.Idle {
		if err := s.measureOne(ctx, nil, work, round); err != nil {
			return err
		}
	}
	for _, p := range order {
		if !p.TakesPart(work) {
			continue
		}
		if err := s.fresh(ctx, p, work, round); err != nil {
			return err
		}
	}
	return nil
}

// fresh starts a program for one workload.
func (s *session) fresh(ctx context.Context, p peer.Program, work string, round int) error {
	account := s.account
	if work != measure.BusyIdle {
		account = nil
	}
	r, err := peer.Start(ctx, p, s.site, account)
	if err != nil {
		return err
	}
	defer r.Stop()
	return s.measureOne(ctx, r, work, round)
}

// together starts all programs and measures one at a time while the others are paused.
func (s *session) together(ctx context.Context, round int, order []peer.Program) error {
	var works []string
	for _, w := range measure.Workloads {
		if slices.Contains(s.opts.works, w) && !slices.Contains(apart, w) && !slices.Contains(chains, w) {
			works = append(works, w)
		}
	}
	if len(works) == 0 {
		return nil
	}
	var all []*peer.Process
	defer func() {
		for _, r := range all {
			r.Stop()
		}
	}()
	for _, p := range order {
		r, err := peer.Start(ctx, p, s.site, nil)
		if err != nil {
			return err
		}
		all = append(all, r)
		if err := s.check(r, round); err != nil {
			return err
		}
		r.Pause()
	}
	for _, work := range works {
		if err := s.interleave(ctx, work, round, all); err != nil {
			return err
		}
	}
	return nil
}

// interleave measures one workload over all programs, and direct at the start and half way.
func (s *session) interleave(ctx context.Context, work string, round int, all []*peer.Process) error {
	for i, r := range all {
		if i == 0 || i == len(all)/2 {
			if err := s.measureOne(ctx, nil, work, round); err != nil {
				return err
			}
		}
		if !r.Program.TakesPart(work) {
			continue
		}
		r.Resume()
		time.Sleep(afterResume)
		if err := s.measureOne(ctx, r, work, round); err != nil {
			return err
		}
		r.Pause()
	}
	return nil
}

// check makes one tunnel by each protocol of a program. Of another build those
// that are measured are enough: it may be older than the rest.
func (s *session) check(r *peer.Process, round int) error {
	for proto := range r.Program.Ports {
		if r.Program.Name == peer.Other && !s.measures(r, proto) {
			continue
		}
		l, err := s.load(r, proto, round)
		if err != nil {
			return err
		}
		if err := l.Check(); err != nil {
			return fmt.Errorf("%s does not serve %s: %w", r.Program.Name, proto, err)
		}
	}
	return nil
}

// measures says whether a program is measured by a protocol in this run.
func (s *session) measures(r *peer.Process, proto string) bool {
	return slices.ContainsFunc(s.opts.works, func(work string) bool {
		return r.Program.TakesPart(work) && slices.Contains(s.protosFor(r, work), proto)
	})
}

// protosFor are the protocols by which a program is measured.
func (s *session) protosFor(r *peer.Process, work string) []string {
	ofTLS := work == measure.Handshakes || work == measure.TLSBulk
	ofUDP := work == measure.UDP || work == measure.UDPIdle
	switch {
	case r == nil && ofTLS: // the origin speaks no TLS
		return nil
	case r == nil:
		return []string{measure.Direct}
	}
	p := r.Program
	switch {
	case ofUDP:
		return p.Speaks(measure.Socks5UDP)
	case work == measure.Handshakes:
		return p.Speaks(measure.Raw, measure.RawTLS, measure.ConnectTLS)
	case work == measure.TLSBulk && p.Ports[measure.ConnectTLS] != 0:
		return []string{measure.ConnectTLS}
	case work == measure.TLSBulk:
		return p.Speaks(measure.RawTLS)
	case work == measure.HTTP && p.Ports["http"] == 0:
		return nil
	case work == measure.HTTP:
		return []string{"http"}
	case (p.Name == peer.Subject || p.Name == peer.Other) && !p.Far && slices.Contains([]string{measure.Bulk, measure.Verify, measure.ConnRate}, work):
		return s.opts.protos
	}
	return []string{p.Tunnel}
}

// measureOne measures a program, nil for direct, by each of its protocols.
func (s *session) measureOne(ctx context.Context, r *peer.Process, work string, round int) error {
	for _, proto := range s.protosFor(r, work) {
		if err := s.untilQuiet(ctx, r, proto, work, round); err != nil {
			return err
		}
	}
	return nil
}

// untilQuiet measures again when others were busy, as often as the options allow.
func (s *session) untilQuiet(ctx context.Context, r *peer.Process, proto, work string, round int) error {
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted, %s has what was measured: %w", s.opts.out, err)
		}
		l, err := s.load(r, proto, round)
		if err != nil {
			return err
		}
		all := l.Run(work)
		if err := s.keep(all); err != nil {
			return err
		}
		if r != nil && !r.Running() {
			return fmt.Errorf("%s ended while %s was measured", r.Program.Name, work)
		}
		if quiet(all) || try >= s.opts.retries || time.Since(s.start) > s.opts.most {
			return nil
		}
	}
}

func quiet(all []measure.Measurement) bool {
	return !slices.ContainsFunc(all, func(m measure.Measurement) bool { return m.Metrics[measure.Other] > report.NoisyCores })
}

// load prepares a load on a program, nil for direct.
func (s *session) load(r *peer.Process, proto string, round int) (*load.Load, error) {
	name, addr := measure.Direct, ""
	if r != nil {
		name, addr = r.Program.Name, r.Program.Address(s.site, proto)
	}
	end, err := load.NewEndpoint(proto, addr, s.site.Origin.String(), s.site.Web.String(), routedName)
	if err != nil {
		return nil, err
	}
	if proto == measure.RawTLS || proto == measure.ConnectTLS {
		end = end.Secured(ownName, s.leaf)
	}
	if r != nil && r.Program.Far {
		if end, err = end.Toward(s.site.At(peer.FarPort)); err != nil {
			return nil, err
		}
	}
	return load.New(name, round, end, peer.NewMeter(r, s.helpers(r)...), s.loadOptions()), nil
}

// keep writes measurements to the file and shows them.
func (s *session) keep(all []measure.Measurement) error {
	for _, m := range all {
		fmt.Fprintln(s.log, summary(m))
		if err := measure.Write(s.out, m); err != nil {
			return err
		}
	}
	return nil
}

// summary is a measurement in one line.
func summary(m measure.Measurement) string {
	var parts []string
	for name, v := range m.Metrics {
		parts = append(parts, fmt.Sprintf("%s=%.4g", name, v))
	}
	sort.Strings(parts)
	s := fmt.Sprintf("%-14s %-11s %-10s %-6s %s", m.Name, m.Proto, m.Work, m.Variant, strings.Join(parts, " "))
	if m.Errors > 0 {
		s += fmt.Sprintf(" ERRORS=%d (%s)", m.Errors, m.FirstErr)
	}
	return s
}
