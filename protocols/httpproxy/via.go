package httpproxy

import (
	"bytes"
	"errors"
	"fmt"

	"polyport/internal/egress"
	"polyport/internal/http1"
	"polyport/protocols/spec"
)

// maxPasses is how often a request may have passed gateways of this kind, as its Via tells: more often than any chain that somebody
// means, and seldom enough that one which goes round in a circle ends at once.
const maxPasses = 16

// maxVia bounds the Via of a request, in octets and over all its lines: it goes on with CONNECT, in requests that we write anew.
const maxVia = 2 << 10

var errLongVia = errors.New("the Via field of the request is longer than 2 KiB")

// via is the value of a Via field for a message of that minor version (RFC 9110 section 7.6.3).
func via(minor int) string {
	if minor == 0 {
		return "1.0 " + spec.Pseudonym
	}
	return "1.1 " + spec.Pseudonym
}

// via is the member of Via that is ours, for the request.
func (c *client) via() string {
	if c.bridge != nil {
		return "2.0 " + spec.Pseudonym
	}
	return via(c.req.Minor)
}

// examineVia refuses a request that goes round in a circle of gateways, which nobody else would end, and a Via that is too long to go on.
func (c *client) examineVia() *refusal {
	passes, size := 0, 0
	for value := range c.req.Fields.Values("Via") {
		passes += passesIn(value)
		size += len(value) + len(", ")
	}
	switch {
	case passes >= maxPasses:
		return &refusal{
			status: statusBadGateway, reason: token(egress.LoopDetected),
			says: "This request goes round in a circle of proxies. Only whoever runs them can end that.",
			err:  fmt.Errorf("the request has passed %s %d times, as its Via says: gateways are each other's upstream", spec.Pseudonym, passes),
		}
	case size > maxVia+len(", "):
		r := badRequest(errLongVia)
		r.status = statusFieldsTooLarge
		return r
	}
	return nil
}

// passesIn counts the members of a line of Via that name a gateway of this kind. Every comma separates, also in a comment: a quotation mark
// or a parenthesis without its other half would hide what follows.
func passesIn(value []byte) (n int) {
	for more := true; more; {
		var member []byte
		if member, value, more = bytes.Cut(value, []byte(",")); namesUs(member) {
			n++
		}
	}
	return n
}

// namesUs reports whether the received-by of a member of Via is our pseudonym.
func namesUs(member []byte) bool {
	const space = " \t"
	member = bytes.TrimLeft(member, space)
	i := bytes.IndexAny(member, space)
	if i < 0 {
		return false
	}
	by := bytes.TrimLeft(member[i:], space)
	if end := bytes.IndexAny(by, space+"("); end >= 0 {
		by = by[:end]
	}
	return http1.EqualFold(by, spec.Pseudonym)
}

// onwardVia is the Via field for a CONNECT that is written anew for the request: its own members in their order, and ours behind them. It is
// "" where the configuration wants none, and where no upstream hears of it.
func (c *client) onwardVia(permit *egress.Permit) string {
	if c.h.anonymity == hideProxy || permit.Route().Upstream == "" {
		return ""
	}
	var b []byte
	for value := range c.req.Fields.Values("Via") {
		if len(value) > 0 {
			b = append(append(b, value...), ", "...)
		}
	}
	if b == nil {
		return c.via()
	}
	return string(append(b, c.via()...))
}
