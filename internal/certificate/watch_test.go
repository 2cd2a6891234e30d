package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ocsp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clocked is a Store whose time a test moves and whose complaints it reads. Its
// files are looked at when the test says so.
type clocked struct {
	*Store
	at   atomic.Int64
	said []string
}

func openClocked(t *testing.T, o Options) *clocked {
	t.Helper()
	c := &clocked{}
	c.at.Store(time.Now().UnixNano())
	o.Now = func() time.Time { return time.Unix(0, c.at.Load()) }
	o.Log = func(err error) { c.said = append(c.said, err.Error()) }
	c.Store = open(t, o)
	c.Close() // its own goroutine looks no more
	c.stop, c.done = func() {}, closed()
	return c
}

func closed() chan struct{} { c := make(chan struct{}); close(c); return c }

// pass lets time pass, with a look each second.
func (c *clocked) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		c.at.Add(int64(time.Second))
		c.look()
	}
}

// wantSaid wants one complaint with this text since the last time, or none.
func (c *clocked) wantSaid(t *testing.T, want string, failures uint64) {
	t.Helper()
	switch {
	case want == "" && len(c.said) > 0:
		t.Errorf("it complained: %q", c.said)
	case want != "" && (len(c.said) != 1 || !strings.Contains(c.said[0], want)):
		t.Errorf("it said %q, want once %q", c.said, want)
	}
	if got := c.Stats().Failures; got != failures {
		t.Errorf("it counts %d failures, want %d", got, failures)
	}
	c.said = nil
}

func TestRereadsAPair(t *testing.T) {
	f := newFolder(t)
	p := f.pair(t, "x", serverOf(t, nil, nil, "a.example"))
	s := openClocked(t, Options{Pairs: []Pair{p}})
	s.pass(10 * time.Second)
	next := serverOf(t, nil, nil, "b.example")
	f.write(t, "x.pem", next.pem())
	s.pass(3 * time.Second) // as long as the key is not there, the old pair stays
	if !s.Owns("a.example") || s.Owns("b.example") {
		t.Errorf("half a pair was taken: %q", s.Names())
	}
	s.wantSaid(t, "", 0)
	f.write(t, "x.key", next.keyPEM(t))
	s.pass(time.Second)
	if s.Owns("a.example") || !s.Owns("b.example") {
		t.Errorf("the new pair was not taken: %q", s.Names())
	}
	s.pass(time.Minute)
	s.wantSaid(t, "", 0)

	f.write(t, "x.key", serverOf(t, nil, nil, "c.example").keyPEM(t))
	s.pass(10 * time.Minute)
	s.wantSaid(t, "certificate.x.key: the key in", 1)
	if !s.Owns("b.example") {
		t.Errorf("the old pair is gone: %q", s.Names())
	}
	f.write(t, "x.key", "nonsense") // another change, another complaint
	s.pass(10 * time.Minute)
	s.wantSaid(t, "there is no PEM private key", 2)
	if err := os.Remove(p.Key); err != nil {
		t.Fatal(err)
	}
	s.pass(10 * time.Minute)
	s.wantSaid(t, "there is no file", 3)
	f.write(t, "x.key", next.keyPEM(t))
	s.pass(time.Minute)
	s.wantSaid(t, "", 3)
	if got := shake(t, s.Config(), &tls.Config{InsecureSkipVerify: true, ServerName: "b.example"}); got.err() != "" {
		t.Error(got.err())
	}
}

// A certificate that is written before its time is taken when it has come.
func TestTakesWhatTimeHeals(t *testing.T) {
	f := newFolder(t)
	p := f.pair(t, "x", serverOf(t, nil, nil, "a.example"))
	s := openClocked(t, Options{Pairs: []Pair{p}})
	f.pair(t, "x", certOf(t, x509.Certificate{DNSNames: []string{"b.example"}, NotBefore: time.Now().Add(time.Minute)}, nil, nil))
	s.pass(10 * time.Second)
	s.wantSaid(t, "not valid before", 1)
	s.pass(90 * time.Second)
	if !s.Owns("b.example") {
		t.Error("it was not tried again")
	}
}

// Files that stay as they are are not read again.
func TestReadsNothingTwice(t *testing.T) {
	f := newFolder(t)
	root := caOf(t, "root", nil)
	s := openClocked(t, Options{
		Pairs:   []Pair{f.pair(t, "x", serverOf(t, nil, nil, "a.example"))},
		Clients: Clients{CA: f.write(t, "ca", root.pem())},
	})
	s.pass(10 * time.Second)
	before := s.current.Load()
	s.pass(time.Hour)
	if s.current.Load() != before {
		t.Error("unchanged files were read again")
	}
}

// An expired certificate is shown on, for want of another, and complained of once.
func TestExpiresWhileItRuns(t *testing.T) {
	f := newFolder(t)
	p := f.pair(t, "x", serverOf(t, nil, nil, "a.example"))
	s := openClocked(t, Options{Pairs: []Pair{p}})
	s.pass(10 * time.Second)
	s.at.Add(int64(100 * 24 * time.Hour))
	s.pass(time.Minute)
	s.wantSaid(t, "certificate.x.certificate: the certificate expired on", 1)
	if !s.Owns("a.example") {
		t.Error("the name is gone")
	}
}

// Kubernetes and certbot swap links, and leave the files behind them alone.
func TestRereadsSwappedLinks(t *testing.T) {
	f := newFolder(t)
	for name, c := range map[string]*issuedCert{"v1": serverOf(t, nil, nil, "a.example"), "v2": serverOf(t, nil, nil, "b.example")} {
		if err := os.Mkdir(f.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
		folder(f.path(name)).pair(t, "tls", c)
	}
	link := func(to, name string) {
		t.Helper()
		if err := errors.Join(os.Symlink(to, f.path("new")), os.Rename(f.path("new"), f.path(name))); err != nil {
			t.Fatal(err)
		}
	}
	link("v1", "..data")
	link(filepath.Join("..data", "tls.pem"), "tls.pem")
	link(filepath.Join("..data", "tls.key"), "tls.key")
	s := openClocked(t, Options{Pairs: []Pair{{Name: "x", Certificate: f.path("tls.pem"), Key: f.path("tls.key")}}})
	s.pass(10 * time.Second)
	link("v2", "..data")
	s.pass(time.Second)
	if !s.Owns("b.example") || s.Owns("a.example") {
		t.Errorf("the swapped link was not noticed: %q", s.Names())
	}
	s.wantSaid(t, "", 0)
}

func TestKeepsNamesThatItMust(t *testing.T) {
	f := newFolder(t)
	p := f.pair(t, "x", serverOf(t, nil, nil, "a.example"))
	s := openClocked(t, Options{Pairs: []Pair{p}, Names: []string{"a.example"}})
	f.pair(t, "x", certOf(t, x509.Certificate{DNSNames: []string{"b.example"}, NotAfter: time.Now().AddDate(2, 0, 0)}, nil, nil))
	s.pass(10 * time.Second)
	s.wantSaid(t, `names[0]: no certificate has the name "a.example"`, 1)
	if !s.Owns("a.example") {
		t.Error("the name has lost its certificate")
	}
	s.at.Add(int64(100 * 24 * time.Hour)) // the old one is of no use to anybody now
	s.pass(time.Minute)
	s.wantSaid(t, "", 1)
	if !s.Owns("b.example") {
		t.Error("an expired certificate is kept although there is another")
	}
}

func TestStaplesWhileItIsTime(t *testing.T) {
	f := newFolder(t)
	root := caOf(t, "root", nil)
	middle := caOf(t, "middle", root)
	c := serverOf(t, middle, nil, "a.example")
	p := f.pair(t, "x", c)
	p.OCSP = f.write(t, "ocsp", string(responseOf(t, c, middle, ocsp.Response{})))
	s := openClocked(t, Options{Pairs: []Pair{p}})
	stapled := func(want bool) {
		t.Helper()
		got := shake(t, s.Config(), &tls.Config{InsecureSkipVerify: true, ServerName: "a.example"})
		if has := len(got.client.OCSPResponse) > 0; has != want || s.Stats().Pairs[0].Stapled != want {
			t.Errorf("stapled: %v and %v, want %v; %s", has, s.Stats().Pairs[0].Stapled, want, got.err())
		}
	}
	s.pass(10 * time.Second)
	stapled(true)
	f.write(t, "ocsp", "nonsense")
	s.pass(10 * time.Second)
	s.wantSaid(t, "certificate.x.ocsp: ", 1)
	stapled(true) // the old one is still good
	s.at.Add(int64(24 * time.Hour))
	s.pass(20 * time.Second)
	s.wantSaid(t, "is no longer stapled", 2)
	stapled(false)
	f.write(t, "ocsp", string(responseOf(t, c, middle, ocsp.Response{ThisUpdate: s.now()})))
	s.pass(time.Second)
	stapled(true)

	next := serverOf(t, middle, nil, "a.example", "b.example") // renewed; the response comes later
	f.pair(t, "x", next)
	s.pass(time.Second)
	if !s.Owns("b.example") {
		t.Error("the renewed certificate waits for its response")
	}
	stapled(false)
	f.write(t, "ocsp", string(responseOf(t, next, middle, ocsp.Response{ThisUpdate: s.now()})))
	s.pass(2 * time.Second)
	stapled(true)
	s.wantSaid(t, "", 2)
}

func TestRereadsClients(t *testing.T) {
	f := newFolder(t)
	root := caOf(t, "root", nil)
	alice := clientOf(t, root, "alice")
	s := openClocked(t, Options{
		Pairs:   []Pair{f.pair(t, "x", serverOf(t, nil, nil, "a.example"))},
		Clients: Clients{CA: f.write(t, "ca", root.pem()), CRL: f.write(t, "crl", crlPEM(crlOf(t, root, x509.RevocationList{})))},
	})
	client := resuming(alice, 0)
	welcome := func(want error) {
		t.Helper()
		if got := shake(t, s.Config(), client); !errors.Is(got.serverErr, want) {
			t.Errorf("the server ends with %v, want %v", got.serverErr, want)
		}
	}
	s.pass(10 * time.Second)
	welcome(nil)
	f.write(t, "crl", crlPEM(crlOf(t, root, x509.RevocationList{}, alice)))
	s.pass(time.Second)
	welcome(ErrRevoked)
	f.write(t, "crl", "nonsense")
	s.pass(time.Minute)
	s.wantSaid(t, "client_crl: ", 1)
	welcome(ErrRevoked)
	s.at.Add(int64(48 * time.Hour)) // its time is over, and who is revoked stays so
	s.pass(5 * time.Minute)
	s.wantSaid(t, "later revocations are not known", 2)
	welcome(ErrRevoked)
	f.write(t, "crl", crlPEM(crlOf(t, root, x509.RevocationList{ThisUpdate: s.now()})))
	s.pass(time.Second)
	welcome(nil)
}

func TestRefresh(t *testing.T) {
	f := newFolder(t)
	p := f.pair(t, "x", serverOf(t, nil, nil, "a.example"))
	s := openClocked(t, Options{Pairs: []Pair{p}})
	f.pair(t, "x", serverOf(t, nil, nil, "b.example"))
	if err := s.Refresh(); err != nil || !s.Owns("b.example") {
		t.Errorf("Refresh = %v, and the names are %q", err, s.Names())
	}
	if err := os.Remove(p.Key); err != nil {
		t.Fatal(err)
	}
	err := s.Refresh()
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "certificate.x.key: ") || !s.Owns("b.example") {
		t.Errorf("Refresh = %v, and the names are %q", err, s.Names())
	}
	s.pass(time.Minute)
	s.wantSaid(t, "", 1) // who asked has heard it
}

// The Store looks by itself, once a second.
func TestLooksByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolder(t)
		p := f.pair(t, "x", serverOf(t, nil, nil, "a.example"))
		s, err := Open(Options{Pairs: []Pair{p}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		f.pair(t, "x", serverOf(t, nil, nil, "b.example"))
		time.Sleep(lookEvery - time.Millisecond)
		synctest.Wait()
		if !s.Owns("a.example") {
			t.Error("it looked too soon")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if !s.Owns("b.example") {
			t.Error("it did not look")
		}
	})
}

// No handshake fails while the files change under them.
func TestRereadUnderLoad(t *testing.T) {
	f := newFolder(t)
	root := caOf(t, "root", nil)
	p := f.pair(t, "x", serverOf(t, root, nil, "a.example"))
	s := open(t, Options{Pairs: []Pair{p}, Clients: Clients{CA: f.write(t, "ca", root.pem()), Require: true}})
	alice := clientOf(t, root, "alice")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		client := resuming(alice, 0)
		client.InsecureSkipVerify, client.RootCAs = false, root.pool()
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := shake(t, s.Config(), client); got.err() != "" {
					t.Error(got.err())
					return
				}
				if !s.Owns("a.example") {
					t.Error("the name is gone")
				}
			}
		})
	}
	second := caOf(t, "second", nil)
	for i := range 40 {
		next := serverOf(t, root, nil, "a.example")
		f.write(t, "x.key", next.keyPEM(t))
		_ = s.Refresh() // half a pair
		f.write(t, "x.pem", next.chain())
		if i%2 == 0 {
			f.write(t, "ca", root.pem()+second.pem())
		} else {
			f.write(t, "ca", root.pem())
		}
		if err := s.Refresh(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}
