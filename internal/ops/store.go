package ops

import (
	"fmt"
	"time"
)

// Store is the figures of the store.
type Store struct {
	Used    Bytes         `json:"used_bytes"`  // of sessions' messages and retained values
	Disk    Bytes         `json:"disk_bytes"`  // taken on disk
	Limit   Bytes         `json:"limit_bytes"` // of either
	Free    Bytes         `json:"free_bytes"`  // that the file system has left; -1: unknown
	Queued  int64         `json:"queued_messages"`
	Full    bool          `json:"full"`
	Failed  bool          `json:"failed"`
	Pending Bytes         `json:"pending_bytes"` // that wait for their commit
	Commits uint64        `json:"commits"`
	Records uint64        `json:"records"` // in the commits
	Written uint64        `json:"written_bytes"`
	Syncing time.Duration `json:"commit_nanoseconds"` // that the commits took together
	Syncs   []SyncCount   `json:"-"`
}

// SyncCount is how many commits took no longer than a time, those of shorter times included.
type SyncCount struct {
	Within time.Duration
	Count  uint64
}

// Bytes is a number of bytes that people read as 1.5 MiB and programs as 1572864.
type Bytes int64

// String is the number in the largest unit that leaves something before the point.
func (b Bytes) String() string {
	if b < 1<<10 {
		return fmt.Sprintf("%d B", int64(b))
	}
	size, unit := float64(b)/(1<<10), 0
	for ; size >= 1<<10 && unit < len(units)-1; unit++ {
		size /= 1 << 10
	}
	if size < 10 {
		return fmt.Sprintf("%.1f %s", size, units[unit])
	}
	return fmt.Sprintf("%.0f %s", size, units[unit])
}

var units = [...]string{"KiB", "MiB", "GiB", "TiB"}
