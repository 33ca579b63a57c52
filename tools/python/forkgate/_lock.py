# SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
"""A lock that a child finds free, or owned by the thread that forked

A thread is inside a memory section as long as it holds the lock. It must not be
inside while it waits for the lock: if the forking thread holds that, each would
wait for the other. So, as in tools/preload/locks.c:

    W1  enter
    W2  try to take the lock; done if that works
    W3  leave
    W4  sleep until the lock may be free, and go on with W1

W4 takes nothing: each thread that waits has a lock of its own, in a queue. It is
in the queue before W2, and who unlocks looks at the queue after that, so that no
wake-up is lost.
"""
import collections
import os
import time
from _thread import TIMEOUT_MAX, allocate_lock, get_ident

from . import _library
from ._library import MEMORY

# A child has no waiters: those of other generations are not woken.
_generation = 0


class lock:
    """Like threading.Lock, but only the thread that has taken it can release it"""

    def __init__(self):
        self._lock = allocate_lock()
        self._owner = None
        self._waiters = collections.deque()

    def acquire(self, blocking=True, timeout=-1):
        """As threading.Lock.acquire(); one that is not to wait does not wait for a fork either"""
        if timeout != -1:
            if not blocking:
                raise ValueError("can't specify a timeout for a non-blocking call")
            if timeout < 0:
                raise ValueError('timeout value must be a non-negative number')
            if timeout > TIMEOUT_MAX:
                raise OverflowError('timeout value is too large')
        return self._try(blocking) or (bool(blocking) and self._wait(timeout))

    def _try(self, blocking):
        """W1 to W3"""
        if _library.tryenter(MEMORY):
            if not blocking:
                return False
            # A fork keeps this thread out. Another one that waits may be inside sections, and be
            # what the fork waits for.
            self._wake()
            _library.enter_section(MEMORY)
        if self._lock.acquire(False):
            self._owner = get_ident()
            return True
        _library.leave(MEMORY)
        return False

    def _wait(self, timeout):
        end = time.monotonic() + timeout
        taken = False
        entry = None
        try:
            while True:
                waiter = allocate_lock()
                waiter.acquire()
                entry = _generation, waiter
                self._waiters.append(entry)
                taken = self._try(True)
                if taken:
                    return True
                if not waiter.acquire(True, -1 if timeout == -1 else
                                      max(0, end - time.monotonic())):
                    return False
        finally:
            self._remove(entry)
            if not taken:       # a wake-up that came too late is for another
                self._wake()

    def _remove(self, entry):
        try:
            self._waiters.remove(entry)
        except ValueError:
            pass

    def _wake(self):
        """Whoever waits longest"""
        while True:
            try:
                generation, waiter = self._waiters.popleft()
            except IndexError:
                return
            if generation == _generation:
                waiter.release()
                return

    def release(self):
        """As threading.Lock.release()"""
        if self._owner != get_ident():
            raise RuntimeError('release of a lock that this thread has not taken')
        self._owner = None
        self._lock.release()
        _library.leave(MEMORY)
        self._wake()

    def locked(self):
        """As threading.Lock.locked()"""
        return self._lock.locked()

    __enter__ = acquire

    def __exit__(self, *exception):
        self.release()

    def __repr__(self):
        return f'<{"locked" if self.locked() else "unlocked"} forkgate.lock at {id(self):#x}>'


def _in_child():
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_in_child)
