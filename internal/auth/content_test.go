package auth

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
)

func TestRefreshReadsAtOnce(t *testing.T) {
	path := usersFile(t, "alice:"+cheap(t, "right"))
	u := open(t, Options{Path: path})
	if err := u.Refresh(); err != nil || u.Len() != 1 {
		t.Fatalf("Refresh of a file that has not changed = %v, with %d users", err, u.Len())
	}
	write(t, path, "alice:"+cheap(t, "right"), "bob:"+cheap(t, "right"))
	if err := u.Refresh(); err != nil || u.Len() != 2 {
		t.Errorf("Refresh = %v, with %d users; want nil, 2", err, u.Len())
	}
	write(t, path, "alice:plain", "bob:plain")
	err := u.Refresh()
	if err == nil || !strings.Contains(err.Error(), `"alice"`) || !strings.Contains(err.Error(), `"bob"`) || u.Len() != 2 {
		t.Errorf("Refresh of a bad file = %v, with %d users; want both lines, and the 2 from before", err, u.Len())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := u.Refresh(); !errors.Is(err, fs.ErrNotExist) || u.Len() != 2 {
		t.Errorf("Refresh without a file = %v, with %d users", err, u.Len())
	}
}
