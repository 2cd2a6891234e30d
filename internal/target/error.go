package target

import (
	"strconv"
	"strings"
)

// quoteMax is how many octets of a hostile input an error quotes.
const quoteMax = 80

// Error says why an input is no target. It is a fault of the client's request
// (or of a pattern in the configuration), never of the network.
type Error struct {
	// Input is the beginning of what was read, at most 80 octets; "" where
	// showing it could show a password.
	Input string
	// Problem is the rest of the sentence.
	Problem string
}

// Error implements error. The input is quoted, so it cannot forge a log line.
func (e *Error) Error() string {
	if e.Input == "" {
		return "target: " + e.Problem
	}
	return "target " + strconv.Quote(e.Input) + ": " + e.Problem
}

// fault makes an Error that shows the beginning of input, unless there is an @
// in it, of any width: then it may begin with a user name and a password.
func fault(input, problem string) *Error {
	if strings.ContainsAny(input, "@\uff20\ufe6b") {
		input = ""
	}
	if len(input) > quoteMax {
		// A rune cut in two comes out as \x escapes, which is fine in a quote.
		input = input[:quoteMax-3] + "..."
	}
	return &Error{Input: input, Problem: problem}
}
