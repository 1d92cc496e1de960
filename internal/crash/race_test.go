//go:build race

package crash

// raceEnabled says that the tests run with the race detector, and so does the program under test.
const raceEnabled = true
