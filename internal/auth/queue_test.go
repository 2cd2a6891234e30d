package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Guesses from everywhere fill the queue, but not that of users who come from where they have logged in.
func TestGuessesKeepNoKnownUserOut(t *testing.T) {
	for _, failures := range []int{0, 5} {
		t.Run(fmt.Sprintf("failures=%d", failures), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hold := make(chan struct{}, 1)
				u, calls := withCounting(t, Options{Lockout: NewLockout(LockoutOptions{Failures: failures})}, hold)
				u.queue = newQueue(1, 2)
				hold <- struct{}{}
				good := Credentials{"alice", "secret"}
				if _, err := u.Authenticate(t.Context(), here, good); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * defaultCacheLife)
				var guessers sync.WaitGroup
				for i := range 10 {
					guessers.Go(func() {
						from := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
						if _, err := u.Authenticate(t.Context(), from, Credentials{"alice", fmt.Sprint(i)}); err == nil {
							t.Error("a guess was taken")
						}
					})
				}
				synctest.Wait()
				if _, err := u.Authenticate(t.Context(), there, good); !errors.Is(err, ErrBusy) {
					t.Errorf("from an address without a login: %v, want ErrBusy", err)
				}
				if _, err := u.Authenticate(t.Context(), here, Credentials{"alice", "guess"}); !errors.Is(err, ErrBusy) {
					t.Errorf("another pair from the known address: %v, want ErrBusy", err)
				}
				before := calls.Load()
				known := make(chan error)
				go func() {
					_, err := u.Authenticate(t.Context(), here, good)
					known <- err
				}()
				synctest.Wait()
				if n := calls.Load() - before; n != 1 {
					t.Errorf("the known pair began %d hashes, want 1 beside those of the guessers", n)
				}
				close(hold)
				if err := <-known; err != nil {
					t.Errorf("the known pair: %v", err)
				}
				guessers.Wait()
			})
		})
	}
}
