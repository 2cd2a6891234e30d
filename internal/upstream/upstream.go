// Package upstream holds the next hops that the owner of the gateway wrote
// down: backends, to which raw connections are handed. It validates them and
// remembers which server has failed of late; it never dials.
package upstream

import (
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-multierror"
)

// MaxServers is the most servers that one backend may list: each gets a fair
// share of the connect timeout, and a longer list would leave none a useful one.
const MaxServers = 64

// failureMemory is how long a server that has failed is tried after the others.
const failureMemory = 5 * time.Second

// Backend is a named list of servers of our own, tried in turn. It is safe for
// concurrent use and must not be copied.
type Backend struct {
	// Name is the key of the [backend.NAME] table.
	Name string
	// Servers are "host:port" or "[::1]:22", in the order in which they are tried.
	Servers []string

	failedAt [MaxServers]atomic.Int64 // Unix ns of the last failure; 0: none since the last success
}

// NewBackend checks the servers and normalises the addresses among them. The
// error lists every fault, each named "servers[i]".
func NewBackend(name string, servers []string) (*Backend, error) {
	var faults *multierror.Error
	switch {
	case len(servers) == 0:
		faults = multierror.Append(faults, errors.New("servers: at least one \"host:port\" is needed"))
	case len(servers) > MaxServers:
		faults = multierror.Append(faults, fmt.Errorf("servers: %d are listed, at most %d are allowed", len(servers), MaxServers))
	}
	b := &Backend{Name: name, Servers: make([]string, 0, len(servers))}
	for i, text := range servers {
		s, err := ParseServer(text)
		if err != nil {
			faults = multierror.Append(faults, fmt.Errorf("servers[%d]: %w", i, err))
			continue
		}
		b.Servers = append(b.Servers, s.String())
	}
	if err := faults.ErrorOrNil(); err != nil {
		return nil, err
	}
	return b, nil
}

// AppendOrder appends the indexes of Servers to dst in the order in which they
// are to be tried: as written, but those that have failed within the last 5 s come last. Servers
// beyond MaxServers are left out.
func (b *Backend) AppendOrder(dst []int, now time.Time) []int {
	var late uint64 // a bit for each server, so that each is judged only once
	for i := range min(len(b.Servers), MaxServers) {
		if b.failedLately(i, now) {
			late |= 1 << i
		} else {
			dst = append(dst, i)
		}
	}
	for ; late != 0; late &= late - 1 {
		dst = append(dst, bits.TrailingZeros64(late))
	}
	return dst
}

// failedLately is false for a failure in the future, so that a clock that was
// set back cannot banish a server.
func (b *Backend) failedLately(i int, now time.Time) bool {
	at := b.failedAt[i].Load()
	if at == 0 {
		return false
	}
	age := now.UnixNano() - at
	return age >= 0 && age < int64(failureMemory)
}

// Failed notes that server i could not be reached.
func (b *Backend) Failed(i int, now time.Time) {
	if i >= 0 && i < MaxServers {
		b.failedAt[i].Store(now.UnixNano())
	}
}

// Succeeded notes that server i was reached.
func (b *Backend) Succeeded(i int) {
	// A plain load first: in the usual case nothing is written, so that cores
	// do not fight for the cache line.
	if i >= 0 && i < MaxServers && b.failedAt[i].Load() != 0 {
		b.failedAt[i].Store(0)
	}
}
