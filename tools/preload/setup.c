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
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <message-internal.h>

#include "run.h"
#include "section.h"

#define HOLDERS		4	/* that are named in a message */
#define NSEC_PER_SEC	1000000000ULL
#define NSEC_PER_MSEC	1000000ULL

static struct run_settings settings;
static unsigned long long last_message;	/* ns */

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
	forkgate_write_message(text, used);
}

/* glibc 2.35. dladdr() waits for the lock of the loader, which the holder may have. */
int _dl_find_object(void *address, struct dl_find_object *found) __attribute__((__weak__));

/* Return: whether the address is one in a file. */
static bool say_holder(const struct forkgate_holder *holder)
{
	uint64_t address = holder->site;
	struct dl_find_object found;
	const char *file = NULL;

	if (_dl_find_object && !_dl_find_object((void *)(uintptr_t)holder->site, &found)) {
		file = found.dlfo_link_map->l_name;
		address -= found.dlfo_link_map->l_addr;
		if (!*file)
			file = (char *)getauxval(AT_EXECFN);
	}
	say("... thread %d is inside%s%s%s%.*s at %#" PRIx64 " in %s", holder->tid,
	    holder->domains & FORKGATE_MEMORY ? " memory" : "",
	    holder->domains & FORKGATE_FILES ? " files" : "", *holder->label ? " " : "",
	    FORKGATE_LABEL_SIZE, holder->label, address, file ?: "?");
	return file;
}

/*
 * @waited: ns, 0: not known
 * @first: the one that is to be named, or NULL. One message a second is enough, and
 * one for a fork of which both of the callers below learn.
 *
 * The time of day is that of UTC: what knows the local one takes a lock.
 */
static void say_holders(const char *what, unsigned long long waited,
			const struct forkgate_holder *first)
{
	struct forkgate_holder holders[HOLDERS];
	struct forkgate_state state = {
		.holders = (uintptr_t)holders,
		.holders_max = HOLDERS,
	};
	unsigned long long last = __atomic_load_n(&last_message, __ATOMIC_RELAXED), time;
	char after[32] = "";
	struct timespec now;
	bool files = false;
	unsigned int i;

	clock_gettime(CLOCK_MONOTONIC, &now);
	time = now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
	if ((last && time - last < NSEC_PER_SEC) ||
	    !__atomic_compare_exchange_n(&last_message, &last, time, false, __ATOMIC_RELAXED,
					 __ATOMIC_RELAXED) ||
	    __forkgate_call(FORKGATE_IOC_STATE, &state))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	if (waited)
		snprintf(after, sizeof(after), " after %llu ms", waited / NSEC_PER_MSEC);
	say("%02d:%02d:%02d UTC: a fork %s%s: other threads stayed inside sections",
	    (int)(now.tv_sec / 3600 % 24), (int)(now.tv_sec / 60 % 60), (int)(now.tv_sec % 60),
	    what, after);
	if (first)
		files = say_holder(first);
	for (i = 0; i < HOLDERS && i < state.holders_count; i++)
		if (holders[i].tid != (int)forkgate_self->tid &&
		    (!first || holders[i].tid != first->tid))
			files |= say_holder(&holders[i]);
	if (files)
		say("... \"addr2line -fe FILE ADDRESS\" names the function and its line");
}

/*
 * Runs before a fork, after libforkgate has prepared, if it had to, and before
 * libc takes its locks. While it only tries, the outcome is that of an earlier
 * fork.
 */
static void before_fork(void)
{
	struct forkgate_slot *slot = forkgate_self;
	int old_errno = errno;

	if (slot && !slot->tries && slot->outcome == FORKGATE_OUTCOME_UNSAFE)
		say_holders("goes ahead unsafe", 0, NULL);
	errno = old_errno;
}

/* The library's own gate calls it instead of a message; the kernel has a log. */
static void blame(const struct forkgate_holder *holder, unsigned long long waited)
{
	int old_errno = errno;

	say_holders(settings.on_timeout == FORKGATE_FAIL ? "fails" : "goes ahead unsafe", waited,
		    holder);
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

static const char *text_of(int reason)
{
	switch (reason) {
	case ENODEV:
		return "no /dev/forkgate leads to the module, see \"forkgate check\"";
	case EACCES:
	case EPERM:
		return "no permission to use /dev/forkgate, see \"forkgate check\"";
	case ENOTSUP:
		return "the module is of another version, see \"forkgate check\"";
	case ENOSYS:
		return "neither the module nor membarrier(2) can be used";
	case ENOTTY:
	case EIO:
		return "the module's hook does not work now; see \"forkgate check\"";
	}
	return strerror(reason);
}

/* @unseen: there are locks of which no gate knows. */
static void say_protection(bool unseen)
{
	const char *what = unseen ? "other locks are " : "";
	int reason;

	switch (forkgate_protection(&reason)) {
	case FORKGATE_BY_MODULE:
		say("%sprotected by the module", what);
		break;
	case FORKGATE_BY_LIBRARY:
		say("%sprotected by the library, for forks through the C library (%s)", what,
		    text_of(reason));
		break;
	default:
		say("not protected: %s", text_of(reason));
	}
}

static void insist_on_module(void)
{
	int reason;

	if (forkgate_protection(&reason) != FORKGATE_BY_MODULE) {
		say("refusing to run without the module: %s", text_of(reason));
		_exit(RUN_REFUSED);
	}
}

static __attribute__((__constructor__)) void setup(void)
{
	int old_errno = errno;
	char unseen[256] = "";

	settings = run_settings();
	if (!forkgate_init(0)) {
		set_policy();
		forkgate_blame(blame);
		pthread_atfork(before_fork, NULL, NULL);
	}
	if (settings.require_module)
		insist_on_module();
	if (settings.verbose || settings.pid == (unsigned int)getpid())
		find_unseen(unseen, sizeof(unseen));
	if (*unseen) {
		say("cannot see locks of these kinds: %s", unseen);
		say("... forks do not wait for them, and a child that takes one may hang;");
		say("... make sections of what they protect, see forkgate-guide(7)");
	}
	if (settings.verbose)
		say_protection(*unseen);
	errno = old_errno;
}
