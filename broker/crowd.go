package broker

import "github.com/isthmus-iot/isthmus/bridge"

// crowd learns whether an output is appended to by several batches between two writes, as that of the one subscriber of many
// publishers is. Then it pays to let other ready readers run before the write (see bridge.Batch). It is guarded by the
// output's lock.
type crowd struct {
	first *bridge.Batch // that appended since the last write
	mixed bool          // another one has too
	score int8          // above 0: several are expected
	turns uint8
}

// How much one mixed write counts, and how often a quiet output is tried: without yielding it would stay quiet on a machine
// with one core.
const (
	crowdGain  = 4
	crowdMax   = 16
	crowdProbe = 32
)

func (c *crowd) appended(b *bridge.Batch) {
	if c.first == nil {
		c.first = b
	}
	c.mixed = c.mixed || c.first != b
}

// taken is called when the buffer is taken for writing.
func (c *crowd) taken() {
	if c.mixed {
		c.score = min(c.score+crowdGain, crowdMax)
	} else {
		c.score = max(c.score-1, 0)
	}
	c.first, c.mixed = nil, false
	c.turns++
}

func (c *crowd) expected() bool { return c.score > 0 || c.turns%crowdProbe == 0 }
