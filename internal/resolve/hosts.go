package resolve

import (
	"errors"
	"net/netip"
)

// hostEntries makes of Options.Hosts what Lookup answers. Names that no client can ask
// for are passed over.
func hostEntries(hosts map[string][]netip.Addr, f Family) map[string]*entry {
	if len(hosts) == 0 {
		return nil
	}
	entries := make(map[string]*entry, len(hosts))
	for host, addrs := range hosts {
		name, err := normalName(host)
		if err != nil {
			continue
		}
		e := &entry{addrs: sanitise(f.arrange(addrs))}
		if len(e.addrs) == 0 {
			e.err = &Error{Host: name, Kind: ErrNotFound, Err: errors.New("so says the configuration")}
		}
		entries[name] = e
	}
	return entries
}
