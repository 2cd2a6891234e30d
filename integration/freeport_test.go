package integration

import (
	"net/netip"
	"testing"

	"polyport/internal/freeport"
)

// freePorts returns the first of n ports of 127.0.0.1 in a row that nobody uses, nor will until the end of the tests.
func freePorts(t *testing.T, n int) uint16 {
	t.Helper()
	return freeAddresses(t, "127.0.0.1", n).Port()
}

// freeAddress returns "host:port" of an IP of this machine, at a port that is free in the same way.
func freeAddress(t *testing.T, ip string) string {
	t.Helper()
	return freeAddresses(t, ip, 1).String()
}

func freeAddresses(t *testing.T, ip string, n int) netip.AddrPort {
	t.Helper()
	host := netip.MustParseAddr(ip)
	port, err := freeport.Find(host, n)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(host, port)
}
