package bridge

import "sync/atomic"

// index is a hash map with one writer at a time and any number of readers that take no lock. It is the building block of
// the routing table and of the retained values: readers are publishers, and a publisher must neither wait for somebody who
// subscribes nor write to memory that another core reads.
//
// Open addressing with linear probing. A slot goes from empty to an entry to a tombstone, never back, until the writer
// replaces the whole array. A reader that walks an array being replaced sees the map as it was a moment before, which is
// all that a concurrent subscribe or publish may expect.
type index[V any] struct {
	slots atomic.Pointer[[]atomic.Pointer[entry[V]]]
	// for the writer only
	live int // entries
	used int // entries and tombstones
}

// entry is one key with its value, in one allocation. Readers may hold on to it after it has been removed.
type entry[V any] struct {
	hash uint64
	key  string
	gone bool // a tombstone; set before the entry is published
	val  V
}

// get finds the value of key, or nil.
func (x *index[V]) get(hash uint64, key string) *V {
	p := x.slots.Load()
	if p == nil {
		return nil
	}
	slots := *p
	mask := uint64(len(slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		e := slots[i].Load()
		if e == nil {
			return nil
		}
		if e.hash == hash && !e.gone && e.key == key {
			return &e.val
		}
	}
}

// put adds a key that is not there and returns its zero value to fill.
func (x *index[V]) put(hash uint64, key string) *V {
	p := x.slots.Load()
	if p == nil || (x.used+1)*4 > len(*p)*3 {
		x.resize()
		p = x.slots.Load()
	}
	e := &entry[V]{hash: hash, key: key}
	x.used++
	x.live++
	place(*p, e)
	return &e.val
}

func place[V any](slots []atomic.Pointer[entry[V]], e *entry[V]) {
	mask := uint64(len(slots) - 1)
	for i := e.hash & mask; ; i = (i + 1) & mask {
		if slots[i].Load() == nil {
			slots[i].Store(e)
			return
		}
	}
}

// del removes key, if it is there.
func (x *index[V]) del(hash uint64, key string) {
	p := x.slots.Load()
	if p == nil {
		return
	}
	slots := *p
	mask := uint64(len(slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		e := slots[i].Load()
		if e == nil {
			return
		}
		if e.hash == hash && !e.gone && e.key == key {
			slots[i].Store(&entry[V]{gone: true})
			x.live--
			break
		}
	}
	switch {
	case x.live == 0:
		x.slots.Store(nil)
		x.used = 0
	case len(slots) > 8 && x.live*8 < len(slots):
		x.resize()
	}
}

// resize copies the entries into an array that is half full at most.
func (x *index[V]) resize() {
	size := 2
	for size < 2*(x.live+1) {
		size *= 2
	}
	slots := make([]atomic.Pointer[entry[V]], size)
	if p := x.slots.Load(); p != nil {
		for i := range *p {
			if e := (*p)[i].Load(); e != nil && !e.gone {
				place(slots, e)
			}
		}
	}
	x.used = x.live
	x.slots.Store(&slots)
}

// cells is a snapshot of the array.
func (x *index[V]) cells() []atomic.Pointer[entry[V]] {
	if p := x.slots.Load(); p != nil {
		return *p
	}
	return nil
}
