#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# "forkgate run" says of which locks it sees nothing: in programs that have just the marks of Go and Rust, or a
# library's name, in those that the compilers make here, if there are any, of Java and of Python. It must not trip over
# a damaged program.

# shellcheck disable=SC2317 # tests are called by their names
set -uo pipefail

top=$(realpath "$(dirname "$0")/../..")
forkgate=$top/build/forkgate/forkgate
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit

# compile OUTPUT OPTION...: C on standard input, with "main" as an addition
compile() {
	{ cat && echo 'int main(void) { return 0; }'; } | ${CC:-cc} -x c - -Wl,-rpath,"$tmp" -o "$@"
}

advice='... forks do not wait for them, and a child that takes one may hang;
... make sections of what they protect, see forkgate-guide(7)'

# said TEXT COMMAND...: exactly that is said of its locks, and what to do about it; "" is nothing
said() {
	local text=${1:+cannot see locks of these kinds: $1$'\n'$advice}

	shift
	"$forkgate" run "$@" 2>&1 >/dev/null | sed -n 's/^forkgate: [^ ]*: //p' >"$tmp/said"
	[ "$(cat "$tmp/said")" = "$text" ] || echo "$* has said: $(cat "$tmp/said")"
}

# see tap.sh
test_nothing_is_said_of_c() {
	compile c </dev/null
	said '' ./c
	said '' sh -c true
}

test_marks_of_go() {
	compile marks-go <<-'END'
		__asm__(".section .note.go.buildid, \"a\", @note\n.long 4, 4, 4\n.asciz \"Go\"\n.byte 0\n.long 0\n.previous");
	END
	said 'sync.Mutex (Go)' ./marks-go
}

test_marks_of_rust() {
	compile marks-rust -Wl,--no-as-needed -lgcc_s <<-'END'
		const char text[200000] = "long", name[] = "RUST_BACKTRACE";
	END
	said 'std::sync::Mutex (Rust)' ./marks-rust
}

test_programs_of_go() {
	command -v go >go.path || { echo 'no compiler for Go' >&2; return 4; }
	printf '%s\n' 'package main' 'import "C"' 'func main() {}' >real.go
	HOME=$tmp CGO_ENABLED=1 go build -o real-go real.go
	said 'sync.Mutex (Go)' ./real-go
	HOME=$tmp CGO_ENABLED=1 go build -ldflags='-s -w' -o real-go real.go
	said 'sync.Mutex (Go)' ./real-go
}

test_programs_of_rust() {
	[ -x /usr/bin/rustc ] || { echo 'no compiler for Rust' >&2; return 4; }
	echo 'fn main() { println!("{}", *std::sync::Mutex::new(1).lock().unwrap()); }' >real.rs
	/usr/bin/rustc -O -o real-rust real.rs
	said 'std::sync::Mutex (Rust)' ./real-rust
	strip --remove-section=.comment real-rust
	said 'std::sync::Mutex (Rust)' ./real-rust
}

java='synchronized and java.util.concurrent.locks'

test_programs_of_java() {
	command -v java >java.path || { echo 'no Java' >&2; return 4; }
	said "$java (libjli.so)" java -version
}

test_libraries_and_what_they_need() {
	local pair

	for pair in libglib-2.0.so.0=GMutex libQt5Core.so.5=QMutex libQt6Core.so.6=QMutex libtbb.so.12=tbb::mutex \
		libabsl_synchronization.so.20220623=absl::Mutex "libjvm.so=$java"; do
		compile "${pair%=*}" -shared -fPIC </dev/null
		compile libmiddle.so -shared -fPIC -Wl,--no-as-needed -L. -l:"${pair%=*}" </dev/null
		compile needs -Wl,--no-as-needed -L. -lmiddle </dev/null
		said "${pair#*=} (${pair%=*})" ./needs
	done
}

test_python() {
	local python

	for python in /usr/bin/python3.*[0-9]; do
		[ -x "$python" ] || { echo 'no Python' >&2; return 4; }
		said "$("$python" -c 'import sys; print("PyMutex (%s), " * (sys.version_info >= (3, 13)) %
			(("python3.13",) * (sys.version_info >= (3, 13))), end="")')threading.Lock (${python##*/})" "$python" -c ''
	done
}

test_the_interpreter_of_a_script_counts() {
	compile libglib-2.0.so.0 -shared -fPIC </dev/null
	compile interpreter -Wl,--no-as-needed -L. -l:libglib-2.0.so.0 </dev/null
	printf '#!%s\n' "$tmp/interpreter" >script
	chmod +x script
	said 'GMutex (libglib-2.0.so.0)' ./script
}

test_once_unless_verbose() {
	compile libglib-2.0.so.0 -shared -fPIC </dev/null
	compile needs -Wl,--no-as-needed -L. -l:libglib-2.0.so.0 </dev/null
	said '' sh -c './needs; ./needs; true'
	said 'GMutex (libglib-2.0.so.0)' sh -c './needs; exec ./needs'
	"$forkgate" run --verbose sh -c './needs; true' 2>verbose
	[ "$(grep -c 'GMutex' verbose)" -eq 1 ] || cat verbose
	grep -q ': protected by the ' verbose || cat verbose
	grep -q 'needs.*: other locks are protected by the ' verbose || cat verbose
	! grep -q 'needs.*: protected by the ' verbose || cat verbose
}

# same PROGRAM WHAT: if it runs without the command it runs with it
same() {
	local plain=0 with=0

	timeout 10 "$1" || plain=$?
	timeout 10 "$forkgate" run "$1" || with=$?
	[ "$plain" -ne 0 ] || [ "$with" -eq 0 ] || echo "$2: ended with status $with" >>damages
} >/dev/null 2>&1

test_damaged_programs() {
	local size position

	compile whole -Wl,--no-as-needed -lgcc_s <<-'END'
		const char text[20000] = "long", name[] = "RUST_BACKTRACE";
		__asm__(".section .note.go.buildid, \"a\", @note\n.long 4, 4, 4\n.asciz \"Go\"\n.byte 0\n.long 0\n.previous");
	END
	size=$(stat -c %s whole)
	: >damages
	for ((position = 1; position < size; position += position < 1200 ? 61 : 1777)); do
		head -c "$position" whole >damaged
		chmod +x damaged
		same ./damaged "cut at $position"
	done
	for ((position = 16; position < 900; position += 7)); do
		cp whole damaged
		printf '\377\377\377' | dd of=damaged bs=1 seek="$position" conv=notrunc status=none
		same ./damaged "overwritten at $position"
	done
	cat damages
}

# shellcheck source=/dev/null # shellcheck looks at it by itself
. "$top/selftests/run/tap.sh"
