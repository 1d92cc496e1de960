#!/usr/bin/env bash
# Compares what a delivered message costs Isthmus, mosquitto and a stock mochi server on this machine, and prints a table:
# microseconds of broker CPU per delivered message (KiB of RSS per connection for "idle"), the range over the rounds and the
# ratio to mochi. "!N" says that N messages were lost, duplicated, reordered or refused. The brokers take turns, so that a
# noisy minute meets all of them, and are started afresh for each row.
#
#   internal/bench/compare.sh [ROW...]          all rows, or those whose label contains one of the words
#
#   ROUNDS=3 SECONDS_EACH=5                     how often and how long each broker is measured
#   BROKERS="isthmus mosquitto mochi"           which take part; those that are not there are left out
#   ISTHMUS=path/to/isthmus                     the program, which generates the load too; default: built here
#   ISTHMUS_SERVE="isthmus serve -c bench.yaml" another way to start ours; it must listen at 127.0.0.1:18831 for everybody
#   PAIRS=100 FANOUT=200 FANIN=100 IDLE=5000 BYSTANDERS=100000 WINDOW=16
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
rounds=${ROUNDS:-3} each=${SECONDS_EACH:-5} window=${WINDOW:-16}
brokers=${BROKERS:-isthmus mosquitto mochi}
isthmus_addr=127.0.0.1:18831 mosquitto_addr=127.0.0.1:18832 mochi_addr=127.0.0.1:18833
work=$(mktemp -d)
pids=()

say() { echo "isthmus: $*" >&2; }
stop_all() {
	for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
	pids=()
}
trap 'stop_all; rm -rf "$work"' EXIT
ulimit -n "$(ulimit -Hn)"

isthmus=${ISTHMUS:-}
if [ -z "$isthmus" ]; then
	isthmus=$work/isthmus
	(cd "$here/../.." && go build -o "$isthmus" .)
fi

# taking lists the brokers that are there.
taking=()
for b in $brokers; do
	case $b in
	isthmus)
		# The limits on rates are raised as the others have none; all other settings are the defaults.
		cat >"$work/isthmus.yaml" <<-YAML
			gateway: {data: $work/data}
			mqtt:
			  listen: ["mqtt://$isthmus_addr"]
			  limits: {connect_rate: 100000, connect_burst: 100000}
			limits: {messages_per_second: 100000000, bytes_per_second: 100GiB}
			ops: {listen: []}
		YAML
		serve=${ISTHMUS_SERVE:-$isthmus serve -c $work/isthmus.yaml} ;;
	mosquitto)
		if ! command -v mosquitto >/dev/null; then say "mosquitto is left out: it is not installed" && continue; fi
		{
			echo "listener ${mosquitto_addr##*:} ${mosquitto_addr%:*}"
			echo "allow_anonymous true"
			echo "max_queued_messages 0"
			echo "persistence false"
			echo "log_type error"
		} >"$work/mosquitto.conf" ;;
	mochi)
		(cd "$here/peers/mochi" && go build -o "$work/mochi" .) ;;
	*)
		say "$b is not a broker this script knows" && exit 2 ;;
	esac
	taking+=("$b")
done
[ ${#taking[@]} -gt 0 ] || { say "no broker to compare"; exit 1; }

start() {
	case $1 in
	isthmus) sh -c "exec $serve" >"$work/$1.log" 2>&1 & ;;
	mosquitto) mosquitto -c "$work/mosquitto.conf" >"$work/$1.log" 2>&1 & ;;
	mochi) "$work/mochi" "$mochi_addr" >"$work/$1.log" 2>&1 & ;;
	esac
	pids+=($!)
	local addr=$1_addr tries
	addr=${!addr}
	for tries in $(seq 200); do
		if (exec 3<>"/dev/tcp/${addr%:*}/${addr##*:}") 2>/dev/null; then return; fi
		if ! kill -0 "${pids[-1]}" 2>/dev/null; then break; fi
		sleep 0.05
	done
	say "$1 does not listen at $addr:" && cat "$work/$1.log" >&2 && exit 1
}

# row LABEL ROUNDS FLAG... measures one row.
row() {
	local label=$1 times=$2 wanted=${#words[@]} word
	shift 2
	for word in "${words[@]}"; do [[ $label == *$word* ]] && wanted=0; done
	[ "$wanted" -eq 0 ] || return 0
	local targets=()
	for b in "${taking[@]}"; do
		start "$b"
		local addr=${b}_addr
		targets+=("$b=mqtt://${!addr}@@${pids[-1]}")
	done
	"$isthmus" bench "${targets[@]}" --row "$label" --base mochi --rounds "$times" --duration "${each}s" --window "$window" "$@" 2>>"$work/bench.log" ||
		say "$label: $(tail -n 1 "$work/bench.log")"
	stop_all
}

words=("$@")
{
	printf '| microseconds of CPU per delivered message |' && printf ' %s |' "${taking[@]}" && echo
	printf '|---|' && printf -- '---|%.0s' "${taking[@]}" && echo
}
for qos in 0 1 2; do row "pair, QoS $qos, ${PAIRS:-100} pairs" "$rounds" --mode pair --clients "${PAIRS:-100}" --qos "$qos"; done
for qos in 0 1; do row "fan-out 1 to ${FANOUT:-200}, QoS $qos" "$rounds" --mode fan-out --clients "${FANOUT:-200}" --qos "$qos"; done
row "fan-in ${FANIN:-100} to 1, QoS 0" "$rounds" --mode fan-in --clients "${FANIN:-100}"
row "4 pairs, 64 messages per write, QoS 0" "$rounds" --mode pair --clients 4 --batch 64 --window 256
row "pair, QoS 0, ${PAIRS:-100} pairs, ${BYSTANDERS:-100000} bystanders" "$rounds" --mode pair --clients "${PAIRS:-100}" --bystanders "${BYSTANDERS:-100000}"
row "idle, KiB of RSS per connection, ${IDLE:-5000}" 1 --mode idle --clients "${IDLE:-5000}"
