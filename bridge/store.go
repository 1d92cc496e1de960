package bridge

// Receipt is a position in the log of a store. What was appended up to it is kept once the store has synced past it. The
// zero Receipt is kept already.
type Receipt uint64
