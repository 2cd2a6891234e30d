package acme

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func zapString(key, value string) zap.Field { return zap.String(key, value) }

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	wide := filepath.Join(dir, "wide")
	if err := os.Mkdir(wide, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(wide, 0o777); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*Options)
		want   []string // how each fault begins
	}{
		{"good", func(*Options) {}, nil},
		{"everything", func(o *Options) {
			*o = Options{
				Names:       []string{"*.example.com", "192.0.2.1", "[2001:db8::1]", "a..b", "a b", "", "x.test", "X.test.", strings.Repeat("a", 64) + ".test"},
				Email:       "nobody",
				Directory:   "http://ca.test/dir",
				DirectoryCA: file,
				Storage:     file,
				Challenges:  []string{"dns-01", HTTP01, HTTP01},
				CheckEvery:  -1,
			}
		}, []string{
			`names[0]: "*.example.com" is a wildcard`, `names[1]: "192.0.2.1" is an address`, `names[2]: "[2001:db8::1]" is an address`,
			"names[3]: ", "names[4]: ", "names[5]: ", "names[7]: \"X.test.\" is there twice", "names[8]: ",
			"email: ", "directory: ", "directory_ca: ", "storage: ", "accept_terms: ", "challenges[0]: ", "challenges[2]: ", "check_every: ",
		}},
		{"nothing", func(o *Options) { *o = Options{} }, []string{"names: ", "storage: ", "accept_terms: "}},
		{"no challenges", func(o *Options) { o.Challenges = []string{} }, []string{"challenges: "}},
		{"one challenge", func(o *Options) { o.Challenges = []string{TLSALPN01} }, nil},
		{"IDN", func(o *Options) { o.Names = []string{"bücher.example"} }, nil},
		{"folder that others may write", func(o *Options) { o.Storage = wide }, []string{"storage: "}},
		{"folder that is not there", func(o *Options) { o.Storage = filepath.Join(dir, "new", "er") }, nil},
		{"missing roots", func(o *Options) { o.DirectoryCA = filepath.Join(dir, "none") }, []string{"directory_ca: "}},
		{"password in the URL", func(o *Options) { o.Directory = "https://me:hunter2@ca.test/dir" }, []string{"directory: has a user"}},
		{"password in no URL", func(o *Options) { o.Directory = "https://me:hunter2@ca.test:x/dir" }, []string{"directory: is not a URL"}},
		{"password over http", func(o *Options) { o.Directory = "http://me:hunter2@ca.test/dir" }, []string{"directory: "}},
		{"address with a name", func(o *Options) { o.Email = "Me <me@example.com>" }, []string{"email: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{Names: []string{"a.test"}, Email: "me@example.com", Storage: dir, AcceptTerms: true}
			tt.change(&o)
			got := faults(o.Validate())
			if len(got) != len(tt.want) {
				t.Fatalf("Validate() = %q, want %d faults", got, len(tt.want))
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tt.want[i]) || strings.Contains(got[i], "hunter2") {
					t.Errorf("fault %d = %q, want %q", i, got[i], tt.want[i])
				}
			}
			if len(tt.want) > 0 {
				if m, err := Open(o); err == nil {
					m.Close()
					t.Error("Open did not refuse")
				}
			}
		})
	}
}

// faults takes an error apart.
func faults(err error) []string {
	if err == nil {
		return nil
	}
	var out []string
	for _, e := range err.(interface{ WrappedErrors() []error }).WrappedErrors() {
		out = append(out, e.Error())
	}
	return out
}

func TestNamesAreOfTheWire(t *testing.T) {
	o := options(t)
	o.Names = []string{"Bücher.Example.", "A.test"}
	m := open(t, o)
	if got := strings.Join(m.Names(), " "); got != "xn--bcher-kva.example a.test" {
		t.Errorf("Names() = %s", got)
	}
}

func TestStorageIsForItsOwner(t *testing.T) {
	o := options(t)
	open(t, o)
	info, err := os.Stat(o.Storage)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("storage: %v, %v; want mode 0700", info.Mode(), err)
	}
}

func TestHostNames(t *testing.T) {
	names := []string{"Proxy.Example.net.", "bücher.test", "*.example.net", ""}
	if got, want := HostNames(names), []string{"proxy.example.net", "xn--bcher-kva.test", "*.example.net", ""}; !slices.Equal(got, want) {
		t.Errorf("HostNames(%q) = %q, want %q", names, got, want)
	}
	if names[1] != "bücher.test" {
		t.Error("HostNames changed what it was given")
	}
}

func TestLoadServesWithoutAsking(t *testing.T) {
	o := options(t)
	var asked chan struct{}
	o.Directory, o.DirectoryCA, asked = silentCA(t)
	m := open(t, o)
	store(t, m, "a.test", 7)
	for range 2 {
		m.Load()
	}
	if cert, err := get(m, "a.test"); describe(t, cert, err) != "7" {
		t.Errorf("behind Load: %v", err)
	}
	select {
	case <-asked:
		t.Error("Load asked the CA")
	default:
	}
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-asked // for b.test
}
