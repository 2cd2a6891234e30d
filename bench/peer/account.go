package peer

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// Account is whom a program runs as; nil is whoever runs the benchmark.
type Account struct {
	Name     string
	uid, gid uint32
}

// Unprivileged is an account without rights: the limits of the kernel on pipes
// hold for it and not for root. It is nil if the benchmark itself has none.
func Unprivileged() (*Account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, fmt.Errorf("find an account without rights: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &Account{Name: u.Username, uid: uint32(uid), gid: uint32(gid)}, err
}

// credential is what a process is started with.
func (a *Account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}
