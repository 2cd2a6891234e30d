package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// maxSecretSize bounds a secret's file, in bytes.
const maxSecretSize = 64 << 10

// redacted is all that is ever printed of a Secret.
const redacted = "[secret]"

// Secret is a password or a key: "file:/run/secrets/x", "env:NAME", or the
// secret itself. No way of printing or marshalling it shows more than "[secret]".
type Secret struct{ ref string }

// UnmarshalText reads a secret; its errors do not show it.
func (s *Secret) UnmarshalText(text []byte) error {
	ref := string(text)
	if ref == "file:" || ref == "env:" || ref == "" {
		return errors.New(`the secret is empty: write "file:/path", "env:NAME", or the secret itself`)
	}
	s.ref = ref
	return nil
}

func (Secret) wanted() string { return `a secret in quotes: "file:/path", "env:NAME", or itself` }

// IsSet reports whether there is a secret.
func (s Secret) IsSet() bool { return s.ref != "" }

// Reveal returns the secret itself, read anew at each call. One line end at the end of a
// file is not part of it. An empty or missing secret is an error that names where it was looked for.
func (s Secret) Reveal() (string, error) {
	if path, ok := strings.CutPrefix(s.ref, "file:"); ok {
		return readSecret(path)
	}
	if name, ok := strings.CutPrefix(s.ref, "env:"); ok {
		value := os.Getenv(name)
		if value == "" {
			return "", fmt.Errorf("read a secret: the environment variable %q is not set or empty", name)
		}
		return value, nil
	}
	return s.ref, nil
}

func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretSize+1))
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case len(data) > maxSecretSize:
		return "", fmt.Errorf("read a secret: %q is larger than %d bytes", path, maxSecretSize)
	case value == "":
		return "", fmt.Errorf("read a secret: %q is empty", path)
	}
	return value, nil
}

// String implements fmt.Stringer.
func (s Secret) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return redacted }

// Format implements fmt.Formatter: verbs such as %d would print the fields otherwise.
func (s Secret) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, redacted) } // fmt reports its own write errors

// MarshalText implements encoding.TextMarshaler, and so JSON and TOML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }
