package daemon

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
)

// tables as the kernel prints them, with only the columns that are looked at.
const (
	tcp4Table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1DEB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4001 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4002 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1DEC 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4003 1 0000000000000000 100 0 0 10 0
   3: garbage
`
	tcp6Table = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1DEB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 6001 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 6002 1 0000000000000000 100 0 0 10 0
   2: B80D0120000000000000000005000000:01BB 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 6003 1 0000000000000000 100 0 0 10 0
`
)

func TestListeningInode(t *testing.T) {
	tests := []struct{ name, table, want, inode string }{
		{"the address", tcp4Table, "127.0.0.1:7659", "4001"},
		{"another port", tcp4Table, "127.0.0.1:7658", ""},
		{"another address", tcp4Table, "127.0.0.2:7659", ""},
		{"it holds the wildcard", tcp4Table, "10.0.0.1:22", "4002"},
		{"the wildcard is wanted", tcp4Table, "0.0.0.0:7659", "4001"},
		{"a connection is no listener", tcp4Table, "127.0.0.1:7660", ""},
		{"IPv6", tcp6Table, "[::1]:7659", "6001"},
		{"IPv6, any address", tcp6Table, "[2001:db8::5]:443", "6003"},
		{"a dual-stack wildcard keeps IPv4 from being bound", tcp6Table, "127.0.0.1:80", "6002"},
		{"an IPv4 wildcard is not in the way of IPv6", tcp4Table, "[::1]:22", ""},
		{"nor an IPv6 address in that of IPv4", tcp6Table, "0.0.0.0:443", ""},
		{"an empty table", "", "127.0.0.1:1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := listeningInode(tt.table, netip.MustParseAddrPort(tt.want)); got != tt.inode {
				t.Errorf("listeningInode(%s) = %q, want %q", tt.want, got, tt.inode)
			}
		})
	}
}

func TestHolderOf(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ap := netip.MustParseAddrPort(ln.Addr().String())
	if got, want := holderOf(ap), "(pid "+strconv.Itoa(os.Getpid())+")"; !strings.HasSuffix(got, want) {
		t.Errorf("holderOf(%s) = %q, want this process, %s", ap, got, want)
	}
	ln.Close()
	if got := holderOf(ap); got != "" {
		t.Errorf("holderOf(%s) = %q after it was closed, want nothing", ap, got)
	}
}
