package integration

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// gitServer serves a repository over HTTP by git's own backend.
type gitServer struct {
	plain, secure string // URLs of the repository
	ca            string
	repository    string
}

func newGitServer(t *testing.T) *gitServer {
	t.Helper()
	root := t.TempDir()
	s := &gitServer{repository: filepath.Join(root, "project.git")}
	git(t, root, "", "init", "-q", "--bare", "-b", "main", s.repository)
	git(t, s.repository, "", "config", "http.receivepack", "true")
	program := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(git(t, root, "", "--exec-path")), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"},
	}
	backend := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // Go's CGI takes no chunks
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		program.ServeHTTP(w, r)
	})
	cert, ca := certificate(t, "127.0.0.1")
	plain, secure := httptest.NewServer(backend), httptest.NewUnstartedServer(backend)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	secure.StartTLS()
	t.Cleanup(func() { plain.Close(); secure.Close() })
	s.plain, s.secure, s.ca = plain.URL+"/project.git", secure.URL+"/project.git", ca
	return s
}

// git runs it, without anybody's settings, and returns what it printed. ca is the
// root that it trusts.
func git(t *testing.T, dir, ca string, args ...string) string {
	t.Helper()
	cmd := withEnv(command(t, "git", args...), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_SSL_CAINFO="+ca,
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@test", "GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@test")
	cmd.Dir = dir
	out := finish(t, cmd)
	if out.code != 0 {
		t.Fatalf("git %s ended with %d: %s", strings.Join(args, " "), out.code, out.stderr)
	}
	return out.stdout
}

// TestGit clones a repository, pushes more than git sends in one piece, and clones again.
func TestGit(t *testing.T) {
	t.Parallel()
	g := newClub(t, "")
	tests := []struct {
		name, proxy string
		secure      bool
		row         string
		user        bool
	}{
		{"http", "http://", false, "http", false},
		{"https", "http://", true, "connect", false},
		{"socks5", "socks5://", false, "socks5", false},
		{"socks5h and https", "socks5h://", true, "socks5", false},
		{"http with user", "http://", false, "http", true},
		{"https with user", "http://", true, "connect", true},
		{"socks5h with user", "socks5h://", false, "socks5", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, dir := newGitServer(t), t.TempDir()
			url, proxy, identity := s.plain, tt.proxy+g.at(), "<nil>"
			if tt.secure {
				url = s.secure
			}
			if tt.user {
				proxy, identity = tt.proxy+clubLogin+g.addr("users"), clubUser
			}
			through := []string{"-c", "http.proxy=" + proxy}
			git(t, dir, s.ca, append(through, "clone", "-q", url, "first")...)
			work := filepath.Join(dir, "first")
			write(t, filepath.Join(work, "README"), "a project\n")
			large, err := io.ReadAll(io.LimitReader(bulkBytes(), 4<<20))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(work, "large"), string(large))
			git(t, work, "", "add", ".")
			git(t, work, "", "commit", "-q", "-m", "all of it")
			git(t, work, s.ca, append(through, "push", "-q", "origin", "HEAD:main")...)
			git(t, dir, s.ca, append(through, "clone", "-q", url, "second")...)
			pushed, cloned := git(t, work, "", "rev-parse", "HEAD"), git(t, filepath.Join(dir, "second"), "", "rev-parse", "HEAD")
			if pushed != cloned || git(t, s.repository, "", "rev-parse", "main") != pushed {
				t.Errorf("pushed %s and cloned %s", pushed, cloned)
			}
			git(t, filepath.Join(dir, "second"), "", "fsck", "--full")
			target := strings.Split(url, "/")[2]
			g.record("protocol="+tt.row, "target="+target, "identity="+identity)
		})
	}
}
