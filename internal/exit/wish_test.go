package exit

import (
	"strings"
	"testing"
	"time"
)

var everything = Parameters{Exit: true, Country: true, Session: true, TTL: true}

func TestParseUser(t *testing.T) {
	long := strings.Repeat("x", 64)
	tests := []struct {
		name, in string
		allowed  Parameters
		user     string
		want     Wish
	}{
		{"all", "alice+exit-eu+country-de+session-k3j+ttl-10m", everything, "alice", Wish{"eu", "de", "k3j", 10 * time.Minute}},
		{"in another order", "alice+ttl-90s+session-k3j+country-DE+exit-eu", everything, "alice", Wish{"eu", "de", "k3j", 90 * time.Second}},
		{"none", "alice", everything, "alice", Wish{}},
		{"no name", "", everything, "", Wish{}},
		{"nothing is allowed", "alice+exit-eu", Parameters{}, "alice+exit-eu", Wish{}},
		{"nothing is allowed, and it is none", "+", Parameters{}, "+", Wish{}},
		{"one is allowed", "alice+exit-eu", Parameters{Exit: true}, "alice", Wish{Exit: "eu"}},
		{"a value with a minus", "alice+exit-us-east-1+session--a-", everything, "alice", Wish{Exit: "us-east-1", Session: "-a-"}},
		{"a name with a minus", "alice-exit-eu+exit-us", everything, "alice-exit-eu", Wish{Exit: "us"}},
		{"a name of other letters", "jörg müller@example.com+exit-eu", everything, "jörg müller@example.com", Wish{Exit: "eu"}},
		{"all letters of a session", "a+session-aZ09_.-", everything, "a", Wish{Session: "aZ09_.-"}},
		{"the longest", "a+session-" + long + "+exit-" + long, everything, "a", Wish{Exit: long, Session: long}},
		{"the shortest ttl", "a+session-x+ttl-1s", everything, "a", Wish{Session: "x", TTL: time.Second}},
		{"the longest ttl", "a+session-x+ttl-24h", everything, "a", Wish{Session: "x", TTL: 24 * time.Hour}},
		{"the longest ttl in seconds", "a+session-x+ttl-86400s", everything, "a", Wish{Session: "x", TTL: 24 * time.Hour}},
		{"a ttl with a nought", "a+session-x+ttl-05m", everything, "a", Wish{Session: "x", TTL: 5 * time.Minute}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			user, got, err := ParseUser(tt.in, tt.allowed)
			if err != nil || user != tt.user || got != tt.want {
				t.Errorf("ParseUser(%q) = %q, %+v, %v; want %q, %+v", tt.in, user, got, err, tt.user, tt.want)
			}
		})
	}
}

func TestParseUserFaults(t *testing.T) {
	const ttl = "a ttl is a number and one of s, m and h"
	onlyExit := Parameters{Exit: true}
	tests := []struct {
		name, in string
		allowed  Parameters
		want     string // what the error begins with or, behind "...", holds
	}{
		{"no user", "+exit-eu", everything, "the user name begins with +"},
		{"a plus alone", "+", everything, "the user name begins with +"},
		{"a plus at the end", "alice+", everything, `+"" in the user name: write a key and a value`},
		{"two pluses", "alice++exit-eu", everything, `+"" in the user name: write a key and a value`},
		{"no value", "alice+exit", everything, `+"exit" in the user name: write a key and a value, such as +exit-NAME`},
		{"another sign", "alice+exit=eu", everything, `+"exit=eu" in the user name: write a key and a value`},
		{"an unknown key", "alice+town-berlin", everything, `+"town-berlin" in the user name: there is no such key`},
		{"a key in capitals", "alice+Exit-eu", everything, "...there is no such key"},
		{"no key", "alice+-eu", everything, "...there is no such key"},
		{"not allowed", "alice+country-de", onlyExit, `+"country-de" in the user name: country is not allowed here`},
		{"twice", "alice+exit-eu+session-x+exit-eu", everything, `+"exit-eu" in the user name: exit stands twice`},
		{"an empty exit", "alice+exit-", everything, "...the value has 0 characters; it may have 1 to 64"},
		{"an exit with a dot", "alice+exit-a.b", everything, "...'.' is in the value; only letters, digits and _ - may be"},
		{"an empty session", "alice+session-", everything, "...the value has 0 characters"},
		{"a long session", "alice+session-" + strings.Repeat("x", 65), everything, "...the value has 65 characters"},
		{"a session with a space", "alice+session-a b", everything, "...' ' is in the value; only letters, digits and _ . - may be"},
		{"a session with a null", "alice+session-a\x00", everything, "...'\\x00' is in the value"},
		{"a country of three", "alice+country-deu", everything, "...a country is two letters"},
		{"a country of none", "alice+country-", everything, "...a country is two letters"},
		{"a country with a digit", "alice+country-d1", everything, "...a country is two letters"},
		{"a country of one letter in two bytes", "alice+country-ß", everything, "...a country is two letters"},
		{"a ttl alone", "alice+ttl-10m", everything, "+ttl-10m in the user name: it says how long a session holds, and there is none; add +session-NAME"},
		{"no ttl", "alice+session-x+ttl-", everything, "..." + ttl},
		{"a ttl without a unit", "alice+session-x+ttl-10", everything, "..." + ttl},
		{"a ttl of a unit", "alice+session-x+ttl-m", everything, "..." + ttl},
		{"a ttl of two units", "alice+session-x+ttl-1h30m", everything, "..." + ttl},
		{"a ttl with a fraction", "alice+session-x+ttl-1.5h", everything, "..." + ttl},
		{"a negative ttl", "alice+session-x+ttl--1s", everything, "..." + ttl},
		{"a ttl of nothing", "alice+session-x+ttl-0s", everything, "..." + ttl},
		{"a ttl of milliseconds", "alice+session-x+ttl-5000ms", everything, "..." + ttl},
		{"a long ttl", "alice+session-x+ttl-86401s", everything, "..." + ttl},
		{"a ttl that runs over", "alice+session-x+ttl-4294967295h", everything, "..." + ttl},
		{"a long part", "alice+" + strings.Repeat("y", 5000), everything, `+"` + strings.Repeat("y", 64) + `" in the user name`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			user, w, err := ParseUser(tt.in, tt.allowed)
			if name, _, _ := strings.Cut(tt.in, "+"); err == nil || user != name || w != (Wish{}) {
				t.Fatalf("ParseUser(%q) = %q, %+v, %v; want the user and an error", tt.in, user, w, err)
			}
			inside, anywhere := strings.CutPrefix(tt.want, "...")
			if !strings.Contains(err.Error(), inside) || !anywhere && !strings.HasPrefix(err.Error(), inside) {
				t.Errorf("ParseUser(%q) says %q, want %q", tt.in, err, tt.want)
			}
		})
	}
}

func TestNewParameters(t *testing.T) {
	tests := []struct {
		keys []string
		want Parameters
		err  string
	}{
		{nil, Parameters{}, ""},
		{[]string{"exit", "country", "session", "ttl"}, everything, ""},
		{[]string{"ttl", "session"}, Parameters{Session: true, TTL: true}, ""},
		{[]string{"exit"}, Parameters{Exit: true}, ""},
		{[]string{"exits"}, Parameters{}, `"exits" is nothing that a client can add to his user name; write exit, country, session or ttl`},
		{[]string{"exit", ""}, Parameters{}, `"" is nothing`},
		{[]string{"exit", "country", "exit"}, Parameters{}, `"exit" stands twice`},
		{[]string{"ttl"}, Parameters{}, `"ttl" says how long a session holds; add "session"`},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.keys, ","), func(t *testing.T) {
			got, err := NewParameters(tt.keys)
			if got != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("NewParameters(%q) = %+v, %v; want %+v, %q", tt.keys, got, err, tt.want, tt.err)
			}
		})
	}
}

// FuzzParseUser states that what is accepted prints and parses to the same, that nothing but what is allowed comes out, and that
// without anything allowed every name is a user.
func FuzzParseUser(f *testing.F) {
	for _, s := range []string{
		"alice+exit-eu+country-de+session-k3j+ttl-10m", "alice", "", "+", "a++", "a+exit", "a+exit-", "a+ttl-1s", "a+session-x+ttl-90s", "a+session-x+ttl-24h",
		"a+country-DE", "a+session--", "a+exit-eu+exit-eu", "a\x00+exit-\xff",
	} {
		for bits := range uint8(16) {
			f.Add(s, bits)
		}
	}
	f.Fuzz(func(t *testing.T, s string, bits uint8) {
		allowed := Parameters{bits&1 != 0, bits&2 != 0, bits&4 != 0, bits&8 != 0}
		user, w, err := ParseUser(s, allowed)
		switch {
		case allowed == Parameters{}:
			if user != s || w != (Wish{}) || err != nil {
				t.Errorf("ParseUser(%q) = %q, %+v, %v without anything allowed", s, user, w, err)
			}
			return
		case err != nil:
			if name, _, _ := strings.Cut(s, "+"); user != name || w != (Wish{}) {
				t.Errorf("ParseUser(%q) = %q, %+v, %v", s, user, w, err)
			}
			return
		}
		again, w2, err := ParseUser(user+w.String(), allowed)
		if err != nil || again != user || w2 != w {
			t.Errorf("%q is %q, %+v; printed as %q it is %q, %+v, %v", s, user, w, user+w.String(), again, w2, err)
		}
		if w.Exit != "" && !allowed.Exit || w.Country != "" && !allowed.Country || w.Session != "" && !allowed.Session || w.TTL != 0 && !allowed.TTL {
			t.Errorf("%q wishes %+v, of which only %+v is allowed", s, w, allowed)
		}
		if strings.Contains(user, "+") || !strings.HasPrefix(s, user) || w.TTL < 0 || w.TTL > 24*time.Hour || w.TTL%time.Second != 0 || w.TTL != 0 && w.Session == "" {
			t.Errorf("%q is %q, %+v", s, user, w)
		}
	})
}
