package exit

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Keys that clients may add to their user name.
const (
	KeyExit    = "exit"
	KeyCountry = "country"
	KeySession = "session"
	KeyTTL     = "ttl"
)

const (
	maxName    = 64 // characters of an exit's name or a session's
	minTTL     = time.Second
	maxTTL     = 24 * time.Hour
	mostQuoted = 64 // bytes of a client's part that an error repeats
)

// Parameters are the keys that clients may add to their user name. The zero value is none: "+" is then a letter like any other.
type Parameters struct{ Exit, Country, Session, TTL bool }

// NewParameters reads a list of keys. The error says which is unknown or stands twice, or that ttl has no session to hold for.
func NewParameters(keys []string) (Parameters, error) {
	var p Parameters
	for _, key := range keys {
		allowed := p.of(key)
		switch {
		case allowed == nil:
			return Parameters{}, fmt.Errorf("%q is nothing that a client can add to his user name; write %s, %s, %s or %s", key, KeyExit, KeyCountry, KeySession, KeyTTL)
		case *allowed:
			return Parameters{}, fmt.Errorf("%q stands twice", key)
		}
		*allowed = true
	}
	if p.TTL && !p.Session {
		return Parameters{}, fmt.Errorf("%q says how long a session holds; add %q or remove it", KeyTTL, KeySession)
	}
	return p, nil
}

// of returns where p says whether a key is allowed, nil for an unknown key.
func (p *Parameters) of(key string) *bool {
	switch key {
	case KeyExit:
		return &p.Exit
	case KeyCountry:
		return &p.Country
	case KeySession:
		return &p.Session
	case KeyTTL:
		return &p.TTL
	}
	return nil
}

// Wish is what a client wishes of its way out. The zero Wish is none.
type Wish struct {
	Exit    string        // an exit's name, 1 to 64 of A-Z, a-z, 0-9, "_", "-"; "" for none
	Country string        // ISO 3166-1 alpha-2 in lower case; "" for none
	Session string        // 1 to 64 of A-Z, a-z, 0-9, "_", ".", "-"; "" for none
	TTL     time.Duration // how long Session holds, in whole seconds, 1 s to 24 h; 0 where it is not said
}

// String returns the wish as a client adds it to his user name, such as "+exit-eu+session-k3j"; "" for none.
func (w Wish) String() string {
	var b strings.Builder
	add := func(key, value string) {
		if value != "" {
			b.WriteString("+" + key + "-" + value)
		}
	}
	add(KeyExit, w.Exit)
	add(KeyCountry, w.Country)
	add(KeySession, w.Session)
	switch {
	case w.TTL == 0:
	case w.TTL%time.Hour == 0:
		add(KeyTTL, strconv.Itoa(int(w.TTL/time.Hour))+"h")
	case w.TTL%time.Minute == 0:
		add(KeyTTL, strconv.Itoa(int(w.TTL/time.Minute))+"m")
	default:
		add(KeyTTL, strconv.Itoa(int(w.TTL/time.Second))+"s")
	}
	return b.String()
}

// ParseUser parts a user name as a client presents it into the user and what he wishes of his way out, as in
// "alice+exit-eu+session-k3j+ttl-10m": parts behind "+", each a key, "-" and a value, in any order and none twice. Where
// nothing is allowed the whole name is the user. The error names the part that is wrong, for the user alone, who is told beside
// it: nobody else need know what is allowed. Whether an exit of that name is there is not looked at.
func ParseUser(name string, allowed Parameters) (user string, w Wish, err error) {
	if allowed == (Parameters{}) {
		return name, Wish{}, nil
	}
	user, rest, more := strings.Cut(name, "+")
	if more && user == "" {
		return "", Wish{}, errors.New("the user name begins with +: the user's own name stands in front of it")
	}
	var seen Parameters
	for more {
		var part string
		part, rest, more = strings.Cut(rest, "+")
		if err := w.parse(part, &allowed, &seen); err != nil {
			return user, Wish{}, fmt.Errorf("+%.*q in the user name: %w", mostQuoted, part, err)
		}
	}
	if w.TTL != 0 && w.Session == "" {
		return user, Wish{}, fmt.Errorf("%s in the user name: it says how long a session holds, and there is none; add +%s-NAME", Wish{TTL: w.TTL}, KeySession)
	}
	return user, w, nil
}

// parse reads one part, such as "exit-eu".
func (w *Wish) parse(part string, allowed, seen *Parameters) error {
	key, value, found := strings.Cut(part, "-")
	may, did := allowed.of(key), seen.of(key)
	switch {
	case !found:
		return fmt.Errorf("write a key and a value, such as +%s-NAME", KeyExit)
	case may == nil:
		return errors.New("there is no such key")
	case !*may:
		return fmt.Errorf("%s is not allowed here; the operator allows it with user_parameters in [auth]", key)
	case *did:
		return fmt.Errorf("%s stands twice", key)
	}
	*did = true
	switch key {
	case KeyExit:
		w.Exit = value
		return checkWord(value, "_-")
	case KeySession:
		w.Session = value
		return checkWord(value, "_.-")
	case KeyCountry:
		w.Country = strings.ToLower(value)
		if len(value) != 2 || !isLetter(value[0]) || !isLetter(value[1]) {
			return errors.New(`a country is two letters, such as "de" (ISO 3166-1 alpha-2)`)
		}
		return nil
	}
	ttl, err := parseTTL(value)
	w.TTL = ttl
	return err
}

// checkWord refuses what is not 1 to 64 letters, digits and the others.
func checkWord(s, others string) error {
	if s == "" || len(s) > maxName {
		return fmt.Errorf("the value has %d characters; it may have 1 to %d", len(s), maxName)
	}
	for _, b := range []byte(s) {
		if !isLetter(b) && (b < '0' || b > '9') && strings.IndexByte(others, b) < 0 {
			return fmt.Errorf("%q is in the value; only letters, digits and %s may be", b, strings.Join(strings.Split(others, ""), " "))
		}
	}
	return nil
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// parseTTL reads a number with one unit: "30s", "10m", "24h".
func parseTTL(s string) (time.Duration, error) {
	wrong := errors.New("a ttl is a number and one of s, m and h, from 1s to 24h, such as 10m")
	if s == "" {
		return 0, wrong
	}
	unit, known := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour}[s[len(s)-1]]
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
	if !known || err != nil {
		return 0, wrong
	}
	ttl := time.Duration(n) * unit
	if ttl < minTTL || ttl > maxTTL {
		return 0, wrong
	}
	return ttl, nil
}
