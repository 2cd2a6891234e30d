package certificate

import (
	"crypto/tls"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A ticket lives for 36 hours at least and 48 at most, and every 12 hours
// another key seals.
func TestTicketKeysAreRotated(t *testing.T) {
	bytes := someState(t)
	synctest.Test(t, func(t *testing.T) {
		tickets := NewTickets()
		begin := time.Now()
		first := tickets.current(begin)
		seal := func() []byte {
			state, err := tls.ParseSessionState(bytes)
			if err != nil {
				t.Fatal(err)
			}
			ticket, err := tickets.wrap(tls.ConnectionState{}, state, []byte("b"))
			if err != nil {
				t.Fatal(err)
			}
			return ticket
		}
		opens := func(ticket []byte, binding string) bool {
			state, err := tickets.unwrap(ticket, tls.ConnectionState{}, []byte(binding))
			return err == nil && state != nil
		}
		early := seal()
		time.Sleep(ticketKeyLife - time.Second)
		late := seal()
		if tickets.current(time.Now()) != first {
			t.Error("the key was replaced before its time")
		}
		time.Sleep(time.Second)
		third := seal()
		if slices.Equal(third[:16], late[:16]) || len(tickets.keys) != 2 {
			t.Errorf("after 12 hours there are %d keys", len(tickets.keys))
		}
		if opens(early, "c") || opens([]byte("x"), "b") || opens(nil, "b") {
			t.Error("a ticket of another binding, or none, was opened")
		}
		time.Sleep(36*time.Hour - time.Second)
		if !opens(early, "b") || !opens(late, "b") {
			t.Error("a ticket does not live for 36 hours")
		}
		time.Sleep(time.Second)
		if opens(early, "b") || opens(late, "b") || !opens(third, "b") {
			t.Error("a key lives for more than 48 hours, or for less than 36")
		}
		if len(tickets.keys) > 5 {
			t.Errorf("%d keys are kept", len(tickets.keys))
		}
		time.Sleep(1000 * time.Hour)
		if opens(third, "b") || len(tickets.keys) != 1 {
			t.Errorf("a long silence leaves %d keys", len(tickets.keys))
		}
	})
}

// someState is a session's state.
func someState(t *testing.T) []byte {
	t.Helper()
	f := newFolder(t)
	var state []byte
	p := f.pair(t, "x", serverOf(t, nil, nil, "a.example"))
	c, err := tls.LoadX509KeyPair(p.Certificate, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{Certificates: []tls.Certificate{c}, WrapSession: func(_ tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
		var err error
		state, err = s.Bytes()
		return []byte("x"), err
	}}
	shake(t, server, &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)})
	return state
}
