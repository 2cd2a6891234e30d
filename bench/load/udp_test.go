package load

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"polyport/bench/loopback"
	"polyport/bench/measure"
	"polyport/bench/origin"
)

func TestUDPWorkloads(t *testing.T) {
	for _, tt := range []struct{ name, proto string }{{measure.Direct, measure.Direct}, {"copy", measure.Socks5UDP}} {
		t.Run(tt.name, func(t *testing.T) {
			want := map[string]string{
				"echo64x1": measure.PerSec, "echo64x8": measure.PerSec, "echo1200x1": measure.PerSec, "echo1200x8": measure.PerSec,
				"segments64x1": measure.PerSec, "segments64x8": measure.PerSec, "segments1200x1": measure.PerSec, "segments1200x8": measure.PerSec,
				"paced20000": measure.Offered, "paced50000": measure.Offered,
				measure.Silent: measure.Opened, measure.Answered: measure.Opened,
			}
			l := newLoad(t, tt.name, tt.proto)
			if err := l.associateOnce(0); err != nil {
				t.Fatal(err)
			}
			for _, m := range append(l.Run(measure.UDP), l.Run(measure.UDPIdle)...) {
				if m.Errors > 0 || m.Metrics[want[m.Variant]] <= 0 {
					t.Errorf("%s %s: %d errors (%s), %v", m.Work, m.Variant, m.Errors, m.FirstErr, m.Metrics)
				}
				delete(want, m.Variant)
			}
			if len(want) > 0 {
				t.Errorf("not measured: %v", want)
			}
		})
	}
}

// TestFaultyEchoesAreErrors: what comes is compared with what was sent, octet by octet.
func TestFaultyEchoesAreErrors(t *testing.T) {
	const size = 100
	a := &association{head: []byte{0, 0, 0, 1, 127, 0, 0, 1, 0, 7}}
	tests := []struct {
		name   string
		number uint64 // of the flow's own, from its base
		change func(b []byte) []byte
		want   string
	}{
		{"as it was", 3, func(b []byte) []byte { return b }, ""},
		{"again", 3, func(b []byte) []byte { return b }, "twice"},
		{"late", 1, func(b []byte) []byte { return b }, ""},
		{"one bit", 4, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "not what was sent"},
		{"cut", 4, func(b []byte) []byte { return b[:len(b)-1] }, "not what was sent"},
		{"shorter than a head", 4, func(b []byte) []byte { return b[:12] }, "not what was sent"},
		{"from another source", 4, func(b []byte) []byte { b[9]++; return b }, "begins"},
		{"not sent yet", 9, func(b []byte) []byte { return b }, "another association"},
		{"of another flow", 5 << 40, func(b []byte) []byte { return b }, "another association"},
	}
	f := &flow{association: a, base: 1 << 40, next: 8}
	f.size = size
	for _, tt := range tests {
		whole, payload := a.datagram(size)
		origin.WriteDatagram(payload, origin.Echo, f.base|tt.number)
		err := f.take(tt.change(whole))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if f.past != 4 || f.underWay() != 4 {
		t.Errorf("%d under way behind %d, want 4 behind 4", f.underWay(), f.past)
	}
}

// dropper is an origin that echoes all datagrams but one of each n.
func dropper(t *testing.T, n int) netip.AddrPort {
	t.Helper()
	c, err := loopback.ListenUDP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, origin.LargestDatagram)
		for i := 1; ; i++ {
			k, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if i%n != 0 {
				c.WriteToUDPAddrPort(b[:k], from)
			}
		}
	}()
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

// TestLossIsCountedAndDoesNotStall: what is lost makes room for others.
func TestLossIsCountedAndDoesNotStall(t *testing.T) {
	for n, want := range map[int]float64{4: .25, 2: .5} {
		opts := small
		opts.Window = 300 * time.Millisecond
		to := dropper(t, n)
		l := New(measure.Direct, 1, Endpoint{Proto: measure.Direct, to: to, origin: to}, still{}, opts)
		m := l.echoes(origin.Echo, 64, 1, 4)
		if got := m.Metrics[measure.Lost]; m.Errors > 0 || got < want*.8 || got > want*1.2 || m.Metrics[measure.PerSec] < 100 { // a stall is 40
			t.Errorf("one of %d lost: %d errors (%s), %v", n, m.Errors, m.FirstErr, m.Metrics)
		}
	}
}

func TestNextNap(t *testing.T) {
	tests := []struct {
		d         time.Duration
		got, want int
		next      time.Duration
	}{
		{80 * time.Microsecond, 40, 32, 60 * time.Microsecond},
		{80 * time.Microsecond, 32, 32, 91 * time.Microsecond},
		{longestNap, 0, 32, longestNap},
		{0, 100, 32, 0},
	}
	for _, tt := range tests {
		if got := nextNap(tt.d, tt.got, tt.want); got != tt.next {
			t.Errorf("nextNap(%v, %d, %d) = %v, want %v", tt.d, tt.got, tt.want, got, tt.next)
		}
	}
}

func TestReadBound(t *testing.T) {
	tests := []struct {
		reply, want string
		ok          bool
	}{
		{"\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38", "127.0.0.1:1080", true},
		{"\x05\x00\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x04\x38", "[::1]:1080", true},
		{"\x05\x00\x00\x04" + strings.Repeat("\x00", 10) + "\xff\xff\x7f\x00\x00\x01\x04\x38", "127.0.0.1:1080", true},
		{"\x05\x00\x00\x03\x01a\x04\x38", "invalid AddrPort", true},
		{"\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00", "invalid AddrPort", false},
		{"\x05\x00\x00\x01\x7f\x00\x00\x01\x04", "invalid AddrPort", false},
	}
	for _, tt := range tests {
		if got, err := readBound(strings.NewReader(tt.reply)); (err == nil) != tt.ok || got.String() != tt.want {
			t.Errorf("readBound(%q) = %v, %v, want %s", tt.reply, got, err, tt.want)
		}
	}
}
