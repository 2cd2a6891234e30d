package doctor

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Print writes the checks as a table, or with quiet only those that failed, and
// reports whether all is well. What cannot be written does not change that.
func Print(w io.Writer, checks []Check, quiet bool) (healthy bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range checks {
		verdict, took := "ok", c.Took.Round(10*time.Microsecond).String()
		switch {
		case c.Skipped:
			verdict, took = "-", "-"
		case !c.OK:
			verdict = "FAILED"
		}
		if !quiet || verdict == "FAILED" {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s: %s\n", c.Row, verdict, took, c.What, c.Detail)
		}
	}
	_ = t.Flush()
	return Healthy(checks)
}
