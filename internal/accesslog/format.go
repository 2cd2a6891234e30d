package accesslog

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"polyport/internal/session"
)

// line appends ,"key":value pairs to a JSON object. Keys come with all their punctuation.
type line struct{ b []byte }

func (l *line) str(k, v string) {
	if v != "" {
		l.b = appendJSONString(append(l.b, k...), v)
	}
}

func (l *line) num(k string, v int64) { l.b = strconv.AppendInt(append(l.b, k...), v, 10) }

func (l *line) seconds(k string, d time.Duration) { l.b = appendSeconds(append(l.b, k...), d) }

func (l *line) addr(k string, ap netip.AddrPort) {
	if ap.IsValid() {
		l.b = append(l.b, k...)
		l.b = append(l.b, '"')
		l.b = ap.AppendTo(l.b)
		l.b = append(l.b, '"')
	}
}

// second is the text of one second, up to its point.
type second struct {
	unix int64
	text string
}

// lastSecond is what was asked for last: on a busy gateway thousands of lines have the same.
var lastSecond atomic.Pointer[second]

// appendTime appends RFC 3339 with milliseconds, in UTC: it sorts as text.
func appendTime(b []byte, t time.Time) []byte {
	s := lastSecond.Load()
	if s == nil || s.unix != t.Unix() {
		s = &second{t.Unix(), t.UTC().Format("2006-01-02T15:04:05.")}
		lastSecond.Store(s)
	}
	b = append(b, s.text...)
	b = appendPadded(b, int64(t.Nanosecond())/1e6, 3, '0')
	return append(b, 'Z')
}

// appendSeconds appends d, which is not negative, in seconds to the microsecond.
func appendSeconds(b []byte, d time.Duration) []byte {
	us := d.Round(time.Microsecond).Microseconds()
	b = strconv.AppendInt(b, us/1e6, 10)
	b = append(b, '.')
	return appendPadded(b, us%1e6, 6, '0')
}

// end returns when a session ended.
func end(r *session.Record) time.Time { return r.Start.Add(r.Duration) }

// appendJSON appends one object. Its keys never change their meaning; those
// without a value are left out.
func appendJSON(b []byte, r *session.Record, redact bool) []byte {
	b = append(b, `{"time":"`...)
	b = appendTime(b, end(r))
	b = append(b, `","level":"INFO","msg":"session end","id":"`...)
	l := line{append(r.ID.AppendTo(b), '"')}
	l.str(`,"protocol":`, r.Protocol)
	l.str(`,"listener":`, r.Listener)
	l.addr(`,"client":`, r.Client)
	l.str(`,"identity":`, r.Identity)
	l.str(`,"user_id":`, r.UserID)
	l.str(`,"tls":`, r.TLS)
	l.str(`,"server_name":`, r.ServerName)
	if !r.Connection.IsZero() {
		l.b = append(r.Connection.AppendTo(append(l.b, `,"connection":"`...)), '"')
		l.num(`,"stream":`, int64(r.Stream))
	}
	l.str(`,"method":`, r.Method)
	l.str(`,"version":`, r.Version)
	l.str(`,"target":`, r.Target)
	l.str(`,"url":`, redacted(r.URL, redact))
	l.addr(`,"address":`, r.Address)
	l.str(`,"backend":`, r.Backend)
	l.str(`,"upstream":`, r.Upstream)
	l.str(`,"server":`, r.Server)
	l.str(`,"exit":`, r.Exit)
	if r.ByName {
		l.str(`,"resolved_by":`, "upstream")
	}
	l.str(`,"rule":`, r.Rule)
	l.str(`,"reason":`, r.Reason)
	if r.Status != 0 {
		l.num(`,"status":`, int64(r.Status))
	}
	l.num(`,"bytes_from_client":`, r.BytesFromClient)
	l.num(`,"bytes_from_target":`, r.BytesFromTarget)
	l.datagrams(r.Datagrams)
	if r.Setup > 0 {
		l.seconds(`,"setup_s":`, r.Setup)
	}
	l.seconds(`,"duration_s":`, r.Duration)
	if r.Err != nil {
		l.str(`,"err":`, r.Err.Error())
	}
	return append(l.b, '}', '\n')
}

// appendText appends a line for a person: who, what, how it went.
func appendText(b []byte, r *session.Record, redact bool) []byte {
	b = end(r).AppendFormat(b, "15:04:05.000 ")
	b = append(b, r.Protocol...)
	b = append(b, ' ')
	b = r.Client.AppendTo(b)
	if r.Identity != "" {
		b = append(b, " user="...)
		b = appendApache(b, r.Identity, false)
	}
	b = append(b, ' ')
	b = appendApache(b, request(r, redact), true)
	if r.Status != 0 {
		b = append(b, " status="...)
		b = strconv.AppendInt(b, int64(r.Status), 10)
	}
	b = appendWay(b, r)
	b = append(b, " bytes="...)
	b = strconv.AppendInt(b, r.BytesFromClient, 10)
	b = append(b, '/')
	b = strconv.AppendInt(b, r.BytesFromTarget, 10)
	b = appendDatagrams(b, r.Datagrams)
	b = append(b, ' ')
	b = append(b, r.Duration.Round(time.Microsecond).String()...)
	for _, f := range [...]struct{ key, value string }{{" rule=", r.Rule}, {" reason=", r.Reason}, {" err=", errText(r)}} {
		if f.value != "" {
			b = append(b, f.key...)
			b = append(b, '"')
			b = appendApache(b, f.value, true)
			b = append(b, '"')
		}
	}
	b = append(b, " id="...)
	b = r.ID.AppendTo(b)
	return append(b, '\n')
}

// appendWay appends which way it left, of what is known.
func appendWay(b []byte, r *session.Record) []byte {
	if r.Address.IsValid() {
		b = append(b, " address="...)
		b = r.Address.AppendTo(b)
	}
	resolvedBy := ""
	if r.ByName {
		resolvedBy = "upstream"
	}
	for _, f := range [...]struct{ key, value string }{
		{" backend=", r.Backend}, {" upstream=", r.Upstream}, {" server=", r.Server}, {" exit=", r.Exit}, {" resolved_by=", resolvedBy},
	} {
		if f.value != "" {
			b = append(b, f.key...)
			b = appendApache(b, f.value, false)
		}
	}
	return b
}

func errText(r *session.Record) string {
	if r.Err == nil {
		return ""
	}
	return r.Err.Error()
}

// request is a session as one request line.
func request(r *session.Record, redact bool) string {
	what := redacted(r.URL, redact)
	if what == "" {
		what = r.Target
	}
	s := r.Method
	for _, part := range []string{what, r.Version} {
		switch {
		case part == "":
		case s == "":
			s = part
		default:
			s += " " + part
		}
	}
	if s == "" {
		return "-"
	}
	return s
}

// appendCommon appends a line of the common log format: host, ident, user,
// time of the request, request line, status, bytes sent.
func appendCommon(b []byte, r *session.Record, redact bool) []byte {
	b = appendHost(b, r)
	b = append(b, " - "...)
	b = appendOrDash(b, r.Identity, func(b []byte, s string) []byte { return appendApache(b, s, false) })
	b = append(b, ' ')
	b = r.Start.AppendFormat(b, "[02/Jan/2006:15:04:05 -0700]")
	b = append(b, ' ', '"')
	b = appendApache(b, request(r, redact), true)
	b = append(b, '"', ' ')
	b = appendStatus(b, r)
	b = append(b, ' ')
	if r.BytesFromTarget == 0 {
		return append(b, '-', '\n')
	}
	b = strconv.AppendInt(b, r.BytesFromTarget, 10)
	return append(b, '\n')
}

func appendHost(b []byte, r *session.Record) []byte {
	if !r.Client.IsValid() {
		return append(b, '-')
	}
	return r.Client.Addr().AppendTo(b)
}

func appendOrDash(b []byte, s string, escape func([]byte, string) []byte) []byte {
	if s == "" {
		return append(b, '-')
	}
	return escape(b, s)
}

// appendStatus appends an HTTP status. What is no HTTP gets the one that HTTP would have got.
func appendStatus(b []byte, r *session.Record) []byte {
	return strconv.AppendInt(b, int64(httpStatus(r)), 10)
}

func httpStatus(r *session.Record) int {
	switch {
	case isHTTP(r):
		return r.Status
	case r.Setup > 0:
		return 200
	case isDenied(r):
		return 403
	}
	return 503
}

func isHTTP(r *session.Record) bool { return r.Protocol == "http" || r.Protocol == "connect" }

// isDenied reports whether policy or authentication refused the session.
func isDenied(r *session.Record) bool {
	switch r.Reason {
	case "rule", "no_rule", "guard", "needs_user", "bad_credentials", "locked_out", "bad_user_parameters":
		return r.Setup == 0
	}
	return r.Status == 407
}

// appendSquid appends a line of Squid's native format: end time, elapsed milliseconds,
// client, result/status, bytes, method, URL, user, hierarchy/peer, content type.
func appendSquid(b []byte, r *session.Record, redact bool) []byte {
	ms := end(r).UnixMilli()
	b = strconv.AppendInt(b, ms/1000, 10)
	b = append(b, '.')
	b = appendPadded(b, ms%1000, 3, '0')
	b = append(b, ' ')
	b = appendPadded(b, r.Duration.Milliseconds(), 6, ' ')
	b = append(b, ' ')
	b = appendHost(b, r)
	b = append(b, ' ')
	b = append(b, squidResult(r)...)
	b = append(b, '/')
	b = appendPadded(b, int64(httpStatus(r)), 3, '0')
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.BytesFromTarget, 10)
	b = append(b, ' ')
	method, url := r.Method, redacted(r.URL, redact)
	if url == "" {
		url = r.Target
	}
	if method == "" && url != "" {
		method = "CONNECT" // a tunnel by any other name
	}
	b = appendOrDash(b, method, appendPercent)
	b = append(b, ' ')
	b = appendOrDash(b, url, appendPercent)
	b = append(b, ' ')
	b = appendOrDash(b, r.Identity, appendPercent)
	switch {
	case r.Upstream != "" && r.Server != "":
		b = append(b, " FIRSTUP_PARENT/"...)
		b = append(b, host(r.Server)...)
	case r.Address.IsValid():
		b = append(b, " HIER_DIRECT/"...)
		b = r.Address.Addr().AppendTo(b)
	default:
		b = append(b, " HIER_NONE/-"...)
	}
	return append(b, " -\n"...)
}

// host is the host of a proxy such as "socks5://192.0.2.1:1080".
func host(server string) string {
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	if h, _, err := net.SplitHostPort(server); err == nil {
		return h
	}
	return server
}

// squidResult names the outcome in Squid's words.
func squidResult(r *session.Record) string {
	switch {
	case isDenied(r):
		return "TCP_DENIED"
	case r.Target == "":
		return "NONE_NONE"
	case r.Protocol != "http":
		return aborted(r, "TCP_TUNNEL", "TCP_TUNNEL_ABORTED")
	}
	return aborted(r, "TCP_MISS", "TCP_MISS_ABORTED")
}

func aborted(r *session.Record, whole, cut string) string {
	if r.Err != nil && r.Setup > 0 {
		return cut
	}
	return whole
}

// appendPadded appends n, filled up to a width.
func appendPadded(b []byte, n int64, width int, fill byte) []byte {
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], n, 10)
	for i := len(d); i < width; i++ {
		b = append(b, fill)
	}
	return append(b, d...)
}
