package mqttclient

import (
	"context"
	"errors"
	"fmt"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// Authenticator is the client's side of an enhanced authentication (MQTT 5 section 4.12), for example SCRAM. Its methods are
// called one after the other; Start begins a new exchange.
type Authenticator interface {
	Method() string
	Start() (data []byte, err error)                    // the data of the CONNECT or of the first AUTH
	Continue(challenge []byte) (data []byte, err error) // the answer to an AUTH
	Finish(data []byte) error                           // what came with the success; an error refuses the server
}

// authProps are the properties of one step.
func authProps(a Authenticator, data []byte) wire.Props {
	ps := wire.Props{wire.AuthMethod.Text(a.Method())}
	if data != nil {
		ps = append(ps, wire.AuthData.Bytes(data))
	}
	return ps
}

// Reauthenticate proves the client's identity again on the living connection. One exchange runs at a time.
func (c *Client) Reauthenticate(ctx context.Context) error {
	if c.cfg.Auth == nil {
		return errors.New("re-authenticating: the connection was not made with enhanced authentication")
	}
	c.reauth.Lock()
	defer c.reauth.Unlock()
	data, err := c.cfg.Auth.Start()
	if err != nil {
		return fmt.Errorf("re-authenticating: %w", err)
	}
	p := wire.Auth{Code: 0x19, Props: authProps(c.cfg.Auth, data)}
	for {
		if err := c.out.put(ctx, c, func(b []byte) []byte { return p.Append(b) }); err != nil {
			return err
		}
		select {
		case got := <-c.auths:
			if got.Code == 0 {
				return c.cfg.Auth.Finish(got.Props.Bytes(wire.AuthData))
			}
			if data, err = c.cfg.Auth.Continue(got.Props.Bytes(wire.AuthData)); err != nil {
				return fmt.Errorf("re-authenticating: %w", err)
			}
			p = wire.Auth{Code: 0x18, Props: authProps(c.cfg.Auth, data)}
		case <-c.done:
			return c.Err()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
