/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * Fork-safe locks: QNX's forksafe_mutex, and what it lacks
 *
 * A thread that holds one of these locks is inside a memory section of
 * <forkgate.h>, so no fork copies the memory while another thread holds one. A
 * thread that waits for one is not, so waiting delays no fork. The thread that
 * forks may hold locks: its child owns them.
 *
 * Error numbers are returned, as by pthread functions; 0 is success; errno is
 * left alone. Unless they say so, functions are no cancellation points. All
 * locks are private to a process. The structures are compiled into programs:
 * their size and what the initializers say are permanent ABI; nothing else may
 * look into them. This file must not need more than C99 or C++11 with GNU
 * extensions.
 */
#ifndef _FORKSAFE_MUTEX_H
#define _FORKSAFE_MUTEX_H

#include <pthread.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct timespec;	/* strict C99 has none in <time.h> */

/* A program whose time_t has 64 bits on a 32-bit machine */
#if defined(__USE_TIME_BITS64) && defined(__TIMESIZE) && __TIMESIZE == 32
#define __FORKSAFE_TIME(name)	__asm__(#name "64")
#else
#define __FORKSAFE_TIME(name)	__asm__(#name)
#endif

/*
 * Mutexes
 */

typedef struct forksafe_mutex {
	unsigned int __word;
	unsigned int __kind;
	unsigned int __count;
	unsigned int __epoch;
	void *__owner;
	struct forksafe_mutex *__next;
	struct forksafe_mutex *__prev;
	pthread_mutex_t __mutex;
} forksafe_mutex_t;

#define FORKSAFE_MUTEX_INITIALIZER \
	{ 0, 0, 0, 0, 0, 0, 0, PTHREAD_MUTEX_INITIALIZER }
#define FORKSAFE_RMUTEX_INITIALIZER \
	{ 0, 1, 0, 0, 0, 0, 0, PTHREAD_MUTEX_INITIALIZER }

/**
 * forksafe_mutex_init() - make a mutex
 * @mutex: the mutex
 * @attr: NULL, or attributes: the type, PTHREAD_PRIO_INHERIT and
 *	PTHREAD_MUTEX_ROBUST count
 *
 * As on QNX every type but the recursive one checks for errors.
 *
 * Return: 0, EFAULT (@mutex is NULL), EINVAL (PTHREAD_PROCESS_SHARED or
 * PTHREAD_PRIO_PROTECT), ENOMEM or ENOTSUP (as pthread_mutex_init()).
 */
int forksafe_mutex_init(forksafe_mutex_t *mutex,
			const pthread_mutexattr_t *attr);

/**
 * forksafe_mutex_destroy() - end a mutex that is unlocked, or owned by the caller
 * @mutex: the mutex
 *
 * Return: 0, EBUSY (another thread has locked it), EINVAL (not a lock).
 *
 * Context: async-signal-safe, except for robust and priority-inheriting ones.
 */
int forksafe_mutex_destroy(forksafe_mutex_t *mutex);

/**
 * forksafe_mutex_lock() - lock a mutex
 * @mutex: the mutex
 *
 * Return: 0; EOWNERDEAD (locked, but its last owner has ended without unlocking
 * it); EAGAIN (nested too deep), EDEADLK (owned by the caller already, or
 * waiting would never end), EINVAL (not a mutex), ENOTRECOVERABLE; once asked
 * for strictly, the reasons of forkgate_init() why nothing is protected.
 */
int forksafe_mutex_lock(forksafe_mutex_t *mutex);

/**
 * forksafe_mutex_trylock() - lock a mutex unless that means waiting
 * @mutex: the mutex
 *
 * Return: 0; EBUSY (it is locked, or a fork keeps the caller out); as
 * forksafe_mutex_lock(), without EDEADLK.
 *
 * Context: as forksafe_mutex_destroy().
 */
int forksafe_mutex_trylock(forksafe_mutex_t *mutex);

/**
 * forksafe_mutex_timedlock() - lock a mutex, with a time limit
 * @mutex: the mutex
 * @abstime: CLOCK_REALTIME
 *
 * The time limits the wait for the mutex; a fork in progress may add to it.
 *
 * Return: as forksafe_mutex_lock(); ETIMEDOUT; EINVAL (tv_nsec out of range).
 */
int forksafe_mutex_timedlock(forksafe_mutex_t *mutex,
			     const struct timespec *abstime)
	__FORKSAFE_TIME(forksafe_mutex_timedlock);

/**
 * forksafe_mutex_clocklock() - the same with another clock
 * @mutex: the mutex
 * @clock: CLOCK_MONOTONIC or CLOCK_REALTIME
 * @abstime: time of that clock
 *
 * Return: as forksafe_mutex_timedlock(); EINVAL (another clock).
 */
int forksafe_mutex_clocklock(forksafe_mutex_t *mutex, clockid_t clock,
			     const struct timespec *abstime)
	__FORKSAFE_TIME(forksafe_mutex_clocklock);

/**
 * forksafe_mutex_unlock() - unlock a mutex
 * @mutex: the mutex
 *
 * Return: 0, EPERM (the caller does not own it), EINVAL (not a mutex).
 */
int forksafe_mutex_unlock(forksafe_mutex_t *mutex);

/**
 * forksafe_mutex_consistent() - say that what a dead owner left is repaired
 * @mutex: the mutex, locked with EOWNERDEAD
 *
 * Return: 0, EINVAL (not robust, not owned, or its last owner did not die).
 */
int forksafe_mutex_consistent(forksafe_mutex_t *mutex);

/*
 * Condition variables
 */

typedef struct forksafe_cond {
	unsigned int __sequence;
	int __clock;
} forksafe_cond_t;

#define FORKSAFE_COND_INITIALIZER	{ 0, 0 }

/**
 * forksafe_cond_init() - make a condition variable
 * @cond: the condition variable
 * @attr: NULL, or attributes: the clock counts
 *
 * Return: 0, EFAULT (@cond is NULL), EINVAL (PTHREAD_PROCESS_SHARED).
 */
int forksafe_cond_init(forksafe_cond_t *cond, const pthread_condattr_t *attr);

/**
 * forksafe_cond_destroy() - end a condition variable without waiters
 * @cond: the condition variable
 *
 * Return: 0.
 */
int forksafe_cond_destroy(forksafe_cond_t *cond);

/**
 * forksafe_cond_signal() - wake one thread that waits, if there is one
 * @cond: the condition variable
 *
 * Return: 0.
 */
int forksafe_cond_signal(forksafe_cond_t *cond);

/**
 * forksafe_cond_broadcast() - wake all threads that wait
 * @cond: the condition variable
 *
 * Return: 0.
 */
int forksafe_cond_broadcast(forksafe_cond_t *cond);

/**
 * forksafe_cond_wait() - unlock a mutex, wait, and lock it again
 * @cond: the condition variable
 * @mutex: the mutex, locked by the caller; all levels of a recursive one are
 *	given up
 *
 * A waiter is not inside the section of @mutex. May return early, as
 * pthread_cond_wait(). A cancellation point.
 *
 * Return: 0; EPERM (the caller does not own @mutex); as forksafe_mutex_lock().
 */
int forksafe_cond_wait(forksafe_cond_t *cond, forksafe_mutex_t *mutex);

/**
 * forksafe_cond_timedwait() - the same, with a time limit
 * @cond: the condition variable
 * @mutex: the mutex
 * @abstime: time of the clock of @cond, CLOCK_REALTIME by default
 *
 * Return: as forksafe_cond_wait(); ETIMEDOUT (the mutex is locked again);
 * EINVAL (tv_nsec out of range).
 */
int forksafe_cond_timedwait(forksafe_cond_t *cond, forksafe_mutex_t *mutex,
			    const struct timespec *abstime)
	__FORKSAFE_TIME(forksafe_cond_timedwait);

/**
 * forksafe_cond_clockwait() - the same with another clock
 * @cond: the condition variable
 * @mutex: the mutex
 * @clock: CLOCK_MONOTONIC or CLOCK_REALTIME
 * @abstime: time of that clock
 *
 * Return: as forksafe_cond_timedwait(); EINVAL (another clock).
 */
int forksafe_cond_clockwait(forksafe_cond_t *cond, forksafe_mutex_t *mutex,
			    clockid_t clock, const struct timespec *abstime)
	__FORKSAFE_TIME(forksafe_cond_clockwait);

/* QNX 6.6 had these names, there with a pthread_cond_t. */
#define forksafe_mutex_cond_wait	forksafe_cond_wait
#define forksafe_mutex_cond_timedwait	forksafe_cond_timedwait

/*
 * Read-write locks
 */

typedef struct forksafe_rwlock {
	unsigned int __word;
	unsigned int __epoch;
	void *__owner;
} forksafe_rwlock_t;

#define FORKSAFE_RWLOCK_INITIALIZER	{ 0, 0, 0 }

/**
 * forksafe_rwlock_init() - make a read-write lock
 * @rwlock: the lock
 * @attr: NULL, or attributes
 *
 * Return: 0, EFAULT (@rwlock is NULL), EINVAL (PTHREAD_PROCESS_SHARED).
 */
int forksafe_rwlock_init(forksafe_rwlock_t *rwlock,
			 const pthread_rwlockattr_t *attr);

/**
 * forksafe_rwlock_destroy() - end a read-write lock that is unlocked
 * @rwlock: the lock
 *
 * Return: 0, EBUSY (it is locked), EINVAL (not a lock).
 */
int forksafe_rwlock_destroy(forksafe_rwlock_t *rwlock);

/**
 * forksafe_rwlock_rdlock() - lock for reading
 * @rwlock: the lock
 *
 * Waits for a writer, also for one that only waits, unless the caller has some
 * lock locked for reading.
 *
 * Return: 0; EAGAIN (too many readers), EDEADLK (the caller has locked it for
 * writing), EINVAL (not a lock); once asked for strictly, the reasons of
 * forkgate_init() why nothing is protected.
 */
int forksafe_rwlock_rdlock(forksafe_rwlock_t *rwlock);

/**
 * forksafe_rwlock_tryrdlock() - lock for reading unless that means waiting
 * @rwlock: the lock
 *
 * Return: 0; EBUSY (also when a fork keeps the caller out); as
 * forksafe_rwlock_rdlock(), without EDEADLK.
 */
int forksafe_rwlock_tryrdlock(forksafe_rwlock_t *rwlock);

/**
 * forksafe_rwlock_timedrdlock() - lock for reading, with a time limit
 * @rwlock: the lock
 * @abstime: CLOCK_REALTIME
 *
 * Return: as forksafe_rwlock_rdlock(); ETIMEDOUT; EINVAL (tv_nsec out of range).
 */
int forksafe_rwlock_timedrdlock(forksafe_rwlock_t *rwlock,
				const struct timespec *abstime)
	__FORKSAFE_TIME(forksafe_rwlock_timedrdlock);

/**
 * forksafe_rwlock_clockrdlock() - the same with another clock
 * @rwlock: the lock
 * @clock: CLOCK_MONOTONIC or CLOCK_REALTIME
 * @abstime: time of that clock
 *
 * Return: as forksafe_rwlock_timedrdlock(); EINVAL (another clock).
 */
int forksafe_rwlock_clockrdlock(forksafe_rwlock_t *rwlock, clockid_t clock,
				const struct timespec *abstime)
	__FORKSAFE_TIME(forksafe_rwlock_clockrdlock);

/**
 * forksafe_rwlock_wrlock() - lock for writing
 * @rwlock: the lock
 *
 * Return: as forksafe_rwlock_rdlock(), without EAGAIN.
 */
int forksafe_rwlock_wrlock(forksafe_rwlock_t *rwlock);

/**
 * forksafe_rwlock_trywrlock() - lock for writing unless that means waiting
 * @rwlock: the lock
 *
 * Return: 0; EBUSY (also when a fork keeps the caller out); as
 * forksafe_rwlock_wrlock(), without EDEADLK.
 */
int forksafe_rwlock_trywrlock(forksafe_rwlock_t *rwlock);

/**
 * forksafe_rwlock_timedwrlock() - lock for writing, with a time limit
 * @rwlock: the lock
 * @abstime: CLOCK_REALTIME
 *
 * Return: as forksafe_rwlock_wrlock(); ETIMEDOUT; EINVAL (tv_nsec out of range).
 */
int forksafe_rwlock_timedwrlock(forksafe_rwlock_t *rwlock,
				const struct timespec *abstime)
	__FORKSAFE_TIME(forksafe_rwlock_timedwrlock);

/**
 * forksafe_rwlock_clockwrlock() - the same with another clock
 * @rwlock: the lock
 * @clock: CLOCK_MONOTONIC or CLOCK_REALTIME
 * @abstime: time of that clock
 *
 * Return: as forksafe_rwlock_timedwrlock(); EINVAL (another clock).
 */
int forksafe_rwlock_clockwrlock(forksafe_rwlock_t *rwlock, clockid_t clock,
				const struct timespec *abstime)
	__FORKSAFE_TIME(forksafe_rwlock_clockwrlock);

/**
 * forksafe_rwlock_unlock() - unlock what the caller has locked
 * @rwlock: the lock
 *
 * Return: 0, EPERM (not locked, or write-locked by another thread),
 * EINVAL (not a lock).
 */
int forksafe_rwlock_unlock(forksafe_rwlock_t *rwlock);

#ifdef __cplusplus
}
#endif

#endif /* _FORKSAFE_MUTEX_H */
