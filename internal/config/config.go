// Package config reads the configuration file into typed values. It is strict:
// a key that it does not know is a fault, and every fault of a file is
// reported at once, each with its place and, where one comes to mind, what was meant.
//
// The file is TOML 1.0. The package reads that one file and nothing else: files
// that it names (htpasswd, secrets, logs) are opened by those who use them, and
// flags and the environment are laid over it by File.Override. Only package daemon imports it.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// maxFileSize bounds a configuration file, in bytes.
const maxFileSize = 1 << 20

// File is a configuration. Make one with Load, Parse or Default. The tag "reload" names what
// a changed key asks of a running gateway: live, relisten or restart (see Diff).
type File struct {
	// AllowOpenProxy lets the gateway start although anyone on the network could use it.
	AllowOpenProxy bool `toml:"allow_open_proxy" reload:"live"`
	// DefaultUpstream is the upstream of rules that allow and name neither upstream nor exit; "" is none.
	DefaultUpstream string `toml:"default_upstream" reload:"live"`
	// Listen holds the [listen.NAME] tables; never empty.
	Listen map[string]Listener `toml:"listen" reload:"relisten"`
	Sniff  Sniff               `toml:"sniff"`
	// Timeouts and Limits hold for every listener.
	Timeouts Timeouts `toml:"timeouts"`
	Limits   Limits   `toml:"limits"`
	UDP      UDP      `toml:"udp"`
	Auth     Auth     `toml:"auth"`
	HTTP     HTTP     `toml:"http"`
	Bind     Bind     `toml:"bind"`
	// Rule holds the [[rule]] tables in order.
	Rule []Rule `toml:"rule" reload:"live"`
	// Backend holds the [backend.NAME] tables.
	Backend map[string]Backend `toml:"backend" reload:"live"`
	// Upstream, Exit and Site hold the [upstream.NAME], [exit.NAME] and [site.NAME] tables.
	Upstream map[string]Upstream `toml:"upstream" reload:"live"`
	Exit     map[string]Exit     `toml:"exit" reload:"live"`
	Site     map[string]Site     `toml:"site" reload:"live"`
	GeoIP    GeoIP               `toml:"geoip"`
	TLS      TLS                 `toml:"tls"`
	Log      Log                 `toml:"log"`
	DNS      DNS                 `toml:"dns"`

	// DefaultRules says that nobody wrote a rule into the file: the default
	// policy stands behind Rule, which then holds at most what Override added.
	DefaultRules bool `toml:"-"`

	doc       *document      // where things stand, for faults; nil for Default
	protocols map[string]any // the [protocols.NAME] tables, for DecodeProtocol
	decoded   decodedKeys
	flagRules string // the flag that made the rules; "" where the file did
}

// Load reads a file. Like Parse it may return both a File and an error.
func Load(path string) (*File, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// readFile reads a file of at most maxFileSize.
func readFile(path string) ([]byte, error) {
	r, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the configuration: there is no file %q: name another with -c, or leave it out to run on the defaults (%w)", path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return data, nil
}

// Parse reads a configuration; name is what faults call the file, and paths in
// it are taken from that file's folder. The error lists every fault of syntax,
// key and type (see Join); what the values mean is judged by Validate.
//
// If the syntax was right the File is returned beside the error, so that
// the caller can go on and collect the faults that Validate, DecodeProtocol and Unknown
// find in it. Such a File must not be run.
func Parse(name string, data []byte) (*File, error) {
	doc, fault := parseDocument(name, data)
	if fault != nil {
		return nil, Join(fault)
	}
	f := Default()
	f.Listen = nil
	f.doc = doc
	errs := f.newFaults()
	f.decode(errs)
	if f.Listen == nil {
		f.Listen = defaultListeners()
	}
	f.DefaultRules = f.Rule == nil
	f.resolvePaths(filepath.Dir(name))
	f.lowerCountries()
	return f, errs.err()
}

// decode fills f from its document.
func (f *File) decode(errs *faults) {
	tree := maps.Clone(f.doc.values)
	if p, ok := tree["protocols"]; ok {
		delete(tree, "protocols")
		if f.protocols, ok = p.(map[string]any); !ok {
			errs.add(root.key("protocols"), typeFault("a table for each protocol, such as [protocols.tls]", p))
		}
	}
	d := decoder{
		fault: errs.add,
		unknown: func(p *place, known []string) {
			if p.up == root {
				known = append(known, "protocols") // decoded by each protocol itself
			}
			errs.add(p, unknownKey(p, known))
		},
	}
	d.decode(root, tree, f)
}

// resolvePaths makes the paths in the file independent of the working directory
// of the process: a service manager starts it in "/".
func (f *File) resolvePaths(folder string) {
	within := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(folder, *p)
		}
	}
	for _, p := range f.paths() {
		within(p)
	}
	for name, c := range f.TLS.Certificate {
		within(&c.Certificate)
		within(&c.Key)
		within(&c.OCSP)
		f.TLS.Certificate[name] = c
	}
	for name, u := range f.Upstream {
		within(&u.TLS.CA)
		within(&u.TLS.Certificate)
		within(&u.TLS.Key)
		if path, ok := strings.CutPrefix(u.Password.ref, "file:"); ok {
			within(&path)
			u.Password.ref = "file:" + path
		}
		f.Upstream[name] = u
	}
}

// ListenerNames returns the names of the listeners, sorted.
func (f *File) ListenerNames() []string { return sortedKeys(f.Listen) }

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
