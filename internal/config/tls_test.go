package config

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const oneCertificate = "[tls.certificate.main]\ncertificate = \"a.pem\"\nkey = \"a.key\"\n"

// Each row is a file and every fault that Validate must find in what it says of TLS.
func TestValidateTLS(t *testing.T) {
	const (
		none       = `there is no certificate for it: write a [tls.certificate.NAME] table, or [tls.acme]; 'polyport cert' makes one to try it out`
		noneAtAll  = `clients show certificates only to a gateway that has one, and there is none: write a [tls.certificate.NAME] table, or [tls.acme]`
		noClientCA = `there is no CA whose clients would be believed: write client_ca as well`
	)
	for _, tt := range []struct {
		name, file string
		want       []string
	}{
		{"a certificate", oneCertificate, nil},
		{"everything", "[listen.a]\nrequire_tls = true\n[auth]\nclient_ca = \"ca.pem\"\nclient_crl = \"ca.crl\"\nclient_certificate = \"require\"\nclient_identity = \"cn\"\n" +
			"[tls]\nnames = [\"a.test\"]\nno_sni = true\nmin_version = \"1.3\"\n" + oneCertificate, nil},
		{"ACME in place of a certificate", "[listen.a]\nrequire_tls = true\n[tls]\nno_sni = true\n[tls.acme]\nnames = [\"a.test\"]\nchallenges = [\"tls-alpn-01\", \"http-01\"]\n", nil},
		{"a certificate without files", "[tls.certificate.main]\n[tls.certificate.second]\nkey = \"a.key\"\n", []string{
			`f.toml:1: tls.certificate.main.certificate: there is no file: write one such as "proxy.pem"`,
			`f.toml:1: tls.certificate.main.key: there is no file: write one such as "proxy.key"`,
			`f.toml:2: tls.certificate.second.certificate: there is no file: write one such as "proxy.pem"`,
		}},
		{"the name of a certificate", "[tls.certificate.\"a b\"]\ncertificate = \"a\"\nkey = \"b\"\n", []string{
			`f.toml:1: tls.certificate."a b": this is not a name: write 1 to 64 letters, digits, - and _`,
		}},
		{"a version", "[tls]\nmin_version = \"SSL\"\n" + oneCertificate, []string{
			`f.toml:2: tls.min_version: unknown value "SSL": write one of "1.2", "1.3"`,
		}},
		{"challenges", "[tls.acme]\nnames = [\"a.test\"]\nchallenges = [\"dns-01\", \"http-1\"]\n", []string{
			`f.toml:3: tls.acme.challenges[0]: unknown value "dns-01": write one of "tls-alpn-01", "http-01"`,
			`f.toml:3: tls.acme.challenges[1]: unknown value "http-1": did you mean "http-01"?`,
		}},
		{"no challenge", "[tls.acme]\nnames = [\"a.test\"]\nchallenges = []\n", []string{
			`f.toml:3: tls.acme.challenges: an empty list would match everything: name something, or remove the key if everything is meant`,
		}},
		{"what needs a certificate", "[listen.a]\nrequire_tls = true\n[auth]\nclient_ca = \"ca.pem\"\n[tls]\nnames = [\"a.test\", \"b.test\"]\nno_sni = true\n", []string{
			"f.toml:2: listen.a.require_tls: " + none,
			"f.toml:4: auth.client_ca: " + noneAtAll,
			"f.toml:6: tls.names[0]: " + none,
			"f.toml:6: tls.names[1]: " + none,
			"f.toml:7: tls.no_sni: " + none,
		}},
		{"what needs a CA of clients", "[auth]\nclient_crl = \"ca.crl\"\nclient_certificate = \"require\"\n" + oneCertificate, []string{
			`f.toml:2: auth.client_crl: there are no client certificates to revoke: write client_ca as well`,
			`f.toml:3: auth.client_certificate: ` + noClientCA,
		}},
		{"the same without a certificate", "[auth]\nclient_certificate = \"require\"\n", []string{
			`f.toml:2: auth.client_certificate: ` + noClientCA,
		}},
		{"a request may stand alone", "[auth]\nclient_certificate = \"request\"\nclient_identity = \"san\"\n", nil},
		{"values of client certificates", "[auth]\nclient_certificate = \"required\"\nclient_identity = \"email\"\n", []string{
			`f.toml:2: auth.client_certificate: unknown value "required": did you mean "require"?`,
			`f.toml:3: auth.client_identity: unknown value "email": write one of "san", "cn"`,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := parseWell(t, tt.file)
			if diff := cmp.Diff(tt.want, faultTexts(f.Validate(rowsOfTest))); diff != "" {
				t.Errorf("Validate (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPathsAreThoseOfTheFile(t *testing.T) {
	file := `
[auth]
htpasswd   = "users"
client_ca  = "../ca.pem"
client_crl = "/abs/ca.crl"
[log]
access_to = "access.log"
[tls.certificate.a]
certificate = "a.pem"
key         = "keys/a.key"
ocsp        = "a.ocsp"
[tls.certificate.b]
certificate = "/abs/b.pem"
key         = "b.key"
[tls.acme]
storage      = "acme"
directory_ca = "roots.pem"
`
	f, err := Parse(filepath.Join("/etc", "polyport", "f.toml"), []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ key, got, want string }{
		{"auth.htpasswd", f.Auth.Htpasswd, "/etc/polyport/users"},
		{"auth.client_ca", f.Auth.ClientCA, "/etc/ca.pem"},
		{"auth.client_crl", f.Auth.ClientCRL, "/abs/ca.crl"},
		{"log.access_to", f.Log.AccessTo, "/etc/polyport/access.log"},
		{"tls.certificate.a.certificate", f.TLS.Certificate["a"].Certificate, "/etc/polyport/a.pem"},
		{"tls.certificate.a.key", f.TLS.Certificate["a"].Key, "/etc/polyport/keys/a.key"},
		{"tls.certificate.a.ocsp", f.TLS.Certificate["a"].OCSP, "/etc/polyport/a.ocsp"},
		{"tls.certificate.b.certificate", f.TLS.Certificate["b"].Certificate, "/abs/b.pem"},
		{"tls.certificate.b.ocsp", f.TLS.Certificate["b"].OCSP, ""},
		{"tls.acme.storage", f.TLS.ACME.Storage, "/etc/polyport/acme"},
		{"tls.acme.directory_ca", f.TLS.ACME.DirectoryCA, "/etc/polyport/roots.pem"},
	} {
		if got := filepath.ToSlash(tt.got); got != tt.want {
			t.Errorf("%s is %q, want %q", tt.key, got, tt.want)
		}
	}
	for _, stream := range []string{"stdout", "stderr"} {
		if f := parseWell(t, "[log]\naccess_to = \""+stream+"\"\n"); f.Log.AccessTo != stream {
			t.Errorf("access_to = %q has become %q", stream, f.Log.AccessTo)
		}
	}
}

func TestHasTLSAndUsers(t *testing.T) {
	for _, tt := range []struct {
		file                    string
		hasTLS, hasUsers, users bool // users: whether listeners want one by default
	}{
		{"", false, false, false},
		{oneCertificate, true, false, false},
		{"[tls.acme]\nnames = [\"a.test\"]\n", true, false, false},
		{"[tls.acme]\nstorage = \"x\"\n", false, false, false},
		{"[auth]\nhtpasswd = \"u\"\n", false, true, true},
		{"[auth]\nclient_ca = \"ca.pem\"\n" + oneCertificate, true, true, true},
		{"[auth]\nclient_certificate = \"request\"\n" + oneCertificate, true, false, false},
	} {
		f := parseWell(t, tt.file)
		if f.HasTLS() != tt.hasTLS || f.HasUsers() != tt.hasUsers || f.RequireUser("main") != tt.users {
			t.Errorf("%q: TLS %v, users %v, required %v; want %v, %v, %v", tt.file, f.HasTLS(), f.HasUsers(), f.RequireUser("main"), tt.hasTLS, tt.hasUsers, tt.users)
		}
	}
}

func TestTLSName(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		known      []string
		want       string
	}{
		{"nothing", "", nil, ""},
		{"what the certificates know", oneCertificate, []string{"*.b.test", "a.test"}, "a.test"},
		{"names go first", "[tls]\nnames = [\"*.n.test\", \"n.test\"]\n" + oneCertificate, []string{"a.test"}, "n.test"},
		{"then ACME's", "[tls]\nnames = [\"*.n.test\"]\n[tls.acme]\nnames = [\"acme.test\"]\n", []string{"a.test"}, "acme.test"},
		{"wildcards alone", oneCertificate, []string{"*.a.test"}, ""},
	} {
		if got := parseWell(t, tt.file).TLSName(tt.known); got != tt.want {
			t.Errorf("%s: TLSName = %q, want %q", tt.name, got, tt.want)
		}
	}
}
