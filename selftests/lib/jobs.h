/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * jobs.h - jobs of workers that go through libforkgate, and what they come to
 *
 * For tests with both gates and with one of them. Must not judge: what a child has
 * to find is the test's.
 */
#ifndef LIB_JOBS_H
#define LIB_JOBS_H

#include "../test/harness.h"

#include <forkgate.h>

/* depth - of the caller's sections, memory * 10 + files */
static inline int depth(void)
{
	struct forkgate_slot *slot = forkgate_self;

	return slot ? slot->depth[0] * 10 + slot->depth[1] : 0;
}

static inline long do_enter(void *domains)
{
	return forkgate_enter((uintptr_t)domains);
}

static inline long do_tryenter(void *domains)
{
	return forkgate_tryenter((uintptr_t)domains);
}

static inline long do_leave(void *domains)
{
	forkgate_leave((uintptr_t)domains);
	return depth();
}

static inline long do_prepare(void *domains)
{
	return forkgate_prepare((uintptr_t)domains, NULL);
}

static inline long do_release(void *unused)
{
	return forkgate_release();
}

/* forked - what a job that forks ends with; the child ends with what it finds */
static inline long forked(pid_t pid, child_fn child)
{
	if (!pid)
		_exit(child());
	return pid < 0 ? -errno : pid;
}

/* reap - 0 for a child that went well; system() and popen() have waited themselves */
static inline int reap(long result)
{
	return result > 0 ? child_exit(result) : result;
}

/* set_times - a policy whose only limits are these */
static inline int set_times(__u64 patience_ms, __u64 hold_ms)
{
	struct forkgate_policy policy = patient_policy;

	policy.patience = patience_ms * NSEC_PER_MSEC;
	policy.ticket_hold = hold_ms * NSEC_PER_MSEC;
	return gate_set_policy(&policy);
}

#endif /* LIB_JOBS_H */
