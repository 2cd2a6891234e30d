package egress

import (
	"fmt"
	"testing"
	"time"
)

func TestTerms(t *testing.T) {
	begin := time.Unix(1_000_000, 900_000_000)
	tests := []struct {
		name          string
		user, session string
		ttl, after    time.Duration
		want          string
	}{
		{"again", "alice", "x", time.Minute, 0, "x@1000000"},
		{"in its last moment", "alice", "x", time.Minute, time.Minute - 1, "x@1000000"},
		{"after it", "alice", "x", time.Minute, time.Minute, "x@1000060"},
		{"a later request asks for less", "alice", "x", time.Second, 2 * time.Second, "x@1000000"},
		{"another session", "alice", "y", time.Minute, time.Second, "y@1000001"},
		{"that of another user", "bob", "x", time.Minute, time.Second, "x@1000001"},
		{"none", "alice", "", time.Minute, time.Second, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			terms := NewTerms()
			if got := terms.of("alice", "x", time.Minute, begin); got != "x@1000000" {
				t.Fatalf("the first is %q", got)
			}
			if got := terms.of(tt.user, tt.session, tt.ttl, begin.Add(tt.after)); got != tt.want {
				t.Errorf("of(%q, %q) = %q, want %q", tt.user, tt.session, got, tt.want)
			}
		})
	}
	terms := NewTerms()
	terms.of("alice", "x", 0, begin)
	if got := terms.of("alice", "x", 0, begin.Add(10*time.Minute-1)); got != "x@1000000" {
		t.Errorf("without a ttl: %q before 10 minutes were over", got)
	}
	if got := (*Terms)(nil).of("alice", "x", 0, begin); got != "x" {
		t.Errorf("on nil: %q", got)
	}
}

// A user who names sessions without end costs the others none of theirs.
func TestFloodOfTerms(t *testing.T) {
	terms, now := NewTerms(), time.Unix(1_000_000, 0)
	const users, each = 100, 10
	for i := range users * each {
		terms.of(fmt.Sprint("user", i%users), fmt.Sprint(i), time.Hour, now)
	}
	for i := range 150_000 {
		terms.of("mallory", fmt.Sprint(i), 24*time.Hour, now.Add(time.Second))
	}
	for i := range users * each {
		if got, want := terms.of(fmt.Sprint("user", i%users), fmt.Sprint(i), time.Hour, now.Add(time.Minute)), fmt.Sprint(i, "@1000000"); got != want {
			t.Fatalf("session %d has another address: %q, want %q", i, got, want)
		}
	}
}
