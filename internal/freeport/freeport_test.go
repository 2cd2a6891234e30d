package freeport

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
)

var home = netip.MustParseAddr("127.0.0.1")

func TestFindGivesEachPortOnce(t *testing.T) {
	var mu sync.Mutex
	var all []int
	var askers sync.WaitGroup
	for n := range 8 {
		askers.Go(func() {
			for range 20 {
				port, err := Find(home, n+1)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for p := range n + 1 {
					all = append(all, int(port)+p)
				}
				mu.Unlock()
			}
		})
	}
	askers.Wait()
	slices.Sort(all)
	if got := len(slices.Compact(slices.Clone(all))); got != len(all) || got != 20*(1+2+3+4+5+6+7+8) {
		t.Errorf("%d of %d ports differ", got, len(all))
	}
	if all[0] < first || all[len(all)-1] >= first+count {
		t.Errorf("ports from %d to %d, want %d to %d", all[0], all[len(all)-1], first, first+count-1)
	}
}

func TestFindPassesByWhatIsTaken(t *testing.T) {
	takers := []struct {
		name string
		take func(at netip.AddrPort) (close func() error, err error)
	}{
		{"TCP", func(at netip.AddrPort) (func() error, error) {
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
			if err != nil {
				return nil, err
			}
			return l.Close, nil
		}},
		{"UDP", func(at netip.AddrPort) (func() error, error) {
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			if err != nil {
				return nil, err
			}
			return c.Close, nil
		}},
	}
	for _, tt := range takers {
		t.Run(tt.name, func(t *testing.T) {
			port, err := Find(home, 2)
			if err != nil {
				t.Fatal(err)
			}
			free, err := tt.take(netip.AddrPortFrom(home, port+1))
			if err != nil {
				t.Fatal(err)
			}
			defer free()
			given.Store(uint32(port) - first) // the same two are next
			got, err := Find(home, 2)
			if err != nil || got == port {
				t.Errorf("Find = %d, %v, want another one than %d, whose neighbour is taken", got, err, port)
			}
		})
	}
}

func TestFindAtTheEndOfTheRange(t *testing.T) {
	given.Store(count - 2)
	port, err := Find(home, 5)
	if err != nil || port+4 >= first+count || port < first {
		t.Errorf("Find = %d, %v, want a row within %d to %d", port, err, first, first+count-1)
	}
}

func TestFindSaysWhatIsWrong(t *testing.T) {
	for _, n := range []int{-1, 0, 1001} {
		if port, err := Find(home, n); err == nil {
			t.Errorf("Find(%d) = %d, want an error", n, port)
		}
	}
	if port, err := Find(netip.MustParseAddr("192.0.2.1"), 1); err == nil {
		t.Errorf("Find = %d at an address that this machine does not have", port)
	}
}
