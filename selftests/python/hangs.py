# SPDX-License-Identifier: GPL-2.0-only
"""Programs whose children hang, one for each row of ./table

    hangs.py ROW FORKS plain|import|sections

Threads do something all the time, and children do it once. Prints how many of
them hung, of how many, and how long the longest call that made one took, in ms.
With "sections" the threads do it in a memory section. Must not use a lock that is
not the row's where a child could hang in it.
"""
import concurrent.futures
import contextlib
import importlib
import logging
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import syslog
import tempfile
import threading
import time

HUNG_SECONDS = 5 * int(os.environ.get('KSELFTEST_SLOW', '1'))
MAX_CHILDREN = 20       # at a time
THREADS = 3

_, row, forks, variant = sys.argv
forks = int(forks)
slow = row in ('pool', 'futures', 'subprocess')     # one that hangs stops the program
max_bad = 5 if slow else 20                         # that are enough to see
if variant != 'plain':
    import forkgate
section = forkgate.section(forkgate.MEMORY) if variant == 'sections' else contextlib.nullcontext()

folder = tempfile.TemporaryDirectory()
output = open(os.path.join(folder.name, 'output'), 'w')
lock = threading.Lock()
items = queue.Queue()


def use_lock():
    with lock:
        sum(range(500))


def use_logging():
    logging.warning('busy')


def use_import():
    sys.modules.pop('slow', None)
    with contextlib.suppress(KeyError):     # another thread has just done that
        importlib.import_module('slow')


def use_print():
    print('busy', file=output, flush=True)


def use_queue():
    items.put(1)
    items.get()


class Syslog(logging.Handler):
    def emit(self, record):
        syslog.syslog(syslog.LOG_DEBUG, self.format(record))


USES = {'logging': use_logging, 'syslog': use_logging, 'import': use_import, 'print': use_print,
        'queue': use_queue}
use = USES.get(row, use_lock)


def work(stop):
    while not stop.is_set():
        with section:
            use()


def child_by_fork():
    pid = os.fork()
    if not pid:
        signal.alarm(HUNG_SECONDS)
        use()
        os._exit(0)
    return pid


def preexec():
    signal.alarm(HUNG_SECONDS)
    use()


def child_by_subprocess():
    """It returns when the child executes the program: a child that hangs stops the parent, too."""
    return subprocess.Popen(['/bin/true'], preexec_fn=preexec)


def in_pool(_):
    use()


def by_pool():
    """All of the pool's children, none of which may hang"""
    with multiprocessing.get_context('fork').Pool(2) as pool:
        try:
            pool.map_async(in_pool, range(4), chunksize=1).get(HUNG_SECONDS)
        except multiprocessing.TimeoutError:
            return True
    return False


def by_executor():
    context = multiprocessing.get_context('fork')
    executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
    futures = [executor.submit(in_pool, 0) for _ in range(4)]
    _, late = concurrent.futures.wait(futures, HUNG_SECONDS)
    for process in list(executor._processes.values()):
        process.kill()
    executor.shutdown(wait=True, cancel_futures=True)
    return bool(late)


def hung(child):
    return (child.wait() if row == 'subprocess' else os.waitpid(child, 0)[1]) != 0


class Clock:
    longest = 0

    def time(self, call):
        start = time.monotonic()
        result = call()
        self.longest = max(self.longest, time.monotonic() - start)
        return result


def count_children(make, clock):
    done = bad = 0
    children = []
    while children or (done < forks and bad < max_bad):
        if len(children) == MAX_CHILDREN or done == forks or bad >= max_bad:
            bad += hung(children.pop(0))
            continue
        children.append(clock.time(make))
        done += 1
    return bad, done


def count_calls(call, clock):
    done = bad = 0
    while done < forks // 4 and bad < max_bad:
        bad += clock.time(call)
        done += 1
    return bad, done


def main():
    with open(os.path.join(folder.name, 'slow.py'), 'w') as module:
        module.write('import time\ntime.sleep(0.001)\n')
    sys.path.insert(0, folder.name)
    sys.dont_write_bytecode = True
    if row == 'syslog':
        logging.basicConfig(handlers=[Syslog()], format='%(asctime)s %(message)s')
    else:
        logging.basicConfig(stream=output)
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(stop,)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    clock = Clock()
    if row == 'pool':
        bad, done = count_calls(by_pool, clock)
    elif row == 'futures':
        bad, done = count_calls(by_executor, clock)
    else:
        make = child_by_subprocess if row == 'subprocess' else child_by_fork
        bad, done = count_children(make, clock)
    stop.set()
    print(bad, done, round(clock.longest * 1000), flush=True)
    os._exit(0)


main()
