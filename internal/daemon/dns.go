package daemon

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"reflect"
	"time"

	"polyport/internal/config"
	"polyport/internal/file"
	"polyport/internal/resolve"
)

// newResolver makes the resolver that [dns] describes. The error names the key that is at fault.
func newResolver(f *config.File) (*resolve.Resolver, error) {
	roots, err := dnsRoots(f)
	if err != nil {
		return nil, err
	}
	return resolve.New(resolve.Options{
		Servers:     dnsServers(f.DNS),
		Mode:        dnsModes[f.DNS.Mode],
		Family:      dnsFamilies[f.DNS.Family],
		RootCAs:     roots,
		Hosts:       dnsHosts(f.DNS),
		CacheSize:   noneIfZero(f.DNS.Cache),
		MinimumTTL:  noneIfZero(time.Duration(f.DNS.MinTTL)),
		MaximumTTL:  time.Duration(f.DNS.MaxTTL),
		NegativeTTL: noneIfZero(time.Duration(f.DNS.NegativeTTL)),
		ServeStale:  time.Duration(f.DNS.ServeStale),
		NoPrefetch:  !f.DNS.Prefetch,
	}), nil
}

func dnsRoots(f *config.File) (*x509.CertPool, error) {
	roots, err := readRoots("dns.ca", f.DNS.CA)
	if err != nil {
		return nil, f.At("", err)
	}
	return roots, nil
}

// checkRoots finds the faults of the CAs of name servers.
func checkRoots(f *config.File) error {
	_, err := dnsRoots(f)
	return err
}

// sameNames reports whether two configurations resolve names in the same way.
func sameNames(a, b *config.File) bool { return reflect.DeepEqual(a.DNS, b.DNS) }

var dnsModes = map[string]resolve.Mode{config.ModeInOrder: resolve.InOrder, config.ModeParallel: resolve.Parallel}

var dnsFamilies = map[string]resolve.Family{
	config.FamilyAny: resolve.Any, config.FamilyPreferIPv4: resolve.PreferIPv4, config.FamilyPreferIPv6: resolve.PreferIPv6,
	config.FamilyOnlyIPv4: resolve.OnlyIPv4, config.FamilyOnlyIPv6: resolve.OnlyIPv6,
}

func dnsServers(d config.DNS) (all []resolve.Server) {
	for _, s := range d.Servers {
		server := resolve.Server{Network: s.Network, Addrs: d.Addrs(s), Path: s.Path}
		if !s.Addr.IsValid() {
			server.Name = s.Host
		}
		all = append(all, server)
	}
	return all
}

func dnsHosts(d config.DNS) map[string][]netip.Addr {
	hosts := make(map[string][]netip.Addr, len(d.Hosts))
	for name, list := range d.Hosts {
		addrs := make([]netip.Addr, len(list))
		for i, a := range list {
			addrs[i] = a.Addr
		}
		hosts[name] = addrs
	}
	return hosts
}

// noneIfZero translates the file's "0 is none" to "negative is none" of packages whose zero is a default.
func noneIfZero[T int | time.Duration](v T) T {
	if v == 0 {
		return -1
	}
	return v
}

// readRoots reads the CAs that a key names; none where it is empty, which means those of the system.
func readRoots(key, path string) (*x509.CertPool, error) {
	roots, err := file.CertPool(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return roots, nil
}
