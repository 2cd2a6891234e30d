package acme

import (
	"context"
	"errors"
	"testing"
)

func newStorage(t *testing.T, dir string) *storage {
	t.Helper()
	s, err := openStorage(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Two storages of one folder are two processes, as there are while one takes over from another.
func TestLocks(t *testing.T) {
	dir := t.TempDir()
	a, b := newStorage(t, dir), newStorage(t, dir)
	ctx := t.Context()
	if err := a.Lock(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	if ok, err := b.TryLock(ctx, "x"); ok || err != nil {
		t.Errorf("TryLock of what another holds = %v, %v", ok, err)
	}
	if ok, err := b.TryLock(ctx, "y"); !ok || err != nil {
		t.Errorf("TryLock of another lock = %v, %v", ok, err)
	}
	if err := b.Unlock(ctx, "y"); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := b.Lock(short, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock under an ended context = %v", err)
	}
	got := make(chan error)
	go func() { got <- b.Lock(ctx, "x") }()
	if err := a.Unlock(ctx, "x"); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Errorf("Lock of what was unlocked = %v", err)
	}
	if err := b.Unlock(ctx, "x"); err != nil {
		t.Error(err)
	}
	if err := b.Unlock(ctx, "x"); err == nil {
		t.Error("Unlock of what is not locked did not fail")
	}
}

func TestCloseWaitsForLocks(t *testing.T) {
	dir := t.TempDir()
	a, b := newStorage(t, dir), newStorage(t, dir)
	if err := errors.Join(a.Lock(t.Context(), "x"), b.Lock(t.Context(), "y")); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error)
	go func() { waits <- a.Lock(t.Context(), "y") }()
	closed := make(chan struct{})
	go func() { a.close(); close(closed) }()
	if err := <-waits; !errors.Is(err, errClosed) {
		t.Errorf("Lock while the storage closes = %v, want errClosed", err)
	}
	select {
	case <-closed:
		t.Error("closed before the lock was free")
	default:
	}
	if err := errors.Join(a.Unlock(t.Context(), "x"), b.Unlock(t.Context(), "y")); err != nil {
		t.Fatal(err)
	}
	<-closed
	if err := a.Lock(t.Context(), "x"); !errors.Is(err, errClosed) {
		t.Errorf("Lock after close = %v, want errClosed", err)
	}
}
