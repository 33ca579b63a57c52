#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The command forkgate and a situation that scene.c makes: what it says of it.

Needs the module and root. Nobody else may use gates meanwhile.
"""

import contextlib
import ctypes
import errno
import fcntl
import glob
import gzip
import json
import mmap
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time
import xml.etree.ElementTree

from tap import (FORKGATE, LIMIT, NOBODY, check, elsewhere, forbid, main, no_module_here, promtool, run, test,
                 wait_for)

LABEL = 'archive <1> & "2"'
TRACING = "/sys/kernel/tracing"
SCENE = os.environ["SCENE"]
NEWER = os.environ["NEWER"]


class Scene:
    """A process in which a fork waits for a holder, and a newcomer for the fork"""

    def __init__(self, *args, command=(SCENE,)):
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen([*command, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)

    def __enter__(self):
        assert select.select([self.process.stdout], [], [], LIMIT)[0], "the scene does not come about"
        words = self.process.stdout.readline().split()
        assert words and words[0] == "ready", words
        self.tgid, self.holder, self.forker, self.newcomer = map(int, words[1:])
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        assert self.process.wait(LIMIT) == 0, "the fork failed"
        self.process.stdout.close()


def write(path, text):
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def child_names(pid):
    names = []
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for child in file.read().split():
            with open(f"/proc/{child}/comm", encoding="ascii") as comm:
                names.append(comm.read().strip())
    return names


def instances():
    return [name for name in os.listdir(TRACING + "/instances") if name.startswith("forkgate-trace")]


#
# ps
#


@test
def ps_shows_who_waits_for_whom():
    with Scene() as scene:
        output = check(run("ps"), 0)
    assert re.search(rf"^ *{scene.tgid} scene .*4 threads.*closed for .*memory,files", output, re.M), output
    assert re.search(rf'^  prepare +{scene.forker} fork \\"er +waits .* for memory,files$', output, re.M), output
    assert re.search(rf'^    blocked by {scene.holder} holder in "{re.escape(LABEL)}" at hold_archive\+0x[0-9a-f]+ '
                     r"\(scene\)$", output, re.M), output
    assert re.search(rf"^  inside +{scene.holder} holder +memory, ", output, re.M), output
    assert re.search(rf"^  enters +{scene.newcomer} newcomer +waits .* for memory$", output, re.M), output
    assert "\033" not in output, "colours in a pipe"


@test
def ps_names_a_raw_clone_fork():
    with Scene("raw") as scene:
        output = check(run("ps"), 0)
    assert re.search(rf'^  fork +{scene.forker} ', output, re.M), output


@test
def ps_without_label_names_the_function():
    with Scene("nolabel") as scene:
        output = check(run("ps"), 0)
    assert re.search(rf"blocked by {scene.holder} holder in hold_archive\+0x[0-9a-f]+ \(scene\)$", output, re.M), output


@test
def ps_keeps_control_characters_from_the_terminal():
    """U+009B begins an escape sequence, as ESC [ does"""
    with tempfile.TemporaryDirectory() as folder:
        for name in "a\u009b31m\u00e9", "a\033[31m\u00e9":
            with Scene(command=(shutil.copy(SCENE, f"{folder}/{name}"),)):
                output = check(run("ps"), 0)
            assert re.search(r"^ *[0-9]+ a\?[?[]31m\u00e9 ", output, re.M), repr(output)
            # The file has that name too.
            assert re.search(r"\+0x[0-9a-f]+ \(a\?[?[]31m\u00e9\)$", output, re.M), repr(output)
            assert "\033" not in output and "\u009b" not in output, repr(output)


@test
def ps_in_json():
    with Scene() as scene:
        gates = json.loads(check(run("ps", "--json"), 0))["gates"]
    assert len(gates) == 1, gates
    gate = gates[0]
    assert gate["tgid"] == scene.tgid and gate["comm"] == "scene", gate
    assert gate["closed"] == ["memory", "files"] and gate["closed_ns"] > 0, gate
    assert gate["threads"] == 4 and gate["blocked"] == 1 and gate["complete"] is True, gate
    assert gate["counters"]["phases"] == 2 and gate["counters"]["timeouts"] == 0, gate
    assert gate["policy"] == {"patience": None, "ticket_hold": 3600000000000, "timeout": None, "backstop": None,
                              "on_timeout": "fail"}, gate
    fork, = gate["forks"]
    assert fork["tid"] == scene.forker and fork["comm"] == 'fork \\"er' and fork["ticket"] is True, fork
    assert fork["state"] == "draining" and fork["need"] == ["memory", "files"] and fork["wait_ns"] > 0, fork
    assert fork["blocked_by"] == [scene.holder], fork
    holder, = gate["inside"]
    assert holder["tid"] == scene.holder and holder["domains"] == ["memory"], holder
    assert holder["depth"] == {"memory": 1, "files": 0} and holder["label"] == LABEL, holder
    assert holder["symbol"].startswith("hold_archive+0x") and int(holder["site"], 16) > 0, holder
    entry, = gate["entering"]
    assert entry["tid"] == scene.newcomer and entry["domains"] == ["memory"], entry
    assert entry["nested"] is False and entry["wait_ns"] > 0, entry


@test
def ps_does_not_blame_the_forker():
    with Scene("own") as scene:
        gate, = json.loads(check(run("ps", "--json"), 0))["gates"]
        text = check(run("ps"), 0)
    assert {holder["tid"] for holder in gate["inside"]} == {scene.holder, scene.forker}, gate
    assert gate["forks"][0]["blocked_by"] == [scene.holder], gate
    assert text.count("blocked by") == 1 and "and " + str(scene.forker) not in text, text


@test
def ps_without_gates():
    check(run("ps"), 0, "No process has a gate.")
    assert json.loads(check(run("ps", "--json"), 0)) == {"gates": []}


@test
def ps_of_some_processes():
    with Scene() as one, Scene() as two, subprocess.Popen(["true"]) as gone:
        gone.wait()
        assert shown_by_ps(one.tgid) == {one.tgid}
        assert shown_by_ps(two.tgid, one.tgid) == {one.tgid, two.tgid}
        text = check(run("ps", str(two.tgid)), 0, f"blocked by {two.holder}")
        assert str(one.tgid) not in text, text
        check(run("ps", str(gone.pid), str(two.tgid)), 1, f"blocked by {two.holder}", f"there is no process {gone.pid}")
        text = check(run("ps", str(os.getpid())), 1, f"process {os.getpid()} has no gate")
        assert not text, text
        check(run("ps", str(one.holder)), 1, f"{one.holder} is a thread of process {one.tgid}")
        assert json.loads(check(run("ps", "--json", str(gone.pid)), 1)) == {"gates": []}


def shown_by_ps(*pids):
    return {gate["tgid"] for gate in json.loads(check(run("ps", "--json", *map(str, pids)), 0))["gates"]}


CONTAINER = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")


@test
def ps_names_the_functions_of_a_container():
    """Where the program has the path that another one has here"""
    with tempfile.TemporaryDirectory() as folder:
        program = shutil.copy("/bin/true", folder + "/server")
        script = 'mount --bind "$1" "$2" && exec "$2" nolabel'
        with Scene(command=(*CONTAINER, "sh", "-c", script, "sh", SCENE, program)) as scene:
            assert scene.holder < 100, "no pid namespace"
            output = check(run("ps"), 0)
            gate, = json.loads(check(run("ps", "--json"), 0))["gates"]
    assert re.search(r"blocked by [0-9]+ holder in hold_archive\+0x[0-9a-f]+ \(server\)$", output, re.M), output
    assert gate["inside"][0]["symbol"].startswith("hold_archive+0x"), gate


def run_in_container(*args):
    return subprocess.run([*CONTAINER, FORKGATE, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=LIMIT, check=False)


@test
def ps_in_a_container_names_no_threads():
    with Scene() as scene:
        result = run_in_container("ps", str(scene.tgid))
        check(result, 0, f"blocked by {scene.holder}  in ", "the initial pid namespace")
        assert "hold_archive" not in result.stdout, result
        check(run_in_container("ps", "1"), 1, "no process 1 of the initial pid namespace has a gate")
    assert "namespace" not in run("ps").stderr


@test
def trace_in_a_container_says_where_to_run_it():
    with tempfile.TemporaryDirectory() as folder:
        check(run_in_container("trace", "-o", folder + "/t.svg", "touch", folder + "/ran"), 125, "initial pid namespace")
        assert not os.listdir(folder), os.listdir(folder)


@test
def ps_is_for_root():
    check(run("ps", user=NOBODY), 1, "only root")


#
# Files of programs, which any user may have written
#


@contextlib.contextmanager
def inside(path, places=1):
    """The command's words for ps where threads of this process, which maps a file, are inside sections there"""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        gates = f"gate tgid={os.getpid()}\n" + "".join(
            f" inside tid={os.getpid()} domains=memory site={start + i:#x}\n" for i in range(places))
        yield file, elsewhere(f"""
mount -t tmpfs none /sys/kernel/debug
mkdir /sys/kernel/debug/forkgate
cat >/sys/kernel/debug/forkgate/gates <<END
{gates}END
""")


@contextlib.contextmanager
def orphans_are_ours():
    """Processes whose parent does not wait for them become this one's children"""
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1)       # PR_SET_CHILD_SUBREAPER
    try:
        yield
    finally:
        libc.prctl(36, 0)


def names_of(before):
    """What ps calls these places"""
    gate, = json.loads(check(run("ps", "--json", before=before), 0))["gates"]
    return [holder["symbol"] for holder in gate["inside"]]


def write_elf(path, symbols):
    """A file with that many empty symbols, which take no room in it but time to look at"""
    table = 64 + 56 + 3 * 64
    names = table + symbols * 24
    with open(path, "wb") as file:
        file.write(struct.pack("16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 3, 62, 1, 0, 64, 120, 0, 64, 56, 1, 64, 3, 2))
        file.write(struct.pack("IIQQQQQQ", 1, 5, 0, 0, 0, table, table, 4096))
        file.write(bytes(64))
        file.write(struct.pack("IIQQQQIIQQ", 1, 2, 0, 0, table, symbols * 24, 2, 0, 8, 24))
        file.write(struct.pack("IIQQQQIIQQ", 9, 3, 0, 0, names, 17, 0, 0, 1, 0))
        file.seek(names)
        file.write(b"\0.symtab\0.strtab\0")


@test
def ps_opens_no_file_that_a_program_names():
    """One with debugging information, by a link that leads to a fifo. To open a device could do more than wait"""
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(folder + "/fifo")
        name = f"../root{folder}/fifo".encode() + b"\0"
        with open(folder + "/link", "wb") as link:
            link.write(name + bytes(-len(name) % 4) + b"\1\2\3\4")
        subprocess.run(["objcopy", "--strip-all", "--remove-section", ".note.gnu.build-id", "--add-section",
                        f".gnu_debuglink={folder}/link", SCENE, folder + "/evil"], check=True)
        with inside(folder + "/evil") as (_, before):
            assert names_of(before) == ["evil+0"]


@test
def ps_waits_for_no_lease():
    """Who maps a file may have a lease on it, which makes those wait who open it: here for ever"""
    limit = "/proc/sys/fs/lease-break-time"
    with open(limit, encoding="ascii") as file:
        old = file.read()
    write(limit, "0")
    ignored = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            with inside(shutil.copy(SCENE, folder)) as (file, before):
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
                assert names_of(before) == ["scene+0"]
    finally:
        signal.signal(signal.SIGIO, ignored)
        write(limit, old)


@test
def ps_unpacks_no_files():
    """As elfutils does with those of gzip; this one becomes a gigabyte"""
    with tempfile.NamedTemporaryFile() as file:
        file.write(gzip.compress(bytes(16 << 20)) * 64)
        file.flush()
        with inside(file.name) as (_, before), orphans_are_ours():
            names_of(before)
            # The one that looked the name up
            _, _, usage = os.wait4(-1, 0)
    assert usage.ru_maxrss < 700 << 10, f"{usage.ru_maxrss} KiB"


def who_maps(path):
    """A process that does so, besides this one"""
    for maps in glob.glob("/proc/[0-9]*/maps"):
        with contextlib.suppress(OSError), open(maps, encoding="utf-8", errors="replace") as file:
            if path in file.read() and maps != f"/proc/{os.getpid()}/maps":
                return os.path.dirname(maps)
    return None


@test
def ps_survives_a_file_that_shrinks():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = folder + "/elf"
        write_elf(path, 4000000)
        with inside(path) as (_, before):
            with subprocess.Popen(before + [FORKGATE, "ps"], stdout=subprocess.PIPE, text=True) as process:
                wait_for(lambda: who_maps(path))
                os.truncate(path, 100)
                output = process.communicate(timeout=LIMIT)[0]
    assert process.returncode == 0 and "memory, " in output, (process.returncode, output)


@test
def ps_reads_files_without_rights():
    """And within limits"""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = folder + "/elf"
        write_elf(path, 4000000)
        with inside(path) as (_, before):
            with subprocess.Popen(before + [FORKGATE, "ps"], stdout=subprocess.DEVNULL) as process:
                reader = wait_for(lambda: who_maps(path))
                with open(reader + "/status", encoding="ascii") as file:
                    status = dict(line.split(":", 1) for line in file)
                with open(reader + "/limits", encoding="ascii") as file:
                    limits = file.read()
                assert process.wait(timeout=LIMIT) == 0
    nobody = ["65534"] * 4
    assert status["Uid"].split() == nobody and status["Gid"].split() == nobody and not status["Groups"].split(), status
    assert not any(int(status[rights], 16) for rights in ("CapInh", "CapPrm", "CapEff", "CapAmb")), status
    assert int(status["NoNewPrivs"]) == 1, status
    assert re.search(r"cpu time +5 +5 ", limits) and re.search(f"address space +({512 << 20}) +\\1 ", limits), limits


@test
def ps_ends_in_spite_of_slow_files():
    """300 names that take a second or more each"""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        write_elf(folder + "/elf", 4000000)
        with inside(folder + "/elf", 300) as (_, before):
            names = names_of(before)
    assert len(names) == 300 and names[-1].startswith("0x"), names


#
# stat
#


def stat():
    return json.loads(check(run("stat", "--json"), 0))


@test
def stat_in_json_counts():
    before = stat()
    with Scene():
        now = stat()
        assert now["armed"] is True, now
        assert (now["gates"], now["threads"], now["inside"]) == (1, 4, 1), now
        assert (now["waiting_forks"], now["waiting_entries"]) == (1, 1), now
    after = stat()
    # The fork was tried before it prepared.
    for name, more in (("phases", 2), ("forks", 1), ("redirects", 2), ("timeouts", 0), ("unsafe", 0), ("bypasses", 0)):
        assert after["counters"][name] == before["counters"][name] + more, (name, before, after)
    for name, more in (("fork_wait", 1), ("entry_wait", 1), ("phase", 2)):
        old, new = before["histograms"][name], after["histograms"][name]
        assert new["count"] == old["count"] + more and new["sum_ns"] > old["sum_ns"], (name, old, new)
        assert sum(bucket["count"] for bucket in new["buckets"]) == new["count"], new
        limits = [bucket["below_ns"] or 1 << 64 for bucket in new["buckets"]]
        assert limits == sorted(limits), new
    assert after["gates"] == 0, after


@test
def stat_for_people():
    with Scene():
        pass
    check(run("stat"), 0, "The hook is armed.", "clones that passed a gate", "fork_wait: ", "on average")


@test
def stat_for_prometheus():
    types, helps, values = {}, set(), {}
    output = check(run("stat", "--prometheus"), 0)
    for line in output.splitlines():
        match = re.fullmatch(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)", line)
        if match and match[1] == "TYPE":
            assert match[2] not in types and match[3] in ("counter", "gauge", "histogram"), line
            types[match[2]] = match[3]
            continue
        if match:
            assert match[2] not in helps, line
            helps.add(match[2])
            continue
        match = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{le="([^"]+)"\})? ([0-9.e+-]+)', line)
        assert match, line
        family = re.sub(r"_(bucket|sum|count)$", "", match[1])
        assert (match[1] if match[1] in types else family) in types, f"no TYPE before {line}"
        values.setdefault(match[1], []).append((match[3], float(match[4])))
    assert helps == set(types), (helps, types)
    for name, kind in types.items():
        if kind == "counter":
            assert name.endswith("_total"), name
        if kind != "histogram":
            assert len(values[name]) == 1, name
            continue
        buckets = values[name + "_bucket"]
        assert buckets[-1][0] == "+Inf" and buckets[-1][1] == values[name + "_count"][0][1], buckets
        assert [float(le) for le, _ in buckets] == sorted(float(le) for le, _ in buckets), buckets
        assert [count for _, count in buckets] == sorted(count for _, count in buckets), buckets
    assert values["forkgate_module_loaded"] == values["forkgate_armed"] == [(None, 1.0)], values
    assert values["forkgate_fork_wait_seconds_count"][0][1] >= 1, values


@test
def metrics_pass_promtool():
    promtool("check", "metrics", stdin=check(run("stat", "--prometheus"), 0))


@test
def stat_is_for_root():
    check(run("stat", user=NOBODY), 1, "only root")


#
# check
#


@test
def check_finds_no_problem():
    output = check(run("check"), 0, "hook: armed and firing", "Forks wait for sections.")
    assert "PROBLEM" not in output, output


@test
def children_are_waited_for_where_sigchld_is_ignored():
    ignored = ("env", "--ignore-signal=CHLD")
    check(run("check", before=ignored), 0, "hook: armed and firing")
    # The program has it ignored as it would have without the command.
    signals = ("sed", "-n", "s/^SigIgn:.//p", "/proc/self/status")
    with tempfile.TemporaryDirectory() as folder:
        for command in ("run",), ("trace", "-o", folder + "/t.svg"):
            for before, bit in (ignored, 1), ((), 0):
                mask = int(check(run(*command, *signals, before=before), 0), 16)
                assert mask >> (signal.SIGCHLD - 1) & 1 == bit, f"{command}: SIGCHLD is ignored: {not bit}"


@test
def check_is_for_everybody():
    check(run("check", user=NOBODY), 0, "hook: armed and firing", "cannot be seen here")


def check_with(path, broken, good, *texts):
    write(path, broken)
    try:
        result = run("check")
    finally:
        write(path, good)
    check(result, 1, "hook: does not fire", *texts)
    check(run("check"), 0)


@test
def check_finds_ftrace_switched_off():
    check_with("/proc/sys/kernel/ftrace_enabled", "0", "1", "PROBLEM  kernel.ftrace_enabled is 0",
               "sysctl kernel.ftrace_enabled=1")


@test
def check_finds_kprobes_switched_off():
    check_with("/sys/kernel/debug/kprobes/enabled", "0", "1", "PROBLEM  /sys/kernel/debug/kprobes/enabled is 0",
               "echo 1 >/sys/kernel/debug/kprobes/enabled")


#
# check and run where the module is loaded, and cannot be used
#


PRIVATE_DEV = "mount -t tmpfs -o mode=755 none /dev"
CAGE = "/sys/fs/cgroup/forkgate-cage"


def mknod(number):
    """A private /dev whose forkgate has that number"""
    return f"{PRIVATE_DEV}; mknod -m 666 /dev/forkgate c {os.major(number)} {os.minor(number)}"


def device_number():
    return os.stat("/dev/forkgate").st_rdev


@test
def device_in_a_private_dev():
    no_module_here("device: the module is loaded, but this /dev has no forkgate", "Bind the host's to it",
                   before=elsewhere(PRIVATE_DEV))
    check(run("run", "--require-module", "true", before=elsewhere(mknod(device_number()))), 0)


@test
def device_in_a_container():
    """The advice has the device's number, which /proc and /sys both know"""
    for hidden in "/proc", "/sys":
        before = elsewhere(f"{PRIVATE_DEV}; mount -t tmpfs none {hidden}")
        before += ["setpriv", "--bounding-set", "-sys_module"]
        no_module_here("device: the module is loaded, but",
                       f"devices.allow = c 10:{os.minor(device_number())} rw", before=before, env={"container": "lxc"})


@test
def device_without_proc_and_sys():
    hidden = "mount -t tmpfs none /proc; mount -t tmpfs none /sys"
    no_module_here("device: no /dev/forkgate; without /proc and /sys the module cannot be seen",
                   before=elsewhere(f"{PRIVATE_DEV}; {hidden}"))
    check(run("check", before=elsewhere(hidden)), 0, "hook: armed and firing")
    check(run("run", "--require-module", "true", before=elsewhere(hidden)), 0)


@test
def device_of_an_earlier_module():
    """Its number has gone, or is another device's meanwhile"""
    for number in os.makedev(10, 300), os.stat("/dev/null").st_rdev:
        no_module_here(f"device: /dev/forkgate is {os.major(number)}:{os.minor(number)}, and the module's is 10:",
                       "start the container again", before=elsewhere(mknod(number)))


@test
def device_on_nodev():
    before = elsewhere(PRIVATE_DEV.replace("mode=", "nodev,mode=") + mknod(device_number()).removeprefix(PRIVATE_DEV))
    no_module_here("device: /dev/forkgate: Permission denied", "mounted nodev", before=before)


@test
def device_that_is_locked():
    os.chmod("/dev/forkgate", 0o600)
    try:
        no_module_here("device: /dev/forkgate: Permission denied", "60-forkgate.rules", user=NOBODY)
    finally:
        os.chmod("/dev/forkgate", 0o666)


def bpf(command, attributes):
    result = ctypes.CDLL(None, use_errno=True).syscall(321, command, attributes, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return result


@test
def device_forbidden_by_a_cgroup():
    """By a BPF program that forbids all devices, as managers of containers make"""
    code = ctypes.create_string_buffer(struct.pack("QQ", 0xb7, 0x95))     # r0 = 0; exit
    licence = ctypes.create_string_buffer(b"GPL")
    program = bpf(5, struct.pack("IIQQ", 15, 2, ctypes.addressof(code), ctypes.addressof(licence)) + bytes(48))
    os.mkdir(CAGE)
    try:
        cage = os.open(CAGE, os.O_RDONLY)
        bpf(8, struct.pack("IIII", cage, program, 6, 0))
        no_module_here("device: a device cgroup forbids /dev/forkgate", "DeviceAllow=/dev/forkgate rw",
                       preexec_fn=lambda: write(CAGE + "/cgroup.procs", "0"))
        os.close(cage)
    finally:
        os.rmdir(CAGE)
        os.close(program)


@test
def device_behind_a_filter():
    for number, name in (16, "ioctl"), (26, "msync"):
        no_module_here(f"device: a filter of system calls (seccomp) forbids {name}", "Allow ioctl and msync",
                       preexec_fn=lambda number=number: forbid(number, errno.EPERM))


@test
def device_of_a_newer_module():
    """One that keeps to what is compiled into programs is good for all; one that does not for none"""
    for env in {"NEWER_ABI": "2"}, {"NEWER_ABI": "7", "NEWER_FEATURES": "255"}:
        env["LD_PRELOAD"] = NEWER
        check(run("check", env=env), 0, f"module: loaded, version {env['NEWER_ABI']} of the interface")
        check(run("run", "--require-module", "--verbose", "true", env=env), 0, "protected by the module")
    for variable, value in ("NEWER_SLOT_SIZE", "128"), ("NEWER_MAP_SIZE", str(1 << 40)):
        no_module_here("module: too new", "of the module's release", env={"LD_PRELOAD": NEWER, variable: value})


@test
def device_of_an_older_module():
    """As one that stayed loaded when all else was upgraded: said also by a "run" that does without it"""
    for variable, value in ("NEWER_ABI", "0"), ("NEWER_ERROR", str(errno.ENOTTY)):
        env = {"LD_PRELOAD": NEWER, variable: value}
        no_module_here("module: too old", "modprobe -r forkgate && modprobe forkgate", env=env)
        check(run("run", "true", env=env), 0, "module: too old", "until it is replaced, the library is the gate")


@test
def check_finds_another_release():
    """As after an upgrade, while the module of the release before is still loaded, and as before one"""
    with tempfile.NamedTemporaryFile("w", encoding="ascii") as older:
        older.write("0.0\n")
        older.flush()
        subprocess.run(["mount", "--bind", older.name, "/sys/module/forkgate/version"], check=True)
        try:
            check(run("check"), 0, "note     module: release 0.0 is loaded", "modprobe -r forkgate && modprobe forkgate")
            write(older.name, "9999.0\n")
            output = check(run("check"), 0, "note     module: release 9999.0 is loaded", "Upgrade the command and the lib")
            assert "modprobe -r" not in output, output
        finally:
            subprocess.run(["umount", "/sys/module/forkgate/version"], check=True)
    assert "is loaded, and this command" not in check(run("check"), 0)


#
# watch, in a terminal of its own
#


class Terminal:
    """The command in a terminal: all that it printed, and what is on the screen"""

    def __init__(self, *args, command=(FORKGATE,), env=None, size=(50, 200)):
        self.pid, self.fd = pty.fork()
        if not self.pid:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            os.environ.update({"TERM": "xterm", **(env or {})})
            os.execvp(command[0], [*command, *args])
        self.text = ""
        self.rows, self.columns = size

    def read(self, seconds=0.1):
        if not select.select([self.fd], [], [], seconds)[0]:
            return self.text
        try:
            self.text += os.read(self.fd, 65536).decode(errors="replace")
        except OSError:		# the other side is gone
            time.sleep(seconds)
        return self.text

    def expect(self, text):
        wait_for(lambda: text in self.read())

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def screen(self):
        """The rows of the last whole picture that has the size of the terminal, without colours"""
        for picture in reversed(self.text.split("\033[H")[1:]):
            lines = re.sub(r"\033\[[?0-9;]*[a-zA-Z]", "", picture).split("\r\n")
            if len(lines) == self.rows and picture.rpartition("\r\n")[2].count("\033[?25l"):
                return lines
        return [""] * self.rows

    def until(self, condition):
        """Until the screen, as a list of rows, is as it should be; the screen"""
        try:
            return wait_for(lambda: self.read() and condition(self.screen()) and self.screen())
        except AssertionError:
            raise AssertionError("\n".join(self.screen())) from None

    def is_raw(self):
        return not termios.tcgetattr(self.fd)[3] & (termios.ICANON | termios.ECHO)

    def is_cooked(self):
        flags = termios.ICANON | termios.ECHO
        return termios.tcgetattr(self.fd)[3] & flags == flags

    def quit(self):
        self.type("q")
        assert self.status() == 0

    def status(self):
        def ended():
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return pid and [os.waitstatus_to_exitcode(status)]
        result = wait_for(ended)[0]
        try:
            while select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 65536).decode(errors="replace")
        except OSError:		# that was all
            pass
        return result


def watch(**more):
    return Terminal("watch", "-d", "0.1", **more)


def in_row(texts, number=-1):
    """In one row, by default the last one, are all of these"""
    return lambda screen: all(text in screen[number] for text in texts)


def gates_on(screen):
    """The process ids of the gates on a screen, from top to bottom"""
    return [int(row.split()[0]) for row in screen if re.match(r" *[0-9]+ .* so far, ", row)]


def watch_ends(end):
    with Scene() as scene:
        terminal = watch()
        terminal.expect(f"blocked by {scene.holder} holder")
        terminal.expect("gates: 1, with waiting forks: 1")
        assert terminal.is_raw()
        end(terminal)
        assert terminal.status() == 0
        assert terminal.is_cooked(), "the terminal stays raw"
    assert "\033[?1049h" in terminal.text, terminal.text
    assert terminal.text.endswith("\033[?1049l"), terminal.text[-100:]
    assert "\033[?25h" in terminal.text, "no cursor"


@test
def watch_ends_by_q():
    watch_ends(lambda terminal: terminal.type("q"))


@test
def watch_ends_by_interrupt():
    watch_ends(lambda terminal: terminal.type("\003"))


@test
def watch_ends_by_quit():
    watch_ends(lambda terminal: terminal.type("\034"))


@test
def watch_ends_by_sigterm():
    watch_ends(lambda terminal: os.kill(terminal.pid, signal.SIGTERM))


@test
def watch_ends_by_sighup():
    watch_ends(lambda terminal: os.kill(terminal.pid, signal.SIGHUP))


@test
def watch_ends_while_it_is_paused():
    def end(terminal):
        terminal.type("p")
        terminal.until(in_row(["p go on"]))
        os.kill(terminal.pid, signal.SIGTERM)
    watch_ends(end)


@test
def watch_is_live():
    terminal = watch()
    terminal.expect("No process has a gate.")
    with Scene() as scene:
        terminal.until(lambda screen: gates_on(screen) == [scene.tgid])
    terminal.until(in_row(["No process has a gate."], 2))
    terminal.quit()


def stopped(terminal):
    return wait_for(lambda: os.waitpid(terminal.pid, os.WUNTRACED | os.WNOHANG)[0]) == terminal.pid


@test
def watch_can_be_suspended():
    terminal = watch()
    terminal.expect("No process has a gate.")
    terminal.type("\x1a")
    assert stopped(terminal)
    wait_for(lambda: terminal.read().endswith("\033[?1049l"))
    assert terminal.is_cooked()
    terminal.text = ""
    os.kill(terminal.pid, signal.SIGCONT)
    terminal.until(in_row(["No process has a gate."], 2))
    assert terminal.text.count("\033[?1049h") == 1 and terminal.text.startswith("\033[?1049h"), terminal.text
    assert terminal.is_raw()
    terminal.quit()
    assert terminal.is_cooked()


@test
def watch_goes_on_after_sigstop():
    """Which it does not see; whoever had the terminal meanwhile may have left it cooked"""
    terminal = watch()
    terminal.expect("No process has a gate.")
    terminal.type("p")
    terminal.until(in_row(["p go on"]))
    cooked = termios.tcgetattr(terminal.fd)
    cooked[3] |= termios.ICANON | termios.ECHO
    os.kill(terminal.pid, signal.SIGSTOP)
    assert stopped(terminal)
    termios.tcsetattr(terminal.fd, termios.TCSANOW, cooked)
    terminal.text = ""
    os.kill(terminal.pid, signal.SIGCONT)
    terminal.until(in_row(["p go on"]))
    assert terminal.text.startswith("\033[?1049h"), terminal.text
    assert terminal.is_raw()
    terminal.quit()


@test
def watch_fits_into_the_terminal():
    with Scene() as scene:
        terminal = watch()
        screen = terminal.until(lambda screen: f"{scene.newcomer} newcomer" in "".join(screen))
        lines = 2 + sum(map(bool, screen[2:-1]))
        for rows, columns in ((5, 30), (lines, 60), (2, 10), (1, 5)):
            terminal.resize(rows, columns)
            terminal.text = ""
            screen = terminal.until(any)
            assert all(len(row) <= columns for row in screen), screen
            assert "s sort: wait  / filter: none  p pause  q quit".startswith(screen[-1][:columns - 1]), screen
            assert rows == 1 or screen[-1][-1] == ">" or columns == 60, screen
            if rows > 2:
                hint = f"{lines - rows + 2} more lines; enlarge the window or filter"
                assert screen[-2] == (hint if len(hint) <= columns else hint[:columns - 1] + ">"), screen
                assert in_row(["forkgate watch "], 0)(screen), screen
                assert any(row[-1:] == ">" and len(row) == columns for row in screen[:-2]), screen
        terminal.resize(lines + 1, 200)
        terminal.text = ""
        screen = terminal.until(any)
        assert "more line" not in "".join(screen) and ">" not in screen[-2], screen
        terminal.quit()


class Others:
    """Three processes with gates: "zz" has waited longest, "sh" has forked, and "aa" came last"""

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            self.zz = stack.enter_context(Scene(command=(shutil.copy(SCENE, folder + "/zz"),))).tgid
            process = stack.enter_context(subprocess.Popen(
                [FORKGATE, "run", "sh", "-c", "/bin/true; /bin/true; echo ready; read end"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE))
            assert process.stdout.readline() == b"ready\n"
            self.sh = process.pid
            self.aa = stack.enter_context(Scene(command=(shutil.copy(SCENE, folder + "/aa"),))).tgid
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self.stack.close()


@test
def watch_sorts():
    with Others() as others:
        terminal = watch()
        three = [others.zz, others.sh, others.aa]
        for name, order in (("wait", [others.zz, others.aa, others.sh]), ("pid", sorted(three)),
                            ("name", [others.aa, others.sh, others.zz]), ("forks", [others.sh, others.zz, others.aa]),
                            ("wait", [others.zz, others.aa, others.sh])):
            screen = terminal.until(in_row([f"s sort: {name} "]))
            assert gates_on(screen) == order, (name, order, screen)
            terminal.type("s")
        terminal.quit()


@test
def watch_filters():
    with Others() as others:
        terminal = watch()
        terminal.until(in_row(["/ filter: none "]))
        terminal.type("/zq\177")
        screen = terminal.until(in_row(["filter by name or pid: z_"]))
        assert gates_on(screen) == [others.zz], screen
        terminal.type("\n")
        screen = terminal.until(in_row(["/ filter: z "]))
        assert gates_on(screen) == [others.zz] and "gates: 3" in screen[0], screen
        terminal.type("/\033")
        screen = terminal.until(in_row(["/ filter: none "]))
        assert len(gates_on(screen)) == 3, screen
        terminal.type(f"/{others.sh}\n")
        screen = terminal.until(in_row([f"/ filter: {others.sh} "]))
        assert gates_on(screen) == [others.sh], screen
        # Keys are text while one types; an arrow is not
        terminal.type("/")
        terminal.until(in_row([f"pid: {others.sh}_"]))
        terminal.type("\033[A\u00e9q\033[1;5D")
        terminal.until(in_row([f"pid: {others.sh}\u00e9q_"]))
        terminal.type("\177\177" + "0")
        screen = terminal.until(in_row([f"pid: {others.sh}0_"]))
        assert screen[2] == "No gate passes the filter.", screen
        terminal.type("\n")
        terminal.quit()


@test
def watch_pauses():
    terminal = watch()
    with Scene() as scene:
        terminal.until(lambda screen: gates_on(screen) == [scene.tgid])
        terminal.type("p")
        before = terminal.until(in_row(["p go on"]))
        assert "(paused)" in before[0], before
    # Drawn again, but not looked at again: the process is gone
    terminal.type("s")
    screen = terminal.until(in_row(["s sort: pid "]))
    assert screen[:-1] == before[:-1], (before, screen)
    terminal.type(" ")
    screen = terminal.until(in_row(["p pause"]))
    assert not gates_on(screen) and "(paused)" not in screen[0], screen
    terminal.quit()


@test
def watch_in_a_container_says_where_to_run_it():
    terminal = watch(command=(*CONTAINER, FORKGATE))
    terminal.until(in_row(["Run this in the initial pid namespace"], 1))
    terminal.quit()


@test
def watch_says_why_it_ends():
    terminal = watch()
    terminal.expect("No process has a gate.")
    subprocess.run(["umount", "--lazy", "/sys/kernel/debug"], check=True)
    try:
        assert terminal.status() == 1
    finally:
        subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], check=True)
    assert terminal.is_cooked()
    said = terminal.text.split("\033[?1049l")[-1]
    assert "does not exist" in said and "Mount debugfs: mount -t debugfs" in said, terminal.text


def without_times(text):
    return re.sub("[0-9.e+]+ [mun]?s", "", text)


@test
def colours_on_a_terminal_alone():
    with Scene():
        terminal = Terminal("ps")
        assert terminal.status() == 0
        assert "\033[1;31mwaits " in terminal.text, terminal.text
        coloured = re.sub(r"\033\[[0-9;]*m", "", terminal.text)
        for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            terminal = Terminal("ps", env=env)
            assert terminal.status() == 0
            assert "\033" not in terminal.text, terminal.text
            # Nothing is said by a colour alone
            assert without_times(terminal.text) == without_times(coloured)
        terminal = watch(env={"NO_COLOR": "1"})
        terminal.expect("q quit")
        terminal.quit()
        assert not re.search(r"\033\[[0-9;]*m", terminal.text), terminal.text


#
# trace
#


def titles(path):
    tree = xml.etree.ElementTree.parse(path)
    return [element.text for element in tree.iter("{http://www.w3.org/2000/svg}title")]


def has(texts, pattern):
    assert any(re.search(pattern, text) for text in texts), f"no {pattern} in {texts}"


def luminance(colour):
    """Of WCAG 2: 0 of black, 1 of white"""
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[i:i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def can_be_printed(picture):
    """As wide as A4 without margins of 1 cm, and in black and white"""
    style = {name: dict(value.split(": ") for value in values.strip().split("; ")) for name, values in
             re.findall(r"^([a-z.]+) {([^{}]*)}", picture.replace(";\n", "; "), re.M)}
    width = float(re.search(r'viewBox="0 0 ([0-9]+) ', picture)[1])
    sizes = [int(size) for size in re.findall(r"font(?:-size)?: ([0-9]+)px", picture)]
    assert len(sizes) == 3 and min(sizes) / width * 190 / 25.4 * 72 >= 8, (sizes, width)
    # Text, on white or with a white seam; that of a copy is on the copy
    assert contrast(style[".in"]["fill"], style[".copy"]["fill"]) >= 7, style
    for name in "text", ".d", ".m":
        assert contrast(style[name]["fill"], "#fff") >= 7, (name, style)
    # Bars have stripes of their own, or are much darker or lighter than others without any
    stripes = {name: style.get(f".{name}.stripes", {}).get("stroke-dasharray")
               for name in ("band", "seen", "entry", "wait", "failed", "ticket", "copy")}
    assert set(re.findall(r'"(?:[a-z]+) stripes"', picture)) == {f'"{name} stripes"' for name in stripes if stripes[name]}
    for one, dashes in stripes.items():
        for other in stripes:
            assert one == other or stripes[other] != dashes or \
                contrast(style["." + one]["fill"], style["." + other]["fill"]) >= 1.5, (one, other, style)


@test
def trace_draws_a_fork_that_waited():
    with tempfile.TemporaryDirectory() as folder:
        result = run("trace", "-o", folder + "/t.svg", "--perfetto", folder + "/t.json", SCENE, "auto")
        check(result, 0, "1 fork waited", folder + "/t.svg and " + folder + "/t.json")
        tgid, holder, forker, newcomer = map(int, result.stdout.split()[1:])
        shown = titles(folder + "/t.svg")
        with open(folder + "/t.svg", encoding="utf-8") as file:
            picture = file.read()
        with open(folder + "/t.json", encoding="utf-8") as file:
            events = json.load(file)["traceEvents"]
    has(shown, r"^forkgate: .*/scene auto$")
    has(shown, r"^fork waits: prepare waits .* for memory,files$")
    has(shown, r"^waits to enter: waits .* to enter memory$")
    has(shown, r'^inside: "archive <1> & "2"" at hold_archive\+0x[0-9a-f]+ \(scene\)$')
    has(shown, r"^gate closed: closed for ")
    has(shown, r"^ticket: ")
    has(shown, r"^copy: ")
    has(shown, r"^child [0-9]+$")
    for name in (f"{holder} holder", f'{forker} fork \\&quot;er', f"{newcomer} newcomer", f"scene {tgid}"):
        assert name in picture, f"no lane {name}"
    can_be_printed(picture)

    for event in events:
        assert event["ph"] in "MXbei" and isinstance(event["pid"], int), event
    bars = {(event["name"], event["tid"]): event for event in events if event["ph"] == "X"}
    for bar in (("fork waits", forker), ("waits to enter", newcomer), ("inside", holder), ("copy", forker)):
        assert bars[bar]["pid"] == tgid and bars[bar]["dur"] >= 0, bars
    wait = bars["fork waits", forker]
    entry = bars["waits to enter", newcomer]
    assert wait["ts"] < entry["ts"] < wait["ts"] + wait["dur"], (wait, entry)
    assert {event["name"] for event in events if event["ph"] == "b"} == {"gate closed"}, events
    names = {(event["name"], event["tid"], event["args"]["name"]) for event in events if event["ph"] == "M"}
    assert ("process_name", tgid, "scene") in names and ("thread_name", holder, "holder") in names, names


@test
def trace_of_words_that_are_no_xml():
    """The names of threads, which are anybody's, are printed by the same function"""
    with tempfile.TemporaryDirectory() as folder:
        check(run("trace", "-o", folder + "/t.svg", "true", "\x1b<&\ufffe\uffff\udcff\ufffd"), 0)
        has(titles(folder + "/t.svg"), "^forkgate: true \\?<&\\?{7}\ufffd$")


@test
def trace_draws_a_fork_that_waited_in_vain():
    before = stat()
    with tempfile.TemporaryDirectory() as folder:
        result = run("trace", "-o", folder + "/t.svg", SCENE, "timeout")
        check(result, 0, "1 fork waited")
        _, holder, forker, _ = map(int, result.stdout.split()[1:])
        shown = titles(folder + "/t.svg")
    section = re.escape(f'"{LABEL}" at hold_archive+0x') + "[0-9a-f]+"
    has(shown, rf"^fork waits in vain: waits .* for memory,files, in vain; thread {holder} is inside {section}")
    has(shown, r"^the wait of .* ended without a grant$")
    has(shown, rf"^thread {forker} gave up: this one was inside {section}")
    assert not any(text.startswith("copy") for text in shown), shown
    after = stat()
    assert after["counters"]["timeouts"] == before["counters"]["timeouts"] + 1, after
    assert after["histograms"]["fork_wait"]["count"] == before["histograms"]["fork_wait"]["count"] + 1, after


@test
def trace_by_the_extension():
    with tempfile.TemporaryDirectory() as folder:
        check(run("trace", "-o", folder + "/t.json", SCENE, "auto"), 0)
        with open(folder + "/t.json", encoding="utf-8") as file:
            assert json.load(file)["traceEvents"]
        assert os.listdir(folder) == ["t.json"]


@test
def trace_to_the_default_file():
    with tempfile.TemporaryDirectory() as folder:
        check(run("trace", "true", cwd=folder), 0, "no fork waited; see forkgate-trace.svg")
        assert os.listdir(folder) == ["forkgate-trace.svg"]
        with open(folder + "/forkgate-trace.svg", encoding="utf-8") as file:
            assert "No gate was closed" in file.read()


def trace_ends(status, *program):
    with tempfile.TemporaryDirectory() as folder:
        result = run("trace", "-o", folder + "/t.svg", *program)
        assert os.listdir(folder) == ["t.svg"] * (status < 126 or status > 127), os.listdir(folder)
    check(result, status)
    assert not instances(), instances()
    return result.stderr


@test
def trace_has_the_status_of_the_program():
    trace_ends(0, "true")
    trace_ends(42, "sh", "-c", "exit 42")


@test
def trace_of_a_program_that_is_killed():
    trace_ends(128 + signal.SIGKILL, "sh", "-c", "kill -KILL $$")


@test
def trace_of_a_program_that_is_not_there():
    assert "No such file" in trace_ends(127, "/nonexistent/program")


@test
def trace_to_nowhere():
    """What cannot be written is not recorded"""
    with tempfile.TemporaryDirectory() as folder:
        check(run("trace", "--perfetto", "/nonexistent/x.json", "-o", folder + "/t.svg", "touch", folder + "/ran"), 125,
              "/nonexistent/x.json")
        assert not os.listdir(folder), os.listdir(folder)
    assert not instances(), instances()


@test
def trace_keeps_what_it_could_save():
    with tempfile.TemporaryDirectory() as folder:
        check(run("trace", "-o", folder + "/t.svg", "--perfetto", "/dev/full", "true"), 125, "/dev/full: No space left")
        titles(folder + "/t.svg")


@test
def trace_follows_no_link_that_it_was_not_told_of():
    """The folder may be another user's, and root runs this"""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(folder + "/target", folder + "/forkgate-trace.svg")
        check(run("trace", "true", cwd=folder), 125, "forkgate-trace.svg: is a link")
        assert os.listdir(folder) == ["forkgate-trace.svg"]
        os.unlink(folder + "/forkgate-trace.svg")
        os.mkfifo(folder + "/forkgate-trace.svg")
        check(run("trace", "true", cwd=folder), 125, "forkgate-trace.svg: No such device")


@test
def trace_without_tracefs():
    with tempfile.TemporaryDirectory() as folder:
        before = elsewhere(f"umount --lazy {TRACING}; umount --lazy /sys/kernel/debug/tracing 2>/dev/null || true; "
                           "umount --lazy /sys/kernel/debug")
        check(run("trace", "-o", folder + "/t.svg", "true", before=before), 125, "mount -t tracefs none")
        assert not os.listdir(folder), os.listdir(folder)


@test
def trace_keeps_the_last_picture_until_there_is_another():
    with tempfile.TemporaryDirectory() as folder:
        picture = folder + "/t.svg"
        check(run("trace", "-o", picture, "true"), 0)
        with open(picture, encoding="utf-8") as file:
            before = file.read()
        check(run("trace", "-o", picture, "/nonexistent/program"), 127)
        with open(picture, encoding="utf-8") as file:
            assert file.read() == before
        check(run("trace", "-o", picture, "true"), 0)
        titles(picture)


@test
def trace_of_a_program_that_cannot_run():
    assert "Permission denied" in trace_ends(126, "/etc/passwd")


@test
def trace_is_for_root():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        check(run("trace", "-o", folder + "/t.svg", "touch", folder + "/ran", user=NOBODY), 125, "needs root")
        assert not os.listdir(folder), os.listdir(folder)


@test
def trace_passes_sigterm_on_and_cleans_up():
    with tempfile.TemporaryDirectory() as folder:
        with subprocess.Popen([FORKGATE, "trace", "-o", folder + "/t.svg", "sleep", "1000"],
                              stderr=subprocess.DEVNULL) as process:
            wait_for(instances)
            wait_for(lambda: "sleep" in child_names(process.pid))
            process.terminate()
            assert process.wait(LIMIT) == 128 + signal.SIGTERM
        assert not instances(), instances()
        titles(folder + "/t.svg")


@test
def trace_removes_what_a_killed_one_left():
    with tempfile.TemporaryDirectory() as folder:
        with subprocess.Popen([FORKGATE, "trace", "-o", folder + "/t.svg", "sleep", "1000"],
                              stderr=subprocess.DEVNULL, start_new_session=True) as process:
            wait_for(instances)
            os.killpg(process.pid, signal.SIGKILL)
        wait_for(instances)
        trace_ends(0, "true")


@test
def trace_of_two_at_a_time():
    with tempfile.TemporaryDirectory() as folder:
        command = [FORKGATE, "trace", "-o"]
        scene = [SCENE, "auto"]
        with subprocess.Popen(command + [folder + "/1.svg"] + scene, stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.DEVNULL) as one:
            two = run("trace", "-o", folder + "/2.svg", *scene)
            first = one.stdout.readline().split()
            assert one.wait(LIMIT) == 0
        check(two, 0)
        for path, other in (("1.svg", two.stdout.split()), ("2.svg", first)):
            with open(folder + "/" + path, encoding="utf-8") as file:
                picture = file.read()
            assert "fork waits: " in picture, path
            assert f"scene {other[1]}<" not in picture, f"{path} shows the other program"


main()
