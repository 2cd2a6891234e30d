package config

import "slices"

// decodedKeys remembers what the protocols asked for and found.
type decodedKeys struct {
	asked   []string        // names of folders
	seen    map[string]bool // places that some protocol decoded
	unknown []unknownEntry
}

type unknownEntry struct {
	place *place
	known []string
}

// DecodeProtocol fills into, a pointer to a folder's own Options, from
// [protocols.NAME]. Without such a table it leaves them as they are. The struct tags are
// those of the toml package; a time.Duration needs a unit. The error lists
// every value of the wrong type; keys that into has no field for are kept for Unknown, since a
// folder may decode its table in parts. It is not safe for concurrent use.
func (f *File) DecodeProtocol(name string, into any) error {
	f.decoded.asked = append(f.decoded.asked, name)
	data, ok := f.protocols[name]
	if !ok {
		return nil
	}
	if f.decoded.seen == nil {
		f.decoded.seen = map[string]bool{}
	}
	errs := f.newFaults()
	d := decoder{
		fault:   errs.add,
		unknown: func(p *place, known []string) { f.decoded.unknown = append(f.decoded.unknown, unknownEntry{p, known}) },
		seen:    func(p *place) { f.decoded.seen[p.String()] = true },
	}
	d.decode(root.key("protocols").key(name), data, into)
	return errs.err()
}

// Unknown reports the keys under [protocols] that no protocol has decoded. Ask it
// after all of them have.
func (f *File) Unknown() error {
	errs := f.newFaults()
	for _, name := range sortedKeys(f.protocols) {
		p := root.key("protocols").key(name)
		if !slices.Contains(f.decoded.asked, name) {
			errs.add(p, unknownKey(p, f.decoded.asked))
		}
	}
	for _, u := range f.decoded.unknown {
		if !f.decoded.seen[u.place.String()] {
			errs.add(u.place, unknownKey(u.place, u.known))
		}
	}
	return errs.err()
}
