# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the command share: TAP, running it, waiting for events.

It must not call a test passed that did not run to its end.
"""

import os
import shutil
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


def run(*args, user=None, env=None, **more):
    """The command with its output; as another user, with more of an environment"""
    command = for_everybody() if user else FORKGATE
    return subprocess.run([command, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
                          user=user, extra_groups=[] if user else None, env={**os.environ, **(env or {})}, **more)


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


def wait_for(condition):
    """Until it is true; its value"""
    end = time.monotonic() + LIMIT
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, "waited for nothing"
        time.sleep(0.02)
