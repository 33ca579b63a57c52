#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What the command says of the hook while it is switched off: the truth.

Needs the module and root, and must not leave anything switched off.
"""

import contextlib
import json
import os
import subprocess

from tap import FORKGATE, Skip, check, main, run, test

SWITCHES = "/proc/sys/kernel/ftrace_enabled", "/sys/kernel/debug/kprobes/enabled"


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


@contextlib.contextmanager
def switched_off(path):
    if not os.path.exists(path):
        raise Skip(f"no {path}")
    try:
        write(path, "0")
    except OSError as error:
        raise Skip(f"{path}: {error.strerror}") from error
    try:
        yield
    finally:
        write(path, "1")


def says_protected():
    """A program under "forkgate run" """
    result = run("run", "--verbose", "true")
    check(result, 0)
    assert result.stderr, "it says nothing"
    return any(line.endswith("protected by the module") for line in result.stderr.splitlines())


def says_armed():
    """What each of the formats says: for people, JSON, Prometheus"""
    text = check(run("stat"), 0)
    values = {"The hook is armed." in text, json.loads(check(run("stat", "--json"), 0))["armed"],
              "\nforkgate_armed 1\n" in check(run("stat", "--prometheus"), 0)}
    assert len(values) == 1, f"they do not agree: {text}"
    return values.pop()


def metrics():
    """Those that have no labels"""
    lines = check(run("stat", "--prometheus"), 0).splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if line[0] != "#")}


@test
def metrics_of_a_copy_that_slips_through():
    script = "(exit 0); echo ready; read go; (exit 0); echo done; read end"
    with subprocess.Popen([FORKGATE, "run", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, bufsize=1) as shell:
        assert shell.stdout.readline() == "ready\n"
        before = metrics()
        with switched_off(SWITCHES[1]):
            print("go", file=shell.stdin)
            assert shell.stdout.readline() == "done\n"
            now = metrics()
        check(run("ps", str(shell.pid)), 0, "1 unsafe copy, open")
    after = metrics()
    assert [each["forkgate_armed"] for each in (before, now, after)] == [1, 0, 1], (before, now, after)
    assert [each["forkgate_module_loaded"] for each in (before, now, after)] == [1, 1, 1], (before, now, after)
    assert now["forkgate_bypasses_total"] == before["forkgate_bypasses_total"] + 1, (before, now)


@test
def stat_with_the_hook_on():
    assert says_armed()


@test
def run_with_the_hook_on():
    assert says_protected()


@test
def stat_without_ftrace():
    with switched_off(SWITCHES[0]):
        assert not says_armed()
    assert says_armed()


@test
def stat_without_kprobes():
    with switched_off(SWITCHES[1]):
        assert not says_armed()
    assert says_armed()


@test
def run_without_ftrace():
    with switched_off(SWITCHES[0]):
        assert not says_protected()


@test
def run_without_kprobes():
    with switched_off(SWITCHES[1]):
        assert not says_protected()


main()
