package config

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

const examplePath = "../../config.example.toml"

func readExample(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

var commentedOut = regexp.MustCompile(`(?m)^#(\S)`)

// turnOn takes the "#" off every key and table of the example.
func turnOn(example string) string { return commentedOut.ReplaceAllString(example, "$1") }

func TestExampleAsItStandsIsTheDefault(t *testing.T) {
	f, err := Parse(examplePath, []byte(readExample(t)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), f, compareFiles); diff != "" {
		t.Errorf("the example as it stands (-Default +got):\n%s", diff)
	}
}

func TestExampleTurnedOnIsValid(t *testing.T) {
	f, err := Parse("config.example.toml", []byte(turnOn(readExample(t))))
	if err != nil {
		t.Fatal(err)
	}
	for name := range f.protocols {
		var into map[string]any
		if err := f.DecodeProtocol(name, &into); err != nil || len(into) == 0 {
			t.Errorf("[protocols.%s]: %v, %v", name, into, err)
		}
	}
	if err := Join(f.Validate(rowsOfTest), f.Unknown()); err != nil {
		t.Error(err)
	}
}

// comment is what the example says above a key.
type comment struct{ defaultText, class, value string }

var (
	describedKey = regexp.MustCompile(`(?m)^# Default: (.*)\. Reload: (\w+)\.\n#(\w+) = (.*)$`)
	plainKey     = regexp.MustCompile(`^#?(\w+) = `)
	tableHeader  = regexp.MustCompile(`^#?\[+([^\]]+)\]+$`)
)

// exampleComments returns the descriptions of the example by the key's dotted name.
func exampleComments(t *testing.T, example string) map[string]comment {
	t.Helper()
	found := map[string]comment{}
	table := ""
	lines := strings.Split(example, "\n")
	for i, line := range lines {
		if m := tableHeader.FindStringSubmatch(line); m != nil {
			table = m[1] + "."
		}
		if !plainKey.MatchString(line) || i == 0 {
			continue
		}
		if m := describedKey.FindStringSubmatch(lines[i-1] + "\n" + line); m != nil {
			found[table+m[3]] = comment{m[1], m[2], m[4]}
		} else if _, described := found[table+plainKey.FindStringSubmatch(line)[1]]; !described && !strings.HasPrefix(line, "#") {
			t.Errorf("line %d, %q: a key that is not commented out", i+1, line)
		}
	}
	return found
}

// leaf is a key of the structs.
type leaf struct {
	class string
	value reflect.Value // its default
}

// leaves collects every key of a struct, named tables under the names that the example uses.
func leaves(into map[string]leaf, prefix string, v reflect.Value) {
	names := map[string]string{"listen": "main", "backend": "web", "certificate": "main", "upstream": "eu", "exit": "eu", "site": "blog"}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		key := field.Tag.Get("toml")
		if !field.IsExported() || key == "-" {
			continue
		}
		value := v.Field(i)
		switch {
		case field.Tag.Get("reload") == "":
			leaves(into, prefix+key+".", value)
		case value.Kind() == reflect.Map && field.Type.Elem().Kind() == reflect.Struct:
			element := reflect.New(field.Type.Elem()).Elem()
			setDefaults(element)
			leaves(into, prefix+key+"."+names[key]+".", element)
		case value.Kind() == reflect.Slice && field.Type.Elem() == reflect.TypeFor[Rule]():
			leaves(into, prefix+key+".", reflect.New(field.Type.Elem()).Elem())
		default:
			into[prefix+key] = leaf{field.Tag.Get("reload"), value}
		}
	}
}

// Every key of the structs stands in the example, with its reload class and its real default.
func TestExampleCoversEveryKey(t *testing.T) {
	comments := exampleComments(t, readExample(t))
	keys := map[string]leaf{}
	leaves(keys, "", reflect.ValueOf(*Default()))
	if len(keys) < 130 {
		t.Errorf("only %d keys were found in the structs", len(keys))
	}
	for _, name := range sortedKeys(keys) {
		c, ok := comments[name]
		if !ok {
			t.Errorf("%s: not in the example with a line \"# Default: .... Reload: ....\" right above it", name)
			continue
		}
		if c.class != keys[name].class {
			t.Errorf("%s: the example says %q; it is %q", name, c.class, keys[name].class)
		}
		checkDefault(t, name, c, keys[name].value)
	}
	for name := range comments {
		if _, ok := keys[name]; !ok && !strings.HasPrefix(name, "protocols.") {
			t.Errorf("%s: in the example, and no key of the structs", name)
		}
	}
}

// checkDefault compares "Default: ..." with the real one. Text in words is for what depends on other keys.
func checkDefault(t *testing.T, name string, c comment, real reflect.Value) {
	t.Helper()
	inWords := real.Kind() == reflect.Pointer || strings.HasPrefix(c.defaultText, "none")
	if inWords {
		if !real.IsZero() {
			t.Errorf("%s: the example says %q; it is %v", name, c.defaultText, real)
		}
		return
	}
	value, _, _ := strings.Cut(c.defaultText, " (")
	var doc struct{ X any }
	if _, err := toml.Decode("X = "+value, &doc); err != nil {
		t.Errorf("%s: the default %q is no TOML: %v", name, value, err)
		return
	}
	said := reflect.New(real.Type())
	d := decoder{fault: func(_ *place, err error) { t.Errorf("%s: the default %q: %v", name, value, err) }}
	d.decode(root, doc.X, said.Interface())
	if fmt.Sprint(said.Elem()) != fmt.Sprint(real) {
		t.Errorf("%s: the example says %v; it is %v", name, said.Elem(), real)
	}
	if showsDefault := c.value == value; !showsDefault && name != "auth.htpasswd" && name != "rule.anonymous" {
		t.Errorf("%s: the example shows %s beside the default %s", name, c.value, value)
	}
}
