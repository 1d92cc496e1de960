package cli

import (
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/internal/access"
	"github.com/isthmus-iot/isthmus/internal/app"
	"github.com/isthmus-iot/isthmus/internal/certs"
)

// The files of a set-up.
const (
	configFile   = "isthmus.yaml"
	usersFile    = "users.passwd"
	aclFile      = "access.acl"
	schemaFile   = "isthmus.schema.json"
	certificates = "tls"
)

//go:embed init.yaml
var initYAML string

//go:embed init.acl
var initACL string

//go:embed init.txt
var initText string

func newInitCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a secure set-up to start from: configuration, users, rules, certificates",
		Long: `Write a set-up into DIR (default: this directory): a configuration, a password file with the users
admin and device, access rules, a development certificate authority, and certificates for the gateway
and for the device. Other machines connect with TLS and a password or certificate. The passwords are
printed once. Nothing that is there is overwritten.`,
		Args: cobra.MaximumNArgs(1),
	}
	hosts := cmd.Flags().StringSlice("host", nil, "`NAME` or address by which other machines know this one, for its certificate; may be repeated")
	port := cmd.Flags().Uint16("port", 1883, "port for clients on this machine")
	tlsPort := cmd.Flags().Uint16("tls-port", 8883, "port for clients everywhere, with TLS")
	opsPort := cmd.Flags().Uint16("ops-port", 9600, "port for metrics and health on this machine")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		dir := "."
		if len(args) > 0 {
			dir = args[0]
		}
		s := setup{Dir: dir, Program: program(), Hosts: *hosts, Port: *port, TLSPort: *tlsPort, OpsPort: *opsPort, AdminPassword: rand.Text(), DevicePassword: rand.Text()}
		if err := s.write(); err != nil {
			return err
		}
		if err := check(s.Path(configFile)); err != nil {
			return err
		}
		return template.Must(template.New("").Parse(initText)).Execute(env.Stdout, &s)
	}
	return cmd
}

// setup is what init writes.
type setup struct {
	Dir, Program                  string
	Hosts                         []string
	Port, TLSPort, OpsPort        uint16
	AdminPassword, DevicePassword string
}

// Path is the name of a file of the set-up.
func (s *setup) Path(name string) string { return filepath.Join(s.Dir, name) }

// Quoted is Path for a shell.
func (s *setup) Quoted(name string) string { return shellQuote(s.Path(name)) }

func (s *setup) write() error {
	for _, name := range []string{configFile, usersFile, aclFile, schemaFile, certificates} {
		if _, err := os.Lstat(s.Path(name)); err == nil {
			return withHint(fmt.Errorf("%s is there already, and nothing is overwritten", s.Path(name)), "name another directory: "+s.Program+" init DIR")
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	if err := s.certificates(); err != nil {
		return err
	}
	for user, password := range map[string]string{"admin": s.AdminPassword, "device": s.DevicePassword} {
		if _, err := access.SetPassword(s.Path(usersFile), user, []byte(password), access.PasswordOptions{}); err != nil {
			return fmt.Errorf("writing users: %w", err)
		}
	}
	var config strings.Builder
	if err := template.Must(template.New("").Parse(initYAML)).Execute(&config, s); err != nil {
		return err
	}
	for name, text := range map[string]string{aclFile: initACL, schemaFile: app.Schema(), configFile: config.String()} {
		if err := os.WriteFile(s.Path(name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// certificates makes the authority, the gateway's certificate and one for the device.
func (s *setup) certificates() error {
	authority, err := certs.Open(s.Path(certificates))
	if err != nil {
		return err
	}
	if _, err := authority.Server(s.Hosts...); err != nil {
		return err
	}
	_, err = authority.Client("device")
	return err
}

// shellQuote quotes s for a POSIX shell where that is needed.
func shellQuote(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./,:=@%+"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
