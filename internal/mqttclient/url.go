package mqttclient

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// URL is the address of a server, with what else a URL may say.
type URL struct {
	TLS      bool
	Host     string // host:port
	User     string
	Password string
	Topic    string // the path without its first slash; may be a filter
}

// ParseURL understands mqtt://user:password@host:port/topic and mqtts://. The port defaults to 1883 and 8883. Everything
// behind the host is the topic, percent-encoded where needed, so that '#' and '?' need no escape: mqtt://host/a/#.
func ParseURL(s string) (URL, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "mqtt", s
	}
	u := URL{}
	port := "1883"
	switch scheme {
	case "mqtt":
	case "mqtts":
		u.TLS, port = true, "8883"
	default:
		return URL{}, fmt.Errorf("URL scheme %q is unknown, want mqtt or mqtts", scheme)
	}
	authority, path, _ := strings.Cut(rest, "/")
	parsed, err := url.Parse("mqtt://" + authority)
	if err != nil {
		// The error of net/url holds the URL, and that may hold a password.
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return URL{}, fmt.Errorf("bad URL: %w", err)
	}
	if parsed.Hostname() == "" || parsed.RawQuery != "" || parsed.Fragment != "" {
		return URL{}, errors.New("bad URL: no host, want mqtt://host:port")
	}
	if p := parsed.Port(); p != "" {
		port = p
	}
	u.Host = net.JoinHostPort(parsed.Hostname(), port)
	if parsed.User != nil {
		u.User = parsed.User.Username()
		u.Password, _ = parsed.User.Password()
	}
	if u.Topic, err = url.PathUnescape(path); err != nil {
		return URL{}, fmt.Errorf("bad URL: topic: %w", err)
	}
	return u, nil
}
