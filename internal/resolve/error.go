package resolve

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// The kinds of an Error; test with errors.Is.
var (
	// ErrTimeout says that no name server answered in time, or that too many
	// look-ups were waiting.
	ErrTimeout = errors.New("no name server answered in time")
	// ErrNotFound says that the name does not exist, or exists and has no address.
	ErrNotFound = errors.New("the name has no address")
	// ErrServer says that the name servers answered, but not with an answer.
	ErrServer = errors.New("the name servers failed")
	// ErrName says that no name server can know such a name.
	ErrName = errors.New("not a valid host name")
	// ErrClosed says that the Resolver was closed.
	ErrClosed = errors.New("the resolver is closed")
)

// Error says why a name has no addresses.
type Error struct {
	Host string
	// Kind is one of the errors above, or context.Canceled if the caller gave up.
	Kind error
	// Err is the cause in detail; nil if Kind says it all.
	Err error

	// life is for how long an ErrNotFound may be kept, if the server said so: lives.
	life  time.Duration
	lives bool
}

// Error implements error.
func (e *Error) Error() string {
	s := "look up " + shown(e.Host) + ": " + e.Kind.Error()
	if e.Err != nil && e.Err.Error() != e.Kind.Error() {
		s += " (" + e.Err.Error() + ")"
	}
	return s
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Timeout reports whether the look-up took too long.
func (e *Error) Timeout() bool { return e.Kind == ErrTimeout }

// abandoned is the Kind for a caller whose context has ended.
func abandoned(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ErrTimeout
	}
	return context.Canceled
}

// failure makes the Error of a source that gave no address.
func failure(host string, err error) *Error {
	var e *Error
	switch {
	case err == nil:
		return &Error{Host: host, Kind: ErrNotFound}
	case errors.As(err, &e):
		return e
	}
	return &Error{Host: host, Kind: ErrServer, Err: err}
}

// shown quotes a name that could forge a line of a log, and cuts a long one.
func shown(host string) string {
	const most = 80
	if len(host) > most {
		host = host[:most] + "..."
	}
	for i := range len(host) {
		if c := host[i]; c <= ' ' || c >= 0x7f || c == '"' {
			return strconv.Quote(host)
		}
	}
	return host
}
