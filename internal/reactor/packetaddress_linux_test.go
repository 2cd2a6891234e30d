package reactor

import (
	"net/netip"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FuzzPeerAddress: an address is read as it was written, with the number of an interface for a zone.
func FuzzPeerAddress(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "0.0.0.0", "2001:db8::1", "::", "::1", "fe80::1"} {
		f.Add(netip.MustParseAddr(s).AsSlice(), uint16(53), s == "fe80::1")
	}
	f.Fuzz(func(t *testing.T, octets []byte, port uint16, zoned bool) {
		ip, ok := netip.AddrFromSlice(octets)
		if !ok || ip.Is4In6() { // which no socket for IPv6 alone has to do with
			return
		}
		if zoned && ip.Is6() {
			ip = ip.WithZone("4294967295")
		}
		want := netip.AddrPortFrom(ip, port)
		sa := unix.RawSockaddrInet6{Flowinfo: 1, Scope_id: 7} // what was there before
		size := encode(&sa, want)
		if got := sender(&sa); got != want {
			t.Errorf("%v is written in %d octets as %+v and read as %v", want, size, sa, got)
		}
		if ip.Is4() != (size == unix.SizeofSockaddrInet4) {
			t.Errorf("%v is written in %d octets", want, size)
		}
	})
}

func TestSenderOfNoFamily(t *testing.T) {
	if got := sender(&unix.RawSockaddrInet6{Family: unix.AF_UNIX}); got.IsValid() {
		t.Errorf("read as %v, want nothing", got)
	}
}

// FuzzReadControl: whatever stands among the control messages, nothing beyond them is read, and Size can be divided by.
func FuzzReadControl(f *testing.F) {
	seed := func(b []byte) { f.Add(b, 3) }
	room := func() []byte { return make([]byte, 0, receiveControl) }
	gro := appendControl(room(), unix.SOL_UDP, unix.UDP_GRO, 4)
	gro[unix.CmsgLen(0)] = 2
	seed(gro)
	seed(appendSource(gro, netip.MustParseAddr("192.0.2.1"), ""))
	seed(appendSource(room(), netip.MustParseAddr("2001:db8::1"), "1"))
	seed(appendControl(room(), unix.SOL_UDP, unix.UDP_GRO, 0))
	seed(gro[:20])
	seed([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte, length int) {
		length = max(0, length%1000)
		var words [receiveControl / 8]uint64 // aligned, as the system's are
		n := copy(unsafe.Slice(octets(words[:]), receiveControl), b)
		d := Datagram{Data: make([]byte, length), Size: max(1, length)}
		d.readControl(unsafe.Slice(octets(words[:]), receiveControl)[:n:n])
		if d.Size < 1 || len(d.Data) != length || length == 0 && d.Size != 1 {
			t.Errorf("% x makes %d octets datagrams of %d", b, length, d.Size)
		}
	})
}

func TestReadControl(t *testing.T) {
	for _, tt := range []struct {
		name   string
		append func(b []byte) []byte
		to     string
		size   int
	}{
		{"nothing", func(b []byte) []byte { return b }, "", 100},
		{"IPv4", func(b []byte) []byte { return appendSource(b, netip.MustParseAddr("192.0.2.1"), "") }, "192.0.2.1", 100},
		{"IPv6", func(b []byte) []byte { return appendSource(b, netip.MustParseAddr("2001:db8::1"), "") }, "2001:db8::1", 100},
		{"a size and an address", func(b []byte) []byte {
			b = appendControl(b, unix.SOL_UDP, unix.UDP_GRO, 4)
			*(*int32)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = 30
			return appendSource(b, netip.MustParseAddr("2001:db8::1"), "")
		}, "2001:db8::1", 30},
		{"others before", func(b []byte) []byte {
			return appendSource(appendControl(b, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 4), netip.MustParseAddr("192.0.2.1"), "")
		}, "192.0.2.1", 100},
		{"a size of 0", func(b []byte) []byte { return appendControl(b, unix.SOL_UDP, unix.UDP_GRO, 4) }, "", 100},
		{"a size that is cut off", func(b []byte) []byte { return appendControl(b, unix.SOL_UDP, unix.UDP_GRO, 2) }, "", 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var words [receiveControl / 8]uint64
			b := tt.append(unsafe.Slice(octets(words[:]), receiveControl)[:0])
			d := Datagram{Data: make([]byte, 100), Size: 100}
			d.readControl(b)
			to, _ := netip.ParseAddr(tt.to)
			if d.To != to || d.Size != tt.size {
				t.Errorf("% x says %v and %d, want %v and %d", b, d.To, d.Size, to, tt.size)
			}
		})
	}
}
