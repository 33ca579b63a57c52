/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * base.h - constants, waiting, futexes: what every selftest of forkgate needs
 *
 * The headers in this folder open, map, enter, fork and wait. They must not
 * decide what is right: every judgement is the test's.
 *
 * A wait is for an event, with a long limit (30 s, times KSELFTEST_SLOW from
 * the environment), never for a time.
 */
#ifndef TEST_BASE_H
#define TEST_BASE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef READ_ONCE
#define READ_ONCE(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v)	__atomic_store_n(&(x), v, __ATOMIC_RELAXED)
#endif
#ifndef __maybe_unused
#define __maybe_unused		__attribute__((__unused__))
#endif
/* On x86 the module's hook is a kprobe; where it is not, kprobes may be switched off. */
#if defined(__x86_64__) || defined(__i386__)
#define KPROBE_HOOK		true
#else
#define KPROBE_HOOK		false
#endif
#define KPROBES			"/sys/kernel/debug/kprobes/enabled"

#define barrier()		__asm__ __volatile__("" ::: "memory")

#define NSEC_PER_SEC		1000000000ULL
#define NSEC_PER_MSEC		1000000ULL

static inline uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

/* slow_factor - how much longer things take on this kernel */
static inline int slow_factor(void)
{
	const char *slow = getenv("KSELFTEST_SLOW");
	int factor = slow ? atoi(slow) : 1;

	return factor > 0 ? factor : 1;
}

/*
 * wait_limit - the moment (ms) at which a wait that starts now gives up: after
 * 30 s, or KSELFTEST_WAIT, times the factor
 */
static inline uint64_t wait_limit(void)
{
	const char *given = getenv("KSELFTEST_WAIT");
	int seconds = given ? atoi(given) : 0;

	return now_ms() + 1000ULL * (seconds > 0 ? seconds : 30) * slow_factor();
}

/* wait_tick - let others run before the next look; false once it is too late */
static inline bool wait_tick(uint64_t limit)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	nanosleep(&ms, NULL);
	return now_ms() < limit;
}

/* wait_until() - poll for an event; false when it did not come */
#define wait_until(condition) ({					\
	uint64_t limit_ = wait_limit();					\
	bool met_, late_ = false;					\
									\
	while (!(met_ = !!(condition)) && !late_)			\
		late_ = !wait_tick(limit_);				\
	met_; })

static inline long sys_futex(int *word, int op, int value, const struct timespec *time)
{
#ifdef __NR_futex
	return syscall(__NR_futex, word, op, value, time, NULL, 0);
#else
	return syscall(__NR_futex_time64, word, op, value, time, NULL, 0);
#endif
}

static inline pid_t sys_gettid(void)
{
	return syscall(__NR_gettid);
}

/*
 * A latch is a word that is 0 until the test opens it. Signal handlers and
 * processes that share the memory may wait at it.
 */

static inline void latch_wait(int *latch)
{
	while (!__atomic_load_n(latch, __ATOMIC_ACQUIRE))
		sys_futex(latch, FUTEX_WAIT, 0, NULL);
}

static inline void latch_open(int *latch)
{
	__atomic_store_n(latch, 1, __ATOMIC_RELEASE);
	sys_futex(latch, FUTEX_WAKE, INT_MAX, NULL);
}

#endif /* TEST_BASE_H */
