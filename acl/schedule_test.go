package acl

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	// 2026-01-05 and 2026-07-06 are Mondays; Berlin changes on 2026-03-29 and 2026-10-25.
	tests := []struct {
		name, spec, at string
		want           bool
	}{
		{"in hours", "Mon-Fri 08:00-18:00", "2026-01-05T08:00:00Z", true},
		{"one second early", "Mon-Fri 08:00-18:00", "2026-01-05T07:59:59Z", false},
		{"last second", "Mon-Fri 08:00-18:00", "2026-01-05T17:59:59Z", true},
		{"the end is not included", "Mon-Fri 08:00-18:00", "2026-01-05T18:00:00Z", false},
		{"weekend", "Mon-Fri 08:00-18:00", "2026-01-04T12:00:00Z", false},
		{"zone of the request does not matter", "Mon-Fri 08:00-18:00", "2026-01-05T23:00:00+09:00", true},

		{"several days", "Mon,Wed,Fri", "2026-01-07T23:59:59Z", true},
		{"several days, between", "Mon,Wed,Fri", "2026-01-06T12:00:00Z", false},
		{"several day ranges", "Mon-Tue,Thu-Fri 10:00-11:00", "2026-01-08T10:30:00Z", true},
		{"several day ranges, between", "Mon-Tue,Thu-Fri 10:00-11:00", "2026-01-07T10:30:00Z", false},
		{"over the week's end", "Sat-Mon", "2026-01-04T12:00:00Z", true},
		{"over the week's end, outside", "Sat-Mon", "2026-01-06T12:00:00Z", false},
		{"one day range", "Mon-Mon", "2026-01-05T12:00:00Z", true},
		{"one day range is one day", "Mon-Mon", "2026-01-06T12:00:00Z", false},
		{"full names", "monday-FRIDAY 08:00-18:00", "2026-01-05T12:00:00Z", true},

		{"several hours", "08:00-12:00,13:00-18:00", "2026-01-05T13:00:00Z", true},
		{"several hours, between", "08:00-12:00,13:00-18:00", "2026-01-05T12:30:00Z", false},
		{"to the end of the day", "20:00-24:00", "2026-01-05T23:59:59Z", true},
		{"not beyond the end of the day", "20:00-24:00", "2026-01-06T00:00:00Z", false},
		{"whole day", "Tue 00:00-24:00", "2026-01-06T00:00:00Z", true},

		{"several windows", "Mon-Fri 08:00-18:00; Sat 09:00-12:00", "2026-01-10T11:00:00Z", true},
		{"several windows, outside", "Mon-Fri 08:00-18:00; Sat 09:00-12:00", "2026-01-10T12:00:00Z", false},
		{"windows without spaces", "Mon;Sat 09:00-12:00", "2026-01-05T23:00:00Z", true},
		{"several windows, one zone", "Mon 08:00-09:00; Sat 09:00-12:00 Asia/Tokyo", "2026-01-04T23:30:00Z", true},

		{"over midnight, evening", "Fri 22:00-06:00", "2026-01-09T22:00:00Z", true},
		{"over midnight, morning after", "Fri 22:00-06:00", "2026-01-10T05:59:59Z", true},
		{"over midnight, end", "Fri 22:00-06:00", "2026-01-10T06:00:00Z", false},
		{"over midnight, morning before", "Fri 22:00-06:00", "2026-01-09T03:00:00Z", false},
		{"over midnight, Saturday to Sunday", "Sat 22:00-06:00", "2026-01-11T01:00:00Z", true},
		{"over midnight, every day", "22:00-06:00", "2026-01-07T03:00:00Z", true},
		{"over midnight, noon", "22:00-06:00", "2026-01-07T12:00:00Z", false},

		{"zone, winter", "08:00-18:00 Europe/Berlin", "2026-01-05T07:00:00Z", true},
		{"zone, winter, early", "08:00-18:00 Europe/Berlin", "2026-01-05T06:59:59Z", false},
		{"zone, summer", "08:00-18:00 Europe/Berlin", "2026-07-06T06:00:00Z", true},
		{"zone, summer, late", "08:00-18:00 Europe/Berlin", "2026-07-06T16:00:00Z", false},
		{"zone moves the day", "Mon Asia/Tokyo", "2026-01-04T15:00:00Z", true},
		{"zone ends the day", "Mon Asia/Tokyo", "2026-01-05T15:00:00Z", false},
		{"zone named UTC", "Mon 08:00-18:00 UTC", "2026-01-05T08:00:00Z", true},
		{"zone alone", "00:00-24:00 Europe/Berlin", "2026-01-05T08:00:00Z", true},

		{"spring, before the gap", "Sun 01:00-04:00 Europe/Berlin", "2026-03-29T00:59:59Z", true},
		{"spring, behind the gap", "Sun 03:00-04:00 Europe/Berlin", "2026-03-29T01:00:00Z", true},
		{"spring, the hour that is not there", "Sun 02:00-03:00 Europe/Berlin", "2026-03-29T01:00:00Z", false},
		{"spring, day before", "Sat 22:00-06:00 Europe/Berlin", "2026-03-29T03:59:59Z", true},
		{"spring, end an hour sooner", "Sat 22:00-06:00 Europe/Berlin", "2026-03-29T04:00:00Z", false},
		{"autumn, first 02:30", "Sun 02:00-03:00 Europe/Berlin", "2026-10-25T00:30:00Z", true},
		{"autumn, second 02:30", "Sun 02:00-03:00 Europe/Berlin", "2026-10-25T01:30:00Z", true},
		{"autumn, over", "Sun 02:00-03:00 Europe/Berlin", "2026-10-25T02:00:00Z", false},
		{"autumn, end an hour later", "Sat 22:00-06:00 Europe/Berlin", "2026-10-25T04:59:59Z", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := parseSchedule(tt.spec, time.LoadLocation)
			if err != nil {
				t.Fatalf("parseSchedule(%q): %v", tt.spec, err)
			}
			at, err := time.Parse(time.RFC3339, tt.at)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.contains(at); got != tt.want {
				t.Errorf("%q contains %s = %v, want %v", tt.spec, tt.at, got, tt.want)
			}
		})
	}
}

func TestScheduleFaults(t *testing.T) {
	tests := []struct{ name, spec, problem string }{
		{"blank", "  ", "is not days and hours"},
		{"zone alone", "Europe/Berlin", "is not days and hours"},
		{"unknown zone", "Mon Europe/Berlinn", "time zone"},
		{"local", "Mon 08:00-18:00 Local", "depend on where it runs"},
		{"local in lower case", "Mon 08:00-18:00 local", "depend on where it runs"},
		{"zone by path", "Mon ../../etc/passwd", "time zone"},
		{"zone in the middle", "Mon UTC 08:00-18:00", "is not days and hours"},
		{"zone in each window", "Mon 08:00-09:00 UTC; Tue UTC", "is not days and hours"},
		{"no day", "Mon-Fry 08:00-18:00", "no day or range of days"},
		{"empty day", "Mon,,Tue 08:00-18:00", "no day or range of days"},
		{"three days", "Mon-Tue-Wed", "no day or range of days"},
		{"hours without minutes", "Mon 8-18", "no range of hours"},
		{"short hour", "Mon 8:00-18:00", "no range of hours"},
		{"no end", "Mon 08:00", "no range of hours"},
		{"minute 60", "Mon 08:60-18:00", "no range of hours"},
		{"beyond 24:00", "Mon 08:00-24:01", "no range of hours"},
		{"begins at 24:00", "Mon 24:00-08:00", "no range of hours"},
		{"signs", "Mon 0+:00-08:00", "no range of hours"},
		{"empty range", "Mon 08:00-08:00", "is empty"},
		{"spaces around the hyphen", "Mon - Fri 08:00-18:00", "is not days and hours"},
		{"hours before days", "08:00-18:00 Mon", "is not days and hours"},
		{"empty window", "Mon;", "is not days and hours"},
		{"empty window in the middle", "Mon;;Tue", "is not days and hours"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseSchedule(tt.spec, time.LoadLocation)
			if err == nil || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("parseSchedule(%q) says %v, want it to say %q", tt.spec, err, tt.problem)
			}
		})
	}
}

// Zones come from Options.Location where it is set.
func TestScheduleLocation(t *testing.T) {
	errNone := errors.New("no such zone here")
	o := Options{
		Rules: []Rule{{Action: Allow, Time: "Mon Mars/Olympus"}},
		Location: func(name string) (*time.Location, error) {
			if name == "Mars/Olympus" {
				return time.FixedZone("MOT", 3600), nil
			}
			return nil, errNone
		},
	}
	p := mustPolicy(t, o)
	r := Request{Target: mustTarget("example.com:80"), Time: time.Date(2026, 1, 4, 23, 0, 0, 0, time.UTC)}
	if d, _ := p.Decide(r); d.Action != Allow {
		t.Errorf("Decide on Sunday 23:00 UTC, Monday 00:00 there = %+v, want allow", d)
	}
	o.Rules[0].Time = "Mon Europe/Berlin"
	if _, err := New(o); !errors.Is(err, errNone) {
		t.Errorf("New with an unknown zone: %v, want it to wrap %v", err, errNone)
	}
}

// FuzzSchedule states that a schedule that is read holds at some minute of the week,
// and that hours at both ends of a week are treated alike: it is periodic.
func FuzzSchedule(f *testing.F) {
	for _, s := range []string{"Mon-Fri 08:00-18:00 Europe/Berlin", "22:00-06:00", "Sat-Mon", "Mon;Tue 00:00-24:00", "Fri 23:59-00:01", "Mon Local"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		s, err := parseSchedule(spec, func(string) (*time.Location, error) { return time.UTC, nil })
		if err != nil {
			return
		}
		minutes := 0
		for m := range 7 * dayLength {
			at := monday.Add(time.Duration(m) * time.Minute)
			in := s.contains(at)
			if in {
				minutes++
			}
			if in != s.contains(at.AddDate(0, 0, 7)) {
				t.Fatalf("%q holds at %v: %v, and a week later: %v", spec, at, in, !in)
			}
		}
		if minutes == 0 {
			t.Errorf("%q never holds", spec)
		}
	})
}
