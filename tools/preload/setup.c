// SPDX-License-Identifier: GPL-2.0-only
/*
 * setup.c - the policy of the program's gate, and what its user is told
 *
 * Must not fail: a program that cannot have a gate runs without.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "run.h"
#include "section.h"

#define HOLDERS		4	/* that are named in a message */
#define NSEC_PER_SEC	1000000000ULL

static struct run_settings settings;
static time_t last_message;

/* Private to libforkgate, see its internal.h */
int __forkgate_call(unsigned long request, void *arg);

/* On standard error by one write, as libc's streams may be locked or closed */
static __attribute__((__format__(__printf__, 1, 2))) void say(const char *format, ...)
{
	char text[512];
	va_list list;
	int room = sizeof(text) - 1, used;

	used = snprintf(text, room, "forkgate: %s[%d]: ", program_invocation_short_name, getpid());
	va_start(list, format);
	if (used < room)
		used += vsnprintf(text + used, room - used, format, list);
	va_end(list);
	if (used > room - 1)
		used = room - 1;
	text[used++] = '\n';
	if (write(STDERR_FILENO, text, used) < 0)
		return;
}

static void say_holder(const struct forkgate_holder *holder)
{
	const char *function = "", *file = "?";
	Dl_info info;

	if (dladdr((void *)(uintptr_t)holder->site, &info)) {
		file = info.dli_fname;
		if (info.dli_sname)
			function = info.dli_sname;
	}
	say("... thread %d is inside %s%s%s%.*s%s at %#" PRIx64 " in %s", holder->tid,
	    holder->domains & FORKGATE_MEMORY ? "memory " : "",
	    holder->domains & FORKGATE_FILES ? "files " : "", function, FORKGATE_LABEL_SIZE,
	    holder->label, *function ? "()" : "", (uint64_t)holder->site, file);
}

/*
 * Runs before a fork, after libforkgate has prepared, if it had to, and before
 * libc takes its locks: if that wait has ended unsafe, its holders can still be
 * seen. While it only tries, the outcome is that of an earlier fork.
 */
static void before_fork(void)
{
	struct forkgate_slot *slot = forkgate_self;
	struct forkgate_holder holders[HOLDERS];
	struct forkgate_state state = {
		.holders = (uintptr_t)holders,
		.holders_max = HOLDERS,
	};
	int old_errno = errno;
	struct timespec now;
	unsigned int i;

	if (!slot || slot->tries || slot->outcome != FORKGATE_OUTCOME_UNSAFE)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec != __atomic_exchange_n(&last_message, now.tv_sec, __ATOMIC_RELAXED) &&
	    !__forkgate_call(FORKGATE_IOC_STATE, &state)) {
		say("a fork goes ahead unsafe: other threads stayed inside sections");
		for (i = 0; i < HOLDERS && i < state.holders_count; i++)
			if (holders[i].tid != (int)slot->tid)
				say_holder(&holders[i]);
	}
	errno = old_errno;
}

static void set_policy(void)
{
	struct forkgate_policy policy;

	if (__forkgate_call(FORKGATE_IOC_POLICY_GET, &policy))
		return;
	policy.timeout = settings.timeout;
	policy.backstop = settings.timeout;
	policy.patience = settings.patience;
	policy.on_timeout = settings.on_timeout;
	__forkgate_call(FORKGATE_IOC_POLICY_SET, &policy);
}

static void say_protection(int err)
{
	struct forkgate_health health;

	if (err)
		say("no gate: %s", strerror(err));
	else if (!__forkgate_call(FORKGATE_IOC_HEALTH, &health) && !health.armed)
		say("not safe: the module's hook does not work now, see \"forkgate check\"");
	else
		say("protected");
}

static __attribute__((__constructor__)) void setup(void)
{
	int old_errno = errno;
	int err = forkgate_init(0);

	settings = run_settings();
	if (!err) {
		set_policy();
		pthread_atfork(before_fork, NULL, NULL);
	}
	if (settings.verbose)
		say_protection(err);
	errno = old_errno;
}
