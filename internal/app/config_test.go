package app

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/access"
)

var update = flag.Bool("update", false, "write the golden files")

func TestDefaultYAMLLoadsAsDefault(t *testing.T) {
	got, err := Parse("default.yaml", []byte(DefaultYAML))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.resolve(".")
	want.File = "default.yaml"
	got.MQTT.Limits = got.MQTT.Limits.WithDefaults()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("default.yaml is not Default() (-want +got):\n%s", diff)
	}
}

func TestDefaultYAMLExplainsEveryKey(t *testing.T) {
	said := comments(DefaultYAML)
	// Keys whose name says everything.
	for _, plain := range []string{"tls.key", "tls", "limits.subscriptions_per_client", "limits.retained_values", "limits.retained_bytes", "gateway", "log"} {
		if _, ok := said[plain]; !ok {
			said[plain] = plain
		}
	}
	var walk func(reflect.Type, string)
	walk = func(typ reflect.Type, path string) {
		for _, f := range fieldsOf(typ) {
			p := join(path, keyOf(f))
			if said[p] == "" && p != "mqtt.limits" {
				t.Errorf("default.yaml says nothing of %s", p)
			}
			if f.Type.Kind() == reflect.Struct && !isScalar(reflect.New(f.Type).Elem()) {
				walk(f.Type, p)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
}

func TestSchemaIsTheCommittedOne(t *testing.T) {
	const file = "testdata/isthmus.schema.json"
	if *update {
		if err := os.WriteFile(file, []byte(Schema()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), Schema()); diff != "" {
		t.Errorf("run go test ./internal/app -update after looking at the difference (-want +got):\n%s", diff)
	}
}

func TestShowReadsBackAsTheSame(t *testing.T) {
	first, err := Parse("/etc/isthmus/isthmus.yaml", []byte("users: {anonymous: all, list: [{name: a}], rules: [{user: a, read: ['a/#', \"b \\\" c\"]}, {deny: ['%u']}]}\nmqtt: {listen: ['mqtt://[::]:1884']}\n"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := Parse("/etc/isthmus/isthmus.yaml", []byte(first.Show()))
	if err != nil {
		t.Fatalf("%v\n%s", err, first.Show())
	}
	if diff := cmp.Diff(first.Show(), second.Show()); diff != "" {
		t.Error(diff)
	}
}

func TestShowMasksSecrets(t *testing.T) {
	c, err := Parse("isthmus.yaml", []byte("users: {list: [{name: a, password: hunter2}]}"))
	if err != nil {
		t.Fatal(err)
	}
	if shown := c.Show(); strings.Contains(shown, "hunter2") || !strings.Contains(shown, masked) {
		t.Errorf("the password is not masked:\n%s", shown)
	}
}

func TestSizesAndDurations(t *testing.T) {
	c, err := Parse("isthmus.yaml", []byte("mqtt: {limits: {packet_bytes: 2MiB, queue_bytes: 1_000_000, session_expiry: 7d, write_stall: 1m30s}}\nlimits: {retained_bytes: 2GiB}"))
	if err != nil {
		t.Fatal(err)
	}
	if c.MQTT.Limits.PacketBytes != 2<<20 || c.MQTT.Limits.QueueBytes != 1e6 || c.Limits.RetainedBytes != 2<<30 {
		t.Errorf("sizes: %+v", c.MQTT.Limits)
	}
	if s := formatDuration(c.MQTT.Limits.SessionExpiry) + " " + formatDuration(c.MQTT.Limits.WriteStall); s != "7d 1m30s" {
		t.Errorf("durations: %s", s)
	}
}

func TestStoreSection(t *testing.T) {
	c, err := Parse("/etc/isthmus/isthmus.yaml", []byte(`
gateway: {data: data}
store:
  limit_bytes: 64MiB
  reserve_bytes: 0
  durability: memory
  topics:
    - {filter: alarm/#, durability: fsync}
    - {filter: +/temp, durability: os}
`))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Store
	if s.Limit != 64<<20 || s.reserve() >= 0 || s.Durability.durability() != bridge.Memory || c.storeDir() != "/etc/isthmus/data/store" {
		t.Errorf("%+v in %s", s, c.storeDir())
	}
	want := []bridge.DurabilityRule{{Filter: "alarm/#", Durability: bridge.Fsync}, {Filter: "+/temp", Durability: bridge.OS}}
	if diff := cmp.Diff(want, s.rules()); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	again, err := Parse("/etc/isthmus/isthmus.yaml", []byte(c.Show()))
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Show())
	}
	if diff := cmp.Diff(s, again.Store); diff != "" {
		t.Errorf("what is shown reads back differently (-want +got):\n%s", diff)
	}
}

func TestEnvironmentIsInterpolated(t *testing.T) {
	t.Setenv("ISTHMUS_TEST_ID", "plant-7")
	c, err := Parse("isthmus.yaml", []byte("gateway: {id: \"${ISTHMUS_TEST_ID}-${ISTHMUS_TEST_UNSET:-x}\"}\nusers: {list: [{name: \"a$${b}\", password: x}]}"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Gateway.ID != "plant-7-x" || c.Users.Users[0].Name != "a${b}" {
		t.Errorf("id %q, user %q", c.Gateway.ID, c.Users.Users[0].Name)
	}
}

func TestAnonymousDefaultFollowsTheUsers(t *testing.T) {
	for text, want := range map[string]access.Anonymous{
		"{}":                                            access.AnonymousLoopback,
		"users: {file: /dev/null}":                      "",
		"users: {list: [{name: a}]}":                    "",
		"users: {use_identity: dns}":                    "",
		"users: {anonymous: all}":                       access.AnonymousAll,
		"users: {anonymous: none}":                      access.AnonymousNone,
		"users: {file: /dev/null, anonymous: loopback}": access.AnonymousLoopback,
	} {
		c, err := Parse("isthmus.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if c.Users.Anonymous != want {
			t.Errorf("%s: %q, want %q", text, c.Users.Anonymous, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"mqtt://:1883": "mqtt://:1883", "mqtt://localhost": "mqtt://localhost:1883", "mqtts://[::1]": "mqtts://[::1]:8883",
		"mqtt://": "mqtt://:1883", "mqtt:1883": "", "localhost:1883": "", "mqtt://a/b": "", "mqtt://u:p@a": "", "mqtt://a:99999": "", "1883": "",
	} {
		var a Address
		if err := a.UnmarshalText([]byte(text)); (err == nil) != (want != "") || err == nil && a.String() != want {
			t.Errorf("%s: %s, %v, want %q", text, a, err, want)
		}
	}
}

func TestAddressesThatOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b Address
		want bool
	}{
		{Address{"mqtt", "", "1883"}, Address{"mqtts", "127.0.0.1", "1883"}, true},
		{Address{"mqtt", "localhost", "1883"}, Address{"mqtt", "::1", "1883"}, true},
		{Address{"mqtt", "localhost", "1883"}, Address{"mqtt", "10.0.0.1", "1883"}, false},
		{Address{"mqtt", "localhost", "0"}, Address{"mqtt", "localhost", "0"}, false},
		{Address{"mqtt", "localhost", "1883"}, Address{"mqtt", "localhost", "1884"}, false},
		{Address{"mqtt", "0.0.0.0", "1"}, Address{"mqtt", "10.0.0.1", "1"}, true},
	} {
		if got := c.a.overlaps(c.b); got != c.want {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
}

func TestEveryLimitCanBeDecoded(t *testing.T) {
	// The decoder panics on a field of a kind it does not know; limits grow elsewhere.
	v := reflect.ValueOf(&broker.Limits{}).Elem()
	for _, f := range fieldsOf(v.Type()) {
		text := "1"
		if f.Type.Kind() == reflect.Bool {
			text = "true"
		} else if strings.Contains(f.Type.String(), "Duration") {
			text = "1s"
		}
		if _, err := setScalar(v.FieldByIndex(f.Index), text, false, keyOf(f)); err != nil {
			t.Errorf("%s: %v", keyOf(f), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(DefaultYAML)
	f.Add("mqtt: {listen: [mqtt://:1883, mqtts://:8883]}\nusers:\n  list:\n  - {name: a, password: ${X:-y}}")
	f.Add("a: &x [*x]\n---\n? b\n: |\n  c")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("isthmus.yaml", []byte(text))
		if err != nil {
			_ = err.Error()
			return
		}
		_ = c.Show()
	})
}
