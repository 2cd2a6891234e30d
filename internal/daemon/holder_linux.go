package daemon

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holderOf says which process listens on an address, as far as /proc shows it to us.
func holderOf(want netip.AddrPort) string {
	inode := ""
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		data, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		if inode = listeningInode(string(data), want); inode != "" {
			break
		}
	}
	if inode == "" {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is valid
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return "process " + pid
		}
		return fmt.Sprintf("%s (pid %s)", bytes.TrimSpace(name), pid)
	}
	return ""
}

// listeningInode finds the listening socket in a /proc/net/tcp table that keeps want from being bound.
func listeningInode(table string, want netip.AddrPort) string {
	const stateListen = "0A"
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != stateListen {
			continue
		}
		ap, ok := parseProcAddr(f[1])
		if !ok || ap.Port() != want.Port() {
			continue
		}
		if blocks(ap.Addr(), want.Addr()) {
			return f[9]
		}
	}
	return ""
}

// blocks reports whether a socket at held keeps want, on the same port, from being
// bound. We bind each family apart, so of the other one only a dual-stack wildcard does.
func blocks(held, want netip.Addr) bool {
	if held.Is4() != want.Is4() {
		return want.Is4() && held.IsUnspecified()
	}
	return held == want || held.IsUnspecified() || want.IsUnspecified()
}

// parseProcAddr reads "0100007F:1DEB": the address as native 32-bit words, the port in hex.
func parseProcAddr(s string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	p, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), ok
}
