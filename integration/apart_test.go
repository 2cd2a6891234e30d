package integration

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// binaryVariable hands the gateway under test to a test that runs itself again.
const binaryVariable = "POLYPORT_TEST_BINARY"

// apart runs the calling test once more, in a network and with mounts of its
// own, and reports whether this is that second run. There the gateway's own port is free,
// any address can be this machine's, and files of the system can be replaced by
// others, without the rest of the machine seeing any of it. The first run ends
// with the second.
func apart(t *testing.T) bool {
	t.Helper()
	if os.Getenv(binaryVariable) != "" {
		settleIn(t)
		return true
	}
	if os.Geteuid() != 0 {
		t.Fatal("this test makes a network and mounts of its own, which needs root (CAP_SYS_ADMIN) on Linux: run the tests as root")
	}
	runtime.LockOSThread() // the second run dies with the thread that started it
	defer runtime.UnlockOSThread()
	limit := time.Duration(0) // none
	if deadline, ok := t.Deadline(); ok {
		limit = time.Until(deadline) * 9 / 10 // so that it tells where it hangs: what it has written is lost when this run is ended
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+limit.String())
	cmd.Env = append(os.Environ(), binaryVariable+"="+binary)
	cmd.SysProcAttr = ownNamespaces()
	out, err := cmd.CombinedOutput()
	t.Logf("in a network of its own:\n%s", out)
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a network of its own the test ends with %v", err)
	}
	return false
}

// settleIn makes the new mounts private and brings loopback up.
func settleIn(t *testing.T) {
	t.Helper()
	if err := keepMounts(); err != nil {
		t.Fatalf("make the mounts private: %v", err)
	}
	ip(t, "link", "set", "lo", "up")
}

// ip sets up the network.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out := run(t, "ip", args...); out.code != 0 {
		t.Fatalf("ip %s: %s", strings.Join(args, " "), out.stderr)
	}
}

// replace has a file of the system read otherwise, for this test alone.
func replace(t *testing.T, path, content string) {
	t.Helper()
	over := filepath.Join(t.TempDir(), "over")
	if err := os.WriteFile(over, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	cover(t, path, over)
}

// cover mounts over upon path until the test ends.
func cover(t *testing.T, path, over string) {
	t.Helper()
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := bind(over, real); err != nil {
		t.Fatalf("mount %s on %s: %v", over, real, err)
	}
	t.Cleanup(func() {
		if err := unbind(real); err != nil {
			t.Errorf("unmount %s: %v", real, err)
		}
	})
}

// listenAt listens on an address of this test's own network.
func listenAt(t *testing.T, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}
