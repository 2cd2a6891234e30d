// Package doctor speaks every row of the protocol table to a running port as a client
// would, and says in words what is wrong. It knows nothing of the gateway but the port, so
// what it finds is what clients find.
//
// Unless a target is given it asks for one that no gateway should reach, port 1 of the
// gateway's own loopback address: a refusal in the protocol's own words (403, REP 02, 91, a TLS alert) proves that a
// row is alive without any network behind it. That makes it fit for a health check.
package doctor

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"polyport/internal/target"
)

const (
	// DefaultAddress is where polyport listens unless it is told otherwise.
	DefaultAddress = "127.0.0.1:7659"
	// DefaultTimeout is Options.Timeout where it is zero.
	DefaultTimeout = 5 * time.Second
)

// nowhere is the target of checks that have none: an address literal, so that no
// name server is asked; in a range that the guard denies; at a port where nothing listens
// if a rule allows it all the same.
var nowhere = target.FromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 1))

// Options says what to check. Only Address is needed.
type Options struct {
	// Address is the port's "host:port". An empty or unspecified host means this machine.
	Address string
	// Rows are the rows that the listener serves, by their names in the protocol
	// table; checks of others are skipped. Empty, or one that is "*", means all. A name
	// that no check is for is a fault.
	Rows []string
	// User and Password are presented wherever the protocol can carry them. An empty User means none.
	User, Password string
	// Target is a "host:port" that must be reached through the proxy. Empty means
	// that a refusal is answer enough.
	Target string
	// TLSName is the server name (SNI) to send to the row "tls", which must then
	// pass it on. Empty sends none, and a refusal is answer enough.
	TLSName string
	// Secure has every row checked inside TLS to the gateway itself, which is known by this server name there. Empty is outside.
	Secure string
	// Roots are the CAs that are believed there. Nil is those of the system.
	Roots *x509.CertPool
	// Timeout bounds each check in total. Zero means 5 s; negative means no bound
	// but the context's.
	Timeout time.Duration
}

// Check is what was found about one row. It never holds credentials, nor octets of the peer.
type Check struct {
	// Row is the row of the protocol table, or "port", "socks4a", "udp" or "help page".
	Row string
	// What says what was done.
	What string
	// OK says that the row answered as it should. It is false for what was skipped.
	OK bool
	// Skipped says that nothing was done; Detail says why.
	Skipped bool
	// Took is the time until the verdict.
	Took time.Duration
	// Detail is what came back and, unless OK, what to do about it.
	Detail string
}

// Healthy reports whether something was checked and nothing failed.
func Healthy(checks []Check) bool {
	done := false
	for _, c := range checks {
		if !c.OK && !c.Skipped {
			return false
		}
		done = done || c.OK
	}
	return done
}

// Run checks the port, then all rows at the same time, each on a connection of its own. The
// order of the checks is always the same. It returns when all are done, at the latest after
// twice the timeout.
func Run(ctx context.Context, o Options) []Check {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	x, fault := newExamination(o)
	if fault != nil {
		return append([]Check{{Row: "port", What: "read the options", Detail: fault.Error()}}, skipAll("the options are wrong")...)
	}
	port := x.check(ctx, probe{name: portCheck, what: "connect to " + x.address, send: nothing})
	if !port.OK {
		return append([]Check{port}, skipAll("the port does not answer")...)
	}
	checks := make([]Check, len(probes))
	var wg sync.WaitGroup
	for i, p := range probes {
		wg.Go(func() { checks[i] = x.check(ctx, p) })
	}
	wg.Wait()
	return append([]Check{port}, checks...)
}

// examination is what all checks of one Run share. It is immutable.
type examination struct {
	Options
	address string
	target  target.Target
	given   bool // Options.Target was
}

// newExamination checks the options.
func newExamination(o Options) (*examination, error) {
	address, err := dialable(o.Address)
	if err != nil {
		return nil, err
	}
	for _, row := range o.Rows {
		if known := rows(); row != "*" && !slices.Contains(known, row) {
			return nil, fmt.Errorf("there is no check for the row %q; there are those for %s", row, strings.Join(known, ", "))
		}
	}
	x := &examination{Options: o, address: address, target: nowhere}
	if o.Target == "" {
		return x, nil
	}
	x.given = true
	if x.target, err = target.Parse(o.Target); err != nil {
		return nil, fmt.Errorf("what to reach through the proxy: %w", err)
	}
	return x, nil
}

// rows returns the rows that can be checked one by one, in the order of the table.
func rows() []string {
	var all []string
	for _, p := range probes {
		if p.row != "" && !slices.Contains(all, p.row) {
			all = append(all, p.row)
		}
	}
	return all
}

// dialable turns the address that a listener was given into one to connect to.
func dialable(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		shown := strconv.Quote(address)
		if strings.Contains(address, "@") {
			shown = "(not shown, since a password may stand in it)"
		}
		return "", fmt.Errorf("the proxy's address %s is not host:port, such as %s", shown, DefaultAddress)
	}
	if host == "" {
		return net.JoinHostPort("127.0.0.1", port), nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
		host = "127.0.0.1"
		if a.Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port), nil
}

// serves reports whether the listener has a row.
func (x *examination) serves(row string) bool {
	if len(x.Rows) == 0 {
		return true
	}
	for _, r := range x.Rows {
		if r == row || r == "*" {
			return true
		}
	}
	return false
}

// skipAll skips every row.
func skipAll(why string) []Check {
	checks := make([]Check, len(probes))
	for i, p := range probes {
		checks[i] = Check{Row: p.name, What: p.what, Skipped: true, Detail: "not checked: " + why}
	}
	return checks
}
