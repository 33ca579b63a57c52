#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the programs of manual pages that the Makefile here has made: they have to end with 0. Arguments are the folder
# with the programs and the names of the pages. A page without a program has failed: it must not pass for one whose
# programs work.

set -u

dir=$1
shift
number=0 failed=0

# result TEXT STATUS [LINE...]
result() {
	local text=$1 status=$2

	shift 2
	number=$((number + 1))
	if [ "$status" -eq 0 ]; then
		echo "ok $number $text"
	else
		failed=1
		echo "not ok $number $text: status $status"
	fi
	[ $# -eq 0 ] || printf '# %s\n' "$@"
}

declare -A programs
plan=0
for page; do
	programs[$page]=$(cd "$dir" && compgen -G "$page-*.run" | sort -V)
	count=$(grep -c . <<<"${programs[$page]}")
	plan=$((plan + (count ? count : 1)))
done
echo 'TAP version 13'
echo "1..$plan"
for page; do
	[ -n "${programs[$page]}" ] || result "$page has no example" 1
	for program in ${programs[$page]}; do
		output=$(cd "$dir" && timeout 60 "./$program" 2>&1 </dev/null)
		status=$?
		mapfile -t lines < <(printf '%s' "$output")
		result "${program%.run}" $status "${lines[@]}"
	done
done
exit $failed
