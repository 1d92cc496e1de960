package app

import "strings"

// didYouMean is a hint that names the word of known that is nearest to what was written, or lists all when none is near.
func didYouMean(written string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := edits(strings.ToLower(written), k); d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "what can stand here: " + strings.Join(known, ", ")
}

// edits counts the letters to insert, delete, replace or swap to get from a to b.
func edits(a, b string) int {
	row := func() []int { return make([]int, len(b)+1) }
	before, above, here := row(), row(), row()
	for j := range above {
		above[j] = j
	}
	for i := range len(a) {
		here[0] = i + 1
		for j := range len(b) {
			replace := above[j]
			if a[i] != b[j] {
				replace++
			}
			here[j+1] = min(replace, above[j+1]+1, here[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				here[j+1] = min(here[j+1], before[j-1]+1)
			}
		}
		before, above, here = above, here, before
	}
	return above[len(b)]
}
