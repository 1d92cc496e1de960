package app

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Path is the name of a file or directory. A relative one is relative to the configuration file.
type Path string

// Strategy is how a shared group chooses its member.
type Strategy string

// Choices lists the values.
func (Strategy) Choices() []string { return []string{"round_robin", "by_publisher", "by_topic"} }

// shared is the hub's word for it.
func (s Strategy) shared() bridge.SharedStrategy {
	return bridge.SharedStrategy(max(slices.Index(s.Choices(), string(s)), 0))
}

// Level is the least severity that is logged.
type Level string

// Choices lists the values.
func (Level) Choices() []string { return []string{"debug", "info", "warn", "error"} }

// Format is how log lines look.
type Format string

// Choices lists the values: auto is text on a terminal and JSON otherwise.
func (Format) Choices() []string { return []string{"auto", "text", "json"} }

// Address is where a listener listens, as a URL: the scheme says protocol and TLS. No host means every address of the
// machine; "localhost" means its loopback addresses of both IP versions. It is comparable.
type Address struct{ Scheme, Host, Port string }

// defaultPorts has the port of each scheme.
var defaultPorts = map[string]string{"mqtt": "1883", "mqtts": "8883", "http": "9600"}

// UnmarshalText parses an address; the error says what was wanted.
func (a *Address) UnmarshalText(text []byte) error {
	want := errors.New("an address such as mqtt://localhost:1883 or mqtts://:8883")
	u, err := url.Parse(string(text))
	if err != nil || u.Scheme == "" || u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/" {
		return want
	}
	port := u.Port()
	if port == "" {
		port = defaultPorts[u.Scheme]
	}
	if n, err := strconv.Atoi(port); port != "" && (err != nil || n > 65535) {
		return errors.New("a port from 0 to 65535")
	}
	*a = Address{u.Scheme, u.Hostname(), port}
	return nil
}

// MarshalText is the address as a URL.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// String is the address as a URL.
func (a Address) String() string { return a.Scheme + "://" + a.HostPort() }

// HostPort is what net.Listen takes.
func (a Address) HostPort() string { return net.JoinHostPort(a.Host, a.Port) }

// Secure reports whether the scheme means TLS.
func (a Address) Secure() bool { return strings.HasSuffix(a.Scheme, "s") }

// Loopback reports whether only this machine can connect.
func (a Address) Loopback() bool {
	ip := net.ParseIP(a.Host)
	return a.Host == "localhost" || ip != nil && ip.IsLoopback()
}

// overlaps reports whether both cannot be listened on at once.
func (a Address) overlaps(b Address) bool {
	if a.Port != b.Port || a.Port == "0" {
		return false
	}
	everywhere := func(a Address) bool {
		ip := net.ParseIP(a.Host)
		return a.Host == "" || ip != nil && ip.IsUnspecified()
	}
	return a.Host == b.Host || everywhere(a) || everywhere(b) ||
		a.Host == "localhost" && b.Loopback() || b.Host == "localhost" && a.Loopback()
}

// secretFile begins a secret that is the content of a file.
const secretFile = "file:"

// isSecret reports whether the value at path is never shown: its key says so.
func isSecret(path string) bool {
	key := path[strings.LastIndexByte(path, '.')+1:]
	return key == "password" || key == "scram"
}

// parseDuration reads what time.ParseDuration reads, and days as "14d".
func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		return 0, errors.New("negative")
	}
	return d, err
}

// formatDuration is the shortest text that parseDuration reads back.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// units are the suffixes of sizes, the longest factor first.
var units = []struct {
	suffix string
	factor int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}

// parseSize reads a number of bytes: 65536, 64KiB, 4MiB, 1GiB, 2MB.
func parseSize(s string) (int64, error) {
	for _, u := range units {
		if number, ok := strings.CutSuffix(s, u.suffix); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
			if err != nil || n < 0 || n > (1<<62)/u.factor {
				return 0, errors.New("not a size")
			}
			return n * u.factor, nil
		}
	}
	return parseCount(s)
}

// formatSize is the shortest text that parseSize reads back.
func formatSize(n int64) string {
	for _, u := range units[:3] {
		if n >= u.factor && n%u.factor == 0 {
			return fmt.Sprintf("%d%s", n/u.factor, u.suffix)
		}
	}
	return strconv.FormatInt(n, 10)
}

// parseCount reads a whole number that is not negative; _ may separate digits, as in 1_000_000.
func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64)
	if err == nil && n < 0 {
		return 0, errors.New("negative")
	}
	return n, err
}
