#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# CPython's own tests of forks, threads and processes give the same verdicts under "forkgate run" as without it.
#
#	python.sh fetch		get the tests, a Debian package, into the cache; not in the test host
#	python.sh [TEST...]	run them twice and compare; needs the module, and long
#
# The tests are never installed: they are taken from the cache by PYTHONPATH.

set -uo pipefail

top=$(realpath "$(dirname "$0")/../..")
cache=$(realpath -m "${FORKGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/forkgate}")
python=/usr/bin/python3.11
tests=("$@")
[ ${#tests[@]} -gt 0 ] || tests=(test_fork1 test_threading test_subprocess test_multiprocessing_fork)

# The package lacks what the interpreter's own has of the folder.
fetch() (
	dir=$(mktemp -d "$cache/python.XXXXXX")
	trap 'rm -rf "$dir"' EXIT
	cd "$dir" || exit
	apt-get -q -o APT::Sandbox::User=root download libpython3.11-testsuite >log 2>&1 || {
		tail -n 5 log >&2
		exit 1
	}
	dpkg-deb -x libpython3.11-testsuite_*.deb new &&
		cp -rn /usr/lib/python3.11/test new/usr/lib/python3.11 && mv new "$cache/python"
)

if [ "${1-}" = fetch ]; then
	mkdir -p "$cache"
	[ -e "$cache/python" ] || fetch
	exit
fi

# verdicts COMMAND...: "TEST (CLASS) ... ok" and so on, sorted. One test of theirs may start a thousand programs.
verdicts() {
	local test

	for test in "${tests[@]}"; do
		"$@" "$python" -u -m test -v --timeout 3000 "$test" 2>&1 |
			sed -nE 's/^(test[a-zA-Z0-9_]* \([^)]*\)).* (ok|FAIL|ERROR|skipped .*|expected failure)$/\1 \2/p; s/^(ERROR|FAIL): test.*/& /p'
		echo "$test ended with status ${PIPESTATUS[0]}"
	done | sort
}

if [ ! -x $python ] || [ ! -e "$cache/python" ]; then
	echo "1..0 # SKIP no $python, or no tests: python.sh fetch"
	exit 4
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
export PYTHONPATH=$cache/python/usr/lib/python3.11
cd "$tmp" || exit
mkdir with without
(cd with && verdicts "$top/build/forkgate/forkgate" run >"$tmp/with.verdicts") &
(cd without && verdicts >"$tmp/without.verdicts")
wait
echo "TAP version 13"
echo "1..1"
echo "# $(grep -c ' ok$' "$tmp/without.verdicts") ok without the gate, $(grep -c ' ok$' "$tmp/with.verdicts") with it"
if diff "$tmp/without.verdicts" "$tmp/with.verdicts" >"$tmp/difference" && grep -q ' ok$' "$tmp/with.verdicts"; then
	echo "ok 1 same_verdicts"
else
	sed 's/^/# /' "$tmp/difference"
	echo "not ok 1 same_verdicts"
	exit 1
fi
