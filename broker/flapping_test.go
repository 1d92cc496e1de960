package broker

import (
	"testing"
	"time"
)

func TestTakeOversThatFollowEachOtherFastAreDelayed(t *testing.T) {
	var f flaps
	now := time.Unix(1000, 0)
	for i := range 6 {
		if got, want := f.another(now.Add(time.Duration(i)*time.Second)), i >= flapLimit; got != want {
			t.Errorf("take-over %d: delayed %v, want %v", i+1, got, want)
		}
	}
	if f.another(now.Add(flapWindow + time.Second)) {
		t.Error("a take-over after a quiet time is delayed")
	}
}
