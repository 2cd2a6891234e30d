package upstream

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

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
			b, err := NewBackend("b", []string{tt.in})
			if err != nil {
				t.Fatalf("NewBackend(%q): %v", tt.in, err)
			}
			if got := b.Servers; !slices.Equal(got, []string{tt.want}) || b.Name != "b" {
				t.Errorf("NewBackend(%q) = %q of backend %q, want %q", tt.in, got, b.Name, tt.want)
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
		{"too many", slices.Repeat([]string{"127.0.0.1:22"}, MaxServers+1), []string{"65 are listed, at most 64"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := NewBackend("b", tt.servers)
			if err == nil {
				t.Fatalf("NewBackend(%q) = %q, want an error", tt.servers, b.Servers)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("NewBackend(%q) says %q, want it to say %q", tt.servers, err, want)
				}
			}
		})
	}
	if _, err := NewBackend("b", slices.Repeat([]string{"127.0.0.1:22"}, MaxServers)); err != nil {
		t.Errorf("NewBackend of %d servers: %v", MaxServers, err)
	}
}

func TestOrder(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	b := &Backend{Name: "b", Servers: []string{"a:1", "b:1", "c:1"}}
	want := func(step string, now time.Time, order ...int) {
		t.Helper()
		if got := b.AppendOrder(nil, now); !slices.Equal(got, order) {
			t.Errorf("%s: AppendOrder = %v, want %v", step, got, order)
		}
	}
	want("at first", start, 0, 1, 2)
	b.Failed(0, start)
	want("the first has failed", start, 1, 2, 0)
	b.Failed(1, start.Add(time.Second))
	want("two have failed, in the order of the list", start.Add(time.Second), 2, 0, 1)
	b.Failed(2, start.Add(time.Second))
	want("all have failed", start.Add(2*time.Second), 0, 1, 2)
	want("just before the first is forgiven", start.Add(failureMemory-1), 0, 1, 2)
	want("the first is forgiven", start.Add(failureMemory), 0, 1, 2)
	b.Succeeded(2)
	want("the last works again", start.Add(2*time.Second), 2, 0, 1)
	want("the clock was set back", start.Add(-time.Hour), 0, 1, 2)
	want("all is forgotten", start.Add(time.Hour), 0, 1, 2)
	b.Failed(-1, start) // out of range is ignored
	b.Failed(MaxServers, start)
	b.Succeeded(MaxServers)
}

func TestOrderOfAnUncheckedList(t *testing.T) {
	b := &Backend{}
	for i := range MaxServers + 10 {
		b.Servers = append(b.Servers, fmt.Sprintf("10.0.0.%d:1", i))
	}
	now := time.Unix(1, 0)
	b.Failed(MaxServers-1, now)
	if got := len(b.AppendOrder(nil, now)); got != MaxServers {
		t.Errorf("AppendOrder gave %d servers, want %d", got, MaxServers)
	}
}

func TestOrderDoesNotAllocate(t *testing.T) {
	b := &Backend{Servers: []string{"127.0.0.1:22", "127.0.0.2:22"}}
	now := time.Unix(1, 0)
	b.Failed(0, now)
	var buf [4]int
	got := testing.AllocsPerRun(100, func() {
		for _, i := range b.AppendOrder(buf[:0], now) {
			if _, err := ParseServer(b.Servers[i]); err != nil {
				t.Fatal(err)
			}
		}
	})
	if got != 0 {
		t.Errorf("AppendOrder and ParseServer allocate %v times, want 0", got)
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
