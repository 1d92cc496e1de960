package bridge

import "time"

// pace is a client's token bucket for messages and bytes.
type pace struct {
	last            int64 // Unix nanoseconds
	messages, bytes float64
}

// Pace takes messages and bytes that a client has just sent from its allowance and returns how long the endpoint must stop
// reading from it; 0 for a client within its limits. An allowance of one second may be saved up. It belongs to the
// goroutine that reads for the client.
func (c *Client) Pace(now int64, messages, bytes int) time.Duration {
	l := c.hub.limits.Load()
	p := &c.pace
	dt := float64(now-p.last) / float64(time.Second)
	p.last = now
	p.messages = refill(p.messages, dt, float64(l.MessagesPerSecond)) - float64(messages)
	p.bytes = refill(p.bytes, dt, float64(l.BytesPerSecond)) - float64(bytes)
	short := max(-p.messages/float64(l.MessagesPerSecond), -p.bytes/float64(l.BytesPerSecond))
	if short <= 0 {
		return 0
	}
	return time.Duration(short * float64(time.Second))
}

func refill(have, dt, rate float64) float64 {
	if dt < 0 {
		return have
	}
	return min(rate, have+dt*rate)
}
