// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Try a fork, prepare it if it has to wait, and fork again
 *
 * libc's fork() runs the atfork handlers, takes the locks of malloc and stdio
 * and then clones. Waiting there would be waiting for threads that may want
 * those locks. So it is tried first: mostly no thread is inside a section, and
 * a clone that would have to wait fails, and libc drops its locks. Then the
 * wait comes first, for a ticket. What happens from there to the clone can take
 * longer than the ticket lasts; the clone then fails rather than wait with the
 * locks held, and all starts again with more patience. Nothing lets a clone fail
 * for the library's own gate, so with that the ticket comes first at once, and an
 * expired one is noticed in the atfork handler or by the child.
 *
 * The atfork handler is for forks that did not come through here: libc's own,
 * or those of a program in which libc comes before this library. A library is
 * set up early, so its prepare handler runs among the last, when others hold
 * their locks: later than one would like, but before libc takes its own. See
 * __forkgate_fork_late() for what that means for the wait. No handler must ever
 * wait without a limit.
 */
#include <pthread.h>
#include <unistd.h>

#include "internal.h"

__thread unsigned int __forkgate_forking;
FORKGATE_EXPORT __thread unsigned int __forkgate_retries;

pid_t __forkgate_fork_prepared(pid_t (*real)(void))
{
	return PREPARED(FORK_REAL, (errno = error, -1), real(),
			result < 0);
}

/*
 * The calls of vfork() that the thread is in, those in signal handlers last. Its
 * child, on its memory, may use this: what it leaves when it goes is gone with it.
 */
#define VFORKS		8

static __thread struct fork_attempt vforks[VFORKS];
static __thread int vforking;

static int fail(int err)
{
	errno = err;
	return -1;
}

int __forkgate_vfork_begin(int err, int which)
{
	if (!err) {
		if (vforking == VFORKS)
			return fail(EAGAIN);
		which = vforking++;
		vforks[which] = fork_attempt(FORK_VFORK);
	} else if (err > 0 && !__forkgate_fork_end(&vforks[which], true)) {
		vforking = which;
		return fail(err);
	}
	for (;;) {
		err = __forkgate_fork_begin(&vforks[which]);
		if (err) {
			vforking = which;
			return fail(err);
		}
		if (__forkgate_fork_verify())
			return which;
		__forkgate_fork_end(&vforks[which], true);
	}
}

void __forkgate_vfork_child(int which)
{
	__forkgate_vfork_copied(&vforks[which]);
}

int __forkgate_vfork_end(pid_t pid, int which)
{
	vforking = which + 1;
	vforks[which].child = pid;
	if (__forkgate_fork_end(&vforks[which], false))
		return -1;
	vforking = which;
	return 0;
}

#ifndef FORKGATE_SHARED
/* Only in a program that was linked with --wrap=fork: fork() is ours there. */
pid_t __wrap_fork(void) __attribute__((__weak__, __visibility__("hidden")));

FORKGATE_EXPORT pid_t forkgate_fork(void)
{
	return __wrap_fork ? fork() : __forkgate_fork_prepared(fork);
}
#endif

static void prepare_handler(void)
{
	if (!__forkgate_forking)
		__forkgate_fork_late();
	__forkgate_fork_verify();
	__forkgate_forking++;
}

static void parent_handler(void)
{
	__forkgate_forking--;
	__forkgate_fork_copied();
}

static void child_handler(void)
{
	__forkgate_forking--;
	__forkgate_fork_child();
}

void __forkgate_fork_setup(void)
{
	pthread_atfork(prepare_handler, parent_handler, child_handler);
}
