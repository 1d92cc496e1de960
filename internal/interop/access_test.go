package interop

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// guarded is a configuration with files as Mosquitto has them.
const guarded = `
gateway: {data: data}
users: {file: users, acl: acl}
mqtt: {listen: [mqtt://127.0.0.1:0], sys_interval: 1s}
ops: {listen: [http://127.0.0.1:0]}
log: {level: debug, format: json}
`

// guardedFolder has the files: the password file is written by mosquitto_passwd, every user's password is that name twice.
func guardedFolder(t *testing.T, acl string, users ...string) (dir string) {
	t.Helper()
	dir = folder(t)
	write(t, filepath.Join(dir, "isthmus.yaml"), guarded)
	write(t, filepath.Join(dir, "acl"), acl)
	write(t, filepath.Join(dir, "users"), "")
	for _, u := range users {
		setPassword(t, dir, u, u+u)
	}
	return dir
}

func setPassword(t *testing.T, dir, user, password string) {
	t.Helper()
	succeeds(t, "", find(t, "mosquitto_passwd"), "-b", filepath.Join(dir, "users"), user, password)
}

// as is the clients of a user.
func (g *gateway) as(user, password, version string) mosquitto {
	return mosquitto{door{port: g.ports["mqtt"], user: user, password: password}, version}
}

func TestUsersAndRulesHoldForEveryVersion(t *testing.T) {
	t.Parallel()
	g := serveFile(t, filepath.Join(guardedFolder(t, `
user ann
topic readwrite #
user bob
topic read news/#
topic write letters/%u
pattern readwrite own/%u/#
pattern deny own/%u/secret
`, "ann", "bob"), "isthmus.yaml"))
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			ann, bob := g.as("ann", "annann", version), g.as("bob", "bobbob", version)
			news := "news/" + version

			wrong := 4
			if bob.v5() {
				wrong = 134
			}
			for _, stranger := range []mosquitto{g.as("bob", "wrong", version), g.as("carl", "carlcarl", version), g.as("", "", version)} {
				if out, code := stranger.try(t, "-t", news, "-m", "x"); code != wrong {
					t.Errorf("user %q, password %q: exit code %d, want %d:\n%s", stranger.user, stranger.password, code, wrong, out)
				}
			}

			// What bob may read comes, what he may not write comes nowhere.
			watch := ann.sub(t, "-t", "#", "-q", "2")
			sub := bob.sub(t, "-t", news, "-t", "own/bob/#", "-q", "2")
			for qos := range 3 {
				out, code := bob.try(t, "-t", news, "-m", "denied", "-q", fmt.Sprint(qos))
				if code != 0 {
					t.Errorf("QoS %d: exit code %d:\n%s", qos, code, out)
				}
				if said := strings.Contains(out, "Not authorized"); said != (bob.v5() && qos > 0) {
					t.Errorf("QoS %d: mosquitto_pub said:\n%s", qos, out)
				}
				bob.pub(t, "-t", "own/bob/secret", "-m", "denied", "-q", fmt.Sprint(qos))
			}
			bob.pub(t, "-t", "own/bob/x", "-m", version, "-q", "1")
			ann.pub(t, "-t", news, "-m", version, "-q", "1")
			sub.wants(t, message, "own/bob/x 1 0 "+version, news+" 1 0 "+version)
			watch.wants(t, message, "own/bob/x 1 0 "+version, news+" 1 0 "+version)

			// A filter that bob may read nothing of is refused; MQTT 3.1 cannot say so, and then nothing comes.
			refused := bob.launch(t, "-t", "letters/#")
			if version == "mqttv31" {
				refused.after(t, "Subscribed (mid: ")
			} else {
				refused.contains(t, "All subscription requests were denied")
			}
			watch.kill()
		})
	}
}

func TestSysTopicsAreThereForMonitoring(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			m := serve(t, plain).as("", "", version)
			sub := m.sub(t, "-t", "$SYS/#", "-i", clientID())
			for _, topic := range []string{"version", "uptime", "clients/connected", "messages/received", "load/messages/received/1min", "retained messages/count", "subscriptions/count"} {
				p := m.launch(t, "-t", "$SYS/broker/"+topic, "-C", "1")
				if got := p.after(t, message); !strings.HasPrefix(got, "$SYS/broker/"+topic+" 0 1 ") {
					t.Errorf("got %q", got)
				}
				p.wait(t)
			}
			// Figures follow what happens, for who is subscribed.
			other := m.sub(t, "-t", "x")
			sub.after(t, message+"$SYS/broker/clients/connected 0 0 2")
			other.kill()
			sub.after(t, message+"$SYS/broker/clients/connected 0 0 1")

			// A wildcard at the front is not for them, and nobody can write them.
			all := m.sub(t, "-t", "#", "-t", "+/broker/uptime", "-q", "1")
			m.pub(t, "-t", "$SYS/broker/version", "-q", "1", "-m", "mine")
			m.pub(t, "-t", "last", "-q", "1", "-m", "x")
			all.wants(t, message, "last 1 0 x")
			if got := m.get(t, 1, "-t", "$SYS/broker/version")[0]; strings.Contains(got, "mine") {
				t.Errorf("got %q", got)
			}
		})
	}
}
