package integration

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	wire "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Opcodes of the control frames of a WebSocket (RFC 6455 section 5.2).
const (
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xa
)

// wsFrame is one frame as a client sends it, unmasked.
type wsFrame struct {
	fin     bool
	op      byte
	payload []byte
}

// webSocketEcho sends every message back, until the client closes (RFC 6455).
func webSocketEcho(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-WebSocket-Version") != "13" {
		http.Error(w, "this is a WebSocket", http.StatusUpgradeRequired)
		return
	}
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 section 1.3
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	if p := r.Header.Get("Sec-WebSocket-Protocol"); p != "" {
		fmt.Fprintf(c, "Sec-WebSocket-Protocol: %s\r\n", p)
	}
	fmt.Fprint(c, "\r\n")
	for done := false; !done && err == nil; {
		done, err = echoFrame(c, buffered.Reader)
	}
}

// echoFrame answers one frame. It is done once the closing handshake is.
func echoFrame(w io.Writer, r *bufio.Reader) (done bool, err error) {
	f, err := readFrame(r)
	if err != nil {
		return false, err
	}
	switch f.op {
	case opPing:
		f.op = opPong
	case opPong:
		return false, nil
	case opClose:
		done = true
	}
	return done, writeFrame(w, f)
}

// readFrame reads a frame of a client, which must be masked (RFC 6455 section 5.1).
func readFrame(r *bufio.Reader) (wsFrame, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return wsFrame{}, err
	}
	size := uint64(head[1] & 0x7f)
	switch size {
	case 126, 127:
		wide := make([]byte, map[uint64]int{126: 2, 127: 8}[size])
		if _, err := io.ReadFull(r, wide); err != nil {
			return wsFrame{}, err
		}
		size = wire.BigEndian.Uint64(append(make([]byte, 8-len(wide)), wide...))
	}
	if head[0]&0x70 != 0 || head[1]&0x80 == 0 || size > 1<<20 {
		return wsFrame{}, errors.New("a frame with reserved bits, without a mask, or too long")
	}
	var mask [4]byte
	if _, err := io.ReadFull(r, mask[:]); err != nil {
		return wsFrame{}, err
	}
	f := wsFrame{fin: head[0]&0x80 != 0, op: head[0] & 0x0f, payload: make([]byte, size)}
	_, err := io.ReadFull(r, f.payload)
	for i := range f.payload {
		f.payload[i] ^= mask[i%4]
	}
	return f, err
}

// writeFrame writes a frame as a server does, without a mask.
func writeFrame(w io.Writer, f wsFrame) error {
	b := []byte{f.op, byte(len(f.payload))}
	if f.fin {
		b[0] |= 0x80
	}
	switch n := len(f.payload); {
	case n > 0xffff:
		b[1] = 127
		b = wire.BigEndian.AppendUint64(b, uint64(n))
	case n > 125:
		b[1] = 126
		b = wire.BigEndian.AppendUint16(b, uint16(n))
	}
	_, err := w.Write(append(b, f.payload...))
	return err
}
