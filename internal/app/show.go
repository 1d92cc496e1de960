package app

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// masked stands for a secret that is not shown.
const masked = "(secret)"

// Show writes the configuration that is in force as YAML: defaults filled in, paths resolved, secrets masked.
func (c *Config) Show() string {
	var b strings.Builder
	show(&b, reflect.ValueOf(c).Elem(), "", "")
	return b.String()
}

func show(b *strings.Builder, v reflect.Value, path, indent string) {
	for _, key := range keysOf(v.Type()) {
		f, _ := fieldOf(v, key)
		path := join(path, key)
		switch {
		case f.Kind() == reflect.String && f.Len() == 0, f.Kind() == reflect.Slice && f.IsNil():
			// Nothing is said, which is not the same as an empty text.
		case f.Kind() == reflect.Struct:
			fmt.Fprintf(b, "%s%s:\n", indent, key)
			show(b, f, path, indent+"  ")
		case f.Kind() == reflect.Slice && f.Len() > 0 && f.Index(0).Kind() == reflect.Struct && !isScalar(f.Index(0)):
			fmt.Fprintf(b, "%s%s:\n", indent, key)
			for j := range f.Len() {
				var item strings.Builder
				show(&item, f.Index(j), path, indent+"    ")
				fmt.Fprintf(b, "%s  - %s", indent, strings.TrimPrefix(item.String(), indent+"    ")) // never empty: bools are always shown
			}
		default:
			fmt.Fprintf(b, "%s%s: %s\n", indent, key, showValue(f, path))
		}
	}
}

func showValue(v reflect.Value, path string) string {
	if isSecret(path) && v.String() != "" {
		return quote(masked)
	}
	switch value := v.Interface().(type) {
	case time.Duration:
		return formatDuration(value)
	case encoding.TextMarshaler:
		text, _ := value.MarshalText()
		return quote(string(text))
	}
	switch {
	case v.Kind() == reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = showValue(v.Index(i), path)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case v.CanInt() && isSize(path):
		return formatSize(v.Int())
	case v.CanInt():
		return strconv.FormatInt(v.Int(), 10)
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool())
	}
	return quote(v.String())
}

// quote writes a text as a YAML scalar, plain where that reads back the same. What would be interpolated is escaped.
func quote(s string) string {
	s = strings.ReplaceAll(s, "${", "$${")
	plain := s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./") == "" && strings.Trim(s[:1], "-.0123456789") != ""
	switch s {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		plain = false
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}
