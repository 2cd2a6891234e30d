package http2

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"
)

// open gives a tunnel, seen from both sides.
func open(t *testing.T, o Options, settings ...h2.Setting) (*client, *Stream) {
	t.Helper()
	serve, streams := hold()
	o.Serve = serve
	c := greet(t, o, settings...)
	c.connect(1)
	s := next(t, streams)
	if err := s.WriteHead(200, nil, false); err != nil {
		t.Fatal(err)
	}
	c.frame(h2.FrameHeaders, 1)
	return c, s
}

// wantRead reads n bytes.
func wantRead(t *testing.T, s *Stream, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(s, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v, want %q", b, err, want)
	}
}

func TestHalfClose(t *testing.T) {
	t.Run("the client first", func(t *testing.T) {
		c, s := open(t, Options{})
		c.fr.WriteData(1, true, []byte("bye"))
		wantRead(t, s, "bye")
		wantReadErr(t, s, io.EOF)
		for range 100 {
			if _, err := s.Write([]byte("still here")); err != nil {
				t.Fatal(err)
			}
			c.frame(h2.FrameData, 1)
		}
		s.CloseWrite()
		if f := c.frame(h2.FrameData, 1); !f.end {
			t.Error("CloseWrite has not sent END_STREAM")
		}
		wantReadErr(t, s, io.EOF)
	})
	t.Run("we first", func(t *testing.T) {
		c, s := open(t, Options{})
		s.Write([]byte("bye"))
		s.CloseWrite()
		if f := c.frame(h2.FrameData, 1); f.data != "bye" && !f.end {
			t.Errorf("the frame is %+v", f)
		}
		if _, err := s.Write([]byte("x")); err == nil {
			t.Error("Write after CloseWrite has succeeded")
		}
		for range 100 {
			c.fr.WriteData(1, false, []byte("still here"))
			wantRead(t, s, "still here")
		}
		c.fr.WriteData(1, true, nil)
		wantReadErr(t, s, io.EOF)
	})
}

func TestResets(t *testing.T) {
	t.Run("by the client", func(t *testing.T) {
		c, s := open(t, Options{})
		c.fr.WriteData(1, false, []byte("lost"))
		c.fr.WriteRSTStream(1, ErrCodeCancel)
		c.wantPing("taken")
		wantReadErr(t, s, ErrReset, syscall.ECONNRESET)
		if _, err := s.Write([]byte("x")); !errors.Is(err, ErrReset) {
			t.Errorf("Write = %v, want %v", err, ErrReset)
		}
		var re *ResetError
		if _, err := s.Read(nil); !errors.As(err, &re) || re.Code != ErrCodeCancel || re.Local {
			t.Errorf("Read = %v, want CANCEL of the client", err)
		}
	})
	t.Run("by Reset", func(t *testing.T) {
		c, s := open(t, Options{})
		s.Reset(ErrCodeEnhanceYourCalm)
		s.Reset(ErrCodeCancel)
		c.wantReset(1, ErrCodeEnhanceYourCalm)
		wantReadErr(t, s, ErrReset, net.ErrClosed)
	})
	t.Run("by a linger of 0", func(t *testing.T) {
		c, s := open(t, Options{})
		s.SetLinger(0)
		s.Close()
		c.wantReset(1, ErrCodeConnect)
	})
	t.Run("by Close", func(t *testing.T) {
		c, s := open(t, Options{})
		s.Close()
		if f := c.frame(h2.FrameData, 1); !f.end {
			t.Error("Close has not sent END_STREAM")
		}
		c.wantReset(1, ErrCodeNo)
		wantReadErr(t, s, net.ErrClosed)
	})
	t.Run("by the loss of the connection", func(t *testing.T) {
		c, s := open(t, Options{})
		c.nc.Close()
		wantReadErr(t, s, ErrReset, syscall.ECONNRESET)
		if err := c.err(); err == nil {
			t.Error("Serve = nil, want an error: a stream was cut off")
		}
	})
}

// TestServeReturns leaves streams in all states to the end of their Serve.
func TestServeReturns(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(*Stream)
		want  ErrCode
		end   bool // END_STREAM comes before
	}{
		{"without a head", func(*Stream) {}, ErrCodeInternal, false},
		{"after 1xx", func(s *Stream) { s.WriteHead(103, nil, false) }, ErrCodeInternal, false},
		{"without an end", func(s *Stream) { s.WriteHead(200, nil, false) }, ErrCodeCancel, false},
		{"before the client's end", func(s *Stream) { s.WriteHead(200, nil, true) }, ErrCodeNo, true},
		{"closed", func(s *Stream) { s.WriteHead(200, nil, false); s.Close() }, ErrCodeNo, true},
		{"closed without a head", func(s *Stream) { s.Close() }, ErrCodeInternal, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := greet(t, Options{Serve: tt.serve})
			c.post(1)
			c.wantReset(1, tt.want)
			ended := false
			for _, f := range c.got {
				ended = ended || f.end
			}
			if ended != tt.end {
				t.Errorf("END_STREAM sent: %v, want %v", ended, tt.end)
			}
		})
	}
}

func TestWriteOrder(t *testing.T) {
	serve, streams := hold()
	c := greet(t, Options{Serve: serve})
	c.post(1)
	s := next(t, streams)
	wantOrder := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrWriteOrder) {
			t.Errorf("%s = %v, want %v", what, err, ErrWriteOrder)
		}
	}
	_, err := s.Write([]byte("x"))
	wantOrder("Write before the head", err)
	wantOrder("CloseWrite before the head", s.CloseWrite())
	wantOrder("WriteTrailers before the head", s.WriteTrailers(nil))
	for range 3 {
		if err := s.WriteHead(103, []Field{{"link", "x"}}, false); err != nil {
			t.Error(err)
		}
	}
	s.WriteHead(200, nil, false)
	wantOrder("WriteHead after the head", s.WriteHead(200, nil, false))
	if err := s.WriteTrailers([]Field{{"Upper", "x"}}); !errors.Is(err, ErrInvalidHead) {
		t.Errorf("WriteTrailers = %v", err)
	}
	if err := s.WriteTrailers([]Field{{"a", "b"}}); err != nil {
		t.Error(err)
	}
	wantOrder("WriteTrailers after the end", s.WriteTrailers(nil))
	f := c.until("trailers", func(f frame) bool { return f.kind == h2.FrameHeaders && f.end })
	if len(f.fields) != 1 || f.fields[0] != (Field{"a", "b"}) {
		t.Errorf("the trailers are %+v", f)
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := open(t, Options{}, h2.Setting{ID: h2.SettingInitialWindowSize, Val: 5})
		start := time.Now()
		s.SetReadDeadline(start.Add(time.Hour))
		go func() { // moved while Read waits
			time.Sleep(time.Minute)
			s.SetReadDeadline(start.Add(2 * time.Hour))
		}()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 2*time.Hour {
			t.Errorf("Read = %v after %v", err, time.Since(start))
		}
		s.SetReadDeadline(time.Time{})
		c.fr.WriteData(1, false, []byte("more"))
		wantRead(t, s, "more")

		start = time.Now()
		s.SetWriteDeadline(start.Add(time.Hour))
		if n, err := s.Write([]byte("0123456789")); n != 5 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Hour {
			t.Errorf("Write = %d, %v after %v", n, err, time.Since(start))
		}
		s.SetWriteDeadline(time.Time{})
		go func() {
			time.Sleep(time.Minute)
			s.SetDeadline(time.Unix(1, 0)) // long past
		}()
		if n, err := s.Write([]byte("56789")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write = %d, %v", n, err)
		}
		s.SetDeadline(time.Time{})
		c.fr.WriteWindowUpdate(1, 5)
		if n, err := s.Write([]byte("56789")); n != 5 || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	})
}

// TestWakes ends the wait of a Write in every way.
func TestWakes(t *testing.T) {
	for _, tt := range []struct {
		name string
		act  func(c *client, s *Stream)
		want error
	}{
		{"Reset", func(_ *client, s *Stream) { s.Reset(ErrCodeCancel) }, ErrReset},
		{"Close", func(_ *client, s *Stream) { s.Close() }, net.ErrClosed},
		{"RST_STREAM", func(c *client, _ *Stream) { c.fr.WriteRSTStream(1, ErrCodeCancel) }, ErrReset},
		{"the end of the connection", func(c *client, _ *Stream) { c.nc.Close() }, ErrReset},
		{"SETTINGS", func(c *client, _ *Stream) {
			c.fr.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 10})
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, s := open(t, Options{}, h2.Setting{ID: h2.SettingInitialWindowSize, Val: 5})
				go func() {
					time.Sleep(time.Minute)
					tt.act(c, s)
				}()
				n, err := s.Write([]byte("0123456789"))
				if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || n < 5 {
					t.Errorf("Write = %d, %v, want %v", n, err, tt.want)
				}
			})
		})
	}
}

// TestWindows checks what may be held, and that reading gives it back.
func TestWindows(t *testing.T) {
	c, s := open(t, Options{StreamWindow: startWindow, ConnWindow: 4 * startWindow})
	whole := strings.Repeat("0123456789abcdef", 1<<12)[:startWindow]
	for range 10 {
		for rest := whole; len(rest) > 0; rest = rest[min(len(rest), 16384):] {
			c.fr.WriteData(1, false, []byte(rest[:min(len(rest), 16384)]))
		}
		wantRead(t, s, whole)
		for credit := uint32(0); credit < startWindow-startWindow/creditParts; {
			credit += c.frame(h2.FrameWindowUpdate, 1).inc
		}
	}
}

// TestTakesWindow checks that content waits for the windows of the client, of either kind.
func TestTakesWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := open(t, Options{}, h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1 << 20})
		done := make(chan error, 1)
		go func() {
			_, err := s.Write(make([]byte, 100_000))
			done <- err
		}()
		got := 0
		for got < startWindow { // of the connection
			got += len(c.frame(h2.FrameData, 1).data)
		}
		synctest.Wait()
		if got != startWindow || len(c.frames) > 0 || len(done) > 0 {
			t.Errorf("%d bytes came, want %d and no more", got, startWindow)
		}
		c.fr.WriteWindowUpdate(0, 100_000)
		for got < 100_000 {
			got += len(c.frame(h2.FrameData, 1).data)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestUrgency fills the connection with streams and looks who is served.
func TestUrgency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := func(s *Stream) {
			s.WriteHead(200, nil, false)
			s.Write(make([]byte, 1<<20))
			s.CloseWrite()
		}
		c := greet(t, Options{Serve: big}, h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1 << 20})
		for id := uint32(1); id <= 9; id += 2 {
			c.request(id, true, append(getFields[:8:8], "priority", map[bool]string{true: "u=5", false: "u=1"}[id < 7])...)
		}
		c.raw(h2.FramePriorityUpdate, 0, 0, "\x00\x00\x00\x05u=0")
		synctest.Wait()
		c.fr.WriteWindowUpdate(0, 1<<30)
		sent := map[uint32]int{}
		for sent[5] < 1<<20 || sent[7] < 1<<20 || sent[9] < 1<<20 {
			f := c.until("content", func(f frame) bool { return f.kind == h2.FrameData })
			sent[f.id] += len(f.data)
			c.got = nil
			if f.id == 5 && len(f.data) > 0 && sent[5] == 1<<20 && (sent[7] > 1<<19 || sent[7] == 0) {
				t.Errorf("when the most urgent stream had sent all others had sent %v", sent)
			}
		}
		if sent[1] == 0 || sent[3] == 0 || sent[1] > 1<<19 || sent[3] > 1<<19 {
			t.Errorf("when the urgent streams had ended the others had sent %v, want a little", sent)
		}
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := greet(t, Options{Serve: patient})
		time.Sleep(time.Minute)
		c.post(1)
		time.Sleep(time.Hour) // with a stream it is not idle
		c.fr.WriteData(1, true, nil)
		c.body(1)
		c.wait = time.Hour
		c.wantGoAway(ErrCodeNo, "")
		if got := time.Since(start); got != time.Minute+time.Hour+75*time.Second {
			t.Errorf("it ended after %v", got)
		}
	})
}

func TestHandshakeTimeout(t *testing.T) {
	for n := range len(h2.ClientPreface) + 1 {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			c := dial(t, Options{Serve: patient})
			c.write([]byte(h2.ClientPreface[:n]))
			c.wait = time.Hour
			c.wantGoAway(ErrCodeSettingsTimeout, "")
			if got := time.Since(start); got != 10*time.Second {
				t.Errorf("it ended after %v", got)
			}
		})
	}
}

func TestShutdown(t *testing.T) {
	t.Run("while idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := greet(t, Options{Serve: patient})
			c.conn.Shutdown()
			c.wantGoAway(ErrCodeNo, "")
		})
	})
	t.Run("with streams", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := greet(t, Options{Serve: patient})
			c.post(1)
			go c.conn.Shutdown()
			c.conn.Shutdown()
			if f := c.frame(h2.FrameGoAway, 0); f.last != maxStreamID {
				t.Errorf("the first GOAWAY is %+v", f)
			}
			ping := c.frame(h2.FramePing, 0)
			c.get(3) // the client does not know yet
			c.body(3)
			c.raw(h2.FramePing, h2.FlagPingAck, 0, ping.data)
			if f := c.frame(h2.FrameGoAway, 0); f.last != 3 {
				t.Errorf("the second GOAWAY is %+v", f)
			}
			c.get(5) // is ignored
			c.wantPing("alive")
			time.Sleep(time.Hour)
			c.fr.WriteData(1, true, nil)
			if got := c.body(1); got != "hello" {
				t.Errorf("the body is %q", got)
			}
			c.nc.Close()
			if err := c.err(); err != nil {
				t.Errorf("Serve = %v", err)
			}
		})
	})
	t.Run("by the client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := greet(t, Options{Serve: patient})
			c.post(1)
			c.fr.WriteGoAway(0, ErrCodeNo, nil)
			c.fr.WriteData(1, true, nil)
			c.body(1)
			c.wantGoAway(ErrCodeNo, "")
		})
	})
}
