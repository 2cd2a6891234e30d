package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"polyport/bench/measure"
	"polyport/bench/peer"
)

// chains are the workloads through a next hop, for each of which a program gets a process apart, with a configuration of its own.
var chains = []string{measure.Chain, measure.ChainBulk}

// chain measures each program behind the next hop. The hop alone comes first: what it takes itself is nobody's fault.
func (s *session) chain(ctx context.Context, work string, round int, order []peer.Program) error {
	hop, err := peer.Start(ctx, s.hopProgram(), s.site, nil)
	if err != nil {
		return err
	}
	s.hop = hop
	defer func() {
		s.hop = nil
		hop.Stop()
	}()
	for _, r := range []*peer.Process{nil, hop} {
		if err := s.measureOne(ctx, r, work, round); err != nil {
			return err
		}
	}
	for _, p := range order {
		if !p.TakesPart(work) {
			continue
		}
		if err := s.chained(ctx, p.Chained(), work, round); err != nil {
			return err
		}
	}
	return nil
}

// chained starts a program behind the next hop for one workload.
func (s *session) chained(ctx context.Context, p peer.Program, work string, round int) error {
	r, err := peer.Start(ctx, p, s.site, nil)
	if err != nil {
		return err
	}
	defer r.Stop()
	if err := s.check(r, round); err != nil {
		return fmt.Errorf("through the next hop: %w", err)
	}
	return s.measureOne(ctx, r, work, round)
}

// hopProgram is the next hop as a program.
func (s *session) hopProgram() peer.Program {
	return peer.Program{
		Name: "hop", Binary: filepath.Join(s.site.Dir, "bench-bin"), Args: []string{"hop", s.site.At(peer.HopPort), s.site.Origin.String()},
		Ports: map[string]int{"socks5": peer.HopPort}, Tunnel: "socks5", Far: true,
	}
}

// helpers are the processes whose time belongs to the benchmark while r is measured.
func (s *session) helpers(r *peer.Process) []int {
	all := []int{os.Getpid(), s.origin.PID()}
	if s.hop != nil && s.hop != r {
		all = append(all, s.hop.PID())
	}
	return all
}

// everything is all that is started in the run, each with the ports that it needs.
func (s *session) everything() []peer.Program {
	all := append(slices.Clone(s.programs), s.originProgram())
	if !s.chains() {
		return all
	}
	for _, p := range s.programs {
		if p.Chain != nil {
			all = append(all, p.Chained())
		}
	}
	far := peer.Program{Name: "the next hop", Binary: s.hopProgram().Binary, Ports: map[string]int{"socks5": peer.FarPort}}
	return append(all, s.hopProgram(), far)
}

// chains says whether the run has workloads through a next hop.
func (s *session) chains() bool {
	return slices.ContainsFunc(chains, func(w string) bool { return slices.Contains(s.opts.works, w) })
}

// copyOther puts the other build, if there is one, where an account without rights can start it, and returns its path.
func (s *session) copyOther(dir string) (string, error) {
	if s.opts.other == "" {
		return "", nil
	}
	to := filepath.Join(dir, "other-bin")
	if err := copyProgram(s.opts.other, to); err != nil {
		return "", fmt.Errorf("-other: %w", err)
	}
	return to, nil
}

// unchain leaves the other build out of chains if it does not know the
// configuration: it may be older than they are.
func (s *session) unchain(ctx context.Context) {
	i := slices.IndexFunc(s.programs, func(p peer.Program) bool { return p.Name == peer.Other })
	if i < 0 || !s.chains() {
		return
	}
	if err := s.programs[i].Chained().Check(ctx, s.site); err != nil {
		fmt.Fprintf(s.log, "%s is left out of %v: %v\n", peer.Other, chains, err)
		s.limits = append(s.limits, "The other build takes no part in chains: it refuses their configuration.")
		s.programs[i].Chain = nil
	}
}
