package udprelay

import (
	"testing"
	"time"
)

func TestSpend(t *testing.T) {
	type spent struct {
		at    time.Duration
		bytes int
		want  bool
	}
	tests := []struct {
		name string
		o    Options
		all  []spent
	}{
		{"no limit", Options{}, []spent{{0, longest, true}, {0, longest, true}}},
		{"a second's datagrams at once, then as they come", Options{Datagrams: 2}, []spent{
			{time.Second, 1, true},
			{time.Second, 1, true},
			{time.Second, 0, false},
			{1499 * time.Millisecond, 1, false},
			{1500 * time.Millisecond, 1, true},
			{1500 * time.Millisecond, 1, false},
			{time.Hour, 1, true},
			{time.Hour, 1, true},
			{time.Hour, 1, false},
		}},
		{"bytes", Options{Bytes: 100_000}, []spent{
			{0, 60_000, true}, {0, 40_001, false}, {0, 40_000, true}, {0, 0, true}, {0, 1, false}, {500 * time.Millisecond, 50_000, true},
		}},
		{"fewer bytes than the longest datagram has", Options{Bytes: 1000}, []spent{{0, longest, true}, {time.Second, 1001, false}, {time.Second, 1000, true}}},
		{"what bytes refuse costs no datagram", Options{Datagrams: 1, Bytes: 100_000}, []spent{{0, 100_001, false}, {0, 100_000, true}}},
		{"a loop that is behind", Options{Datagrams: 1}, []spent{{2 * time.Second, 1, true}, {time.Second, 1, false}, {2900 * time.Millisecond, 1, false}, {3 * time.Second, 1, true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &account{}
			for i, s := range tt.all {
				if got := c.spend(&tt.o, s.at, s.bytes); got != s.want {
					t.Errorf("spend %d: %v octets at %v = %v, want %v", i, s.bytes, s.at, got, s.want)
				}
			}
		})
	}
}

// What has passed without a limit counts for nothing once there is one.
func TestSpendAfterAReload(t *testing.T) {
	datagrams, bytes := Options{Datagrams: 1000}, Options{Bytes: longest}
	for _, tt := range []struct {
		name          string
		before, after *Options
	}{{"from datagrams to bytes", &datagrams, &bytes}, {"from bytes to datagrams", &bytes, &datagrams}} {
		t.Run(tt.name, func(t *testing.T) {
			c := &account{}
			for second := range time.Duration(10) {
				for range 1000 {
					if !c.spend(tt.before, second*time.Second, longest/1000) {
						t.Fatalf("refused at %d s", second)
					}
				}
			}
			if !c.spend(tt.after, 11*time.Second, longest) {
				t.Error("refused after the reload, want it to pass")
			}
		})
	}
}

func TestAccountLife(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want time.Duration
	}{
		{Options{}, 0},
		{Options{Datagrams: 5}, time.Second},
		{Options{Bytes: 1 << 20}, time.Second},
		{Options{Bytes: longest / 7}, 7 * time.Second},
		{Options{Bytes: 1}, time.Minute},
	} {
		if got := tt.o.accountLife().Round(time.Second); got != tt.want {
			t.Errorf("accountLife of %+v = %v, want %v", tt.o, got, tt.want)
		}
	}
}

func TestKeep(t *testing.T) {
	var c account
	if !c.keep(maxWaitingOfClient-1) || c.keep(2) || !c.keep(1) || c.keep(1) {
		t.Errorf("%d octets wait, want exactly %d", c.waiting, maxWaitingOfClient)
	}
	c.keep(-maxWaitingOfClient)
	if !c.keep(maxWaitingOfClient) {
		t.Error("what was given back may not be had again")
	}
}
