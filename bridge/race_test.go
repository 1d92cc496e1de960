//go:build race

package bridge

// raceEnabled says that the race detector watches, under which allocation counts and large numbers make no sense.
const raceEnabled = true
