// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Fork-safe read-write locks
 *
 * The lock is a futex: the number of readers, or WRITER, and bits that say that
 * there may be sleepers, and a writer among them. The last one out sets it to 0
 * and wakes all, so that a woken thread that finds the gate closed keeps no
 * other asleep. What a child inherits of those bits goes with the next unlock.
 *
 * Readers wait for a writer that waits, because readers that overlap would keep
 * it out without end. There are two exceptions: a thread that has read-locked
 * any of these locks already, which would wait for itself, and, in a child, a
 * writer that the child does not have (__epoch).
 *
 * As for mutexes, sections are entered before the lock is taken, and left to
 * sleep. This file must not use libc's locks and must not allocate memory.
 */
#define _GNU_SOURCE
#undef _TIME_BITS	/* both kinds of functions with a time are here */
#include <assert.h>

#include "forksafe-internal.h"

/* Compiled into programs, never to be changed. */
static_assert(sizeof(forksafe_rwlock_t) == 8 + sizeof(void *), "rwlock");

/* __word */
#define READERS		0x0fffffffu	/* how many */
#define WRITER		0x10000000u
#define WANTED		0x20000000u	/* a writer sleeps */
#define SLEEPERS	0x40000000u	/* there are sleepers */
#define GONE		0x80000000u

/* Levels of read locks that this thread has */
static __thread unsigned int reading;

/* Must the caller, a reader, let a writer that waits go first? */
static bool writer_first(forksafe_rwlock_t *rwlock, unsigned int word)
{
	return word & WANTED && !reading &&
	       __atomic_load_n(&rwlock->__epoch, __ATOMIC_RELAXED) ==
	       __forkgate_epoch;
}

/* Return: 0, EBUSY, EAGAIN or EINVAL */
static int take_read(forksafe_rwlock_t *rwlock)
{
	unsigned int word = __atomic_load_n(&rwlock->__word, __ATOMIC_RELAXED);

	do {
		if (word & GONE)
			return EINVAL;
		if (word & WRITER || writer_first(rwlock, word))
			return EBUSY;
		if ((word & READERS) == READERS)
			return EAGAIN;
	} while (!__atomic_compare_exchange_n(&rwlock->__word, &word, word + 1,
					      true, __ATOMIC_ACQUIRE,
					      __ATOMIC_RELAXED));
	reading++;
	return 0;
}

/* Return: 0, EBUSY or EINVAL */
static int take_write(forksafe_rwlock_t *rwlock)
{
	unsigned int word = 0;

	if (!__atomic_compare_exchange_n(&rwlock->__word, &word, WRITER, false,
					 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return word & GONE ? EINVAL : EBUSY;
	__atomic_store_n(&rwlock->__owner, self(), __ATOMIC_RELAXED);
	return 0;
}

static bool writing(forksafe_rwlock_t *rwlock)
{
	return __atomic_load_n(&rwlock->__owner, __ATOMIC_RELAXED) == self();
}

/* Sleep, outside of the section. Return: 0: try again, or ETIMEDOUT */
static int sleep_until_free(forksafe_rwlock_t *rwlock, bool write,
			    const struct limit *limit)
{
	unsigned int word = __atomic_load_n(&rwlock->__word, __ATOMIC_RELAXED);
	unsigned int bits = SLEEPERS | (write ? WANTED : 0);
	int err;

	if (write)
		__atomic_store_n(&rwlock->__epoch, __forkgate_epoch,
				 __ATOMIC_RELAXED);
	do {
		if (!(word & (READERS | WRITER)) || word & GONE)
			return 0;
		if (!write && !(word & WRITER) && !writer_first(rwlock, word))
			return 0;
	} while (!__atomic_compare_exchange_n(&rwlock->__word, &word,
					      word | bits, true,
					      __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	err = futex_wait(&rwlock->__word, word | bits, limit);
	if (err != ETIMEDOUT)
		return 0;

	/* Readers that wait for this writer need not; others wait again. */
	if (write) {
		__atomic_fetch_and(&rwlock->__word, ~(WANTED | SLEEPERS),
				   __ATOMIC_RELAXED);
		futex_wake(&rwlock->__word, INT_MAX);
	}
	return ETIMEDOUT;
}

static int lock(forksafe_rwlock_t *rwlock, bool write,
		const struct limit *limit, const void *site)
{
	int err;

	for (;;) {
		err = section_enter(site);
		if (err)
			return err;
		err = write ? take_write(rwlock) : take_read(rwlock);
		if (!err)
			return 0;
		section_leave();
		if (err != EBUSY)
			return err;
		if (writing(rwlock))
			return EDEADLK;
		if (!limit_valid(limit))
			return EINVAL;
		err = sleep_until_free(rwlock, write, limit);
		if (err)
			return err;
	}
}

static int trylock(forksafe_rwlock_t *rwlock, bool write, const void *site)
{
	int err = section_tryenter(site);

	if (err)
		return err;
	err = write ? take_write(rwlock) : take_read(rwlock);
	if (err)
		section_leave();
	return err;
}

FORKGATE_EXPORT int forksafe_rwlock_rdlock(forksafe_rwlock_t *rwlock)
{
	return lock(rwlock, false, NULL, caller());
}

FORKGATE_EXPORT int forksafe_rwlock_wrlock(forksafe_rwlock_t *rwlock)
{
	return lock(rwlock, true, NULL, caller());
}

FORKGATE_EXPORT int forksafe_rwlock_tryrdlock(forksafe_rwlock_t *rwlock)
{
	return trylock(rwlock, false, caller());
}

FORKGATE_EXPORT int forksafe_rwlock_trywrlock(forksafe_rwlock_t *rwlock)
{
	return trylock(rwlock, true, caller());
}

FORKGATE_EXPORT int forksafe_rwlock_timedrdlock(forksafe_rwlock_t *rwlock,
						const struct timespec *abstime)
{
	return lock(rwlock, false, LIMIT(CLOCK_REALTIME, abstime), caller());
}

FORKGATE_EXPORT int forksafe_rwlock_timedwrlock(forksafe_rwlock_t *rwlock,
						const struct timespec *abstime)
{
	return lock(rwlock, true, LIMIT(CLOCK_REALTIME, abstime), caller());
}

FORKGATE_EXPORT int forksafe_rwlock_clockrdlock(forksafe_rwlock_t *rwlock,
						clockid_t clock,
						const struct timespec *abstime)
{
	return lock(rwlock, false, LIMIT(clock, abstime), caller());
}

FORKGATE_EXPORT int forksafe_rwlock_clockwrlock(forksafe_rwlock_t *rwlock,
						clockid_t clock,
						const struct timespec *abstime)
{
	return lock(rwlock, true, LIMIT(clock, abstime), caller());
}

#ifdef TIME64_TWINS
FORKGATE_EXPORT int forksafe_rwlock_timedrdlock64(forksafe_rwlock_t *rwlock,
						  const struct forksafe_time64 *abstime)
{
	return lock(rwlock, false, LIMIT(CLOCK_REALTIME, abstime), caller());
}

FORKGATE_EXPORT int forksafe_rwlock_timedwrlock64(forksafe_rwlock_t *rwlock,
						  const struct forksafe_time64 *abstime)
{
	return lock(rwlock, true, LIMIT(CLOCK_REALTIME, abstime), caller());
}

FORKGATE_EXPORT int forksafe_rwlock_clockrdlock64(forksafe_rwlock_t *rwlock,
						  clockid_t clock,
						  const struct forksafe_time64 *abstime)
{
	return lock(rwlock, false, LIMIT(clock, abstime), caller());
}

FORKGATE_EXPORT int forksafe_rwlock_clockwrlock64(forksafe_rwlock_t *rwlock,
						  clockid_t clock,
						  const struct forksafe_time64 *abstime)
{
	return lock(rwlock, true, LIMIT(clock, abstime), caller());
}
#endif

FORKGATE_EXPORT int forksafe_rwlock_unlock(forksafe_rwlock_t *rwlock)
{
	unsigned int word = __atomic_load_n(&rwlock->__word, __ATOMIC_RELAXED);
	unsigned int next;

	if (word & GONE)
		return EINVAL;
	if (word & WRITER) {
		if (!writing(rwlock))
			return EPERM;
		__atomic_store_n(&rwlock->__owner, NULL, __ATOMIC_RELAXED);
	} else {
		if (!(word & READERS) || !reading)
			return EPERM;
		reading--;
	}
	do {
		next = word & READERS ? word - 1 : 0;
		if (!(next & READERS))
			next = 0;
	} while (!__atomic_compare_exchange_n(&rwlock->__word, &word, next,
					      true, __ATOMIC_RELEASE,
					      __ATOMIC_RELAXED));
	if (!next && word & SLEEPERS)
		futex_wake(&rwlock->__word, INT_MAX);
	section_leave();
	return 0;
}

FORKGATE_EXPORT int forksafe_rwlock_init(forksafe_rwlock_t *rwlock,
					 const pthread_rwlockattr_t *attr)
{
	int shared = PTHREAD_PROCESS_PRIVATE;

	if (!rwlock)
		return EFAULT;
	if (attr && (pthread_rwlockattr_getpshared(attr, &shared) ||
		     shared != PTHREAD_PROCESS_PRIVATE))
		return EINVAL;
	*rwlock = (forksafe_rwlock_t)FORKSAFE_RWLOCK_INITIALIZER;
	return 0;
}

FORKGATE_EXPORT int forksafe_rwlock_destroy(forksafe_rwlock_t *rwlock)
{
	unsigned int word = 0;

	if (__atomic_compare_exchange_n(&rwlock->__word, &word, GONE, false,
					__ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return 0;
	return word & GONE ? EINVAL : EBUSY;
}
