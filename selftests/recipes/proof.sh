#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# proof.sh FOLDER NAME: runs the recipe NAME of the folder, in each variant that there is. All must hold but the one
# without sections, "bare", which must break; prints KTAP. A recipe exits with 0 if it held and 1 if it broke. It must
# not call any other end a proof.

set -uo pipefail

folder=$1 name=$2
export LD_LIBRARY_PATH=$folder/prefix/lib

skip() {
	echo "1..0 # SKIP $*"
	exit 4
}

reason=$("$folder/bin/gate") || skip "no gate: $reason"
[ ! -e "$folder/bin/$name.missing" ] || skip "$(cat "$folder/bin/$name.missing")"
variants=("$folder/bin/$name" "$folder/bin/$name"-*)
failed=0
printf '%s\n' 'TAP version 13' "1..${#variants[@]}"
for ((i = 0; i < ${#variants[@]}; i++)); do
	case ${variants[i]} in
	*-bare) expected=1 what='breaks without its sections' ;;
	*) expected=0 what=holds ;;
	esac
	timeout --kill-after=5 "$((120 * ${KSELFTEST_SLOW:-1}))" "${variants[i]}" 2>&1 </dev/null | sed 's/^[^#]/# &/'
	status=${PIPESTATUS[0]}
	if [ "$status" -eq "$expected" ]; then
		echo "ok $((i + 1)) ${variants[i]##*/} $what"
	else
		echo "# status $status instead of $expected"
		echo "not ok $((i + 1)) ${variants[i]##*/} $what"
		failed=1
	fi
done
exit $failed
