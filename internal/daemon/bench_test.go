//go:build linux

package daemon

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkSOCKS5Session is a whole session over TCP: connect, greeting, request,
// reply, one byte each way, close. Client and target are bare system calls, so the
// allocations are the gateway's alone; the time is all three's.
func BenchmarkSOCKS5Session(b *testing.B) {
	target := blockingTarget(b)
	gateway := benchGateway(b)
	request := append([]byte{5, 1, 0, 1}, target.Addr().AsSlice()...)
	request = append(request, byte(target.Port()>>8), byte(target.Port()))
	to := &unix.SockaddrInet4{Port: int(gateway.Port()), Addr: gateway.Addr().As4()}
	b.ReportAllocs()
	for b.Loop() {
		if err := socks5Session(to, request); err != nil {
			b.Fatal(err)
		}
	}
}

// socks5Session is one client. It returns once the gateway has closed the tunnel.
func socks5Session(to unix.Sockaddr, request []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, to); err != nil {
		return err
	}
	var b [32]byte
	for _, step := range []struct {
		send   []byte
		expect int
	}{{[]byte{5, 1, 0}, 2}, {request, 10}, {[]byte{'x'}, 1}} {
		if _, err := unix.Write(fd, step.send); err != nil {
			return err
		}
		for got := 0; got < step.expect; {
			n, err := unix.Read(fd, b[got:step.expect])
			if err != nil || n == 0 {
				return fmt.Errorf("after %x: read %d bytes: %v", step.send, n, err)
			}
			got += n
		}
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return err
	}
	n, err := unix.Read(fd, b[:])
	if n != 0 || err != nil {
		return fmt.Errorf("at the end: read %d bytes: %v", n, err)
	}
	return nil
}

// blockingTarget echoes one connection after the other.
func blockingTarget(b *testing.B) netip.AddrPort {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		b.Fatal(err)
	}
	if err := unix.Listen(fd, 1024); err != nil {
		b.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR) })
	go func() {
		var buf [64]byte
		for {
			c, _, err := unix.Accept(fd)
			if err != nil {
				_ = unix.Close(fd)
				return
			}
			for {
				n, err := unix.Read(c, buf[:])
				if err != nil || n == 0 {
					break
				}
				_, _ = unix.Write(c, buf[:n])
			}
			_ = unix.Close(c)
		}
	}()
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(at.(*unix.SockaddrInet4).Port))
}

// benchGateway runs a gateway that lets everybody reach loopback addresses.
func benchGateway(b *testing.B) netip.AddrPort {
	port := freePort(b)
	file := filepath.Join(b.TempDir(), "polyport.toml")
	text := fmt.Sprintf("[listen.main]\naddress = [\"127.0.0.1:%d\"]\n[[rule]]\nname = \"all\"\naction = \"allow\"\ntarget = [\"127.0.0.0/8\"]\n", port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	d, err := Start(context.Background(), Options{Path: file, Stdout: io.Discard, Stderr: io.Discard})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}
