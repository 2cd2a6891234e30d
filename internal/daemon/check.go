package daemon

import (
	"fmt"
	"io"
	"strings"

	"polyport/internal/config"
)

// Check reads and builds a configuration without opening a socket. It prints
// warnings to w; the error lists every fault.
func Check(o Options, w io.Writer) error {
	f, err := load(o)
	if err != nil {
		return err
	}
	a, err := assemble(f, lent{})
	if a != nil {
		defer a.close()
	}
	if err := config.Join(err, checkUsers(f), checkRoots(f)); err != nil {
		return err
	}
	warnings := allWarnings(f, a)
	for _, warning := range warnings {
		fmt.Fprintln(w, "warning: "+warning)
	}
	name := o.Path
	if name == "" {
		name = "the default configuration"
	}
	fmt.Fprintf(w, "%s is fine: %s, %s, %s\n", name,
		plural(len(f.Listen), "listener"), plural(len(a.rows), "row"), plural(len(policyOptions(f).Rules), "rule"))
	return nil
}

// plural counts things in English.
func plural(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "s"):
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}
