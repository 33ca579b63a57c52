#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The command forkgate where there is no module, and its arguments, which need none.

Runs anywhere as anybody; must not need root.
"""

import os
import subprocess
import tempfile

from tap import FORKGATE, HERE, Skip, check, main, run, test

COMMANDS = ("ps", "watch", "stat", "check", "trace")


def needs_no_module():
    if os.path.exists("/sys/module/forkgate"):
        raise Skip("the module is loaded")


@test
def no_command():
    check(run(), 2, "usage: forkgate COMMAND")


@test
def help_of_all():
    output = check(run("--help"), 0)
    for command in COMMANDS:
        assert f"  {command} " in output, command
    assert check(run("help"), 0) == output
    assert check(run("-h"), 0) == output


@test
def help_of_each():
    for command in COMMANDS:
        check(run(command, "--help"), 0, f"usage: forkgate {command}")
        check(run(command, "-h"), 0, f"usage: forkgate {command}")


@test
def unknown_command():
    check(run("pz"), 2, 'no command "pz"')


@test
def unknown_option():
    for command in COMMANDS:
        check(run(command, "--bogus"), 125 if command == "trace" else 2, "--bogus", "usage:")


@test
def argument_too_much():
    for command in ("ps", "watch", "stat", "check"):
        check(run(command, "extra"), 2, "extra", "usage:")


@test
def two_formats():
    check(run("stat", "--json", "--prometheus"), 2, "one format")


@test
def bad_delays():
    for delay in ("0", "x", "1x", "-1", "nan", "99999999"):
        check(run("watch", "-d", delay), 2, delay)
    check(run("watch", "-d"), 2, "-d")


@test
def trace_without_program():
    check(run("trace"), 125, "no program")
    check(run("trace", "-o"), 125, "-o")
    check(run("trace", "-o", "x.json", "--perfetto", "y.json", "true"), 125, "two files")


@test
def trace_to_nowhere():
    check(run("trace", "-o", "/nonexistent/x.svg", "true"), 125, "/nonexistent/x.svg")


@test
def watch_without_terminal():
    check(run("watch"), 1, "needs a terminal")


@test
def full_disk():
    with open("/dev/full", "w", encoding="ascii") as full:
        result = subprocess.run([FORKGATE, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1 and "cannot write" in result.stderr, result


@test
def ps_without_module():
    needs_no_module()
    check(run("ps"), 1, "/sys/kernel/debug/forkgate/gates")


@test
def stat_without_module():
    needs_no_module()
    check(run("stat"), 1, "/sys/kernel/debug/forkgate/stats")


@test
def check_without_module():
    needs_no_module()
    check(run("check"), 1, "PROBLEM  module: not loaded", "modprobe forkgate", "forks do not wait")


@test
def trace_without_module():
    needs_no_module()
    with tempfile.TemporaryDirectory() as folder:
        result = run("trace", "-o", folder + "/x.svg", "touch", folder + "/ran")
        check(result, 125)
        assert not os.path.exists(folder + "/ran"), "the program ran"


def complete(*words):
    script = (f'source "{HERE}/../../tools/forkgate/forkgate.bash-completion"; COMP_WORDS=("$@"); '
              'COMP_CWORD=$(($# - 1)); _forkgate; printf "%s\\n" "${COMPREPLY[@]}"')
    return subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True,
                          check=True).stdout.split()


@test
def completion():
    assert complete("forkgate", "tr") == ["trace"]
    assert complete("forkgate", "stat", "--p") == ["--prometheus"]
    assert "true" in complete("forkgate", "trace", "-o", "x.svg", "tru")
    for command in COMMANDS:
        options = complete("forkgate", command, "--")
        text = check(run(command, "--help"), 0)
        for option in options:
            assert option == "--help" or option in text, f"{command} does not know {option}"


main()
