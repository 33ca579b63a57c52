# SPDX-License-Identifier: GPL-2.0-only
"""What tests say as they are and with a gate, compared for run and ../python/suites.py

Verdicts are a dict: of each test, by its name, what it says. What a test says can change
by chance on a busy machine: one that differs runs again, both ways, and only one counts
that with the gate always says what it never says as it is. Must not call two that did not
run the same.
"""
import sys

TRIES = 3


def differing(what, before, after, again, few=None):
    """Compare two verdicts

    what: what is compared, for messages, of which there is one each time that a test differs
    again: function that runs the tests with these names again, both ways, and returns both
    few: how many tests may run again; with more that differ, none does

    Return: what a test says as it is, and with the gate, of each that always differs
    """
    names = before.keys() | after.keys()
    said = {name: set() for name in names}
    for tries in range(1, TRIES + 1):
        # Some say a name only where something fails; not to say it is a verdict, too.
        for name in names:
            said[name].add(before.get(name))
        names = {name for name in names if after.get(name) not in said[name]}
        for name in sorted(names):
            print(f'# {what}: {name} was {before.get(name)}, is {after.get(name)}', flush=True)
        if not names or tries == TRIES or (few is not None and len(names) > few):
            break
        before, after = again(sorted(names))
    return {name: (before.get(name), after.get(name)) for name in sorted(names)}


def end(passed, failed, skipped=0):
    """Print the totals, and exit: where nothing was compared there is no success"""
    print(f'{passed} passed, {failed} failed, {skipped} skipped')
    sys.exit(bool(failed or not passed))
