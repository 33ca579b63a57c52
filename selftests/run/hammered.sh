#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# No child of the hammer hangs under "forkgate run", by libc's fork or a raw clone, nor if it has another
# allocator; without it children do, or the hammer is none. Without the module raw clones are skipped, and must
# not be called protected. What it prints on the way are the names of functions, for whoever waits.

set -uo pipefail

top=$(realpath "$(dirname "$0")/../..")
hammer=$top/build/selftests/run/hammer
run=("$top/build/forkgate/forkgate" run --timeout 60 --on-timeout fail)
limit=$((60 * ${KSELFTEST_SLOW:-1}))
children=${FORKS:-3}
tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT

echo "TAP version 13"
echo "1..8"
failed=0 number=0

# result OK NAME
result() {
	number=$((number + 1))
	if [ "$1" = yes ]; then
		echo "ok $number $2"
	else
		tail -n 12 "$tmp" | sed 's/^/# /'
		echo "not ok $number $2"
		failed=1
	fi
}

# raw_clone NAME ...: the same by a raw clone, which the module alone sees
raw_clone() {
	if [ -w /dev/forkgate ]; then
		hammer "$@"
	else
		number=$((number + 1))
		echo "ok $number $1 # SKIP without the module raw clones are not seen"
	fi
}

# hammer NAME STATUS COMMAND...: the hammer ends with that status, in time, and has called functions; if children
# are to hang, which takes some luck, it is tried more than once
hammer() {
	local name=$1 wanted=$2 status tries

	shift 2
	for ((tries = 1 + 9 * wanted; tries; tries--)); do
		timeout --foreground -k 10 $((600 * ${KSELFTEST_SLOW:-1})) "$@" >"$tmp" 2>&1
		status=$?
		[ $status -eq 0 ] || break
	done
	sed -n 's/^\(hung\|functions\|failed\|crashed\) /# &/p' "$tmp"
	if [ $status -eq "$wanted" ] && grep -qE '^functions all [1-9]' "$tmp"; then
		result yes "$name"
	else
		echo "ended with status $status" >>"$tmp"
		result no "$name"
	fi
}

# with_allocator NAME LIBRARY: the functions that meet the allocator, and some others
with_allocator() {
	local functions=(malloc calloc realloc free posix_memalign aligned_alloc strdup getline asprintf fopen
		localtime_r setlocale pthread_mutex_lock pthread_create dlopen)

	if LD_PRELOAD=$2 true 2>&1 | grep . >"$tmp"; then
		result no "fork_with_$1"
		result no "raw_clone_with_$1"
		return
	fi
	hammer "fork_with_$1" 0 env LD_PRELOAD="$2" \
		"${run[@]}" "$hammer" fork raw 10 "$limit" "${functions[@]}"
	raw_clone "raw_clone_with_$1" 0 env LD_PRELOAD="$2" \
		"${run[@]}" --raw-clone "$hammer" clone raw 10 "$limit" "${functions[@]}"
}

hammer fork 0 "${run[@]}" "$hammer" fork wrap "$children" "$limit"
raw_clone raw_clone 0 "${run[@]}" --raw-clone "$hammer" clone raw "$children" "$limit"
hammer fork_without_the_gate_hangs 1 "$hammer" fork wrap 5 3 localtime_r setlocale pthread_mutex_lock
hammer raw_clone_without_the_gate_hangs 1 "$hammer" clone raw 5 3 localtime_r fputs pthread_mutex_lock
with_allocator jemalloc libjemalloc.so.2
with_allocator tcmalloc libtcmalloc_minimal.so.4
exit $failed
