#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Do CPython's own tests say the same after "import forkgate", and under "forkgate run"?

    suites.py [VERSION...] [--variants import,run] [--suites NAME,...]

Each suite runs as it is, and then in each variant, in an environment of its own; what the
tests say is compared by ../suites/verdicts.py. "make check-release" runs this; it takes an hour
or more. Must not call verdicts the same of a variant that was not in force.
"""
import argparse
import os
import subprocess
import sys
import tempfile
from xml.etree import ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'suites'))
import verdicts     # noqa: E402

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.realpath(os.path.join(HERE, '..', '..'))
PACKAGE = os.path.join(TOP, 'tools', 'python')
DEVICE = '/dev/forkgate'
FORKGATE = os.path.join(TOP, 'build', 'forkgate', 'forkgate')
SUITES = ['test_fork1', 'test_threading', 'test_subprocess', 'test_multiprocessing_fork', 'test_logging',
          'test_queue']
SLOW = int(os.environ.get('KSELFTEST_SLOW', '1'))
LIMIT = 1200 * SLOW     # seconds for a suite
FEW = 20
# With the module a process has one descriptor more, and this test's child lists its own.
KNOWN = {'test.test_subprocess.POSIXProcessTestCase.test_pass_fds_redirected': ('passed', 'failure')}
IN_FORCE = 'import os; print(hasattr(os.fork, "forkgate"), "FORKGATE_RUN" in os.environ)'


class Variant:
    """An interpreter in which nothing else is installed"""

    def __init__(self, name, version, folder):
        self.name = name
        self.python = os.path.join(folder, name, 'bin', 'python')
        self.command = [FORKGATE, 'run', '--'] if name == 'run' else []
        suite = subprocess.run([os.path.join(HERE, 'interpreter'), 'suite', version],
                               capture_output=True, text=True).stdout.strip()
        if not suite:
            sys.exit(f'no Python {version} with its tests: interpreter fetch {version}')
        root = os.path.join(folder, name)
        subprocess.run([suite, '-m', 'venv', '--without-pip', root], check=True)
        if name == 'plain':
            return
        # As it is installed, but for its place. Programs that tests start without an environment
        # do not find the library, and say nothing.
        with open(os.path.join(PACKAGE, 'forkgate-run.pth')) as pth:
            line = pth.read() if name == 'run' else 'import _forkgate_run'
        site = os.path.join(root, 'lib', f'python{version}', 'site-packages')
        with open(os.path.join(site, 'suites.pth'), 'w') as pth:
            pth.write(f'{PACKAGE}\n{line}\n')

    def run(self, *args):
        env = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}
        env.update(LD_LIBRARY_PATH=os.path.join(TOP, 'build', 'lib'), PYTHONDONTWRITEBYTECODE='1')
        return subprocess.run([*self.command, self.python, *args], env=env, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def in_force(self):
        expected = {'plain': 'False False\n', 'import': 'True False\n', 'run': 'True True\n'}
        # after what forkgate run has to say
        return self.run('-c', IN_FORCE).stdout.splitlines(True)[-1:] == [expected[self.name]]

    def verdicts(self, suite, tests=()):
        """Of each test: what it says. One that is not there did not run."""
        with tempfile.TemporaryDirectory() as folder:
            report = os.path.join(folder, 'report')
            match = [word for test in tests for word in ('-m', test)]
            self.output = self.run('-m', 'test', '-j1', f'--timeout={LIMIT}', f'--tempdir={folder}',
                                   '--junit-xml', report, *match, suite).stdout
            try:
                cases = ElementTree.parse(report).iter('testcase')
            except (OSError, ElementTree.ParseError):
                return {}
            found = {}
            for case in cases:
                what = {child.tag for child in case} - {'system-out', 'system-err'}
                found[case.get('name')] = '+'.join(sorted(what)) or 'passed'
            return found


def compare(plain, variant, suite, before):
    """Return: how many tests say the same, how many do not, and how many of which that is known"""
    after = variant.verdicts(suite)
    if not after:
        print(variant.output[-2000:])

    def again(names):
        return plain.verdicts(suite, names), variant.verdicts(suite, names)

    differ = verdicts.differing(f'{suite}, {variant.name}', before, after, again, FEW)
    same = sum(name not in differ for name in before)
    known = [name for name, said in differ.items()
             if os.path.exists(DEVICE) and KNOWN.get(name) == said]
    for name in differ:
        print(f'{"# known:" if name in known else "not ok"} {suite}, {variant.name}: {name}')
    return same, len(differ) - len(known), len(known)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('versions', nargs='*', default=['3.11', '3.13'])
    parser.add_argument('--variants', type=lambda text: text.split(','), default=['import', 'run'])
    parser.add_argument('--suites', type=lambda text: text.split(','), default=SUITES)
    options = parser.parse_args()
    passed = failed = skipped = 0
    for version in options.versions:
        with tempfile.TemporaryDirectory() as folder:
            plain = Variant('plain', version, folder)
            variants = []
            for name in options.variants:
                variant = Variant(name, version, folder)
                if variant.in_force():
                    variants.append(variant)
                else:
                    print(f'not ok {version}, {name}: the forks are not replaced')
                    failed += 1
            assert plain.in_force()
            for suite in options.suites:
                before = plain.verdicts(suite)
                if not before:
                    print(plain.output[-2000:], f'\nnot ok {version} {suite}: did not run')
                    failed += 1
                    continue
                for variant in variants:
                    same, different, known = compare(plain, variant, suite, before)
                    passed += same
                    failed += different
                    skipped += known
                    print(f'{version} {suite}, {variant.name}: {same} of {len(before)} say the same',
                          flush=True)
    verdicts.end(passed, failed, skipped)


main()
