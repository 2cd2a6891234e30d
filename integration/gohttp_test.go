package integration

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
)

// goClient is Go's own HTTP client behind the gateway.
func goClient(t *testing.T, w *web, proxy string) *http.Client {
	t.Helper()
	u, err := url.Parse(proxy)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.ReadFile(w.ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	tr := &http.Transport{Proxy: http.ProxyURL(u), TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// fetch returns the body of a page.
func fetch(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %q, %v", url, resp.Status, body, err)
	}
	return string(body)
}

func TestGoHTTP(t *testing.T) {
	t.Parallel()
	g, w := newClub(t, ""), newWeb(t)
	for _, as := range []string{"", clubLogin} {
		listener, identity := "main", ""
		if as != "" {
			listener, identity = "users", clubUser
		}
		for _, way := range []struct{ scheme, plainRow, secureRow string }{{"http://", "http", "connect"}, {"socks5://", "socks5", "socks5"}, {"socks5h://", "socks5", "socks5"}} {
			t.Run(way.scheme+as, func(t *testing.T) {
				for _, page := range []struct{ url, target, row string }{
					{"http://" + w.plainNamed, w.plainNamed, way.plainRow}, {"https://" + w.secureNamed, w.secureNamed, way.secureRow},
				} {
					c := goClient(t, w, way.scheme+as+g.addr(listener))
					mark := g.mark()
					for _, path := range []string{"/one", "/two"} {
						if got, want := fetch(t, c, page.url+path), "hello from "+page.target+path+" over HTTP/1.1"; got != want {
							t.Errorf("got %q, want %q", got, want)
						}
					}
					c.CloseIdleConnections()
					l := g.recordSince(mark, "protocol="+page.row)
					check(t, l, map[string]any{"target": page.target, "identity": identity, "rule": "test servers"})
					if page.row != "http" {
						continue
					}
					check(t, l, map[string]any{"reason": ""})
					second := g.recordSince(mark, "url="+page.url+"/two")
					if second.str("client") != l.str("client") {
						t.Errorf("the second request came from %s, the first from %s; want one connection", second.str("client"), l.str("client"))
					}
				}
			})
		}
	}
}

// TestGoHTTPUpgrades switches protocols through an absolute-form request.
func TestGoHTTPUpgrades(t *testing.T) {
	t.Parallel()
	g, w := startTidy(t, listenAnywhere+allowLoopback), newWeb(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.plain+"/parrot", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "parrot")
	resp, err := goClient(t, w, "http://"+g.at()).Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != "parrot" {
		t.Fatalf("the answer is %s with %v", resp.Status, resp.Header)
	}
	c := resp.Body.(io.ReadWriteCloser)
	heard := bufio.NewReader(c)
	for _, word := range []string{"polly", "wants", "a cracker"} {
		if _, err := fmt.Fprintln(c, word); err != nil {
			t.Fatal(err)
		}
		if line, err := heard.ReadString('\n'); err != nil || line != word+" "+word+"\n" {
			t.Fatalf("the parrot says %q, %v", line, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	check(t, g.record("status=101"), map[string]any{"protocol": "http", "target": w.plain, "reason": ""})
}

// TestGoHTTPMessages has bodies and fields that have to arrive as they were sent.
func TestGoHTTPMessages(t *testing.T) {
	t.Parallel()
	g, w := startTidy(t, listenAnywhere+allowLoopback), newWeb(t)
	c := goClient(t, w, "http://"+g.at())
	whole := sum(bulkBytes())
	resp, err := c.Post("http://"+w.plain+"/sum", "application/octet-stream", io.NopCloser(bulkBytes())) // chunked
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.HasPrefix(string(body), whole) {
		t.Errorf("the origin got the checksum %s, %v; want %s", body, err, whole)
	}
	resp, err = c.Get("http://" + w.plain + "/bulk")
	if err != nil {
		t.Fatal(err)
	}
	if got := sum(resp.Body); got != whole {
		t.Errorf("the client got the checksum %s, want %s", got, whole)
	}
	resp.Body.Close()
	resp, err = c.Head("http://" + w.plain + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength <= 0 {
		t.Errorf("HEAD got %s and a length of %d", resp.Status, resp.ContentLength)
	}
	check(t, g.record("method=HEAD"), map[string]any{"status": 200.0, "reason": ""})
}
