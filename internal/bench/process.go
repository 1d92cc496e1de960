package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// process is what the system knows of a broker's process.
type process struct {
	cpu time.Duration // user and system
	rss int64         // bytes
	own time.Duration // CPU time of this process
}

// ticksPerSecond is USER_HZ, which is 100 on every architecture of Linux that Go runs on.
const ticksPerSecond = 100

// readProcess reads /proc. CPU time has a resolution of 10 ms.
func readProcess(pid int) (p process, err error) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return p, fmt.Errorf("reading CPU time: %w", err)
	}
	if p.cpu, err = parseStat(stat); err != nil {
		return p, err
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return p, fmt.Errorf("reading memory: %w", err)
	}
	p.rss, err = parseStatus(status)
	return p, err
}

// parseStat finds utime and stime, fields 14 and 15. The second field is the program's name and may hold anything.
func parseStat(stat []byte) (time.Duration, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("reading CPU time: too few fields")
	}
	ticks := int64(0)
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading CPU time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// parseStatus finds VmRSS.
func parseStatus(status []byte) (int64, error) {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kib, err := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte(" kB"))), 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New("reading memory: no VmRSS")
}
