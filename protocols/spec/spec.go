// Package spec is the form in which a protocol folder offers itself to the protocol
// table. It exists so that the table can import the folders and
// the folders can name these types without a cycle.
package spec

import (
	"errors"
	"fmt"

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
	// SilentTo names the backend of clients that send nothing; "" is none.
	SilentTo string
	// HTTP is the [http] table.
	HTTP HTTP
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

// HTTP is what the [http] table says.
type HTTP struct {
	// Anonymity is "off", "hide-client" or "hide-proxy" as config.example.toml explains. "" is "hide-client".
	Anonymity string
}
