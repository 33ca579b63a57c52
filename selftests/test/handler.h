/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * handler.h - SIGUSR1 for one worker
 *
 * It must not send the signal to the process, any thread of which could get it.
 */
#ifndef TEST_HANDLER_H
#define TEST_HANDLER_H

#include "worker.h"

#include <signal.h>

/* handle - call @function upon SIGUSR1 */
static inline void handle(void (*function)(int signo), int flags)
{
	struct sigaction action = { .sa_handler = function, .sa_flags = flags };

	sigaction(SIGUSR1, &action, NULL);
}

/* interrupt - 0 or -1 */
static inline int interrupt(struct worker *worker)
{
	return syscall(__NR_tgkill, getpid(), worker->tid, SIGUSR1);
}

/* job_enter_interrupted - the signal comes between the store (E1) and the test of "closed" (E3) */
static inline long job_enter_interrupted(void *domains)
{
	gate_count((uintptr_t)domains);
	raise(SIGUSR1);
	return gate_admit((uintptr_t)domains, 0);
}

/* job_leave_interrupted - the signal comes between the store (L1) and the call to wake (L3) */
static inline long job_leave_interrupted(void *domains)
{
	gate_uncount((uintptr_t)domains);
	raise(SIGUSR1);
	return gate_wake((uintptr_t)domains);
}

#endif /* TEST_HANDLER_H */
