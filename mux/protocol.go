package mux

// Verdict is what a Matcher says of the bytes that have arrived so far.
type Verdict uint8

const (
	// NoMatch is a definite no: no further byte can make these bytes match.
	NoMatch Verdict = iota
	// NeedMore means that the bytes so far could still become a match.
	NeedMore
	// Match is a definite yes.
	Match
)

// String returns the verdict as tests and logs print it.
func (v Verdict) String() string {
	switch v {
	case NoMatch:
		return "no match"
	case NeedMore:
		return "need more"
	case Match:
		return "match"
	}
	return "invalid verdict"
}

// A Matcher judges the first bytes of a connection. It is pure (no I/O, no
// state) and monotone: once it has said Match or NoMatch, more bytes never
// change its mind. It must not keep or change prefix. An empty prefix is
// never passed.
type Matcher func(prefix []byte) Verdict

// Row is one line of the protocol table. Its position in the table is its
// priority: a lower row is chosen only once every row above it has said NoMatch.
type Row struct {
	// Name names the row in rules, logs and metrics.
	Name string
	// Match judges the bytes that have arrived.
	Match Matcher
	// AtPause, when not nil, is asked instead of Match once the client has sent
	// nothing for SniffOptions.Pause while the row still says NeedMore, and once
	// the byte cap is reached. It is for matchers that cannot say a definite no
	// by themselves (regular expressions); whatever but Match counts as NoMatch.
	AtPause Matcher
}
