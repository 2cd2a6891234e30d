package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"polyport/bench/measure"
	"polyport/bench/origin"
)

// webRequest is one GET, by way of the proxy or of the origin itself.
func (e Endpoint) webRequest() []byte {
	url := "/1k"
	if e.absolute {
		url = "http://" + e.web.String() + url
	}
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", url, e.web)
}

// toWeb is the endpoint that requests are sent to: without a proxy the origin's.
func (e Endpoint) toWeb() Endpoint {
	if e.Proto == measure.Direct {
		e.to = e.web
	}
	return e
}

// http measures requests a second over connections that are kept.
func (l *Load) http() measure.Measurement {
	end := l.end.toWeb()
	var opened atomic.Int64
	clients := make([]*webClient, l.opts.Conns)
	for i := range clients {
		clients[i] = &webClient{end: end, request: end.webRequest(), buf: make([]byte, 8192), opened: &opened, life: l.opts.Window + 2*opTimeout}
	}
	m := l.operate(l.opts.Conns, func(w int) error { return clients[w].get() })
	for _, c := range clients {
		c.close()
	}
	m[measure.Opened] = float64(opened.Load())
	return l.result(measure.HTTP, "", m)
}

// webClient keeps one connection and opens it anew when the server has closed it.
type webClient struct {
	end     Endpoint
	request []byte
	buf     []byte
	opened  *atomic.Int64
	life    time.Duration
	conn    *net.TCPConn
}

func (w *webClient) close() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

// get asks once, and a second time when a kept connection turns out to be
// closed, which a server may do at any time.
func (w *webClient) get() error {
	kept := w.conn != nil
	err := w.ask()
	if kept && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		err = w.ask()
	}
	return err
}

func (w *webClient) ask() error {
	if w.conn == nil {
		c, err := w.end.dial(0)
		if err != nil {
			return err
		}
		w.conn = c
		w.opened.Add(1)
		c.SetDeadline(time.Now().Add(w.life))
	}
	_, err := w.conn.Write(w.request)
	keep := false
	if err == nil {
		keep, err = readAnswer(w.conn, w.buf)
	}
	if !keep {
		w.close()
	}
	return err
}

// readAnswer reads one answer and says whether the connection may be used
// again. The body has to be the origin's, octet for octet.
func readAnswer(r io.Reader, buf []byte) (keep bool, err error) {
	n, end := 0, -1
	for end < 0 {
		if n == len(buf) {
			return false, errors.New("the head of the answer is too long")
		}
		k, err := r.Read(buf[n:])
		n += k
		if end = bytes.Index(buf[:n], headEnd); end < 0 && err != nil {
			return false, err
		}
	}
	end += len(headEnd)
	head := buf[:end]
	if !isOK(head) {
		return false, fmt.Errorf("answer %.60q", head)
	}
	size, keep := framing(head)
	body := buf[end:]
	if size > len(body) {
		return false, fmt.Errorf("answer of %d octets", size)
	}
	got, err := readBody(r, body, n-end, size)
	if err != nil {
		return false, err
	}
	if got != origin.BodySize || bytes.Count(body[:got], []byte("x")) != got {
		return false, fmt.Errorf("a body of %d octets is not the one that was sent", got)
	}
	return keep, nil
}

// framing reads Content-Length, -1 without one, and whether the connection is kept.
func framing(head []byte) (size int, keep bool) {
	size, keep = -1, head[7] == '1'
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if n, err := strconv.Atoi(string(value)); err == nil {
				size = n
			}
		case bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")):
			keep = false
		}
	}
	return size, keep && size >= 0
}

// readBody reads up to size octets, or to the end of the connection if size is -1.
func readBody(r io.Reader, body []byte, got, size int) (int, error) {
	for size < 0 || got < size {
		if got == len(body) {
			return got, errors.New("the body is too long")
		}
		k, err := r.Read(body[got:])
		got += k
		switch {
		case err == io.EOF && size < 0:
			return got, nil
		case err == io.EOF && got < size:
			return got, io.ErrUnexpectedEOF
		case err != nil && got != size:
			return got, err
		}
	}
	return got, nil
}
