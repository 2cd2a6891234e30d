package relay

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// duplex is an end of two pipes, one for each direction, so that it can be
// half-closed as a TCP connection can. Time may be faked around it.
type duplex struct {
	net.Conn // what it reads
	out      net.Conn
	broken   atomic.Pointer[error] // what Read says instead of end of file
	lingered atomic.Int64          // when SetLinger was called, Unix nanoseconds
}

func newDuplex() (a, b *duplex) {
	r1, w1 := net.Pipe()
	r2, w2 := net.Pipe()
	return &duplex{Conn: r1, out: w2}, &duplex{Conn: r2, out: w1}
}

func (d *duplex) Write(b []byte) (int, error) { return d.out.Write(b) }
func (d *duplex) CloseWrite() error           { return d.out.Close() }
func (d *duplex) Close() error                { return errors.Join(d.out.Close(), d.Conn.Close()) }

func (d *duplex) Read(b []byte) (int, error) {
	n, err := d.Conn.Read(b)
	if broken := d.broken.Load(); err == io.EOF && broken != nil {
		err = *broken
	}
	return n, err
}

func (d *duplex) SetDeadline(t time.Time) error {
	return errors.Join(d.Conn.SetDeadline(t), d.out.SetDeadline(t))
}
func (d *duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }

func (d *duplex) SetLinger(int) error {
	d.lingered.Store(time.Now().UnixNano())
	return nil
}

// bubble is a tunnel between two programs under a clock of its own.
type bubble struct {
	*testing.T
	tunnel         *Tunnel
	client, target *duplex // the programs' ends
	near, far      *duplex // the tunnel's ends
	ends           chan bubbleEnd
}

type bubbleEnd struct {
	Result
	at time.Time
}

// ended waits for the end of the tunnel.
func (b *bubble) ended() bubbleEnd { return <-b.ends }

// inBubble starts the tunnel and plays with it.
func inBubble(t *testing.T, o Options, play func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{T: t, ends: make(chan bubbleEnd, 1)}
		b.near, b.client = newDuplex()
		b.far, b.target = newDuplex()
		b.tunnel = New(b.near, b.far, o)
		go b.tunnel.Start(func(r Result) { b.ends <- bubbleEnd{r, time.Now()} })
		play(b)
		b.client.Close()
		b.target.Close()
	})
}

func TestIdleIsExact(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  time.Duration
		want time.Duration
	}{
		{"default", 0, 2*time.Hour + 4*time.Minute},
		{"short", 50 * time.Millisecond, 50 * time.Millisecond},
		{"a day", 24 * time.Hour, 24 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, Options{IdleTimeout: tt.set}, func(b *bubble) {
				for range 5 {
					time.Sleep(tt.want * 9 / 10)
					mustWrite(b, b.client, []byte("x"))
					mustRead(b, b.target, []byte("x"))
					time.Sleep(tt.want * 9 / 10)
					mustWrite(b, b.target, []byte("y"))
					mustRead(b, b.client, []byte("y"))
				}
				last := time.Now()
				r := b.ended()
				if r.End != EndIdle || r.BytesFromClient != 5 || r.BytesFromTarget != 5 {
					b.Errorf("result = %+v, want idle after 5 bytes each way", r)
				}
				if got := r.at.Sub(last); got != tt.want {
					b.Errorf("idle after %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestHalfClosedIsIdleOnlyByTheClock(t *testing.T) {
	inBubble(t, Options{IdleTimeout: time.Hour}, func(b *bubble) {
		b.client.CloseWrite()
		mustEnd(b, b.target, io.EOF)
		time.Sleep(59 * time.Minute)
		mustWrite(b, b.target, []byte("the long answer"))
		mustRead(b, b.client, []byte("the long answer"))
		time.Sleep(59 * time.Minute)
		b.target.CloseWrite()
		mustEnd(b, b.client, io.EOF)
		if r := b.ended(); r.Result != (Result{0, 15, EndEOF, nil}) {
			b.Errorf("result = %+v, want the end of file", r)
		}
	})
}

func TestLifetimeIsExact(t *testing.T) {
	inBubble(t, Options{Lifetime: 10 * time.Hour}, func(b *bubble) {
		begun := time.Now()
		for range 9 {
			time.Sleep(time.Hour)
			mustWrite(b, b.client, []byte("x"))
			mustRead(b, b.target, []byte("x"))
		}
		if r := b.ended(); r.End != EndLifetime || r.at.Sub(begun) != 10*time.Hour {
			b.Errorf("end %d after %v, want the end of its life after 10 h", r.End, r.at.Sub(begun))
		}
	})
}

// TestNever: negative limits are none.
func TestNever(t *testing.T) {
	inBubble(t, Options{IdleTimeout: -1, Lifetime: -1}, func(b *bubble) {
		time.Sleep(10 * 365 * 24 * time.Hour)
		mustWrite(b, b.client, []byte("still here"))
		mustRead(b, b.target, []byte("still here"))
		b.tunnel.Close()
		if r := b.ended(); r.End != EndClosed || r.BytesFromClient != 10 {
			b.Errorf("result = %+v, want closed after 10 bytes", r)
		}
	})
}

// TestResetIsHeldBack: where nobody can look at the send queue the other side gets a
// moment to be sent what was delivered, before the reset throws it away.
func TestResetIsHeldBack(t *testing.T) {
	for _, tt := range []struct {
		name string
		send string
		want time.Duration
	}{{"after bytes", "last words", drainUnknown}, {"after none", "", 0}} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, Options{}, func(b *bubble) {
				if tt.send != "" {
					mustWrite(b, b.target, []byte(tt.send))
					mustRead(b, b.client, []byte(tt.send))
				}
				aborted := error(syscall.ECONNRESET)
				b.far.broken.Store(&aborted)
				began := time.Now()
				b.target.CloseWrite()
				r := b.ended()
				if r.End != EndReset || !errors.Is(r.Err, syscall.ECONNRESET) || r.BytesFromTarget != int64(len(tt.send)) {
					b.Errorf("result = %+v, want a reset after %d bytes", r, len(tt.send))
				}
				if got := r.at.Sub(began); got < tt.want || got > 2*tt.want {
					b.Errorf("held back for %v, want about %v", got, tt.want)
				}
				if b.near.lingered.Load() == 0 {
					b.Error("the client was closed, not reset")
				}
			})
		})
	}
}

// TestCloseDoesNotWait: Close ends a tunnel that holds a reset back.
func TestCloseDoesNotWait(t *testing.T) {
	inBubble(t, Options{}, func(b *bubble) {
		mustWrite(b, b.target, []byte("last words"))
		mustRead(b, b.client, []byte("last words"))
		aborted := error(syscall.ECONNRESET)
		b.far.broken.Store(&aborted)
		began := time.Now()
		b.target.CloseWrite()
		synctest.Wait()
		b.tunnel.Close()
		if r := b.ended(); r.End != EndReset || r.at != began {
			b.Errorf("end %d after %v, want the reset at once", r.End, r.at.Sub(began))
		}
	})
}

// TestOtherErrors: what is neither an end of file nor a reset is reported as it is.
func TestOtherErrors(t *testing.T) {
	inBubble(t, Options{}, func(b *bubble) {
		bad := errors.New("bad record")
		b.near.broken.Store(&bad)
		b.client.CloseWrite()
		r := b.ended()
		if r.End != EndError || !errors.Is(r.Err, bad) || r.Err.Error() != "read from the client: bad record" {
			b.Errorf("result = %+v, want the error", r)
		}
		if b.far.lingered.Load() == 0 {
			b.Error("the target was closed, not reset: it takes the stream for whole")
		}
	})
}
