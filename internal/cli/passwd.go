package cli

import (
	"bufio"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/isthmus-iot/isthmus/internal/access"
)

func newPasswdCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "passwd FILE USER",
		Short: "Give a user a password in a password file",
		Long: `Add a user to a password file, change the password of one, or with -D remove one. The password is asked
for, or read from the first line of standard input where that is not a terminal. The file is made
where there is none. A running gateway takes it over with isthmus reload.

With -n nothing is written: the hash for users.list in the configuration is printed.`,
		Args: cobra.MaximumNArgs(2),
	}
	remove := cmd.Flags().BoolP("delete", "D", false, "remove the user")
	generate := cmd.Flags().BoolP("generate", "g", false, "make a password and print it")
	noSCRAM := cmd.Flags().Bool("no-scram", false, "leave out what MQTT 5 enhanced authentication (SCRAM-SHA-256) needs")
	print := cmd.Flags().BoolP("print", "n", false, "print the hash and write nothing; takes no FILE and USER")
	cmd.MarkFlagsMutuallyExclusive("delete", "generate", "print")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if want := 2; *print && len(args) > 0 || !*print && len(args) != want {
			return withHint(usagef("want FILE and USER, or neither with -n"), "usage: "+cmd.UseLine())
		}
		if *remove {
			return deleteUser(env, args[0], args[1])
		}
		password, err := newPassword(env, *generate)
		if err != nil {
			return err
		}
		if *print {
			env.Printf("%s\n", access.Hash(password))
			return nil
		}
		created, err := access.SetPassword(args[0], args[1], password, access.PasswordOptions{NoSCRAM: *noSCRAM})
		if err != nil {
			return err
		}
		if *generate {
			env.Printf("%s\n", password)
		}
		if created {
			env.Notef("user %s added to %s", args[1], args[0])
		} else {
			env.Notef("password of user %s changed in %s", args[1], args[0])
		}
		return nil
	}
	return cmd
}

func deleteUser(env *Env, file, user string) error {
	found, err := access.DeleteUser(file, user)
	if err != nil {
		return err
	}
	if !found {
		return errors.New("there is no user " + user + " in " + file)
	}
	env.Notef("user %s removed from %s", user, file)
	return nil
}

// newPassword makes a password, asks for it twice, or reads it from standard input.
func newPassword(env *Env, generate bool) ([]byte, error) {
	if generate {
		return []byte(rand.Text()), nil
	}
	if f, ok := env.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		first, err := askSecret(env, f, "password: ")
		if err != nil {
			return nil, err
		}
		second, err := askSecret(env, f, "the same again: ")
		if err != nil {
			return nil, err
		}
		if string(first) != string(second) {
			return nil, errors.New("the passwords are not the same")
		}
		return first, nil
	}
	line, err := bufio.NewReader(env.Stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return nil, withHint(errors.New("no password was given"), "standard input is not a terminal: its first line is the password")
	}
	return []byte(line), nil
}

// askSecret reads a line that is not shown.
func askSecret(env *Env, terminal *os.File, prompt string) ([]byte, error) {
	io.WriteString(env.Stderr, prompt)
	secret, err := term.ReadPassword(int(terminal.Fd()))
	io.WriteString(env.Stderr, "\n")
	if err == nil && len(secret) == 0 {
		err = errors.New("no password was given")
	}
	return secret, err
}
