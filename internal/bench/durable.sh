#!/usr/bin/env bash
# Compares how fast acknowledged QoS 1 messages are kept for sessions whose clients are away, 64 publishers with 100 messages
# under way each: Isthmus, mosquitto that saves after each change, and, as the measure of what the disk can do, a bare Pebble to
# which 64 goroutines commit records of the same size with sync. All write to the same disk, in turns. Then Isthmus at half of
# the rate it reached: how long an acknowledgement takes beside a plain fsync. Every message is fetched and counted in the end.
#
#   internal/bench/durable.sh
#
#   ROUNDS=3 SECONDS_EACH=5   how often and how long each is measured
#   DISK=folder               where all of them write; default: a new folder in TMPDIR
#   ISTHMUS=path/to/isthmus   the program, which generates the load too; default: built here
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
rounds=${ROUNDS:-3} each=${SECONDS_EACH:-5}
work=$(mktemp -d -p "${DISK:-${TMPDIR:-/tmp}}")
pid=
stop() { [ -z "$pid" ] || { kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; } && pid=; }
trap 'stop; rm -rf "$work"' EXIT
ulimit -n "$(ulimit -Hn)"

isthmus=${ISTHMUS:-}
if [ -z "$isthmus" ]; then
	isthmus=$work/isthmus
	(cd "$here/../.." && go build -o "$isthmus" .)
fi
(cd "$here/../store" && go test -c -o "$work/store.test" .)
mkdir "$work/bare"

cat >"$work/isthmus.yaml" <<YAML
gateway: {data: $work/data}
mqtt:
  listen: ["mqtt://127.0.0.1:18831"]
  limits: {queue_messages: 100000000, queue_bytes: 16GiB, connect_rate: 100000, connect_burst: 100000}
limits: {messages_per_second: 100000000, bytes_per_second: 100GiB}
ops: {listen: []}
YAML
cat >"$work/mosquitto.conf" <<CONF
listener 18832 127.0.0.1
allow_anonymous true
max_queued_messages 0
max_inflight_messages 100
persistence true
persistence_location $work/mosquitto/
autosave_on_changes true
autosave_interval 1
log_type error
CONF

bare() { # BENCHMARK: its figures
	(cd "$work/bare" && TMPDIR=$work/bare "$work/store.test" -test.run '^$' -test.bench "^$1\$" -test.benchtime "${each}s" | grep "^$1")
}
ready() {
	for _ in $(seq 400); do
		if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then return; fi
		sleep 0.05
	done
	echo "isthmus: nobody listens at port $1" >&2 && exit 1
}
offline() { # PORT FLAG...: acknowledgements a second, p50 and p99 in ms, what was lost, CPU
	local port=$1
	shift
	"$isthmus" bench "mqtt://127.0.0.1:$port" --mode offline --clients 64 --window 100 --size 64 --duration "${each}s" --pid "$pid" --json "$@" 2>>"$work/bench.log" |
		python3 -c 'import json,sys
r=json.loads(sys.stdin.readline()); l=r["latency_microseconds"]
print("%8.0f acknowledged/s   p50 %7.2f ms   p99 %7.2f ms   %5.2f us of CPU each   %d lost" % (r["delivered_per_second"], l["p50"]/1e3, l["p99"]/1e3, r["cpu_microseconds_per_message"], r["lost"]))'
}

rates=()
for round in $(seq "$rounds"); do
	echo "round $round"
	echo "  bare Pebble   $(bare BenchmarkBarePebble | grep -oE '[0-9.]+ records/s')"
	rm -rf "$work/data"
	"$isthmus" serve -c "$work/isthmus.yaml" >"$work/isthmus.log" 2>&1 & pid=$!
	ready 18831
	said=$(offline 18831)
	echo "  isthmus       $said"
	rates+=("$(awk '{print int($1/2)}' <<<"$said")")
	stop
	if command -v mosquitto >/dev/null; then
		rm -rf "$work/mosquitto" && mkdir "$work/mosquitto" && chmod 777 "$work" "$work/mosquitto"
		mosquitto -c "$work/mosquitto.conf" >"$work/mosquitto.log" 2>&1 & pid=$!
		ready 18832
		echo "  mosquitto     $(offline 18832)"
		stop
	fi
done
half=${rates[$((rounds / 2))]}
echo "at half load, $half messages a second"
rm -rf "$work/data"
"$isthmus" serve -c "$work/isthmus.yaml" >"$work/isthmus.log" 2>&1 & pid=$!
ready 18831
echo "  isthmus       $(offline 18831 --rate "$half")"
stop
echo "  plain fsync   $(bare BenchmarkFsync | grep -oE '[0-9.]+ p[0-9]+-ms' | tr '\n' ' ')"
