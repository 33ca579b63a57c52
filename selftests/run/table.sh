#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The table of functions is complete: nothing that takes a lock is missing in it, and all that it wraps is there.
# Must not need the module; without the network, or libc6-dbg, the test that needs it is skipped.

# shellcheck disable=SC2317 # tests are called by their names
set -uo pipefail

cd "$(dirname "$(realpath "$0")")" || exit
preload=../../tools/preload
build=../../build/preload
libc=/lib/x86_64-linux-gnu/libc.so.6
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export LC_ALL=C

kinds() { "$preload/generate" -v make=list "$preload/functions" | awk -v kinds=" $* " 'index(kinds, " " $1 " ") { print $2 }' | sort; }

# exported LIBRARY: its functions, those that a program linked today gets
exported() {
	readelf -W --dyn-syms "$1" | awk '($4 == "FUNC" || $4 == "IFUNC") && $7 != "UND" && $5 != "LOCAL" { print $8 }' |
		awk -F@ 'NF != 2 && $3 != "GLIBC_PRIVATE" { print $1 }' | sort -u
}

# explained: names on standard input that no line of the table is about, not even a pattern
unexplained() {
	local name pattern patterns

	mapfile -t patterns < <(kinds none | grep -F '*')
	comm -23 - <(kinds wrap raw rawhand hand none | sort -u) | while read -r name; do
		for pattern in "${patterns[@]}"; do
			# shellcheck disable=SC2053 # a pattern
			[[ $name != $pattern ]] || continue 2
		done
		echo "$name"
	done
}

# see tap.sh
test_annotated_functions_are_in_the_table() {
	"$preload/annotated" >"$tmp/annotated" || return 4
	[ "$(wc -l <"$tmp/annotated")" -gt 200 ] || echo 'the manual was not understood'
	unexplained <"$tmp/annotated"
}

test_functions_that_reach_a_lock_are_in_the_table() {
	"$preload/reachable" >"$tmp/reachable" || return 4
	[ "$(wc -l <"$tmp/reachable")" -gt 600 ] || echo 'the machine code was not understood'
	cut -d' ' -f1 "$tmp/reachable" | sort -u | unexplained
}

test_no_function_is_there_twice() { kinds wrap raw rawhand hand none | uniq -d; }

test_names_are_those_of_the_library() {
	comm -13 <(exported "$libc") <(kinds wrap raw rawhand hand)
}

# The two are built from one source, so what holds for the one's machine code holds for the other.
test_arm64_has_the_same_functions() {
	local other

	other=$(../../tools/testhost/kernel path arm64 2>/dev/null)/root/usr/lib/aarch64-linux-gnu/libc.so.6
	[ -e "$other" ] || { echo 'the test host has no arm64 library' >&2; return 4; }
	comm -13 <(exported "$other") <(kinds wrap raw rawhand hand)
	comm -23 <(exported "$other") <(exported "$libc")
}

test_libraries_wrap_what_the_table_says() {
	diff <(kinds wrap hand) <(exported "$build"/libforkgate-preload.so)
	diff <(kinds raw rawhand) <(exported "$build"/libforkgate-preload-raw.so)
}

test_versions_differ_only_where_that_is_known() {
	# One wrapper stands in for all versions, so old programs get the newest: of condition variables, which are
	# made anew; of functions that differ in what they do with bad flags, broken links and binary mode.
	readelf -W --dyn-syms "$libc" | awk '$4 == "FUNC" && $7 != "UND" { split($8, v, "@"); print v[1], $2 }' | sort -u |
		awk '{ n[$1]++ } END { for (f in n) if (n[f] > 1) print f }' | sort |
		comm -12 - <(kinds wrap raw rawhand hand) | comm -23 - <(printf '%s\n' fmemopen glob glob64 \
			pthread_cond_{broadcast,signal,timedwait,wait} regexec)
}

test_every_function_is_called_or_says_why_not() {
	diff <(kinds wrap raw rawhand hand) <(sed -nE 's/^(NO_)?RECIPE\(([a-zA-Z0-9_]+),.*/\2/p' recipes.inc | sort)
}

# shellcheck source=/dev/null # shellcheck looks at it by itself
. ./tap.sh
