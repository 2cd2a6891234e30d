package acl

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"polyport/internal/target"
)

// leastDecisions is how many rows the tables must hold together, so that a file that is no
// longer read is noticed.
const leastDecisions = 200

// TestGolden asks what testdata/*.txt asks; testdata/README.md says how to read it.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { asked += runTable(t, file) })
	}
	if asked < leastDecisions {
		t.Errorf("the tables hold %d decisions, want at least %d", asked, leastDecisions)
	}
}

// runTable runs one file and returns how many decisions it asked for.
func runTable(t *testing.T, file string) (asked int) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var o Options
	var p *Policy // compiled when the first question comes
	for i, line := range strings.Split(string(text), "\n") {
		place := file + ":" + strconv.Itoa(i+1)
		words := splitLine(t, place, line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "policy":
			o, p = Options{HasUsers: len(words) > 2 && words[2] == "users"}, nil
		case "rule":
			o.Rules = append(o.Rules, readRule(t, place, words[1:]))
		case "ask":
			if p == nil {
				if p, err = New(o); err != nil {
					t.Fatalf("%s: New: %v", place, err)
				}
			}
			asked++
			a := readAsk(t, place, words[1:])
			if got := a.answer(p); got != a.want {
				t.Errorf("%s: %s: got %s, want %s", place, strings.TrimSpace(line), got, a.want)
			}
		default:
			t.Fatalf("%s: a line cannot begin with %q", place, words[0])
		}
	}
	return asked
}

// splitLine parts a line into words and drops its comment.
func splitLine(t *testing.T, place, line string) (words []string) {
	t.Helper()
	quoted, open := false, false
	var word strings.Builder
	flush := func() {
		if open {
			words = append(words, word.String())
		}
		word.Reset()
		open = false
	}
	for _, c := range line {
		switch {
		case c == '"':
			quoted, open = !quoted, true
		case c == '#' && !quoted && !open:
			return words
		case (c == ' ' || c == '\t') && !quoted:
			flush()
		default:
			word.WriteRune(c)
			open = true
		}
	}
	if quoted {
		t.Fatalf("%s: a quote is never closed", place)
	}
	flush()
	return words
}

func readRule(t *testing.T, place string, words []string) Rule {
	t.Helper()
	r := Rule{Name: words[0]}
	switch words[1] {
	case "allow":
		r.Action = Allow
	case "deny":
	default:
		t.Fatalf("%s: %q is no action", place, words[1])
	}
	for _, w := range words[2:] {
		key, value, _ := strings.Cut(w, "=")
		list := strings.Split(value, ",")
		switch key {
		case "client":
			r.Client = mustPrefixes(list...)
		case "client_port":
			r.ClientPort = mustPorts(list...)
		case "client_country":
			r.ClientCountry = list
		case "country":
			r.Country = list
		case "upstream":
			r.Upstream = value
		case "exit":
			r.Exit = list
		case "user":
			r.User = list
		case "group":
			r.Group = list
		case "protocol":
			r.Protocol = list
		case "listener":
			r.Listener = list
		case "target":
			r.Target = list
		case "port":
			r.Port = mustPorts(list...)
		case "method":
			r.Method = list
		case "time":
			r.Time = value
		case "anonymous":
			r.Anonymous = true
		default:
			t.Fatalf("%s: %q is no key of a rule", place, key)
		}
	}
	return r
}

// ask is one question of a table.
type ask struct {
	request Request
	at      netip.Addr
	byName  bool
	want    string
}

// monday is when a question is asked that does not say when.
var monday = time.Date(2026, 1, 5, 12, 0, 0, 0, time.UTC)

func readAsk(t *testing.T, place string, words []string) ask {
	t.Helper()
	a := ask{request: Request{
		Client: netip.MustParseAddr("10.0.0.9"), ClientPort: 50000, Protocol: "http", Method: "GET", Listener: "main",
		Target: mustTarget(words[0]), Time: monday,
	}}
	for i, w := range words[1:] {
		if w == "=>" {
			a.want = strings.Join(words[i+2:], " ")
			return a
		}
		key, value, _ := strings.Cut(w, "=")
		switch key {
		case "from":
			a.request.Client = netip.MustParseAddr(value)
		case "cport":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil {
				t.Fatalf("%s: %v", place, err)
			}
			a.request.ClientPort = uint16(n)
		case "from_country":
			a.request.ClientCountry = value
		case "country":
			a.request.TargetCountry = value
		case "user":
			a.request.Identity = value
		case "groups":
			a.request.Groups = strings.Split(value, ",")
		case "proto":
			a.request.Protocol = value
		case "method":
			a.request.Method = value
		case "listener":
			a.request.Listener = value
		case "require":
			a.request.RequireUser = true
		case "byname":
			a.byName = true
		case "at":
			a.at = netip.MustParseAddr(value)
		case "on":
			on, err := time.Parse(time.RFC3339, value)
			if err != nil {
				t.Fatalf("%s: %v", place, err)
			}
			a.request.Time = on
		default:
			t.Fatalf("%s: %q is no key of a question", place, key)
		}
	}
	t.Fatalf("%s: the question has no answer (=>)", place)
	return a
}

// answer asks p and puts the answer in the tables' words.
func (a *ask) answer(p *Policy) string {
	var d Decision
	switch {
	case a.byName:
		d = p.DecideName(a.request)
	case a.at.IsValid():
		d = p.DecideAddr(a.request, a.at)
	default:
		var needAddress bool
		if d, needAddress = p.Decide(a.request); needAddress {
			return "address"
		}
	}
	return inWords(d)
}

// inWords is a decision in the tables' words; what no Policy may answer is "?".
func inWords(d Decision) string {
	rule := d.Rule
	if rule == "" {
		rule = "-"
	}
	word := map[Decision]string{
		{Action: Allow, Reason: ReasonRule}:          "allow",
		{Action: Deny, Reason: ReasonRule}:           "deny",
		{Action: Deny, Reason: ReasonNoRule}:         "deny",
		{Action: Deny, Reason: ReasonGuard}:          "guard",
		{Action: Deny, Reason: ReasonNeedsUser}:      "nouser",
		{Action: Challenge, Reason: ReasonNeedsUser}: "challenge",
	}[Decision{Action: d.Action, Reason: d.Reason}]
	if word == "" || (d.Reason == ReasonNoRule) != (d.Rule == "") {
		return fmt.Sprintf("? %+v", d)
	}
	if d.Way != nil && d.Way.Upstream != "" {
		rule += " upstream=" + d.Way.Upstream
	}
	if d.Way != nil && len(d.Way.Exits) > 0 {
		rule += " exit=" + strings.Join(d.Way.Exits, ",")
	}
	return word + " " + rule
}

func mustTarget(s string) target.Target {
	if row, ok := strings.CutPrefix(s, "name:"); ok {
		return target.Name(row)
	}
	t, err := target.Parse(s)
	if err != nil {
		panic(err)
	}
	return t
}

func mustPrefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		if strings.Contains(s, "/") {
			out = append(out, netip.MustParsePrefix(s))
			continue
		}
		a := netip.MustParseAddr(s)
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

func mustPorts(list ...string) (out []PortRange) {
	for _, s := range list {
		first, last, isRange := strings.Cut(s, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil {
			panic("bad port range " + s)
		}
		out = append(out, PortRange{uint16(a), uint16(b)})
	}
	return out
}
