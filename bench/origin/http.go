package origin

import (
	"bufio"
	"bytes"
	"fmt"
	"net"

	"polyport/bench/loopback"
)

// BodySize is how many octets each HTTP answer carries.
const BodySize = 1024

// ServeHTTP answers each request on l with the same 1 KiB until l is closed.
// It looks for the end of heads and for Connection: close, and at nothing else.
func ServeHTTP(l net.Listener) {
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n", BodySize)
	answer = append(answer, bytes.Repeat([]byte("x"), BodySize)...)
	loopback.Serve(l, func(c *net.TCPConn) {
		defer c.Close()
		r := bufio.NewReaderSize(c, 4096)
		for {
			last, err := readHead(r)
			if err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil || last {
				return
			}
		}
	})
}

// readHead reads one request head and says whether the connection ends behind it.
func readHead(r *bufio.Reader) (last bool, err error) {
	for first := true; ; {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return false, err
		}
		if len(line) <= 2 {
			if first {
				continue
			}
			return last, nil
		}
		last = last || first && bytes.Contains(line, []byte("HTTP/1.0")) || saysClose(line)
		first = false
	}
}

// saysClose tells a header field Connection that closes.
func saysClose(line []byte) bool {
	const name = "connection:"
	return len(line) > len(name) && line[0]|0x20 == 'c' && bytes.EqualFold(line[:len(name)], []byte(name)) &&
		bytes.Contains(bytes.ToLower(line[len(name):]), []byte("close"))
}
