# SPDX-License-Identifier: GPL-2.0-only
"""The package as "pip install" installs it, without a network, and what its .pth file does.

Must not install anything outside of a folder of its own.
"""
import glob
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'tools'))

from tap import FORKGATE, HERE, main, test        # noqa: E402

TOP = os.path.realpath(os.path.join(HERE, '..', '..'))
LIBRARY = os.path.join(TOP, 'build', 'lib')
REPLACED = 'import os; print(hasattr(os.fork, "forkgate"))'

folder = tempfile.TemporaryDirectory()
python = os.path.join(folder.name, 'bin', 'python')


def run(*args, command=(), **environment):
    """Standard output; nothing may be on standard error but what forkgate run says of CPython's locks"""
    env = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'LD_LIBRARY_PATH')}
    result = subprocess.run([*command, *args], capture_output=True, text=True, cwd=folder.name,
                            env={**env, **environment})
    said = [line for line in result.stderr.splitlines()
            if not command or not re.search('cannot see locks |: [.]{3} ', line)]
    assert result.returncode == 0 and not said, result
    return result.stdout


def pip(*args):
    """As python3-venv has it: to unpack it into the folder first takes longer than all the rest."""
    wheel, = glob.glob('/usr/share/python-wheels/pip-*.whl')
    run(python, '-m', 'pip', '--disable-pip-version-check', '-q', *args, PYTHONPATH=wheel)


@test
def pip_installs_without_a_network():
    run(sys.executable, '-m', 'venv', '--without-pip', folder.name)
    pip('install', '--no-index', os.path.join(TOP, 'tools', 'python'))


@test
def import_from_there():
    output = run(python, '-c', 'import forkgate; print(forkgate.__file__)\nwith forkgate.lock(): pass',
                 LD_LIBRARY_PATH=LIBRARY)
    assert output.startswith(folder.name), output


@test
def forks_are_replaced_where_forkgate_runs_the_program():
    assert run(python, '-c', REPLACED, LD_LIBRARY_PATH=LIBRARY, FORKGATE_RUN='1') == 'True\n'


@test
def sitecustomize_is_still_the_users():
    with open(os.path.join(folder.name, 'sitecustomize.py'), 'w') as module:
        module.write('print("mine")\n')
    output = run(python, '-c', REPLACED, LD_LIBRARY_PATH=LIBRARY, FORKGATE_RUN='1', PYTHONPATH=folder.name)
    assert output == 'mine\nTrue\n', output


@test
def nothing_is_loaded_otherwise():
    output = run(python, '-c', REPLACED + '; import sys; print({"ctypes", "forkgate"} & set(sys.modules))',
                 LD_LIBRARY_PATH=LIBRARY)
    assert output == 'False\nset()\n', output


@test
def no_library_no_word():
    assert run(python, '-c', REPLACED, FORKGATE_RUN='1') == 'False\n'


@test
def forkgate_run():
    program = REPLACED + '; print({line.split()[-1] for line in open("/proc/self/maps") if "libforkgate.so" in line})'
    output = run(python, '-c', program, command=(FORKGATE, 'run', '--'))
    assert output == f"True\n{{'{os.path.realpath(LIBRARY + '/libforkgate.so.0')}'}}\n", output


@test
def pip_removes_all():
    pip('uninstall', '-y', 'forkgate')
    left = [name for _, _, names in os.walk(folder.name) for name in names if 'forkgate' in name]
    assert not left, left


main()
