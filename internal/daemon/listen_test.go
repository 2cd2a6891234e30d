package daemon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"polyport/mux"
)

func TestListenError(t *testing.T) {
	w := door{key: socketKey{address: netip.MustParseAddrPort("192.0.2.1:80")}, name: "main"}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"taken", syscall.EADDRINUSE, "listen.main: cannot listen on 192.0.2.1:80: another process holds it. Stop that, or choose another address with --listen or in the file"},
		{"a low port", syscall.EACCES, "listen.main: cannot listen on 192.0.2.1:80: ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher one: listen: permission denied"},
		{"not our address", syscall.EADDRNOTAVAIL, "listen.main: cannot listen on 192.0.2.1:80: no interface of this machine has that address: listen: cannot assign requested address"},
		{"anything else", syscall.ENOBUFS, "listen.main: listen: no buffer space available"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := listenError(w, fmt.Errorf("listen: %w", tt.err))
			if err.Error() != tt.want {
				t.Errorf("got  %q\nwant %q", err, tt.want)
			}
			if !errors.Is(err, tt.err) {
				t.Errorf("the cause of %q is lost", err)
			}
			var taken *PortTakenError
			if got := errors.As(err, &taken); got != (tt.err == syscall.EADDRINUSE) {
				t.Errorf("a PortTakenError: %v", got)
			}
		})
	}
}

func TestPrepareOpensAllOrNone(t *testing.T) {
	held, err := mux.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	taken := held.Addr().(*net.TCPAddr).AddrPort()
	free, err := mux.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.3:0"))
	if err != nil {
		t.Fatal(err)
	}
	other := free.Addr().(*net.TCPAddr).AddrPort()
	free.Close()
	f := parse(t, fmt.Sprintf("[listen.main]\naddress = [%q, %q, %q]\n", other, taken, "192.0.2.1:1"))
	d := &doors{open: map[socketKey]*mux.Acceptor{}}
	fresh, err := d.prepare(t.Context(), f)
	var takenErr *PortTakenError
	if !errors.As(err, &takenErr) || takenErr.Address != taken || len(fresh) != 0 {
		t.Fatalf("prepare = %v, %v; want a PortTakenError for %s", fresh, err, taken)
	}
	if !strings.Contains(err.Error(), "192.0.2.1:1") {
		t.Errorf("the error %q does not say that another address fails too", err)
	}
	again, err := mux.Listen(t.Context(), other)
	if err != nil {
		t.Fatalf("a socket was left open: %v", err)
	}
	again.Close()
}

func TestWantedTellsSocketsApart(t *testing.T) {
	f := parse(t, "[listen.main]\naddress = [\"127.0.0.1:0\", \"127.0.0.1:0\", \"127.0.0.1:7000-7002\"]\nproxy_protocol_from = [\"10.0.0.1\"]\n")
	keys := map[socketKey]bool{}
	for _, w := range wanted(f) {
		if keys[w.key] {
			t.Errorf("%v stands twice", w.key)
		}
		keys[w.key] = true
		if w.name != "main" || len(w.from) != 1 || w.from[0] != netip.MustParsePrefix("10.0.0.1/32") {
			t.Errorf("the door is %+v", w)
		}
	}
	if len(keys) != 5 {
		t.Errorf("%d sockets, want 5", len(keys))
	}
}
