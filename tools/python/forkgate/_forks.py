# SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
"""Make the interpreter's forks wait before it holds its own locks

All of CPython's forks hold the interpreter's lock (GIL), which a thread inside a
section may need in order to leave it. So the ticket comes first, and is waited
for without that lock. A ticket that has expired before its fork makes the fork
fail rather than wait; then the next one is waited for with more patience.

A hook of os.register_at_fork() alone would come too late: hooks that were
registered later have run by then, and those of the standard library take locks.
It is here for forks that do not call what is replaced below.

Must not change what the functions do otherwise, nor replace them twice.
"""
import errno
import functools
import os
import posix
import sys

import _posixsubprocess

from . import _library
from ._library import FILES, MEMORY

# Signals are handled between two waits.
FIRST_WAIT = 10**9      # ns
MOST_DOUBLINGS = 2
MOST_ATTEMPTS = 32       # that the kernel takes


def take_ticket(domains, attempt=0, timeout=None):
    """Wait, without the interpreter's lock, for at most timeout ns

    Return: an error number; None without a gate.
    """
    if _library.init(0):
        return None
    # A policy with an end also says what comes then. One without must not keep signals waiting.
    endless = timeout is None and _library.policy().timeout == _library.FOREVER
    while True:
        request = _library.Prepare(domains=domains, attempt=attempt)
        if endless:
            timeout = FIRST_WAIT << min(attempt, MOST_DOUBLINGS)
        if timeout is not None:
            request.flags = _library.TIMED
            request.timeout = timeout
        error = _library.prepare(request, wait=True)
        if endless and error == errno.ETIMEDOUT:
            attempt = min(attempt + 1, MOST_ATTEMPTS)
        elif endless and error == errno.EDEADLK:
            endless, timeout = False, None      # as the policy says of circles
        else:
            return 0 if error == errno.EALREADY else error


def _outcome():
    slot = _library.slot()
    return slot.outcome if slot else 0


def _take_ticket_to_fork(domains, attempt):
    """Until the ticket is there, and so is the interpreter's lock

    Return: whether the fork depends on it.
    """
    while True:
        error = take_ticket(domains, attempt)
        if error == errno.ETIMEDOUT:
            error = errno.EAGAIN
        if error in (errno.EAGAIN, errno.EDEADLK):
            raise OSError(error, os.strerror(error))
        # Any other reason has nothing to do with threads in sections, and is the fork's to find.
        if error != 0 or _outcome() == _library.UNSAFE:
            return False
        # It may have expired while this thread waited for the interpreter's lock.
        request = _library.Prepare(domains=domains, flags=_library.TIMED, attempt=attempt)
        if _library.prepare(request, wait=False) != errno.ETIMEDOUT:
            return True
        attempt = min(attempt + 1, MOST_ATTEMPTS)


def _fork(domains, call, args, kwargs):
    attempt = 0
    while True:
        repeatable = _take_ticket_to_fork(domains, attempt)
        retries = _library.retries()
        before = retries.value
        try:
            retries.value = 1
            child = call(*args, **kwargs)
            if not repeatable or _outcome() != _library.EXPIRED or child in (0, (0, -1)):
                return child
            _discard(child)
        except BlockingIOError:
            if not repeatable or _outcome() not in (_library.EXPIRED, _library.TIMEOUT):
                raise
        finally:
            retries.value = before
            _library.release()
        attempt = min(attempt + 1, MOST_ATTEMPTS)


def _discard(child):
    """The ticket of this child has expired, and it knows and ends by itself."""
    if isinstance(child, tuple):        # of forkpty()
        child, fd = child
        os.close(fd)
    try:
        os.waitpid(child, 0)
    except ChildProcessError:           # somebody else did, or SIGCHLD is ignored
        pass


def _reusable(value):
    """What can be gone through once only, but may be needed for the next attempt"""
    return list(value) if hasattr(value, '__next__') else value


def _replacement(call, domains_of):
    @functools.wraps(call)
    def fork(*args, **kwargs):
        args = [_reusable(value) for value in args]
        kwargs = {name: _reusable(value) for name, value in kwargs.items()}
        return _fork(domains_of(args), call, args, kwargs)

    fork.forkgate = True
    return fork


def _copies_all(args):
    return MEMORY | FILES


def _copies_files(args):
    return FILES


def _copies_of_fork_exec(args):
    """It is a vfork() unless there is something to do in the child that needs more."""
    gid, gids, uid = args[17:20] if len(args) == 23 else (0, 0, 0)
    if gid is gids is uid is None and args[21] is None and args[22]:
        return FILES
    return MEMORY | FILES


def _replace(module, name, domains_of):
    call = getattr(module, name, None)
    if call and not hasattr(call, 'forkgate'):
        setattr(module, name, _replacement(call, domains_of))


def _before():
    """Of a fork that the functions above do not make; as long as the library would wait"""
    if not _library.retries().value and not _library.init(0):
        policy = _library.policy()
        take_ticket(MEMORY | FILES, timeout=min(policy.timeout, policy.backstop))


def _after():
    if not _library.retries().value:
        _library.release()


def install():
    """Replace the functions that fork; once, however often this is called."""
    if hasattr(posix.fork, 'forkgate'):
        return
    for name, domains_of in (('fork', _copies_all), ('forkpty', _copies_all),
                             ('posix_spawn', _copies_files), ('posix_spawnp', _copies_files)):
        _replace(posix, name, domains_of)
        setattr(os, name, getattr(posix, name))
    _replace(_posixsubprocess, 'fork_exec', _copies_of_fork_exec)
    subprocess = sys.modules.get('subprocess')
    if hasattr(subprocess, '_fork_exec'):
        subprocess._fork_exec = _posixsubprocess.fork_exec
    os.register_at_fork(before=_before, after_in_parent=_after)
