package session

import (
	"context"
	"errors"
	"fmt"

	"polyport/internal/auth"
	"polyport/internal/exit"
)

// Identity returns who was authenticated; the zero Identity is nobody.
func (s *Session) Identity() auth.Identity { return s.identity }

// UserMethods says what a handshake may offer: anonymous when some rule may
// admit this client without a user, or its certificate has named one; password when there are users to check against.
func (s *Session) UserMethods() (anonymous, password bool) {
	if s.identity.Name != "" {
		return true, s.HasUsers() // its certificate says who it is
	}
	rt := s.runtime
	anonymous = rt.Policy.AdmitsAnonymous(s.conn.Client().Addr(), rt.Egress.Country(s.conn.Client().Addr()), s.record.Protocol, s.conn.Listener(), s.listener.RequireUser)
	return anonymous, s.HasUsers()
}

// HasUsers reports whether there are users to check credentials against.
func (s *Session) HasUsers() bool { return s.runtime.Auth != nil }

// Authenticate checks credentials and keeps the identity for this session; the
// next exchange on the connection has to present them again. The error is one
// of package auth's, or wraps ErrWish. A failure is logged in one stable line.
func (s *Session) Authenticate(ctx context.Context, c auth.Credentials) (auth.Identity, error) {
	if s.runtime.Auth == nil {
		return auth.Identity{}, auth.ErrBadCredentials
	}
	user, wish, fault := exit.ParseUser(c.User, s.runtime.UserParameters)
	c.User = user
	var id auth.Identity
	var err error
	s.aside(func() { // a hash takes its time, and the log may
		if id, err = s.runtime.Auth.Authenticate(ctx, s.conn.Client().Addr(), c); err != nil {
			s.manager.authFailed(s, c.User, err)
		}
	})
	if err != nil {
		return auth.Identity{}, err
	}
	if fault == nil { // not before, as what follows: strangers need know neither what may be said nor which exits there are
		fault = s.runtime.Egress.Meets(wish)
	}
	if fault != nil {
		s.record.Identity = id.Name // whose wish that was
		return auth.Identity{}, s.unmet(fault)
	}
	s.identify(id)
	s.wish = wish
	return id, nil
}

// unmet notes a wish that cannot be met.
func (s *Session) unmet(err error) error {
	s.SetReason(reasonWish)
	return fmt.Errorf("%w: %w", ErrWish, err)
}

// ErrWish is the cause of an error of Authenticate when what the client has added to its user name cannot be had: other
// credentials would help, and nobody was taken for an attacker.
var ErrWish = errors.New("the parameters of the user name cannot be met")

// reasonWish is how the record names that.
const reasonWish = "bad_user_parameters"

// identify notes who the client is.
func (s *Session) identify(id auth.Identity) {
	s.identity, s.record.Identity, s.wish = id, id.Name, exit.Wish{}
}
