# SPDX-License-Identifier: GPL-2.0-only
"""The Python package: with a gate, of the module or of the library, and without.

Where a test is about what the gate prevents, it first shows that it happens
without a section. A fork is "at once" within a time that a wait for the wrong
thing cannot keep: the shortest of those takes ten seconds.
"""
import asyncio
import collections
import concurrent.futures
import contextlib
import ctypes
import errno
import faulthandler
import functools
import importlib
import logging
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'tools'))

import forkgate                                                 # noqa: E402
from forkgate import FILES, MEMORY, _forks, _library            # noqa: E402
from tap import FORKGATE, LIMIT, SLOW, Skip, main, test, wait_for         # noqa: E402

AT_ONCE = 5 * SLOW
TRUE = '/bin/true'
PACKAGE = os.path.dirname(os.path.dirname(forkgate.__file__))
THREADS = 2


def needs_gate():
    if forkgate.protection() is None:
        raise Skip('there is no gate')


@contextlib.contextmanager
def threads(work, count=THREADS):
    """Some that do this all the time"""
    stop = threading.Event()

    def loop():
        while not stop.is_set():
            work()

    loops = [threading.Thread(target=loop) for _ in range(count)]
    for thread in loops:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in loops:
            thread.join()


@contextlib.contextmanager
def thread_that_holds(manager):
    """One that stays in the block until the end"""
    inside, leave = threading.Event(), threading.Event()

    def hold():
        with manager:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    try:
        yield leave
    finally:
        leave.set()
        thread.join()


def in_section(domains):
    with forkgate.section(domains):
        sum(range(1000))        # more than one slice of the interpreter's lock in all


def at_once(call):
    start = time.monotonic()
    result = call()
    took = time.monotonic() - start
    assert took < AT_ONCE, f'took {took:.1f} s'
    return result


def forked(child=int):
    """A child's exit status; None if it hung"""
    pid = os.fork()
    if not pid:
        status = 99
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(AT_ONCE)
            status = child()
        finally:
            os._exit(status)
    return ended(pid)


def ended(pid):
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return None
    return os.waitstatus_to_exitcode(status)


def program(text, **environment):
    """What it prints, in an interpreter of its own"""
    return subprocess.run([sys.executable, '-c', text], capture_output=True, text=True, check=True, timeout=LIMIT,
                          env={**os.environ, **environment}).stdout


# Forks beside threads in sections

def forks_beside(domains, fork, count=20):
    with threads(functools.partial(in_section, domains)):
        for _ in range(count):
            status = at_once(fork)
            assert status == 0, status


@test
def fork_beside_memory_sections():
    forks_beside(MEMORY, forked)


@test
def fork_beside_sections_of_both():
    forks_beside(MEMORY | FILES, forked)


@test
def forkpty_beside_sections():
    def fork():
        pid, fd = pty.fork()
        if not pid:
            os._exit(0)
        status = ended(pid)
        os.close(fd)
        return status

    forks_beside(MEMORY | FILES, fork)


@test
def subprocess_beside_files_sections():
    forks_beside(FILES, lambda: subprocess.run([TRUE]).returncode)


@test
def subprocess_with_preexec_beside_sections():
    forks_beside(MEMORY | FILES, lambda: subprocess.run([TRUE], preexec_fn=int).returncode)


@test
def subprocess_with_group_beside_sections():
    forks_beside(MEMORY | FILES, lambda: subprocess.run([TRUE], group=os.getgid()).returncode)


@test
def posix_spawn_beside_files_sections():
    forks_beside(FILES, lambda: ended(os.posix_spawn(TRUE, ['true'], os.environ)))
    forks_beside(FILES, lambda: ended(os.posix_spawnp('true', ['true'], os.environ)))


@test
def spawnv_beside_sections():
    forks_beside(MEMORY | FILES, lambda: os.spawnv(os.P_WAIT, TRUE, ['true']))


@test
def subprocess_does_not_wait_for_memory_sections():
    with thread_that_holds(forkgate.section(MEMORY)):
        assert at_once(lambda: subprocess.run([TRUE]).returncode) == 0
        assert at_once(lambda: ended(os.posix_spawn(TRUE, ['true'], os.environ))) == 0


@test
def asyncio_subprocess_beside_sections():
    async def run():
        process = await asyncio.create_subprocess_exec(TRUE)
        return await process.wait()

    forks_beside(FILES, lambda: asyncio.run(run()), 5)


def square(number):
    return number * number


@test
def pools_beside_sections():
    # Of methods that start a new program, the program must be able to import this one.
    for method in 'fork', 'forkserver', 'spawn':
        context = multiprocessing.get_context(method)
        with threads(functools.partial(in_section, MEMORY | FILES)):
            with context.Pool(2) as pool:
                assert pool.map(square, range(10)) == [number * number for number in range(10)], method


@test
def executor_beside_sections():
    context = multiprocessing.get_context('fork')
    with threads(functools.partial(in_section, MEMORY)):
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
            assert list(executor.map(square, range(10))) == [number * number for number in range(10)]


@test
def logging_beside_forks():
    logger = logging.getLogger('test')
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(open(os.devnull, 'w')))

    # The stream's own lock is none that a child is free of by itself.
    @forkgate.section(MEMORY)
    def log():
        logger.warning('busy')
        return 0

    needs_gate()

    with threads(log):
        for _ in range(20):
            assert at_once(lambda: forked(log)) == 0


# What sections protect

def until(seconds, happens):
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        if happens():
            return True
    return False


@test
def child_sees_whole_changes():
    pair = [0, 0]

    def change():
        pair[0] += 1
        time.sleep(0.002)
        pair[1] += 1

    def change_in_section():
        with forkgate.section(MEMORY):
            change()

    def broken():
        return forked(lambda: int(pair[0] != pair[1])) == 1

    with threads(change, 1):
        assert until(20, broken), 'no change was caught half-way without a section'
    needs_gate()
    with threads(change_in_section, 1):
        for _ in range(100):
            assert not broken()
    assert pair[0] == pair[1]


@test
def child_inherits_no_descriptor():
    def use():
        fd = os.open(__file__, os.O_RDONLY)
        os.set_inheritable(fd, True)
        time.sleep(0.002)
        os.close(fd)

    def use_in_section():
        with forkgate.section(FILES):
            use()

    def leaked():
        listed = subprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False, stdin=subprocess.PIPE,
                                capture_output=True, text=True).stdout
        return os.path.basename(__file__) in listed

    with threads(use, 1):
        assert until(20, leaked), 'no descriptor leaked without a section'
    needs_gate()
    with threads(use_in_section, 1):
        for _ in range(50):
            assert not leaked()


@test
def fork_waits_for_a_section_to_end():
    needs_gate()
    for domains in MEMORY, FILES:
        with thread_that_holds(forkgate.section(domains)) as leave:
            timer = threading.Timer(1, leave.set)
            timer.start()
            start = time.monotonic()
            assert forked(lambda: forkgate.copy()) == 0
            assert time.monotonic() - start > 0.9, domains


@test
def own_sections_do_not_count():
    with forkgate.section(MEMORY | FILES):
        assert at_once(forked) == 0
        assert at_once(lambda: subprocess.run([TRUE]).returncode) == 0
    # and the child goes on with them
    with forkgate.section(MEMORY):
        pid = os.fork()
    if not pid:
        os._exit(_library.slot().depth[0])
    assert ended(pid) == 0


# Locks

@test
def lock_is_free_in_the_child():
    needs_gate()
    lock = forkgate.lock()

    def work():
        with lock:
            time.sleep(0.001)

    def child():
        with lock:
            return 0

    with threads(work):
        for _ in range(100):
            assert forked(child) == 0


@test
def lock_of_the_forker_is_the_childs():
    lock = forkgate.lock()

    def child():
        lock.release()
        return int(not lock.acquire(timeout=1))

    with lock:
        assert forked(child) == 0


@test
def lock_is_waited_for_outside_of_sections():
    lock = forkgate.lock()
    taken = threading.Event()

    def wait():
        with lock:
            taken.set()

    with lock:
        thread = threading.Thread(target=wait)
        thread.start()
        wait_for(lambda: lock._waiters)
        assert at_once(forked) == 0
        assert not taken.is_set()
    thread.join()
    assert taken.is_set()


@test
def locks_waiters_are_not_the_childs():
    lock = forkgate.lock()

    def child():
        # One that waits here must not be behind those that waited there.
        done = threading.Event()

        def wait():
            with lock:
                done.set()

        thread = threading.Thread(target=wait)
        thread.start()
        wait_for(lambda: len(lock._waiters) == 2)
        lock.release()
        return int(not done.wait(AT_ONCE / 2))

    with lock:
        thread = threading.Thread(target=lambda: lock.acquire() and lock.release())
        thread.start()
        wait_for(lambda: lock._waiters)
        assert forked(child) == 0
    thread.join()


@test
def lock_excludes():
    lock = forkgate.lock()
    numbers = collections.Counter()

    def count():
        for _ in range(200):
            with lock:
                number = numbers['all']
                time.sleep(0)
                numbers['all'] = number + 1

    counting = [threading.Thread(target=count) for _ in range(8)]
    for thread in counting:
        thread.start()
    for thread in counting:
        thread.join()
    assert numbers['all'] == 8 * 200
    assert not lock._waiters and not lock.locked()


@test
def lock_is_like_threadings():
    lock = forkgate.lock()
    assert lock.acquire() is True
    assert lock.locked()
    assert lock.acquire(False) is False
    start = time.monotonic()
    assert lock.acquire(timeout=0.2) is False
    assert lock.acquire(True, 0) is False
    assert 0.2 <= time.monotonic() - start < AT_ONCE
    assert not lock._waiters
    for arguments, error in ((False, 1), ValueError), ((True, -2), ValueError), ((True, 1e12), OverflowError):
        for kind in forkgate.lock, threading.Lock:
            try:
                kind().acquire(*arguments)
            except error:
                continue
            assert False, (kind, arguments)
    errors = []

    def release():
        try:
            lock.release()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=release)
    thread.start()
    thread.join()
    assert len(errors) == 1 and lock.locked()
    lock.release()
    assert not lock.locked()
    release()
    assert len(errors) == 2
    with lock as result:
        assert result is True


@test
def lock_does_not_wait_for_a_fork_unless_told_to():
    needs_gate()
    lock = forkgate.lock()

    def fails():
        if lock.acquire(False):
            lock.release()
            return False
        return True

    with thread_that_holds(forkgate.section(MEMORY)):
        forking = threading.Thread(target=forked)
        forking.start()
        wait_for(fails)
        assert not lock.locked()
    forking.join()
    assert not fails()


@test
def lock_holds_a_section():
    lock = forkgate.lock()
    lock.acquire()
    assert list(_library.slot().depth) == [1, 0]
    assert not lock.acquire(False)
    assert not lock.acquire(timeout=0.01)
    assert list(_library.slot().depth) == [1, 0]
    lock.release()
    assert list(_library.slot().depth) == [0, 0]


# Sections as such

@test
def sections_nest_and_end_with_an_exception():
    section = forkgate.section(MEMORY)
    try:
        with section, section, forkgate.section(MEMORY | FILES):
            assert list(_library.slot().depth) == [3, 1]
            raise KeyError
    except KeyError:
        pass
    assert list(_library.slot().depth) == [0, 0]


@test
def decorated_functions():
    @forkgate.section(FILES)
    def decorated(first, *, second):
        """Text"""
        assert list(_library.slot().depth) == [0, 1]
        return first, second

    class Class:
        @forkgate.section(MEMORY)
        def method(self):
            return self, list(_library.slot().depth)

    assert decorated(1, second=2) == (1, 2)
    assert decorated.__name__ == 'decorated' and decorated.__doc__ == 'Text'
    thing = Class()
    assert thing.method() == (thing, [1, 0])
    assert list(_library.slot().depth) == [0, 0]


@test
def functions_that_are_left_half_way_cannot_be_decorated():
    def generator():
        yield

    async def coroutine():
        pass

    async def both():
        yield

    for function in generator, coroutine, both, functools.partial(generator):
        try:
            forkgate.section(MEMORY)(function)
        except TypeError:
            continue
        assert False, function


@test
def domains_are_checked():
    for domains in 0, 4, 7, -1, 'files', None:
        for call in forkgate.section, forkgate.prepare:
            try:
                call(domains)
            except ValueError:
                continue
            assert False, (call, domains)


@test
def label_is_in_the_slot():
    with forkgate.section(MEMORY):
        forkgate.label('cache')
        assert _library.slot().label == b'cache'


# Tickets

@test
def ticket():
    needs_gate()
    assert not forkgate.release()
    forkgate.prepare()
    assert forkgate.release()
    assert not forkgate.release()
    forkgate.prepare(FILES)
    assert forked() == 0
    assert not forkgate.release()


@test
def fork_that_fails_gives_its_ticket_back():
    needs_gate()
    try:
        os.posix_spawn(TRUE, ['true'], {'a': 1})
    except TypeError:
        assert not forkgate.release()
        return
    assert False


def set_policy_to(policy):
    error = _library._quick.forkgate_policy_set(ctypes.byref(policy))
    assert not error, error


def set_policy(**values):
    policy = _library.policy()
    for name, value in values.items():
        setattr(policy, name, value)
    set_policy_to(policy)


@contextlib.contextmanager
def policy(**values):
    before = _library.policy()
    set_policy(**values)
    try:
        yield
    finally:
        set_policy_to(before)


@test
def fork_fails_at_the_time_out():
    needs_gate()
    with policy(timeout=10**8), thread_that_holds(forkgate.section(MEMORY | FILES)):
        for fork in forked, lambda: subprocess.run([TRUE]), lambda: os.posix_spawn(TRUE, ['true'], {}):
            try:
                at_once(fork)
            except BlockingIOError:
                continue
            assert False, fork
    assert forked() == 0


@test
def fork_goes_ahead_if_the_policy_says_so():
    needs_gate()
    with policy(timeout=10**8, on_timeout=1), thread_that_holds(forkgate.section(MEMORY)):
        assert at_once(lambda: forked(forkgate.copy)) & 1


@test
def failure_for_another_reason_is_not_repeated():
    if os.getuid():
        raise Skip('not root')

    def child():
        import resource
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        os.setuid(65534)
        try:
            os.fork()
        except BlockingIOError:
            return 0
        return 1

    assert forked(child) == 0


@test
def expired_ticket_is_taken_again():
    needs_gate()
    output = program(f'''
import sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
import os, threading, time, tests
from forkgate import section

def hook():
    calls.append(time.monotonic())
    if len(calls) < 3:
        inside.clear()
        may_enter.set()
        inside.wait()           # which the ticket keeps from coming, until it has expired

def work():
    while True:
        may_enter.wait()
        may_enter.clear()
        with section(3):
            inside.set()
            time.sleep(0.3)     # longer than an expired ticket's fork waits

calls, inside, may_enter = [], threading.Event(), threading.Event()
os.register_at_fork(before=hook)
tests.set_policy(ticket_hold=10**7, patience=5 * 10**7)
threading.Thread(target=work, daemon=True).start()
assert tests.forked() == 0
first = len(calls)
calls.clear()
assert tests.subprocess.run(['true'], preexec_fn=int).returncode == 0
print(first, len(calls), flush=True)
os._exit(0)
''')
    assert output == '3 3\n', output


@test
def signal_ends_the_wait():
    needs_gate()
    with thread_that_holds(forkgate.section(MEMORY)):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            at_once(os.fork)
        except KeyboardInterrupt:
            return
    assert False


@test
def circle_is_an_error():
    needs_gate()
    errors = []
    barrier = threading.Barrier(2)

    def fork():
        with forkgate.section(MEMORY):
            barrier.wait()
            try:
                assert forked() == 0
            except OSError as error:
                errors.append(error.errno)

    both = [threading.Thread(target=fork) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert errors == [errno.EDEADLK], errors


@test
def forks_in_hooks_and_handlers():
    """One in a hook of another uses up its ticket."""
    output = program(f'''
import sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
import os, subprocess, tests

def hook():
    if not nested:
        nested.append(subprocess.run(['true']).returncode)

nested = []
os.register_at_fork(before=hook)
with tests.threads(lambda: tests.in_section(3)):
    for _ in range(10):
        nested.clear()
        assert tests.at_once(tests.forked) == 0
print(nested)
''')
    assert output == '[0]\n', output


# How it is loaded

@test
def replaced_once():
    functions = os.fork, os.forkpty, os.posix_spawn, os.posix_spawnp, subprocess._fork_exec
    importlib.reload(_forks).install()
    importlib.reload(forkgate)
    assert functions == (os.fork, os.forkpty, os.posix_spawn, os.posix_spawnp, subprocess._fork_exec)
    for function in functions:
        assert not hasattr(function.__wrapped__, 'forkgate'), function


@test
def replaced_wherever_it_was_imported_first():
    for first in 'forkgate, subprocess', 'subprocess, forkgate':
        output = program(f'import {first}; print(hasattr(subprocess._fork_exec, "forkgate"))')
        assert output == 'True\n', first


@test
def iterators_last_for_another_attempt():
    attempts = []

    def call(values, *, more):
        attempts.append(list(values) + list(more))
        if len(attempts) == 1:
            raise BlockingIOError
        return 0

    with mock.patch.object(_forks, '_take_ticket_to_fork', lambda *_: True), \
            mock.patch.object(_forks, '_outcome', lambda: _library.EXPIRED):
        assert _forks._replacement(call, lambda args: FILES)(iter('a'), more=iter('b')) == 0
    assert attempts == [['a', 'b']] * 2, attempts


@test
def one_copy_of_the_library():
    for preload in '', 'libforkgate.so.0':
        maps = program('import forkgate; print(open("/proc/self/maps").read())', LD_PRELOAD=preload)
        assert len({line.split()[-1] for line in maps.splitlines() if 'libforkgate' in line}) == 1, preload


@test
def missing_library():
    result = subprocess.run([sys.executable, '-c', 'import forkgate'], capture_output=True, text=True,
                            env={**os.environ, 'LD_LIBRARY_PATH': ''})
    if result.returncode == 0:
        raise Skip('the library is installed')
    assert 'ImportError: forkgate needs its C library, libforkgate.so.0' in result.stderr, result.stderr


@test
def sections_under_forkgate_run():
    """The interpreter's lock, a mutex among other things, is no section: the threads go on"""
    needs_gate()
    hangs = os.path.join(os.path.dirname(__file__), 'hangs.py')
    result = subprocess.run([FORKGATE, 'run', '--', sys.executable, hangs, 'lock', '20', 'sections'],
                            capture_output=True, text=True)
    assert result.stdout.startswith('0 20 ') and 'unsafe' not in result.stderr, result


if __name__ == '__main__':
    faulthandler.dump_traceback_later(20 * LIMIT, exit=True)
    main()
