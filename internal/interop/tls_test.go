package interop

import (
	"path/filepath"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/certs"
)

// TestCertificatesNameUsers has clients with certificates of the authority of isthmus init and of another one.
func TestCertificatesNameUsers(t *testing.T) {
	t.Parallel()
	all := doors(t)
	trusted := all[len(all)-1]
	folder := filepath.Dir(trusted.ca)
	ours, err := certs.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := certs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pair := func(a *certs.Authority, name string) (string, string) {
		p, err := a.Client(name)
		if err != nil {
			t.Fatal(err)
		}
		return p.Cert, p.Key
	}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			device := mosquitto{trusted, version}
			watch := device.sub(t, "-t", "devices/device/#", "-q", "1")

			// A certificate for a user who is in no password file: the rules are that name's.
			pump := mosquitto{door{port: trusted.port, ca: trusted.ca}, version}
			pump.cert, pump.key = pair(ours, "pump")
			pumps := pump.sub(t, "-t", "devices/pump/#", "-q", "1")
			pump.pub(t, "-t", "devices/device/x", "-q", "1", "-m", "denied")
			pump.pub(t, "-t", "devices/pump/x", "-q", "1", "-m", "hello")
			pumps.wants(t, message, "devices/pump/x 1 0 hello")

			liar, stranger, nobody, wary, plain := pump, device, device, device, device
			liar.user, liar.password = "device", "whatever"
			stranger.cert, stranger.key = pair(theirs, "device")
			nobody.cert, nobody.key = "", ""
			wary.ca = theirs.Cert()
			plain.ca, plain.cert, plain.key = "", "", ""
			for name, m := range map[string]mosquitto{
				"a client that sends another name than its certificate's": liar,
				"a client with a certificate of another authority":        stranger,
				"a client without certificate and password":               nobody,
				"a client that trusts another authority only":             wary,
				"a client without TLS":                                    plain,
			} {
				if out, code := m.try(t, "-t", "devices/device/x", "-q", "1", "-m", "denied"); code == 0 {
					t.Errorf("%s published:\n%s", name, out)
				}
			}
			device.pub(t, "-t", "devices/device/x", "-q", "1", "-m", "last")
			watch.wants(t, message, "devices/device/x 1 0 last")
		})
	}
}
