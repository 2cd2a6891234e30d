package peer

import "syscall"

// attributes put a program into a process group of its own, where the
// terminal's interrupts do not reach it, and end it with the benchmark. A
// paused process dies of SIGKILL alone.
func attributes(as *Account) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as.credential()}
}
