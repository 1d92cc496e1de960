package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"github.com/isthmus-iot/isthmus/internal/access"
)

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// Load reads a configuration file, or is Default for the empty name. An error of type [Problems] says where the file is
// wrong and lists everything that is.
func Load(name string) (*Config, error) {
	c, err := load(name)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DataDir is gateway.data of a configuration file. A file that has mistakes will do, as it may have them since the gateway has
// read it.
func DataDir(name string) (string, error) {
	c, err := load(name)
	if c == nil {
		return "", err
	}
	return string(c.Gateway.Data), nil
}

// StoreDir is where the store of a data directory is.
func StoreDir(data string) string { return filepath.Join(data, "store") }

// load is Load that returns what it could read, if it could, besides Problems.
func load(name string) (*Config, error) {
	if name == "" {
		c := Default()
		c.resolve("")
		return c, nil
	}
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no configuration file %s", name)
	case err != nil:
		return nil, fmt.Errorf("reading the configuration: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("reading the configuration: %s is a directory", name)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("reading the configuration: %s has more than %d bytes", name, maxFile)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return parse(name, text)
}

// Parse reads a configuration from its text. The name is for messages and for relative paths.
func Parse(name string, text []byte) (*Config, error) {
	c, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// parse is Parse that returns what it could read besides Problems; nil where the text is not YAML.
func parse(name string, text []byte) (*Config, error) {
	root, problem := parseYAML(text)
	if problem != nil {
		return nil, Problems{problem}.asError(name, string(text))
	}
	c := Default()
	c.File, c.text, c.places = name, string(text), map[string]place{}
	d := &decoder{places: c.places, dir: filepath.Dir(name), getenv: environment}
	d.decode(root, reflect.ValueOf(c).Elem(), "")
	c.resolve(d.dir)
	v := validator{c, d}
	v.validate()
	return c, d.problems.asError(name, string(text))
}

// resolve makes every relative name of a file one that begins at dir, and settles what depends on several keys.
func (c *Config) resolve(dir string) {
	for _, p := range []*Path{&c.Gateway.Data, &c.TLS.Cert, &c.TLS.Key, &c.TLS.ClientCA} {
		*p = Path(resolve(dir, string(*p)))
	}
	c.Users.File, c.Users.ACL = resolve(dir, c.Users.File), resolve(dir, c.Users.ACL)
	if c.Users.Anonymous == "" && !c.usersKnown() {
		c.Users.Anonymous = access.AnonymousLoopback
	}
}

// resolve makes a relative name one that begins at dir. The empty name stays.
func resolve(dir, name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}
