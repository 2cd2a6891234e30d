package auth

import (
	"context"
	"sync/atomic"
)

// queue bounds the hashes that are computed at once, and those that wait to be.
type queue struct {
	slots   chan struct{} // one for each hash that is computed
	most    int64         // waiting
	waiting atomic.Int64
}

// newQueue makes a queue for so many hashes at once, with so many places to
// wait for each.
func newQueue(atOnce, places int) *queue {
	return &queue{slots: make(chan struct{}, atOnce), most: int64(atOnce * places)}
}

// enter waits for a turn. The error is ErrBusy or the context's. After a nil
// error the caller must leave.
func (q *queue) enter(ctx context.Context) error {
	select {
	case q.slots <- struct{}{}:
		return nil
	default:
	}
	defer q.waiting.Add(-1)
	if q.waiting.Add(1) > q.most {
		return ErrBusy
	}
	select {
	case q.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *queue) leave() { <-q.slots }
