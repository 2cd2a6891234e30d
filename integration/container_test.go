package integration

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The network that a container's test makes: the container has all addresses of it,
// as with its host's network.
const (
	publicWeb  = "93.184.215.14:80" // a web server in the Internet, so to speak
	publicHost = "93.184.215.14"
	lanHost    = "192.0.2.7" // under which others than this machine reach the container
)

// gatewayUser is whom the image's USER is to be.
const gatewayUser = 65532

// builtImage is what `make image` made, in a store of its own.
type builtImage struct {
	t       *testing.T
	buildah []string // the command, up to its verb
	id      string   // of the container that is made from it
	root    string   // its files
	volume  string   // what is mounted at /etc/polyport
	config  imageConfig
}

// imageConfig is the part of the image's configuration that says how to run it.
type imageConfig struct {
	User         string
	Env          []string
	Entrypoint   []string
	Volumes      map[string]any
	ExposedPorts map[string]any
	Healthcheck  struct{ Test []string }
}

// buildImage runs `make image`, and makes a container of it with an empty volume.
func buildImage(t *testing.T) *builtImage {
	t.Helper()
	dir := t.TempDir()
	im := &builtImage{t: t, buildah: []string{need(t, "buildah"), "--storage-driver", "vfs", "--root", dir + "/store", "--runroot", dir + "/run"}}
	mk := exec.Command("make", "image", "VERSION=test", "CONTEXT="+dir+"/context", "BUILDAH="+strings.Join(im.buildah, " "))
	mk.Dir = ".."
	if err := os.Mkdir(dir+"/context", 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := mk.CombinedOutput(); err != nil {
		t.Fatalf("make image: %v\n%s", err, out)
	}
	var inspected struct{ Docker struct{ Config imageConfig } }
	if err := json.Unmarshal([]byte(im.do("inspect", "--type", "image", "localhost/polyport:latest")), &inspected); err != nil {
		t.Fatal(err)
	}
	im.config = inspected.Docker.Config
	im.id = im.do("from", "--pull-never", "localhost/polyport:latest")
	im.root = im.do("mount", im.id)
	t.Cleanup(func() { im.do("umount", im.id) })
	im.volume = im.newVolume()
	return im
}

// do runs buildah to its end.
func (im *builtImage) do(args ...string) string {
	im.t.Helper()
	out, err := im.command(args...).Output()
	if err != nil {
		im.t.Fatalf("buildah %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

func (im *builtImage) command(args ...string) *exec.Cmd {
	im.t.Helper()
	return command(im.t, im.buildah[0], append(im.buildah[1:], args...)...)
}

// newVolume makes what the first `docker run -v` of a volume does: an empty folder
// with the owner that the image's own has.
func (im *builtImage) newVolume() string {
	im.t.Helper()
	dir := im.t.TempDir()
	info, err := os.Stat(im.root + "/etc/polyport")
	if err != nil {
		im.t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
		im.t.Fatal(err)
	}
	return dir
}

// inside makes the command that runs a program in the container, with the image's
// user and environment, and with what env adds ("NAME=value").
func (im *builtImage) inside(env []string, args ...string) *exec.Cmd {
	im.t.Helper()
	all := []string{"run", "--isolation", "chroot", "--volume", im.volume + ":/etc/polyport"}
	for _, e := range env {
		all = append(all, "--env", e)
	}
	return im.command(append(append(all, im.id, "--"), args...)...)
}

// polyport is what `docker run IMAGE args...` runs.
func (im *builtImage) polyport(env []string, args ...string) *exec.Cmd {
	im.t.Helper()
	return im.inside(env, append(slices.Clone(im.config.Entrypoint), args...)...)
}

// health runs the health check in the container.
func (im *builtImage) health(env ...string) output {
	im.t.Helper()
	return finish(im.t, im.inside(env, im.config.Healthcheck.Test[1:]...))
}

// start runs the gateway in the container until it listens.
func (im *builtImage) start(env ...string) *gateway {
	im.t.Helper()
	g := &gateway{t: im.t, cmd: im.polyport(env), exited: make(chan struct{}), news: make(chan struct{})}
	g.cmd.Stdout = &g.stdout
	g.run()
	g.waitListening(1)
	return g
}

// process returns the gateway's process, which is the last one that buildah started.
func (im *builtImage) process(g *gateway) int {
	im.t.Helper()
	pid := g.cmd.Process.Pid
	for {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
		if err != nil {
			im.t.Fatal(err)
		}
		var children []string
		for _, file := range tasks {
			list, _ := os.ReadFile(file) // a thread may have ended
			children = append(children, strings.Fields(string(list))...)
		}
		if len(children) == 0 {
			return pid
		}
		if pid, err = strconv.Atoi(children[0]); err != nil {
			im.t.Fatal(err)
		}
	}
}

func TestContainer(t *testing.T) {
	t.Parallel()
	if !apart(t) {
		return
	}
	for _, a := range []string{publicHost, lanHost} {
		ip(t, "address", "add", a+"/32", "dev", "lo")
	}
	web := &http.Server{Handler: http.HandlerFunc(hello), ReadHeaderTimeout: patience}
	at80 := listenAt(t, publicWeb)
	go func() { _ = web.Serve(at80) }() // it ends with the listener
	im := buildImage(t)
	t.Run("holds what it should", im.checkFiles)
	t.Run("says how to run it", im.checkConfig)
	t.Run("without users", im.checkNoUsers)
	t.Run("user add", im.checkUserAdd)
	t.Run("serves", im.checkServes)
	t.Run("another port", im.checkAnotherPort)
	t.Run("with a file", im.checkFile)
}

// checkFiles finds a static binary, CA roots, the folder, and nothing else.
func (im *builtImage) checkFiles(t *testing.T) {
	owners := map[string]uint32{}
	err := filepath.WalkDir(im.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; !d.IsDir() || owner != 0 {
			owners[strings.TrimPrefix(path, im.root)] = owner
		}
		if info.Mode().Perm()&0o022 != 0 {
			t.Errorf("%s can be written to by others: %v", path, info.Mode())
		}
		return nil
	})
	want := map[string]uint32{"/polyport": 0, "/etc/ssl/certs/ca-certificates.crt": 0, "/etc/polyport": gatewayUser}
	if fmt.Sprint(owners) != fmt.Sprint(want) || err != nil {
		t.Errorf("the image holds %v, %v; want %v (file or folder, owner)", owners, err, want)
	}
	program, err := elf.Open(im.root + "/polyport")
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if libraries, err := program.ImportedLibraries(); len(libraries) > 0 || program.Section(".interp") != nil {
		t.Errorf("the binary is not static: it wants %v, %v", libraries, err)
	}
}

func (im *builtImage) checkConfig(t *testing.T) {
	c := im.config
	if c.User != "65532:65532" || len(c.Entrypoint) != 1 || len(c.Healthcheck.Test) < 2 || c.Healthcheck.Test[0] != "CMD" {
		t.Errorf("user %q, entry point %q, health check %q", c.User, c.Entrypoint, c.Healthcheck.Test)
	}
	if c.ExposedPorts["7659/tcp"] == nil || c.ExposedPorts["7659/udp"] == nil || c.Volumes["/etc/polyport"] == nil {
		t.Errorf("ports %v, volumes %v", c.ExposedPorts, c.Volumes)
	}
	if got := finish(t, im.polyport(nil, "version")); got.code != 0 || !strings.HasPrefix(got.stdout, "polyport test ") {
		t.Errorf("version ends with %d and prints %q", got.code, got.stdout)
	}
}

// checkNoUsers wants the one line that gives the gateway its users.
func (im *builtImage) checkNoUsers(t *testing.T) {
	got := finish(t, im.polyport(nil))
	const line = "\n  docker run --rm -it -v polyport:/etc/polyport polyport user add NAME\n"
	if got.code == 0 || !strings.Contains(got.stderr, line) {
		t.Errorf("without users the container ends with %d and prints %q; want %q", got.code, got.stderr, line)
	}
}

func (im *builtImage) checkUserAdd(t *testing.T) {
	cmd := im.polyport(nil, "user", "add", "alice")
	cmd.Stdin = strings.NewReader("correct horse\n")
	if got := finish(t, cmd); got.code != 0 {
		t.Fatalf("user add ends with %d and prints %q", got.code, got.stderr)
	}
	info, err := os.Stat(im.volume + "/users.htpasswd")
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != gatewayUser || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of users belongs to %d with %v, want %d and 0600", owner, info.Mode().Perm(), gatewayUser)
	}
}

func (im *builtImage) checkServes(t *testing.T) {
	if got := im.health(); got.code == 0 {
		t.Errorf("nothing runs, and the health check ends with 0: %q", got.stdout)
	}
	g := im.start()
	pid := im.process(g)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !strings.Contains(string(status), "Name:\tpolyport\n") || !strings.Contains(string(status), "Uid:\t65532\t65532\t65532\t65532\n") {
		t.Errorf("the gateway's process is %s, %v; want polyport, and the user 65532", status, err)
	}
	for _, proxy := range []string{"http://alice:correct%20horse@" + lanHost, "socks5h://alice:correct%20horse@127.0.0.1"} {
		got := run(t, "curl", "-sSx", proxy+":7659", "http://"+publicWeb+"/from-the-container")
		if want := "hello from " + publicHost + "/from-the-container"; got.code != 0 || !strings.HasPrefix(got.stdout, want) {
			t.Errorf("through %s curl ends with %d and prints %q, %q; want %q", proxy, got.code, got.stdout, got.stderr, want)
		}
	}
	for _, host := range []string{lanHost, "127.0.0.1"} {
		got := run(t, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-x", "http://"+host+":7659", "http://"+publicWeb+"/")
		if got.stdout != "407" {
			t.Errorf("without a user, by way of %s, curl gets %q, want 407", host, got.stdout)
		}
	}
	if got := im.health(); got.code != 0 || got.stdout != "" {
		t.Errorf("the health check ends with %d and prints %q; want 0 and nothing", got.code, got.stdout)
	}
	im.stop(t, g)
}

// stop sends SIGTERM, as `docker stop` does, and waits for an end in order.
func (im *builtImage) stop(t *testing.T, g *gateway) {
	t.Helper()
	if err := syscall.Kill(im.process(g), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.exited:
	case <-time.After(patience):
		t.Fatal("the container did not stop")
	}
	if g.status != nil || !strings.Contains(g.log(), `"msg":"stopped"`) {
		t.Errorf("the container ended with %v, and its log is %s", g.status, g.log())
	}
}

// checkAnotherPort has the health check follow the gateway to its port.
func (im *builtImage) checkAnotherPort(t *testing.T) {
	const env = "POLYPORT_LISTEN=0.0.0.0:8080"
	g := im.start(env)
	if got := im.health(env); got.code != 0 {
		t.Errorf("the health check ends with %d and prints %q", got.code, got.stdout)
	}
	if got := im.health(); got.code == 0 {
		t.Error("nothing listens on the usual port, and its health check ends with 0")
	}
	im.stop(t, g)
}

// checkFile has the container configured by a file alone. Its rule needs the time
// zones, which this image has no files of.
func (im *builtImage) checkFile(t *testing.T) {
	const file = `
[listen.main]
address = ["0.0.0.0:7777"]

[auth]
htpasswd = "users.htpasswd"

[[rule]]
name   = "always, in Berlin"
action = "allow"
user   = ["alice"]
time   = "Mon-Sun 00:00-24:00 Europe/Berlin"
`
	if err := os.WriteFile(im.volume+"/polyport.toml", []byte(file), 0o644); err != nil {
		t.Fatal(err)
	}
	g := im.start("POLYPORT_CONFIG=/etc/polyport/polyport.toml", "POLYPORT_LISTEN=", "POLYPORT_HTPASSWD=")
	run(t, "curl", "-sSx", "http://alice:correct%20horse@"+lanHost+":7777", "http://"+publicWeb+"/")
	g.record("rule=always, in Berlin", "status=200", "identity=alice")
	im.stop(t, g)
}
