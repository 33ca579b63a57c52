#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""
A Python program that knows nothing of forkgate: threads log while another one
forks, and each child logs too. Prints how many children hung, and of how many.
"""
import logging
import os
import signal
import sys
import syslog
import threading

MAX_BAD = 20        # that are enough to see
MAX_CHILDREN = 20   # at a time
HUNG_SECONDS = 20


class Syslog(logging.Handler):
    """To the system's log, by the C library and without Python's global lock"""

    def emit(self, record):
        syslog.syslog(syslog.LOG_DEBUG, self.format(record))


def work(stop):
    while not stop.is_set():
        logging.info('a thread is busy')


def child():
    signal.alarm(HUNG_SECONDS)
    logging.info('a child is busy')
    os._exit(0)


def child_hung():
    status = os.wait()[1]
    if status and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM):
        sys.exit(f'a child ended with status {status:#x}')
    return status != 0


def main():
    logging.basicConfig(level=logging.INFO, handlers=[Syslog()], format='%(asctime)s %(message)s')
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(stop,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    forks, done, bad, children = int(sys.argv[1]), 0, 0, 0
    while children or (done < forks and bad < MAX_BAD):
        if children == MAX_CHILDREN or done == forks or bad >= MAX_BAD:
            bad += child_hung()
            children -= 1
        elif os.fork():
            done += 1
            children += 1
        else:
            child()
    stop.set()
    for thread in threads:
        thread.join()
    print(bad, done)


main()
