package geoip

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/oschwald/maxminddb-golang/v2"

	"polyport/internal/file"
)

// maxSize is the most that a database may have, in bytes: those of all cities have about 65 MiB.
const maxSize = 256 << 20

// maxCheck is the longest that the check of a database may take: that of all cities takes some seconds.
const maxCheck = time.Minute

// errSlow is a database that is made so that it cannot be gone through.
var errSlow = fmt.Errorf("it takes more than %v to check, so it is hardly a database of countries or cities; fetch it again", maxCheck)

// contentError is what no further reading of the same file would mend.
type contentError struct {
	path string
	err  error
}

// maxTold is how many bytes of what is wrong with a file are told: some faults repeat what stands there, whatever it is.
const maxTold = 300

// Error implements error.
func (e *contentError) Error() string {
	why := e.err.Error()
	if len(why) > maxTold {
		why = why[:maxTold] + "..."
	}
	return e.path + ": " + strings.Map(printable, why)
}

func printable(r rune) rune {
	if !unicode.IsPrint(r) {
		return '?'
	}
	return r
}

// Unwrap returns the cause.
func (e *contentError) Unwrap() error { return e.err }

// content is one state of the file. It is immutable but for what it remembers.
type content struct {
	reader *maxminddb.Reader
	// recent remembers the countries of records: of those of a database of countries, some hundreds, nearly all find room. An entry
	// is the record's offset + 1 and its country's two letters; 0 is none.
	recent [1 << 12]atomic.Uint64
}

// load reads the file into memory. It is not mapped: to overwrite a mapped file in place kills whoever reads it (SIGBUS).
func load(ctx context.Context, path string) (*content, error) {
	data, err := file.Read(path, maxSize)
	if err != nil {
		return nil, fmt.Errorf("read the database of countries: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxCheck, errSlow)
	defer cancel()
	c, err := parse(ctx, data)
	if err != nil {
		return nil, &contentError{path, err}
	}
	return c, nil
}

// parse makes content of a file's bytes, which it keeps. It ends soon after ctx, with its cause.
func parse(ctx context.Context, data []byte) (*content, error) {
	r, err := maxminddb.OpenBytes(data, maxminddb.DisableStringCache())
	if err != nil {
		return nil, fmt.Errorf("it is no whole database in MaxMind's format; fetch it again: %w", err)
	}
	if len(r.Metadata.Description) == 0 {
		// Verify wants one, and some publishers give none.
		r.Metadata.Description = map[string]string{"en": r.Metadata.DatabaseType}
	}
	countries, err := walk(ctx, r, data)
	if err != nil {
		return nil, err
	}
	if err := r.Verify(); err != nil {
		return nil, fmt.Errorf("the database is damaged; fetch it again: %w", err)
	}
	if !countries {
		return nil, fmt.Errorf("the database is one of %q and holds no countries; take one of countries or cities, such as GeoLite2-Country.mmdb",
			r.Metadata.DatabaseType)
	}
	return &content{reader: r}, nil
}

// walk goes once through the records that Verify goes through, which knows no end: they may point to each other, so that a small file
// takes hours. It reports whether one has a country. What is damaged it leaves to Verify. It looks at each node of the tree once,
// in the order of the file: a hostile one leads to the same nodes by 2^128 ways, on which the library would go.
func walk(ctx context.Context, r *maxminddb.Reader, data []byte) (countries bool, err error) {
	const separator = 16 // octets between the tree and the records
	count, size := r.Metadata.NodeCount, r.Metadata.RecordSize/4
	if size < 6 || size > 8 || count > uint(len(data))/size {
		return false, nil // damaged
	}
	seen := make(map[uint]struct{})
	for i := range count {
		for _, to := range branches(data[i*size:][:size]) {
			if _, again := seen[to]; again || to < count+separator {
				continue // another node, or nothing
			}
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			seen[to] = struct{}{}
			record := r.LookupOffset(uintptr(to - count - separator))
			var whole any
			_ = record.Decode(&whole)
			countries = countries || decode(record) != 0
		}
	}
	return countries, nil
}

// branches returns where a node leads, which has two records of 24, 28 or 32 bits. Of 28 the fourth octet is of both.
func branches(node []byte) (to [2]uint) {
	half := len(node) / 2
	for i, octets := range [2][]byte{node[:half], node[len(node)-half:]} {
		for _, b := range octets {
			to[i] = to[i]<<8 | uint(b)
		}
	}
	if len(node) == 7 {
		to[0] |= uint(node[3]>>4) << 24
		to[1] |= uint(node[3]&0xf) << 24
	}
	return to
}

// country returns the country of a.
func (c *content) country(a netip.Addr) string {
	if !a.IsValid() || a.Is6() && c.reader.Metadata.IPVersion == 4 {
		return ""
	}
	result := c.reader.Lookup(a)
	if !result.Found() {
		return ""
	}
	key := uint64(result.Offset()) + 1
	slot := &c.recent[key*0x9e3779b97f4a7c15>>(64-12)] // Fibonacci hashing: records lie at regular distances
	entry := slot.Load()
	if entry>>16 != key {
		entry = key<<16 | uint64(decode(result))
		slot.Store(entry)
	}
	return code(entry).text()
}

// paths are where a record may have its country, the first that is there counts: MaxMind's and DB-IP's, then where the
// address is registered, then that of publishers whose records are flat.
var paths = [...][]any{{"country", "iso_code"}, {"registered_country", "iso_code"}, {"country_code"}}

// decode returns the country of a record, 0 for none.
func decode(result maxminddb.Result) code {
	for _, path := range paths {
		var s string
		if err := result.DecodePath(&s, path...); err != nil {
			continue // a field of that name which is something else
		}
		if c := codeOf(s); c != 0 {
			return c
		}
	}
	return 0
}

// code is a country's two letters, in lower case; 0 is none.
type code uint16

// codeOf reads two letters in any case. Anything else is no country.
func codeOf(s string) code {
	if len(s) != 2 || !isLetter(s[0]) || !isLetter(s[1]) {
		return 0
	}
	return code(s[0]|0x20)<<8 | code(s[1]|0x20)
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// pairs are all codes in order, so that the text of one costs no memory.
var pairs = func() string {
	var b []byte
	for first := byte('a'); first <= 'z'; first++ {
		for second := byte('a'); second <= 'z'; second++ {
			b = append(b, first, second)
		}
	}
	return string(b)
}()

func (c code) text() string {
	if c == 0 {
		return ""
	}
	i := (int(c>>8-'a')*26 + int(c&0xff-'a')) * 2
	return pairs[i : i+2]
}
