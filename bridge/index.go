package bridge

import "sync/atomic"

// index is a hash map with one writer at a time and any number of readers that take no lock. It is the building block of
// the routing table and of the retained values: readers are publishers, and a publisher must neither wait for somebody who
// subscribes nor write to memory that another core reads.
//
// Open addressing with linear probing. An entry never moves within an array, and a slot in front of another entry is never
// emptied, so a reader on its way to a key meets no gap before it. At least a quarter of an array is empty, so every search
// ends. A reader that walks an array being replaced sees the map as it was a moment before, which is all that a concurrent
// subscribe or publish may expect.
type index[V any] struct {
	slots atomic.Pointer[[]atomic.Pointer[entry[V]]]
	// for the writer only
	live int32 // entries
	used int32 // entries and tombstones
}

// entry is one key with its value, in one allocation. Readers may hold on to it after it has been removed.
type entry[V any] struct {
	hash uint32
	gone bool // a tombstone; set before the entry is published
	key  string
	val  V
}

// empty is for readers: whether looking anything up is worth a hash.
func (x *index[V]) empty() bool { return x.slots.Load() == nil }

// get finds the value of key, or nil.
func (x *index[V]) get(hash uint32, key string) *V {
	p := x.slots.Load()
	if p == nil {
		return nil
	}
	slots := *p
	mask := uint32(len(slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		e := slots[i].Load()
		if e == nil {
			return nil
		}
		if e.hash == hash && e.key == key && !e.gone {
			return &e.val
		}
	}
}

// put adds a key that is not there. init, if not nil, fills its value before a reader can see it.
func (x *index[V]) put(hash uint32, key string, init func(*V)) *V {
	p := x.slots.Load()
	if p == nil || int(x.used+1)*4 > len(*p)*3 {
		x.resize()
		p = x.slots.Load()
	}
	e := &entry[V]{hash: hash, key: key}
	if init != nil {
		init(&e.val)
	}
	x.used++
	x.live++
	settle(*p, e)
	return &e.val
}

func settle[V any](slots []atomic.Pointer[entry[V]], e *entry[V]) {
	mask := uint32(len(slots) - 1)
	for i := e.hash & mask; ; i = (i + 1) & mask {
		if slots[i].Load() == nil {
			slots[i].Store(e)
			return
		}
	}
}

// del removes key, if it is there.
func (x *index[V]) del(hash uint32, key string) {
	p := x.slots.Load()
	if p == nil {
		return
	}
	slots := *p
	mask := uint32(len(slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		e := slots[i].Load()
		if e == nil {
			return
		}
		if e.hash == hash && e.key == key && !e.gone {
			x.live--
			x.vacate(slots, i)
			break
		}
	}
	switch {
	case x.live == 0:
		x.slots.Store(nil)
		x.used = 0
	case len(slots) > 8 && int(x.live)*8 < len(slots):
		x.resize()
	}
}

// vacate takes the entry out of slot i. Where the next slot is empty nobody's way leads over this one, so it and the
// tombstones before it become empty; otherwise it becomes a tombstone itself.
func (x *index[V]) vacate(slots []atomic.Pointer[entry[V]], i uint32) {
	mask := uint32(len(slots) - 1)
	if slots[(i+1)&mask].Load() != nil {
		slots[i].Store(&entry[V]{gone: true})
		return
	}
	for {
		slots[i].Store(nil)
		x.used--
		i = (i - 1) & mask
		if e := slots[i].Load(); e == nil || !e.gone {
			return
		}
	}
}

// resize copies the entries into an array that is half full at most.
func (x *index[V]) resize() {
	size := 2
	for size < 2*(int(x.live)+1) {
		size *= 2
	}
	slots := make([]atomic.Pointer[entry[V]], size)
	if p := x.slots.Load(); p != nil {
		for i := range *p {
			if e := (*p)[i].Load(); e != nil && !e.gone {
				settle(slots, e)
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
