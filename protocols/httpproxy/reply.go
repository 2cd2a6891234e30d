package httpproxy

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"polyport/internal/http1"
)

// maxSkipped bounds the request body that is read and thrown away so that the
// connection can go on after an answer of our own.
const maxSkipped = 64 << 10

// now is time.Now; answers and bans are the only things that look at it here.
func now() time.Time { return time.Now() }

// refuse answers with an error page.
func (c *client) refuse(r *refusal) (outcome, error) {
	c.s.SetReason(string(r.reason))
	p := page{refusal: r, id: c.s.ID(), loopback: c.s.Loopback()}
	a := p.answer(c.t.html || acceptsHTML(&c.req.Fields))
	out, err := c.answer(&a, r.closes)
	if err != nil {
		return ends, fmt.Errorf("%w; and then: %w", r, err)
	}
	return out, r
}

// acceptsHTML reports whether a client names HTML among what it accepts, as browsers do.
func acceptsHTML(f *http1.Fields) bool {
	return bytes.Contains(bytes.ToLower(f.Get("Accept")), []byte("text/html"))
}

// reply answers with a page that is no refusal.
func (c *client) reply(a *answer) (outcome, error) {
	a.fields = append(a.fields, field{statusField, ourName})
	return c.answer(a, false)
}

// answer writes an answer of our own. The connection goes on where both sides want
// it and the body of the request can be skipped.
func (c *client) answer(a *answer, closes bool) (outcome, error) {
	keep := !closes && c.skipBody()
	c.s.SetStatus(a.status)
	c.wr.each(c.s.Timeouts().Handshake)
	if err := c.write(a, keep); err != nil {
		return ends, fmt.Errorf("write the answer: %w", err)
	}
	if keep {
		return goesOn, nil
	}
	return ends, nil
}

// skipBody makes the connection ready for the next request if it can be: the
// client and we want it to go on, and what is left of the body is short. A client that
// waits for 100 (Continue) may send its body or not, so that cannot go on.
func (c *client) skipBody() bool {
	if c.bridge != nil {
		c.skipStream()
		return false
	}
	if c.req.Close || c.s.Draining() {
		return false
	}
	wait, _ := c.req.ExpectContinue()
	f := c.req.Framing
	switch {
	case f.Empty():
		return true
	case wait || f.Length > maxSkipped:
		return false
	}
	return c.r.Discard(maxSkipped) == nil
}

// skipStream waits a moment for the end of the request: a short upload then ends well, in place of being reset behind the
// answer, and one that breaks its word is told so and not answered (RFC 9113 section 8.1.1).
func (c *client) skipStream() {
	if wait, _ := c.req.ExpectContinue(); !wait && !c.req.Framing.Empty() {
		c.rd.total(lastByteGrace)
		_ = c.r.Discard(maxSkipped) // a stream that was reset takes no answer
	}
}

// answer is a whole response of our own.
type answer struct {
	status      int
	contentType string // "" where there is no body
	policy      string // Content-Security-Policy; "" is the strictest
	cache       string // Cache-Control; "" is no-store
	fields      []field
	body        []byte
}

type field struct{ name, value string }

// write writes an answer.
func (c *client) write(a *answer, keep bool) error {
	w := &c.w
	w.BeginResponse(a.status, "")
	w.Field("Date", now().UTC().Format(imfFixdate))
	if a.contentType != "" {
		w.Field("Content-Type", a.contentType)
		w.Field("X-Content-Type-Options", "nosniff")
		w.Field("Referrer-Policy", "no-referrer")
		w.Field("Content-Security-Policy", or(a.policy, plainPolicy))
	}
	w.Field("Cache-Control", or(a.cache, "no-store"))
	for _, f := range a.fields {
		w.Field(f.name, f.value)
	}
	if !keep {
		w.Field("Connection", "close")
	}
	f := http1.Framing{Kind: http1.Length, Length: int64(len(a.body))}
	if c.req.Method == methodHead {
		w.Field("Content-Length", strconv.Itoa(len(a.body)))
		f = http1.Framing{}
	}
	if err := w.EndHead(f); err != nil {
		return err
	}
	if f.Length > 0 {
		if _, err := w.Write(a.body); err != nil {
			return err
		}
	}
	return w.EndBody(nil)
}

// optionsAnswer says what an absolute-form request to us may be (RFC 9110 section 9.3.7).
func optionsAnswer() *answer {
	return &answer{status: statusOK, fields: []field{{"Allow", allowed}}}
}

// allowed is the Allow field of answers to OPTIONS; any other method token is
// forwarded too.
const allowed = "CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE"

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
