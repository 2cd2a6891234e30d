package acme

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"go.uber.org/zap/zapcore"
)

// logged are the fields that certmagic and acmez may write; others, such as
// headers, nonces and whatever a later version adds, are dropped.
var logged = map[string]bool{
	"identifier": true, "identifiers": true, "subject": true, "subjects": true, "issuer": true, "challenge_type": true,
	"error": true, "problem": true, "attempt": true, "max_attempts": true, "retrying_in": true, "elapsed": true,
	"remaining": true, "expiration": true, "count": true,
}

// said are messages about a failure that a second one tells again, with what happens next.
var said = map[string]bool{"could not get certificate from issuer": true}

// zapCore implements zapcore.Core, certmagic's log, on slog. Its steps, which
// it calls information, are of interest to who debugs; and nothing of it is
// worse than a warning, since certificates go on being served.
type zapCore struct{ to *slog.Logger }

func levelOf(e zapcore.Entry) slog.Level {
	if e.Level >= zapcore.WarnLevel && !said[e.Message] {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled implements zapcore.Core.
func (c zapCore) Enabled(l zapcore.Level) bool {
	return c.to.Enabled(context.Background(), levelOf(zapcore.Entry{Level: l}))
}

// With implements zapcore.Core.
func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	var args []any
	for _, a := range attrs(fields) {
		args = append(args, a)
	}
	return zapCore{c.to.With(args...)}
}

// Check implements zapcore.Core.
func (c zapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements zapcore.Core.
func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.to.LogAttrs(context.Background(), levelOf(e), "acme: "+e.Message, attrs(fields)...)
	return nil
}

// Sync implements zapcore.Core.
func (zapCore) Sync() error { return nil }

// attrs returns the fields that may be logged, in the order of their keys.
func attrs(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		if logged[f.Key] {
			f.AddTo(enc)
		}
	}
	var out []slog.Attr
	for _, key := range slices.Sorted(maps.Keys(enc.Fields)) {
		if logged[key] {
			out = append(out, slog.Any(slogKey(key), enc.Fields[key]))
		}
	}
	return out
}

// slogKey is this house's name of a field.
func slogKey(key string) string {
	if key == "error" {
		return "err"
	}
	return key
}

// quiet passes on what acmez logs as of interest to who debugs: the failures
// among it come back as errors.
type quiet struct{ slog.Handler }

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, slog.LevelDebug, "acme: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if logged[a.Key] {
			out.AddAttrs(slog.Attr{Key: slogKey(a.Key), Value: a.Value})
		}
		return true
	})
	return q.Handler.Handle(ctx, out)
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(as []slog.Attr) slog.Handler {
	as = slices.DeleteFunc(slices.Clone(as), func(a slog.Attr) bool { return !logged[a.Key] })
	return quiet{q.Handler.WithAttrs(as)}
}

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(string) slog.Handler { return q }
