package clienthello

import (
	"fmt"
	"slices"
)

// Extensions that are looked into (IANA, TLS ExtensionType Values).
const (
	extServerName        = 0
	extALPN              = 16
	extSupportedVersions = 43
	extECH               = 0xfe0d
)

// parse decodes one complete handshake message (RFC 8446 section 4.1.2). It is strict in all that
// frames and fills the four extensions that it looks into, so that no two readers can see different names in one
// hello. The others are for the server to judge, whose connection this is.
//
// crypto/tls could do this, by a server that is stopped in GetConfigForClient, but it refuses
// names with a trailing dot, which Chromium sends, and takes ten times as long. It is what the
// tests compare with.
func parse(message []byte) (Hello, error) {
	h, ok := parseHello(message[messageHeaderLen:])
	if !ok {
		return Hello{}, fmt.Errorf("read ClientHello: %w", ErrMalformed)
	}
	return h, nil
}

func parseHello(body octets) (h Hello, ok bool) {
	version, ok1 := body.uint16()
	ok2 := body.skip(32) // random
	_, ok3 := body.vector8()
	suites, ok4 := body.vector16()
	_, ok5 := body.vector8() // legacy_compression_methods
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || len(suites)%2 != 0 {
		return Hello{}, false
	}
	if len(body) > 0 { // TLS 1.2 and older need not have any
		extensions, ok := body.vector16()
		if !ok || len(body) > 0 || !h.parseExtensions(extensions) {
			return Hello{}, false
		}
	}
	if h.Versions == nil {
		h.Versions = upTo(version)
	}
	return h, true
}

// parseExtensions fills h. One that is looked into may stand there only once.
func (h *Hello) parseExtensions(list octets) (ok bool) {
	var seen [4]bool
	for len(list) > 0 {
		id, ok1 := list.uint16()
		data, ok2 := list.vector16()
		if !ok1 || !ok2 {
			return false
		}
		which, ok := 0, true
		switch id {
		case extServerName:
			which, ok = 0, h.parseServerName(data)
		case extALPN:
			which, ok = 1, h.parseALPN(data)
		case extSupportedVersions:
			which, ok = 2, h.parseVersions(data)
		case extECH:
			which, h.ECH = 3, true
		default:
			continue
		}
		if !ok || seen[which] {
			return false
		}
		seen[which] = true
	}
	return true
}

// parseServerName reads a ServerNameList (RFC 6066 section 3). Of one type there is
// one name; types other than host_name are passed over.
func (h *Hello) parseServerName(data octets) (ok bool) {
	list, ok := data.vector16()
	if !ok || len(data) > 0 || len(list) == 0 {
		return false
	}
	for len(list) > 0 {
		kind, ok1 := list.uint8()
		name, ok2 := list.vector16()
		if !ok1 || !ok2 || len(name) == 0 {
			return false
		}
		if kind != 0 {
			continue
		}
		if h.ServerName != "" {
			return false
		}
		h.ServerName = string(name)
	}
	return true
}

// parseALPN reads a ProtocolNameList (RFC 7301 section 3.1).
func (h *Hello) parseALPN(data octets) (ok bool) {
	list, ok := data.vector16()
	if !ok || len(data) > 0 || len(list) == 0 {
		return false
	}
	n := 0
	for rest := list; len(rest) > 0; n++ {
		if name, ok := rest.vector8(); !ok || len(name) == 0 {
			return false
		}
	}
	h.ALPN = make([]string, 0, n)
	for all := string(list); all != ""; { // one string under all of the names
		end := 1 + int(all[0])
		h.ALPN = append(h.ALPN, all[1:end])
		all = all[end:]
	}
	return true
}

// parseVersions reads the versions of a client (RFC 8446 section 4.2.1).
func (h *Hello) parseVersions(data octets) (ok bool) {
	list, ok := data.vector8()
	if !ok || len(data) > 0 || len(list) == 0 || len(list)%2 != 0 {
		return false
	}
	h.Versions = make([]uint16, 0, len(list)/2)
	for len(list) > 0 {
		if v, _ := list.uint16(); !isGREASE(v) {
			h.Versions = append(h.Versions, v)
		}
	}
	return true
}

// isGREASE reports whether v is one of the reserved values of RFC 8701 section 2.
func isGREASE(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// upTo returns the versions that a client without supported_versions offers: from its legacy_version
// down to TLS 1.0, and TLS 1.3 never (RFC 8446 section 4.2.1).
func upTo(legacy uint16) []uint16 {
	versions := []uint16{0x0303, 0x0302, 0x0301}
	return slices.DeleteFunc(versions, func(v uint16) bool { return v > legacy })
}

// octets is read from the front. Its methods leave it as it is, and say false, when there is not enough.
type octets []byte

func (o *octets) skip(n int) bool {
	if len(*o) < n {
		return false
	}
	*o = (*o)[n:]
	return true
}

func (o *octets) uint8() (uint8, bool) {
	if len(*o) < 1 {
		return 0, false
	}
	v := (*o)[0]
	*o = (*o)[1:]
	return v, true
}

func (o *octets) uint16() (uint16, bool) {
	if len(*o) < 2 {
		return 0, false
	}
	v := uint16((*o)[0])<<8 | uint16((*o)[1])
	*o = (*o)[2:]
	return v, true
}

// vector8 reads a vector whose length stands in front of it in one octet.
func (o *octets) vector8() (octets, bool) {
	rest := *o
	n, ok := rest.uint8()
	if !ok || len(rest) < int(n) {
		return nil, false
	}
	*o = rest[n:]
	return rest[:n], true
}

// vector16 reads a vector whose length stands in front of it in two octets.
func (o *octets) vector16() (octets, bool) {
	rest := *o
	n, ok := rest.uint16()
	if !ok || len(rest) < int(n) {
		return nil, false
	}
	*o = rest[n:]
	return rest[:n], true
}
