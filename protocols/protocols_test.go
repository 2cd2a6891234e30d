package protocols

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	multierror "github.com/hashicorp/go-multierror"

	"polyport/internal/pool"
	"polyport/internal/upstream"
	"polyport/mux"
	"polyport/protocols/raw"
	"polyport/protocols/spec"
)

// decodeRaw stands for a file that has the rows of raw, and nothing else.
func decodeRaw(rows raw.Options) func(string, any) error {
	return func(_ string, into any) error {
		if o, ok := into.(*raw.Options); ok {
			*o = rows
		}
		return nil
	}
}

var oneBackend = spec.Env{
	Backend: func(name string) (*upstream.Backend, bool) {
		return newBackend(name, "127.0.0.1:22"), name == "ssh"
	},
	SilentTo: "ssh",
}

func TestRowsInOrder(t *testing.T) {
	rows, err := Rows(oneBackend, decodeRaw(raw.Options{"mine": {Prefix: []string{"SSH-"}, Backend: "ssh"}}))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.Name)
		if r.Match == nil || r.Handler == nil {
			t.Errorf("the row %s lacks a matcher or a handler", r.Name)
		}
	}
	want := []string{"mine", "silent", "http", "connect", "h2", "socks4", "socks5", "tls", mux.RowReject}
	if !slices.Equal(names, want) {
		t.Errorf("rows %v, want %v", names, want)
	}
}

// Whatever comes, some row takes it in the end, and the first that matches is the one.
func TestEachOpeningHasItsRow(t *testing.T) {
	rows, err := Rows(oneBackend, decodeRaw(nil))
	if err != nil {
		t.Fatal(err)
	}
	for opening, want := range map[string]string{
		"GET http://example.com/ HTTP/1.1\r\n":         "http",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":             "h2",
		"GET / HTTP/1.1\r\n":                           "http",
		"CONNECT example.com:443 HTTP/1.1\r\n":         "connect",
		"\x04\x01\x01\xbb\x00\x00\x00\x01\x00host\x00": "socks4",
		"\x05\x01\x00":                                 "socks5",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": "tls",
		"SSH-2.0-OpenSSH_9.9\r\n":                      mux.RowReject,
		"EHLO mail.example.com\r\n":                    mux.RowReject,
		"\x00\x00\x00\x08\x04\xd2\x16\x2f":             mux.RowReject,
	} {
		if got := rowOf(rows, opening); got != want {
			t.Errorf("%q is of the row %q, want %q", opening, got, want)
		}
	}
}

// rowOf returns the row of all that a client has sent.
func rowOf(rows []spec.Row, opening string) string {
	for _, r := range rows {
		if r.Match([]byte(opening)) == mux.Match {
			return r.Name
		}
	}
	return ""
}

func TestRowsListsEveryFaultWithItsPlace(t *testing.T) {
	broken := errors.New("key: broken")
	_, err := Rows(oneBackend, func(folder string, into any) error {
		if folder == "socks5" || folder == "tls" {
			return broken
		}
		return decodeRaw(raw.Options{"a": {Prefix: []string{"A"}, Backend: "none"}, "b": {Backend: "ssh"}})(folder, into)
	})
	var list *multierror.Error
	if !errors.As(err, &list) || !errors.Is(err, broken) {
		t.Fatalf("Rows = %v, want a list with its causes", err)
	}
	text := fmt.Sprint(list.Errors)
	for _, want := range []string{"raw.a.backend: ", "raw.b", "socks5.key: broken", "tls.key: broken"} {
		if !strings.Contains(text, want) {
			t.Errorf("the faults %s lack %q", text, want)
		}
	}
}

// newBackend makes a backend of servers that are well written.
func newBackend(name string, servers ...string) *upstream.Backend {
	b, err := upstream.NewBackend(upstream.BackendOptions{Servers: servers, Pool: pool.Options{Name: name}}, nil)
	if err != nil {
		panic(err)
	}
	return b
}
