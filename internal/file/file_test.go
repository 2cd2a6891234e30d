package file

import (
	"encoding/pem"
	"errors"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func stamp(t *testing.T, path string) Stamp {
	t.Helper()
	s, err := StampOf(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStamp(t *testing.T) {
	dir := t.TempDir()
	a, b, link := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "link")
	write(t, a, "one")
	write(t, b, "one")
	if err := os.Symlink("a", link); err != nil {
		t.Fatal(err)
	}
	first, linked := stamp(t, a), stamp(t, link)
	if !first.Same(stamp(t, a)) || !first.Same(linked) {
		t.Error("a file that has not changed has another stamp")
	}
	none, err := StampOf(filepath.Join(dir, "none"))
	if !errors.Is(err, fs.ErrNotExist) || none.Same(first) || first.Same(none) || !none.Same(Stamp{}) || none.Mode() != 0 {
		t.Errorf("no file has the stamp %v, %v", none, err)
	}
	if err := errors.Join(os.Remove(link), os.Symlink("b", link)); err != nil {
		t.Fatal(err)
	}
	when := time.Now().Add(-time.Hour)
	if err := errors.Join(os.Chtimes(a, when, when), os.Chtimes(b, when, when)); err != nil {
		t.Fatal(err)
	}
	if stamp(t, link).Same(stamp(t, a)) {
		t.Error("a link to another file of the same size and time has the same stamp")
	}
	write(t, a, "three")
	if err := os.Chtimes(a, when, when); err != nil {
		t.Fatal(err)
	}
	if stamp(t, a).Same(first) {
		t.Error("another size has the same stamp")
	}
	if s := stamp(t, a); !s.Settled(when.Add(tick+time.Second)) || s.Settled(when.Add(tick)) || s.Settled(when.Add(-time.Hour)) {
		t.Error("a file is settled too early or too late")
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	write(t, path, "12345")
	if data, err := Read(path, 5); err != nil || string(data) != "12345" {
		t.Errorf("Read = %q, %v", data, err)
	}
	if _, err := Read(path, 4); err == nil || !strings.Contains(err.Error(), "larger than 4 bytes") {
		t.Errorf("Read of too much = %v", err)
	}
	if _, err := Read(filepath.Dir(path), 4); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("Read of a folder = %v", err)
	}
	if _, err := Read(os.DevNull, 4); err == nil || !strings.Contains(err.Error(), "is no plain file") {
		t.Errorf("Read of a device = %v", err)
	}
	if _, err := Read(path+"x", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of nothing = %v", err)
	}
}

func TestReplaceAndCreate(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "a"), filepath.Join(dir, "link")
	want := func(text string, mode os.FileMode) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err != nil || string(data) != text || stamp(t, path).Mode() != mode {
			t.Errorf("the file holds %q, %v, with mode %v; want %q and %v", data, err, stamp(t, path).Mode(), text, mode)
		}
	}
	if err := Create(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("one", 0o600)
	if err := Create(path, []byte("two"), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create over another = %v", err)
	}
	want("one", 0o600)
	if err := errors.Join(os.Symlink("a", link), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
	if err := Replace(link, []byte("three"), 0o600, 0o660); err != nil {
		t.Fatal(err)
	}
	want("three", 0o660)
	if to, err := os.Readlink(link); err != nil || to != "a" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if err := errors.Join(os.Remove(path), Replace(path, []byte("four"), 0o644, 0o666)); err != nil {
		t.Fatal(err)
	}
	want("four", 0o644)
	if err := Replace(filepath.Join(dir, "no", "a"), nil, 0o600, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Replace in no folder = %v", err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 2 {
		t.Errorf("the folder holds %v, %v", all, err)
	}
}

func TestCertPool(t *testing.T) {
	dir := t.TempDir()
	none, missing := filepath.Join(dir, "none"), filepath.Join(dir, "missing")
	write(t, none, "no certificate")
	if pool, err := CertPool(""); pool != nil || err != nil {
		t.Errorf("no file: %v, %v; want the system's CAs", pool, err)
	}
	if _, err := CertPool(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := CertPool(none); err == nil || !strings.Contains(err.Error(), "has no certificate in PEM") {
		t.Errorf("a file without a certificate: %v", err)
	}
	if err := os.Truncate(none, maxPool+1); err != nil {
		t.Fatal(err)
	}
	if _, err := CertPool(none); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("a file that is too large: %v", err)
	}
	if _, err := CertPool(os.DevNull); err == nil || !strings.Contains(err.Error(), "is no plain file") {
		t.Errorf("a device: %v", err)
	}
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	write(t, none, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})))
	if pool, err := CertPool(none); pool == nil || err != nil {
		t.Errorf("a certificate: %v, %v", pool, err)
	}
}
