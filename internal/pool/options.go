package pool

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
)

// Server is one server of a pool.
type Server struct {
	Name     string   // unique in the pool, and without secrets: it is in errors and reports
	Weight   int      // its share among those of its priority, 1 to 256; zero is 1
	Priority int      // 0 to 15; only the lowest that has a usable server is used
	Country  string   // ISO 3166-1 alpha-2 in lower case; "" is unknown and fits no request that names countries
	Tags     []string // what a request may ask for
	Drain    bool     // takes no new connection
}

// Eject says when a server that fails is left alone. The zero value is usable.
type Eject struct {
	Failures int           // so many failures in a row eject; zero is 5, negative is never
	Pause    time.Duration // how long it is left alone the first time; zero is 1 s
	MaxPause time.Duration // the pause doubles up to this for each ejection without a success between; zero is 1 min
}

// Options configures a Pool.
type Options struct {
	Name      string        // the name in Memory and in errors; the sticky balances depend on it
	Servers   []Server      // 1 to MaxServers
	Balance   Balance       // which of the usable servers is taken
	SlowStart time.Duration // how long the share of a server that came back grows from 10 % to 100 %; zero is not at all
	Eject     Eject
	Rise      int         // so many good checks in a row end a Down; zero is 2
	Fall      int         // so many bad checks in a row make a Down; zero is 3
	Load      float64     // a sticky balance passes over servers with more than so many times the mean of connections; zero is 1.25
	Changed   func(Event) // called in order when a server's state changes; must not block, nor call the pool for more than Status. nil: nobody
}

// Event is a change of a server's state.
type Event struct {
	Pool, Server string
	From, To     State     // both Ejected: its trial failed
	Until        time.Time // when Ejected or Warming ends
	Err          error     // what it went Down or was Ejected for
}

// Request is what a connection asks of the pool.
type Request struct {
	Client        netip.Addr
	User, Session string
	TTL           time.Duration // how long Session keeps its server; zero or negative is 10 min, and 24 h is the most
	Countries     []string      // lower case: only servers of one of these; empty: any
	Tags          []string      // only servers with one of these; empty: any
}

// The limits of a server, and what the zero values of Options stand for.
const (
	maxWeight   = 256
	maxPriority = 15

	defaultFailures   = 5
	defaultPause      = time.Second
	defaultMaxPause   = time.Minute
	defaultRise       = 2
	defaultFall       = 3
	defaultLoad       = 1.25
	defaultSessionTTL = 10 * time.Minute
	maxSessionTTL     = 24 * time.Hour
)

// withDefaults is o with its own copy of the servers and a value in place of each zero.
func (o Options) withDefaults() Options {
	o.Servers = append([]Server(nil), o.Servers...)
	for i := range o.Servers {
		s := &o.Servers[i]
		s.Weight = orDefault(s.Weight, 1)
		s.Country = strings.ToLower(s.Country)
	}
	o.Eject.Failures = orDefault(o.Eject.Failures, defaultFailures)
	o.Eject.Pause = orDefault(o.Eject.Pause, defaultPause)
	o.Eject.MaxPause = orDefault(o.Eject.MaxPause, max(defaultMaxPause, o.Eject.Pause))
	o.Rise = orDefault(o.Rise, defaultRise)
	o.Fall = orDefault(o.Fall, defaultFall)
	o.Load = orDefault(o.Load, defaultLoad)
	return o
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// validate lists every fault of o, which has its defaults.
func (o *Options) validate() error {
	var faults *multierror.Error
	fault := func(format string, args ...any) { faults = multierror.Append(faults, fmt.Errorf(format, args...)) }
	if o.Balance > StickySession {
		fault("balance: there is no %v", o.Balance)
	}
	if o.SlowStart < 0 {
		fault("slow_start: %v is negative", o.SlowStart)
	}
	if o.Eject.Pause < 0 || o.Eject.MaxPause < o.Eject.Pause {
		fault("eject: pause must be positive and not more than max_pause, but they are %v and %v", o.Eject.Pause, o.Eject.MaxPause)
	}
	if o.Rise < 0 || o.Fall < 0 {
		fault("health: rise and fall must be positive, but they are %d and %d", o.Rise, o.Fall)
	}
	if !(o.Load >= 1) || math.IsInf(o.Load, 0) {
		fault("load: %v is not a number of 1 or more: below the mean there is not room for all", o.Load)
	}
	if len(o.Servers) == 0 || len(o.Servers) > MaxServers {
		fault("servers: %d are listed, but a pool has 1 to %d", len(o.Servers), MaxServers)
	}
	seen := make(map[string]int, len(o.Servers))
	for i := range o.Servers {
		if err := o.Servers[i].validate(); err != nil {
			fault("servers[%d]: %w", i, err)
		}
		if first, twice := seen[o.Servers[i].Name]; twice {
			fault("servers[%d]: %q is servers[%d] already", i, o.Servers[i].Name, first)
		} else {
			seen[o.Servers[i].Name] = i
		}
	}
	return faults.ErrorOrNil()
}

func (s *Server) validate() error {
	switch {
	case s.Name == "":
		return errors.New("it has no name")
	case s.Weight < 1 || s.Weight > maxWeight:
		return fmt.Errorf("weight %d is not in 1 to %d", s.Weight, maxWeight)
	case s.Priority < 0 || s.Priority > maxPriority:
		return fmt.Errorf("priority %d is not in 0 to %d", s.Priority, maxPriority)
	}
	return nil
}
