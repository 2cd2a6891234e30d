// Package spec is the form in which a protocol folder offers itself to the protocol
// table. It exists so that the table can import the folders and
// the folders can name these types without a cycle.
package spec

import (
	"crypto/tls"
	"errors"
	"fmt"

	"polyport/internal/auth"
	"polyport/internal/session"
	"polyport/internal/upstream"
	"polyport/mux"
)

// Spec is one line of the protocol table.
type Spec struct {
	// Name is the folder's name and that of its [protocols.NAME] table.
	Name string
	// New makes the folder's rows from its configuration. decode fills a pointer to the folder's own
	// Options from [protocols.NAME]; it leaves them as they are when the file has no such table. The error lists
	// every fault, each beginning with its key, such as "route.git.backend: ...".
	New func(env Env, decode func(into any) error) ([]Row, error)
}

// Row is one line of what the port serves.
type Row struct {
	mux.Row
	Handler session.Handler
	// OnLoop says that the handler may run in a task of an event loop: it starts no goroutine and
	// waits for nothing but its session and its connection.
	OnLoop bool
}

// Env is what a handler may need from the daemon. It is immutable.
type Env struct {
	// Backend looks a [backend.NAME] table up; nil knows none.
	Backend func(name string) (*upstream.Backend, bool)
	// Sites are the web sites of the owner's, whose hosts are unlike each other.
	Sites []Site
	// SilentTo names the backend of clients that send nothing; "" is none.
	SilentTo string
	// HTTP is the [http] table.
	HTTP HTTP
	// SecureName is the host name under which clients reach the gateway by TLS, one that its certificate is for; "" is
	// a gateway without certificates.
	SecureName string
	// TLS is TLS to the gateway itself; nil is none.
	TLS *TLS
	// ACMEAnswer answers the HTTP-01 challenge of an ACME CA (RFC 8555 section 8.3): a GET for path of host,
	// which may have a port. ok is false for what is no challenge of ours. Nil knows none.
	ACMEAnswer func(host, path string) (answer string, ok bool)
}

// TLS is how TLS to the gateway itself is terminated.
type TLS struct {
	// Owns reports whether a client that sends that server name ("" for none) and offers these application
	// protocols means the gateway itself. It is called on event loops and must not block.
	Owns func(serverName string, protocols []string) bool
	// Names are the names that certificates are for, wildcards as they are.
	Names []string
	// Config is that of every such connection.
	Config *tls.Config
	// HTTP1Config is Config for listeners that do not serve HTTP/2, and does not offer it. Nil is Config.
	HTTP1Config *tls.Config
	// Challenged reports whether a handshake has failed with err only because that is how a CA's look at the
	// certificate ends (RFC 8737 section 3).
	Challenged func(err error) bool
	// Identity says who a client's certificate proves it to be; the zero Identity is nobody.
	Identity func(tls.ConnectionState) auth.Identity
}

// Site is a web site that is served on the same port: the [site.NAME] table.
type Site struct {
	Name    string
	Hosts   []string // names, and "*." with a suffix for any depth below it
	Backend string
}

// FindBackend finds the backend that a key of the configuration names.
func (e Env) FindBackend(name string) (*upstream.Backend, error) {
	if name == "" {
		return nil, errors.New("no backend is named")
	}
	if e.Backend != nil {
		if b, ok := e.Backend(name); ok {
			return b, nil
		}
	}
	return nil, fmt.Errorf("there is no [backend.%s] table", name)
}

// Pseudonym is how the gateway names itself in Via (RFC 9110 section 7.6.3). All gateways of this kind have the same, by which they see a
// request that goes round among them.
const Pseudonym = "polyport"

// HTTP is what the [http] table says.
type HTTP struct {
	// Anonymity is "off", "hide-client" or "hide-proxy" as config.example.toml explains. "" is "hide-client".
	Anonymity string
	// Streams is how many streams one connection of HTTP/2 may have at once. Zero means 256.
	Streams int
	// ForwardHTTPS has requests for https URIs fetched over TLS; else they are refused.
	ForwardHTTPS bool
}
