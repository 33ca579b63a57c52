// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Condition variables for fork-safe mutexes
 *
 * A condition variable is a futex that counts signals and does not know its
 * waiters: a copy of it is as good as new in a child, which has none. (libc's
 * count their waiters and wait for them; in a child that never ends.)
 *
 * A waiter reads the count while it still owns the mutex, and sleeps only if the
 * count is the same. Signalling adds to the count and wakes in one step of the
 * kernel's (FUTEX_WAKE_OP): a thread that starts to wait after the signal cannot
 * be woken in place of one that waited before.
 *
 * This file is compiled without -fexceptions: the wait is made a cancellation
 * point by asynchronous cancellation, whose cleanup must run wherever the
 * signal arrives, not only in calls that may throw.
 *
 * Must not touch a condition variable once it has slept: it may be gone.
 */
#define _GNU_SOURCE
#undef _TIME_BITS	/* both kinds of functions with a time are here */
#include "forksafe-internal.h"

#ifdef __EXCEPTIONS
#error "compile with -fno-exceptions"
#endif

#define STEP	2	/* so that the count never is UNUSED */
#define UNUSED	1

/**
 * struct wait - what is to be done when a wait is over
 * @cond: what was waited for
 * @mutex: to be locked again
 * @levels: as often
 * @site: for blame
 */
struct wait {
	forksafe_cond_t *cond;
	forksafe_mutex_t *mutex;
	unsigned int levels;
	const void *site;
};

static void cancelled(void *arg)
{
	struct wait *wait = arg;

	/* The signal that may have ended the sleep is for another waiter. */
	futex_wake(&wait->cond->__sequence, 1);
	__forkgate_mutex_resume(wait->mutex, wait->levels, wait->site);
}

static int sleep_cancellable(struct wait *wait, unsigned int sequence,
			     const struct limit *limit)
{
	int type, err;

	pthread_cleanup_push(cancelled, wait);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	do {
		err = futex_wait(&wait->cond->__sequence, sequence, limit);
	} while (err == EINTR);
	pthread_setcanceltype(type, NULL);
	pthread_cleanup_pop(0);
	return err == ETIMEDOUT ? err : 0;
}

static int cond_wait(forksafe_cond_t *cond, forksafe_mutex_t *mutex,
		     const struct limit *limit, const void *site)
{
	struct wait wait = { .cond = cond, .mutex = mutex, .site = site };
	unsigned int sequence;
	int err, again;

	if (!limit_valid(limit))
		return EINVAL;
	if (!__forkgate_mutex_owned(mutex))
		return EPERM;

	sequence = __atomic_load_n(&cond->__sequence, __ATOMIC_RELAXED);
	wait.levels = __forkgate_mutex_suspend(mutex);
	err = sleep_cancellable(&wait, sequence, limit);
	again = __forkgate_mutex_resume(mutex, wait.levels, site);
	return again ? again : err;
}

static void wake(forksafe_cond_t *cond, long count)
{
	int saved_errno = errno;

	syscall(SYS_FUTEX, &cond->__sequence,
		(long)(FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG), count, 1L,
		&cond->__sequence,
		(unsigned long)FUTEX_OP(FUTEX_OP_ADD, STEP, FUTEX_OP_CMP_EQ,
					UNUSED));
	errno = saved_errno;
}

FORKGATE_EXPORT int forksafe_cond_wait(forksafe_cond_t *cond,
				       forksafe_mutex_t *mutex)
{
	return cond_wait(cond, mutex, NULL, caller());
}

FORKGATE_EXPORT int forksafe_cond_timedwait(forksafe_cond_t *cond,
					    forksafe_mutex_t *mutex,
					    const struct timespec *abstime)
{
	return cond_wait(cond, mutex, LIMIT(cond->__clock, abstime),
			 caller());
}

FORKGATE_EXPORT int forksafe_cond_clockwait(forksafe_cond_t *cond,
					    forksafe_mutex_t *mutex, clockid_t clock,
					    const struct timespec *abstime)
{
	return cond_wait(cond, mutex, LIMIT(clock, abstime), caller());
}

#ifdef TIME64_TWINS
FORKGATE_EXPORT int forksafe_cond_timedwait64(forksafe_cond_t *cond,
					      forksafe_mutex_t *mutex,
					      const struct forksafe_time64 *abstime)
{
	return cond_wait(cond, mutex, LIMIT(cond->__clock, abstime),
			 caller());
}

FORKGATE_EXPORT int forksafe_cond_clockwait64(forksafe_cond_t *cond,
					      forksafe_mutex_t *mutex, clockid_t clock,
					      const struct forksafe_time64 *abstime)
{
	return cond_wait(cond, mutex, LIMIT(clock, abstime), caller());
}
#endif

FORKGATE_EXPORT int forksafe_cond_signal(forksafe_cond_t *cond)
{
	wake(cond, 1);
	return 0;
}

FORKGATE_EXPORT int forksafe_cond_broadcast(forksafe_cond_t *cond)
{
	wake(cond, INT_MAX);
	return 0;
}

FORKGATE_EXPORT int forksafe_cond_init(forksafe_cond_t *cond,
				       const pthread_condattr_t *attr)
{
	int shared = PTHREAD_PROCESS_PRIVATE;
	clockid_t clock = CLOCK_REALTIME;

	if (!cond)
		return EFAULT;
	if (attr && (pthread_condattr_getpshared(attr, &shared) ||
		     pthread_condattr_getclock(attr, &clock)))
		return EINVAL;
	if (shared != PTHREAD_PROCESS_PRIVATE)
		return EINVAL;
	*cond = (forksafe_cond_t){ .__clock = clock };
	return 0;
}

FORKGATE_EXPORT int forksafe_cond_destroy(forksafe_cond_t *cond)
{
	(void)cond;
	return 0;
}
