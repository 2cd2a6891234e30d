package report

import (
	"math"
	"strconv"
	"strings"
)

// number writes a figure with as many digits as mean something.
func number(v float64) string {
	digits := 2
	switch a := math.Abs(v); {
	case a >= 100 || v == math.Trunc(v):
		digits = 0
	case a >= 10:
		digits = 1
	case a < .2:
		digits = 3
	}
	return group(strconv.FormatFloat(v, 'f', digits, 64))
}

// group puts commas between thousands.
func group(s string) string {
	whole, rest, _ := strings.Cut(s, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if rest != "" {
		whole += "." + rest
	}
	return sign + whole
}
