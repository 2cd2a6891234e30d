package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// browser is a headless Chromium with one page, driven by the DevTools protocol
// over two pipes.
type browser struct {
	t         *testing.T
	cmd       *exec.Cmd
	to        *os.File
	downloads string // the folder
	page      string // the session of the page
	// login answers a proxy that asks for a user; false gives up. It is called by the
	// goroutine that reads.
	login func(realm string) (user, password string, ok bool)

	mu      sync.Mutex
	last    int
	waiting map[int]chan devMessage
	done    chan devMessage // downloads that have ended
	gone    chan struct{}   // closed when the browser has
	over    sync.Once
}

// devMessage is a reply or an event of the DevTools protocol.
type devMessage struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
	Session string `json:"sessionId"`
}

// startBrowser starts Chromium with a fresh profile and an empty page. It believes every certificate.
func startBrowser(t *testing.T, args ...string) *browser {
	t.Helper()
	return startStrictBrowser(t, t.TempDir(), append(args, "--ignore-certificate-errors")...)
}

// startStrictBrowser is startBrowser for one that believes the CAs of the database in its home folder.
func startStrictBrowser(t *testing.T, home string, args ...string) *browser {
	t.Helper()
	profile := t.TempDir()
	b := &browser{t: t, downloads: t.TempDir(), waiting: map[int]chan devMessage{}, done: make(chan devMessage, 1), gone: make(chan struct{})}
	hearCommands, commands, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	replies, sayReplies, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	words, err := os.Create(filepath.Join(b.downloads, "words.txt"))
	if err != nil {
		t.Fatal(err)
	}
	b.to = commands
	b.cmd = command(t, "chromium", append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions",
		"--disable-features=OptimizationHints,MediaRouter,DialMediaRouteProvider,HttpsUpgrades,HttpsFirstBalancedMode,LocalNetworkAccessChecks",
		"--user-data-dir=" + profile, "--remote-debugging-pipe",
	}, args...)...)
	b.cmd.Env = append(b.cmd.Env, "HOME="+home)
	b.cmd.ExtraFiles = []*os.File{hearCommands, sayReplies} // descriptors 3 and 4
	b.cmd.Stdout, b.cmd.Stderr = words, words
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hearCommands.Close()
	sayReplies.Close()
	words.Close()
	go b.read(replies)
	t.Cleanup(b.quit)
	b.open()
	return b
}

// open makes the page.
func (b *browser) open() {
	b.t.Helper()
	b.call("", "Browser.setDownloadBehavior", map[string]any{"behavior": "allow", "downloadPath": b.downloads, "eventsEnabled": true}, nil)
	var target struct{ TargetID string }
	b.call("", "Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct{ SessionID string }
	b.call("", "Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
	b.page = attached.SessionID
}

// answerChallenges has login answer when a proxy asks for a user.
func (b *browser) answerChallenges(login func(realm string) (user, password string, ok bool)) {
	b.t.Helper()
	b.login = login
	b.call(b.page, "Fetch.enable", map[string]any{"handleAuthRequests": true}, nil)
}

// visit goes to a URL. The error is the browser's name for what went wrong.
func (b *browser) visit(url string) error {
	b.t.Helper()
	var r struct{ ErrorText string }
	b.call(b.page, "Page.navigate", map[string]any{"url": url}, &r)
	if r.ErrorText != "" {
		return errors.New(r.ErrorText)
	}
	return nil
}

// evaluate returns what an expression of JavaScript comes to on the page.
func (b *browser) evaluate(expression string) string {
	b.t.Helper()
	var r struct {
		Result struct{ Value any }
	}
	b.call(b.page, "Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true}, &r)
	return fmt.Sprint(r.Result.Value)
}

// download goes to the URL of a file and returns where it was saved.
func (b *browser) download(url, name string) string {
	b.t.Helper()
	if err := b.visit(url); err == nil || err.Error() != "net::ERR_ABORTED" { // that is what a download does to a navigation
		b.t.Fatalf("the visit to a file ended with %v, want a download", err)
	}
	select {
	case m := <-b.done:
		var p struct{ State string }
		if err := json.Unmarshal(m.Params, &p); err != nil || p.State != "completed" {
			b.t.Fatalf("the download ended as %s, %v", m.Params, err)
		}
	case <-time.After(patience):
		b.t.Fatal("the download did not end")
	case <-b.gone:
		b.t.Fatal("the browser has gone")
	}
	return filepath.Join(b.downloads, name)
}

// call sends a command and waits for its result.
func (b *browser) call(session, method string, params map[string]any, result any) {
	b.t.Helper()
	reply := make(chan devMessage, 1)
	if err := b.send(session, method, params, reply); err != nil {
		b.t.Fatal(err)
	}
	select {
	case m := <-reply:
		if m.Error != nil {
			b.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				b.t.Fatalf("%s: %v", method, err)
			}
		}
	case <-b.gone:
		words, _ := os.ReadFile(filepath.Join(b.downloads, "words.txt"))
		b.t.Fatalf("%s: the browser has gone, saying %s", method, words)
	case <-time.After(patience):
		b.t.Fatalf("%s: no answer", method)
	}
}

// send sends a command. The reply goes to the channel, unless that is nil.
func (b *browser) send(session, method string, params map[string]any, reply chan devMessage) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last++
	m := map[string]any{"id": b.last, "method": method}
	if params != nil {
		m["params"] = params
	}
	if session != "" {
		m["sessionId"] = session
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if reply != nil {
		b.waiting[b.last] = reply
	}
	_, err = b.to.Write(append(text, 0))
	return err
}

// read takes in what the browser says, each message ended by NUL.
func (b *browser) read(from io.ReadCloser) {
	defer from.Close()
	defer close(b.gone)
	for r := bufio.NewReader(from); ; {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m devMessage
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		reply := b.waiting[m.ID]
		delete(b.waiting, m.ID)
		b.mu.Unlock()
		if reply != nil {
			reply <- m
			continue
		}
		b.event(m)
	}
}

// event answers what the browser cannot go on without.
func (b *browser) event(m devMessage) {
	var p struct {
		RequestID     string
		State         string
		AuthChallenge struct{ Source, Scheme, Realm string }
	}
	_ = json.Unmarshal(m.Params, &p)
	switch m.Method {
	case "Fetch.requestPaused":
		_ = b.send(m.Session, "Fetch.continueRequest", map[string]any{"requestId": p.RequestID}, nil)
	case "Fetch.authRequired":
		answer := map[string]any{"response": "CancelAuth"}
		if c := p.AuthChallenge; c.Source == "Proxy" && c.Scheme == "basic" {
			if user, password, ok := b.login(c.Realm); ok {
				answer = map[string]any{"response": "ProvideCredentials", "username": user, "password": password}
			}
		}
		_ = b.send(m.Session, "Fetch.continueWithAuth", map[string]any{"requestId": p.RequestID, "authChallengeResponse": answer}, nil)
	case "Browser.downloadProgress":
		if p.State != "inProgress" {
			b.done <- m
		}
	}
}

// quit ends the browser in order, so that it leaves its profile alone. To call it
// again does nothing.
func (b *browser) quit() { b.over.Do(b.end) }

func (b *browser) end() {
	_ = b.send("", "Browser.close", nil, nil) // if it has gone, Wait tells
	_ = b.to.Close()
	if err := b.cmd.Wait(); err != nil && !b.t.Failed() {
		b.t.Errorf("Chromium ended with %v", err)
	}
}
