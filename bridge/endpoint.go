package bridge

import "context"

// Endpoint is a listener side: it accepts clients of one protocol and attaches them to the hub. Run returns after every
// goroutine it started has ended.
type Endpoint interface {
	Name() string
	Run(ctx context.Context) error
}
