package httpproxy

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"

	"polyport/internal/http1"
	"polyport/protocols/spec"
)

func TestForwardedFor(t *testing.T) {
	tests := []struct {
		addr netip.Addr
		want string
	}{
		{netip.MustParseAddr("192.0.2.1"), "for=192.0.2.1"},
		{netip.MustParseAddr("2001:db8::1"), `for="[2001:db8::1]"`},
		{netip.Addr{}, "for=unknown"},
	}
	for _, tt := range tests {
		want(t, "forwardedFor", forwardedFor(tt.addr), tt.want)
	}
}

func TestHides(t *testing.T) {
	tests := []struct {
		name                   string
		off, client, hideProxy bool
	}{
		{"Via", false, false, true},
		{"via", false, false, true},
		{"Forwarded", false, true, true},
		{"X-Forwarded-For", false, true, true},
		{"x-forwarded-anything", false, true, true},
		{"X-Forwarded-", false, false, false},
		{"X-Forwarded", false, false, false},
		{"X-Real-IP", false, true, true},
		{"Client-IP", false, true, true},
		{"True-Client-IP", false, true, true},
		{"X-Client-IP", false, false, false},
		{"Cookie", false, false, false},
		{"", false, false, false},
	}
	for _, tt := range tests {
		for level, wanted := range map[anonymity]bool{anonymityOff: tt.off, hideClient: tt.client, hideProxy: tt.hideProxy} {
			if got := level.hides([]byte(tt.name)); got != wanted {
				t.Errorf("level %d hides %q: %v, want %v", level, tt.name, got, wanted)
			}
		}
	}
}

func TestWished(t *testing.T) {
	tests := []struct {
		wish, switched string
		want           bool
	}{
		{"websocket", "websocket", true},
		{"websocket", "WebSocket", true},
		{"a, websocket", "websocket", true},
		{"websocket", "", false},
		{"websocket", "a", false},
		{"websocket", "websocket, a", false},
		{"a/1", "a/2", false},
	}
	for _, tt := range tests {
		if got := wished(tt.wish, []byte(tt.switched)); got != tt.want {
			t.Errorf("wished(%q, %q) = %v, want %v", tt.wish, tt.switched, got, tt.want)
		}
	}
}

// FuzzUpgradeWish: what is left of an Upgrade field asks for no HTTP, and asking
// again takes nothing more away.
func FuzzUpgradeWish(f *testing.F) {
	for _, s := range []string{"websocket", "h2c", "h2c, websocket", "\"a,b\", HTTP/2.0", ","} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		wish := upgradeWish(value)
		for p := range http1.List([]byte(wish)) {
			name, _, _ := bytes.Cut(p, []byte("/"))
			if strings.EqualFold(string(name), "h2c") || strings.EqualFold(string(name), "http") {
				t.Errorf("upgradeWish(%q) = %q", value, wish)
			}
		}
		if again := upgradeWish([]byte(wish)); again != wish {
			t.Errorf("upgradeWish(%q) = %q and then %q", value, wish, again)
		}
		if wish != "" && !wished(wish, []byte(wish)) {
			t.Errorf("%q is not what was wished for", wish)
		}
	})
}

// FuzzParseBasic: what is accepted is exactly what RFC 7617 writes down, and what
// an encoder makes of clean credentials is accepted.
func FuzzParseBasic(f *testing.F) {
	f.Add("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
	f.Add("basic dGVzdDoxMjPCow==")
	f.Add("Basic ")
	f.Add("Basic YQ==")
	f.Add("NTLM TlRMTVNTUAAB")
	f.Fuzz(func(t *testing.T, value string) {
		c, err := parseBasic(value)
		if err != nil {
			if c.User != "" || c.Password != "" {
				t.Errorf("parseBasic(%q) = %q and an error", value, c)
			}
			if token, ok := strings.CutPrefix(value, "Basic "); ok && strings.Contains(err.Error(), token) && len(token) > 20 {
				t.Errorf("the error %q shows the field", err)
			}
			return
		}
		if strings.ContainsRune(c.User, ':') || !plainText(c.User) || !plainText(c.Password) {
			t.Errorf("parseBasic(%q) = %q", value, c)
		}
		again, err := parseBasic("Basic " + base64.StdEncoding.EncodeToString([]byte(c.User+":"+c.Password)))
		if err != nil || again != c {
			t.Errorf("encoded again it is %q, %v; want %q", again, err, c)
		}
	})
}

func TestNew(t *testing.T) {
	none := func(any) error { return nil }
	rows, err := New(spec.Env{}, none)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 3 || rows[0].Name != "http" || rows[1].Name != "connect" || rows[0].Handler != rows[1].Handler {
		t.Errorf("rows %+v, want http and connect with one handler", rows)
	}
	if h := rows[0].Handler.(*handler); h.anonymity != hideClient {
		t.Errorf("the default level is %d, want hide-client", h.anonymity)
	}
	if _, err := New(spec.Env{HTTP: spec.HTTP{Anonymity: "elite"}}, none); err == nil || !strings.Contains(err.Error(), "http.anonymity") {
		t.Errorf("a level that does not exist: %v, want an error that names the key", err)
	}
	if _, err := New(spec.Env{}, func(any) error { return errNoName }); err != errNoName {
		t.Errorf("error %v, want that of decode", err)
	}
}
