package store

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-iot/isthmus/bridge"
)

func TestASoundStoreHasNoProblems(t *testing.T) {
	m := newModel(4, false)
	fs := vfs.NewMem()
	s, _ := loaded(t, config(fs, m))
	for range 1500 {
		m.act(s)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := check("store", fs)
	if err != nil || len(r.Problems) > 0 || r.Tables == 0 || r.Records == 0 {
		t.Fatalf("report %+v, error %v", r, err)
	}
	s, list := loaded(t, config(fs, m)) // nothing was changed
	m.check(t, s, list, 1<<63)
	if _, err := check("store", fs); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("error %v for a store in use", err)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	// set changes the database of a store.
	set := func(t *testing.T, dir string, change func(db *pebble.DB) error) {
		t.Helper()
		filled(t, dir)
		db, err := pebble.Open(dir, options(&disk{FS: vfs.Default, died: make(chan struct{})}, &logger{fail: func(error) {}}, 0))
		if err != nil {
			t.Fatal(err)
		}
		if err := change(db); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	put := func(key, value []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			set(t, dir, func(db *pebble.DB) error { return db.Set(key, value, pebble.Sync) })
		}
	}
	entry := positionKey(kindEntry, 1, 7)
	stray := positionKey(kindEntry, 99, 7)
	flight := positionKey(kindFlight, 1, 100000)
	kept := bridge.Kept{Message: full}
	body := newBodyID(1, 0)
	for name, c := range map[string]struct {
		make func(t *testing.T, dir string)
		want string
	}{
		"a changed byte in a table": {
			func(t *testing.T, dir string) {
				damage(t, dir, "*.sst", func(b []byte) []byte { b[200] ^= 1; return b })
			}, ".sst: ",
		},
		"a table is cut": {
			func(t *testing.T, dir string) { damage(t, dir, "*.sst", func(b []byte) []byte { return b[:len(b)/2] }) }, ".sst: ",
		},
		"a table is empty": {
			func(t *testing.T, dir string) { damage(t, dir, "*.sst", func([]byte) []byte { return nil }) }, ".sst: ",
		},
		"a table is gone":           {func(t *testing.T, dir string) { damage(t, dir, "*.sst", nil) }, "sstable"},
		"an entry is malformed":     {put(entry[:], []byte("x")), "session 1, entry 7: record is malformed"},
		"an entry without its body": {put(entry[:], append(appendEntry(nil, &kept, false), 0, 0, 0, 0, 0, 0, 7, 0)), "body 0x700: missing"},
		"an entry of no session":    {put(stray[:], appendMessage(appendEntry(nil, &kept, true), full)), "session 99, entry 7: there is no such session"},
		"a state of no entry":       {put(flight[:], []byte{1, 0, 1}), "there is no such entry"},
		"a retained value":          {put([]byte("rother"), appendMessage(nil, full)), `has topic "plant/7/temperature"`},
		"an unknown kind":           {put([]byte("x"), nil), "unknown"},
		"a body of another size": {
			func(t *testing.T, dir string) {
				key := numberKey(kindBody, body)
				put(key[:], appendMessage(nil, full))(t, dir)
			}, "another size",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			c.make(t, dir)
			r, err := Check(dir)
			if err != nil {
				t.Fatal(err)
			}
			var text strings.Builder
			for _, p := range r.Problems {
				text.WriteString(p.String() + "\n")
			}
			t.Log(text.String())
			if !strings.Contains(text.String(), c.want) {
				t.Errorf("problems do not include %q", c.want)
			}
		})
	}
}

func TestCheckOfWhatIsNoStore(t *testing.T) {
	for name, dir := range map[string]string{"nothing": filepath.Join(t.TempDir(), "x"), "an empty folder": t.TempDir()} {
		if _, err := Check(dir); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Log(err)
		}
		if err := Export(dir, &bytes.Buffer{}); err == nil {
			t.Errorf("%s: exported", name)
		}
		if names, err := os.ReadDir(dir); err == nil && len(names) > 1 {
			t.Errorf("%s: there are now %v", name, names)
		}
	}
}

func TestExport(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, Config{Dir: dir})
	s.SaveSession(1, []byte(`{"client":"a"}`))
	s.SaveSession(2, []byte("\xff"))
	s.SaveSubscription(1, "a/<b>", []byte(`{"qos":1}`))
	push(s, 1, 1, full)
	binary := message("t", "\xff")
	var shared bridge.Body
	k := bridge.Kept{Position: 2, Message: binary, Identifiers: []uint32{3}, Shared: "$share/g/t", Retain: true}
	s.Push(1, &k, &shared, bridge.Fsync)
	s.Sent(1, 2, 9)
	push(s, 1, 3, binary)
	s.Released(1, 3, 10)
	s.Receive(1, 8)
	s.Retain(message("t", "text"), nil, bridge.Fsync)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Export(dir, &out); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`{"kind":"session","session":1,"record":{"client":"a"}}`,
		`{"kind":"session","session":2,"record_base64":"/w=="}`,
		`{"kind":"subscription","session":1,"filter":"a/<b>","record":{"qos":1}}`,
		`{"kind":"queued","session":1,"position":1,"qos":2,"message":{"topic":"plant/7/temperature","payload":"21.5","qos":2,"retain":true,"payload_format":"utf-8","content_type":"text/plain","response_topic":"plant/7/reply","correlation_base64":"AAEC","user_properties":[{"name":"a","value":"b"},{"name":"a","value":""},{"name":"","value":""}],"expires":"2262-04-11T23:47:16.854775807Z","time":"1969-12-31T23:59:59.999999999Z","endpoint":"mqtt","client":"sensor","node":"north","hops":3}}`,
		`{"kind":"inflight","session":1,"packet_id":9,"position":2,"state":"sent","qos":0,"retain":true,"subscription_identifiers":[3],"shared":"$share/g/t","message":{"topic":"t","payload_base64":"/w==","qos":1,"time":"1970-01-01T00:00:00.000000001Z"}}`,
		`{"kind":"inflight","session":1,"packet_id":10,"position":3,"state":"released","qos":1,"message":{"topic":"t","payload_base64":"/w==","qos":1,"time":"1970-01-01T00:00:00.000000001Z"}}`,
		`{"kind":"received","session":1,"packet_id":8}`,
		`{"kind":"retained","message":{"topic":"t","payload":"text","qos":1,"time":"1970-01-01T00:00:00.000000001Z"}}`,
		"",
	}
	if diff := cmp.Diff(want, strings.Split(out.String(), "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
}
