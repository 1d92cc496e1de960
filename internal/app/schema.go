package app

import (
	_ "embed"
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// DefaultYAML is the configuration with every key, its default and what it means.
//
//go:embed default.yaml
var DefaultYAML string

// Schema is the JSON Schema of the configuration, for editors. Its descriptions are the comments of default.yaml.
func Schema() string {
	root := schemaOf(reflect.TypeFor[Config](), "", comments(DefaultYAML))
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Isthmus configuration"
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		panic(err)
	}
	return string(text) + "\n"
}

func schemaOf(t reflect.Type, path string, comments map[string]string) map[string]any {
	s := map[string]any{}
	if c := comments[path]; c != "" {
		s["description"] = c
	}
	v := reflect.New(t).Elem()
	switch choices := choicesOf(t); {
	case choices != nil:
		s["type"], s["enum"] = "string", choices
	case t == reflect.TypeFor[time.Duration]():
		s["type"], s["pattern"] = "string", `^([0-9.]+(ns|us|µs|ms|s|m|h|d))+$`
	case isScalar(v) && t.Kind() == reflect.Bool:
		s["type"] = "boolean"
	case isScalar(v) && v.CanInt() && isSize(path):
		s["type"], s["pattern"] = []string{"integer", "string"}, `^[0-9_]+ ?([KMG]iB|[kMG]?B)?$`
	case isScalar(v) && v.CanInt():
		s["type"], s["minimum"] = "integer", 0
	case isScalar(v):
		s["type"] = "string"
	case t.Kind() == reflect.Slice:
		s["type"], s["items"] = "array", schemaOf(t.Elem(), path+"[]", comments)
	default:
		properties := map[string]any{}
		for i, key := range keysOf(t) {
			properties[key] = schemaOf(fieldsOf(t)[i].Type, join(path, key), comments)
		}
		s["type"], s["properties"], s["additionalProperties"] = "object", properties, false
	}
	return s
}

// comments reads what default.yaml says of each key: the comment behind it, or the lines above a section.
func comments(yaml string) map[string]string {
	found := map[string]string{}
	var section, part, above string
	for line := range strings.Lines(yaml) {
		line = strings.TrimSuffix(line, "\n")
		text := strings.TrimLeft(line, " ")
		indent := len(line) - len(text)
		text, commentedOut := strings.CutPrefix(text, "# ")
		key, rest, ok := strings.Cut(text, ": ")
		if !ok {
			key, ok = strings.CutSuffix(text, ":")
		}
		if !ok || strings.ContainsAny(key, " #`") || commentedOut && indent == 0 {
			if commentedOut && indent == 0 {
				above = strings.TrimSpace(above + " " + text)
			} else {
				above = ""
			}
			continue
		}
		_, comment, _ := strings.Cut(rest, "# ")
		switch indent {
		case 0:
			section, part, comment = key, "", above
		case 2:
			part = key
			key = section + "." + key
		default:
			key = section + "." + part + "." + key
		}
		if comment != "" {
			found[key] = strings.TrimSpace(comment)
		}
	}
	return found
}
