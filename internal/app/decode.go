package app

import (
	"encoding"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-iot/isthmus/internal/access"
)

// decoder fills Go values from a YAML tree. It is strict (an unknown or repeated key and a value of the wrong type are
// problems) and goes on after a problem, so that one run reports them all. It remembers where each value stood, for the
// checks that come later.
type decoder struct {
	problems Problems
	places   map[string]place // of values by path, for example "mqtt.listen[1]"
	dir      string           // where relative names of files begin
	getenv   func(string) (string, bool)
}

// choicesOf lists the values of a string type that has a closed list of them; nil: it has none.
func choicesOf(t reflect.Type) []string {
	switch v := reflect.Zero(t).Interface().(type) {
	case interface{ Choices() []string }:
		return v.Choices()
	case access.Anonymous:
		return []string{string(access.AnonymousNone), string(access.AnonymousLoopback), string(access.AnonymousAll)}
	case access.UseIdentity:
		return []string{string(access.IdentityCommonName), string(access.IdentityDNS), string(access.IdentityURI), string(access.IdentityEmail)}
	}
	return nil
}

// problem notes that something is wrong at a place.
func (d *decoder) problem(at place, hint, format string, args ...any) {
	d.problems = append(d.problems, &Problem{place: at, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// written reports whether the file says something at path.
func (d *decoder) written(path string) bool { _, ok := d.places[path]; return ok }

// decode fills v from n. A key without a value leaves the default.
func (d *decoder) decode(n *node, v reflect.Value, path string) {
	if n.kind == null {
		return
	}
	d.places[path] = n.place
	switch {
	case isScalar(v):
		d.decodeScalar(n, v, path)
	case v.Kind() == reflect.Struct:
		d.decodeStruct(n, v, path)
	case v.Kind() == reflect.Slice:
		d.decodeSlice(n, v, path)
	default:
		panic("configuration has a field of a kind that cannot be decoded: " + path + " " + v.Type().String())
	}
}

// isScalar reports whether v is written as a single value.
func isScalar(v reflect.Value) bool {
	if _, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return true
	}
	return v.Kind() != reflect.Struct && v.Kind() != reflect.Slice
}

func (d *decoder) decodeStruct(n *node, v reflect.Value, path string) {
	if n.kind != mapping {
		d.problem(n.place, "write it as {key: value} or as indented lines", "%s is %s, want a mapping of %s", nameOf(path), n.kind, strings.Join(keysOf(v.Type()), ", "))
		return
	}
	seen := map[string]bool{}
	for _, p := range n.pairs {
		field, ok := fieldOf(v, p.key)
		switch {
		case !ok && strings.Contains(p.key, ":"):
			d.problem(p.place, "put a space behind the colon", "unknown key %q in %s", p.key, nameOf(path))
		case !ok:
			d.problem(p.place, didYouMean(p.key, keysOf(v.Type())), "unknown key %q in %s", p.key, nameOf(path))
		case seen[p.key]:
			d.problem(p.place, "remove one of them", "key %q stands here a second time", p.key)
		default:
			seen[p.key] = true
			d.decode(p.value, field, join(path, p.key))
		}
	}
}

func (d *decoder) decodeSlice(n *node, v reflect.Value, path string) {
	if n.kind != list {
		d.problem(n.place, "write it as [a, b] or as lines that begin with -", "%s is %s, want a list", nameOf(path), n.kind)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	for i, item := range n.items {
		if item.kind == null {
			d.problem(item.place, "", "%s has an empty entry", nameOf(path))
			continue
		}
		d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *decoder) decodeScalar(n *node, v reflect.Value, path string) {
	if n.kind != scalar {
		d.problem(n.place, "", "%s is %s, want %s", nameOf(path), n.kind, wanted(v.Type(), path))
		return
	}
	text, err := expand(n.text, d.getenv)
	if err != nil {
		d.problem(n.place, "write ${NAME:-value} to have a value where it is not set, $${ for a plain ${", "%s: %v", nameOf(path), err)
		return
	}
	if name, ok := strings.CutPrefix(text, secretFile); ok && isSecret(path) {
		if text, err = d.readSecret(name); err != nil {
			d.problem(n.place, hintNames, "%s: %s: %v", nameOf(path), name, cause(err))
			return
		}
	}
	if hint, err := setScalar(v, text, n.quoted, path); err != nil {
		d.problem(n.place, hint, "%s is %q, want %s", nameOf(path), text, err)
	}
}

// setScalar gives v the value that text stands for. The error says what was wanted.
func setScalar(v reflect.Value, text string, quoted bool, path string) (hint string, err error) {
	want := func() error { return fmt.Errorf("%s", wanted(v.Type(), path)) }
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return "", u.UnmarshalText([]byte(text))
	}
	if choices := choicesOf(v.Type()); choices != nil {
		if !slices.Contains(choices, text) {
			return didYouMean(text, choices), want()
		}
		v.SetString(text)
		return "", nil
	}
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]():
		t, err := parseDuration(text)
		if err != nil {
			return "", want()
		}
		v.SetInt(int64(t))
	case v.Kind() == reflect.String:
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		if quoted || text != "true" && text != "false" {
			return "", want()
		}
		v.SetBool(text == "true")
	case v.CanInt():
		parse := parseCount
		if isSize(path) {
			parse = parseSize
		}
		i, err := parse(text)
		if err != nil || v.OverflowInt(i) {
			return "", want()
		}
		v.SetInt(i)
	default:
		panic("configuration has a scalar field of a kind that cannot be decoded: " + path + " " + v.Type().String())
	}
	return "", nil
}

// wanted describes the values of a scalar type.
func wanted(t reflect.Type, path string) string {
	if choices := choicesOf(t); choices != nil {
		return "one of " + strings.Join(choices, ", ")
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration such as 10s, 5m, 36h or 14d"
	case t == reflect.TypeFor[Address]():
		return "an address such as mqtt://:1883"
	case t.Kind() == reflect.String:
		return "a text"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case isSize(path):
		return "a size such as 65536, 64KiB or 4MiB"
	}
	return "a whole number"
}

// isSize reports whether the value at path counts bytes: its key says so.
func isSize(path string) bool {
	key := path[strings.LastIndexByte(path, '.')+1:]
	return strings.Contains(key, "bytes")
}

// fieldsOf lists the fields of a struct that are configuration: those with a yaml tag.
func fieldsOf(t reflect.Type) (fields []reflect.StructField) {
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" && key != "-" {
			fields = append(fields, t.Field(i))
		}
	}
	return fields
}

// keyOf is the key of a field.
func keyOf(f reflect.StructField) string { return f.Tag.Get("yaml") }

// fieldOf finds the field of a struct that a key of the file sets.
func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for _, f := range fieldsOf(v.Type()) {
		if keyOf(f) == key {
			return v.FieldByIndex(f.Index), true
		}
	}
	return reflect.Value{}, false
}

// keysOf lists the keys of a struct in their order.
func keysOf(t reflect.Type) (keys []string) {
	for _, f := range fieldsOf(t) {
		keys = append(keys, keyOf(f))
	}
	return keys
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func nameOf(path string) string {
	if path == "" {
		return "the configuration"
	}
	return path
}

// expand replaces ${NAME} and ${NAME:-default} by the environment; $${ is a plain ${.
func expand(text string, getenv func(string) (string, bool)) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "${")
		if !found {
			b.WriteString(text)
			return b.String(), nil
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			b.WriteString(escaped + "${")
			text = after
			continue
		}
		inner, rest, closed := strings.Cut(after, "}")
		if !closed {
			return "", fmt.Errorf("${%s has no closing brace", after)
		}
		name, fallback, hasFallback := strings.Cut(inner, ":-")
		value, set := getenv(name)
		switch {
		case set && (value != "" || !hasFallback):
		case hasFallback:
			value = fallback
		default:
			return "", fmt.Errorf("the environment has no %s", name)
		}
		b.WriteString(before + value)
		text = rest
	}
}

// maxSecret bounds the file of a secret.
const maxSecret = 64 << 10

// readSecret reads a secret from its file.
func (d *decoder) readSecret(name string) (string, error) {
	f, err := os.Open(resolve(d.dir, name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecret))
	return strings.TrimRight(string(text), "\r\n"), err
}

// environment is where ${NAME} is looked up.
func environment(name string) (string, bool) { return os.LookupEnv(name) }
