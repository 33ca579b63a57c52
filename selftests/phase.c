// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 6: neither side starves. Later forkers join a phase until its first
 * grant; a blocked newcomer waits at most one phase; the next one closes only
 * after the newcomers that the last released have counted themselves in. For
 * forkers that may always join see starve.c and schedule.c.
 */
#include "test/harness.h"

FIXTURE_WORKERS(phase, holder, first, second, third, newcomer);

TEST_F(phase, forks_that_wait_share_one)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->first, &fork_both, 1));
	ASSERT_TRUE(fork_waits(&self->second, &fork_memory, 2));
	ASSERT_TRUE(fork_waits(&self->third, &fork_files, 3));
	EXPECT_EQ(1, gate_state().phases);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->first));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, finish_fork(&self->third));
	EXPECT_EQ(1, gate_state().phases);
	EXPECT_EQ(3, gate_state().forks);
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(phase, after_the_first_grant_the_next_one_follows)
{
	ASSERT_EQ(0, run(&self->first, job_prepare, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->second, &fork_both, 2));
	EXPECT_EQ(1, gate_state().phases);
	ASSERT_EQ(0, run(&self->first, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(2, gate_state().phases);
}

/* A queue has nothing of the one before, which was the next phase. */
TEST_F(phase, one_queue_after_the_other)
{
	ASSERT_EQ(0, run(&self->first, job_prepare, ARG(BOTH)));
	ASSERT_EQ(-EAGAIN, run(&self->second, job_try_prepare, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->first, job_release, NULL));
	ASSERT_EQ(0, run(&self->second, job_try_prepare, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->third, &fork_both, 2));
	ASSERT_EQ(0, run(&self->second, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->third));
	EXPECT_EQ(3, gate_state().phases);
}

/*
 * The hand-over: the newcomer that one phase kept out is inside before the
 * next one closes, and that one waits for it.
 */
TEST_F(phase, hand_over)
{
	int i;

	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, run(&self->first, job_prepare, ARG(BOTH)));
		start(&self->newcomer, job_hold, ARG(MEMORY));
		ASSERT_TRUE(wait_until(gate_state().blocked == 1));
		ASSERT_TRUE(fork_waits(&self->second, &fork_both, 2));
		ASSERT_EQ(0, run(&self->first, job_release, NULL));
		ASSERT_EQ(0, finish(&self->newcomer));
		EXPECT_TRUE(wait_until(worker_waits(&self->second, 1)));
		EXPECT_EQ(1, self->newcomer.slot->depth[0]);
		ASSERT_EQ(0, run(&self->newcomer, job_drop, ARG(MEMORY)));
		EXPECT_EQ(0, finish_fork(&self->second));
	}
}

/* The same for many newcomers and many forks. */
TEST_F(phase, hand_over_of_a_crowd)
{
	static struct worker crowd[80], forkers[8];
	int i;

	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		ASSERT_EQ(0, worker_new(&crowd[i]));
	for (i = 0; i < ARRAY_SIZE(forkers); i++)
		ASSERT_EQ(0, worker_new(&forkers[i]));
	ASSERT_EQ(0, run(&self->first, job_prepare, ARG(BOTH)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		start(&crowd[i], job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == ARRAY_SIZE(crowd)));
	for (i = 0; i < ARRAY_SIZE(forkers); i++)
		start(&forkers[i], job_fork, &fork_both);
	ASSERT_TRUE(wait_until(gate_state().forkers == 1 + ARRAY_SIZE(forkers)));
	ASSERT_EQ(0, run(&self->first, job_release, NULL));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		ASSERT_EQ(0, finish(&crowd[i]));
	EXPECT_EQ(ARRAY_SIZE(crowd), gate_state().holders_count);
	EXPECT_TRUE(wait_until(worker_waits(&forkers[0], ARRAY_SIZE(forkers))));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		ASSERT_EQ(0, run(&crowd[i], job_drop, ARG(MEMORY)));
	for (i = 0; i < ARRAY_SIZE(forkers); i++)
		EXPECT_EQ(0, finish_fork(&forkers[i]));
	EXPECT_EQ(2, gate_state().phases);
}

/*
 * One member of the phase is done, the other still drains: the gate stays
 * closed for what that one needs.
 */
TEST_F(phase, stays_closed_until_the_last_member_is_done)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->first, &fork_memory, 1));
	ASSERT_TRUE(fork_waits(&self->second, &fork_files, 2));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->first));
	EXPECT_TRUE(wait_until(worker_waits(&self->second, 1)));
	EXPECT_EQ(-EBUSY, run(&self->newcomer, job_tryenter, ARG(FILES)));
	EXPECT_EQ(0, run(&self->newcomer, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, gate.head->closed);
}

/* Inside a section a fork cannot wait for the next phase: that one may wait for it. */
TEST_F(phase, forker_inside_a_section_does_not_queue)
{
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->first, job_prepare, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->third, &fork_both, 2));
	ASSERT_TRUE(fork_waits(&self->second, &fork_memory, 3));
	ASSERT_EQ(0, run(&self->first, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_TRUE(wait_until(worker_waits(&self->third, 1)));
	ASSERT_EQ(0, run(&self->second, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->third));
}

/* The phase waits for its section, so it must not wait for the phase. */
TEST_F(phase, forker_that_the_phase_waits_for_does_not_queue)
{
	ASSERT_EQ(0, run(&self->second, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->first, &fork_memory, 1));
	ASSERT_EQ(0, run(&self->third, job_prepare, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->second, &fork_files, 3));
	ASSERT_EQ(0, run(&self->third, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_TRUE(wait_until(worker_waits(&self->first, 1)));
	ASSERT_EQ(0, run(&self->second, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->first));
	EXPECT_EQ(1, gate_state().phases);
}

/*
 * Without end
 */

static int stop;

static long job_fork_on(void *unused)
{
	long made = 0;
	int status;

	do {
		status = child_exit(raw_fork(0, child_whole));
		if (status)
			return -status;
		made++;
	} while (!READ_ONCE(stop));
	return made;
}

static long job_enter_on(void *unused)
{
	long ret, made = 0;

	do {
		ret = job_hold(ARG(MEMORY));
		if (!ret)
			ret = job_drop(ARG(MEMORY));
		if (ret)
			return ret;
		made++;
	} while (!READ_ONCE(stop));
	return made;
}

static long job_enter_often(void *times)
{
	uintptr_t i;
	long ret;

	for (i = 0; i < (uintptr_t)times; i++) {
		ret = gate_enter(MEMORY);
		if (!ret)
			ret = gate_leave(MEMORY);
		if (ret)
			return ret;
	}
	return 0;
}

TEST_F(phase, newcomers_do_not_starve)
{
	start(&self->first, job_fork_on, NULL);
	start(&self->second, job_fork_on, NULL);
	start(&self->third, job_fork_on, NULL);
	EXPECT_EQ(0, run(&self->newcomer, job_enter_often, ARG(200)));
	WRITE_ONCE(stop, 1);
	EXPECT_LT(0, finish(&self->first));
	EXPECT_LT(0, finish(&self->second));
	EXPECT_LT(0, finish(&self->third));
}

TEST_F(phase, forks_do_not_starve)
{
	int i;

	start(&self->first, job_enter_on, NULL);
	start(&self->second, job_enter_on, NULL);
	start(&self->third, job_enter_on, NULL);
	for (i = 0; i < 50; i++)
		EXPECT_EQ(0, run_fork(&self->newcomer, &fork_both));
	WRITE_ONCE(stop, 1);
	EXPECT_LT(0, finish(&self->first));
	EXPECT_LT(0, finish(&self->second));
	EXPECT_LT(0, finish(&self->third));
}

/*
 * A fork of files alone is not starved by threads that enter files inside of
 * memory, which it does not close.
 */
static struct {
	unsigned int outer, inner;
} on;

static long job_nest_on(void *unused)
{
	long ret;

	while (!READ_ONCE(stop)) {
		ret = gate_enter(on.outer);
		if (!ret)
			ret = gate_enter(on.inner);
		if (!ret)
			ret = gate_leave(on.inner);
		if (!ret)
			ret = gate_leave(on.outer);
		if (ret)
			return ret;
	}
	return 0;
}

static void nested_sections(struct __test_metadata *_metadata, struct worker *first,
			    struct worker *second, struct worker *forker, struct fork_how *how)
{
	int i;

	start(first, job_nest_on, NULL);
	start(second, job_nest_on, NULL);
	for (i = 0; i < 30; i++)
		EXPECT_EQ(0, run_fork(forker, how));
	WRITE_ONCE(stop, 1);
	EXPECT_EQ(0, finish(first));
	EXPECT_EQ(0, finish(second));
}

TEST_F(phase, files_inside_memory_do_not_starve_a_fork_of_files)
{
	on.outer = MEMORY;
	on.inner = FILES;
	nested_sections(_metadata, &self->first, &self->second, &self->third, &fork_files);
}

TEST_F(phase, memory_inside_files_does_not_starve_a_fork_of_memory)
{
	on.outer = FILES;
	on.inner = MEMORY;
	nested_sections(_metadata, &self->first, &self->second, &self->third, &fork_memory);
}

/* Forkers inside a section may join any phase. They must not keep one going without end. */
static long job_vfork_inside_on(void *unused)
{
	long made = 0;

	do {
		if (gate_enter(MEMORY))
			return -1;
		if (child_exit(job_vfork(child_nothing)) || gate_leave(MEMORY))
			return -2;
		made++;
	} while (!READ_ONCE(stop));
	return made;
}

TEST_F(phase, forkers_inside_sections_do_not_starve_the_queue)
{
	int i;

	start(&self->first, job_vfork_inside_on, NULL);
	start(&self->second, job_vfork_inside_on, NULL);
	for (i = 0; i < 20; i++)
		EXPECT_EQ(0, run_fork(&self->third, &fork_both));
	EXPECT_EQ(0, run(&self->newcomer, job_enter_often, ARG(50)));
	WRITE_ONCE(stop, 1);
	EXPECT_LT(0, finish(&self->first));
	EXPECT_LT(0, finish(&self->second));
}

TEST_HARNESS_MAIN
