package geoip

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"polyport/internal/file"
)

// watching is a Database in a bubble of time, whose complaints a test reads.
type watching struct {
	*Database
	path string

	mu   sync.Mutex
	said []string // guarded by mu
}

func watchedFile(t *testing.T, data []byte) *watching {
	t.Helper()
	w := &watching{path: filepath.Join(t.TempDir(), "country.mmdb")}
	w.write(t, data)
	d, err := Open(w.path, func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.said = append(w.said, err.Error())
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Database = d
	return w
}

// write overwrites the file in place at the bubble's time.
func (w *watching) write(t *testing.T, data []byte) {
	t.Helper()
	if err := os.WriteFile(w.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	w.touch(t, time.Now())
}

func (w *watching) touch(t *testing.T, at time.Time) {
	t.Helper()
	if err := os.Chtimes(w.path, at, at); err != nil {
		t.Fatal(err)
	}
}

// pass lets time pass, and a little more, so that the look at its end has been.
func (w *watching) pass(d time.Duration) {
	time.Sleep(d + time.Millisecond)
	synctest.Wait()
}

// want wants this country, and one complaint with this text since the last time or, for "", none.
func (w *watching) want(t *testing.T, country, said string) {
	t.Helper()
	wantCountry(t, w.Database, "8.8.8.8", country)
	w.mu.Lock()
	defer w.mu.Unlock()
	if said == "" && len(w.said) > 0 || said != "" && (len(w.said) != 1 || !strings.Contains(w.said[0], said)) {
		t.Errorf("it said %q, want once %q", w.said, said)
	}
	w.said = nil
}

func TestWatch(t *testing.T) {
	german, french := all(t, "DE"), all(t, "FR")
	tests := []struct {
		name string
		run  func(t *testing.T, w *watching)
	}{
		{"replaced by an older file", func(t *testing.T, w *watching) {
			put(t, w.path, french)
			w.touch(t, time.Now().Add(-time.Hour))
			w.pass(time.Second)
			w.want(t, "fr", "")
		}},
		{"replaced by a file of this moment", func(t *testing.T, w *watching) {
			put(t, w.path, french)
			w.touch(t, time.Now())
			w.pass(time.Second)
			w.want(t, "de", "")
			w.pass(4 * time.Second)
			w.want(t, "fr", "")
		}},
		{"replaced by a file of the future", func(t *testing.T, w *watching) {
			put(t, w.path, french)
			w.touch(t, time.Now().Add(time.Hour))
			w.pass(5 * time.Second)
			w.want(t, "fr", "")
		}},
		{"changed as soon as it was opened, within the clock's tick", func(t *testing.T, w *watching) {
			before := time.Now()
			w.write(t, german)
			if err := w.refresh(); err != nil {
				t.Fatal(err)
			}
			w.write(t, french) // as long as the other one
			w.touch(t, before)
			w.pass(5 * time.Second)
			w.want(t, "fr", "")
		}},
		{"copied over, slowly", func(t *testing.T, w *watching) {
			for n := 0; n < len(french); n += len(french)/20 + 1 {
				w.write(t, french[:n])
				w.pass(time.Second)
				w.want(t, "de", "")
			}
			w.write(t, french)
			w.pass(5 * time.Second)
			w.want(t, "fr", "")
		}},
		{"broken, and whole again", func(t *testing.T, w *watching) {
			w.write(t, french[:len(french)/2])
			w.pass(5 * time.Second)
			w.want(t, "de", "the change cannot be taken and the old one holds: "+w.path+": ")
			w.pass(5 * time.Minute)
			w.want(t, "de", "")
			w.write(t, []byte("x"))
			w.pass(5 * time.Second)
			w.want(t, "de", "it is no whole database")
			w.write(t, french)
			w.pass(5 * time.Second)
			w.want(t, "fr", "")
		}},
		{"removed, and back", func(t *testing.T, w *watching) {
			if err := os.Rename(w.path, w.path+".old"); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Second)
			w.want(t, "de", "")
			w.pass(time.Minute)
			w.want(t, "de", "no such file")
			if err := os.Rename(w.path+".old", w.path); err != nil {
				t.Fatal(err)
			}
			w.pass(5 * time.Second)
			w.want(t, "de", "")
			if err := os.Remove(w.path); err != nil {
				t.Fatal(err)
			}
			w.pass(5 * time.Second)
			w.want(t, "de", "no such file") // another change than the first
		}},
		{"a folder for half a minute", func(t *testing.T, w *watching) {
			if err := os.Rename(w.path, w.path+".old"); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(w.path, 0o700); err != nil {
				t.Fatal(err)
			}
			w.touch(t, time.Now().Add(-time.Hour))
			w.pass(time.Minute)
			w.want(t, "de", "is a folder")
		}},
		{"closed", func(t *testing.T, w *watching) {
			w.Close()
			put(t, w.path, french)
			w.pass(time.Minute)
			w.want(t, "de", "")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watchedFile(t, german)
				defer w.Close()
				w.pass(10 * time.Second)
				tt.run(t, w)
			})
		})
	}
}

// A file that has not changed is not read again, once a change would be noticed.
func TestReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchedFile(t, all(t, "DE"))
		defer w.Close()
		first := w.now.Load()
		w.pass(10 * time.Second)
		second := w.now.Load()
		if first == second {
			t.Error("a file that was opened as soon as it was written is not read again")
		}
		if err := w.refresh(); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		if w.now.Load() != second {
			t.Error("a file that has not changed is read again")
		}
	})
}

// A fault that passes without a change of the file, such as wrong permissions, is noticed to have passed.
func TestRetries(t *testing.T) {
	var w watched
	path := filepath.Join(t.TempDir(), "country.mmdb")
	put(t, path, all(t, "DE"))
	start := time.Now().Add(time.Hour)
	st, due := w.look(path, start)
	if !due || !w.refused(st, start, fs.ErrPermission) {
		t.Fatalf("a new file is due: %v", due)
	}
	for _, tt := range []struct {
		after time.Duration
		want  bool
	}{{time.Second, false}, {29 * time.Second, false}, {30 * time.Second, true}} {
		st, due := w.look(path, start.Add(tt.after))
		if due != tt.want || due && w.refused(st, start.Add(tt.after), fs.ErrPermission) {
			t.Errorf("after %v it is due: %v, want %v, and not to be told again", tt.after, due, tt.want)
		}
	}
}

func TestReplacedUnderLookups(t *testing.T) {
	path, d := opened(t, all(t, "DE"), nil)
	stop := make(chan struct{})
	var lookups sync.WaitGroup
	for _, s := range []string{"8.8.8.8", "2a00::1", "2002:808:808::1", "::ffff:8.8.8.8"} {
		a := netip.MustParseAddr(s)
		lookups.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := d.Country(a); got != "de" && got != "fr" {
					t.Errorf("%v is in %q, want de or fr", a, got)
					return
				}
			}
		})
	}
	files := [][]byte{all(t, "FR"), all(t, "DE")}
	for i := range 100 {
		put(t, path, files[i%2])
		if err := d.refresh(); err != nil {
			t.Errorf("refresh = %v", err)
		}
		wantCountry(t, d, "8.8.8.8", []string{"fr", "de"}[i%2])
	}
	close(stop)
	lookups.Wait()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := d.refresh(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("refresh of no file = %v", err)
	}
	wantCountry(t, d, "8.8.8.8", "de")
}

// refresh reads the file now if it has changed, for tests that cannot wait for the watch.
func (d *Database) refresh() error {
	d.reading.Lock()
	defer d.reading.Unlock()
	st, _ := file.StampOf(d.path)
	if d.settled && st.Same(d.taken) {
		return nil
	}
	now := time.Now()
	fresh, err := load(context.Background(), d.path)
	if err != nil {
		d.refused(st, now, err)
		return err
	}
	d.now.Store(fresh)
	d.took(st, st.Settled(now))
	return nil
}
