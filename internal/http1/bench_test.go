package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

const typicalRequest = "GET http://www.example.org/articles/index.html?page=2 HTTP/1.1\r\n" +
	"Host: www.example.org\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
	"Accept-Language: en-US,en;q=0.5\r\n" +
	"Accept-Encoding: gzip, deflate\r\n" +
	"Referer: http://www.example.org/\r\n" +
	"Proxy-Connection: keep-alive\r\n" +
	"Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
	"Connection: keep-alive\r\n" +
	"\r\n"

const typicalResponse = "HTTP/1.1 200 OK\r\n" +
	"Server: nginx\r\n" +
	"Date: Mon, 27 Jul 2009 12:28:53 GMT\r\n" +
	"Content-Type: text/html; charset=utf-8\r\n" +
	"Content-Length: 1024\r\n" +
	"Connection: keep-alive\r\n" +
	"ETag: \"34aa387-d-1568eb00\"\r\n" +
	"Accept-Ranges: bytes\r\n" +
	"\r\n"

// repeat is a connection on which the same message comes again and again.
type repeat struct {
	message []byte
	at      int
}

func (r *repeat) Read(p []byte) (int, error) {
	n := copy(p, r.message[r.at:])
	if r.at += n; r.at == len(r.message) {
		r.at = 0
	}
	return n, nil
}

// forwardHead reads one request and writes it as it goes on to the origin.
func forwardHead(r *Reader, w *Writer, req *Request) error {
	if err := r.ReadRequest(req); err != nil {
		return err
	}
	req.Strip()
	w.BeginForward(req, OriginForm)
	w.FieldBytes("Host", req.Target.Authority)
	req.Fields.Remove("Host")
	w.Fields(&req.Fields)
	w.Field("Via", "1.1 polyport")
	if err := w.EndHead(req.Framing); err != nil {
		return err
	}
	return w.EndBody(nil)
}

func BenchmarkForwardHead(b *testing.B) {
	b.Run("http1", func(b *testing.B) {
		r, w := NewReader(&repeat{message: []byte(typicalRequest)}), NewWriter(io.Discard)
		var req Request
		b.ReportAllocs()
		b.SetBytes(int64(len(typicalRequest)))
		for b.Loop() {
			if err := forwardHead(r, w, &req); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("net/http", func(b *testing.B) {
		src := bytes.NewReader(nil)
		r := bufio.NewReader(src)
		b.ReportAllocs()
		b.SetBytes(int64(len(typicalRequest)))
		for b.Loop() {
			src.Reset([]byte(typicalRequest))
			r.Reset(src)
			req, err := http.ReadRequest(r)
			if err != nil {
				b.Fatal(err)
			}
			if err := req.Write(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkForwardResponse(b *testing.B) {
	message := typicalResponse + strings.Repeat("x", 1024)
	r, w := NewReader(&repeat{message: []byte(message)}), NewWriter(io.Discard)
	var resp Response
	b.ReportAllocs()
	b.SetBytes(int64(len(message)))
	for b.Loop() {
		if err := r.ReadResponse(&resp, "GET"); err != nil {
			b.Fatal(err)
		}
		resp.Strip()
		w.BeginForwardResponse(&resp)
		w.Fields(&resp.Fields)
		if err := w.EndHead(resp.Framing.ForReceiver(1)); err != nil {
			b.Fatal(err)
		}
		if _, err := CopyBody(w, r, CopyOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCopyChunked(b *testing.B) {
	chunk := "2000\r\n" + strings.Repeat("x", 0x2000) + "\r\n"
	message := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat(chunk, 128) + "0\r\n\r\n"
	r, w := NewReader(&repeat{message: []byte(message)}), NewWriter(io.Discard)
	var resp Response
	b.ReportAllocs()
	b.SetBytes(int64(len(message)))
	for b.Loop() {
		if err := r.ReadResponse(&resp, "GET"); err != nil {
			b.Fatal(err)
		}
		w.BeginForwardResponse(&resp)
		if err := w.EndHead(resp.Framing); err != nil {
			b.Fatal(err)
		}
		if _, err := CopyBody(w, r, CopyOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
