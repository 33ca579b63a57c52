// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 7: no inversion hangs. A drain yields after its patience, once for the
 * newcomers blocked so far, with twice the patience each time.
 * Rule 6: neither do long sections starve the fork.
 */
#include "forkgate_test.h"

FIXTURE(patience) {
	struct worker holder, forker, newcomer, late;
};

FIXTURE_SETUP(patience)
{
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, worker_new(&self->newcomer));
	ASSERT_EQ(0, worker_new(&self->late));
}

FIXTURE_TEARDOWN(patience)
{
}

static void be_patient(uint64_t patience)
{
	struct forkgate_policy policy = fg_policy();

	policy.patience = patience;
	fg_set_policy(&policy);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static long job_lock(void *unused)
{
	return -pthread_mutex_lock(&lock);
}

static long job_enter_then_unlock(void *domains)
{
	long ret = fg_enter((uintptr_t)domains);

	pthread_mutex_unlock(&lock);
	return ret ? ret : fg_leave((uintptr_t)domains);
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
	be_patient(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->newcomer, job_lock, NULL));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	start(&self->holder, job_lock_then_drop, ARG(FG_MEMORY));
	start(&self->newcomer, job_enter_then_unlock, ARG(FG_MEMORY));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_LE(1, fg_state().yields);
	EXPECT_EQ(0, gate.head->closed);
}

/* The same for a prepare. */
TEST_F(patience, inversion_is_resolved_for_a_ticket)
{
	be_patient(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->newcomer, job_lock, NULL));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_FILES)));
	start(&self->forker, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	start(&self->holder, job_lock_then_drop, ARG(FG_FILES));
	start(&self->newcomer, job_enter_then_unlock, ARG(FG_BOTH));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_LE(1, fg_state().yields);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* Several forkers, an inversion, and one forker of the next phase */
TEST_F(patience, inversion_with_several_forkers)
{
	be_patient(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->newcomer, job_lock, NULL));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_BOTH)));
	start(&self->forker, job_fork, &fork_both);
	start(&self->late, job_fork, &fork_files);
	ASSERT_TRUE(wait_until(fg_state().forkers == 2));
	start(&self->holder, job_lock_then_drop, ARG(FG_BOTH));
	start(&self->newcomer, job_enter_then_unlock, ARG(FG_BOTH));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->late));
}

/* Nobody sleeps for a ticket that is polled for: the drain yields all the same. */
static long job_try(void *domains)
{
	return fg_prepare_full((uintptr_t)domains, FORKGATE_NONBLOCK, 0, 0, NULL);
}

TEST_F(patience, inversion_is_resolved_for_a_polled_ticket)
{
	be_patient(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->newcomer, job_lock, NULL));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_try, ARG(FG_BOTH)));
	start(&self->holder, job_lock_then_drop, ARG(FG_MEMORY));
	start(&self->newcomer, job_enter_then_unlock, ARG(FG_MEMORY));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_TRUE(wait_until(run(&self->forker, job_try, ARG(FG_BOTH)) == 0));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/*
 * A fork holds the lock that the section needs, and waits for the next phase
 * although what it needs is idle: the drain lets it join.
 */
static long job_vfork_then_unlock(void *unused)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(0);
	pthread_mutex_unlock(&lock);
	return pid;
}

TEST_F(patience, inversion_through_the_queue)
{
	be_patient(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->late, job_prepare, ARG(FG_FILES)));
	start(&self->forker, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 2)));
	ASSERT_EQ(0, run(&self->newcomer, job_lock, NULL));
	start(&self->newcomer, job_vfork_then_unlock, NULL);
	ASSERT_TRUE(wait_until(fg_waiting(&self->newcomer, 3)));
	start(&self->holder, job_lock_then_drop, ARG(FG_MEMORY));
	EXPECT_EQ(0, run(&self->late, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->newcomer));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(FG_MEMORY)));
}

/* Those let through are inside, so the fork waits for them too. */
TEST_F(patience, fork_waits_for_those_let_through)
{
	be_patient(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	EXPECT_EQ(0, run(&self->newcomer, job_hold, ARG(FG_MEMORY)));
	EXPECT_LE(1, fg_state().yields);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->newcomer, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* A yield is not an opening: who comes later waits again. */
TEST_F(patience, yield_does_not_open)
{
	be_patient(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	EXPECT_EQ(0, run(&self->newcomer, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(FG_BOTH, gate.head->closed);
	EXPECT_EQ(-EBUSY, run(&self->late, job_tryenter, ARG(FG_MEMORY)));
	EXPECT_EQ(1, fg_state().phases);
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* Nobody to let through: nothing to yield. */
TEST_F(patience, no_yield_without_newcomers)
{
	be_patient(1);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	EXPECT_EQ(0, fg_state().yields);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, fg_state().yields);
}

TEST_F(patience, forever_never_yields)
{
	be_patient(FORKGATE_FOREVER);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	start(&self->newcomer, job_enter, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, fg_state().yields);
}

/* patience 0, QNX's rule: newcomers are not kept out, so there is nothing to yield. */
TEST_F(patience, none_keeps_nobody_out)
{
	int i;

	be_patient(0);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	for (i = 0; i < 50; i++) {
		ASSERT_EQ(0, run(&self->newcomer, job_enter, ARG(FG_BOTH)));
		ASSERT_EQ(0, run(&self->newcomer, job_leave, ARG(FG_BOTH)));
	}
	EXPECT_EQ(0, fg_state().blocked);
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, fg_state().yields);
}

/*
 * Long sections that overlap, by newcomers that come back at once: every
 * yield lets them in again, but each time the fork keeps them out for longer.
 */
static int stop;

static long job_long_sections(void *unused)
{
	const struct timespec section = { .tv_nsec = 20 * FG_MILLISECOND };
	long ret;

	while (!READ_ONCE(stop)) {
		ret = job_hold(ARG(FG_MEMORY));
		if (ret)
			return ret;
		nanosleep(&section, NULL);
		ret = job_drop(ARG(FG_MEMORY));
		if (ret)
			return ret;
	}
	return 0;
}

TEST_F(patience, long_sections_do_not_starve_the_fork)
{
	int i;

	be_patient(FG_MILLISECOND);
	start(&self->holder, job_long_sections, NULL);
	start(&self->newcomer, job_long_sections, NULL);
	start(&self->late, job_long_sections, NULL);
	for (i = 0; i < 10; i++)
		EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
	WRITE_ONCE(stop, 1);
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, gate.head->closed);
}

/* The largest times do not wrap around into none. */
static long job_prepare_32(void *domains)
{
	return fg_prepare_full((uintptr_t)domains, 0, 0, 32, NULL);
}

TEST_F(patience, doubling_does_not_wrap)
{
	be_patient(FORKGATE_TIME_MAX);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	start(&self->forker, job_prepare_32, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	EXPECT_EQ(-EBUSY, run(&self->newcomer, job_tryenter, ARG(FG_MEMORY)));
	start(&self->newcomer, job_enter, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	EXPECT_EQ(0, fg_state().yields);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, fg_state().yields);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(FG_MEMORY)));
}

/*
 * Retries by the library double it too: with the same policy, the third one
 * still holds when the first yields.
 */
TEST_F(patience, attempts_double_it)
{
	be_patient(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	/* 2^32 ms are seven weeks */
	start(&self->forker, job_prepare_32, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	start(&self->newcomer, job_enter, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1 &&
			       fg_state().wait_ns > 50 * FG_MILLISECOND));
	EXPECT_EQ(0, fg_state().yields);
	EXPECT_EQ(1, fg_state().blocked);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(FG_MEMORY)));
}

TEST_HARNESS_MAIN
