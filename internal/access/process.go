package access

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"runtime"
	"sync/atomic"

	"github.com/isthmus-iot/isthmus/bridge"
)

// maxWaiting is how many clients may wait for a slow check at a time.
const maxWaiting = 1024

// process is what stays the same over reloads: a key that nobody knows and the places for slow checks.
type process struct {
	key     [32]byte
	slots   chan struct{}
	waiting atomic.Int32
}

func newProcess() *process {
	p := &process{slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	copy(p.key[:], randomBytes(len(p.key)))
	return p
}

// verify checks a password. Slow checks run one per core at a time; a client that would be one of too many to wait is told
// so. The error carries Unavailable.
func (p *process) verify(ctx context.Context, h hash, password []byte) (bool, error) {
	if !h.slow() {
		return h.verify(password), nil
	}
	if p.waiting.Add(1) > maxWaiting {
		p.waiting.Add(-1)
		return false, bridge.Refuse(bridge.Unavailable, "too many password checks are waiting")
	}
	defer p.waiting.Add(-1)
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return false, &bridge.Error{Op: "checking a password", Reason: bridge.Unavailable, Err: ctx.Err()}
	}
	defer func() { <-p.slots }()
	return h.verify(password), nil
}

// digest is a keyed fast hash of a user and something of theirs. purpose keeps uses apart.
func (p *process) digest(purpose byte, user string, data []byte) (d [32]byte) {
	m := hmac.New(sha256.New, p.key[:])
	m.Write(binary.BigEndian.AppendUint64([]byte{purpose}, uint64(len(user))))
	m.Write([]byte(user))
	m.Write(data)
	m.Sum(d[:0])
	return d
}

// The purposes of digests.
const (
	recentPassword byte = iota
	decoyChoice
	fakeSalt
	fakeKey
)
