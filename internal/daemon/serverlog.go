package daemon

import (
	"context"
	"log/slog"
	"sync"

	"polyport/internal/pool"
)

// serverLog logs when servers go and come back. Whoever tells it waits for nothing: pools tell with their lock held, and on event loops.
type serverLog struct {
	log *slog.Logger

	mu      sync.Mutex
	pending []serverEvent
	lost    int
	running bool // a goroutine writes what is pending
}

type serverEvent struct {
	place string
	pool.Event
}

// maxPendingEvents bounds what waits for a log that cannot be written.
const maxPendingEvents = 1024

// tell takes an event of the pool that stands at a place of the configuration.
func (l *serverLog) tell(place string, e pool.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) >= maxPendingEvents {
		l.lost++
		return
	}
	l.pending = append(l.pending, serverEvent{place, e})
	if !l.running {
		l.running = true
		go l.write()
	}
}

// write writes what is pending, and ends when nothing is.
func (l *serverLog) write() {
	for {
		l.mu.Lock()
		events, lost := l.pending, l.lost
		l.pending, l.lost = nil, 0
		l.running = len(events) > 0
		l.mu.Unlock()
		if len(events) == 0 {
			return
		}
		for i := range events {
			events[i].write(l.log)
		}
		if lost > 0 {
			l.log.Warn("servers have changed their states faster than it could be logged", slog.Int("lost", lost))
		}
	}
}

func (e *serverEvent) write(log *slog.Logger) {
	level := slog.LevelInfo
	attrs := []slog.Attr{slog.String("pool", e.place), slog.String("server", e.Server), slog.String("state", e.To.String())}
	if e.Err != nil {
		level = slog.LevelWarn
		attrs = append(attrs, slog.String("err", e.Err.Error()))
	}
	if !e.Until.IsZero() {
		attrs = append(attrs, slog.Time("until", e.Until))
	}
	log.LogAttrs(context.Background(), level, "a server has changed its state", attrs...)
}
