package udprelay

import "testing"

// TestAfterAnotherUser: who goes on sending when his association has ended does not take the next user's place.
func TestAfterAnotherUser(t *testing.T) {
	target := echo(t, "127.0.0.9:0")
	r := newRig(t, Options{})
	late, own := newSocket(t, "127.0.0.1:0"), newSocket(t, "127.0.0.1:0")
	alice, bob := r.request(newAsker(t, nil)), r.request(newAsker(t, nil))
	alice.Identity, bob.Identity = "alice", "bob"
	a := r.open(alice)
	late.send(a.Bound(), to(target, "in time"))
	late.wants(target, "in time")
	a.Close()

	b := r.open(bob)
	late.send(b.Bound(), to(target, "late"))
	eventually(t, "what is late is a stranger's", func() bool { return r.Strangers() == 1 })
	own.send(b.Bound(), to(target, "bob's"))
	own.wants(target, "bob's")
	b.Close()

	again := r.open(alice) // of the same user it does no harm
	late.send(again.Bound(), to(target, "again"))
	late.wants(target, "again")
}
