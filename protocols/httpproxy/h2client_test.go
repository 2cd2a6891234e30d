package httpproxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"polyport/mux"
)

// connectH2 returns the client's end of a connection that is served by the row h2.
func (g *gateway) connectH2() *net.TCPConn {
	g.t.Helper()
	client, server := tcpPair(g.t)
	go g.Serve(mux.NewConn(server, "main", rowHTTP2, nil))
	g.t.Cleanup(func() { client.Close() })
	return client
}

// h2Client is the client of net/http, told nothing of proxies: it sends every request over its one connection.
type h2Client struct {
	*http.ClientConn
	t  *testing.T
	nc net.Conn
}

func (g *gateway) h2() *h2Client {
	g.t.Helper()
	return newH2Client(g.t, g.connectH2())
}

func newH2Client(t *testing.T, nc net.Conn) *h2Client {
	t.Helper()
	t.Cleanup(func() { nc.Close() })
	var by http.Protocols
	by.SetUnencryptedHTTP2(true)
	tr := &http.Transport{
		Protocols: &by, DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return nc, nil },
	}
	cc, err := tr.NewClientConn(t.Context(), "http", "gateway.test:80")
	if err != nil {
		t.Fatal(err)
	}
	return &h2Client{cc, t, nc}
}

// request makes a request for an absolute URI.
func (c *h2Client) request(method, uri string, body io.Reader, fields ...string) *http.Request {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, uri, body)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	return req
}

// do sends a request and returns the whole answer.
func (c *h2Client) do(req *http.Request) (*http.Response, string) {
	c.t.Helper()
	resp, err := c.RoundTrip(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("the body of %s %s: %v", req.Method, req.URL, err)
	}
	return resp, string(body)
}

// tunnel opens a tunnel by CONNECT.
func (c *h2Client) tunnel(ctx context.Context, to string) (in io.WriteCloser, out io.ReadCloser, err error) {
	c.t.Helper()
	r, w := io.Pipe()
	c.t.Cleanup(func() { w.Close() })
	req := (&http.Request{Method: "CONNECT", Host: to, URL: &url.URL{Host: to}, Header: http.Header{}, Body: r, ContentLength: -1}).WithContext(ctx)
	resp, err := c.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	c.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		return nil, nil, fmt.Errorf("answer %d", resp.StatusCode)
	}
	return w, resp.Body, nil
}

// within bounds what a test waits for.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// waitFor waits until something is so.
func waitFor(t *testing.T, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it never came")
		}
	}
}
