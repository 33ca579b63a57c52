# SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
"""libforkgate by ctypes, with what is needed here of <linux/forkgate.h>

Must not load a second copy of the library into a process that has one, and must
not import what takes long: every Python program under "forkgate run" does this.
"""
import ctypes
import errno
import os

MEMORY = 1
FILES = 2
TIMED = 4                       # FORKGATE_TIMED
FOREVER = 2**64 - 1
EXPIRED, TIMEOUT, UNSAFE = 2, 3, 5      # FORKGATE_OUTCOME_*


class Slot(ctypes.Structure):
    """struct forkgate_slot"""
    _fields_ = [('depth', ctypes.c_uint32 * 2), ('site', ctypes.c_uint64),
                ('label_site', ctypes.c_uint64), ('label', ctypes.c_char * 24),
                ('tid', ctypes.c_uint32), ('outcome', ctypes.c_uint32),
                ('tries', ctypes.c_uint32), ('reserved', ctypes.c_uint32)]


class Prepare(ctypes.Structure):
    """struct forkgate_prepare"""
    _fields_ = [('domains', ctypes.c_uint32), ('flags', ctypes.c_uint32),
                ('timeout', ctypes.c_uint64), ('attempt', ctypes.c_uint32),
                ('outcome', ctypes.c_uint32)]


class Policy(ctypes.Structure):
    """struct forkgate_policy"""
    _fields_ = [('patience', ctypes.c_uint64), ('ticket_hold', ctypes.c_uint64),
                ('timeout', ctypes.c_uint64), ('backstop', ctypes.c_uint64),
                ('on_timeout', ctypes.c_uint32), ('pad', ctypes.c_uint32)]


def _load():
    program = ctypes.CDLL(None)
    if hasattr(program, 'forkgate_enter'):      # preloaded, or linked
        return program
    try:
        return ctypes.CDLL('libforkgate.so.0')
    except OSError as error:
        raise ImportError('forkgate needs its C library, libforkgate.so.0: install it with '
                          '"make install-user", or set LD_LIBRARY_PATH to where it is '
                          f'({error})') from None


def _function(library, name, *arguments, result=ctypes.c_int):
    try:
        function = library[name]
    except AttributeError:
        raise ImportError(f'libforkgate is of another release: it has no {name}') from None
    function.argtypes = arguments
    function.restype = result
    return function


# What may wait gives the interpreter's lock back, as CDLL does. What does not wait keeps it: to
# get it again may take much longer than the call.
_waits = _load()
_quick = ctypes.PyDLL(None, handle=_waits._handle)

init = _function(_quick, 'forkgate_init', ctypes.c_uint)
enter = _function(_waits, 'forkgate_enter', ctypes.c_uint)
tryenter = _function(_quick, 'forkgate_tryenter', ctypes.c_uint)
leave = _function(_quick, 'forkgate_leave', ctypes.c_uint, result=None)
label = _function(_quick, 'forkgate_label', ctypes.c_char_p, result=None)
release = _function(_quick, 'forkgate_release')
protection = _function(_waits, 'forkgate_protection', ctypes.c_void_p)
copy = _function(_quick, 'forkgate_copy', result=ctypes.c_uint)
policy_get = _function(_quick, 'forkgate_policy_get', ctypes.c_void_p)
_call = _function(_quick, '__forkgate_call', ctypes.c_ulong, ctypes.c_void_p)
_call_and_wait = _function(_waits, '__forkgate_call', ctypes.c_ulong, ctypes.c_void_p)

# FORKGATE_IOC_PREPARE
_PREPARE = 3 << 30 | ctypes.sizeof(Prepare) << 16 | 0xfa << 8 | 5


def prepare(request, wait):
    """FORKGATE_IOC_PREPARE; the thread must have a gate. Return: an error number."""
    return (_call_and_wait if wait else _call)(_PREPARE, ctypes.addressof(request))


def check(domains):
    if domains not in (MEMORY, FILES, MEMORY | FILES):
        raise ValueError(f'domains are MEMORY, FILES or both, not {domains!r}')


def enter_section(domains):
    """forkgate_enter(), which mostly does not wait"""
    error = tryenter(domains)
    if error == errno.EBUSY:
        error = enter(domains)
    if error:
        raise OSError(error, os.strerror(error))


def policy():
    """Of the process, in a thread that has a gate"""
    result = Policy()
    policy_get(ctypes.addressof(result))
    return result


def slot():
    """Of the calling thread; None before its first section or ticket"""
    address = ctypes.c_void_p.in_dll(_quick, 'forkgate_self').value
    return Slot.from_address(address) if address else None


def retries():
    """What tells the library, in the calling thread, that a failed fork is tried again here"""
    return ctypes.c_uint.in_dll(_quick, '__forkgate_retries')


try:
    retries()
except ValueError:
    raise ImportError('libforkgate is of another release: it has no __forkgate_retries') from None
