//go:build unix

package auth

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// valid reports whether a file lets a user in.
func valid(t *testing.T, path, user, password string) bool {
	t.Helper()
	u := open(t, Options{Path: path})
	_, err := u.Authenticate(t.Context(), here, Credentials{user, password})
	return err == nil
}

func TestSetUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	replaced, err := SetUser(path, "alice", "first password")
	if err != nil || replaced {
		t.Fatalf("SetUser in a new file = %v, %v", replaced, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the new file has mode %v, %v, want 0600", info.Mode(), err)
	}
	if !strings.HasPrefix(read(t, path), "alice:$2a$10$") || !valid(t, path, "alice", "first password") {
		t.Errorf("the file is %q", read(t, path))
	}
	replaced, err = setUser(path, "bob", "bobs password", bcrypt.MinCost)
	if err != nil || replaced {
		t.Errorf("SetUser of a second user = %v, %v", replaced, err)
	}
	replaced, err = setUser(path, "alice", "second password", bcrypt.MinCost)
	if err != nil || !replaced {
		t.Errorf("SetUser of the first again = %v, %v", replaced, err)
	}
	if valid(t, path, "alice", "first password") || !valid(t, path, "alice", "second password") || !valid(t, path, "bob", "bobs password") {
		t.Errorf("the file is %q", read(t, path))
	}
}

func TestEditKeepsOtherLines(t *testing.T) {
	hash := cheap(t, "x")
	path := usersFile(t, "# people", "", "alice:"+hash, "# alicia:x", "bob:plain text", "alicia:"+hash, "alice:"+hash, "carol:"+hash)
	if _, err := setUser(path, "alice", "new password", bcrypt.MinCost); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(read(t, path), "\n")
	if len(lines) < 3 || !strings.HasPrefix(lines[2], "alice:$2a$04$") {
		t.Fatalf("the file is %q", lines)
	}
	lines[2] = "alice"
	want := []string{"# people", "", "alice", "# alicia:x", "bob:plain text", "alicia:" + hash, "carol:" + hash, ""}
	if !slices.Equal(lines, want) {
		t.Errorf("after SetUser the file is %q, want %q", lines, want)
	}
	if err := RemoveUser(path, "bob"); err != nil {
		t.Fatal(err)
	}
	names, err := ListUsers(path)
	if err != nil || !slices.Equal(names, []string{"alice", "alicia", "carol"}) {
		t.Errorf("ListUsers = %q, %v", names, err)
	}
	for _, name := range names {
		if err := RemoveUser(path, name); err != nil {
			t.Error(err)
		}
	}
	if got, want := read(t, path), "# people\n\n# alicia:x\n"; got != want {
		t.Errorf("after all were removed the file is %q, want %q", got, want)
	}
}

func TestEditOfDOSLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	hash := cheap(t, "x")
	if err := os.WriteFile(path, []byte("\ufeffalice:"+hash+"\r\nbob:"+hash), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := RemoveUser(path, "alice"); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, path), "bob:"+hash+"\n"; got != want {
		t.Errorf("the file is %q, want %q", got, want)
	}
}

func TestEditErrors(t *testing.T) {
	path := usersFile(t, "alice:"+cheap(t, "x"))
	before := read(t, path)
	fine := "a fine password"
	tests := []struct {
		name, user, password, says string
	}{
		{"colon", "a:b", fine, "colon"},
		{"line end", "a\nb", fine, "control character"},
		{"NUL", "a\x00b", fine, "control character"},
		{"C1 control", "a\u0085b", fine, "control character"},
		{"no name", "", fine, "empty"},
		{"endless name", strings.Repeat("x", 256), fine, "longer than 255"},
		{"not UTF-8", "\xff", fine, "UTF-8"},
		{"comment", "#alice", fine, "begins with #"},
		{"space in front", " alice", fine, "space"},
		{"no password", "bob", "", "shorter than 8"},
		{"short password", "bob", "1234567", "shorter than 8"},
		{"few but long characters", "bob", "ääääää", "shorter than 8"},
		{"long password", "bob", strings.Repeat("x", 73), "longer than 72 bytes"},
		{"long in bytes", "bob", strings.Repeat("ä", 37), "longer than 72 bytes"},
		{"control byte in the password", "bob", "a fine\npassword", "control character"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := SetUser(path, tt.user, tt.password)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("SetUser(%q, %q) = %v, want it to say %q", tt.user, tt.password, err, tt.says)
			}
			if err != nil && len(tt.password) > 5 && strings.Contains(err.Error(), tt.password) {
				t.Errorf("the error %q shows the password", err)
			}
		})
	}
	for _, ok := range []string{"12345678", strings.Repeat("x", 72), "        "} {
		if err := checkPassword(ok); err != nil {
			t.Errorf("checkPassword(%q) = %v", ok, err)
		}
	}
	if err := RemoveUser(path, "bob"); !errors.Is(err, ErrNoUser) || !strings.Contains(err.Error(), "bob") {
		t.Errorf("RemoveUser of nobody = %v, want ErrNoUser", err)
	}
	if err := RemoveUser(path, "alice:x"); err == nil {
		t.Error("RemoveUser takes a name with a colon")
	}
	if read(t, path) != before {
		t.Errorf("a failed edit has changed the file to %q", read(t, path))
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if err := RemoveUser(missing, "alice"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("RemoveUser in no file = %v", err)
	}
	if _, err := ListUsers(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ListUsers of no file = %v", err)
	}
	if _, err := SetUser(filepath.Join(missing, "users"), "alice", fine); err == nil {
		t.Error("SetUser in no folder succeeds")
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("beside the file stand %v, %v, want nothing", left, err)
	}
}

// What root edits stays readable for the gateway's own user.
func TestEditKeepsOwner(t *testing.T) {
	path := usersFile(t, "bob:"+cheap(t, "x"))
	if os.Getuid() == 0 {
		if err := os.Chown(path, 12345, 23456); err != nil {
			t.Fatal(err)
		}
	}
	owner := func() [2]uint32 {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		return [2]uint32{st.Uid, st.Gid}
	}
	before := owner()
	if err := RemoveUser(path, "bob"); err != nil {
		t.Fatal(err)
	}
	if after := owner(); after != before {
		t.Errorf("the owner is %v after an edit, %v before", after, before)
	}
}

func TestEditKeepsModeAndPlace(t *testing.T) {
	folder := t.TempDir()
	path, link := filepath.Join(folder, "real"), filepath.Join(folder, "link")
	for mode, want := range map[fs.FileMode]fs.FileMode{0o600: 0o600, 0o640: 0o640, 0o644: 0o640, 0o400: 0o600} {
		os.Remove(path)
		if err := os.WriteFile(path, []byte("alice:"+cheap(t, "x")+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := RemoveUser(path, "alice"); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("a file of mode %o got %o, %v, want %o", mode, info.Mode().Perm(), err, want)
		}
	}
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if _, err := setUser(link, "carol", "some password", bcrypt.MinCost); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 || !valid(t, path, "carol", "some password") {
		t.Errorf("the link is now %v, %v, and the file %q", info.Mode(), err, read(t, path))
	}
}
