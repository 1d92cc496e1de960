// Package store keeps sessions, their queues, retained values and the queues of links on disk, in one Pebble database.
//
// # Group commit
//
// Syncing a disk takes a millisecond or more whatever is synced, and a broker gets a hundred messages in that time. So nothing is
// written on its own. What is appended goes into the pending commit, one batch in memory, and the caller gets the number of that
// commit as its [bridge.Receipt]. One goroutine takes the pending commit, writes and syncs it, tells those who wait for it and
// takes the next, which has gathered meanwhile. There is no timer: with little traffic each record is a commit of its own and is
// on disk one sync later, with much traffic commits become large by themselves.
//
// Commits are written one after the other, and each is atomic. What is there after a crash is the result of a prefix of the
// calls, cut between two commits. [Store.Hold] keeps several calls in one.
//
// # What is where
//
// Each kind of record has a prefix of one byte, see keys.go. A session has a number, so that its records are next to each other
// and its client identifier is in one of them only. A message for a thousand queues is stored once, as a body that the entries
// refer to; how many do is known in memory and found again at the start by reading the entries. Nothing else is in memory for
// each record: a million queued messages cost what the database's caches cost.
//
// # Failure
//
// A write to the log that fails is final: what the disk then holds can only be found out by opening the store again. From that
// moment nothing is synced, nothing is written, all who wait are told, and [Store.Err] says why. See disk.go for why the
// database itself must not learn of it. A full disk is not a failure as long as the log can be written: the store reports
// [Store.Full], before the disk is full if it can.
package store
