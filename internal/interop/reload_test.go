package interop

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestReloadChangesUsersAndRulesUnderWhoIsConnected(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			dir := guardedFolder(t, "pattern read own/%u\nuser ann\ntopic readwrite #\nuser bob\ntopic readwrite bobs/#\n", "ann", "bob", "carl", "erik")
			g := serveFile(t, filepath.Join(dir, "isthmus.yaml"))
			ann, bob := g.as("ann", "annann", version), g.as("bob", "bobbob", version)
			everything := ann.sub(t, "-t", "#", "-q", "1")
			bobs := bob.sub(t, "-t", "bobs/#", "-q", "1")
			var gone []*program
			for _, user := range []string{"carl", "erik"} {
				gone = append(gone, g.as(user, user+user, version).sub(t, "-t", "own/"+user))
			}

			// Bob's rules change, Carl goes, Dora comes, Erik gets another password.
			write(t, filepath.Join(dir, "acl"), "user ann\ntopic readwrite #\nuser bob\ntopic readwrite bobs/new/#\nuser dora\ntopic write doras/#\n")
			setPassword(t, dir, "dora", "doradora")
			setPassword(t, dir, "erik", "changed")
			succeeds(t, "", find(t, "mosquitto_passwd"), "-D", filepath.Join(dir, "users"), "carl")
			g.reload(t, `"msg":"reloaded"`)

			// Who is not let in any more is sent away and does not come back.
			for _, p := range gone {
				if bob.v5() {
					p.contains(t, "Received DISCONNECT (135)") // not authorized
				} else {
					p.contains(t, "received CONNACK (4)") // at the next attempt
				}
			}
			if _, code := g.as("erik", "erikerik", version).try(t, "-t", "x", "-m", "x"); code == 0 {
				t.Error("Erik's old password still opens")
			}
			g.as("erik", "changed", version).pub(t, "-t", "x", "-q", "0", "-m", "not his")
			g.as("dora", "doradora", version).pub(t, "-t", "doras/x", "-q", "1", "-m", "hello")
			everything.wants(t, message, "doras/x 1 0 hello")

			// Who stays has what the new rules give, over the same connection.
			ann.pub(t, "-t", "bobs/old", "-q", "1", "-m", "not any more")
			ann.pub(t, "-t", "bobs/new/x", "-q", "1", "-m", "still")
			bobs.wants(t, message, "bobs/new/x 1 0 still")
			everything.wants(t, message, "bobs/old 1 0 not any more", "bobs/new/x 1 0 still")
			for name, p := range map[string]*program{"Ann": everything, "Bob": bobs} {
				if n := len(p.all("sending CONNECT")); n != 1 {
					t.Errorf("%s connected %d times", name, n)
				}
			}
		})
	}
}

func TestReloadOfABrokenConfigurationChangesNothing(t *testing.T) {
	t.Parallel()
	dir := guardedFolder(t, "user ann\ntopic readwrite #\n", "ann")
	file := filepath.Join(dir, "isthmus.yaml")
	g := serveFile(t, file)
	ann := g.as("ann", "annann", "mqttv311")
	sub := ann.sub(t, "-t", "#", "-q", "1")
	for name, broken := range map[string]func() string{
		"not YAML":        func() string { write(t, file, "mqtt: [\n"); return "isthmus.yaml:1" },
		"an unknown key":  func() string { write(t, file, guarded+"mqt: {}\n"); return `unknown key \"mqt\"` },
		"a rule":          func() string { write(t, filepath.Join(dir, "acl"), "user ann\ntopic wread #\n"); return "wread" },
		"a password line": func() string { write(t, filepath.Join(dir, "users"), "ann:secret\n"); return "users:1" },
		"a missing file": func() string {
			write(t, file, strings.Replace(guarded, "file: users", "file: nowhere", 1))
			return "nowhere"
		},
		"what cannot be changed": func() string {
			write(t, file, strings.Replace(guarded, "data: data", "data: other", 1))
			return "gateway.data"
		},
	} {
		t.Run(name, func(t *testing.T) {
			users := read(t, filepath.Join(dir, "users"))
			acl := read(t, filepath.Join(dir, "acl"))
			if line := g.reload(t, broken()); !strings.Contains(line, "stays in force") {
				t.Errorf("the log says %s", line)
			}
			ann.pub(t, "-t", "x", "-q", "1", "-m", name)
			sub.wants(t, message, "x 1 0 "+name)
			write(t, file, guarded)
			write(t, filepath.Join(dir, "users"), users)
			write(t, filepath.Join(dir, "acl"), acl)
			g.reload(t, `"msg":"reloaded"`)
		})
	}
	ann.pub(t, "-t", "x", "-q", "1", "-m", "last")
	sub.wants(t, message, "x 1 0 last")
	if n := len(sub.all("sending CONNECT")); n != 1 {
		t.Errorf("ann connected %d times", n)
	}
}
