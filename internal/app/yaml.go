package app

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// node is a value of a YAML document with its place in the file. This file is the only one that knows the YAML library.
type node struct {
	kind   kind
	place  place
	text   string // of a scalar, without quotes
	quoted bool   // the scalar is a string because it says so
	pairs  []pair // of a mapping
	items  []*node
}

// pair is one key of a mapping with its value.
type pair struct {
	key   string
	place place // of the key
	value *node
}

// place is where something stands: line and column from 1, and how many columns it takes.
type place struct{ line, column, width int }

type kind uint8

const (
	null kind = iota
	scalar
	list
	mapping
)

// String names the kind as messages do.
func (k kind) String() string {
	return [...]string{"nothing", "a single value", "a list", "a mapping"}[k]
}

// parseYAML reads one document. The error, if any, is a *Problem without file name and source.
func parseYAML(text []byte) (root *node, problem *Problem) {
	defer func() {
		// The library is fed what people wrote, but a panic of it must not end a gateway that reloads.
		if r := recover(); r != nil {
			problem = &Problem{place: place{1, 1, 1}, Text: fmt.Sprintf("this is not YAML: %v", r)}
		}
	}()
	file, err := parser.Parse(joinAddresses(lexer.Tokenize(string(text))), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, syntaxProblem(err)
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if body != nil {
			second, problem := convert(doc.Body)
			if problem != nil {
				return nil, problem
			}
			return nil, &Problem{place: second.place, Text: "a second document begins here", Hint: "a configuration is one document: remove the line ---"}
		}
		body = doc.Body
	}
	if body == nil {
		return &node{kind: mapping, place: place{1, 1, 1}}, nil
	}
	return convert(body)
}

// joinAddresses puts together what the library takes apart: inside of braces it reads a ':' without a space behind it as the
// end of a key, so that [mqtt://localhost:1883] would be a mapping. YAML says that it is one plain text.
func joinAddresses(tokens token.Tokens) (joined token.Tokens) {
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		for i+2 < len(tokens) && t.Type == token.StringType && tokens[i+1].Type == token.MappingValueType && follows(t, tokens[i+1]) && follows(tokens[i+1], tokens[i+2]) {
			port := tokens[i+2]
			t = token.String(t.Value+":"+port.Value, t.Origin+":"+port.Origin, t.Position)
			i += 2
		}
		joined.Add(t)
	}
	return joined
}

// follows reports whether b stands right behind a.
func follows(a, b *token.Token) bool {
	return a.Position.Line == b.Position.Line && a.Position.Column+len([]rune(a.Value)) == b.Position.Column && b.Value != ""
}

// syntaxProblem takes message and place from an error of the library.
func syntaxProblem(err error) *Problem {
	var e yaml.Error
	if !errors.As(err, &e) {
		return &Problem{place: place{1, 1, 1}, Text: err.Error()}
	}
	p := &Problem{place: placeOf(e.GetToken()), Text: e.GetMessage()}
	if strings.Contains(p.Text, "'\t'") {
		p.Hint = "YAML is indented with spaces, not with tabs"
	}
	return p
}

func placeOf(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1, 1}
	}
	width := len([]rune(strings.TrimSpace(t.Origin)))
	if first, _, more := strings.Cut(strings.TrimSpace(t.Origin), "\n"); more {
		width = len([]rune(first))
	}
	return place{t.Position.Line, t.Position.Column, max(width, 1)}
}

// convert turns the library's tree into ours.
func convert(from ast.Node) (*node, *Problem) {
	n := &node{place: placeOf(from.GetToken())}
	switch from := from.(type) {
	case *ast.NullNode:
		n.kind = null
	case *ast.StringNode:
		n.kind, n.text = scalar, from.Value
		n.quoted = from.Token.Type == token.SingleQuoteType || from.Token.Type == token.DoubleQuoteType
	case *ast.LiteralNode:
		n.kind, n.text, n.quoted = scalar, from.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		n.kind, n.text = scalar, from.GetToken().Value
	case *ast.MappingValueNode:
		return n, n.add(from)
	case *ast.MappingNode:
		n.kind = mapping
		for _, value := range from.Values {
			if problem := n.add(value); problem != nil {
				return nil, problem
			}
		}
	case *ast.SequenceNode:
		n.kind = list
		for _, value := range from.Values {
			item, problem := convert(value)
			if problem != nil {
				return nil, problem
			}
			n.items = append(n.items, item)
		}
	default:
		return nil, &Problem{place: n.place, Text: "anchors, aliases, tags and merge keys are not used in a configuration"}
	}
	return n, nil
}

// add appends one key and value to a mapping.
func (n *node) add(from *ast.MappingValueNode) *Problem {
	n.kind = mapping
	key := placeOf(from.Key.GetToken())
	if len(n.pairs) == 0 {
		n.place = key
	}
	if _, plain := from.Key.(*ast.StringNode); !plain {
		if _, number := from.Key.(ast.ScalarNode); !number {
			return &Problem{place: key, Text: "a key is a plain word"}
		}
	}
	value, problem := convert(from.Value)
	if problem == nil {
		n.pairs = append(n.pairs, pair{from.Key.GetToken().Value, key, value})
	}
	return problem
}
