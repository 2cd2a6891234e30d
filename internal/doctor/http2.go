package doctor

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// maxFrames is how many frames may come before an answer.
const maxFrames = 64

// errNotHTTP2 says that what came back is no answer of HTTP/2.
var errNotHTTP2 = errors.New("not an HTTP/2 response")

// sendHTTP2 is a client of the row "h2" by prior knowledge (RFC 9113 section 3.3), which asks for a tunnel (section 8.5).
func sendHTTP2(c net.Conn, x *examination) answer {
	if _, err := c.Write(x.openHTTP2()); err != nil {
		return broken(err)
	}
	head, err := readHTTP2(c)
	if errors.Is(err, errNotHTTP2) {
		return answer{foreign, "what came back is not HTTP/2"}
	}
	if err != nil {
		return broken(err)
	}
	return head.judge(x, false)
}

// openHTTP2 is the preface and a CONNECT on the first stream.
func (x *examination) openHTTP2() []byte {
	var out, block bytes.Buffer
	out.WriteString(http2.ClientPreface)
	framer, enc := http2.NewFramer(&out, nil), hpack.NewEncoder(&block)
	fields := []hpack.HeaderField{{Name: ":method", Value: "CONNECT"}, {Name: ":authority", Value: x.target.String()}}
	if x.User != "" {
		pair := base64.StdEncoding.EncodeToString([]byte(x.User + ":" + x.Password))
		fields = append(fields, hpack.HeaderField{Name: "proxy-authorization", Value: "Basic " + pair, Sensitive: true})
	}
	// None of these writes can fail: they go to memory.
	for _, f := range fields {
		_ = enc.WriteField(f)
	}
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	return out.Bytes()
}

// readHTTP2 reads frames up to the head of the final response.
func readHTTP2(c io.Reader) (response, error) {
	framer := http2.NewFramer(io.Discard, io.LimitReader(c, maxHead))
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.MaxHeaderListSize = maxHead
	framer.SetMaxReadFrameSize(16 << 10) // what we have not asked to be raised; HTTP/1 looks like a longer one
	for range maxFrames {
		f, err := framer.ReadFrame()
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if head, err := headOf(f); err != nil || head.status >= 200 {
				return head, err
			}
		case *http2.GoAwayFrame, *http2.RSTStreamFrame:
			return response{}, io.ErrUnexpectedEOF
		}
		if err != nil {
			return response{}, frameFault(err)
		}
	}
	return response{}, errNotHTTP2
}

// frameFault tells a peer that does not speak HTTP/2 from a connection that failed.
func frameFault(err error) error {
	var conn http2.ConnectionError
	var stream http2.StreamError
	if errors.As(err, &conn) || errors.As(err, &stream) || errors.Is(err, http2.ErrFrameTooLarge) {
		return errNotHTTP2
	}
	return err
}

// headOf turns a head of HTTP/2 into one of HTTP/1, so that both are judged alike.
func headOf(f *http2.MetaHeadersFrame) (response, error) {
	status, err := strconv.Atoi(f.PseudoValue("status"))
	if err != nil || status < 100 {
		return response{}, errNotHTTP2
	}
	fields := textproto.MIMEHeader{}
	for _, h := range f.RegularFields() {
		fields.Add(h.Name, h.Value)
	}
	return response{status, fields}, nil
}
