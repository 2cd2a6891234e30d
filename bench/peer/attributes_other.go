//go:build !linux

package peer

import "syscall"

// attributes put a program into a process group of its own, where the
// terminal's interrupts do not reach it.
func attributes(as *Account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: as.credential()}
}
