// Package upstream holds the next hops that the owner of the gateway wrote down: backends, to which raw connections are
// handed, and upstreams, the proxies that others are reached through. It says which of their servers is next and speaks
// to a proxy as its client; it never dials.
package upstream

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/hashicorp/go-multierror"

	"polyport/internal/pool"
)

// Backend is a [backend.NAME]: a pool of servers of our own. It is immutable but for the state of its pool.
type Backend struct {
	name    string
	pool    *pool.Pool
	servers []Server
	header  ProxyHeader
}

// ProxyHeader is the version of the PROXY protocol header that a backend's servers get in front of each connection.
type ProxyHeader uint8

// The versions.
const (
	NoHeader ProxyHeader = iota
	ProxyV1
	ProxyV2
)

// BackendOptions makes a Backend.
type BackendOptions struct {
	// Servers are "host:port" or "[::1]:22", one for each of Pool.Servers.
	Servers []string
	// Pool says how one of them is chosen; the Name of each of its servers is set to the normal form of its address.
	Pool pool.Options
	// Header is the PROXY header that they want.
	Header ProxyHeader
}

// NewBackend checks the servers and normalises the addresses among them. What is known of the servers stays in memory, which may be
// nil. The error lists every fault, each named "servers[i]".
func NewBackend(o BackendOptions, memory *pool.Memory) (*Backend, error) {
	var faults *multierror.Error
	if len(o.Servers) == 0 {
		faults = multierror.Append(faults, errors.New("servers: at least one \"host:port\" is needed"))
	}
	b := &Backend{name: o.Pool.Name, header: o.Header}
	p := o.Pool
	p.Servers = make([]pool.Server, len(o.Servers))
	copy(p.Servers, o.Pool.Servers)
	for i, text := range o.Servers {
		s, err := ParseServer(text)
		if err != nil {
			faults = multierror.Append(faults, fmt.Errorf("servers[%d]: %w", i, err))
			continue
		}
		p.Servers[i].Name = s.String()
		b.servers = append(b.servers, s)
	}
	if err := faults.ErrorOrNil(); err != nil {
		return nil, err
	}
	var err error
	if b.pool, err = pool.New(p, memory); err != nil {
		return nil, err
	}
	return b, nil
}

// Name returns the key of the [backend.NAME] table.
func (b *Backend) Name() string { return b.name }

// Pool returns the pool that says which server is next.
func (b *Backend) Pool() *pool.Pool { return b.pool }

// Server returns the server that is the pool's member i.
func (b *Backend) Server(i int) Server { return b.servers[i] }

// Header returns the version of the PROXY header that the servers get.
func (b *Backend) Header() ProxyHeader { return b.header }

// Upstream is an [upstream.NAME]: a pool of next-hop proxies. It is immutable but for the state of its pool and what its proxies keep.
type Upstream struct {
	name    string
	pool    *pool.Pool
	proxies []*Proxy
	via     *Upstream
	names   bool
	blocks  bool
}

// Options makes an Upstream.
type Options struct {
	// Proxies are the proxies, one for each of Pool.Servers.
	Proxies []*Proxy
	// Pool says how one of them is chosen; the Name of each of its servers is set to the proxy's, with a number where it stands twice.
	Pool pool.Options
	// Via is the upstream through which the proxies are reached; nil is directly.
	Via *Upstream
	// ResolvesNames has names sent to the proxies as they are; else the gateway resolves them and sends addresses.
	ResolvesNames bool
}

// New makes an Upstream. What is known of the proxies stays in memory, which may be nil.
func New(o Options, memory *pool.Memory) (*Upstream, error) {
	if len(o.Proxies) == 0 {
		return nil, errors.New("servers: at least one proxy is needed")
	}
	u := &Upstream{name: o.Pool.Name, proxies: o.Proxies, via: o.Via, names: o.ResolvesNames, blocks: o.Via != nil && o.Via.blocks}
	p := o.Pool
	p.Servers = make([]pool.Server, len(o.Proxies))
	copy(p.Servers, o.Pool.Servers)
	named := map[string]int{}
	for i, proxy := range o.Proxies {
		name := proxy.String()
		if named[name]++; named[name] > 1 { // one server may be written several times, each with another user
			name += "#" + strconv.Itoa(named[name])
		}
		p.Servers[i].Name = name
		u.blocks = u.blocks || proxy.Blocks()
	}
	var err error
	if u.pool, err = pool.New(p, memory); err != nil {
		return nil, err
	}
	return u, nil
}

// Name returns the key of the [upstream.NAME] table.
func (u *Upstream) Name() string { return u.name }

// Pool returns the pool that says which proxy is next.
func (u *Upstream) Pool() *pool.Pool { return u.pool }

// Proxy returns the proxy that is the pool's member i.
func (u *Upstream) Proxy(i int) *Proxy { return u.proxies[i] }

// Via returns the upstream through which the proxies are reached; nil is directly.
func (u *Upstream) Via() *Upstream { return u.via }

// ResolvesNames reports whether names are sent to the proxies as they are.
func (u *Upstream) ResolvesNames() bool { return u.names }

// Blocks reports whether opening a tunnel may need a goroutine of its own, for some proxy on the way.
func (u *Upstream) Blocks() bool { return u.blocks }

// Close lets go of what the proxies keep: tunnels that stand go on.
func (u *Upstream) Close() {
	for _, p := range u.proxies {
		p.Close()
	}
}
