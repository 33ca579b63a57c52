# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the command share: TAP, running it, waiting for events.

It must not call a test passed that did not run to its end.
"""

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
FORKGATE = os.environ["FORKGATE_COMMAND"]
SLOW = int(os.environ.get("KSELFTEST_SLOW", "1"))
LIMIT = 120 * SLOW
NOBODY = 65534

tests = []


class Skip(Exception):
    """A reason why a test cannot run here"""


def test(function):
    tests.append(function)
    return function


def main():
    print("TAP version 13")
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for number, function in enumerate(tests, 1):
        try:
            function()
            print(f"ok {number} {function.__name__}", flush=True)
        except Skip as reason:
            print(f"ok {number} {function.__name__} # SKIP {reason}", flush=True)
        except Exception:
            failed = 1
            print(f"not ok {number} {function.__name__}")
            print("".join("# " + line + "\n" for line in traceback.format_exc().splitlines()), flush=True)
    sys.exit(failed)


def for_everybody():
    """A copy of the command where everybody can reach it"""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    return shutil.copy(FORKGATE, folder)


class Program(ctypes.Structure):
    """struct sock_fprog"""
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def forbid(number, error):
    """A system call, by seccomp(2), for this process and what it executes"""
    libc = ctypes.CDLL(None, use_errno=True)
    code = b"".join(struct.pack("HBBI", *step) for step in (
        (0x20, 0, 0, 0),                            # load the number of the system call
        (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error), (0x06, 0, 0, 0x7fff0000)))
    text = ctypes.create_string_buffer(code, len(code))
    program = Program(len(code) // 8, ctypes.addressof(text))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def elsewhere(script):
    """What runs a command after a shell script, in a namespace of mounts of its own"""
    unshare = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise Skip(tried.stderr.strip())
    return [*unshare, "sh", "-ec", script + '\nexec "$@"', "sh"]


def run(*args, user=None, env=None, before=(), **more):
    """The command with its output; as another user, with more of an environment, by another command"""
    command = for_everybody() if user else FORKGATE
    return subprocess.run([*before, command, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=LIMIT, user=user, extra_groups=[] if user else None,
                          env={**os.environ, **(env or {})}, **more)


def check(result, status, *texts):
    """Exit status, and what must be in the output, on either side"""
    everything = result.stdout + result.stderr
    assert result.returncode == status, f"status {result.returncode}, not {status}: {everything}"
    for text in texts:
        assert text in everything, f"no {text!r} in: {everything}"
    return result.stdout


def promtool(*args, stdin=""):
    """Prometheus's own opinion of a file, or of the metrics in a text"""
    if not shutil.which("promtool"):
        raise Skip("no promtool; it comes with the Debian package prometheus")
    result = subprocess.run(["promtool", *args], input=stdin, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def no_module_here(trouble, *cures, **situation):
    """check and "run" agree on why, and so does the library, which finds no module either"""
    check(run("check", **situation), 1, "PROBLEM  " + trouble, *cures)
    check(run("run", "--require-module", "true", **situation), 125, trouble, *cures)
    if "user" not in situation:     # whose copy of the command has no libraries
        check(run("run", "--verbose", "true", **situation), 0, "protected by the library", 'see "forkgate check")')


def wait_for(condition):
    """Until it is true; its value"""
    end = time.monotonic() + LIMIT
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "waited for nothing"
        time.sleep(0.02)
