package daemon

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"polyport/internal/config"
	"polyport/internal/egress"
	"polyport/internal/pool"
)

// printWay writes which way what is allowed would leave.
func printWay(w io.Writer, f *config.File, x egress.Explanation) {
	r := x.Route
	if r.Exit != "" {
		fmt.Fprintf(w, "\nit would leave by exit %s%s\n", r.Exit, source(f.Exit[r.Exit], x))
	}
	if r.Upstream == "" {
		return
	}
	fmt.Fprintf(w, "\nit would leave through upstream %s%s\n", r.Upstream, behind(f, r.Upstream))
	printChoices(w, x.Choices)
	if r.ByName {
		fmt.Fprintf(w, "  the upstream gets the name as it is: only the name was checked, and no address of it (resolve = %q)\n", config.ResolveUpstream)
	}
}

// behind names the upstreams that one is reached through, the nearest last.
func behind(f *config.File, name string) string {
	var all []string
	for via := f.Upstream[name].Via; via != "" && len(all) < len(f.Upstream); via = f.Upstream[via].Via {
		all = append(all, via)
	}
	if len(all) == 0 {
		return ""
	}
	return ", which is reached through " + strings.Join(all, ", and that through ")
}

// source says what connections would leave with.
func source(e config.Exit, x egress.Explanation) string {
	var parts []string
	switch {
	case len(e.LocalAddress) == 0:
	case x.Local.IsValid():
		parts = append(parts, "from "+x.Local.String())
	default:
		parts = append(parts, "from one of "+strings.Join(texts(e.LocalAddress), ", "))
	}
	if e.Interface != "" {
		parts = append(parts, "by interface "+e.Interface)
	}
	if e.Mark != 0 {
		parts = append(parts, fmt.Sprintf("with mark %d", e.Mark))
	}
	if len(parts) == 0 {
		return ""
	}
	return ", " + strings.Join(parts, ", ")
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}

// printChoices writes a line for each server of a pool. What is known of their health is only what is in the file: this process has not tried any.
func printChoices(w io.Writer, choices []pool.Choice) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range choices {
		verdict := "no"
		switch {
		case c.Taken:
			verdict = "next"
		case c.Considered:
			verdict = "may be next"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", c.Server, verdict, c.Why)
	}
	_ = t.Flush() // what cannot be written does not change the answer
}
