package config

import (
	"reflect"
	"strings"
)

// Reload classes of a key, as they stand in the tag "reload".
const (
	classLive     = "live"     // holds for sessions that begin after the reload
	classRelisten = "relisten" // needs new sockets; the old ones drain
	classRestart  = "restart"  // cannot change while the process runs
)

// Diff names the keys whose values differ between the configuration that is running and a new one and
// that are not live: those that need a restart, and those whose
// listeners are to be opened anew ("listen.main.address"; "listen.dmz" where the whole
// table came or went). In this version no key needs a restart.
func Diff(running, next *File) (restart, relisten []string) {
	d := &diff{}
	d.structs(root, reflect.ValueOf(*running), reflect.ValueOf(*next))
	return d.restart, d.relisten
}

type diff struct{ restart, relisten []string }

func (d *diff) note(p *place, class string) {
	switch class {
	case classRestart:
		d.restart = append(d.restart, p.String())
	case classRelisten:
		d.relisten = append(d.relisten, p.String())
	}
}

// structs compares field by field.
func (d *diff) structs(p *place, a, b reflect.Value) {
	for i := range a.NumField() {
		field := a.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("toml"), ",")
		if !field.IsExported() || name == "-" {
			continue
		}
		class := field.Tag.Get("reload")
		switch {
		case class == "":
			d.structs(p.key(name), a.Field(i), b.Field(i))
		case class == classLive:
		case field.Type.Kind() == reflect.Map && field.Type.Elem().Kind() == reflect.Struct:
			d.maps(p.key(name), class, a.Field(i), b.Field(i))
		case !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()):
			d.note(p.key(name), class)
		}
	}
}

// maps compares named tables: one that came or went, and else what is in them.
func (d *diff) maps(p *place, class string, a, b reflect.Value) {
	names := map[string]bool{}
	for _, m := range []reflect.Value{a, b} {
		for _, k := range m.MapKeys() {
			names[k.String()] = true
		}
	}
	for _, name := range sortedKeys(names) {
		key := reflect.ValueOf(name)
		x, y := a.MapIndex(key), b.MapIndex(key)
		if !x.IsValid() || !y.IsValid() {
			d.note(p.key(name), class)
			continue
		}
		d.structs(p.key(name), x, y)
	}
}
