package integration

import "syscall"

// ownNamespaces starts a process in a network and with mounts of its own, which end with it.
func ownNamespaces() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
}

// keepMounts keeps what is mounted from now on to this process and its children.
func keepMounts() error { return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, "") }

func bind(over, path string) error { return syscall.Mount(over, path, "", syscall.MS_BIND, "") }

func unbind(path string) error { return syscall.Unmount(path, 0) }
