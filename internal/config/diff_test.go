package config

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	const before = `
[listen.main]
address = ["127.0.0.1:1"]
[listen.dmz]
address = ["127.0.0.1:2"]
[[rule]]
action = "allow"
client = ["10.0.0.0/8"]
`
	tests := []struct {
		name, after string
		relisten    []string
	}{
		{"the same", before, nil},
		{"what is live", before + "[[rule]]\naction = \"deny\"\n[sniff]\ntimeout = \"9s\"\n[limits]\nconnections = 1\n[log]\nlevel = \"debug\"\n[backend.a]\nservers = [\"a:1\"]\n", nil},
		{"every key of a listener", `
[listen.main]
address = ["127.0.0.1:1", "[::1]:1"]
protocols = ["http"]
require_user = true
proxy_protocol_from = ["192.0.2.1"]
public_address = "a:1"
help_page = false
[listen.dmz]
address = ["127.0.0.1:2"]
`, []string{"listen.main.address", "listen.main.protocols", "listen.main.proxy_protocol_from"}},
		{"tables that come and go", "[listen.main]\naddress = [\"127.0.0.1:1\"]\n[listen.wifi]\naddress = [\"127.0.0.1:2\"]\n", []string{"listen.dmz", "listen.wifi"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			restart, relisten := Diff(parseWell(t, before), parseWell(t, tt.after))
			if diff := cmp.Diff(tt.relisten, relisten); diff != "" || restart != nil {
				t.Errorf("restart %q, relisten (-want +got):\n%s", restart, diff)
			}
		})
	}
}

// Keys of the class restart are told apart, though no key of the file is of that class yet.
func TestDiffRestart(t *testing.T) {
	type section struct {
		Socket string `toml:"socket" reload:"restart"`
		Other  string `toml:"other" reload:"live"`
	}
	type file struct {
		Admin section `toml:"admin"`
	}
	d := &diff{}
	d.structs(root, reflect.ValueOf(file{section{"a", "b"}}), reflect.ValueOf(file{section{"c", "d"}}))
	if want := []string{"admin.socket"}; !cmp.Equal(d.restart, want) || d.relisten != nil {
		t.Errorf("restart %q, relisten %q; want %q and none", d.restart, d.relisten, want)
	}
}
