//go:build race

package broker_test

// raceEnabled says that everything takes ten times as long.
const raceEnabled = true
