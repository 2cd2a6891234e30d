// Package geoip tells the country of an address out of a database in MaxMind's format (MaxMind DB File Format
// Specification 2.0), of countries or of cities. It knows countries only, asks nobody on the network, and fetches no
// database: its file is the operator's to renew, and is read again when it has changed.
package geoip

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"polyport/internal/file"
)

// Database is a database of countries. It is safe for concurrent use.
type Database struct {
	path string
	log  func(error)
	now  atomic.Pointer[content]

	reading sync.Mutex // guards what follows
	watched

	stop context.CancelFunc
	done chan struct{} // closed when the watching has ended
}

// Open reads the database at path, up to 256 MiB, into memory and looks every second from then on whether the file has
// changed. A change that cannot be taken leaves the old content in force; log is told of it, once for each. The error is
// of a file that is not there, is damaged, holds no countries or takes more than a minute to check. Close has to be called.
func Open(path string, log func(error)) (*Database, error) {
	d := &Database{path: path, log: log, done: make(chan struct{})}
	st, _ := file.StampOf(path) // load says better what is wrong
	fresh, err := load(context.Background(), path)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	d.now.Store(fresh)
	d.took(st, st.Settled(now))
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	go d.watch(ctx)
	return d, nil
}

// Country returns the country of a in lower-case ISO 3166-1 alpha-2: where it is said to be or, where that is not known,
// where it is registered. "" is unknown, as the country of every private address is. IPv4 addresses that are mapped into
// IPv6, or hidden in it by 6to4 (RFC 3056) or the well-known prefix of NAT64 (RFC 6052), count as themselves. A nil
// Database knows no country.
func (d *Database) Country(a netip.Addr) string {
	if d == nil {
		return ""
	}
	return d.now.Load().country(embedded4(a.Unmap()))
}

// Close ends the watching. Country answers on with what was read last.
func (d *Database) Close() {
	d.stop()
	<-d.done
}

// reread takes the file's new content, if there is some and nobody is writing it. It ends soon after ctx.
func (d *Database) reread(ctx context.Context, now time.Time) {
	d.reading.Lock()
	defer d.reading.Unlock()
	st, due := d.look(d.path, now)
	if !due {
		return
	}
	fresh, err := load(ctx, d.path)
	switch {
	case err == nil:
		d.now.Store(fresh)
		d.took(st, true)
	case ctx.Err() != nil: // nobody wants it any more
	case d.refused(st, now, err) && d.log != nil:
		d.log(fmt.Errorf("the database of countries was changed, but the change cannot be taken and the old one holds: %w", err))
	}
}

var (
	sixToFour = netip.MustParsePrefix("2002::/16")
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
)

// embedded4 returns the IPv4 address that a stands for, else a. Not every database has these ranges as aliases.
func embedded4(a netip.Addr) netip.Addr {
	b := a.As16()
	switch {
	case !a.Is6():
	case sixToFour.Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	case nat64.Contains(a):
		return netip.AddrFrom4([4]byte(b[12:16]))
	}
	return a
}
