package access

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// PasswordOptions say what SetPassword writes. The zero value writes an argon2id and a SCRAM line.
type PasswordOptions struct {
	// NoSCRAM leaves out the SCRAM line. Whoever steals the file then has to break argon2id; the user can't use MQTT 5
	// enhanced authentication.
	NoSCRAM bool
}

// SetPassword gives a user a password in a password file, adding the user or the file where it does not exist; created says
// that the user is new. Other lines, comments included, stay as they are, also those that are wrong. The file is replaced
// atomically. It is for its owner only; an existing file keeps its owner, and its group's right to read if it was closed to
// others.
func SetPassword(file, user string, password []byte, o PasswordOptions) (created bool, err error) {
	if err := checkUser(user); err != nil {
		return false, err
	}
	if len(password) == 0 {
		return false, errors.New("password is empty")
	}
	if len(password) > 65535 {
		return false, errors.New("password is longer than the 65535 bytes that MQTT can carry")
	}
	fresh := user + ":" + Hash(password) + "\n"
	if !o.NoSCRAM {
		fresh += user + ":" + HashSCRAM(password) + "\n"
	}
	err = rewrite(file, true, func(text string) (string, bool) {
		var out strings.Builder
		created = true
		for line := range strings.Lines(text) {
			if userOf(line) != user {
				out.WriteString(line)
				continue
			}
			if created {
				out.WriteString(fresh)
				created = false
			}
		}
		if created {
			if s := out.String(); s != "" && !strings.HasSuffix(s, "\n") {
				out.WriteByte('\n')
			}
			out.WriteString(fresh)
		}
		return out.String(), true
	})
	return created && err == nil, err
}

// DeleteUser removes a user from a password file, as SetPassword writes. found is false, and the file untouched, when the user
// is not there.
func DeleteUser(file, user string) (found bool, err error) {
	err = rewrite(file, false, func(text string) (string, bool) {
		var out strings.Builder
		for line := range strings.Lines(text) {
			if userOf(line) == user {
				found = true
				continue
			}
			out.WriteString(line)
		}
		return out.String(), found
	})
	return found && err == nil, err
}

// userOf is whom a line of a password file is about; empty for comments and empty lines.
func userOf(line string) string {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") {
		return ""
	}
	name, _, _ := strings.Cut(line, ":")
	return strings.TrimSpace(name)
}

// rewrite replaces a file by what change makes of it, unless that is nothing. Two at a time would lose what one of them wrote, so the new file's name
// is fixed and stands for the right to write.
func rewrite(file string, create bool, change func(string) (text string, changed bool)) error {
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real // replace what a link points to, not the link
	}
	fresh := file + ".new"
	out, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: another isthmus passwd is at work, or was interrupted; in that case remove it", fresh)
	}
	if err != nil {
		return err
	}
	replaced := false
	defer func() {
		out.Close() // a second time after success, which does nothing
		if !replaced {
			os.Remove(fresh)
		}
	}()
	text, err := readFile(file)
	if err != nil && !(create && errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	if old, statErr := os.Stat(file); statErr == nil {
		mode := old.Mode().Perm()
		if mode&0o007 != 0 {
			mode = 0o600
		}
		if err := errors.Join(keepOwner(out, old), out.Chmod(mode&0o640|0o600)); err != nil {
			return fmt.Errorf("keeping the owner of %s: %w", file, err)
		}
	}
	text, changed := change(text)
	if !changed {
		return nil
	}
	if _, err := out.WriteString(text); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	if err := os.Rename(fresh, file); err != nil {
		return err
	}
	replaced = true
	syncFolder(filepath.Dir(file))
	return nil
}

// syncFolder makes a rename last. Not every system can; the content is safe in any case.
func syncFolder(folder string) {
	if d, err := os.Open(folder); err == nil {
		d.Sync()
		d.Close()
	}
}
