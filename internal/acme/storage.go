package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/caddyserver/certmagic"
)

// lockPoll is how often a lock that another process holds is asked for.
const lockPoll = 200 * time.Millisecond

var errClosed = errors.New("storage is closed")

// storage is certmagic's folder of files with locks of the kernel. Those of
// certmagic are files that must be touched every few seconds: a goroutine
// outlives each by that, and a process that was killed leaves its own behind.
type storage struct {
	*certmagic.FileStorage
	mu     sync.Mutex // guards what follows
	closed chan struct{}
	held   map[string]*os.File
	users  sync.WaitGroup // whoever holds a lock or waits for one
}

// openStorage makes the folder and tries to write in it.
func openStorage(path string) (*storage, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	s := &storage{FileStorage: &certmagic.FileStorage{Path: path}, closed: make(chan struct{}), held: map[string]*os.File{}}
	return s, s.probe()
}

// probe says if there is room for a certificate and its key.
func (s *storage) probe() error {
	f, err := os.CreateTemp(s.Path, ".write-test-")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 16<<10))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// torn says if a name's certificate and key can be read but do not belong together.
func (s *storage) torn(ctx context.Context, issuer, name string) bool {
	cert, err := s.Load(ctx, certmagic.StorageKeys.SiteCert(issuer, name))
	key, keyErr := s.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuer, name))
	if err != nil || keyErr != nil {
		return false
	}
	_, err = tls.X509KeyPair(cert, key)
	return err != nil
}

// use counts a user in, unless the storage is closed.
func (s *storage) use() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return errClosed
	default:
		s.users.Add(1)
		return nil
	}
}

// Lock implements certmagic.Locker: it waits until the lock is free.
func (s *storage) Lock(ctx context.Context, name string) error {
	if err := s.use(); err != nil {
		return err
	}
	for {
		ok, err := s.take(name)
		if ok {
			return nil
		}
		if err == nil {
			select {
			case <-time.After(lockPoll):
				continue
			case <-ctx.Done():
				err = ctx.Err()
			case <-s.closed:
				err = errClosed
			}
		}
		s.users.Done()
		return err
	}
}

// TryLock implements certmagic.TryLocker.
func (s *storage) TryLock(_ context.Context, name string) (bool, error) {
	if err := s.use(); err != nil {
		return false, err
	}
	ok, err := s.take(name)
	if !ok {
		s.users.Done()
	}
	return ok, err
}

// take asks for the lock once. Its file stays: to delete it would take it from someone who waits.
func (s *storage) take(name string) (bool, error) {
	path := s.Filename(filepath.Join("locks", certmagic.StorageKeys.Safe(name)))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			return false, nil
		}
		return false, fmt.Errorf("lock %s: %w", path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[name] = f
	return true, nil
}

// Unlock implements certmagic.Locker.
func (s *storage) Unlock(_ context.Context, name string) error {
	s.mu.Lock()
	f := s.held[name]
	delete(s.held, name)
	s.mu.Unlock()
	if f == nil {
		return fmt.Errorf("unlock %s: not locked", name)
	}
	defer s.users.Done()
	return f.Close() // the kernel's lock goes with it
}

// close lets no one lock any more and waits until every lock is free.
func (s *storage) close() {
	s.mu.Lock()
	close(s.closed)
	s.mu.Unlock()
	s.users.Wait()
}
