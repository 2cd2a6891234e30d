package tls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"polyport/internal/clienthello"
	"polyport/mux"
)

// terminating is what a session carries off its loop that is to be terminated.
type terminating struct{}

// protoHTTP2 is the application protocol that decides what is inside (RFC 9113 section 3.2).
const protoHTTP2 = "h2"

// rowHTTP2 is the row of clients that have agreed on h2: nothing is sniffed then, so that even a preface that is wrong is
// answered in HTTP/2.
const rowHTTP2 = "h2"

// errNested is for a client that means us, inside TLS that already did.
var errNested = errors.New("TLS to the gateway itself inside TLS to the gateway itself: there is one level of it")

// begin has a connection terminated. That takes a goroutine.
func (h *handler) begin(s client) error {
	if s.Conn().TLS() != nil {
		s.SetReason(reasonNested)
		return answer(s, &refusal{clienthello.AlertAccessDenied, reasonNested, errNested})
	}
	if s.OnLoop() {
		s.LeaveLoop(terminating{})
		return nil
	}
	return h.terminate(s)
}

// terminate is the server's side of TLS: the handshake, whose alerts package crypto/tls sends. The session goes on with
// what is inside. Who kills the session closes the connection, which ends the handshake too.
func (h *handler) terminate(s client) error {
	c := s.Conn()
	if err := c.SetDeadline(time.Now().Add(s.Timeouts().Handshake)); err != nil {
		return fmt.Errorf("begin the TLS handshake: %w", err)
	}
	growStack()
	config := h.own.Config
	if h.own.HTTP1Config != nil && !s.Allows(rowHTTP2) {
		config = h.own.HTTP1Config
	}
	under := c.Beneath()
	layer := tls.Server(under, config)
	if err := layer.Handshake(); err != nil {
		if h.own.Challenged(err) {
			s.SetReason(reasonACME)
			return nil
		}
		s.SetReason(handshakeReason(err))
		if said := alertInClear(mux.LastWords(under)); said != nil {
			err = said
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	state := layer.ConnectionState()
	s.Secure(layer, h.own.Identity(state))
	row := ""
	if state.NegotiatedProtocol == protoHTTP2 {
		row = rowHTTP2
	}
	s.Inject(row)
	return nil
}

// stackSize is what a handshake takes of a goroutine's stack, about.
const stackSize = 14 << 10

// growStack makes the stack as large as a handshake needs it, in one step: else it would be copied each time it has doubled.
//
//go:noinline
func growStack() byte {
	var b [stackSize]byte
	return b[len(os.Args)%stackSize] // whatever it is: the compiler must not know that nobody reads it
}

// alertInClear returns the fatal alert that a client ended its handshake with, if that was in clear text; else nil. Some
// clients of TLS 1.3 (OpenSSL, and so curl) do not encrypt what they say of a certificate that they do not believe. To
// crypto/tls that is a record which does not decrypt, and nobody would guess what is wrong.
func alertInClear(last []byte) error {
	const fatal = "\x00\x02\x02" // a record of two bytes, whose first is the level (RFC 8446 section 6)
	if len(last) != 7 || last[0] != 0x15 || last[1] != 0x03 || string(last[3:6]) != fatal {
		return nil
	}
	return fmt.Errorf("remote error: %w", tls.AlertError(last[6]))
}

// handshakeReason names, for the record, what ended a handshake.
func handshakeReason(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return reasonTimeout
	case errors.Is(err, io.EOF):
		return reasonCutShort
	}
	return reasonHandshake
}
