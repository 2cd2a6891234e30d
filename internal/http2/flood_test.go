package http2

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	h2 "golang.org/x/net/http2"
)

// TestFloods sends more of something than anybody needs. Time stands still, so nothing is
// earned by waiting.
func TestFloods(t *testing.T) {
	small := Options{Serve: greeting, Streams: 8, HeaderList: 4096}
	for _, tt := range []struct {
		name  string
		flood string
		times int
		send  func(c *client, i int)
	}{
		{"rapid reset", "rapid_reset", 17, func(c *client, i int) {
			c.post(uint32(2*i + 1))
			c.fr.WriteRSTStream(uint32(2*i+1), ErrCodeCancel)
		}},
		{"resets of ours", "rapid_reset", 17, func(c *client, i int) {
			c.post(uint32(2*i + 1))
			c.raw(h2.FrameWindowUpdate, 0, uint32(2*i+1), "\x00\x00\x00\x00")
		}},
		{"malformed requests", "rapid_reset", 17, func(c *client, i int) { c.request(uint32(2*i+1), true, "a", "b") }},
		{"heads that are too long", "rapid_reset", 17, func(c *client, i int) {
			c.request(uint32(2*i+1), true, append(getFields[:8:8], "a", strings.Repeat("b", 4000))...)
		}},
		{"SETTINGS", "settings", settingsAtOnce, func(c *client, _ int) { c.fr.WriteSettings() }},
		{"SETTINGS ACK", "useless_frames", uselessAtOnce + 1, func(c *client, _ int) { c.fr.WriteSettingsAck() }},
		{"PING", "ping", pingsAtOnce + 1, func(c *client, _ int) { c.raw(h2.FramePing, 0, 0, "12345678") }},
		{"PING ACK", "useless_frames", uselessAtOnce + 1, func(c *client, _ int) { c.raw(h2.FramePing, h2.FlagPingAck, 0, "12345678") }},
		{"PRIORITY", "useless_frames", uselessAtOnce + 1, func(c *client, _ int) { c.raw(h2.FramePriority, 0, 9, "\x00\x00\x00\x01\x00") }},
		{"PRIORITY_UPDATE", "useless_frames", uselessAtOnce + 1, func(c *client, _ int) { c.raw(h2.FramePriorityUpdate, 0, 0, "\x00\x00\x00\x09u=1") }},
		{"unknown frames", "useless_frames", uselessAtOnce + 1, func(c *client, _ int) { c.raw(0x42, 0, 0, "") }},
		{"RST_STREAM after the end", "useless_frames", uselessAtOnce + 1 + uselessPerStream, func(c *client, i int) {
			if i == 0 {
				c.get(1)
				c.body(1)
			}
			c.fr.WriteRSTStream(1, ErrCodeCancel)
		}},
		{"WINDOW_UPDATE", "window_updates", updatesAtOnce + 1, func(c *client, _ int) { c.fr.WriteWindowUpdate(0, 1) }},
		{"empty DATA", "empty_frames", emptyAtOnce + 2, func(c *client, i int) {
			if i == 0 {
				c.post(1)
				return
			}
			c.raw(h2.FrameData, 0, 1, "")
		}},
		{"padding only", "empty_frames", emptyAtOnce + 2, func(c *client, i int) {
			if i == 0 {
				c.post(1)
				return
			}
			c.raw(h2.FrameData, padded, 1, "\x03abc")
		}},
		{"CONTINUATION", "continuation", maxContinuations + 2, func(c *client, i int) {
			if i == 0 {
				c.raw(h2.FrameHeaders, 0, 1, "\x82")
				return
			}
			c.raw(h2.FrameContinuation, 0, 1, "\x84")
		}},
		{"CONTINUATION without end", "headers", 2, func(c *client, i int) {
			frame := h2.FrameContinuation
			if i == 0 {
				frame = h2.FrameHeaders
			}
			c.raw(frame, 0, 1, strings.Repeat("\x82", 16384))
		}},
		{"a long string in small parts", "headers", 2, func(c *client, i int) {
			if i == 0 {
				c.raw(h2.FrameHeaders, 0, 1, "\x00\x7f\xff\xff\x03")
				return
			}
			c.raw(h2.FrameContinuation, 0, 1, "x")
		}},
		{"header bomb", "headers", 1, func(c *client, _ int) {
			// A field of 3 kB enters the table, then a byte repeats it.
			bomb := "\x40\x01a\x7f\xb9\x16" + strings.Repeat("x", 127+25+22*128)
			c.raw(h2.FrameHeaders, endHeaders, 1, bomb+strings.Repeat("\xbe", 1000))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := small
				if strings.HasPrefix(tt.name, "empty") || strings.HasPrefix(tt.name, "padding") || strings.HasPrefix(tt.name, "resets") || strings.HasPrefix(tt.name, "rapid") {
					o.Serve = patient
				}
				c := greet(t, o)
				for i := range tt.times - 1 {
					tt.send(c, i)
					synctest.Wait()
				}
				if len(c.ended) > 0 {
					t.Errorf("the connection ended before the last frame: %v", c.err())
				}
				tt.send(c, tt.times-1)
				c.wantGoAway(ErrCodeEnhanceYourCalm, tt.flood)
			})
		})
	}
}

// TestEarned does the same slowly, or with work between, as clients may.
func TestEarned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := greet(t, Options{Serve: greeting, Streams: 8})
		for i := range uint32(500) {
			id := 4*i + 1
			c.get(id)
			if got := c.body(id); got != "hello" {
				t.Fatalf("the body is %q", got)
			}
			c.post(id + 2)
			c.fr.WriteRSTStream(id+2, ErrCodeCancel)
			c.raw(h2.FramePing, 0, 0, "12345678")
			c.fr.WriteSettings()
			time.Sleep(time.Second)
		}
		c.wantPing("alive")
	})
}

// TestRunning resets streams whose Serve do not return: they keep their slots.
func TestRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serve, _ := hold()
		c := greet(t, Options{Serve: serve, Streams: 4})
		for i := range uint32(2 * 4) {
			c.post(2*i + 1)
			time.Sleep(2 * rapid) // so that these are no rapid resets
			c.fr.WriteRSTStream(2*i+1, ErrCodeCancel)
		}
		c.wantPing("alive")
		c.post(101)
		c.wantGoAway(ErrCodeEnhanceYourCalm, "rapid_reset")
	})
}

func TestRefused(t *testing.T) {
	t.Run("too many streams", func(t *testing.T) {
		serve, streams := hold()
		c := greet(t, Options{Serve: serve, Streams: 2})
		c.post(1)
		c.post(3)
		c.post(5)
		c.wantReset(5, ErrCodeRefusedStream)
		c.raw(h2.FrameData, 0, 5, "late")
		first, second := next(t, streams), next(t, streams)
		first.Reset(ErrCodeCancel)
		c.wantReset(first.ID(), ErrCodeCancel)
		c.post(7)
		if s := next(t, streams); s.ID() != 7 || second.ID()+first.ID() != 4 {
			t.Errorf("streams %d, %d, %d, want 1, 3, 7", first.ID(), second.ID(), s.ID())
		}
	})
	t.Run("too large heads", func(t *testing.T) {
		serve, streams := hold()
		c := greet(t, Options{Serve: serve})
		const each = 16 << 10 // and some more for the other fields
		c.request(1, false, append(postFields[:len(postFields):len(postFields)], "a", strings.Repeat("b", each))...)
		fits := 1
		for ; (fits+1)*each < maxHeads-fits*512; fits++ { // the field is in the table now, and costs a byte or two
			c.request(uint32(2*fits+1), false, append(postFields[:len(postFields):len(postFields)], "a", strings.Repeat("b", each))...)
		}
		for range fits {
			next(t, streams)
		}
		for i := range 4 {
			c.request(uint32(2*(fits+i)+1), false, append(postFields[:len(postFields):len(postFields)], "a", strings.Repeat("b", each))...)
		}
		c.wantReset(uint32(2*(fits+3)+1), ErrCodeRefusedStream)
	})
}

// TestHeadTooLong wants 431, and a decoder that has not lost its place.
func TestHeadTooLong(t *testing.T) {
	c := greet(t, Options{Serve: greeting, HeaderList: 4096})
	long := append(getFields[:8:8], "a", strings.Repeat("b", 2500), "c", strings.Repeat("d", 2500), "e", "in the table")
	c.request(1, false, long...)
	if f := c.frame(h2.FrameHeaders, 1); f.status != "431" || !f.end {
		t.Errorf("the answer is %+v, want 431", f)
	}
	c.wantReset(1, ErrCodeNo)
	c.request(3, true, append(getFields[:8:8], "e", "in the table")...)
	if got := c.body(3); got != "hello" {
		t.Errorf("the body is %q", got)
	}
}

// TestDoesNotRead leaves all that the server sends lie.
func TestDoesNotRead(t *testing.T) {
	t.Run("answers pile up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := mute(t, Options{Serve: greeting})
			for i := range 2 * maxAnswers {
				c.raw(h2.FramePing, 0, 0, "12345678")
				if i%pingsPerSecond == 0 {
					time.Sleep(time.Second) // earns the PINGs
				}
			}
			wantFlood(t, c.err(), "control_queue")
		})
	})
	t.Run("for longer than SendTimeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := mute(t, Options{Serve: greeting, Idle: -1})
			start := time.Now()
			c.get(1)
			wantFlood(t, c.err(), "send_timeout")
			if got := time.Since(start); got != 2*time.Minute {
				t.Errorf("it took %v, want 2 min", got)
			}
		})
	})
}
