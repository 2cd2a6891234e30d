package egress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	"polyport/internal/pool"
	"polyport/internal/upstream"
)

// ProbeKind is what a health check does.
type ProbeKind uint8

// The kinds.
const (
	ProbeConnect ProbeKind = iota // TCP, and TLS where the server speaks it
	ProbeTunnel                   // a tunnel to Probe.Target
	ProbeHTTP                     // a GET through such a tunnel, or to a backend's server itself
)

// Probe is a health check of one server.
type Probe struct {
	Kind ProbeKind
	// Target is where a proxy is asked to go.
	Target upstream.Destination
	// Path and Host are of the request that ProbeHTTP sends. An empty Host is that of the Target, or of the server.
	Path, Host string
}

// maxProbeHead bounds the head of an answer to ProbeHTTP, in octets.
const maxProbeHead = 64 << 10

// ProbeUpstream checks a proxy, the pool's member i. ctx bounds it. It costs no client anything and asks no rule: the owner wrote down
// whom to ask. Nil is health; an error that wraps pool.ErrUnchecked is this machine's own fault, and says nothing of the proxy.
func (d *Dialer) ProbeUpstream(ctx context.Context, u *upstream.Upstream, i int, p Probe) error {
	return unlessOurs(d.probeUpstream(ctx, u, i, p))
}

// unlessOurs marks what says nothing of a server that was probed.
func unlessOurs(err error) error {
	if err != nil && (outOfRoom(err) || isOurs(err)) {
		return fmt.Errorf("%w: %w", pool.ErrUnchecked, err)
	}
	return err
}

func (d *Dialer) probeUpstream(ctx context.Context, u *upstream.Upstream, i int, p Probe) error {
	deadline, _ := ctx.Deadline()
	proxy := u.Proxy(i)
	t := tunneling{d: d, way: &way{upstream: u}, via: d.via}
	if p.Kind == ProbeConnect {
		h := hop{tunneling: &t, upstream: u, proxy: proxy, deadline: deadline}
		return proxy.Check(ctx, deadline, h.dialShared)
	}
	link := Link{}
	defer func() { link.Release() }()
	conn, fail := t.attempt(ctx, u, i, &link, p.Target, deadline)
	if fail != nil {
		return fail.Error
	}
	defer conn.Close()
	if p.Kind == ProbeTunnel {
		return nil
	}
	return p.get(ctx, conn, p.Target.String())
}

// ProbeBackend checks a server of a backend, the pool's member i, as ProbeUpstream does.
func (d *Dialer) ProbeBackend(ctx context.Context, b *upstream.Backend, i int, p Probe) error {
	deadline, _ := ctx.Deadline()
	conn, fail := d.dialServer(ctx, b.Server(i), nil, deadline)
	if fail != nil {
		return unlessOurs(fail)
	}
	defer conn.Close()
	if fail := writeHeader(conn, b.Header(), Header{}, deadline); fail != nil {
		return fail
	}
	if p.Kind != ProbeHTTP {
		return nil
	}
	return p.get(ctx, conn, b.Server(i).String())
}

// get asks for the path and judges the answer.
func (p *Probe) get(ctx context.Context, conn net.Conn, server string) error {
	host := p.Host
	if host == "" {
		host = server
	}
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(longPast) // it fails for a closed connection alone, where nothing waits
	})
	defer stop()
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: polyport\r\nConnection: close\r\n\r\n", p.Path, host); err != nil {
		return fmt.Errorf("ask for %s: %w", p.Path, err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxProbeHead)), nil)
	if err != nil {
		return fmt.Errorf("read the answer for %s: %w", p.Path, err)
	}
	_ = answer.Body.Close() // nothing of it is wanted
	const bad = 400
	if answer.StatusCode < http.StatusOK || answer.StatusCode >= bad {
		return fmt.Errorf("the answer for %s is %d, not one from 200 to 399", p.Path, answer.StatusCode)
	}
	return nil
}
