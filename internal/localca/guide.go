package localca

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"
)

// DefaultPort is that of the gateway in what is printed.
const DefaultPort = "7659"

// guide is what a text is filled with. Paths are absolute, so that lines can be
// copied wherever they are needed.
type guide struct {
	Issued
	Name   string // the first of Names
	Host   string // of a URL
	Bundle string
	PKCS12 string
	Until  string
}

// WriteServer says what has been made and how each kind of client is told to trust it.
func (i Issued) WriteServer(w io.Writer) error { return i.write(w, serverText) }

// WriteClient says what has been made and how the gateway and the client are told of it.
func (i Issued) WriteClient(w io.Writer) error { return i.write(w, clientText) }

func (i Issued) write(w io.Writer, text *template.Template) error {
	for _, p := range []*string{&i.CA, &i.CAKey, &i.Certificate, &i.Key} {
		if abs, err := filepath.Abs(*p); err == nil {
			*p = abs
		}
	}
	g := guide{
		Issued: i, Name: i.Names[0], Host: strings.TrimPrefix(i.Names[0], "*."),
		Bundle: filepath.Join(filepath.Dir(i.CA), "bundle.pem"),
		PKCS12: strings.TrimSuffix(i.Certificate, ".pem") + ".p12",
		Until:  i.NotAfter.UTC().Format(time.DateOnly),
	}
	if strings.HasPrefix(g.Name, "*.") {
		g.Host = "proxy." + g.Host
	}
	g.Host = net.JoinHostPort(g.Host, DefaultPort)
	return text.Execute(w, g)
}

// shell quotes a path for a POSIX shell, if it needs it.
func shell(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@:,", r)
	}
	if path != "" && !slices.ContainsFunc([]rune(path), func(r rune) bool { return !plain(r) }) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// tomlString writes a basic string of TOML.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func parse(name, text string) *template.Template {
	return template.Must(template.New(name).Funcs(template.FuncMap{"shell": shell, "toml": tomlString, "join": strings.Join}).Parse(text))
}

var serverText = parse("server", `{{if .NewCA}}A new CA, for these names only:
  {{.CA}}
  {{.CAKey}}  (secret: whoever has it can be this gateway; the gateway does not need it)
{{else}}The CA that was there has issued it, so clients that trust it have nothing to do:
  {{.CA}}
{{end}}A certificate for {{join .Names ", "}}, good until {{.Until}}:
  {{.Certificate}}
  {{.Key}}  (secret)

The configuration of the gateway, which must be able to read both:
  [tls.certificate.local]
  certificate = {{toml .Certificate}}
  key = {{toml .Key}}

Tell clients to trust the CA:
  curl               curl --proxy https://{{.Host}} --proxy-cacert {{shell .CA}} https://example.com/
  openssl            openssl s_client -connect {{.Host}} -CAfile {{shell .CA}} -verify_return_error
  Debian, Ubuntu     sudo cp {{shell .CA}} /usr/local/share/ca-certificates/polyport.crt && sudo update-ca-certificates
  Fedora, RHEL       sudo cp {{shell .CA}} /etc/pki/ca-trust/source/anchors/polyport.pem && sudo update-ca-trust
  macOS              sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {{shell .CA}}
  Windows            certutil -addstore -f Root {{shell .CA}}
                     (as administrator; with -user before -addstore for one user)
  Chrome, Chromium   on Linux: certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n "polyport local CA" -i {{shell .CA}}
                     (package libnss3-tools); elsewhere it trusts what the system does.
                     Then: chromium --proxy-server=https://{{.Host}}
  Firefox            Settings, Privacy & Security, View Certificates, Authorities, Import: for websites.
                     The proxy is set by a PAC file: function FindProxyForURL() { return "HTTPS {{.Host}}"; }
  Node.js            export NODE_EXTRA_CA_CERTS={{shell .CA}}
  Java               keytool -importcert -cacerts -alias polyport -file {{shell .CA}}
  Go, Python         trust what the system does, or one file that must have the other CAs too:
                     cat /etc/ssl/certs/ca-certificates.crt {{shell .CA}} > {{shell .Bundle}}
                     export SSL_CERT_FILE={{shell .Bundle}} REQUESTS_CA_BUNDLE={{shell .Bundle}}
To trust it no longer, remove it there. Run this again before {{.Until}}: the gateway takes the new certificate by itself.
`)

var clientText = parse("client", `{{if .NewCA}}A new CA for clients:
  {{.CA}}
  {{.CAKey}}  (secret: whoever has it can be every client; the gateway does not need it)
{{else}}The CA for clients that was there has issued it:
  {{.CA}}
{{end}}A certificate of the client {{.Name}}, good until {{.Until}}:
  {{.Certificate}}
  {{.Key}}  (secret)

The configuration of the gateway:
  [auth]
  client_ca = {{toml .CA}}

Tell the client to show it:
  curl               curl --proxy-cert {{shell .Certificate}} --proxy-key {{shell .Key}} ...
  openssl            openssl s_client -cert {{shell .Certificate}} -key {{shell .Key}} ...
  browsers, systems  import this file, made with a password that you choose:
                     openssl pkcs12 -export -in {{shell .Certificate}} -inkey {{shell .Key}} -out {{shell .PKCS12}}
`)
