package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"polyport/internal/exit"
)

func TestFamilies(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	type won struct {
		after time.Duration
		is6   bool
	}
	tests := []struct {
		name       string
		won        []won
		at         time.Duration
		is6, known bool
	}{
		{"nothing", nil, 0, false, false},
		{"IPv4", []won{{0, false}}, 0, false, true},
		{"IPv6", []won{{0, true}}, 9 * time.Minute, true, true},
		{"the last one counts", []won{{0, true}, {time.Minute, false}}, time.Minute, false, true},
		{"for ten minutes", []won{{0, false}}, 12 * time.Minute, false, false},
		{"also where it is in use", []won{{0, false}, {5 * time.Minute, false}, {9 * time.Minute, false}}, 12 * time.Minute, false, false},
		{"and then anew", []won{{0, false}, {12 * time.Minute, false}}, 13 * time.Minute, false, true},
		{"a clock that was set back", []won{{0, false}}, -time.Hour, false, false},
		{"and what is found then", []won{{0, false}, {-time.Hour, true}}, -time.Hour, true, true},
		{"far in the future", []won{{200 * 365 * 24 * time.Hour, true}}, 200 * 365 * 24 * time.Hour, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := NewFamilies()
			for _, w := range tt.won {
				f.won("a.example", w.is6, start.Add(w.after))
			}
			is6, known := f.last("a.example", start.Add(tt.at))
			if known != tt.known || known && is6 != tt.is6 {
				t.Errorf("last = IPv6 %v, known %v, want %v, %v", is6, known, tt.is6, tt.known)
			}
		})
	}
}

// What is remembered is of the name alone, however many there are.
func TestFamiliesOfManyNames(t *testing.T) {
	f, now := NewFamilies(), time.Now()
	wrong, kept := 0, 0
	const names = 3000
	for i := range names {
		f.won(fmt.Sprintf("%d.example", i), i%2 == 0, now)
	}
	for i := range names {
		if is6, known := f.last(fmt.Sprintf("%d.example", i), now); known {
			kept++
			if is6 != (i%2 == 0) {
				wrong++
			}
		}
		if _, known := f.last(fmt.Sprintf("%d.other", i), now); known {
			wrong++
		}
	}
	if wrong > 0 || kept < names/2 {
		t.Errorf("of %d names %d are remembered and %d of any wrongly, want at least half and none", names, kept, wrong)
	}
	var none *Families
	none.won("a.example", true, now)
	if _, known := none.last("a.example", now); known {
		t.Error("no memory remembers something")
	}
}

// A race begins with the family that has won the last one.
func TestARaceRemembers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prefer4 bool
		script  script
		want    []string // of each dial
	}{
		{"IPv6 is first", false, script{a4: {}, a6: {}}, []string{"0s " + a6, "0s " + a6}},
		{"IPv4 where it is preferred", true, script{a4: {}, a6: {}}, []string{"0s " + a4, "0s " + a4}},
		{"IPv6 that hangs is asked once", false, script{a4: {}, a6: hangs}, []string{"0s " + a6 + ", 250ms " + a4, "0s " + a4}},
		{"IPv4 that hangs is asked once", true, script{a6: {}, a4: hangs}, []string{"0s " + a4 + ", 250ms " + a6, "0s " + a6}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeNet(tt.script)
				d := New(Options{Families: NewFamilies(), PreferIPv4: tt.prefer4})
				d.dial = f.dial
				for _, want := range tt.want {
					f.log, f.start = nil, time.Now()
					p := permitFor(t, d, a4+" "+a6)
					link, err := d.Open(t.Context(), p, OpenOptions{})
					if err != nil {
						t.Fatal(err)
					}
					link.Conn.Close()
					synctest.Wait()
					if got := strings.Join(f.log, ", "); got != want {
						t.Errorf("the attempts were %q, want %q", got, want)
					}
				}
			})
		})
	}
}

// What only one way out made of a name is nothing for the others to go by.
func TestAFamilyWithoutARivalIsNotRemembered(t *testing.T) {
	four := &exit.Source{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}
	tests := []struct {
		name   string
		pinned string
		from   *origin
		script script
		want   bool
	}{
		{"both", a4 + " " + a6, nil, script{a4: {}, a6: {err: errors.New("no")}}, true},
		{"two of IPv4", a4 + " " + b4, nil, script{a4: {}, b4: {}}, false},
		{"both, by an exit of IPv4", a4 + " " + a6, &origin{source: four}, script{a4: {}, a6: {err: errNoSource("four")}}, false},
		{"both, by an exit of both", a4 + " " + a6, &origin{source: &exit.Source{Mark: 7}}, script{a4: {}, a6: {err: errors.New("no")}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := New(Options{Families: NewFamilies()})
			d.dial = newFakeNet(tt.script).dial
			p := permitFor(t, d, tt.pinned)
			p.pinned.from = tt.from
			if _, err := d.Open(t.Context(), p, OpenOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, known := d.families.last(p.target.Host(), time.Now()); known != tt.want {
				t.Errorf("remembered: %v, want %v", known, tt.want)
			}
		})
	}
}
