package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// presence is what every server of the internet below says, so that a client's
// output shows that it got there.
const presence = "this is example.com"

// internet is what a test that runs apart can reach: example.com with its web
// server, repository and SSH server, at a public address, and an SSH server at
// this machine's own port 22; and the settings by which clients trust them.
type internet struct {
	t    *testing.T
	home string   // of whoever runs the clients
	env  []string // for clients
}

// newInternet makes one.
func newInternet(t *testing.T) *internet {
	t.Helper()
	n := &internet{t: t, home: t.TempDir()}
	// Not the address of an interface, so that no client takes it for its own network's.
	ip(t, "route", "add", "local", publicHost+"/32", "dev", "lo")
	replace(t, "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"+publicHost+" example.com\n10.1.2.3 intranet.example.com\n")
	replace(t, "/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
	n.trust()
	n.serveSSH()
	n.flagChromium()
	return n
}

// trust starts the web server, behind a certificate that the system's programs trust.
func (n *internet) trust() {
	n.t.Helper()
	cert, root := certificate(n.t, "example.com")
	n.serveWeb(&tls.Config{Certificates: []tls.Certificate{cert}})
	added, err := os.ReadFile(root)
	if err != nil {
		n.t.Fatal(err)
	}
	const roots = "/etc/ssl/certs/ca-certificates.crt"
	all, err := os.ReadFile(roots)
	if err != nil {
		n.t.Fatal(err)
	}
	replace(n.t, roots, string(all)+"\n"+string(added))
	store := filepath.Join(n.t.TempDir(), "trust.p12")
	if out := run(n.t, "keytool", "-importcert", "-noprompt", "-alias", "test", "-file", root, "-keystore", store, "-storepass", "changeit"); out.code != 0 {
		n.t.Fatalf("keytool ended with %d: %s%s", out.code, out.stdout, out.stderr)
	}
	n.env = append(n.env, "SSL_CERT_FILE="+roots, "NODE_EXTRA_CA_CERTS="+root, "HOME="+n.home,
		"JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore="+store+" -Djavax.net.ssl.trustStorePassword=changeit")
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} { // which would be below HOME
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			n.t.Fatal(err)
		}
		n.env = append(n.env, name+"="+strings.TrimSpace(string(value)))
	}
}

// serveWeb serves a page and a repository, at ports 80 and 443.
func (n *internet) serveWeb(config *tls.Config) {
	n.t.Helper()
	repository := n.repository()
	mux := http.NewServeMux()
	mux.Handle("/project.git/", http.StripPrefix("/project.git/", http.FileServer(http.Dir(repository))))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprintln(w, presence)
	})
	quiet := log.New(io.Discard, "", 0) // handshakes that a client breaks off
	plain := &http.Server{Handler: mux, ReadHeaderTimeout: patience, ErrorLog: quiet}
	secure := &http.Server{Handler: mux, ReadHeaderTimeout: patience, ErrorLog: quiet, TLSConfig: config}
	at80, at443 := listenAt(n.t, publicHost+":80"), listenAt(n.t, publicHost+":443")
	go func() { _ = plain.Serve(at80) }() // both end with their listeners
	go func() { _ = secure.ServeTLS(at443, "", "") }()
}

// repository makes one with one file, as a web server serves it.
func (n *internet) repository() string {
	n.t.Helper()
	work, bare := n.t.TempDir(), filepath.Join(n.t.TempDir(), "project.git")
	if err := os.WriteFile(filepath.Join(work, "README"), []byte(presence+"\n"), 0o600); err != nil {
		n.t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-C", work, "init", "-q"},
		{"-C", work, "add", "README"},
		{"-C", work, "-c", "user.name=you", "-c", "user.email=you@example.com", "commit", "-q", "-m", "first"},
		{"clone", "-q", "--bare", work, bare},
		{"-C", bare, "update-server-info"},
	} {
		if out := run(n.t, "git", args...); out.code != 0 {
			n.t.Fatalf("git %v ended with %d: %s", args, out.code, out.stderr)
		}
	}
	return bare
}

// serveSSH starts sshd at port 22 of example.com and of this machine. It lets the
// user "you" in, and says what it is.
func (n *internet) serveSSH() {
	n.t.Helper()
	dir := n.t.TempDir()
	mine := filepath.Join(n.home, ".ssh")
	if err := os.Mkdir(mine, 0o700); err != nil {
		n.t.Fatal(err)
	}
	for _, key := range []string{dir + "/host_key", mine + "/id_ed25519"} {
		if out := run(n.t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key); out.code != 0 {
			n.t.Fatalf("ssh-keygen ended with %d: %s", out.code, out.stderr)
		}
	}
	files := map[string]string{
		mine + "/config": "StrictHostKeyChecking accept-new\nLogLevel ERROR\n",
		dir + "/config": "ListenAddress " + publicHost + "\nListenAddress 127.0.0.1\nHostKey " + dir + "/host_key\nAuthorizedKeysFile " + mine +
			"/id_ed25519.pub\nStrictModes no\nUsePAM no\nPidFile none\nForceCommand echo " + presence + "\n",
	}
	for name, content := range files {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			n.t.Fatal(err)
		}
	}
	// ssh takes the home folder from here, not from HOME.
	users, err := os.ReadFile("/etc/passwd")
	if err != nil {
		n.t.Fatal(err)
	}
	replace(n.t, "/etc/passwd", "root:x:0:0:root:"+n.home+":/bin/sh\nyou:x:0:0:you:"+n.home+":/bin/sh\n"+string(users))
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // which sshd wants to be empty
		n.t.Fatal(err)
	}
	n.background(need(n.t, "/usr/sbin/sshd"), "-D", "-e", "-f", dir+"/config")
}

// background runs a program until the test ends.
func (n *internet) background(program string, args ...string) {
	n.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // Wait tells whether it is over
		_ = cmd.Wait()
	})
}

// flagChromium has Chromium print the page instead of showing a window.
func (n *internet) flagChromium() {
	n.t.Helper()
	dir := n.t.TempDir()
	flags := `export CHROMIUM_FLAGS="$CHROMIUM_FLAGS --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-quic ` +
		`--disable-background-networking --disable-component-update --disable-sync --ignore-certificate-errors --dump-dom --user-data-dir=$(mktemp -d ` + n.home + `/chromium.XXXXXX)"` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "test"), []byte(flags), 0o600); err != nil {
		n.t.Fatal(err)
	}
	cover(n.t, "/etc/chromium.d", dir)
}

// shell makes the command that runs a line as a user types it, in a folder.
func (n *internet) shell(dir, line string) *exec.Cmd {
	n.t.Helper()
	cmd := command(n.t, "bash", "-c", line)
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, n.env...)
	return cmd
}
