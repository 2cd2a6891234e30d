package mux

import (
	"testing"

	"polyport/internal/reactor"
)

// TestTimerOfAnArrivalThatIsOver: an arrival may be pushed out before its timer is set. It ends once, not again when the timer expires.
func TestTimerOfAnArrivalThatIsOver(t *testing.T) {
	loops, err := reactor.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer loops.Close()
	s := NewServer(Options{Rows: []string{"get"}, Loops: loops, Refused: func(r Refusal) { t.Errorf("refused again: %+v", r) }})
	c := &Conn{listener: "main", loop: loops.Next()}
	a := &arrival{server: s, sniffer: s.newSniffer(c)} // c.arrival is nil by now
	a.Expire()
	if c.Row() != "" {
		t.Errorf("row %q, want none", c.Row())
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}
