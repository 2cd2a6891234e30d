package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time that is never negative. In the file it is a
// string with a unit, "5s" or "1h30m"; a bare number is a fault, since a reader
// could only guess at its unit.
type Duration time.Duration

// String returns the duration as time.Duration prints it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	t, err := parseDuration(string(text))
	if err != nil {
		return err
	}
	*d = Duration(t)
	return nil
}

func (Duration) wanted() string { return `a duration with its unit in quotes, such as "5s"` }

// parseDuration reads a duration that is not negative and has a unit.
func parseDuration(s string) (time.Duration, error) {
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("%s has no unit: write \"%ss\" if seconds are meant", quote(s), s)
	}
	t, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf(`%s is not a duration: write a number and a unit (ms, s, m, h), such as "5s" or "1h30m"`, quote(s))
	}
	if t < 0 {
		return 0, fmt.Errorf("%s is negative", quote(s))
	}
	return t, nil
}

// Size is a number of bytes. In the file it is a string with a unit: "512B",
// "64KiB" (1024), "64kB" (1000); a bare number is a fault.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1}, // last: the others end in it too
}

// String returns the size in the largest binary unit that needs no fraction.
func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalText is the inverse of UnmarshalText.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := parseSize(string(text))
	if err != nil {
		return err
	}
	*s = Size(n)
	return nil
}

func (Size) wanted() string { return `a size with its unit in quotes, such as "64KiB"` }

func parseSize(s string) (int64, error) {
	number, unit := s, int64(0)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, unit = strings.TrimRight(n, " "), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && unit != 0 && int64(n) > math.MaxInt64/unit:
		return 0, fmt.Errorf("%s is too large", quote(s))
	case err != nil:
		return 0, fmt.Errorf(`%s is not a size: write a whole number and a unit (B, KiB, MiB, GiB, kB, MB, GB), such as "64KiB"`, quote(s))
	case unit == 0:
		return 0, fmt.Errorf("%s has no unit: write \"%sB\" if bytes are meant", quote(s), s)
	}
	return int64(n) * unit, nil
}

// quote returns s in quotes, harmless on a terminal and at most 80 characters of it.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}
