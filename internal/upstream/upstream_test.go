package upstream

import (
	"strings"
	"testing"

	"polyport/internal/pool"
)

func newBackend(servers ...string) (*Backend, error) {
	return NewBackend(BackendOptions{Servers: servers, Pool: pool.Options{Name: "b"}}, nil)
}

func TestNewBackendNormalises(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"IPv4", "127.0.0.1:22", "127.0.0.1:22"},
		{"IPv6", "[::1]:22", "[::1]:22"},
		{"IPv6 written long", "[0:0:0:0:0:0:0:1]:22", "[::1]:22"},
		{"IPv4 in IPv6", "[::ffff:192.0.2.1]:22", "192.0.2.1:22"},
		{"zone is kept", "[fe80::1%eth0]:22", "[fe80::1%eth0]:22"},
		{"name", "git.example.com:443", "git.example.com:443"},
		{"upper case and trailing dot", "Git.Example.COM.:443", "git.example.com:443"},
		{"one label", "database:3306", "database:3306"},
		{"port with a zero in front", "127.0.0.1:0022", "127.0.0.1:22"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := newBackend(tt.in)
			if err != nil {
				t.Fatalf("NewBackend(%q): %v", tt.in, err)
			}
			if got := b.Server(0).String(); got != tt.want || b.Name() != "b" || b.Pool().Members()[0].Name() != tt.want {
				t.Errorf("NewBackend(%q) = %q of backend %q, want %q", tt.in, got, b.Name(), tt.want)
			}
		})
	}
}

func TestNewBackendListsEveryFault(t *testing.T) {
	tests := []struct {
		name    string
		servers []string
		want    []string // each must be in the error
	}{
		{"none", nil, []string{"servers: at least one"}},
		{"no port", []string{"127.0.0.1"}, []string{"servers[0]", "missing port"}},
		{"empty", []string{""}, []string{"servers[0]"}},
		{"port 0", []string{"127.0.0.1:0"}, []string{"servers[0]", "1 to 65535"}},
		{"port too large", []string{"127.0.0.1:65536"}, []string{"servers[0]", "1 to 65535"}},
		{"port in words", []string{"127.0.0.1:ssh"}, []string{"servers[0]", "1 to 65535"}},
		{"no host", []string{":22"}, []string{"servers[0]"}},
		{"IPv6 without brackets", []string{"::1:22"}, []string{"servers[0]", "[::1]:22"}},
		{"control byte", []string{"a\x00b:22"}, []string{"servers[0]"}},
		{"two faults and a good one", []string{"x", "127.0.0.1:22", "y:0"}, []string{"servers[0]", "servers[2]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := newBackend(tt.servers...)
			if err == nil {
				t.Fatalf("NewBackend(%q) = %q, want an error", tt.servers, b.Name())
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("NewBackend(%q) says %q, want it to say %q", tt.servers, err, want)
				}
			}
		})
	}
}

// FuzzParseServer: what is accepted prints as something that parses to the same.
func FuzzParseServer(f *testing.F) {
	for _, s := range []string{"127.0.0.1:22", "[::1]:22", "[fe80::1%eth0]:22", "a.example:1", "0x7f.1:80", "ΑΒ.example:1", ":", "[]:1", "[::ffff:1.2.3.4]:9"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := ParseServer(in)
		if err != nil {
			return
		}
		again, err := ParseServer(s.String())
		if err != nil || again != s {
			t.Errorf("ParseServer(%q) = %+v, which prints as %q and parses to %+v, %v", in, s, s, again, err)
		}
	})
}
