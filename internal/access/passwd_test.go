package access

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSettingAPasswordKeepsOtherLines(t *testing.T) {
	path := file(t, "users", "# people\nalice:$7$old\n\nwrong line\nbob:$7$kept\nalice:SCRAM-SHA-256$old\n# end")
	created, err := SetPassword(path, "alice", []byte("secret"), PasswordOptions{})
	if err != nil || created {
		t.Fatalf("alice: created %v, %v", created, err)
	}
	created, err = SetPassword(path, "carol", []byte("secret"), PasswordOptions{NoSCRAM: true})
	if err != nil || !created {
		t.Fatalf("carol: created %v, %v", created, err)
	}
	forms := func() (got []string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			name, hash, _ := strings.Cut(strings.TrimSpace(line), ":")
			for _, form := range []string{"$argon2id$", "SCRAM-SHA-256$15000:"} {
				if strings.HasPrefix(hash, form) {
					hash = form
				}
			}
			got = append(got, name+" "+hash)
		}
		return got
	}
	want := []string{
		"# people ", "alice $argon2id$", "alice SCRAM-SHA-256$15000:", " ", "wrong line ", "bob $7$kept", "# end ", "carol $argon2id$",
	}
	if d := cmp.Diff(want, forms()); d != "" {
		t.Error(d)
	}
	found, err := DeleteUser(path, "alice")
	if err != nil || !found {
		t.Fatalf("delete: found %v, %v", found, err)
	}
	if d := cmp.Diff([]string{"# people ", " ", "wrong line ", "bob $7$kept", "# end ", "carol $argon2id$"}, forms()); d != "" {
		t.Error(d)
	}
	if found, err = DeleteUser(path, "alice"); err != nil || found {
		t.Errorf("delete again: found %v, %v", found, err)
	}
	if left, _ := filepath.Glob(path + "?*"); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestPasswordFilesAreForTheirOwnerOnly(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs file modes")
	}
	dir := t.TempDir()
	for name, tt := range map[string]struct{ before, after os.FileMode }{
		"new": {0, 0o600}, "private": {0o600, 0o600}, "readable by everyone": {0o644, 0o600}, "readable by its group": {0o640, 0o640},
		"writable by its group": {0o660, 0o640},
	} {
		path := filepath.Join(dir, name)
		if tt.before != 0 {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.before); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := SetPassword(path, "alice", []byte("x"), PasswordOptions{NoSCRAM: true}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != tt.after {
			t.Errorf("%s: mode %o, want %o", name, got, tt.after)
		}
	}
}

func TestALinkToAPasswordFileStaysALink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.WriteFile(real, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Skip("needs symbolic links: " + err.Error())
	}
	if _, err := SetPassword(link, "alice", []byte("x"), PasswordOptions{NoSCRAM: true}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(real); err != nil || !strings.HasPrefix(string(text), "alice:") {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := os.Readlink(link); err != nil {
		t.Error(err)
	}
}

func TestNamesAndPasswordsThatCannotBeKeptAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	for _, tt := range []struct{ user, password, want string }{
		{"", "x", "user name is empty"}, {"a:b", "x", "has a ':'"}, {"#a", "x", "begins with '#'"}, {" a", "x", "has blanks"},
		{"a\nb", "x", "not plain UTF-8"}, {"a\xff", "x", "not plain UTF-8"}, {"a", "", "password is empty"},
		{"a", strings.Repeat("x", 65536), "password is longer"}, {strings.Repeat("x", 65536), "x", "user name is longer"},
	} {
		if _, err := SetPassword(path, tt.user, []byte(tt.password), PasswordOptions{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.20q: got %v, want %q", tt.user, err, tt.want)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("file was made")
	}
}

func TestTwoWritersDoNotLoseALine(t *testing.T) {
	path := file(t, "users", "bob:kept\n")
	if err := os.WriteFile(path+".new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := SetPassword(path, "alice", []byte("x"), PasswordOptions{NoSCRAM: true}); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path + ".new"); err != nil {
		t.Error("the other's file is gone")
	}
	if _, err := DeleteUser(filepath.Join(t.TempDir(), "none"), "alice"); !os.IsNotExist(err) {
		t.Errorf("no file: got %v", err)
	}
}
