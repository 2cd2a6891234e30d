package udprelay

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
	"unique"

	"polyport/mux"
)

func TestDeparted(t *testing.T) {
	socket := peer{unique.Make(mux.Door{Listener: "main", Port: 7659}), netip.MustParseAddrPort("192.0.2.1:5000")}
	for _, tt := range []struct {
		name  string
		who   string
		after time.Duration
		talks bool // meanwhile
		want  bool
	}{
		{"another user, at once", "bob", 0, false, true},
		{"another user, as long as a NAT keeps its ports", "bob", departedFor, false, true},
		{"another user, later", "bob", departedFor + 1, false, false},
		{"another user, while it still sends", "bob", departedFor + 1, true, true},
		{"nobody", "", 0, false, true},
		{"the same user", "alice", 0, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var d departed
				d.add(socket, "alice")
				time.Sleep(tt.after / 2)
				if tt.talks {
					d.speaks(socket)
				}
				time.Sleep(tt.after - tt.after/2)
				if got := d.bars(tt.who, socket); got != tt.want {
					t.Errorf("bars = %v, want %v", got, tt.want)
				}
			})
		})
	}
	var d departed
	for i := range 3 * maxDeparted {
		d.add(peer{unique.Make(mux.Door{Listener: "main", Port: 1}), netip.AddrPortFrom(netip.IPv6Loopback(), uint16(i))}, "alice")
		d.add(socket, "alice")
	}
	if len(d.all) > maxDeparted || len(d.order) != maxDeparted || !d.bars("bob", socket) {
		t.Errorf("%d are known, %d in order, the last one: %v", len(d.all), len(d.order), d.bars("bob", socket))
	}
	synctest.Test(t, func(t *testing.T) {
		d := departed{}
		d.add(socket, "alice")
		time.Sleep(departedFor + 1)
		d.add(peer{unique.Make(mux.Door{Listener: "main", Port: 1}), socket.from}, "alice")
		if len(d.all) != 1 || len(d.order) != 1 {
			t.Errorf("%d are known, %d in order, want what has ended gone", len(d.all), len(d.order))
		}
	})
}
