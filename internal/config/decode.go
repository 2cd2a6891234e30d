package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// decoder puts the values of a document into Go values, as the toml package would with
// the same struct tags, but: it goes on behind a fault, always in the same order;
// it names the index of an element; keys must be written as they are; and
// a time.Duration needs a unit.
type decoder struct {
	// fault hears of a value that does not fit.
	fault func(*place, error)
	// unknown hears of a key that no field of its struct is for, and the keys that there are.
	unknown func(p *place, known []string)
	// seen, unless nil, hears of every key that was decoded.
	seen func(*place)
}

// wanter is a type that can say what is to be written for it: `a duration such as "5s"`.
type wanter interface{ wanted() string }

// defaulter is an element of a map or an array that starts from more than zero.
type defaulter interface{ setDefaults() }

// shorthander is a table that may also be written as a string.
type shorthander interface {
	wanter
	short(text string) error
}

// decode fills into, a pointer, with data. What data does not name stays as it is.
func (d *decoder) decode(p *place, data any, into any) {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		d.fault(p, fmt.Errorf("cannot decode into %T: a pointer is needed", into))
		return
	}
	d.value(p, data, v.Elem())
}

var durationType = reflect.TypeFor[time.Duration]()

// value fills v, which must be settable.
func (d *decoder) value(p *place, data any, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		fresh := reflect.New(v.Type().Elem())
		d.value(p, data, fresh.Elem())
		v.Set(fresh)
		return
	}
	switch u := v.Addr().Interface().(type) {
	case shorthander:
		d.shorthand(p, data, u, v)
	case toml.Unmarshaler:
		if err := u.UnmarshalTOML(data); err != nil {
			d.fault(p, err)
		}
	case encoding.TextUnmarshaler:
		d.text(p, data, u)
	default:
		if v.Type() == durationType {
			d.duration(p, data, v)
			return
		}
		d.kind(p, data, v)
	}
}

// text fills a value that reads its own text.
func (d *decoder) text(p *place, data any, u encoding.TextUnmarshaler) {
	s, ok := data.(string)
	if n, isInt := data.(int64); isInt {
		// The type knows best why its bare number will not do; a port's will.
		switch u.(type) {
		case *Duration, *Size, *PortRange:
			s, ok = fmt.Sprint(n), true
		}
	}
	if !ok {
		want := "a string"
		if w, ok := u.(wanter); ok {
			want = w.wanted()
		}
		d.fault(p, typeFault(want, data))
		return
	}
	if err := u.UnmarshalText([]byte(s)); err != nil {
		d.fault(p, err)
	}
}

// shorthand fills a table that may also be written as a string.
func (d *decoder) shorthand(p *place, data any, u shorthander, v reflect.Value) {
	switch t := data.(type) {
	case string:
		if err := u.short(t); err != nil {
			d.fault(p, err)
		}
	case map[string]any:
		d.table(p, data, v)
	default:
		d.fault(p, typeFault(u.wanted(), data))
	}
}

// duration fills a plain time.Duration, which protocols use.
func (d *decoder) duration(p *place, data any, v reflect.Value) {
	var own Duration
	d.text(p, data, &own)
	v.SetInt(int64(own))
}

// kind fills a value by what it is made of.
func (d *decoder) kind(p *place, data any, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		d.table(p, data, v)
	case reflect.Map:
		d.namedTables(p, data, v)
	case reflect.Slice:
		d.array(p, data, v)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		d.integer(p, data, v)
	default:
		d.scalar(p, data, v)
	}
}

// scalar fills strings, booleans, floats and empty interfaces.
func (d *decoder) scalar(p *place, data any, v reflect.Value) {
	switch t := data.(type) {
	case string:
		if v.Kind() == reflect.String {
			v.SetString(t)
			return
		}
	case bool:
		if v.Kind() == reflect.Bool {
			v.SetBool(t)
			return
		}
	case float64:
		if v.CanFloat() {
			v.SetFloat(t)
			return
		}
	case int64:
		if v.CanFloat() {
			v.SetFloat(float64(t))
			return
		}
	}
	switch v.Kind() {
	case reflect.Interface:
		if v.NumMethod() > 0 {
			d.fault(p, fmt.Errorf("cannot decode into a %s", v.Type()))
			return
		}
		v.Set(reflect.ValueOf(data))
	case reflect.String:
		d.fault(p, typeFault("a string", data))
	case reflect.Bool:
		d.fault(p, typeFault("true or false", data))
	case reflect.Float32, reflect.Float64:
		d.fault(p, typeFault("a number", data))
	default:
		d.fault(p, fmt.Errorf("cannot decode into a %s", v.Type()))
	}
}

func (d *decoder) integer(p *place, data any, v reflect.Value) {
	n, ok := data.(int64)
	switch {
	case !ok:
		d.fault(p, typeFault("a whole number", data))
	case v.CanInt() && !v.OverflowInt(n):
		v.SetInt(n)
	case v.CanUint() && n >= 0 && !v.OverflowUint(uint64(n)):
		v.SetUint(uint64(n))
	case n < 0:
		d.fault(p, fmt.Errorf("%d is too small", n))
	default:
		d.fault(p, fmt.Errorf("%d is too large", n))
	}
}

// array fills a slice; what it held before is dropped.
func (d *decoder) array(p *place, data any, v reflect.Value) {
	src := reflect.ValueOf(data)
	if src.Kind() != reflect.Slice {
		want := "an array"
		if e := v.Type().Elem(); e.Kind() == reflect.Struct && !isText(e) && !reflect.PointerTo(e).Implements(reflect.TypeFor[shorthander]()) {
			want = fmt.Sprintf("an array of tables, each under its own [[%s]]", p)
		}
		d.fault(p, typeFault(want, data))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), src.Len(), src.Len()))
	for i := range src.Len() {
		e := v.Index(i)
		setDefaults(e)
		d.value(p.at(i), src.Index(i).Interface(), e)
	}
}

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func setDefaults(v reflect.Value) {
	if e, ok := v.Addr().Interface().(defaulter); ok {
		e.setDefaults()
	}
}

// namedTables fills a map with string keys. Names that differ only in case would be
// taken for one another by everybody who reads a log.
func (d *decoder) namedTables(p *place, data any, v reflect.Value) {
	t, ok := data.(map[string]any)
	switch {
	case !ok:
		d.fault(p, typeFault("a table with a name for each entry", data))
		return
	case v.Type().Key().Kind() != reflect.String:
		d.fault(p, fmt.Errorf("cannot decode into a %s", v.Type()))
		return
	case v.IsNil():
		v.Set(reflect.MakeMapWithSize(v.Type(), len(t)))
	}
	folded := make(map[string]string, len(t))
	for _, name := range sortedKeys(t) {
		here := p.key(name)
		if other, dup := folded[strings.ToLower(name)]; dup {
			d.fault(here, fmt.Errorf("%s and %s differ only in case: rename one", quote(other), quote(name)))
		}
		folded[strings.ToLower(name)] = name
		d.note(here)
		e := reflect.New(v.Type().Elem()).Elem()
		setDefaults(e)
		d.value(here, t[name], e)
		v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), e)
	}
}

// table fills a struct.
func (d *decoder) table(p *place, data any, v reflect.Value) {
	t, ok := data.(map[string]any)
	if !ok {
		d.fault(p, typeFault("a table", data))
		return
	}
	fields := map[string]reflect.Value{}
	known := collectFields(v, fields, nil)
	for _, name := range known {
		if value, ok := t[name]; ok {
			d.note(p.key(name))
			d.value(p.key(name), value, fields[name])
		}
	}
	for _, name := range sortedKeys(t) {
		if _, ok := fields[name]; !ok {
			d.unknown(p.key(name), known)
		}
	}
}

func (d *decoder) note(p *place) {
	if d.seen != nil {
		d.seen(p)
	}
}

// collectFields finds the fields of a struct by their keys, and the keys in order: the tag's name,
// else the field's in lower case. Fields of embedded structs count as its own.
func collectFields(v reflect.Value, fields map[string]reflect.Value, known []string) []string {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
		switch {
		case name == "-":
			continue
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			known = collectFields(v.Field(i), fields, known)
			continue
		case !f.IsExported():
			continue
		case name == "":
			name = strings.ToLower(f.Name)
		}
		fields[name] = v.Field(i)
		known = append(known, name)
	}
	return known
}

// typeFault says in TOML's words that a value is of the wrong type. It does not show
// the value, which may be a secret.
func typeFault(want string, got any) error {
	hint := ""
	if _, isString := got.(string); isString && want == "an array" {
		hint = `: put it in brackets, ["..."]`
	}
	return fmt.Errorf("this must be %s, and is %s%s", want, typeName(got), hint)
}

func typeName(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a fraction"
	case bool:
		return "true or false"
	case time.Time:
		return "a date or time"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "an array of tables"
	}
	return "an array"
}
