package bench

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets whose width grows with the value: each power of two is divided into 64, so that a
// value is known to better than 1.6 %. The zero value is empty. It is not safe for concurrent use.
type Histogram struct {
	counts []uint32
	n      int64
	max    time.Duration
}

const (
	subBits = 6
	subs    = 1 << subBits
)

// bucket is the index for a number of nanoseconds.
func bucket(ns uint64) int {
	if ns < subs {
		return int(ns)
	}
	shift := bits.Len64(ns) - subBits - 1
	return (shift+1)<<subBits + int(ns>>shift) - subs
}

// upper is the largest number of nanoseconds that falls into the bucket.
func upper(i int) uint64 {
	if i < subs {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i&(subs-1))+subs+1)<<shift - 1
}

// Record counts one duration; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	i := bucket(uint64(d))
	if i >= len(h.counts) {
		h.counts = append(h.counts, make([]uint32, i+1-len(h.counts))...)
	}
	h.counts[i]++
	h.n++
	h.max = max(h.max, d)
}

// Add adds what other has counted.
func (h *Histogram) Add(other *Histogram) {
	if len(other.counts) > len(h.counts) {
		h.counts = append(h.counts, make([]uint32, len(other.counts)-len(h.counts))...)
	}
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.n += other.n
	h.max = max(h.max, other.max)
}

// Count is the number of durations.
func (h *Histogram) Count() int64 { return h.n }

// Max is the longest duration, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile is a duration that the fraction q of all durations does not exceed, at most 1.6 % above the smallest such.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int64(q * float64(h.n))
	if float64(rank) < q*float64(h.n) {
		rank++
	}
	rank = max(rank, 1)
	for i, n := range h.counts {
		if rank -= int64(n); rank <= 0 {
			return min(time.Duration(upper(i)), h.max)
		}
	}
	return h.max
}
