// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Fork-safe mutexes
 *
 * Invariant: a mutex is owned only by a thread that has entered a memory
 * section for it, one level for each level of the mutex, before it took it.
 *
 * Most mutexes are the futex __word: FREE, LOCKED, CONTENDED (there may be
 * sleepers). A thread that finds it locked leaves the section, turns LOCKED to
 * CONTENDED, sleeps, enters again and tries again.
 *
 * - A waiter never gives up, for whatever reason, without having seen the word
 *   free or made it CONTENDED after it was woken last, and takes it as
 *   CONTENDED: the sleep of others has not been forgotten.
 * - A thread that is woken may find the gate closed, while a thread inside
 *   sections sleeps for the same mutex and the fork waits for that thread. So
 *   before it waits at the gate it wakes the next sleeper.
 *
 * Robust and priority-inheriting mutexes have a libc mutex in them, __mutex,
 * because only libc knows the list that the kernel goes through for the dead,
 * and because only the kernel can raise an owner's priority, and only while it
 * hands the mutex over. So a waiter sleeps in libc, outside of the section, and
 * gets the libc mutex there. It enters the section then if it can; if the gate
 * is closed, it gives the libc mutex back first. A copy of the memory may
 * therefore show a libc mutex of a thread that the child does not have, but such
 * a thread does not own the mutex yet: what children find is made new before
 * they use it (__epoch). What the forking thread owns, it locks anew at once:
 * libc's mutexes know their owner by its thread id (held). Both happen only in
 * children of libc's fork().
 *
 * The type (error-checking or recursive) is never left to libc, and the states
 * of robust mutexes neither: both must survive that. __owner is the address of
 * the owner's thread, which is the same in the child; of a mutex with a libc
 * mutex it says only that there is an owner, as threads that come after a dead
 * one have its address.
 *
 * This file must not allocate memory, and must not use libc's mutexes for the
 * ordinary kinds.
 */
#define _GNU_SOURCE
#undef _TIME_BITS	/* both kinds of functions with a time are here */
#include <assert.h>
#include <stddef.h>

#include "forksafe-internal.h"

/* Compiled into programs, never to be changed. */
static_assert(offsetof(forksafe_mutex_t, __kind) == 4, "kind");
static_assert(offsetof(forksafe_mutex_t, __mutex) == 16 + 3 * sizeof(void *),
	      "mutex");

/* __word */
#define FREE		0
#define LOCKED		1
#define CONTENDED	2
#define OTHER		3	/* see __kind */

/* __kind */
#define RECURSIVE	1u	/* part of the ABI */
#define INNER		2u	/* __mutex is the lock */
#define INHERIT		4u
#define ROBUST		8u
#define DIED		16u	/* inconsistent; changes under __mutex */
#define LOST		32u	/* not recoverable; changes under __mutex */
#define GONE		64u	/* destroyed */
#define KINDS		127u

#define LEVELS_MAX	0x7fffffff

unsigned int __forkgate_epoch;
static forksafe_mutex_t renewal = FORKSAFE_MUTEX_INITIALIZER;

/* The INNER mutexes that this thread owns */
static __thread forksafe_mutex_t *held;

static inline bool take(forksafe_mutex_t *mutex, unsigned int as)
{
	unsigned int free = FREE;

	if (!__atomic_compare_exchange_n(&mutex->__word, &free, as, false,
					 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return false;
	__atomic_store_n(&mutex->__owner, self(), __ATOMIC_RELAXED);
	return true;
}

static inline void release(forksafe_mutex_t *mutex)
{
	__atomic_store_n(&mutex->__owner, NULL, __ATOMIC_RELAXED);
	if (unlikely(__atomic_exchange_n(&mutex->__word, FREE,
					 __ATOMIC_RELEASE) == CONTENDED))
		futex_wake(&mutex->__word, 1);
}

/* Sleep, outside of the section. Return: 0: try again, or ETIMEDOUT, EINVAL */
static int sleep_until_free(forksafe_mutex_t *mutex, const struct limit *limit)
{
	unsigned int word = LOCKED;
	int err;

	if (!__atomic_compare_exchange_n(&mutex->__word, &word, CONTENDED,
					 false, __ATOMIC_RELAXED,
					 __ATOMIC_RELAXED) &&
	    word != CONTENDED)
		return word == FREE ? 0 : EINVAL;
	if (!limit_valid(limit))
		return EINVAL;
	err = futex_wait(&mutex->__word, CONTENDED, limit);
	return err == ETIMEDOUT ? err : 0;
}

/* Enter, but without keeping the mutex from others while the gate is closed. */
static int enter_woken(forksafe_mutex_t *mutex, const void *site)
{
	int err = section_tryenter(site);

	if (!err)
		return 0;
	futex_wake(&mutex->__word, 1);
	return err == EBUSY ? section_enter(site) : err;
}

/*
 * INNER mutexes
 */

static unsigned int kind_of(forksafe_mutex_t *mutex)
{
	return __atomic_load_n(&mutex->__kind, __ATOMIC_RELAXED);
}

static void set_kind(forksafe_mutex_t *mutex, unsigned int set,
		     unsigned int clear)
{
	__atomic_store_n(&mutex->__kind, (kind_of(mutex) | set) & ~clear,
			 __ATOMIC_RELAXED);
}

static int make_inner(forksafe_mutex_t *mutex)
{
	unsigned int kind = kind_of(mutex);
	pthread_mutexattr_t attr;
	int err;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_NORMAL);
	if (kind & ROBUST)
		pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	if (kind & INHERIT)
		pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	err = pthread_mutex_init(&mutex->__mutex, &attr);
	pthread_mutexattr_destroy(&attr);
	__atomic_store_n(&mutex->__epoch, __forkgate_epoch, __ATOMIC_RELEASE);
	return err;
}

/* Inside the section. Return: 0; EBUSY: a signal handler interrupted this */
static int renew(forksafe_mutex_t *mutex)
{
	int err;

	if (__atomic_load_n(&mutex->__epoch, __ATOMIC_ACQUIRE) == __forkgate_epoch)
		return 0;
	err = forksafe_mutex_lock(&renewal);
	if (err)
		return err == EDEADLK ? EBUSY : err;
	if (mutex->__epoch != __forkgate_epoch) {
		if (mutex->__owner && kind_of(mutex) & ROBUST)
			set_kind(mutex, DIED, 0);
		if (!mutex->__owner || kind_of(mutex) & ROBUST)
			make_inner(mutex);
		else	/* dead, or copied unsafely: it stays locked */
			__atomic_store_n(&mutex->__epoch, __forkgate_epoch,
					 __ATOMIC_RELEASE);
	}
	return forksafe_mutex_unlock(&renewal);
}

static void unlink_held(forksafe_mutex_t *mutex)
{
	if (mutex->__prev)
		mutex->__prev->__next = mutex->__next;
	else
		held = mutex->__next;
	if (mutex->__next)
		mutex->__next->__prev = mutex->__prev;
}

/* The links may be those of a thread that has died. */
static void link_held(forksafe_mutex_t *mutex)
{
	mutex->__prev = NULL;
	mutex->__next = held;
	if (held)
		held->__prev = mutex;
	held = mutex;
}

/* The libc mutex is the caller's now. Return: as pthread_mutex_lock() */
static int inner_got(forksafe_mutex_t *mutex, int err)
{
	if (err != EOWNERDEAD)
		return err;
	pthread_mutex_consistent(&mutex->__mutex);
	set_kind(mutex, DIED, 0);
	return 0;
}

static int inner_try(forksafe_mutex_t *mutex)
{
	return inner_got(mutex, pthread_mutex_trylock(&mutex->__mutex));
}

static int inner_wait(forksafe_mutex_t *mutex, const struct limit *limit)
{
	struct timespec abstime;
	int err;

	if (!limit)
		return inner_got(mutex, pthread_mutex_lock(&mutex->__mutex));
	if (limit->sec < 0)
		return ETIMEDOUT;

	abstime.tv_sec = limit->sec;
	abstime.tv_nsec = limit->nsec;
	if (abstime.tv_sec != limit->sec)	/* 32 bits: not yet */
		abstime.tv_sec = LONG_MAX;
	err = pthread_mutex_clocklock(&mutex->__mutex, limit->clock, &abstime);
	return inner_got(mutex, err);
}

/* Inside the section, with the libc mutex. Return: as forksafe_mutex_lock() */
static int inner_own(forksafe_mutex_t *mutex)
{
	unsigned int kind = kind_of(mutex);

	if (kind & LOST) {
		pthread_mutex_unlock(&mutex->__mutex);
		return ENOTRECOVERABLE;
	}
	mutex->__count = 0;
	__atomic_store_n(&mutex->__owner, mutex, __ATOMIC_RELAXED);
	link_held(mutex);
	return kind & DIED ? EOWNERDEAD : 0;
}

static void inner_release(forksafe_mutex_t *mutex)
{
	unlink_held(mutex);
	if (kind_of(mutex) & DIED)
		set_kind(mutex, LOST, DIED);
	__atomic_store_n(&mutex->__owner, NULL, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&mutex->__mutex);
}

/*
 * Lock one that is not the caller's; the section is left if that fails.
 * Return: as forksafe_mutex_lock().
 */
static int inner_lock(forksafe_mutex_t *mutex, const struct limit *limit,
		      const void *site)
{
	int err = renew(mutex);

	if (!err)
		err = inner_try(mutex);
	while (err == EBUSY) {
		section_leave();
		if (!limit_valid(limit))
			return EINVAL;
		err = inner_wait(mutex, limit);
		if (err)
			return err;
		err = section_tryenter(site);
		if (!err)
			break;
		pthread_mutex_unlock(&mutex->__mutex);
		if (err == EBUSY)
			err = section_enter(site);
		if (err)
			return err;
		err = inner_try(mutex);
	}
	if (!err)
		err = inner_own(mutex);
	if (err && err != EOWNERDEAD)
		section_leave();
	return err;
}

/*
 * All mutexes
 */

bool __forkgate_mutex_owned(forksafe_mutex_t *mutex)
{
	forksafe_mutex_t *own;

	if (!(kind_of(mutex) & INNER))
		return __atomic_load_n(&mutex->__owner, __ATOMIC_RELAXED) ==
		       self();
	for (own = held; own; own = own->__next)
		if (own == mutex)
			return true;
	return false;
}

/* One more level of an own mutex, and of the section. */
static int nest(forksafe_mutex_t *mutex, int otherwise)
{
	if (!(kind_of(mutex) & RECURSIVE))
		return otherwise;
	if (mutex->__count >= LEVELS_MAX)
		return EAGAIN;
	mutex->__count++;
	return 0;
}

/* In the section that was entered for the mutex, which is not free */
static __attribute__((__noinline__))
int lock_slow(forksafe_mutex_t *mutex, const struct limit *limit,
	      const void *site)
{
	unsigned int kind = kind_of(mutex);
	int err;

	if (kind & (GONE | ~KINDS)) {
		section_leave();
		return EINVAL;
	}
	if (__forkgate_mutex_owned(mutex)) {
		err = nest(mutex, EDEADLK);
		if (err)
			section_leave();
		return err;
	}
	if (kind & INNER)
		return inner_lock(mutex, limit, site);
	do {
		section_leave();
		err = sleep_until_free(mutex, limit);
		if (err)
			return err;
		err = enter_woken(mutex, site);
		if (err)
			return err;
	} while (!take(mutex, CONTENDED));
	return 0;
}

static inline int lock(forksafe_mutex_t *mutex, const struct limit *limit,
		       const void *site)
{
	int err = section_enter(site);

	if (unlikely(err))
		return err;
	if (unlikely(!take(mutex, LOCKED)))
		return lock_slow(mutex, limit, site);
	return 0;
}

static int trylock_slow(forksafe_mutex_t *mutex)
{
	unsigned int kind = kind_of(mutex);
	int err;

	if (kind & (GONE | ~KINDS))
		return EINVAL;
	if (__forkgate_mutex_owned(mutex))
		return nest(mutex, EBUSY);
	if (!(kind & INNER))
		return EBUSY;
	err = renew(mutex);
	if (!err)
		err = inner_try(mutex);
	if (!err)
		err = inner_own(mutex);
	return err;
}

FORKGATE_EXPORT int forksafe_mutex_lock(forksafe_mutex_t *mutex)
{
	return lock(mutex, NULL, caller());
}

FORKGATE_EXPORT int forksafe_mutex_trylock(forksafe_mutex_t *mutex)
{
	int err = section_tryenter(caller());

	if (err || take(mutex, LOCKED))
		return err;
	err = trylock_slow(mutex);
	if (err && err != EOWNERDEAD)
		section_leave();
	return err;
}

FORKGATE_EXPORT int forksafe_mutex_timedlock(forksafe_mutex_t *mutex,
					     const struct timespec *abstime)
{
	return lock(mutex, LIMIT(CLOCK_REALTIME, abstime), caller());
}

FORKGATE_EXPORT int forksafe_mutex_clocklock(forksafe_mutex_t *mutex,
					     clockid_t clock,
					     const struct timespec *abstime)
{
	return lock(mutex, LIMIT(clock, abstime), caller());
}

#ifdef TIME64_TWINS
FORKGATE_EXPORT int forksafe_mutex_timedlock64(forksafe_mutex_t *mutex,
					       const struct forksafe_time64 *abstime)
{
	return lock(mutex, LIMIT(CLOCK_REALTIME, abstime), caller());
}

FORKGATE_EXPORT int forksafe_mutex_clocklock64(forksafe_mutex_t *mutex,
					       clockid_t clock,
					       const struct forksafe_time64 *abstime)
{
	return lock(mutex, LIMIT(clock, abstime), caller());
}
#endif

static int unlock_slow(forksafe_mutex_t *mutex)
{
	if (kind_of(mutex) & (GONE | ~KINDS))
		return EINVAL;
	if (!__forkgate_mutex_owned(mutex))
		return EPERM;
	if (mutex->__count)
		mutex->__count--;
	else
		inner_release(mutex);
	section_leave();
	return 0;
}

FORKGATE_EXPORT int forksafe_mutex_unlock(forksafe_mutex_t *mutex)
{
	if (unlikely(__atomic_load_n(&mutex->__owner, __ATOMIC_RELAXED) !=
		     self()))
		return unlock_slow(mutex);
	if (unlikely(mutex->__count))
		mutex->__count--;
	else
		release(mutex);
	section_leave();
	return 0;
}

FORKGATE_EXPORT int forksafe_mutex_consistent(forksafe_mutex_t *mutex)
{
	if (!(kind_of(mutex) & DIED) || !__forkgate_mutex_owned(mutex))
		return EINVAL;
	set_kind(mutex, 0, DIED);
	return 0;
}

unsigned int __forkgate_mutex_suspend(forksafe_mutex_t *mutex)
{
	unsigned int levels = mutex->__count + 1;
	unsigned int i;

	mutex->__count = 0;
	if (kind_of(mutex) & INNER)
		inner_release(mutex);
	else
		release(mutex);
	for (i = 0; i < levels; i++)
		section_leave();
	return levels;
}

int __forkgate_mutex_resume(forksafe_mutex_t *mutex, unsigned int levels,
			    const void *site)
{
	int err = lock(mutex, NULL, site);

	if (err && err != EOWNERDEAD)
		return err;
	while (--levels) {
		section_enter(site);
		mutex->__count++;
	}
	return err;
}

FORKGATE_EXPORT int forksafe_mutex_init(forksafe_mutex_t *mutex,
					const pthread_mutexattr_t *attr)
{
	int type = PTHREAD_MUTEX_DEFAULT, robust = PTHREAD_MUTEX_STALLED;
	int protocol = PTHREAD_PRIO_NONE, shared = PTHREAD_PROCESS_PRIVATE;
	unsigned int kind = 0;

	if (!mutex)
		return EFAULT;
	if (attr &&
	    (pthread_mutexattr_gettype(attr, &type) ||
	     pthread_mutexattr_getrobust(attr, &robust) ||
	     pthread_mutexattr_getprotocol(attr, &protocol) ||
	     pthread_mutexattr_getpshared(attr, &shared)))
		return EINVAL;
	if (shared != PTHREAD_PROCESS_PRIVATE ||
	    protocol == PTHREAD_PRIO_PROTECT)
		return EINVAL;

	if (type == PTHREAD_MUTEX_RECURSIVE)
		kind |= RECURSIVE;
	if (robust == PTHREAD_MUTEX_ROBUST)
		kind |= INNER | ROBUST;
	if (protocol == PTHREAD_PRIO_INHERIT)
		kind |= INNER | INHERIT;
	*mutex = (forksafe_mutex_t){
		.__word = kind & INNER ? OTHER : FREE,
		.__kind = kind,
	};
	return kind & INNER ? make_inner(mutex) : 0;
}

FORKGATE_EXPORT int forksafe_mutex_destroy(forksafe_mutex_t *mutex)
{
	bool owned = __forkgate_mutex_owned(mutex);
	unsigned int kind = kind_of(mutex);
	unsigned int free = FREE;
	unsigned int levels = 0;
	int err;

	if (kind & (GONE | ~KINDS))
		return EINVAL;
	if (owned) {
		levels = mutex->__count + 1;
		if (kind & INNER)
			inner_release(mutex);
		mutex->__owner = NULL;
		mutex->__word = OTHER;
	} else if (kind & INNER) {
		err = EOWNERDEAD;	/* a copied one has no owner */
		if (mutex->__epoch == __forkgate_epoch)
			err = inner_try(mutex);
		if (err == EBUSY)
			return EBUSY;
		if (!err)
			pthread_mutex_unlock(&mutex->__mutex);
	} else if (!__atomic_compare_exchange_n(&mutex->__word, &free, OTHER,
						false, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED)) {
		return EBUSY;
	}
	if (kind & INNER)
		pthread_mutex_destroy(&mutex->__mutex);
	set_kind(mutex, GONE, 0);
	while (levels--)
		section_leave();
	return 0;
}

/* There is only one thread yet. */
static void child_handler(void)
{
	forksafe_mutex_t *mutex;

	__forkgate_epoch++;
	for (mutex = held; mutex; mutex = mutex->__next) {
		make_inner(mutex);
		pthread_mutex_lock(&mutex->__mutex);
	}
}

static __attribute__((__constructor__)) void setup(void)
{
	pthread_atfork(NULL, NULL, child_handler);
}
