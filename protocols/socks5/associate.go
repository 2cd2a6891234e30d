package socks5

import (
	"errors"
	"fmt"
	"net/netip"

	"polyport/internal/egress"
	"polyport/internal/socks"
	"polyport/internal/udprelay"
)

// associate opens an association and tells the client where its datagrams are to go (RFC 1928 section 7). The session then lasts as
// long as the client's connection.
func associate(s conversation, req socks.Request5) error {
	s.SetMethod(req.Command.String())
	var from netip.AddrPort // what the client will send from, if it knows; a name says nothing
	if req.Target.IP.IsValid() {
		from = netip.AddrPortFrom(req.Target.IP, req.Target.Port)
	}
	bound, err := s.Associate(from)
	if err != nil {
		return refuse(s, refusedAssociation(err))
	}
	return succeedAt(s, bound)
}

// refusedAssociation is the refusal of a UDP ASSOCIATE.
func refusedAssociation(err error) *refusal {
	var e *egress.Error
	switch {
	case errors.Is(err, udprelay.ErrUnsupported):
		return refuseWith(socks.CommandNotSupported, requestError, fmt.Errorf("the client asked for UDP ASSOCIATE: %w", err))
	case errors.As(err, &e):
		return refuseWith(codeFor(err), "", err)
	}
	return refuseWith(socks.GeneralFailure, "", err)
}
