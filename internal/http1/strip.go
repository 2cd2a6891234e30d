package http1

// Strip removes from Fields what concerns this connection alone (RFC 9110 section
// 7.6.1):
//
//   - Connection, Proxy-Connection, Keep-Alive, TE, Transfer-Encoding, Upgrade and HTTP2-Settings;
//   - Proxy-Authorization, which is for us, and the other Proxy- fields of authentication;
//   - every field that is named in a Connection field, unless HTTP defines it for
//     all recipients: such an option is never appropriate and is ignored, so that nobody
//     can take away Host, Content-Length, Authorization or Cache-Control by it.
//
// Trailer stays, since trailers are forwarded. Host stays: the caller replaces it.
func (req *Request) Strip() { req.Fields.strip(req.connection) }

// Strip removes from Fields what concerns the connection to the origin alone, see
// Request.Strip, and a Content-Length where there must be none (1xx, 204, 2xx to
// CONNECT).
func (resp *Response) Strip() {
	resp.Fields.strip(resp.connection)
	if resp.noLength {
		resp.Fields.Remove("Content-Length")
	}
}

func (f *Fields) strip(c connection) {
	if c.named {
		f.markNamed()
	}
	kept := f.list[:0]
	for _, s := range f.list {
		if s.class&hopByHop == 0 {
			kept = append(kept, s)
		}
	}
	f.list = kept
}

// markNamed makes those fields hop-by-hop that a connection option names and that are
// not known to be end-to-end.
func (f *Fields) markNamed() {
	for i := range f.list {
		if f.list[i].id != idConnection {
			continue
		}
		for list := f.value(&f.list[i]); len(list) > 0; {
			var option []byte
			option, list = nextToken(list)
			f.markOption(option)
		}
	}
}

func (f *Fields) markOption(option []byte) {
	for i := range f.list {
		s := &f.list[i]
		if s.class == 0 && sameFold(f.name(s), option) {
			s.class = hopByHop
		}
	}
}
