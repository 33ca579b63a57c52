// SPDX-License-Identifier: GPL-2.0-only
/*
 * check.c - forkgate check: does the gate work on this machine?
 *
 * Looks at the device, makes a fork wait, and looks at what can switch the hook
 * off; says what to do about each finding. Must not change the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/forkgate.h>
#include <linux/membarrier.h>

#include "../../module/version.h"
#include "cmd.h"
#include "device.h"

static const char usage[] =
	"usage: forkgate check\n"
	"\n"
	"Tells whether forks wait on this machine: is the module loaded, may the device be\n"
	"used, is the hook armed and does it fire, and is there something that switches it\n"
	"off. Says what to do about each problem, and what programs get without the module.\n"
	"\n"
	"status: 0 if all is well, 1 if there is a problem\n";

static int problems;

static void __attribute__((format(printf, 1, 2))) good(const char *format, ...)
{
	va_list args;

	printf("%sok%s       ", cmd_cyan, cmd_plain);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

static void __attribute__((format(printf, 1, 2))) note(const char *format, ...)
{
	va_list args;

	printf("%snote%s     ", cmd_yellow, cmd_plain);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
}

static void __attribute__((format(printf, 2, 3))) problem(const char *cure, const char *format, ...)
{
	va_list args;

	problems++;
	printf("%sPROBLEM%s  ", cmd_red, cmd_plain);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n         %s\n", cure);
}

/* The first character of a file, or 0 with errno */
static char first(const char *path)
{
	char *text = cmd_read(path), c = 0;

	if (text)
		c = *text;
	free(text);
	return c;
}

/*
 * Without the module: could it work?
 */

static void check_config(void)
{
	static const char * const needed[] = {
		"CONFIG_MODULES=y", "CONFIG_TRACEPOINTS=y",
#ifdef __aarch64__
		"CONFIG_ARM64=y", "CONFIG_DYNAMIC_FTRACE_WITH_ARGS=y",
#else
		"CONFIG_X86_64=y", "CONFIG_KPROBES=y", "CONFIG_KPROBES_ON_FTRACE=y",
		"CONFIG_HAVE_STATIC_CALL=y",
#endif
	};
	struct utsname kernel;
	char path[256], *text;
	bool complete = true;
	size_t i;

	if (uname(&kernel))
		return;
	snprintf(path, sizeof(path), "/boot/config-%s", kernel.release);
	text = cmd_read(path);
	if (!text) {
		snprintf(path, sizeof(path), "/lib/modules/%s/config", kernel.release);
		text = cmd_read(path);
	}
	if (!text) {
		note("kernel configuration: not found, so not checked");
		return;
	}
	for (i = 0; i < ARRAY_SIZE(needed); i++) {
		if (strstr(text, needed[i]))
			continue;
		complete = false;
		problem("The module needs a kernel that has it.",
			"kernel configuration: no %s in %s", needed[i], path);
	}
	if (complete)
		good("kernel configuration: all that the module needs is in %s", path);
	free(text);
}

/*
 * The device
 */

/* After an upgrade the module stays loaded that was. */
static void check_release(void)
{
	char *loaded = cmd_read("/sys/module/forkgate/version");

	if (loaded)
		loaded[strcspn(loaded, "\n")] = '\0';
	if (loaded && strcmp(loaded, FG_VERSION))
		note("module: release %s is loaded, and this command is of %s. %s", loaded,
		     FG_VERSION, strverscmp(loaded, FG_VERSION) < 0 ? DEVICE_RELOAD :
		     "Upgrade the command and the library.");
	free(loaded);
}

/* Return: its descriptor, or -1. */
static int check_device(void)
{
	struct forkgate_device device;
	struct trouble trouble;

	if (!device_open(&device, &trouble)) {
		problem(trouble.cure, "%s", trouble.what);
		if (!trouble.loaded && !device_contained())
			check_config();
		return -1;
	}
	/* The trial makes a gate of its own. */
	munmap(device.map, FORKGATE_MAP_SIZE);
	good("device: %s can be used", FORKGATE_DEVICE);
	good("module: loaded, version %u of the interface", device.query.abi);
	check_release();
	if (device.query.features & FORKGATE_FEATURE_DEBUG)
		note("module: built for tests (DEBUG=1), not for use");
	return device.fd;
}

/*
 * Without the module: what libforkgate needs to be the gate itself, as it tests it.
 * Return: whether it has that.
 */
static bool check_library(void)
{
	char *wiped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const char *missing = NULL;

	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) ||
	    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0))
		missing = "membarrier(2)";
	else if (wiped == MAP_FAILED || madvise(wiped, 4096, MADV_WIPEONFORK))
		missing = "MADV_WIPEONFORK";
	if (missing)
		note("library: no gate of its own: %s: %s", missing, strerror(errno));
	else
		note("library: is the gate itself, for forks through it and the C library");
	if (wiped != MAP_FAILED)
		munmap(wiped, 4096);
	return !missing;
}

/*
 * The trial: a process with a thread inside a section forks. The thread leaves
 * when the fork waits, or has not waited.
 */

enum {
	TRIAL_GOOD,
	TRIAL_NO_DEVICE,	/* the child could not use it */
	TRIAL_NO_WAIT,		/* the fork did not wait */
	TRIAL_FAILED,		/* it failed */
	TRIAL_UNSAFE,		/* the child says that its copy is unsafe */
};

static struct {
	int fd;
	struct forkgate_header *header;
	pthread_barrier_t entered;
	bool forked;		/* atomic: the fork has returned */
	bool waited;		/* atomic: the holder has seen it wait */
} trial;

static struct forkgate_slot *trial_register(void)
{
	struct forkgate_register reg = {};

	if (ioctl(trial.fd, FORKGATE_IOC_REGISTER, &reg))
		return NULL;
	return (void *)((char *)trial.header + reg.offset);
}

static void *trial_holder(void *unused)
{
	struct forkgate_enter enter = { .domains = FORKGATE_MEMORY, .levels = { 1 } };
	struct forkgate_leave leave = { .domains = FORKGATE_MEMORY };
	bool inside = trial_register() && !ioctl(trial.fd, FORKGATE_IOC_ENTER, &enter);
	const struct timespec tick = { .tv_nsec = 1000000 };
	struct forkgate_state state;

	(void)unused;
	pthread_barrier_wait(&trial.entered);
	while (inside && !__atomic_load_n(&trial.forked, __ATOMIC_SEQ_CST)) {
		memset(&state, 0, sizeof(state));
		if (!ioctl(trial.fd, FORKGATE_IOC_STATE, &state) && state.forkers) {
			__atomic_store_n(&trial.waited, true, __ATOMIC_SEQ_CST);
			break;
		}
		nanosleep(&tick, NULL);
	}
	if (inside)
		ioctl(trial.fd, FORKGATE_IOC_LEAVE, &leave);
	return NULL;
}

static int trial_run(int fd)
{
	pthread_t holder;
	int status;
	pid_t pid;

	trial.fd = fd;
	trial.header = mmap(NULL, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (trial.header == MAP_FAILED || !trial_register())
		return TRIAL_NO_DEVICE;
	pthread_barrier_init(&trial.entered, NULL, 2);
	if (pthread_create(&holder, NULL, trial_holder, NULL))
		return TRIAL_NO_DEVICE;
	pthread_barrier_wait(&trial.entered);
	pid = fork();
	if (!pid)
		_exit(trial.header->copy ? TRIAL_UNSAFE : TRIAL_GOOD);
	__atomic_store_n(&trial.forked, true, __ATOMIC_SEQ_CST);
	pthread_join(holder, NULL);
	if (pid < 0)
		return TRIAL_FAILED;
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return TRIAL_FAILED;
	if (WEXITSTATUS(status))
		return WEXITSTATUS(status);
	return trial.waited ? TRIAL_GOOD : TRIAL_NO_WAIT;
}

/* In a process of its own, which takes its gate with it */
static int try_fork(int fd)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(trial_run(fd));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return TRIAL_FAILED;
	return WEXITSTATUS(status);
}

static void check_hook(int fd)
{
	struct forkgate_health before = {}, after = {};
	int result;

	if (ioctl(fd, FORKGATE_IOC_HEALTH, &before)) {
		problem("Unload the module and load it again.", "hook: %s", strerror(errno));
		return;
	}
	if (!before.armed)
		problem("Switch ftrace and kprobes on, or detach what else is on kernel_clone.",
			"hook: not armed");
	result = try_fork(fd);
	ioctl(fd, FORKGATE_IOC_HEALTH, &after);
	switch (result) {
	case TRIAL_GOOD:
		if (after.redirects > before.redirects)
			good("hook: armed and firing; a fork waited for a section, as it should");
		else
			problem("Please report this.", "hook: a fork waited, but was not counted");
		break;
	case TRIAL_NO_WAIT:
	case TRIAL_UNSAFE:
		problem("Something has switched it off since the module was loaded, see below.",
			"hook: does not fire: a fork did not wait for a section%s",
			after.bypasses > before.bypasses ? ", which the module noticed" : "");
		break;
	default:
		problem("Is there enough memory, and are processes limited (ulimit -u)?",
			"hook: could not be tried");
	}
	if (before.bypasses)
		note("hook: %" PRIu64 " copies have slipped through so far, see dmesg",
		     (uint64_t)before.bypasses);
}

/*
 * What switches it off
 */

static void check_switches(void)
{
	static const char ftrace[] = "/proc/sys/kernel/ftrace_enabled";
	static const char kprobes[] = "/sys/kernel/debug/kprobes/enabled";
	glob_t found;

	switch (first(ftrace)) {
	case '0':
		problem("As root: sysctl kernel.ftrace_enabled=1", "kernel.ftrace_enabled is 0");
		break;
	case 0:
		note("kernel.ftrace_enabled: cannot be seen here (%s: %s)", ftrace,
		     strerror(errno));
		break;
	default:
		good("kernel.ftrace_enabled: not switched off");
	}

	switch (first(kprobes)) {
	case '0':
		problem("As root: echo 1 >/sys/kernel/debug/kprobes/enabled", "%s is 0", kprobes);
		break;
	case 0:
		note("kprobes: whether they are switched on cannot be seen here (%s: %s)", kprobes,
		     strerror(errno));
		break;
	default:
		good("kprobes: switched on");
	}

	if (!glob("/sys/kernel/livepatch/*/*/kernel_clone,*", 0, NULL, &found) && found.gl_pathc)
		problem("Such a patch takes the hook's place. Without it forks wait again.",
			"livepatch: %s", found.gl_pathv[0]);
	else if (access("/sys/kernel", F_OK))
		note("livepatch: cannot be seen here (no /sys)");
	else
		good("livepatch: none of kernel_clone");
	globfree(&found);

	if (cmd_contains(DEVICE_LOCKDOWN, "[confidentiality]"))
		note("lockdown: confidentiality; no unsigned modules, no \"forkgate trace\"");
	else if (cmd_contains(DEVICE_LOCKDOWN, "[integrity]"))
		note("lockdown: integrity; no unsigned modules");
}

int cmd_check(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	bool library = false;
	int option, fd;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (option == 'h')
			return cmd_help(usage);
		return cmd_usage_error(usage, "unknown option \"%s\"", argv[optind - 1]);
	}
	if (optind < argc)
		return cmd_usage_error(usage, "unknown argument \"%s\"", argv[optind]);

	fd = check_device();
	if (fd >= 0)
		check_hook(fd);
	else
		library = check_library();
	check_switches();
	if (fd >= 0)
		close(fd);
	if (problems)
		printf("\n%d problem%s: forks %s\n", problems, problems == 1 ? "" : "s",
		       fd >= 0 ? "may not wait for sections" :
		       library ? "wait for sections only if they go through the C library" :
		       "do not wait for sections");
	else
		printf("\nForks wait for sections.\n");
	return cmd_flush() || problems ? CMD_PROBLEM : CMD_OK;
}
