package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"

	"github.com/isthmus-iot/isthmus/bridge"
)

// ErrNotRunning means that no gateway answers at the socket.
var ErrNotRunning = errors.New("no gateway is running here")

// Client asks the admin API of a running gateway.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client for the admin socket of that name.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}
	return c
}

// Status describes the gateway.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.do(ctx, http.MethodGet, "/api/v1/status", &s)
}

// Explain tells what would happen to a message.
func (c *Client) Explain(ctx context.Context, m *bridge.Message, client, user string) (steps []bridge.Step, err error) {
	q := url.Values{
		"topic": {string(m.Topic)}, "client": {client}, "user": {user},
		"qos": {strconv.Itoa(int(m.QoS))}, "retain": {strconv.FormatBool(m.Retain)},
	}
	return steps, c.do(ctx, http.MethodGet, "/api/v1/explain?"+q.Encode(), &steps)
}

// Reload makes the gateway put its configuration file in force. The error says why it did not; the old configuration then
// holds.
func (c *Client) Reload(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/api/v1/reload", nil)
}

func (c *Client) do(ctx context.Context, method, path string, result any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://isthmus"+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %s", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s belongs to another user: %w", c.socket, fs.ErrPermission)
	case err != nil:
		return fmt.Errorf("asking the gateway at %s: %w", c.socket, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("asking the gateway at %s: %w", c.socket, err)
	}
	if response.StatusCode != http.StatusOK {
		var f Failure
		if json.Unmarshal(body, &f) != nil || f.Error == "" {
			f.Error = response.Status
		}
		return errors.New(f.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(body, result)
}
