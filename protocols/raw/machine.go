package raw

import (
	"regexp/syntax"

	"polyport/mux"
)

// machine runs a compiled expression over all its states at once: now holds
// the program counters in front of a rune, next those behind it.
type machine struct {
	prog      *syntax.Prog
	now, next counters
}

func newMachine(prog *syntax.Prog) *machine {
	n := len(prog.Inst)
	return &machine{prog, newCounters(n), newCounters(n)}
}

// Assertions by the rune that they look at.
const (
	lookBehind = syntax.EmptyBeginLine | syntax.EmptyBeginText
	lookAhead  = syntax.EmptyEndLine | syntax.EmptyEndText | syntax.EmptyWordBoundary | syntax.EmptyNoWordBoundary
)

// anchored reports whether prog is stuck anywhere but at the beginning of a text.
func anchored(prog *syntax.Prog) bool {
	m := newMachine(prog)
	m.now.add(uint32(prog.Start))
	return !m.reaches(syntax.EmptyBeginLine|lookAhead, true)
}

// step follows every state over r, from now to next, and reports whether one of
// them matches in front of r already. before is the rune in front of r, -1 for none.
func (m *machine) step(before, r rune) (matched bool) {
	holds := syntax.EmptyOpContext(before, r)
	m.next.clear()
	for i := 0; i < m.now.n; i++ {
		inst := &m.prog.Inst[m.now.dense[i]]
		switch {
		case inst.Op == syntax.InstMatch:
			return true
		case consumes(inst, r):
			m.next.add(inst.Out)
		default:
			m.now.follow(inst, holds)
		}
	}
	return false
}

// open judges the states in now where the next rune is not known yet: a way that
// depends on it may be open, but is not certain.
func (m *machine) open(before rune) mux.Verdict {
	behind, n := syntax.EmptyOpContext(before, -1)&lookBehind, m.now.n
	if !m.reaches(behind|lookAhead, true) {
		return mux.NoMatch
	}
	m.now.n = n
	if m.reaches(behind, false) {
		return mux.Match
	}
	return mux.NeedMore
}

// reaches reports whether the states in now lead to a match without another rune, by
// assertions that hold; with alive a state that awaits one will do.
func (m *machine) reaches(holds syntax.EmptyOp, alive bool) bool {
	for i := 0; i < m.now.n; i++ {
		inst := &m.prog.Inst[m.now.dense[i]]
		switch {
		case inst.Op == syntax.InstMatch:
			return true
		case awaits(inst):
			if alive {
				return true
			}
		default:
			m.now.follow(inst, holds)
		}
	}
	return false
}

// awaits reports whether inst is one that takes a rune.
func awaits(inst *syntax.Inst) bool {
	switch inst.Op {
	case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return true
	}
	return false
}

// consumes reports whether inst awaits a rune and takes r.
func consumes(inst *syntax.Inst, r rune) bool {
	switch inst.Op {
	case syntax.InstRune1:
		return r == inst.Rune[0]
	case syntax.InstRuneAny:
		return true
	case syntax.InstRuneAnyNotNL:
		return r != '\n'
	case syntax.InstRune:
		return inst.MatchRune(r)
	}
	return false
}

// counters is a set of program counters that is cleared and listed in no more
// time than it has members. dense[:n] are the members in the order of arrival.
type counters struct {
	dense, sparse []uint32
	n             int
}

func newCounters(size int) counters {
	return counters{dense: make([]uint32, size), sparse: make([]uint32, size)}
}

func (c *counters) clear() { c.n = 0 }

func (c *counters) add(pc uint32) {
	if i := c.sparse[pc]; int(i) < c.n && c.dense[i] == pc {
		return
	}
	c.dense[c.n], c.sparse[pc] = pc, uint32(c.n)
	c.n++
}

// follow adds where inst leads without a rune, given the assertions that hold.
func (c *counters) follow(inst *syntax.Inst, holds syntax.EmptyOp) {
	switch inst.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		c.add(inst.Out)
		c.add(inst.Arg)
	case syntax.InstCapture, syntax.InstNop:
		c.add(inst.Out)
	case syntax.InstEmptyWidth:
		if syntax.EmptyOp(inst.Arg)&^holds == 0 {
			c.add(inst.Out)
		}
	}
}
