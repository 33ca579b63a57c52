// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 7: no inversion hangs. A drain yields after its patience, once for the
 * newcomers blocked so far, with twice the patience each time.
 * Rule 6: neither do long sections starve the fork.
 */
#include "test/harness.h"

FIXTURE_WORKERS(patience, holder, forker, newcomer, late);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static long job_lock(void *unused)
{
	return -pthread_mutex_lock(&lock);
}

static long job_enter_then_unlock(void *domains)
{
	long ret = gate_enter((uintptr_t)domains);

	pthread_mutex_unlock(&lock);
	return ret ? ret : gate_leave((uintptr_t)domains);
}

static long job_lock_then_drop(void *domains)
{
	pthread_mutex_lock(&lock);
	pthread_mutex_unlock(&lock);
	return job_drop(domains);
}

/* The newcomer holds an ordinary lock that the thread in the section needs. */
TEST_F(patience, inversion_is_resolved)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->newcomer, job_lock, NULL));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	start(&self->holder, job_lock_then_drop, ARG(MEMORY));
	start(&self->newcomer, job_enter_then_unlock, ARG(MEMORY));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_LE(1, gate_state().yields);
	EXPECT_EQ(0, gate.head->closed);
}

/* The same for a prepare. */
TEST_F(patience, inversion_is_resolved_for_a_ticket)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->newcomer, job_lock, NULL));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FILES)));
	ASSERT_TRUE(prepare_waits(&self->forker, BOTH, 1));
	start(&self->holder, job_lock_then_drop, ARG(FILES));
	start(&self->newcomer, job_enter_then_unlock, ARG(BOTH));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_LE(1, gate_state().yields);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* Several forkers, an inversion, and one forker of the next phase */
TEST_F(patience, inversion_with_several_forkers)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->newcomer, job_lock, NULL));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	start(&self->forker, job_fork, &fork_both);
	start(&self->late, job_fork, &fork_files);
	ASSERT_TRUE(wait_until(gate_state().forkers == 2));
	start(&self->holder, job_lock_then_drop, ARG(BOTH));
	start(&self->newcomer, job_enter_then_unlock, ARG(BOTH));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->late));
}

/* No thread sleeps for a ticket that is polled for: the drain yields all the same. */
TEST_F(patience, inversion_is_resolved_for_a_polled_ticket)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->newcomer, job_lock, NULL));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_try_prepare, ARG(BOTH)));
	start(&self->holder, job_lock_then_drop, ARG(MEMORY));
	start(&self->newcomer, job_enter_then_unlock, ARG(MEMORY));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_TRUE(wait_until(run(&self->forker, job_try_prepare, ARG(BOTH)) == 0));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/*
 * A fork holds the lock that the section needs, and waits for the next phase
 * although what it needs is idle: the drain lets it join.
 */
static long job_vfork_then_unlock(void *child)
{
	long pid = job_vfork(child);

	pthread_mutex_unlock(&lock);
	return pid;
}

TEST_F(patience, inversion_through_the_queue)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->late, job_prepare, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 2));
	ASSERT_EQ(0, run(&self->newcomer, job_lock, NULL));
	start(&self->newcomer, job_vfork_then_unlock, child_nothing);
	ASSERT_TRUE(wait_until(worker_waits(&self->newcomer, 3)));
	start(&self->holder, job_lock_then_drop, ARG(MEMORY));
	EXPECT_EQ(0, run(&self->late, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->newcomer));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(MEMORY)));
}

/* Those let through are inside, so the fork waits for them too. */
TEST_F(patience, fork_waits_for_those_let_through)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	EXPECT_EQ(0, run(&self->newcomer, job_hold, ARG(MEMORY)));
	EXPECT_LE(1, gate_state().yields);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->newcomer, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* A yield is not an opening: a thread that comes later waits again. */
TEST_F(patience, yield_does_not_open)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	EXPECT_EQ(0, run(&self->newcomer, job_enter, ARG(MEMORY)));
	EXPECT_EQ(BOTH, gate.head->closed);
	EXPECT_EQ(-EBUSY, run(&self->late, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(1, gate_state().phases);
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* Without newcomers there is nothing to yield. */
TEST_F(patience, no_yield_without_newcomers)
{
	ASSERT_EQ(0, change_policy(patience, 1));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	EXPECT_EQ(0, gate_state().yields);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, gate_state().yields);
}

TEST_F(patience, forever_never_yields)
{
	ASSERT_EQ(0, change_policy(patience, FORKGATE_FOREVER));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	start(&self->newcomer, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, gate_state().yields);
}

/* patience 0, QNX's rule: newcomers are not kept out, so there is nothing to yield. */
TEST_F(patience, none_keeps_none_out)
{
	int i;

	ASSERT_EQ(0, change_policy(patience, 0));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	for (i = 0; i < 50; i++) {
		ASSERT_EQ(0, run(&self->newcomer, job_enter, ARG(BOTH)));
		ASSERT_EQ(0, run(&self->newcomer, job_leave, ARG(BOTH)));
	}
	EXPECT_EQ(0, gate_state().blocked);
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, gate_state().yields);
}

/*
 * Long sections that overlap, by newcomers that come back at once: every
 * yield lets them in again, but each time the fork keeps them out for longer.
 */
static int stop;

static long job_long_sections(void *unused)
{
	const struct timespec section = { .tv_nsec = 20 * NSEC_PER_MSEC };
	long ret;

	while (!READ_ONCE(stop)) {
		ret = job_hold(ARG(MEMORY));
		if (ret)
			return ret;
		nanosleep(&section, NULL);
		ret = job_drop(ARG(MEMORY));
		if (ret)
			return ret;
	}
	return 0;
}

TEST_F(patience, long_sections_do_not_starve_the_fork)
{
	int i;

	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	start(&self->holder, job_long_sections, NULL);
	start(&self->newcomer, job_long_sections, NULL);
	start(&self->late, job_long_sections, NULL);
	for (i = 0; i < 10; i++)
		EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
	WRITE_ONCE(stop, 1);
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, gate.head->closed);
}

/* The largest times do not wrap around into none. */
static long job_prepare_32(void *domains)
{
	return gate_prepare_with((uintptr_t)domains, 0, 0, 32, NULL);
}

TEST_F(patience, doubling_does_not_wrap)
{
	ASSERT_EQ(0, change_policy(patience, FORKGATE_TIME_MAX));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->forker, job_prepare_32, ARG(BOTH));
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	EXPECT_EQ(-EBUSY, run(&self->newcomer, job_tryenter, ARG(MEMORY)));
	start(&self->newcomer, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, gate_state().yields);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, gate_state().yields);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
}

/*
 * Retries by the library double it too: with the same policy, the third one
 * still holds when the first yields.
 */
TEST_F(patience, attempts_double_it)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	/* 2^32 ms are seven weeks */
	start(&self->forker, job_prepare_32, ARG(BOTH));
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	start(&self->newcomer, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1 &&
			       gate_state().wait_ns > 50 * NSEC_PER_MSEC));
	EXPECT_EQ(0, gate_state().yields);
	EXPECT_EQ(1, gate_state().blocked);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
}

TEST_HARNESS_MAIN
