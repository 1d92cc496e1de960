package bridge

import (
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// checkIndex compares x with a map and checks what readers rely on.
func checkIndex(t interface{ Fatalf(string, ...any) }, x *index[int], model map[string]int, hashOf func(string) uint32) {
	if int(x.live) != len(model) {
		t.Fatalf("live is %d, want %d", x.live, len(model))
	}
	used, live := 0, 0
	for i := range x.cells() {
		if e := x.cells()[i].Load(); e != nil {
			used++
			if !e.gone {
				live++
			}
		}
	}
	if used != int(x.used) || live != int(x.live) {
		t.Fatalf("%d slots used and %d live, counted as %d and %d", used, live, x.used, x.live)
	}
	if n := len(x.cells()); n > 0 && used*4 > n*3 {
		t.Fatalf("%d of %d slots used: a search might not end", used, n)
	}
	for k, v := range model {
		if got := x.get(hashOf(k), k); got == nil || *got != v {
			t.Fatalf("%q: %v, want %d", k, got, v)
		}
	}
	if len(model) == 0 && !x.empty() {
		t.Fatalf("the last key is gone, its array is not")
	}
}

func TestAnIndexBehavesAsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Few different hashes make long ways and many tombstones.
		spread := rapid.SampledFrom([]uint32{1, 3, 8, 1 << 31}).Draw(t, "different hashes")
		keys := rapid.IntRange(1, 60).Draw(t, "keys")
		hashOf := func(k string) uint32 {
			h := uint32(2166136261)
			for _, c := range []byte(k) {
				h = (h ^ uint32(c)) * 16777619
			}
			return h % spread
		}
		var x index[int]
		model := make(map[string]int)
		for i := range rapid.IntRange(0, 300).Draw(t, "steps") {
			k := name("k", rapid.IntRange(0, keys-1).Draw(t, "key"))
			if _, ok := model[k]; ok {
				x.del(hashOf(k), k)
				delete(model, k)
				x.del(hashOf(k), k) // once more does nothing
			} else {
				x.put(hashOf(k), k, func(v *int) { *v = i })
				model[k] = i
			}
			if got := x.get(hashOf(k), k); (got != nil) != (model[k] != 0 || hasKey(model, k)) {
				t.Fatalf("%q: %v", k, got)
			}
			checkIndex(t, &x, model, hashOf)
		}
	})
}

func hasKey(m map[string]int, k string) bool { _, ok := m[k]; return ok }

func TestAnIndexGrowsAndShrinks(t *testing.T) {
	tb := newTable()
	var x index[int]
	model := make(map[string]int)
	for i := range 10_000 {
		x.put(tb.hashOf(name("k", i)), name("k", i), func(v *int) { *v = i })
		model[name("k", i)] = i
	}
	checkIndex(t, &x, model, tb.hashOf)
	full := len(x.cells())
	for i := range 9_990 {
		x.del(tb.hashOf(name("k", i)), name("k", i))
		delete(model, name("k", i))
	}
	checkIndex(t, &x, model, tb.hashOf)
	if n := len(x.cells()); n > 128 {
		t.Errorf("10 of 10,000 keys are left and %d of %d slots", n, full)
	}
}

func TestAnIndexDoesNotFillUpWithTombstones(t *testing.T) {
	tb := newTable()
	var x index[int]
	x.put(tb.hashOf("stays"), "stays", nil)
	for i := range 100_000 {
		k := name("k", i)
		x.put(tb.hashOf(k), k, nil)
		x.del(tb.hashOf(k), k)
	}
	if n := len(x.cells()); n > 8 {
		t.Errorf("one key takes %d slots", n)
	}
}

// TestReadersOfAnIndexAlwaysFindWhatStays has keys come and go around keys that stay, all with few hashes.
func TestReadersOfAnIndexAlwaysFindWhatStays(t *testing.T) {
	hashOf := func(k string) uint32 { return uint32(k[len(k)-1]) % 3 }
	var x index[int]
	for i := range 8 {
		x.put(hashOf(name("stays", i)), name("stays", i), func(v *int) { *v = i })
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				k := name("stays", i%8)
				if v := x.get(hashOf(k), k); v == nil || *v != i%8 {
					t.Errorf("%s is not found", k)
					return
				}
				x.get(hashOf(name("goes", i%40)), name("goes", i%40))
			}
		})
	}
	for i := range 20_000 {
		k := name("goes", i%40)
		if x.get(hashOf(k), k) == nil {
			x.put(hashOf(k), k, nil)
		}
		k = name("goes", (i*7+3)%40)
		x.del(hashOf(k), k)
	}
	stop.Store(true)
	wg.Wait()
}
