package raw

import (
	"context"
	"errors"
	"net"
	"testing"

	"polyport/internal/egress"
	"polyport/internal/target"
	"polyport/internal/upstream"
)

// fake is a session that answers as it is told and keeps what it was asked.
type fake struct {
	authorizeErr, dialErr error

	asked   string
	relayed net.Conn
}

func (f *fake) Relay(target net.Conn) { f.relayed = target }

func (f *fake) AuthorizeBackend(_ context.Context, t target.Target, b *upstream.Backend) (*egress.Permit, error) {
	f.asked = t.String() + " -> " + b.Name()
	return &egress.Permit{}, f.authorizeErr
}

func (f *fake) Dial(context.Context, *egress.Permit) (net.Conn, error) {
	if f.asked == "" {
		return nil, errors.New("dialled without having asked")
	}
	if f.dialErr != nil {
		return nil, f.dialErr
	}
	return server, nil
}

// server stands for every connection that fakes dial.
var server net.Conn = &net.TCPConn{}

func TestServe(t *testing.T) {
	denied := &egress.Error{Reason: egress.RequestDenied, Err: egress.ErrDenied}
	refused := &egress.Error{Reason: egress.ConnectionRefused, Err: errors.New("connection refused")}
	tests := []struct {
		name string
		fake fake
		want error
	}{
		{"passed", fake{}, nil},
		{"denied", fake{authorizeErr: denied}, denied},
		{"unreachable", fake{dialErr: refused}, refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := New(env(""), decoded(Options{"ssh": prefix("SSH-")}))
			if err != nil {
				t.Fatal(err)
			}
			f := tt.fake
			err = rows[0].Handler.(*handler).serve(context.Background(), &f)
			if !errors.Is(err, tt.want) || (err == nil) != (f.relayed == server) {
				t.Errorf("serve: %v, relayed %v, want %v", err, f.relayed, tt.want)
			}
			if f.asked != "ssh -> one" {
				t.Errorf("asked for %q, want the row's name", f.asked)
			}
		})
	}
}

// Route tells what a session would ask.
func TestRoute(t *testing.T) {
	rows, err := New(env(""), decoded(Options{"ssh": prefix("SSH-")}))
	if err != nil {
		t.Fatal(err)
	}
	asked, b, err := rows[0].Handler.(*handler).Route(target.Name("whatever"))
	if err != nil || asked.String() != "ssh" || b.Name() != "one" {
		t.Errorf("Route = %v, %v, %v; want ssh, one", asked, b, err)
	}
}
