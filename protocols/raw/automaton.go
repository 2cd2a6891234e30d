package raw

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"

	"polyport/mux"
)

// automaton is a deterministic one: a table look-up for each rune, however
// often a client lets it be asked about ever longer beginnings of its bytes.
type automaton struct {
	alphabet alphabet
	next     []uint16 // by state and class of rune
}

// The states in which all is decided. Every other one needs more, and start is the first of them.
const (
	stateNo uint16 = iota
	stateYes
	stateStart
)

// run judges b, of which more may follow.
func (a *automaton) run(b []byte) mux.Verdict {
	state := stateStart
	for len(b) > 0 && state >= stateStart {
		class, n := a.alphabet.class(b)
		if n == 0 { // the beginning of a rune
			break
		}
		state = a.next[int(state)*a.alphabet.classes+int(class)]
		b = b[n:]
	}
	switch state {
	case stateNo:
		return mux.NoMatch
	case stateYes:
		return mux.Match
	}
	return mux.NeedMore
}

// builder makes an automaton by running a machine from every set of program
// counters that it can be in.
type builder struct {
	machine  *machine
	auto     *automaton
	states   map[string]uint16 // by key
	made     uint16            // states but for the decided ones, numbered in the order in which they were made
	open     []situation       // the last of these, whose transitions are still to be found
	contexts bool              // some assertion looks at the rune before
	matches  bool              // some text matches
}

// situation is what a state stands for: counters, and the rune in front.
type situation struct {
	before   rune
	counters []uint32
}

func newAutomaton(prog *syntax.Prog) (*automaton, error) {
	b := builder{
		machine: newMachine(prog),
		auto:    &automaton{alphabet: newAlphabet(prog)},
		states:  map[string]uint16{},
	}
	for _, inst := range prog.Inst {
		b.contexts = b.contexts || inst.Op == syntax.InstEmptyWidth && syntax.EmptyOp(inst.Arg) != syntax.EmptyBeginText
	}
	b.auto.next = make([]uint16, int(stateStart)*b.auto.alphabet.classes) // never looked up
	switch b.state(situation{-1, []uint32{uint32(prog.Start)}}) {
	case stateNo:
		return nil, errNever
	case stateYes:
		return nil, errAlways
	}
	b.matches = false // an empty text does not count
	for len(b.open) > 0 {
		s := b.open[0]
		b.open = b.open[1:]
		for _, r := range b.auto.alphabet.examples {
			b.auto.next = append(b.auto.next, b.follow(s, r))
		}
		if len(b.auto.next)+len(b.open)*b.auto.alphabet.classes > maxTransitions {
			return nil, errTooComplex
		}
	}
	if !b.matches {
		return nil, errNever
	}
	return b.auto, nil
}

// follow returns the state behind r.
func (b *builder) follow(s situation, r rune) uint16 {
	b.set(s)
	if b.machine.step(s.before, r) {
		b.matches = true
		return stateYes
	}
	next := b.machine.next
	return b.state(situation{b.behind(r), slices.Sorted(slices.Values(next.dense[:next.n]))})
}

// behind returns the rune that stands, as the rune before, for all that assertions
// cannot tell from r.
func (b *builder) behind(r rune) rune {
	switch {
	case !b.contexts:
		return ' '
	case syntax.IsWordChar(r):
		return 'a'
	case r == '\n':
		return r
	}
	return ' '
}

func (b *builder) set(s situation) {
	b.machine.now.clear()
	for _, pc := range s.counters {
		b.machine.now.add(pc)
	}
}

// state returns the state of s, a new one if need be.
func (b *builder) state(s situation) uint16 {
	key := binary.BigEndian.AppendUint32(nil, uint32(s.before))
	for _, pc := range s.counters {
		key = binary.BigEndian.AppendUint32(key, pc)
	}
	state, ok := b.states[string(key)]
	if ok {
		return state
	}
	b.set(s)
	b.matches = b.matches || b.machine.reaches(syntax.EmptyOpContext(s.before, -1), false)
	b.set(s)
	switch b.machine.open(s.before) {
	case mux.NoMatch:
		state = stateNo
	case mux.Match:
		state = stateYes
	default:
		state = stateStart + b.made
		b.made++
		b.open = append(b.open, s)
	}
	b.states[string(key)] = state
	return state
}
