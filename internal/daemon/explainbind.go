package daemon

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"polyport/acl"
	"polyport/internal/config"
	"polyport/internal/target"
)

// isBind reports whether a question is about BIND.
func isBind(method string) bool { return strings.EqualFold(method, acl.MethodBind) }

// parseTarget reads the target of a question. That of BIND is who will connect, from port 0 if nobody knows.
func parseTarget(q Question) (target.Target, error) {
	if host, ok := strings.CutSuffix(q.Target, ":0"); ok && isBind(q.Method) {
		return target.NewPeer(host, 0)
	}
	return target.Parse(q.Target)
}

// bindsUnknown reports whether a question is about a BIND whose client does not know who will connect.
func bindsUnknown(r acl.Request) bool {
	a, ok := r.Target.Addr()
	return ok && a.IsUnspecified() && isBind(r.Method)
}

// explainUnknown answers for a BIND whose client does not know who will connect.
func explainUnknown(w io.Writer, p *acl.Policy, f *config.File, r acl.Request) error {
	e := p.ExplainBind(r)
	answer := decisionText(e.Decision)
	if e.NeedAddress {
		answer = "allowed for some of those who may connect"
	}
	printQuestion(w, r, answer)
	fmt.Fprintln(w, "\nwhoever connects:")
	printSteps(w, e)
	if !e.NeedAddress && e.Decision.Action != acl.Allow {
		return ErrDenied
	}
	fmt.Fprintln(w, "\nwho connects is judged by his address: ask again with it as the target")
	return explainPorts(w, f, r)
}

// explainPorts says that BIND is allowed and cannot be served all the same.
func explainPorts(w io.Writer, f *config.File, r acl.Request) error {
	if !isBind(r.Method) || f.Bind.Ports.First != 0 {
		return nil
	}
	fmt.Fprintln(w, `
but BIND is not served: write ports = "40000-40100", or others, into [bind]`)
	return ErrDenied
}

// printPeers says who may connect.
func printPeers(w io.Writer, peers []netip.AddrPort) {
	fmt.Fprintf(w, "\nit would wait for %s, from any port\n", peers[0].Addr())
	for _, a := range peers[1:] {
		fmt.Fprintf(w, "  or %s\n", a.Addr())
	}
}
