package http1

import "sync"

// The sizes of buffers. A Reader begins with a small one, which nearly every head fits
// in, and changes to a large one for a long head or a body that keeps filling it. The
// large one has room for the most that a Reader reads at once plus a chunk's framing.
const (
	smallBuffer = 8 << 10
	largeBuffer = MaxHead + 8<<10
)

var (
	smallPool = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largePool = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// getBuffer returns a buffer of smallBuffer or largeBuffer bytes.
func getBuffer(size int) []byte {
	if size <= smallBuffer {
		return smallPool.Get().(*[smallBuffer]byte)[:]
	}
	return largePool.Get().(*[largeBuffer]byte)[:]
}

func getSmall() []byte { return getBuffer(smallBuffer) }

// putBuffer gives back what getBuffer returned; nothing may point into it any more.
func putBuffer(b []byte) {
	switch cap(b) {
	case smallBuffer:
		smallPool.Put((*[smallBuffer]byte)(b[:smallBuffer]))
	case largeBuffer:
		largePool.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	}
}
