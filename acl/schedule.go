package acl

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// schedule is when a rule holds: by the clock on the wall of its zone, so a
// change to or from summer time moves nothing.
type schedule struct {
	text    string // as written, for people
	zone    *time.Location
	windows []window
}

// window is a time of day on some days of the week.
type window struct {
	days     uint8 // bit d is time.Weekday(d), the day on which the window begins
	from, to int   // minutes after midnight; to is not included; to < from is over midnight
}

const (
	allDays   = 1<<7 - 1
	dayLength = 24 * 60 // minutes, by the clock on the wall
)

// contains reports whether t lies in one of the windows.
func (s *schedule) contains(t time.Time) bool {
	t = t.In(s.zone)
	minute := t.Hour()*60 + t.Minute()
	today := uint8(1) << t.Weekday()
	yesterday := uint8(1) << ((t.Weekday() + 6) % 7)
	for _, w := range s.windows {
		begun, notOver := minute >= w.from, minute < w.to
		switch {
		case w.from < w.to:
			if begun && notOver && w.days&today != 0 {
				return true
			}
		case begun && w.days&today != 0, notOver && w.days&yesterday != 0:
			return true
		}
	}
	return false
}

// parseSchedule reads the form that Rule.Time documents.
func parseSchedule(s string, load func(string) (*time.Location, error)) (*schedule, error) {
	out := &schedule{text: s, zone: time.UTC}
	parts := strings.Split(s, ";")
	for i, part := range parts {
		fields := strings.Fields(part)
		if n := len(fields); i == len(parts)-1 && n > 0 && !isDays(fields[n-1]) && !isHours(fields[n-1]) {
			var err error
			if out.zone, err = parseZone(fields[n-1], load); err != nil {
				return nil, err
			}
			fields = fields[:n-1]
		}
		ws, err := parseWindows(fields)
		if err != nil {
			return nil, err
		}
		out.windows = append(out.windows, ws...)
	}
	return out, nil
}

// isDays and isHours tell the parts of a window apart by their first letter's
// look: a part that names a day, or begins with a digit.
func isDays(field string) bool {
	first, _, _ := strings.Cut(field, ",")
	first, _, _ = strings.Cut(first, "-")
	_, ok := weekday(first)
	return ok
}

func isHours(field string) bool { return field[0] >= '0' && field[0] <= '9' }

func parseZone(name string, load func(string) (*time.Location, error)) (*time.Location, error) {
	if strings.EqualFold(name, "local") {
		return nil, errors.New("the zone Local would make the rule depend on where it runs; name one, such as Europe/Berlin, or none for UTC")
	}
	zone, err := load(name)
	if err != nil {
		return nil, fmt.Errorf("%q is neither days, hours (08:00-18:00) nor a time zone such as Europe/Berlin: %w", name, err)
	}
	return zone, nil
}

// parseWindows reads "Mon-Fri", "08:00-12:00,13:00-18:00" or both.
func parseWindows(fields []string) ([]window, error) {
	days, hours := uint8(allDays), []window{{from: 0, to: dayLength}}
	var err error
	rest := fields
	if len(rest) > 0 && isDays(rest[0]) {
		if days, err = parseDays(rest[0]); err != nil {
			return nil, err
		}
		rest = rest[1:]
	}
	if len(rest) > 0 && isHours(rest[0]) {
		if hours, err = parseHours(rest[0]); err != nil {
			return nil, err
		}
		rest = rest[1:]
	}
	if len(fields) == 0 || len(rest) > 0 {
		return nil, fmt.Errorf("%q is not days and hours; write them such as Mon-Fri 08:00-18:00, lists with commas and no spaces", strings.Join(fields, " "))
	}
	for i := range hours {
		hours[i].days = days
	}
	return hours, nil
}

// parseDays reads "Mon", "Mon-Fri" or "Mon-Wed,Sat"; a range may go over the
// end of the week.
func parseDays(s string) (days uint8, err error) {
	for part := range strings.SplitSeq(s, ",") {
		a, b, isRange := strings.Cut(part, "-")
		if !isRange {
			b = a
		}
		first, ok1 := weekday(a)
		last, ok2 := weekday(b)
		if !ok1 || !ok2 {
			return 0, fmt.Errorf("%q is no day or range of days; write Mon, Tue, Wed, Thu, Fri, Sat or Sun, or two of them with a hyphen", part)
		}
		for d := first; ; d = (d + 1) % 7 {
			days |= 1 << d
			if d == last {
				break
			}
		}
	}
	return days, nil
}

// weekday reads the first three letters of a day's name, or the whole of it.
func weekday(s string) (time.Weekday, bool) {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if name := d.String(); strings.EqualFold(s, name[:3]) || strings.EqualFold(s, name) {
			return d, true
		}
	}
	return 0, false
}

// parseHours reads "08:00-12:00,13:00-18:00" into windows without days.
func parseHours(s string) ([]window, error) {
	var out []window
	for part := range strings.SplitSeq(s, ",") {
		a, b, _ := strings.Cut(part, "-")
		from, ok1 := clock(a)
		to, ok2 := clock(b)
		switch {
		case !ok1 || !ok2 || from == dayLength:
			return nil, fmt.Errorf("%q is no range of hours; write it such as 08:00-18:00, or 18:00-24:00", part)
		case from == to:
			return nil, fmt.Errorf("%q is empty; for the whole day write 00:00-24:00 or leave the hours out", part)
		}
		out = append(out, window{from: from, to: to})
	}
	return out, nil
}

// clock reads "08:30" as minutes after midnight; "24:00" is the end of the day.
func clock(s string) (minutes int, ok bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	for _, i := range [...]int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	h, m := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	minutes = h*60 + m
	return minutes, m < 60 && minutes <= dayLength
}
