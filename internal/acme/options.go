package acme

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/net/idna"

	"polyport/internal/file"
)

const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// What Options.Challenges may name.
const (
	TLSALPN01 = "tls-alpn-01"
	HTTP01    = "http-01"
)

// Options says for what and from whom certificates are obtained.
type Options struct {
	// Names are the host names; each gets a certificate of its own. Wildcards are refused.
	Names []string
	// Email is where the CA may write to; empty tells it none. Another address is another account.
	Email string
	// Directory is the https URL of the CA's directory (RFC 8555 section 7.1.1); empty is Let's Encrypt's.
	Directory string
	// DirectoryCA is a PEM file of the roots that the directory's own certificate is judged by; empty means the system's.
	DirectoryCA string
	// Storage is the folder of the account's key, certificates and their keys. It is made, for its owner alone, and nothing is written elsewhere.
	Storage string
	// AcceptTerms says that the operator agrees to the CA's terms of service; without that there are no certificates.
	AcceptTerms bool
	// Challenges are the types that may be used; nil means all that there are, TLSALPN01 and HTTP01.
	Challenges []string
	// CheckEvery is how often certificates are looked at for renewal; zero means 10 minutes. One that
	// ends within five times of that is renewed in any case.
	CheckEvery time.Duration
	// Log is where failures go; nil means slog.Default.
	Log *slog.Logger
}

// Validate returns every fault at once, each with its key in front. It reads files and asks no one.
func (o Options) Validate() error {
	var errs *multierror.Error
	fault := func(format string, args ...any) { errs = multierror.Append(errs, fmt.Errorf(format, args...)) }
	if len(o.Names) == 0 {
		fault("names: there is none")
	}
	seen := map[string]bool{}
	for i, name := range o.Names {
		ascii, err := hostName(name)
		switch {
		case err != nil:
			fault("names[%d]: %w", i, err)
		case seen[ascii]:
			fault("names[%d]: %q is there twice", i, name)
		}
		seen[ascii] = true
	}
	if a, err := mail.ParseAddress(o.Email); o.Email != "" && (err != nil || a.Address != o.Email) {
		fault("email: %q is not an address such as admin@example.com", o.Email)
	}
	if err := checkDirectory(o.directory()); err != nil {
		fault("directory: %w", err)
	}
	if _, err := file.CertPool(o.DirectoryCA); err != nil {
		fault("directory_ca: %w", err)
	}
	if err := checkStorage(o.Storage); err != nil {
		fault("storage: %w", err)
	}
	if !o.AcceptTerms {
		fault("accept_terms: must be true: a CA gives certificates only to those who agree to its terms of service")
	}
	if o.Challenges != nil && len(o.Challenges) == 0 {
		fault("challenges: there is none; without the key all are used")
	}
	for i, c := range o.Challenges {
		switch {
		case c != TLSALPN01 && c != HTTP01:
			fault("challenges[%d]: %q is neither %q nor %q", i, c, TLSALPN01, HTTP01)
		case slices.Contains(o.Challenges[:i], c):
			fault("challenges[%d]: %q is there twice", i, c)
		}
	}
	if o.CheckEvery < 0 {
		fault("check_every: %v is negative", o.CheckEvery)
	}
	return errs.ErrorOrNil()
}

func (o Options) directory() string {
	if o.Directory == "" {
		return letsEncrypt
	}
	return o.Directory
}

func (o Options) challenges() []string {
	if o.Challenges == nil {
		return []string{TLSALPN01, HTTP01}
	}
	return o.Challenges
}

// hostName returns the form of a name that goes over the wire.
func hostName(name string) (string, error) {
	if strings.Contains(name, "*") {
		return "", fmt.Errorf("%q is a wildcard, which needs the DNS-01 challenge: name each host", name)
	}
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return "", fmt.Errorf("%q is an address: certificates are for host names", name)
	}
	ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(name, "."))
	if err != nil {
		return "", fmt.Errorf("%q is not a host name: %w", name, err)
	}
	if ascii == "" || len(ascii) > 253 || slices.ContainsFunc(strings.Split(ascii, "."), badLabel) {
		return "", fmt.Errorf("%q is not a host name", name)
	}
	return ascii, nil
}

// HostNames returns the form in which names go over the wire, in lower-case ASCII. What is no host name stays as it is.
func HostNames(names []string) []string {
	wire := slices.Clone(names)
	for i, name := range names {
		if ascii, err := hostName(name); err == nil {
			wire[i] = ascii
		}
	}
	return wire
}

// badLabel judges what idna leaves to its callers.
func badLabel(label string) bool { return label == "" || len(label) > 63 }

// checkDirectory allows https alone (RFC 8555 section 6.1).
func checkDirectory(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("is not a URL") // the cause would show what may be a password
	case u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "":
		return fmt.Errorf("%q is not an https URL", u.Redacted())
	case u.User != nil:
		return errors.New("has a user name or password in it")
	}
	return nil
}

// checkStorage looks at a folder that need not be there yet.
func checkStorage(path string) error {
	if path == "" {
		return errors.New("is not set: it is the folder of keys and certificates")
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", path)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s may be written by others (%v): chmod 700 it", path, info.Mode().Perm())
	}
	return nil
}

// The bounds of one request to the CA.
const (
	requestTimeout = 30 * time.Second
	maxHeader      = 64 << 10
	maxBody        = 1 << 20
)

// newHTTPClient makes the client that asks the CA. It takes no proxy from the
// environment: that could be the gateway itself.
func newHTTPClient(rootsFile string) (*http.Client, error) {
	roots, err := file.CertPool(rootsFile)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout: requestTimeout,
		Transport: bounded{&http.Transport{
			Proxy:                  nil,
			DialContext:            (&net.Dialer{Timeout: requestTimeout}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    requestTimeout,
			ForceAttemptHTTP2:      true,
			IdleConnTimeout:        requestTimeout,
			MaxResponseHeaderBytes: maxHeader,
		}},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Scheme != "https" || len(via) >= 5 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}, nil
}

// bounded ends answers after maxBody, which acmez would read in full.
type bounded struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxBody), resp.Body}
	return resp, nil
}
