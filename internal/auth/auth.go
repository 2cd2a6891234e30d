// Package auth turns credentials into an identity, and keeps those who guess
// out. It knows no protocol.
//
// Users are those of an htpasswd file with bcrypt or argon2id (RFC 9106)
// hashes. A hash costs tens of milliseconds on purpose, so only so many are
// computed at once, credentials that were right are believed for a minute, and
// unknown users cost as much as known ones. Who fails too often is kept out by
// a Lockout. The package also edits such files.
package auth

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Credentials is what a client presented. Neither field is ever logged by this package.
type Credentials struct{ User, Password string }

// Identity is an authenticated user. The zero value is nobody.
type Identity struct {
	Name   string
	Groups []string
}

// Errors of Authenticate; test with errors.Is.
var (
	// ErrBadCredentials says that the pair is wrong; it never says which half.
	ErrBadCredentials = errors.New("wrong user name or password")
	// ErrLockedOut says that this client has failed too often; see LockedOutError.
	ErrLockedOut = errors.New("too many wrong passwords from this address")
	// ErrBusy says that the bounded password hashing is full; the client may try again.
	ErrBusy = errors.New("too many password checks at once")
)

// LockedOutError is an ErrLockedOut with the time at which the ban ends.
type LockedOutError struct{ Until time.Time }

// Error implements error.
func (e *LockedOutError) Error() string {
	return ErrLockedOut.Error() + ", until " + e.Until.Format(time.RFC3339)
}

// Is makes errors.Is(err, ErrLockedOut) true.
func (e *LockedOutError) Is(target error) bool { return target == ErrLockedOut }

// An Authenticator turns credentials into an identity. Implementations are
// safe for concurrent use. The error is ErrBadCredentials, ErrLockedOut,
// ErrBusy or the context's.
type Authenticator interface {
	Authenticate(ctx context.Context, client netip.Addr, c Credentials) (Identity, error)
}
