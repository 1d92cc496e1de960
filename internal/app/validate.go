package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/internal/certs"
)

// validator finds what is wrong with a configuration whose keys and types are right, and says where.
type validator struct {
	*Config
	d *decoder
}

// problem notes that what stands at path is wrong.
func (v validator) problem(path, hint, format string, args ...any) {
	v.d.problems = append(v.d.problems, v.Config.problem(path, hint, format, args...))
}

func (v validator) validate() {
	v.gateway()
	v.listen()
	v.tls()
	v.users()
	v.store()
	v.limits("limits", v.Limits, v.Limits.Validate())
	v.limits("mqtt.limits", v.MQTT.Limits, v.MQTT.Limits.Validate())
}

func (v validator) gateway() {
	if v.Gateway.ID == "" || strings.ContainsAny(v.Gateway.ID, "/+#$ \t\n") {
		v.problem("gateway.id", "", "gateway.id is %q, want a word without /, +, #, $ and spaces", v.Gateway.ID)
	}
	if v.Gateway.Data == "" {
		v.problem("gateway.data", "", "gateway.data is empty, want a directory")
	}
	if v.Gateway.Grace < 0 || v.Gateway.Grace > time.Hour {
		v.problem("gateway.grace", "", "gateway.grace is %s, want at most 1h", formatDuration(v.Gateway.Grace))
	}
	if i := v.MQTT.SysInterval; i != 0 && i < time.Second {
		v.problem("mqtt.sys_interval", "0s switches the $SYS topics off", "mqtt.sys_interval is %s, want at least 1s", formatDuration(i))
	}
}

// schemes are what each part of the gateway can listen for.
var schemes = map[string][]string{"mqtt": {"mqtt", "mqtts"}, "ops": {"http"}}

func (v validator) listen() {
	all := v.listeners()
	for i, a := range all {
		part, _, _ := strings.Cut(a.path, ".")
		if a.Scheme == "" {
			continue // a problem already
		}
		if !slices.Contains(schemes[part], a.Scheme) {
			v.problem(a.path, didYouMean(a.Scheme, schemes[part]), "%s: %s does not listen for %s://", a.Address, part, a.Scheme)
		}
		for _, b := range all[:i] {
			if a.overlaps(b.Address) {
				v.problem(a.path, "give one of them another port or remove it", "%s is taken by %s already", a.Address, b.Address)
				break
			}
		}
	}
	if len(v.MQTT.Listen) == 0 {
		v.problem("mqtt.listen", "listen: [mqtt://localhost:1883]", "the gateway listens nowhere")
	}
}

func (v validator) tls() {
	t := v.TLS
	for i, a := range v.MQTT.Listen {
		if a.Secure() && t.Cert == "" {
			v.problem(index("mqtt.listen", i), "isthmus init writes a certificate to start with; name it in tls: {cert: FILE, key: FILE}", "%s needs a certificate, but tls.cert is not set", a)
		}
	}
	switch {
	case t.Cert != "" && t.Key == "":
		v.problem("tls.cert", "add tls.key", "tls.cert without tls.key")
	case t.Cert == "" && t.Key != "":
		v.problem("tls.key", "add tls.cert", "tls.key without tls.cert")
	}
	if t.RequireClientCert && t.ClientCA == "" {
		v.problem("tls.require_client_cert", "add tls.client_ca", "tls.require_client_cert needs tls.client_ca: nobody's certificate would be believed")
	}
	if t.Cert == "" && t.ClientCA != "" {
		v.problem("tls.client_ca", "", "tls.client_ca without tls.cert: there is no TLS to use it in")
	}
	cert, key := v.file("tls.cert", t.Cert), v.file("tls.key", t.Key)
	authorities := v.file("tls.client_ca", t.ClientCA)
	if cert && key {
		// What is wrong with the authorities is not also said of the certificate.
		path, files := "tls.cert", certs.Config{Cert: string(t.Cert), Key: string(t.Key)}
		_, err := certs.Load(files)
		if err == nil && authorities {
			path, files.ClientCA = "tls.client_ca", string(t.ClientCA)
			_, err = certs.Load(files)
		}
		if err != nil {
			v.problem(path, "", "%v", err)
		}
	}
}

// minStore is the least that a store may take: below it there is hardly room for the log of what is being written.
const minStore = 64 << 20

func (v validator) store() {
	if v.Store.Limit < minStore {
		v.problem("store.limit_bytes", "", "store.limit_bytes is %s, want at least %s", formatSize(v.Store.Limit), formatSize(minStore))
	}
	first := map[string]bool{}
	for i, t := range v.Store.Topics {
		path := index("store.topics", i)
		filter, err := bridge.ParseFilter(t.Filter)
		group, _ := filter.Share()
		switch {
		case !v.d.written(path + ".filter"):
			v.problem(path, "filter: telemetry/#", "%s has no filter", path)
		case err != nil:
			v.problem(path+".filter", "", "%s.filter: %q: %v", path, t.Filter, err)
		case group != "":
			v.problem(path+".filter", "name the topics: how a message is kept does not depend on who subscribes", "%s.filter: %q is a shared filter", path, t.Filter)
		case first[t.Filter]:
			v.problem(path+".filter", "remove one of them: the first that matches decides", "%s.filter: %q is listed twice", path, t.Filter)
		}
		first[t.Filter] = true
		if !v.d.written(path + ".durability") {
			v.problem(path, "durability: os", "%s has no durability", path)
		}
	}
}

func (v validator) users() {
	u := &v.Users
	v.file("users.file", Path(u.File))
	v.file("users.acl", Path(u.ACL))
	if err := u.Validate(); err != nil {
		// It says where: "users.list[0].name: user name is empty".
		for line := range strings.Lines(err.Error()) {
			line = strings.TrimSuffix(line, "\n")
			path, _, _ := strings.Cut(line, ": ")
			v.problem(path, "", "%s", line)
		}
	}
	names := map[string]bool{}
	for i, user := range u.Users {
		if names[user.Name] {
			v.problem(index("users.list", i), "remove one of them", "user %q is listed twice", user.Name)
		}
		names[user.Name] = true
	}
	if v.d.written("users.anonymous") || v.usersKnown() {
		return
	}
	for i, a := range v.MQTT.Listen {
		if a.Scheme != "" && !a.Loopback() {
			v.problem(index("mqtt.listen", i), "name the users (users: {file: users.passwd}), or let everybody in (users: {anonymous: all})",
				"%s can be reached from other machines, but nothing says who may connect", a)
		}
	}
}

// limits reports what a package says about its limits at the key that its message begins with. A limit is never off: where
// zero is written for a limit that has a default, it would silently mean that default.
func (v validator) limits(path string, limits any, err error) {
	if err != nil {
		key, _, _ := strings.Cut(err.Error(), " ")
		v.problem(path+"."+key, "", "%s: %v", path, err)
	}
	value := reflect.ValueOf(limits)
	defaults := reflect.ValueOf(*Default())
	for _, field := range strings.Split(path, ".") {
		defaults, _ = fieldOf(defaults, field)
	}
	for _, key := range keysOf(value.Type()) {
		f, _ := fieldOf(value, key)
		if !f.CanInt() || f.Int() != 0 || !v.d.written(path+"."+key) {
			continue
		}
		if standard, _ := fieldOf(defaults, key); standard.Int() != 0 {
			hint := "remove the line to have the default"
			if key == "maximum_qos" {
				hint = "write no_qos: true for QoS 0 only"
			}
			v.problem(path+"."+key, hint, "%s.%s is 0, but a limit is never off", path, key)
		}
	}
}

// file reports a file that cannot be read, and whether it can.
func (v validator) file(path string, name Path) bool {
	if name == "" {
		return false
	}
	f, err := os.Open(string(name))
	if err == nil {
		var info fs.FileInfo
		if info, err = f.Stat(); err == nil && info.IsDir() {
			err = errors.New("is a directory")
		}
		f.Close()
	}
	if err != nil {
		v.problem(path, hintNames, "%s: %s: %v", path, name, cause(err))
	}
	return err == nil
}

// hintNames says where the names of files begin.
const hintNames = "relative names begin at the directory of the configuration file"

// cause is err without the name of the file.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// index is the path of an entry of a list.
func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
