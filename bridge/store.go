package bridge

// Receipt is a position in the log of a store: the number of the group commit that something is part of. What belongs to it is
// kept once the store has synced that commit. The zero Receipt is kept already.
type Receipt uint64

// Durability says what a message's copies have to survive before it is acknowledged.
type Durability uint8

// The durabilities.
const (
	Fsync  Durability = iota // loss of power: on the disk
	OS                       // kill -9: in the hands of the operating system
	Memory                   // nothing: queues and retained values in memory, gone with the process
)

var durabilityNames = [...]string{"fsync", "os", "memory"}

// String is the name in the configuration.
func (d Durability) String() string { return durabilityNames[d] }

// Waiter is told when the store has got further.
type Waiter interface {
	// Stored is called once for each [Log.Await] that returned true, when its commit is synced or has failed: Synced and
	// Err tell which. It must not wait for a peer. What it touches in b is flushed afterwards.
	Stored(b *Batch)
}

// Log is what is common to all that a store keeps. Everything that is appended takes effect in the order of the calls: after a
// crash what is there is the result of a prefix of them. Methods may be called from any goroutine.
type Log interface {
	// Synced is the last commit that is kept.
	Synced() Receipt
	// Await has w told when r is synced. It returns false, and w is not told, if it is synced already or the log has failed.
	Await(r Receipt, w Waiter) bool
	// Err is why nothing is kept any more; nil while all is well. After a failure nothing is synced ever again.
	Err() error
	// Full reports that the limit on disk use is reached: what would need more space must be refused.
	Full() bool
	// Hold keeps what is appended until release in one commit. It must not be called with a lock held that another
	// caller of Hold may wait for.
	Hold() (release func())
}

// RetainedStore keeps retained values. It is called in the order in which values of one topic are set.
type RetainedStore interface {
	Log
	// Retain keeps m, which is not borrowed, as the value of its topic in place of old, which may be nil.
	Retain(m, old *Message, d Durability) Receipt
	// Forget removes old, the value of its topic.
	Forget(old *Message) Receipt
	// EndBody says that no further queue will refer to a body; see [Body].
	EndBody(id uint64)
	// LoadRetained yields all values that are kept, for a start.
	LoadRetained(yield func(*Message) error) error
}

// Body is the body of a message in the store while it is being delivered: a message for a thousand queues is stored once.
type Body struct {
	ID   uint64 // given by the first queue that stores it; 0: none has
	Sole bool   // one queue at most will store it: the body can be put into the entry itself
}

// Kept is one message in a stored queue.
type Kept struct {
	Position    uint64 // in its queue; grows from entry to entry
	Message     *Message
	QoS         QoS // it was granted
	Retain      bool
	Identifiers []uint32
	Shared      Filter // the shared subscription that it came by; empty: none
	PacketID    uint16 // it was sent with; 0: not sent yet
	Released    bool   // PUBREC has come: only PUBREL is to be sent
	Body        uint64 // of the shared body; 0: in the entry itself
	Size        uint32 // bytes that the entry holds in the store, a shared body not counted
}

// StoredSession is a session as a store finds it at the start.
type StoredSession struct {
	Number        uint64
	Record        []byte // the broker's own
	Subscriptions []StoredSubscription
	InFlight      []Kept   // sent and not done with, in the order of their positions; a released one has no Message
	Head          uint64   // position of the first entry that was not sent; Next if there is none
	Next          uint64   // a position after those of all entries
	Messages      int      // not sent yet
	Bytes         int      // of these, by Message.Size
	Received      []uint16 // packet identifiers of QoS 2 messages from the client that are not released
}

// StoredSubscription is a subscription of a [StoredSession].
type StoredSubscription struct {
	Filter string
	Record []byte // the broker's own
}
