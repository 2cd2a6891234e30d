package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"polyport/mux"
)

// lockedBuffer is written by timers and read by tests.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// take returns what was written since the last take.
func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// logged reads what a JSON log holds, as "level msg reason count".
func logged(t *testing.T, log *lockedBuffer) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(log.take()) {
		var l struct {
			Level, Msg, Reason string
			Count              int
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		first, _, _ := strings.Cut(l.Msg, " ")
		all = append(all, fmt.Sprintf("%s %s %s %d", l.Level, first, l.Reason, l.Count))
	}
	return all
}

func refusal(cause mux.Cause) mux.Refusal {
	return mux.Refusal{Cause: cause, Client: netip.MustParseAddrPort("192.0.2.7:50000"), Listener: "main", Bytes: 3}
}

func newTestRefusals() (*refusals, *lockedBuffer) {
	var log lockedBuffer
	return newRefusals(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))), &log
}

func wantLogged(t *testing.T, log *lockedBuffer, want ...string) {
	t.Helper()
	if got := logged(t, log); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRefusalsAreLoggedInAggregate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newTestRefusals()
		defer r.close()
		for range 1000 {
			r.add(refusal(mux.Evicted))
		}
		r.add(refusal(mux.SniffTimeout))
		wantLogged(t, log, "WARN connection evicted 0", "WARN connection sniff_timeout 0")

		time.Sleep(r.every + time.Millisecond)
		synctest.Wait()
		wantLogged(t, log, "WARN more evicted 999") // of sniff_timeout there were no more

		r.add(refusal(mux.Evicted))
		r.add(refusal(mux.SniffTimeout)) // quiet again since then, so at once
		wantLogged(t, log, "WARN connection sniff_timeout 0")
		time.Sleep(r.every + time.Millisecond)
		synctest.Wait()
		wantLogged(t, log, "WARN more evicted 1")

		time.Sleep(2 * r.every) // the flood is over
		synctest.Wait()
		r.add(refusal(mux.Evicted))
		wantLogged(t, log, "WARN connection evicted 0")
	})
}

func TestRefusalsCloseWritesWhatIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newTestRefusals()
		for range 5 {
			r.add(refusal(mux.TooManyOfClient))
		}
		r.close()
		wantLogged(t, log, "WARN connection too_many_connections_of_client 0", "WARN more too_many_connections_of_client 4")
		r.add(refusal(mux.TooManyOfClient))
		time.Sleep(3 * r.every)
		synctest.Wait()
		wantLogged(t, log)
	})
}

func TestRefusalsLevels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newTestRefusals()
		defer r.close()
		for _, cause := range []mux.Cause{mux.ClosedEarly, mux.ShuttingDown, mux.MatcherPanicked, mux.BadProxyHeader} {
			r.add(refusal(cause))
		}
		wantLogged(t, log, "DEBUG connection closed_before_request 0", "DEBUG connection shutting_down 0",
			"ERROR connection matcher_panicked 0", "WARN connection bad_proxy_header 0")
	})
}

func TestRefusalsSayWhoAndWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newTestRefusals()
		defer r.close()
		f := refusal(mux.BadProxyHeader)
		f.Err = errors.New("read the PROXY header: no signature")
		r.add(f)
		got := log.take()
		for _, want := range []string{`"client":"192.0.2.7:50000"`, `"listener":"main"`, `"bytes":3`, `"err":"read the PROXY header: no signature"`} {
			if !strings.Contains(got, want) {
				t.Errorf("the line %s lacks %s", got, want)
			}
		}
	})
}
