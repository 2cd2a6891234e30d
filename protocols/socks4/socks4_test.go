package socks4

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"polyport/mux"
	"polyport/protocols/spec"
)

func TestNew(t *testing.T) {
	rows, err := New(spec.Env{}, func(any) error { return nil })
	if err != nil || len(rows) != 1 || rows[0].Name != "socks4" || rows[0].Handler == nil || rows[0].Match == nil {
		t.Errorf("New = %+v, %v, want the one row socks4", rows, err)
	}
	bad := errors.New("unknown key")
	if _, err := New(spec.Env{}, func(any) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("New with a bad table = %v, want %v", err, bad)
	}
}

func TestFirstBytesOfRealClients(t *testing.T) {
	f, err := os.Open("testdata/first-bytes.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := 0
	for sc := bufio.NewScanner(f); sc.Scan(); lines++ {
		fields := strings.Split(sc.Text(), "\t")
		if len(fields) != 3 {
			t.Fatalf("line %d has %d fields, want name, bytes and row", lines+1, len(fields))
		}
		sent, err := strconv.Unquote(fields[1])
		if err != nil {
			t.Fatalf("%s: %v", fields[0], err)
		}
		if got := match([]byte(sent)); (got == mux.Match) != (fields[2] == row) {
			t.Errorf("%s: match(%q) = %v, want the row %s", fields[0], sent, got, fields[2])
		}
	}
	if lines < 5 {
		t.Errorf("the corpus has %d lines, want more", lines)
	}
}
