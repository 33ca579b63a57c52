#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The command forkgate where there is no module, and its arguments, which need none.

Runs anywhere as anybody; must not need root.
"""

import contextlib
import errno
import ctypes
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile

from tap import (FORKGATE, HERE, LIMIT, NOBODY, Skip, check, elsewhere, forbid, main, no_module_here, promtool, run,
                 test)

COMMANDS = ("ps", "watch", "stat", "check", "trace", "run")


def needs_no_module():
    if os.path.exists("/sys/module/forkgate"):
        raise Skip("the module is loaded")


MEMBARRIER, IOCTL = 324, 16

NO_PROC_OR_SYS = "mount -t tmpfs none /proc; mount -t tmpfs none /sys"
# A /dev with another node, of the old one, in the module's place; "null" for a file and a folder, too
PRIVATE_DEV = """
mount -t tmpfs none /mnt; touch /mnt/forkgate /mnt/null
mount --bind /dev/null /mnt/null
mount --rbind /mnt /dev
"""


def forbid_membarrier():
    forbid(MEMBARRIER, errno.ENOSYS)


@test
def no_command():
    check(run(), 2, "usage: forkgate COMMAND")


@test
def help_of_all():
    output = check(run("--help"), 0)
    for command in COMMANDS:
        assert f"  {command} " in output, command
    assert check(run("help"), 0) == output
    assert check(run("-h"), 0) == output


@test
def version():
    with open(os.path.join(HERE, "..", "..", "module", "version.h"), encoding="ascii") as source:
        assert f'"{check(run("--version"), 0).removeprefix("forkgate ").strip()}"' in source.read()


@test
def help_of_each():
    for command in COMMANDS:
        check(run(command, "--help"), 0, f"usage: forkgate {command}")
        check(run(command, "-h"), 0, f"usage: forkgate {command}")


@test
def unknown_command():
    check(run("pz"), 2, 'unknown command "pz"')


@test
def unknown_option():
    for command in COMMANDS:
        check(run(command, "--bogus"), 125 if command == "trace" else 2, "--bogus", "usage:")


@test
def argument_too_much():
    for command in ("watch", "stat", "check"):
        check(run(command, "extra"), 2, "extra", "usage:")


@test
def bad_process_ids():
    for pid in ("x", "0", "12x", " 1", "", "2147483648", "99999999999999999999"):
        check(run("ps", "1", pid), 2, f'invalid process id "{pid}"', "usage:")


@test
def two_formats():
    check(run("stat", "--json", "--prometheus"), 2, "--json or --prometheus")


@test
def bad_delays():
    for delay in ("0", "x", "1x", "-1", "nan", "99999999"):
        check(run("watch", "-d", delay), 2, f'"{delay}" (0.05 to 86400 seconds)')
    check(run("watch", "-d"), 2, "-d")


@test
def trace_without_program():
    check(run("trace"), 125, "no program")
    check(run("trace", "-o"), 125, "-o")
    check(run("trace", "-o", "x.json", "--perfetto", "y.json", "true"), 125, "not both")


@test
def watch_without_terminal():
    """On either side: in a pipe or a file there is not one control character"""
    text = 'needs a terminal; for a file or a pipe use "forkgate ps"'
    assert not check(run("watch"), 1, text)
    keys, terminal = pty.openpty()
    result = subprocess.run([FORKGATE, "watch"], stdin=terminal, capture_output=True, text=True, timeout=LIMIT,
                            check=False)
    os.close(keys)
    os.close(terminal)
    assert not check(result, 1, text)


@test
def full_disk():
    with open("/dev/full", "w", encoding="ascii") as full:
        result = subprocess.run([FORKGATE, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1 and "cannot write" in result.stderr, result


def unprivileged():
    """How to run as a user who is not root"""
    return {"user": NOBODY} if os.geteuid() == 0 else {}


def not_installed():
    """What runs a command as root of a machine that has no module to load"""
    if os.geteuid():
        raise Skip("needs root: in a user namespace no module can be loaded")
    return elsewhere("for dir in /lib/modules /usr/src; do [ ! -d $dir ] || mount -t tmpfs none $dir; done")


NOT_INSTALLED = "module: not installed for kernel " + os.uname().release, "make install", "then modprobe forkgate"


@test
def ps_and_stat_without_module():
    """They need root before they need a module"""
    needs_no_module()
    for command in ["ps"], ["stat"], ["stat", "--json"]:
        check(run(*command, **unprivileged()), 1, "only root may read this")
        check(run(*command, before=not_installed()), 1, *NOT_INSTALLED)


@test
def metrics_without_module():
    """A metric that is absent makes no alert, so these are there"""
    needs_no_module()
    output = check(run("stat", "--prometheus"), 0)
    assert [line for line in output.splitlines() if line[0] != "#"] == ["forkgate_module_loaded 0", "forkgate_armed 0"]


@test
def check_without_module():
    needs_no_module()
    check(run("check"), 1, "PROBLEM  module: not ", "note     library: is the gate itself",
          "forks wait for sections only if they go through the C library")


def module_problems(output):
    return re.findall("^PROBLEM  module: .*$", output, re.M)


@test
def one_problem_for_a_module_that_is_not_installed():
    needs_no_module()
    before = not_installed()
    no_module_here(*NOT_INSTALLED, before=before)
    assert len(module_problems(run("check", before=before).stdout)) == 1


@test
def check_on_an_old_kernel():
    """As which this one presents itself to a program with the personality UNAME26"""
    needs_no_module()
    check(run("check", preexec_fn=lambda: ctypes.CDLL(None).personality(0x20000)), 1,
          "module: not installed for kernel 2.6.", "forkgate needs Linux 5.10 or later")


def installed(vermagic, signer, lockdown=None):
    """check, where a module is installed of which modinfo(8) says that, and lockdown is like that"""
    if os.geteuid():
        raise Skip("needs root: in a user namespace no module can be loaded")
    script = f"""
mount -t tmpfs upper /mnt
mkdir /mnt/upper /mnt/work /mnt/bin
mount -t overlay lib -o "lowerdir=$(realpath /lib),upperdir=/mnt/upper,workdir=/mnt/work" "$(realpath /lib)"
mkdir -p "/lib/modules/$(uname -r)/updates"
: >"/lib/modules/$(uname -r)/updates/forkgate.ko"
echo '#!/bin/sh
[ "$2" = vermagic ] && echo "{vermagic}" || echo "{signer}"' >/mnt/bin/modinfo
chmod +x /mnt/bin/modinfo
PATH=/mnt/bin:$PATH
"""
    if lockdown:
        if not os.path.exists("/sys/kernel/security"):
            raise Skip("there is no /sys/kernel/security here")
        script += f"mount -t tmpfs security /sys/kernel/security\necho '{lockdown}' >/sys/kernel/security/lockdown\n"
    return run("check", before=elsewhere(script))


@test
def check_finds_a_module_for_another_kernel():
    needs_no_module()
    release = os.uname().release
    problem, = module_problems(check(installed("5.10.0-other SMP mod_unload", ""), 1, "forkgate-install(7)"))
    assert "forkgate.ko is for kernel 5.10.0-other, and this is " + release in problem, problem
    for vermagic in release + " SMP mod_unload", "":
        output = check(installed(vermagic, ""), 1, "modprobe forkgate. If that fails, dmesg has the reason.")
        assert module_problems(output) == ["PROBLEM  module: not loaded"], output


@test
def check_finds_a_module_without_signature():
    needs_no_module()
    release = os.uname().release
    for lockdown in "none [integrity] confidentiality", "none integrity [confidentiality]":
        problem, = module_problems(check(installed(release, "", lockdown), 1, "Sign it: forkgate-install(7)"))
        assert "forkgate.ko is not signed" in problem, problem
        output = check(installed(release, "DKMS key", lockdown), 1, "modprobe forkgate.", 'the key "DKMS key": ')
        assert module_problems(output) == ["PROBLEM  module: not loaded"], output
    output = check(installed(release, "", "[none] integrity confidentiality"), 1)
    assert module_problems(output) == ["PROBLEM  module: not loaded"], output


@test
def check_without_any_gate():
    """A filter of system calls that forbids membarrier, as some containers have"""
    needs_no_module()
    check(run("check", preexec_fn=forbid_membarrier), 1, "library: no gate of its own: membarrier(2)",
          "forks do not wait for sections")


@test
def run_without_any_gate():
    needs_no_module()
    check(run("run", "--verbose", "true", preexec_fn=forbid_membarrier), 0, "not protected: neither the module nor")
    check(run("run", "--verbose", "true"), 0, "protected by the library")


@test
def without_proc_and_sys():
    """As in a chroot: nothing is said that cannot be seen"""
    needs_no_module()
    before = elsewhere(NO_PROC_OR_SYS)
    no_module_here("device: no /dev/forkgate; without /proc and /sys the module cannot be seen either",
                   "Bind the host's to it", before=before)
    check(run("check", before=before), 1, "kernel.ftrace_enabled: cannot be seen here",
          "livepatch: cannot be seen here")


@test
def advice_in_containers():
    """What their manager understands"""
    needs_no_module()
    before = elsewhere(NO_PROC_OR_SYS) + ["setpriv", "--bounding-set", "-sys_module"]
    for manager, advice in (("oci", "by a device plug-in"), ("podman", "podman run --device /dev/forkgate"),
                            ("docker", "docker run --device /dev/forkgate"),
                            ("systemd-nspawn", "systemd-nspawn --bind=/dev/forkgate"),
                            ("lxc", "devices.allow = c 10:N rw")):
        no_module_here("device: no /dev/forkgate", advice, before=before,
                       env={"container": manager, "KUBERNETES_SERVICE_HOST": "192.0.2.1"})


@test
def where_no_module_can_be_loaded():
    """As in most containers: /lib/modules and /boot are not the kernel's"""
    needs_no_module()
    before = elsewhere("") + ["setpriv", "--bounding-set", "-sys_module"]
    no_module_here("module: not loaded", "On the host, as root: modprobe forkgate", before=before)
    assert "kernel configuration" not in run("check", before=before).stdout


@test
def lockdown():
    """As the kernel's file says it, which the test makes"""
    if not os.path.isdir("/sys/kernel/security"):
        raise Skip("no /sys/kernel/security")
    for state, text in (("[none] integrity confidentiality", None),
                        ("none [integrity] confidentiality", "note     lockdown: integrity; no unsigned modules"),
                        ("none integrity [confidentiality]", "lockdown: confidentiality; no unsigned modules, no")):
        before = elsewhere(f"mount -t tmpfs none /sys/kernel/security; echo '{state}' >/sys/kernel/security/lockdown")
        output = run("check", before=before).stdout
        assert text in output if text else "lockdown" not in output, output


@test
def file_instead_of_a_device():
    """Which container managers make of what is not there when the container starts"""
    needs_no_module()
    no_module_here("device: /dev/forkgate is no device", "Remove it", before=elsewhere(PRIVATE_DEV))


@test
def folder_instead_of_a_device():
    needs_no_module()
    no_module_here("device: /dev/forkgate is no device", "Remove it",
                   before=elsewhere(PRIVATE_DEV + "rm /dev/forkgate; mkdir /dev/forkgate"))


@test
def node_of_another_device():
    needs_no_module()
    no_module_here("module: not ", "; /dev/forkgate is left from an earlier time", "modprobe forkgate",
                   before=elsewhere(PRIVATE_DEV + "mount --bind /dev/null /dev/forkgate"))


@test
def filter_of_system_calls():
    needs_no_module()
    before = elsewhere(PRIVATE_DEV + "mount --bind /dev/null /dev/forkgate")
    for error in errno.EPERM, errno.ENOSYS:
        no_module_here(f"device: a filter of system calls (seccomp) forbids ioctl: {os.strerror(error)}",
                       "Allow ioctl and msync", before=before, preexec_fn=lambda error=error: forbid(IOCTL, error))


def fails_to_trace(*texts, **situation):
    """trace, which neither runs the program nor leaves a file"""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        check(run("trace", "-o", folder + "/x.svg", "touch", folder + "/ran", **situation), 125, *texts)
        assert not os.listdir(folder), os.listdir(folder)


@test
def trace_without_module():
    """It needs root before it needs a module, and a module before it needs tracefs"""
    needs_no_module()
    fails_to_trace("forkgate trace: needs root\n", **unprivileged())
    fails_to_trace(*NOT_INSTALLED, before=not_installed())


@test
def metrics_without_module_pass_promtool():
    needs_no_module()
    promtool("check", "metrics", stdin=check(run("stat", "--prometheus"), 0))


@test
def alerts_pass_promtool():
    promtool("check", "rules", HERE + "/../../tools/forkgate/alerts.yml")
    promtool("test", "rules", HERE + "/alerts.test.yml")


COMPLETIONS = HERE + "/../../tools/forkgate"

# Writes what completion offers, and ends the shell when it has
ZSHRC = """
fpath=($COMPLETIONS $fpath)
autoload -Uz compinit
compinit -u -D
compadd() {
	local -a matches
	[[ " ${(j: :)@[1,(i)--]}" == *" -"[OAD]* ]] ||
		{ builtin compadd -O matches "$@"; print -rl -- $matches >>$ZDOTDIR/matches }
	builtin compadd "$@"
}
finish() { kill -KILL $$ }
comppostfuncs=(finish)
"""


def bash(*words):
    """What bash offers for a command line, whose last word is the one that is completed"""
    script = (f'source "{COMPLETIONS}/forkgate.bash-completion"; COMP_WORDS=("$@"); '
              'COMP_CWORD=$(($# - 1)); _forkgate; printf "%s\\n" "${COMPREPLY[@]}"')
    return subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True,
                          check=True).stdout.split()


def fish(*words):
    script = f'source "{COMPLETIONS}/forkgate.fish"; complete -C $argv[1]'
    result = subprocess.run(["fish", "--no-config", "-c", script, "--", " ".join(words)], capture_output=True,
                            text=True, timeout=LIMIT, check=True)
    assert not result.stderr, result.stderr
    return [line.split("\t")[0] for line in result.stdout.splitlines()]


def zsh(*words):
    """In a terminal, which completes nothing but what is typed"""
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/.zshrc", "w", encoding="ascii") as file:
            file.write(ZSHRC)
        pid, terminal = pty.fork()
        if not pid:
            os.execvpe("zsh", ["zsh", "-i"], {**os.environ, "ZDOTDIR": folder, "COMPLETIONS": COMPLETIONS})
        os.write(terminal, (" ".join(words) + "\t").encode())
        said = b""
        with contextlib.suppress(OSError):      # it has ended
            while select.select([terminal], [], [], LIMIT)[0]:
                said += os.read(terminal, 65536)
        os.kill(pid, signal.SIGKILL)
        os.close(terminal)
        os.waitpid(pid, 0)
        try:
            with open(folder + "/matches", encoding="utf-8") as file:
                return [line for line in file.read().split("\n") if line]
        except FileNotFoundError:
            raise AssertionError(said) from None


def completes(shell):
    """What the command knows, no more and no less, and programs behind options"""
    if not shutil.which(shell.__name__):
        raise Skip(f"no {shell.__name__}")
    assert {word for word in shell("forkgate", "") if word[0] != "-"} == set(COMMANDS)
    assert set(shell("forkgate", "--")) == {"--help", "--version"}
    assert shell("forkgate", "tr") == ["trace"]
    for command in COMMANDS:
        known = re.findall("^  (?:-., )?(--[a-z-]+)", check(run(command, "--help"), 0), re.M)
        options = {option for option in shell("forkgate", command, "--") if option[:2] == "--"}
        assert options == {"--help", *known}, f"{command}: {options}"
    assert str(os.getpid()) in shell("forkgate", "ps", str(os.getpid()))
    assert set(shell("forkgate", "run", "--on-timeout", "")) == {"fail", "proceed"}
    for options in (["trace", "-o", "x.svg"], ["trace", "--perfetto", "x"], ["run", "--timeout", "5s"],
                    ["run", "--on-timeout", "fail", "--patience", "0", "--verbose"], ["run"]):
        assert "true" in shell("forkgate", *options, "tru"), options


@test
def completion_of_bash():
    completes(bash)


@test
def completion_of_fish():
    completes(fish)
    assert not fish("forkgate", "run", "true", "--r"), "options behind the program"


@test
def completion_of_zsh():
    completes(zsh)


main()
