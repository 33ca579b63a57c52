/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * What the fork-safe locks share: sections, futexes and time limits
 *
 * The rule of them all: enter the section, then take the lock; and never sleep
 * for a lock inside the section that is entered for it. A lock is thus never
 * taken by a thread that the gate could stop next, and no copy of the memory
 * shows a lock of a thread that the child has not got. Must not be installed.
 */
#ifndef _FORKSAFE_INTERNAL_H
#define _FORKSAFE_INTERNAL_H

#include <limits.h>
#include <linux/futex.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "forksafe_mutex.h"
#include "internal.h"

#define unlikely(x)	forkgate_unlikely(x)

/* The calling thread; the same in the child of the thread that forks */
static inline void *self(void)
{
#if defined(__x86_64__) || defined(__i386__)
	return __builtin_thread_pointer();
#else
	return (void *)(uintptr_t)pthread_self();
#endif
}

/* Blame shows the code that wanted the lock, not the library. */
#define caller()	__builtin_return_address(0)

static inline int section_enter(const void *site)
{
	return forkgate_enter_at(site, FORKGATE_MEMORY, 0);
}

static inline int section_tryenter(const void *site)
{
	return forkgate_enter_at(site, FORKGATE_MEMORY, FORKGATE_NONBLOCK);
}

static inline void section_leave(void)
{
	forkgate_leave(FORKGATE_MEMORY);
}

/**
 * struct limit - when a wait ends
 * @clock: CLOCK_REALTIME or CLOCK_MONOTONIC
 * @sec: seconds
 * @nsec: nanoseconds
 */
struct limit {
	clockid_t clock;
	int64_t sec;
	int64_t nsec;
};

static inline bool limit_valid(const struct limit *limit)
{
	return !limit || ((limit->clock == CLOCK_REALTIME ||
			   limit->clock == CLOCK_MONOTONIC) &&
			  limit->nsec >= 0 && limit->nsec < 1000000000);
}

#ifdef SYS_futex_time64
#define SYS_FUTEX	SYS_futex_time64
#else
#define SYS_FUTEX	SYS_futex
#endif

/**
 * futex_wait() - sleep until woken
 * @word: where
 * @value: do not sleep if it has another value
 * @limit: when to give up, NULL: never
 *
 * Return: 0, or an error number: EAGAIN, EINTR, ETIMEDOUT.
 */
static inline int futex_wait(unsigned int *word, unsigned int value,
			     const struct limit *limit)
{
	int op = FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG;
	int saved_errno = errno;
	int64_t time[2];
	int err = 0;

	if (limit) {
		if (limit->sec < 0)
			return ETIMEDOUT;
		if (limit->clock == CLOCK_REALTIME)
			op |= FUTEX_CLOCK_REALTIME;
		time[0] = limit->sec;
		time[1] = limit->nsec;
	}
	if (syscall(SYS_FUTEX, word, (long)op, (unsigned long)value,
		    limit ? time : NULL, NULL,
		    (unsigned long)FUTEX_BITSET_MATCH_ANY))
		err = errno;
	errno = saved_errno;
	return err;
}

/* The lock, or its memory, may be gone by now: then there is no sleeper. */
static inline void futex_wake(unsigned int *word, int count)
{
	int saved_errno = errno;

	syscall(SYS_FUTEX, word, (long)(FUTEX_WAKE | FUTEX_PRIVATE_FLAG),
		(long)count, NULL, NULL, 0L);
	errno = saved_errno;
}

#define LIMIT(clock_, abstime) \
	(&(struct limit){ clock_, (abstime)->tv_sec, (abstime)->tv_nsec })

/*
 * Where time_t has 32 bits there are programs in which it has 64: functions
 * with a time have a twin for them.
 */
#if defined(__TIMESIZE) && __TIMESIZE == 32
#define TIME64_TWINS

struct forksafe_time64 {
	int64_t tv_sec;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	int32_t pad;
	int32_t tv_nsec;
#else
	int32_t tv_nsec;
	int32_t pad;
#endif
};
#endif

/* forksafe_mutex.c */

/* Counts forks, in the children: what was noted in another epoch was copied. */
extern unsigned int __forkgate_epoch;

/**
 * __forkgate_mutex_owned() - does the caller own a mutex?
 * @mutex: the mutex
 *
 * Return: true if it does.
 */
bool __forkgate_mutex_owned(forksafe_mutex_t *mutex);

/**
 * __forkgate_mutex_suspend() - unlock all levels of a mutex that the caller owns
 * @mutex: the mutex
 *
 * Return: levels, for __forkgate_mutex_resume().
 */
unsigned int __forkgate_mutex_suspend(forksafe_mutex_t *mutex);

/**
 * __forkgate_mutex_resume() - lock a mutex again
 * @mutex: the mutex
 * @levels: what __forkgate_mutex_suspend() has returned
 * @site: address of the caller's caller
 *
 * Return: as forksafe_mutex_lock().
 */
int __forkgate_mutex_resume(forksafe_mutex_t *mutex, unsigned int levels,
			    const void *site);

#endif /* _FORKSAFE_INTERNAL_H */
