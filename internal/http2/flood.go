package http2

import (
	"fmt"
	"time"
)

// What a client may do that costs us and may be of no use. Each is a number at once and a
// number each second after that; work that is of use earns more. What exceeds them ends
// the connection with ENHANCE_YOUR_CALM (RFC 9113 section 10.5).
const (
	// resetsPerStream, times Options.Streams, is how many streams may be reset within
	// their first second, by the client (CVE-2023-44487) or by us because of what it
	// sent (CVE-2025-8671): a page with all its streams that is left at once, twice.
	// resetsPerSecond is what one who clicks fast does. A stream that ends well earns one.
	resetsPerStream = 2
	resetsPerSecond = 32
	rapid           = time.Second

	// runningPerStream, times Options.Streams, is how many Serve may be under way. A
	// client that resets streams faster than their Serve returns would have any number.
	runningPerStream = 2

	// Clients change their settings once or twice in a connection; each frame is
	// answered and may touch every stream.
	settingsAtOnce, settingsPerSecond = 32, 1

	// Some clients measure each round trip with a PING, but then content comes too,
	// which earns one.
	pingsAtOnce, pingsPerSecond = 256, 32

	// Frames without content: an empty DATA without END_STREAM, an empty fragment of
	// a head. They count for nothing in any window.
	emptyAtOnce, emptyPerSecond = 128, 8

	// Browsers send a few PRIORITY frames at the start and one or two PRIORITY_UPDATE
	// for each stream; unknown frames, and frames on streams that have ended, are rare.
	// A new stream earns four.
	uselessAtOnce, uselessPerSecond, uselessPerStream = 1024, 64, 4

	// Some clients send two WINDOW_UPDATE for each DATA, some for each of their reads;
	// one of ours earns four.
	updatesAtOnce, updatesPerSecond, updatesPerData = 1024, 256, 4

	// maxContinuations bounds the frames of one head (CVE-2023-45288). Frames of 16 KiB
	// would be 17 for the longest head that is read.
	maxContinuations = 64
	// headerListTimes, times Options.HeaderList, is where a head that is too long is no
	// longer decoded to be answered 431, encoded or decoded.
	headerListTimes = 4

	// maxHeads bounds what the heads of all streams under way amount to, in bytes as SETTINGS_MAX_HEADER_LIST_SIZE counts them: a
	// few references to the HPACK table make 64 KiB of head, for each of hundreds of streams. A browser's are 1 or 2 KiB.
	// A stream beyond it is refused.
	maxHeads = 1 << 20

	// maxAnswers bounds the frames that answer the client and have not been sent: one
	// that does not read gets no more of them.
	maxAnswers = 1024
)

// allowance is how much of something a client may still do.
type allowance struct {
	name       string
	left, most int
	perSecond  int
	since      time.Time // of the last look at the clock
}

// take uses one up. It looks at the clock only when none is left.
func (a *allowance) take() error {
	if a.left == 0 {
		now := time.Now()
		a.left = min(int(min(now.Sub(a.since), time.Hour)*time.Duration(a.perSecond)/time.Second), a.most)
		if a.left == 0 {
			return flood(a.name, "too many of them")
		}
		a.since = now
	}
	a.left--
	return nil
}

// earn adds n.
func (a *allowance) earn(n int) { a.left = min(a.left+n, a.most) }

// allowances are those of one connection.
type allowances struct{ resets, settings, pings, empty, useless, updates allowance }

func newAllowances(streams int) (a allowances) {
	now := time.Now()
	set := func(name string, atOnce, perSecond int) allowance {
		return allowance{name, atOnce, atOnce, perSecond, now}
	}
	a.resets = set("rapid_reset", resetsPerStream*streams, resetsPerSecond)
	a.settings = set("settings", settingsAtOnce, settingsPerSecond)
	a.pings = set("ping", pingsAtOnce, pingsPerSecond)
	a.empty = set("empty_frames", emptyAtOnce, emptyPerSecond)
	a.useless = set("useless_frames", uselessAtOnce, uselessPerSecond)
	a.updates = set("window_updates", updatesAtOnce, updatesPerSecond)
	return a
}

// flood makes the error of a client that has hit a limit.
func flood(name, format string, args ...any) *ConnError {
	return &ConnError{Code: ErrCodeEnhanceYourCalm, Flood: name, Err: fmt.Errorf(format, args...)}
}
