package auth

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/go-multierror"
)

func TestParseVerifier(t *testing.T) {
	const (
		bcryptSalt = "CCCCCCCCCCCCCCCCCCCCC."
		argonSalt  = "c29tZXNhbHQ"
		argonKey   = "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	)
	tests := []struct {
		name, in, password string // a password that matches
		says               string // "": it is taken
	}{
		// Vectors of crypt_blowfish and of the reference implementation of Argon2.
		{"bcrypt 2a", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", ""},
		{"bcrypt 2b", "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", ""},
		{"bcrypt 2y", "$2y$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", "\xa3", ""},
		{"argon2id", "$argon2id$v=19$m=256,t=2,p=1$" + argonSalt + "$" + argonKey, "password", ""},
		{"argon2id with more memory", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password", ""},

		{"empty", "", "", "plain text"},
		{"plain text", "hunter2", "", "plain text or an old crypt"},
		{"DES crypt", "rqXexS6ZhobKA", "", "plain text or an old crypt"},
		{"Apache MD5", "$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00", "", "Apache MD5"},
		{"MD5 crypt", "$1$28772684$iEwNOgGugqO9.bIz5sk8k/", "", "MD5 crypt"},
		{"SHA-1", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "", "plain SHA-1"},
		{"salted SHA-1", "{SSHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "", "salted SHA-1"},
		{"SHA-256 crypt", "$5$saltsaltsalt$abc", "", "SHA-256 crypt"},
		{"SHA-512 crypt", "$6$saltsaltsalt$abc", "", "SHA-512 crypt"},
		{"yescrypt", "$y$j9T$abc$def", "", "yescrypt"},
		{"bcrypt with the sign bug", "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "", "faulty bcrypt"},
		{"argon2i", "$argon2i$v=19$m=256,t=2,p=1$" + argonSalt + "$" + argonKey, "", "argon2i,"},

		{"bcrypt cut short", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe", "", "cut short or garbled"},
		{"bcrypt too long", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW ", "", "cut short or garbled"},
		{"bcrypt with another alphabet", "$2a$05$" + bcryptSalt + "E5YPO9kmyuRGyh0XouQYb4YMJKvyO+W", "", "cut short or garbled"},
		{"bcrypt of cost 3", "$2a$03$" + bcryptSalt + "E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "", "cut short or garbled"},
		{"bcrypt of cost 15", "$2a$15$" + bcryptSalt + "E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "", "at most 14"},
		{"bcrypt of cost 31", "$2a$31$" + bcryptSalt + "E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "", "at most 14"},
		{"bcrypt of a garbled cost", "$2a$xx$" + bcryptSalt + "E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "", "cut short or garbled"},

		{"argon2id without a version", "$argon2id$m=256,t=2,p=1$" + argonSalt + "$" + argonKey, "", "cut short or garbled"},
		{"argon2id of an old version", "$argon2id$v=16$m=256,t=2,p=1$" + argonSalt + "$" + argonKey, "", "cut short or garbled"},
		{"argon2id in another order", "$argon2id$v=19$t=2,m=256,p=1$" + argonSalt + "$" + argonKey, "", "cut short or garbled"},
		{"argon2id with a sign", "$argon2id$v=19$m=+256,t=2,p=1$" + argonSalt + "$" + argonKey, "", "cut short or garbled"},
		{"argon2id with a zero in front", "$argon2id$v=19$m=0256,t=2,p=1$" + argonSalt + "$" + argonKey, "", "cut short or garbled"},
		{"argon2id without passes", "$argon2id$v=19$m=256,t=0,p=1$" + argonSalt + "$" + argonKey, "", "cut short or garbled"},
		{"argon2id without lanes", "$argon2id$v=19$m=256,t=2,p=0$" + argonSalt + "$" + argonKey, "", "cut short or garbled"},
		{"argon2id with 256 lanes", "$argon2id$v=19$m=4096,t=2,p=256$" + argonSalt + "$" + argonKey, "", "cut short or garbled"},
		{"argon2id with too little memory", "$argon2id$v=19$m=7,t=2,p=1$" + argonSalt + "$" + argonKey, "", "cut short or garbled"},
		{"argon2id with a fourth parameter", "$argon2id$v=19$m=256,t=2,p=1,keyid=x$" + argonSalt + "$" + argonKey, "", "cut short or garbled"},
		{"argon2id with padding", "$argon2id$v=19$m=256,t=2,p=1$" + argonSalt + "=$" + argonKey, "", "cut short or garbled"},
		{"argon2id with a short salt", "$argon2id$v=19$m=256,t=2,p=1$c29t$" + argonKey, "", "cut short or garbled"},
		{"argon2id with a short key", "$argon2id$v=19$m=256,t=2,p=1$" + argonSalt + "$c29tZXNhbHQ", "", "cut short or garbled"},
		{"argon2id without a key", "$argon2id$v=19$m=256,t=2,p=1$" + argonSalt, "", "cut short or garbled"},
		{"argon2id that eats all memory", "$argon2id$v=19$m=4294967295,t=1,p=1$" + argonSalt + "$" + argonKey, "", "too much time or memory"},
		{"argon2id with a little too much", "$argon2id$v=19$m=131073,t=1,p=1$" + argonSalt + "$" + argonKey, "", "too much time or memory"},
		{"argon2id that takes for ever", "$argon2id$v=19$m=64,t=4294967295,p=1$" + argonSalt + "$" + argonKey, "", "too much time or memory"},
		{"argon2id with much of both", "$argon2id$v=19$m=131072,t=5,p=1$" + argonSalt + "$" + argonKey, "", "too much time or memory"},
		{"argon2id with many lanes", "$argon2id$v=19$m=4096,t=1,p=17$" + argonSalt + "$" + argonKey, "", "too much time or memory"},
		{"argon2id with a long salt", "$argon2id$v=19$m=256,t=2,p=1$" + strings.Repeat("AAAA", 22) + "$" + argonKey, "", "too much time or memory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := parseVerifier(tt.in)
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("parseVerifier(%q) = %v, want it to say %q", tt.in, err, tt.says)
				}
				if err != nil && len(tt.in) > 5 && strings.Contains(err.Error(), tt.in[5:]) {
					t.Errorf("the error %q holds the stored password", err)
				}
				return
			}
			if err != nil {
				t.Fatalf("parseVerifier(%q): %v", tt.in, err)
			}
			if !v.matches(tt.password) || v.matches(tt.password+"x") || v.matches("") {
				t.Errorf("%q does not match just %q", tt.in, tt.password)
			}
			if d := v.decoy(); d.effort() != v.effort() || d.matches(tt.password) {
				t.Errorf("the decoy of %q costs %q and matches %v, want %q and no match", tt.in, d.effort(), d.matches(tt.password), v.effort())
			}
			for n := range tt.in { // cut at every length
				if _, err := parseVerifier(tt.in[:n]); err == nil && strings.HasPrefix(tt.in, "$2") {
					t.Errorf("parseVerifier(%q) succeeds", tt.in[:n])
				}
			}
		})
	}
}

func TestParseTable(t *testing.T) {
	hash := cheap(t, "secret")
	file := "\ufeff# comment\r\n\r\nalice:" + hash + "\r\n# bob:x\nbob:" + argonSecret // no line end
	tab, err := parseTable("users", []byte(file))
	if err != nil || len(tab.users) != 2 {
		t.Fatalf("parseTable = %v, %v, want alice and bob", tab.users, err)
	}
	for _, name := range []string{"alice", "bob"} {
		if !tab.lookup(name).matches("secret") {
			t.Errorf("%s's password does not match", name)
		}
	}
	if e := tab.lookup("carol"); e.version != 0 || e.matches("secret") {
		t.Errorf("lookup of an unknown user = %+v", e)
	}
}

func TestParseTableListsEveryFault(t *testing.T) {
	hash := cheap(t, "secret")
	file := strings.Join([]string{
		"alice:" + hash,
		"just words, perhaps a password",
		"bob:hunter2",
		"alice:" + hash,
		":" + hash,
		"car\x00ol:" + hash,
		strings.Repeat("x", 256) + ":" + hash,
		"dave:$apr1$lZL6V/ci$eIMz/iKDkbtys/uU7LEK00",
		" erin:" + hash,
		"\xff:" + hash,
	}, "\n")
	_, err := parseTable("users", []byte(file))
	var list *multierror.Error
	if !errors.As(err, &list) {
		t.Fatalf("parseTable = %v, want a list of faults", err)
	}
	want := []string{
		"users:2: the line is not of the form NAME:HASH",
		`users:3: user "bob": the password is stored as plain text`,
		`users:4: user "alice" stands in line 1 already`,
		"users:5: the user name is empty",
		"users:6: the user name holds a control character",
		"users:7: the user name is longer than 255 bytes",
		`users:8: user "dave": the password is stored as Apache MD5`,
		"users:9: the user name begins or ends with a space",
		"users:10: the user name is not UTF-8",
	}
	if len(list.Errors) != len(want) {
		t.Errorf("parseTable lists %d faults, want %d: %v", len(list.Errors), len(want), err)
	}
	for i, e := range list.Errors[:min(len(want), len(list.Errors))] {
		if !strings.HasPrefix(e.Error(), want[i]) {
			t.Errorf("fault %d is %q, want %q", i, e, want[i])
		}
	}
	for _, secret := range []string{"hunter2", "just words", "apr1"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows %q", secret)
		}
	}
}

func TestDecoyIsLikeMostUsers(t *testing.T) {
	five, four := "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", cheap(t, "x")
	tests := []struct{ name, file, want string }{
		{"no users", "", "bcrypt 10"},
		{"most of them", "a:" + argonSecret + "\nb:" + four + "\nc:" + five + "\nd:" + four, "bcrypt 04"},
		{"argon2id", "a:" + argonSecret, "argon2id 64 1 1"},
		{"the first of equals", "a:" + five + "\nb:" + four, "bcrypt 05"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tab, err := parseTable("users", []byte(tt.file))
			if err != nil || tab.decoy.effort() != tt.want {
				t.Errorf("the decoy costs %q, %v, want %q", tab.decoy.effort(), err, tt.want)
			}
		})
	}
}

// FuzzParseTable: of every line with a colon comes a user, or an error, and what
// is taken is bounded in its effort.
func FuzzParseTable(f *testing.F) {
	f.Add("alice:" + argonSecret + "\n# x\nbob:$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n")
	f.Add("alice:hunter2hunter2\nalice")
	f.Add("a:$argon2id$v=19$m=4294967295,t=4294967295,p=255$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA")
	f.Fuzz(func(t *testing.T, text string) {
		tab, err := parseTable("users", []byte(text))
		if tab.decoy == nil {
			t.Fatal("there is no decoy")
		}
		lines := 0
		for line := range strings.Lines(text) {
			name, _, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
			if ok && !strings.HasPrefix(strings.TrimPrefix(name, "\ufeff"), "#") {
				lines++
			}
		}
		if len(tab.users) > lines || err == nil && len(tab.users) != lines {
			t.Errorf("%d users of %d lines, %v", len(tab.users), lines, err)
		}
		for name, e := range tab.users {
			if checkName(name) != nil || e.version == 0 {
				t.Errorf("user %q of version %d was taken", name, e.version)
			}
			switch v := e.verifier.(type) {
			case *argonHash:
				if v.memory > maxArgonMemory || v.memory*v.passes > maxArgonWork || v.passes == 0 || v.lanes == 0 {
					t.Errorf("argon2id with %+v was taken", v)
				}
			case bcryptHash:
				if len(v) != bcryptLength || v[4:6] > "14" {
					t.Errorf("bcrypt %q was taken", v)
				}
			}
		}
	})
}

// FuzzParseVerifier: an error is one of a few sentences, so it shows nothing of
// what is stored, and what is taken survives being parsed again.
func FuzzParseVerifier(f *testing.F) {
	seeds := []string{
		"hunter2", argonSecret, "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "$2a$", "$argon2id$",
		"$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
	}
	for cost := maxBcryptCost + 1; cost <= 31; cost++ {
		seeds = append(seeds, fmt.Sprintf("$2a$%d$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", cost))
	}
	for _, s := range schemes {
		seeds = append(seeds, s.prefix)
	}
	sentences := map[string]bool{}
	for _, s := range seeds {
		f.Add(s)
		if _, err := parseVerifier(s); err != nil {
			sentences[err.Error()] = true
		}
	}
	f.Fuzz(func(t *testing.T, stored string) {
		v, err := parseVerifier(stored)
		if err != nil {
			if !sentences[err.Error()] {
				t.Errorf("parseVerifier(%q) fails with a new sentence: %v", stored, err)
			}
			return
		}
		if b, ok := v.(bcryptHash); ok && string(b) != stored {
			t.Errorf("parseVerifier(%q) = %q", stored, b)
		}
		if v.decoy().effort() != v.effort() {
			t.Errorf("the decoy of %q costs %q, want %q", stored, v.decoy().effort(), v.effort())
		}
	})
}
