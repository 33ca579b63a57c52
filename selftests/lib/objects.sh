#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Looks at what was built, as a linker does: which names the libraries define, and how they are marked. Arguments
# are the folders with the libraries. It must not run what it looks at, and must not pass where it saw nothing.

set -u

number=0 failed=0

# result NAME PROBLEM...: a test has passed if there is no problem
result() {
	local name=$1

	shift
	number=$((number + 1))
	if [ -z "$*" ]; then
		echo "ok $number $name"
	else
		failed=1
		echo "not ok $number $name"
		printf '# %s\n' "$@"
	fi
}

# A program's own functions and variables must not meet any that is not API.
static_names() {
	local names

	names=$(nm -g --defined-only "$1/libforkgate.a" | awk 'NF == 3 { print $3 }' | sort -u)
	grep -qx forkgate_init <<<"$names" || echo 'forkgate_init is missing'
	# __x86.get_pc_thunk.ax and the like are the compiler's, one for all that is linked
	grep -vE '^(forkgate|forksafe|__forkgate|__wrap)_[A-Za-z_0-9]+$|^__x86\.' <<<"$names" |
		sed 's/$/ has no prefix/'
}

# What stands in for the C library's must have no version, all else must have one.
shared_names() {
	local names

	names=$(readelf -W --dyn-syms "$1/libforkgate.so" | awk '$7 ~ /^[0-9]+$/ { print $8 }' | sort -u)
	grep -qx 'forkgate_init@@LIBFORKGATE_0' <<<"$names" || echo 'forkgate_init is missing'
	grep -qx 'forkgate_enter@@LIBFORKGATE_0' <<<"$names" || echo 'forkgate_enter is missing'
	grep -vE '^(forkgate_[a-z_0-9]+|forksafe_[a-z_0-9]+)@@LIBFORKGATE_0$' <<<"$names" |
		grep -vE '^__forkgate_(call|retries)@@LIBFORKGATE_PRIVATE$|^LIBFORKGATE_' |
		grep -vxE 'daemon|fork|_Fork|forkpty|pidfd_spawnp?|popen|posix_spawnp?|system|vfork' | sed 's/$/ is exported/'
}

# Ready for IBT and shadow stacks: every object says so, and nothing is called that has no endbr.
marks() {
	local object count

	readelf -n "$1/libforkgate.so" | grep -q 'x86 feature: IBT, SHSTK' || echo 'libforkgate.so is not marked'
	readelf -d "$1/libforkgate.so" | grep -oE '\((INIT|FINI)\)' | sed 's/$/ is called when the library is loaded/'
	ar t "$1/libforkgate.a" | while read -r object; do
		count=$(ar p "$1/libforkgate.a" "$object" >"$tmp" && readelf -n "$tmp" | grep -c 'x86 feature: IBT, SHSTK')
		[ "$count" = 1 ] || echo "$object is not marked"
	done
}

tmp=$(mktemp)
trap 'rm -f "$tmp"' EXIT
echo 'TAP version 13'
echo "1..$((3 * $#))"
for dir; do
	mapfile -t problems < <(static_names "$dir")
	result "names of the static library in $dir" "${problems[@]}"
	mapfile -t problems < <(shared_names "$dir")
	result "names of the shared library in $dir" "${problems[@]}"
	case $(uname -m) in
	x86_64 | i?86)
		mapfile -t problems < <(marks "$dir")
		result "marks for control-flow protection in $dir" "${problems[@]}"
		;;
	*)
		number=$((number + 1))
		echo "ok $number # SKIP control-flow protection is of x86"
		;;
	esac
done
exit $failed
