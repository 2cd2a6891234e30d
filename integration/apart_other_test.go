//go:build !linux

package integration

import (
	"errors"
	"syscall"
)

// errNotLinux is what tests that run apart end with on other systems.
var errNotLinux = errors.New("only Linux has namespaces")

func ownNamespaces() *syscall.SysProcAttr { return nil }

func keepMounts() error { return errNotLinux }

func bind(string, string) error { return errNotLinux }

func unbind(string) error { return errNotLinux }
