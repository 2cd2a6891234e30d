package config

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-multierror"
)

var prose = regexp.MustCompile(`(?m)^(# .*|#|---*)?\n`)

// The property: Parse gives a fault or a File; what it gives is the same each time; every
// fault is one line without control bytes; and Validate judges a File
// the same way twice.
func FuzzParse(f *testing.F) {
	example, err := os.ReadFile(examplePath)
	if err != nil {
		f.Fatal(err)
	}
	// In pieces and without its prose, since the fuzzer shrinks long seeds for minutes.
	for _, section := range strings.Split(string(example), "# ---") {
		f.Add([]byte(turnOn(prose.ReplaceAllString(section, ""))))
	}
	for _, seed := range []string{
		"", "x", "[sniff]\ntimeout = 5\n", "[[rule]]\naction = \"allow\"\nclient = [\"10.0.0.1/8\"]\n",
		"[listen.a]\naddress = [\"[::]:1-9\", \"0.0.0.0:5\"]\n[listen.A]\n", "rule = [{}, {action = 1}]\n",
		"[backend.a]\nservers = [\"127.0.0.1:7659\"]\n[sniff]\nsilent_to = \"a\"\n", "\"\\u001b\" = 1\n",
		"[protocols.tls]\nx = 1\n[protocols.TLS]\n", "[auth]\ngroups = { a = [\"\"] }\n", "a.b.c.d.e.f = [[[[1]]]]\n",
		"[upstream.a]\nservers = [\"http://u:p@h\", { url = \"socks4://h\", country = \"DE\" }, {}]\nvia = \"b\"\n[upstream.b]\nvia = \"a\"\n",
		"[exit.a]\ncountry = [\"de\"]\nlocal_address = [\"::/0\"]\n[site.a]\nhosts = [\"*.a\", \"*\"]\n", "[dns]\nbootstrap = { a = [\"::1\"] }\nservers = [\"tls://A\"]\n",
		"rule = 1", "[rule.a]\n", "listen = []", "[dns]\nservers = [\"udp://[::1%25]\"]\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("f.toml", data)
		again, err2 := Parse("f.toml", data)
		if file == nil && err == nil {
			t.Fatal("neither a file nor a fault")
		}
		if errorText(err) != errorText(err2) {
			t.Errorf("two runs differ:\n%s\n%s", errorText(err), errorText(err2))
		}
		checkFaults(t, err)
		if file == nil {
			return
		}
		if diff := cmp.Diff(file, again, compareFiles); diff != "" {
			t.Errorf("two runs differ:\n%s", diff)
		}
		first, second := file.Validate(rowsOfTest), file.Validate(rowsOfTest)
		if errorText(first) != errorText(second) {
			t.Errorf("Validate is not stable:\n%s\n%s", errorText(first), errorText(second))
		}
		checkFaults(t, first)
		var into map[string]any
		checkFaults(t, file.DecodeProtocol("tls", &into))
		checkFaults(t, file.Unknown())
		if err == nil && first == nil {
			file.Warnings()
			if restart, relisten := Diff(file, again); restart != nil || relisten != nil {
				t.Errorf("Diff of the same file = %q, %q", restart, relisten)
			}
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func checkFaults(t *testing.T, err error) {
	var list *multierror.Error
	if err == nil || !errors.As(err, &list) {
		return
	}
	for _, e := range list.Errors {
		if strings.ContainsFunc(e.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("a fault holds control bytes: %q", e)
		}
	}
}
