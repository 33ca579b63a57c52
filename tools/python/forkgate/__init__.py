# SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
"""Fork-safe sections for Python, see forkgate-guide(7)

A thread in a section keeps the forks of its process waiting: those that would
copy what the section protects. Importing this package also makes the forks of
the interpreter wait in a way that stops no other thread. The words are those of
forkgate(7).

    with forkgate.section(forkgate.MEMORY):
        cache.update(changes)
"""
import functools
import os

from . import _forks, _library
from ._library import FILES, MEMORY
from ._lock import lock

__all__ = ['FILES', 'MEMORY', 'copy', 'label', 'lock', 'prepare', 'protection', 'release',
           'section']


class section:
    """A section around a block, or around each call of a function

    Nests, and can be used by several threads at a time, each of which is in a
    section of its own. The thread that enters has to leave: do not yield or
    await in the block.
    """

    __slots__ = ('_domains',)

    def __init__(self, domains):
        _library.check(domains)
        self._domains = domains

    def __enter__(self):
        _library.enter_section(self._domains)

    def __exit__(self, *exception):
        _library.leave(self._domains)

    def __call__(self, function):
        import inspect      # takes long, and most programs do not need it

        for kind in (inspect.isgeneratorfunction, inspect.iscoroutinefunction,
                     inspect.isasyncgenfunction):
            if kind(function):
                raise TypeError(f'{function!r} is left and entered again while it runs, perhaps '
                                'by another thread: mark blocks in it')

        @functools.wraps(function)
        def inside(*args, **kwargs):
            with self:
                return function(*args, **kwargs)

        return inside


def label(name):
    """Name the section that the thread is in, for "forkgate ps": up to 24 bytes"""
    _library.label(name.encode())


def prepare(domains=MEMORY | FILES):
    """Take a ticket, before code that forks without os.fork() and its kin: see forkgate_prepare(3)

    Waits until all other threads have left their sections, which then stay closed
    until the thread has forked, calls release(), or the ticket expires.
    """
    _library.check(domains)
    error = _forks.take_ticket(domains)
    if error:
        raise OSError(error, os.strerror(error))


def release():
    """Give back a ticket that was not used. Return: whether there was one."""
    return not _library.init(0) and not _library.release()


def protection():
    """Which gate protects sections of the thread: 'module', 'library', or None without one"""
    return (None, 'library', 'module')[_library.protection(None)]


def copy():
    """How the copy was made that this process is: 0 if safely, or FORKGATE_COPY_*"""
    return _library.copy()


_forks.install()
