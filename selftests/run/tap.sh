# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Runs the functions test_* of the script that reads this at its end, by name, and prints TAP. A test passes if it
# prints nothing, and is skipped with status 4, for the reason that it gives on standard error. Must not be run.

# shellcheck disable=SC2154 # "tmp" is the script's folder for files
mapfile -t tests < <(declare -F | sed -n 's/^declare -f test_//p')
echo "TAP version 13"
echo "1..${#tests[@]}"
failed=0 number=0
for name in "${tests[@]}"; do
	number=$((number + 1))
	"test_$name" >"$tmp/out" 2>"$tmp/err"
	status=$?
	if [ $status -eq 4 ]; then
		echo "ok $number $name # SKIP $(tail -n 1 "$tmp/err")"
	elif [ -s "$tmp/out" ] || [ -s "$tmp/err" ]; then
		head -n 20 "$tmp/out" "$tmp/err" | sed 's/^/# /'
		echo "not ok $number $name"
		failed=1
	else
		echo "ok $number $name"
	fi
done
exit $failed
