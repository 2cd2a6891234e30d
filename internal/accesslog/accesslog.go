// Package accesslog writes one line for each session that has ended, refused
// ones included: as JSON, as readable text, in Apache's common log format, or
// in Squid's native one. It never blocks a session and never trusts a field: no
// line break, control character or terminal escape of a client's comes through.
package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"polyport/internal/session"
)

// Format is the form of a line.
type Format string

// The formats.
const (
	JSON   Format = "json"   // one object with constant keys; empty ones are left out
	Text   Format = "text"   // for a person at a terminal
	Common Format = "common" // Apache's common log format
	Squid  Format = "squid"  // Squid's native format
	Off    Format = "off"    // no lines
)

// formats finds the encoder of a format: it appends a line to b. A nil one writes nothing.
var formats = map[Format]func(b []byte, r *session.Record, redact bool) []byte{
	"": appendJSON, JSON: appendJSON, Text: appendText, Common: appendCommon, Squid: appendSquid, Off: nil,
}

// Options configures a Log.
type Options struct {
	// Format is one of the constants; "" is JSON.
	Format Format
	// Path is a file that lines are appended to; it is made (mode 0640) if
	// there is none. "" writes to Writer.
	Path string
	// Writer gets the lines when Path is "". The Log does not close it.
	Writer io.Writer
	// RedactQuery leaves the query of URLs out.
	RedactQuery bool
	// Log hears when lines cannot be written. Nil is slog.Default().
	Log *slog.Logger
}

const (
	// maxPending bounds the lines that wait to be written, in bytes. Beyond it
	// lines are counted and dropped: a full disk must not stop the gateway.
	maxPending = 4 << 20
	// batch is how many bytes of a file's lines are written at once, at the
	// latest after batchTime.
	batch     = 128 << 10
	batchTime = 200 * time.Millisecond
	// maxSpare bounds the memory that is kept for lines to come, in bytes.
	maxSpare = 2 * batch
	// closeTime is how long Close waits for a writer that takes no lines.
	closeTime = 5 * time.Second
)

// Log writes lines. It is a session.Observer; its methods are safe for
// concurrent use.
type Log struct {
	log  *slog.Logger
	form atomic.Pointer[form] // changed with mu held

	mu      sync.Mutex // held for moments: whoever waits for it is a session
	pending pending
	spare   []byte // what the lines after the next flush go into
	closed  bool
	wake    chan struct{} // something is pending
	full    chan struct{} // a batch is pending
	done    chan struct{} // closed when the writer has ended

	writing sync.Mutex // held while out is written or replaced
	out     io.Writer
	file    *os.File // out, when it is a file of ours
	broken  bool     // the last write failed
	torn    bool     // what was written last ends within a line, as on a disk that has run full
	lost    uint64   // lines since then
}

// form is what decides how lines look and where they go.
type form struct {
	Options
	append func([]byte, *session.Record, bool) []byte // nil writes nothing
}

// draft is a line that is being made.
type draft struct {
	record session.Record
	line   []byte
}

var drafts = sync.Pool{New: func() any { return new(draft) }}

var _ session.Observer = (*Log)(nil)

// New opens the log and starts its writer. Close ends it.
func New(o Options) (*Log, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	l := &Log{log: o.Log, wake: make(chan struct{}, 1), full: make(chan struct{}, 1), done: make(chan struct{})}
	if err := l.Reconfigure(o); err != nil {
		return nil, err
	}
	go l.write()
	return l, nil
}

// Reconfigure changes format and destination for lines that come from now on.
// With an error nothing has changed.
func (l *Log) Reconfigure(o Options) error {
	appendLine, ok := formats[o.Format]
	if !ok {
		return fmt.Errorf("open the access log: there is no format %q", o.Format)
	}
	out, file, err := open(o)
	if err != nil {
		return err
	}
	l.writing.Lock()
	l.mu.Lock()
	l.form.Store(&form{o, appendLine})
	left := l.takePending()
	l.mu.Unlock()
	l.writeLines(left) // in the old form, which belongs to the old place
	old := l.file
	l.out, l.file, l.broken, l.torn = out, file, false, false
	l.writing.Unlock()
	if old != nil {
		return old.Close()
	}
	return nil
}

// open opens what o says.
func open(o Options) (io.Writer, *os.File, error) {
	if o.Path == "" || o.Format == Off {
		return o.Writer, nil, nil
	}
	f, err := os.OpenFile(o.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, nil, fmt.Errorf("open the access log: %w", err)
	}
	return f, f, nil
}

// Reopen opens the file again, after somebody has moved it away.
func (l *Log) Reopen() error {
	o := l.form.Load().Options
	if o.Path == "" {
		return nil
	}
	return l.Reconfigure(o)
}

// SessionStarted implements session.Observer. A session is written when it has ended.
func (l *Log) SessionStarted(session.Record) {}

// SessionEnded implements session.Observer. It writes nothing itself.
func (l *Log) SessionEnded(r session.Record) {
	d := drafts.Get().(*draft)
	defer drafts.Put(d)
	d.record = r // the parameter itself would move to the heap
	for f := l.form.Load(); f.append != nil; {
		d.line = f.append(d.line[:0], &d.record, f.RedactQuery)
		now := l.add(d.line, f)
		if now == f {
			return
		}
		f = now
	}
}

// add adds a line of the form f to what is pending, unless the form is another by now, which it
// returns.
func (l *Log) add(line []byte, f *form) *form {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.form.Load(); now != f {
		return now
	}
	p := &l.pending
	switch was := len(p.text); {
	case l.closed:
		return f
	case was >= maxPending:
		p.dropped++
		return f
	case was == 0:
		signal(l.wake)
	}
	p.text = append(p.text, line...)
	p.lines++
	if len(p.text) >= batch {
		signal(l.full)
	}
	return f
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has not been heard yet
	}
}

// write is the one writer. Lines for a file wait a little for company; what a
// person may be looking at is written at once.
func (l *Log) write() {
	defer close(l.done)
	for range l.wake {
		if l.gathers() {
			t := time.NewTimer(batchTime)
			select {
			case <-t.C:
			case <-l.full:
				t.Stop()
			}
		}
		l.flush()
		if l.isClosed() {
			return
		}
	}
}

// gathers reports whether lines are to wait for others.
func (l *Log) gathers() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.form.Load().Path != "" && !l.closed && len(l.pending.text) < batch
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// flush writes what is pending.
func (l *Log) flush() {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	p := l.takePending()
	l.mu.Unlock()
	l.writeLines(p)
}

// pending are lines that are on their way.
type pending struct {
	text    []byte
	lines   int
	dropped uint64 // since the last report
}

// takePending takes what is pending. l.mu is held.
func (l *Log) takePending() pending {
	p := l.pending
	l.pending, l.spare = pending{text: l.spare[:0]}, nil
	return p
}

// writeLines writes whole lines in one write. l.writing is held.
func (l *Log) writeLines(p pending) {
	defer l.keep(p.text)
	b, lines := p.text, p.lines
	if p.dropped > 0 {
		l.log.Error("the access log is slower than the sessions; lines were dropped", slog.Uint64("lines", p.dropped))
	}
	if len(b) == 0 || l.out == nil {
		return
	}
	if l.torn && l.mend() != nil {
		l.lost += uint64(lines)
		return
	}
	if n, err := l.out.Write(b); err != nil {
		l.torn = n > 0 && b[n-1] != '\n'
		l.failed(lines-bytes.Count(b[:n], []byte{'\n'}), err)
		return
	}
	if l.broken {
		l.broken = false
		l.log.Info("the access log is written again", slog.Uint64("lines_lost", l.lost))
		l.lost = 0
	}
}

// mend ends the line that a failed write has left half written, so that the
// next one begins on its own. l.writing is held.
func (l *Log) mend() error {
	_, err := l.out.Write([]byte{'\n'})
	l.torn = err != nil
	return err
}

// keep keeps the memory of lines that were written for lines to come, unless it is
// what a flood has left behind.
func (l *Log) keep(b []byte) {
	if cap(b) <= maxSpare {
		l.mu.Lock()
		l.spare = b
		l.mu.Unlock()
	}
}

// failed counts lines that could not be written, and says so once until it
// works again. l.writing is held.
func (l *Log) failed(lines int, err error) {
	l.lost += uint64(lines)
	if !l.broken {
		l.broken = true
		l.log.Error("the access log cannot be written; lines are lost until it can. Is the disk full?", slog.String("err", err.Error()))
	}
}

// Close writes what is pending and closes the file; lines that come later are
// dropped. If the writer takes no lines for 5 s, Close gives up with an error.
func (l *Log) Close() error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.mu.Unlock()
	if again {
		return nil
	}
	signal(l.wake)
	signal(l.full)
	late := time.NewTimer(closeTime)
	defer late.Stop()
	select {
	case <-l.done:
	case <-late.C:
		return fmt.Errorf("close the access log: it took no lines for %v", closeTime)
	}
	l.flush()
	l.writing.Lock()
	defer l.writing.Unlock()
	var errs []error
	if l.file != nil {
		errs = append(errs, l.file.Close())
		l.file, l.out = nil, nil
	}
	if l.lost > 0 {
		errs = append(errs, fmt.Errorf("%d lines of the access log were lost", l.lost))
	}
	return errors.Join(errs...)
}
