package httpproxy

import (
	"html"
	"strconv"
	"strings"
	"time"

	"polyport/internal/http1"
)

// htmlType is the media type of pages.
const htmlType = "text/html; charset=utf-8"

// page is what an error page shows.
type page struct {
	refusal  *refusal
	id       string // the session's
	loopback bool   // the reader owns the proxy: the rule may be named
}

// answer renders the page as HTML or as text.
func (p page) answer(asHTML bool) answer {
	r := p.refusal
	a := answer{status: r.status, fields: r.fields()}
	if asHTML {
		a.contentType = htmlType
		a.body = p.html()
	} else {
		a.contentType = "text/plain; charset=utf-8"
		a.body = p.text()
	}
	return a
}

// fields are the field lines that belong to the refusal.
func (r *refusal) fields() []field {
	f := []field{{statusField, proxyStatus(r.reason, r.params...)}}
	if r.status == statusProxyAuthRequired {
		f = append(f, field{"Proxy-Authenticate", challenge})
	}
	if r.retryAfter > 0 {
		seconds := int64((r.retryAfter + time.Second - 1) / time.Second)
		f = append(f, field{"Retry-After", strconv.FormatInt(seconds, 10)})
	}
	if r.allow != "" {
		f = append(f, field{"Allow", r.allow})
	}
	return f
}

// lines are the paragraphs of the page and, apart, the rule that would admit the request.
func (p page) lines() (lines []string, rule string) {
	r := p.refusal
	lines = append(lines, r.says)
	if r.egress != nil && r.egress.Target.IsValid() {
		lines = append(lines, "Target: "+r.egress.Target.String())
	}
	if p.loopback && r.egress != nil {
		if rule = ruleFor(r.egress); rule != "" {
			lines = append(lines, "You run this proxy yourself. In its configuration, "+
				"in front of the rules that refuse, this rule admits the request:")
		}
	}
	return lines, rule
}

// whom says whom to ask.
func (p page) whom() string {
	return printable("If this is not what you expected, ask whoever runs this proxy and give this session id: " + p.id)
}

func (p page) text() []byte {
	lines, rule := p.lines()
	var b strings.Builder
	b.WriteString(strconv.Itoa(p.refusal.status) + " " + http1.StatusText(p.refusal.status) + " (polyport)\n\n")
	for _, l := range lines {
		b.WriteString(printable(l) + "\n")
	}
	if rule != "" {
		b.WriteString("\n" + rule + "\n")
	}
	b.WriteString(p.whom() + "\n")
	return []byte(b.String())
}

// pageHead begins every error page. It has no style sheet of its own: the browser's
// follows the reader's choice of light or dark.
const pageHead = `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">` +
	`<meta name="color-scheme" content="light dark">`

func (p page) html() []byte {
	lines, rule := p.lines()
	title := strconv.Itoa(p.refusal.status) + " " + http1.StatusText(p.refusal.status)
	var b strings.Builder
	b.WriteString(pageHead + "<title>" + title + "</title></head>\n<body>\n<h1>" + title + "</h1>\n")
	for _, l := range lines {
		b.WriteString("<p>" + html.EscapeString(printable(l)) + "</p>\n")
	}
	if rule != "" {
		b.WriteString("<pre>" + html.EscapeString(rule) + "</pre>\n")
	}
	b.WriteString("<p>" + html.EscapeString(p.whom()) + "</p>\n</body>\n</html>\n")
	return []byte(b.String())
}

// printable replaces what could move a terminal's cursor or hide text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		control := r < ' ' || r >= 0x7f && r < 0xa0
		direction := r == '\u061c' || r >= '\u200b' && r <= '\u200f' || r >= '\u2028' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
		if control || direction {
			return '?'
		}
		return r
	}, s)
}
