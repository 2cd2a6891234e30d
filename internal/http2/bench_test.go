package http2

import (
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// benchClient is a client that costs as little as it can: it writes frames that were made
// before and counts what comes.
type benchClient struct {
	nc net.Conn
	fr *h2.Framer
}

func benchDial(b *testing.B, o Options) *benchClient {
	nc, err := net.Dial("tcp", listen(b, o))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nc.Close() })
	c := &benchClient{nc: nc, fr: h2.NewFramer(nc, &input{nc: nc})}
	c.fr.SetReuseFrames()
	io.WriteString(nc, h2.ClientPreface)
	c.fr.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: maxWindow})
	c.fr.WriteWindowUpdate(0, maxWindow-startWindow)
	return c
}

func (c *benchClient) open(id uint32, end bool, fields []string) {
	var t client
	t.enc = hpack.NewEncoder(&t.block)
	t.enc.SetMaxDynamicTableSize(0)
	c.fr.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: t.encode(fields...), EndStream: end, EndHeaders: true})
}

// read takes frames until so much content and so many ends have come.
func (c *benchClient) read(b *testing.B, content, ends int) {
	credit := 0
	for content > 0 || ends > 0 {
		f, err := c.fr.ReadFrame()
		if err != nil {
			b.Fatal(err)
		}
		d, ok := f.(*h2.DataFrame)
		if !ok {
			continue
		}
		content -= len(d.Data())
		if credit += len(d.Data()); credit > 1<<28 {
			c.fr.WriteWindowUpdate(0, uint32(credit))
			credit = 0
		}
		if d.StreamEnded() {
			ends--
		}
	}
}

// BenchmarkSend sends from us to the client, each op 16 KiB on each stream.
func BenchmarkSend(b *testing.B) {
	for _, streams := range []int{1, 64} {
		b.Run(strconv.Itoa(streams), func(b *testing.B) {
			piece := make([]byte, 16<<10)
			c := benchDial(b, Options{Serve: func(s *Stream) {
				s.WriteHead(200, nil, false)
				for range b.N {
					s.Write(piece)
				}
				s.CloseWrite()
			}})
			b.SetBytes(int64(streams * len(piece)))
			b.ReportAllocs()
			b.ResetTimer()
			for i := range streams {
				c.open(uint32(2*i+1), true, getFields)
			}
			c.read(b, 0, streams)
		})
	}
}

// BenchmarkReceive sends from the client to us, each op 16 KiB on each stream.
func BenchmarkReceive(b *testing.B) {
	for _, streams := range []int{1, 64} {
		b.Run(strconv.Itoa(streams), func(b *testing.B) {
			var read sync.WaitGroup
			read.Add(streams)
			c := benchDial(b, Options{ConnWindow: maxWindow, StreamWindow: maxWindow, Serve: func(s *Stream) {
				defer read.Done()
				buf := make([]byte, 32<<10)
				for {
					if _, err := s.Read(buf); err != nil {
						s.WriteHead(200, nil, true)
						return
					}
				}
			}})
			go io.Copy(io.Discard, c.nc)
			piece := make([]byte, 16<<10)
			b.SetBytes(int64(streams * len(piece)))
			b.ReportAllocs()
			b.ResetTimer()
			for i := range streams {
				c.open(uint32(2*i+1), false, postFields)
			}
			for n := range b.N {
				for i := range streams {
					c.fr.WriteData(uint32(2*i+1), n == b.N-1, piece)
				}
			}
			read.Wait()
		})
	}
}

// BenchmarkRequests asks for a small response, 32 at a time.
func BenchmarkRequests(b *testing.B) {
	const at = 32
	c := benchDial(b, Options{Serve: greeting})
	b.ReportAllocs()
	b.ResetTimer()
	id := uint32(1)
	for left := b.N; left > 0; left -= at {
		n := min(left, at)
		for range n {
			c.open(id, true, getFields)
			id += 2
		}
		c.read(b, 0, n)
	}
}

// BenchmarkIdle reports what an idle connection and an idle stream hold.
func BenchmarkIdle(b *testing.B) {
	held := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse + m.StackInuse)
	}
	b.Run("connections", func(b *testing.B) {
		before := held()
		var clients []*benchClient
		for range b.N {
			c := benchDial(b, Options{Serve: greeting})
			c.open(1, true, getFields)
			c.read(b, 0, 1)
			clients = append(clients, c)
		}
		b.ReportMetric((held()-before)/float64(b.N), "B/conn")
		runtime.KeepAlive(clients)
	})
	b.Run("streams", func(b *testing.B) {
		serve, _ := hold()
		c := benchDial(b, Options{Serve: serve, Streams: b.N + 1})
		c.fr.ReadFrame()
		before := held()
		for i := range b.N {
			c.open(uint32(2*i+1), false, connectFields)
		}
		c.fr.WritePing(false, [8]byte{})
		for {
			if f, err := c.fr.ReadFrame(); err != nil {
				b.Fatal(err)
			} else if p, ok := f.(*h2.PingFrame); ok && p.IsAck() {
				break
			}
		}
		b.ReportMetric((held()-before)/float64(b.N), "B/stream")
	})
}
