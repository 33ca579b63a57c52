# SPDX-License-Identifier: GPL-2.0-only
"""Recipe of forkgate-guide(7): sections and locks in a Python program that forks.

Each scene stops one thread half-way and forks then; without the package each breaks.
Must not have anything in common with the recipe's lines but what these define.
"""
# guide: begin
import os
import subprocess

import forkgate

lock = forkgate.lock()
cache = {}
starts = forkgate.lock()


def lookup(key, make):
    with lock:                  # free in every child, or its own
        if key not in cache:
            cache[key] = make(key)
        return cache[key]


@forkgate.section(forkgate.MEMORY)
def transfer(source, target, amount):
    source.balance -= amount    # a child sees both or neither
    target.balance += amount


def build_and_run(path, write):
    with forkgate.section(forkgate.FILES):
        with open(path, 'wb') as program:
            write(program)      # no child keeps it open
    os.chmod(path, 0o755)
    with starts, forkgate.section(forkgate.FILES):  # one at a time, see below
        process = subprocess.Popen([path])  # and none keeps a pipe of this
    return process.wait()
# guide: end


import errno                    # noqa: E402
import signal                   # noqa: E402
import sys                      # noqa: E402
import tempfile                 # noqa: E402
import threading                # noqa: E402

HOLDS, BROKEN, TROUBLE = range(3)
HOLD = 2        # seconds, long for a fork that nothing holds up
LONG = 30       # for what has to happen


class Scene:
    """A thread that stops half-way until the other one has forked, but for no longer than HOLD"""

    def __init__(self, work):
        self.half_way, self.forked = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=work, args=(self,))

    def stop_half_way(self):
        self.half_way.set()
        self.forked.wait(HOLD)

    def fork(self, child):
        """Its process id"""
        self.thread.start()
        if not self.half_way.wait(LONG):
            os._exit(TROUBLE)
        pid = os.fork()
        if not pid:
            child()
            os._exit(TROUBLE)
        self.forked.set()
        return pid


def outcome(pid):
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return BROKEN
    return os.waitstatus_to_exitcode(status)


def lock_is_free():
    def make(key):
        scene.stop_half_way()
        return key

    def child():
        signal.alarm(5)
        os._exit(HOLDS if lookup(1, make) == 1 else BROKEN)

    scene = Scene(lambda scene: lookup(1, make))
    return outcome(scene.fork(child))


class Account:
    def __init__(self, balance, before=int):
        self._balance, self._before = balance, before

    @property
    def balance(self):
        return self._balance

    @balance.setter
    def balance(self, value):
        self._before()
        self._balance = value


def change_is_whole():
    def child():
        os._exit(HOLDS if source.balance + target.balance == 100 else BROKEN)

    scene = Scene(lambda scene: transfer(source, target, 1))
    source, target = Account(100), Account(0, scene.stop_half_way)
    return outcome(scene.fork(child))


def program_can_be_run():
    def work(scene):
        def write(program):
            program.write(b'#!/bin/sh\n')
            scene.stop_half_way()

        try:
            results.append(build_and_run(os.path.join(folder, 'program'), write))
        except OSError as error:        # "Text file busy"
            results.append(BROKEN)
            print(f'# {error}')

    results = []
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(work)
        # a worker of the program, which lives for long and executes nothing
        worker = scene.fork(signal.pause)
        scene.thread.join()
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    return results[0] if results else TROUBLE


def starts_make_no_circle():
    def write(program):
        program.write(b'#!/bin/sh\n')

    def build(number):
        for _ in range(25):
            try:
                build_and_run(os.path.join(folder, str(number)), write)
            except OSError as error:
                if error.errno == errno.EDEADLK:
                    circles.append(error)

    circles = []
    with tempfile.TemporaryDirectory() as folder:
        threads = [threading.Thread(target=build, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return not circles


def main():
    signal.alarm(3 * LONG)
    outcomes = [scene() for scene in (lock_is_free, change_is_whole, program_can_be_run)]
    print(f'# lock, change, program: {outcomes} ({HOLDS} holds, {BROKEN} is broken)')
    if not starts_make_no_circle():
        print('# threads that start programs wait for each other')
        sys.exit(TROUBLE)
    sys.exit(outcomes[0] if len(set(outcomes)) == 1 else TROUBLE)


main()
