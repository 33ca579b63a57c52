#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Compiles forkgate_enter() and forkgate_leave() and looks at the instructions: no locked ones and no barriers
# at all, no calls on the way through an open gate, and few instructions there. It must not run what it
# compiles, and must not pass without having seen every function.

set -u

top=$(dirname "$(realpath "$0")")/../..
[ -e "$top/tools/lib/forkgate.h" ] || top=${FORKGATE_TOP:?where the sources are}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
number=0 failed=0

cat >"$tmp/enter.c" <<-END
	#include <forkgate.h>

	int enter_memory(void) { return forkgate_enter(FORKGATE_MEMORY); }
	int enter_files(void) { return forkgate_enter(FORKGATE_FILES); }
	int enter_both(void) { return forkgate_enter(FORKGATE_MEMORY | FORKGATE_FILES); }
	void leave_memory(void) { forkgate_leave(FORKGATE_MEMORY); }
	void leave_files(void) { forkgate_leave(FORKGATE_FILES); }
	void leave_both(void) { forkgate_leave(FORKGATE_MEMORY | FORKGATE_FILES); }
END

# The way through an open gate: the branches out of it are not taken. Prints FUNCTION COUNT, or what is wrong.
hot_path() {
	awk '
	/^[0-9a-f]+ <.*>:$/ { name = $2; gsub(/[<>:]/, "", name); count = 0; done = name !~ /^(enter|leave)_/; next }
	done || /R_(386|X86)_/ || !/^ *[0-9a-f]+:\t/ { next }
	{ sub(/^ *[0-9a-f]+:\t/, ""); sub(/^(notrack|bnd|cs|data16) */, ""); count++ }
	/^ret/ { print name, count; done = 1; next }
	# 32-bit code finds out where it is by calling something harmless, or the next instruction
	/^call / { callee = $2; getline
		   if (/__x86.get_pc_thunk/) next
		   address = $1; sub(/:.*/, "", address); count++
		   if (callee != address) { print name, "calls", callee; done = 1 } next }
	/^jmp/ { print name, "jumps"; done = 1 }'
}

# one COMPILER FLAGS...
one() {
	local limit problem=''

	number=$((number + 1))
	if ! "$@" -O2 -Wall -Werror -I"$top/tools/lib" -I"$top/uapi" -c "$tmp/enter.c" -o "$tmp/enter.o" 2>"$tmp/log"; then
		problem="does not compile: $(head -n 3 "$tmp/log")"
	else
		objdump -dr --no-show-raw-insn "$tmp/enter.o" >"$tmp/dump"
		problem=$(sed -E 's/xchg +%ax,%ax//' "$tmp/dump" |
			grep -E '\<(lock|xchg[bwlq]?|cmpxchg[a-z0-9]*|xadd[a-z]*|[lms]fence|cpuid)\>')
		hot_path <"$tmp/dump" >"$tmp/paths"
		[ "$(grep -cE '^(enter|leave)_(memory|files|both) [0-9]+$' "$tmp/paths")" = 6 ] ||
			problem+=" not all functions were understood"
		while read -r name count; do
			# 32-bit code also finds its global offset table
			case $name in enter_*) limit=16 ;; *) limit=9 ;; esac
			[ "${name%_both}" = "$name" ] || limit=$((limit + 1))
			[[ " $* " != *' -m32 '* ]] || limit=$((limit + 9))
			[ "$count" -le "$limit" ] 2>/dev/null || problem+=" $name: $count (at most $limit instructions)"
		done <"$tmp/paths"
	fi
	if [ -z "$problem" ]; then
		echo "ok $number $*: $(tr '\n' ' ' <"$tmp/paths")"
	else
		failed=1
		echo "not ok $number $*"
		echo "# ${problem//$'\n'/$'\n# '}"
		[ ! -e "$tmp/dump" ] || sed 's/^/# /' "$tmp/dump"
	fi
}

compilers=()
for cc in ${CC:-gcc clang}; do
	if command -v "$cc" >/dev/null; then compilers+=("$cc"); fi
done
case $(uname -m) in
x86_64) modes=(-m64 -m32) ;;
i?86) modes=(-m32) ;;
*)
	echo '1..0 # SKIP knows the instructions of x86 only'
	exit 4
	;;
esac

echo 'TAP version 13'
echo "1..$((${#compilers[@]} * ${#modes[@]} * 3))"
for cc in "${compilers[@]}"; do
	for mode in "${modes[@]}"; do
		one "$cc" "$mode" -fno-pie
		one "$cc" "$mode" -fPIE
		one "$cc" "$mode" -fPIC -fcf-protection
	done
done
exit $failed
