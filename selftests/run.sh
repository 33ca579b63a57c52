#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the selftests one after another, on a machine that has the module loaded. It prints what each program
# prints, a line of progress before and after it, and at the end "N passed, N failed, N skipped". It must not
# take a program for good that says nothing: one without a plan, with fewer results than planned, with a bad
# exit status or over its time is a failure.

set -u

here=$(dirname "$(realpath "$0")")
dir=${KSELFTEST_OUTPUT:-}
if [ -z "$dir" ]; then
	for dir in "$here" "$here/../build/selftests"; do
		[ ! -e "$dir/programs" ] || break
	done
fi

usage() {
	cat <<-END
	usage: run.sh [-t SECONDS] [PROGRAM...]

	  -t SECONDS  what one program may take (1200, times KSELFTEST_SLOW)
	  PROGRAM     name of a program in $dir, instead of all of them

	environment: KSELFTEST_OUTPUT, the folder with the programs; KSELFTEST_SLOW, a factor for all limits
	status: 0 if tests passed and none failed, 4 if all were skipped, 1 otherwise
	END
}

limit=$((1200 * ${KSELFTEST_SLOW:-1}))
while getopts ht: option; do
	case $option in
	t) limit=$OPTARG ;;
	h) usage; exit 0 ;;
	*) usage >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))

if [ $# -gt 0 ]; then
	programs=("$@")
elif ! mapfile -t programs <"$dir/programs"; then
	echo "run.sh: no list of programs in $dir: build the selftests first" >&2
	exit 1
fi
cd "$dir" || { echo "run.sh: build the selftests first: make selftests" >&2; exit 1; }

out=$(mktemp)
trap 'rm -f "$out"' EXIT
passed=0 failed=0 skipped=0 number=0
bad=()
for program in "${programs[@]}"; do
	number=$((number + 1))
	started=$SECONDS
	echo "# [$number/${#programs[@]}] $program"
	# Not through a pipe, which a child that hangs would keep open
	: >"$out"
	set -m	# or SIGINT would be ignored
	timeout --kill-after=10 "$limit" "./$program" </dev/null >"$out" 2>&1 &
	set +m
	tail -n +1 -s 0.2 -f --pid=$! "$out"
	wait $!
	status=$?
	ok=$(grep -cE '^ok [0-9]+' "$out")
	skip=$(grep -cE '^ok [0-9]+.*# SKIP' "$out")
	not=$(grep -cE '^not ok [0-9]+' "$out")
	plan=$(sed -nE '/^1\.\.[0-9]+/ { s/^1\.\.([0-9]+).*/\1/p; q }' "$out")
	problem=
	case $status in
	0) ;;
	4) [ "${plan:-x}" != 0 ] || skip=$((skip + 1)) ok=$((ok + 1)) plan=1 ;;
	124 | 137) problem="ran out of time ($limit s)" ;;
	*) [ "$not" -gt 0 ] || problem="ended with status $status" ;;
	esac
	if [ -n "$problem" ]; then
		:
	elif [ -z "$plan" ]; then
		problem="printed no plan"
	elif [ "$plan" = 0 ]; then
		problem="planned no tests"
	elif [ $((ok + not)) -ne "$plan" ]; then
		problem="planned $plan tests and ran $((ok + not))"
	fi
	if [ -n "$problem" ]; then
		echo "not ok - $program $problem"
		not=$((not + 1))
	fi
	passed=$((passed + ok - skip))
	skipped=$((skipped + skip))
	failed=$((failed + not))
	[ "$not" -eq 0 ] || bad+=("$program")
	echo "# [$number/${#programs[@]}] $program: $((ok - skip)) passed, $not failed, $skip skipped, $((SECONDS - started)) s"
done
[ ${#bad[@]} -eq 0 ] || echo "# failed: ${bad[*]}"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] || exit 1
# As kselftest has it: what was skipped has tested nothing.
[ "$passed" -gt 0 ] || exit $((skipped > 0 ? 4 : 1))
