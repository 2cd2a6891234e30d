package daemon

import (
	"fmt"
	"testing"
)

func TestReloadOpensTheSamePortToTheNetwork(t *testing.T) {
	port := freePort(t)
	s := serve(t, fmt.Sprintf("[listen.main]\naddress = [\"127.0.0.1:%d\"]\n", port))
	held := s.hold("main")
	for _, address := range []string{"0.0.0.0", "127.0.0.1"} {
		if err := s.reload(fmt.Sprintf("[listen.main]\naddress = [\"%s:%d\"]\n", address, port)); err != nil {
			t.Fatalf("to %s: %v", address, err)
		}
		if got := s.address("main"); got != fmt.Sprintf("%s:%d", address, port) {
			t.Errorf("listening on %s, want %s and the same port", got, address)
		}
		if got := s.ask("main", get); got != "HTTP/1.1 403 Forbidden" {
			t.Errorf("at %s the answer is %q", address, got)
		}
	}
	if got := s.finish(held); got != "HTTP/1.1 403 Forbidden" {
		t.Errorf("the client that was there gets %q", got)
	}
}
