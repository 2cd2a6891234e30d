package httpproxy

import (
	"errors"
	"net/http"
	"testing"

	balance "polyport/internal/pool"
	"polyport/internal/upstream"
)

// TestSiteOfServersThatGoAndComeBack: connections that stay open do not hold on to a server that is down, nor to the one that has stood in for it.
func TestSiteOfServersThatGoAndComeBack(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header upstream.ProxyHeader
	}{{"shared", upstream.NoHeader}, {"private", upstream.ProxyV1}} {
		t.Run(tt.name, func(t *testing.T) {
			answers := make(chan string, 10)
			server := func(name string) *scripted {
				return newScripted(t, func(p *peer) {
					if tt.header != upstream.NoHeader {
						_, _ = p.r.ReadString('\n')
					}
					for {
						if _, err := p.r.Peek(1); err != nil {
							return
						}
						p.head()
						answers <- name
						p.send(okAnswer)
					}
				})
			}
			first, second := server("first"), server("second")
			b, err := upstream.NewBackend(upstream.BackendOptions{
				Servers: []string{first.addr(), second.addr()}, Header: tt.header,
				Pool: balance.Options{Name: "web", Fall: 1, Rise: 1, Servers: []balance.Server{{}, {Priority: 1}}},
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			g := newGateway(t, withSite(b, nil))
			c := g.connect()
			ask := func(name string) {
				t.Helper()
				for range 2 {
					c.send("GET / HTTP/1.1\r\nHost: www.site.test\r\n\r\n")
					if resp, _ := c.response(http.MethodGet); resp.StatusCode != 200 {
						t.Fatalf("answer %d, want 200", resp.StatusCode)
					}
					want(t, "it was answered by", <-answers, name)
				}
			}
			ask("first")
			b.Pool().Members()[0].Checked(errors.New("it is being mended"))
			ask("second")
			b.Pool().Members()[0].Checked(nil)
			ask("first")
			if n := first.count() + second.count(); n != 3 {
				t.Errorf("%d connections, want 3", n)
			}
			c.Close()
			g.handler.pool.retire()
			wantReleased(t, b.Pool())
		})
	}
}
