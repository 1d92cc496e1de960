package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/isthmus-iot/isthmus/bridge"
)

func TestErrorsOfOpeningSayWhatToDo(t *testing.T) {
	raw := func(t *testing.T, dir string, o *pebble.Options, key string, value []byte) {
		t.Helper()
		db, err := pebble.Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			if err := db.Set([]byte(key), value, pebble.Sync); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, dir string)
		want []string
	}{
		"a file": {
			func(t *testing.T, dir string) { write(t, dir, "x") },
			[]string{"not a directory"},
		},
		"locked": {
			func(t *testing.T, dir string) { opened(t, Config{Dir: dir}) },
			[]string{"in use by another process"},
		},
		"another version of our format": {
			func(t *testing.T, dir string) {
				raw(t, dir, &pebble.Options{FormatMajorVersion: pebbleFormat}, "V", []byte{9})
			},
			[]string{"format 9", "knows format 1", "newer version of isthmus"},
		},
		"a format of the database to come": {
			func(t *testing.T, dir string) {
				raw(t, dir, &pebble.Options{FormatMajorVersion: pebbleFormat}, "V", []byte{1})
				marker, err := filepath.Glob(filepath.Join(dir, "marker.format-version.*"))
				if err != nil || len(marker) != 1 {
					t.Fatalf("markers %v, error %v", marker, err)
				}
				if err := os.Rename(marker[0], filepath.Join(dir, "marker.format-version.000099.999")); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"newer version of isthmus"},
		},
		"a database of somebody else": {
			func(t *testing.T, dir string) { raw(t, dir, nil, "key", nil) },
			[]string{"not a store of isthmus", "empty folder"},
		},
		"a folder with other things": {
			func(t *testing.T, dir string) { write(t, filepath.Join(dir, "letter.txt"), "x") },
			[]string{"not a store", "letter.txt", "empty folder"},
		},
		"a table is cut": {
			func(t *testing.T, dir string) { damage(t, dir, "*.sst", func(b []byte) []byte { return b[:len(b)/2] }) },
			[]string{"damaged", ".sst", "isthmus store check", "restore"},
		},
		"a table is gone": {
			func(t *testing.T, dir string) { damage(t, dir, "*.sst", nil) },
			[]string{"damaged", "file 0000", "isthmus store check", "restore"},
		},
		"the manifest is overwritten": {
			func(t *testing.T, dir string) {
				damage(t, dir, "MANIFEST-*", func(b []byte) []byte { return make([]byte, len(b)) })
			},
			[]string{"damaged", "isthmus store check", "restore"},
		},
		"the manifest is gone": {
			func(t *testing.T, dir string) { damage(t, dir, "MANIFEST-*", nil) },
			[]string{"damaged", "MANIFEST", "isthmus store check", "restore"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			c.make(t, dir)
			s, err := Open(Config{Dir: dir})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			t.Log(err)
			for _, want := range append(c.want, dir) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// filled makes a store with tables.
func filled(t testing.TB, dir string) {
	t.Helper()
	s := opened(t, Config{Dir: dir})
	s.SaveSession(1, []byte(`{"client":"a"}`))
	for i := range 500 {
		push(s, 1, uint64(i), message("t", strings.Repeat("payload ", 10)))
	}
	wait(t, s, s.Retain(full, nil, bridge.Fsync))
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// damage makes a store and changes the newest file of a pattern; with nil it is removed.
func damage(t *testing.T, dir, pattern string, change func([]byte) []byte) {
	t.Helper()
	filled(t, dir)
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("files %v, error %v", names, err)
	}
	name := names[len(names)-1]
	b, err := os.ReadFile(name)
	if err == nil {
		if change == nil {
			err = os.Remove(name)
		} else {
			err = os.WriteFile(name, change(b), 0o600)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestOnlyTheOwnerReadsAStore(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs file modes")
	}
	dir := filepath.Join(t.TempDir(), "deep", "store")
	filled(t, dir)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestOpeningFails has each operation of the file system fail while a store is opened. Open must return, and leave the directory
// so that it can be opened.
func TestOpeningFails(t *testing.T) {
	for _, kind := range faultKinds {
		for _, fresh := range []bool{true, false} {
			for n := int64(1); n < 200; n += 23 {
				memory := vfs.NewMem()
				m := newModel(1, false)
				if !fresh {
					s := opened(t, config(memory, m))
					for range 60 {
						m.act(s)
					}
					wait(t, s, m.steps[len(m.steps)-1].receipt)
					// Not closed: the log is to be read again. The lock of the directory must go.
					s.disk.unlock()
				}
				f := newFaults(memory, kind, false)
				f.left.Store(n)
				s, err := Open(config(f, m))
				hit := f.left.Load() <= 0
				f.off.Store(true)
				if err == nil {
					s.Close()
				}
				again, list := loaded(t, config(memory, m))
				m.check(t, again, list, 1<<63)
				again.Close()
				if t.Failed() {
					t.Fatalf("%s, fresh %v, operation %d: %v", kind, fresh, n, err)
				}
				if !hit {
					break
				}
			}
		}
	}
}

func TestALogThatFailsAsTheStoreIsOpened(t *testing.T) {
	f := newFaults(vfs.NewMem(), "log sync", true)
	f.left.Store(1)
	if s, err := Open(Config{Dir: "store", FS: f}); err == nil {
		s.Close()
		t.Fatal("opened")
	} else if !strings.Contains(err.Error(), errDisk.Error()) {
		t.Errorf("error %v", err)
	}
	f.off.Store(true)
	opened(t, Config{Dir: "store", FS: f})
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		m := newModel(1, false)
		s, _ := loaded(t, config(vfs.NewMem(), m))
		for range 100 {
			m.act(s)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}
