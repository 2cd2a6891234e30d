package upstream

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestTunnelReadDeadline has read deadlines pass while the target is silent: no byte is lost.
func TestTunnelReadDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, func(w http.ResponseWriter, r *http.Request) {
			target := accept(w, r)
			for range 5 {
				time.Sleep(time.Second)
				_, _ = io.WriteString(target, "0123456789")
			}
		})
		c := mustOpen(t, p, l.dial)
		defer c.Close()
		var got []byte
		timeouts, b := 0, make([]byte, 3)
		for {
			_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := c.Read(b)
			got = append(got, b[:n]...)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				timeouts++
			} else if err != nil {
				if err != io.EOF {
					t.Errorf("Read: %v", err)
				}
				break
			}
		}
		if want := bytes.Repeat([]byte("0123456789"), 5); !bytes.Equal(got, want) || timeouts < 10 {
			t.Errorf("read %q in spite of %d timeouts, want %q", got, timeouts, want)
		}
	})
}

// TestTunnelWriteDeadline has write deadlines pass while the target reads nothing: each Write says how much it has taken, and
// exactly that arrives.
func TestTunnelWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read, sum := make(chan struct{}), make(chan [32]byte, 1)
		p, l := h2Served(t, 0, func(w http.ResponseWriter, r *http.Request) {
			target := accept(w, r)
			<-read
			h := sha256.New()
			if _, err := io.Copy(h, target); err != nil {
				t.Errorf("the target reads: %v", err)
			}
			sum <- [32]byte(h.Sum(nil))
		})
		c := mustOpen(t, p, l.dial)
		defer c.Close()
		data := bytes.Repeat([]byte("0123456789abcdefg"), 1<<18)
		rest, timeouts := data, 0
		for len(rest) > 0 {
			if timeouts == 3 {
				close(read)
			}
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			n, err := c.Write(rest)
			rest = rest[n:]
			if errors.Is(err, os.ErrDeadlineExceeded) {
				timeouts++
			} else if err != nil {
				t.Fatalf("Write: %v", err)
			}
		}
		if err := c.(*tunnel).CloseWrite(); err != nil || timeouts != 3 {
			t.Errorf("CloseWrite: %v, after %d timeouts", err, timeouts)
		}
		if got := <-sum; got != sha256.Sum256(data) {
			t.Error("what arrived is not what was written")
		}
	})
}

// TestTunnelBackpressure has nobody read the tunnel: the target can send no more than the window.
func TestTunnelBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrote atomic.Int64
		p, l := h2Served(t, 0, func(w http.ResponseWriter, r *http.Request) {
			target, b := accept(w, r), make([]byte, 16<<10)
			for {
				n, err := target.Write(b)
				if err != nil {
					return
				}
				wrote.Add(int64(n))
			}
		})
		c := mustOpen(t, p, l.dial)
		synctest.Wait()
		if got := wrote.Load(); got > h2StreamWindow+128<<10 || got < h2StreamWindow/2 {
			t.Errorf("the target could send %d bytes, the window is %d", got, h2StreamWindow)
		}
		other := mustOpen(t, p, l.dial)
		if _, err := io.ReadFull(other, make([]byte, 3*h2StreamWindow)); err != nil {
			t.Errorf("another tunnel is held up: %v", err)
		}
		if got := l.dials.Load(); got != 1 {
			t.Errorf("%d connections were dialled, want 1", got)
		}
		other.Close()
		c.Close()
	})
}

// TestTunnelEnds tells how each way to end a tunnel looks on the other side.
func TestTunnelEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		client func(t *testing.T, c *tunnel)
		want   error // of the target's read; nil: the end of the stream
	}{
		{"closed in the middle", func(_ *testing.T, c *tunnel) { c.Close() }, errReset},
		{"closed after a half-close", func(_ *testing.T, c *tunnel) {
			_ = c.CloseWrite()
			synctest.Wait()
			c.Close()
		}, nil},
		{"both ends", func(t *testing.T, c *tunnel) {
			if _, err := io.WriteString(c, "end"); err != nil {
				t.Errorf("Write: %v", err)
			}
			if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
				t.Errorf("Read = %q, %v", b, err)
			}
			_ = c.CloseWrite()
			c.Close()
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				heard := make(chan error, 1)
				p, l := h2Served(t, 0, func(w http.ResponseWriter, r *http.Request) {
					target := accept(w, r)
					b := make([]byte, 3)
					n, err := io.ReadFull(target, b)
					if n == 3 {
						_, _ = io.WriteString(target, "bye")
						return
					}
					if err == io.EOF {
						err = nil
					}
					heard <- err
				})
				c := mustOpen(t, p, l.dial).(*tunnel)
				tt.client(t, c)
				if tt.name != "both ends" {
					if got := <-heard; (got == nil) != (tt.want == nil) {
						t.Errorf("the target reads: %v, want %v", got, tt.want)
					}
				}
				checkClosed(t, c)
			})
		})
	}
}

// checkClosed checks what a closed tunnel says.
func checkClosed(t *testing.T, c *tunnel) {
	t.Helper()
	_, rerr := c.Read(make([]byte, 1))
	_, werr := c.Write([]byte("x"))
	for _, err := range []error{rerr, werr, c.CloseWrite(), c.SetDeadline(time.Time{}), c.Close()} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed tunnel says %v", err)
		}
	}
}

// TestTunnelReset has the proxy reset the stream: that is no end, and looks like a reset of TCP.
func TestTunnelReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := h2Served(t, 0, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(accept(w, r), "half")
			panic(http.ErrAbortHandler)
		})
		c := mustOpen(t, p, l.dial)
		defer c.Close()
		b, err := io.ReadAll(c)
		if string(b) != "half" || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read = %q, %v; want %q and ECONNRESET", b, err, "half")
		}
		synctest.Wait()
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Write: %v, want ECONNRESET", err)
		}
		if c.LocalAddr() == nil || c.RemoteAddr() == nil {
			t.Error("the tunnel has no addresses")
		}
	})
}

// TestTunnelTargetEnds has the target end first: the client may go on.
func TestTunnelTargetEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got bytes.Buffer
		done := make(chan struct{})
		p, l := h2Served(t, 0, func(w http.ResponseWriter, r *http.Request) {
			defer close(done)
			_, _ = got.ReadFrom(accept(w, r))
		})
		c := mustOpen(t, p, l.dial)
		_, _ = io.WriteString(c, "hello")
		_ = c.(*tunnel).CloseWrite()
		if b, err := io.ReadAll(c); len(b) != 0 || err != nil {
			t.Errorf("Read = %q, %v", b, err)
		}
		_ = c.SetDeadline(time.Now()) // harmless at the end
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("Read at the end = %d, %v", n, err)
		}
		c.Close()
		<-done
		if got.String() != "hello" {
			t.Errorf("the target got %q", got.String())
		}
	})
}
