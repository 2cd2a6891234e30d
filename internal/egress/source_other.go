//go:build !linux

package egress

import (
	"errors"
	"net/netip"
)

func bindToDevice(int, string) error { return errors.ErrUnsupported }

func setMark(int, uint32) error { return errors.ErrUnsupported }

func bindAddress(int, netip.Addr, bool) error { return errors.ErrUnsupported }

func bindAnywhere(int) error { return errors.ErrUnsupported }
