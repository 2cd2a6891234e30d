package httpproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"polyport/internal/http1"
)

// splices bounds the copies inside the kernel. Each holds a pipe, two descriptors
// and up to 1 MiB, for as long as a slow peer likes; those beyond are copied here, which
// holds little.
var splices = make(chan struct{}, 256)

// splice copies n bytes from one bare TCP connection to another inside the
// kernel, where the system can. A wait of more than idle for either side ends it;
// idle is the clock's of the reading side. moved, when not nil, is told of progress about once a second.
// It returns early and without an error at the end of what there is to read. An
// error of the writing side is an *http1.WriteError.
//
// It declines, with (0, nil), when too many others are under way.
//
// A read deadline that fires loses no byte, so it is what ticks. A write deadline may lose some, so
// it lies behind all ticks and nothing is tried again once it has fired.
func splice(dst *stream, to *net.TCPConn, src *stream, from *net.TCPConn, n int64, moved func(int64)) (int64, error) {
	select {
	case splices <- struct{}{}:
		defer func() { <-splices }()
	default:
		return 0, nil
	}
	rest := io.LimitedReader{R: from}
	var total int64
	last := time.Now() // when a byte moved, at the latest
	tick := last.Add(firstWatch)
	for total < n {
		writeUntil, err := setSpliceDeadlines(dst, src, last, tick)
		if err != nil {
			return total, err
		}
		rest.N = n - total
		m, err := to.ReadFrom(&rest)
		total += m
		now := time.Now()
		if m > 0 {
			last = now
			if moved != nil {
				moved(m)
			}
		}
		switch {
		case err == nil && rest.N > 0:
			return total, nil // the end of the stream
		case err == nil:
			continue
		case errors.Is(err, syscall.EPIPE), !writeUntil.IsZero() && !now.Before(writeUntil):
			return total, &http1.WriteError{Err: err}
		case !errors.Is(err, os.ErrDeadlineExceeded), src.rd.stopped.Load(), src.rd.idle > 0 && now.Sub(last) >= src.rd.idle:
			return total, err
		}
		tick = now.Add(firstWatch)
		if src.watcher != nil {
			if tick, err = src.watcher.watch(now); err != nil {
				return total, err
			}
		}
	}
	return total, nil
}

// setSpliceDeadlines lets the reading side fire at tick, or once it has been idle for too
// long since last; and the writing side that long after, which it returns (zero: never).
func setSpliceDeadlines(dst, src *stream, last, tick time.Time) (writeUntil time.Time, err error) {
	readUntil := tick
	if idle := src.rd.idle; idle > 0 {
		if end := last.Add(idle); end.Before(readUntil) {
			readUntil = end
		}
		writeUntil = readUntil.Add(idle)
	}
	dst.wr.armed = writeUntil
	if err := dst.conn.SetWriteDeadline(writeUntil); err != nil {
		return writeUntil, &http1.WriteError{Err: err}
	}
	src.rd.armed = time.Time{} // so that arm sets it
	src.rd.due = false
	src.rd.until = readUntil
	return writeUntil, src.rd.arm(src.conn.SetReadDeadline, time.Time{})
}
