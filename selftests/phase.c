// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 6: neither side starves. Later forkers join a phase until its first
 * grant; a blocked newcomer waits at most one phase; the next one closes only
 * after the newcomers that the last released have counted themselves in.
 */
#include "forkgate_test.h"

FIXTURE(phase) {
	struct worker holder, first, second, third, newcomer;
};

FIXTURE_SETUP(phase)
{
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->first));
	ASSERT_EQ(0, worker_new(&self->second));
	ASSERT_EQ(0, worker_new(&self->third));
	ASSERT_EQ(0, worker_new(&self->newcomer));
}

FIXTURE_TEARDOWN(phase)
{
}

TEST_F(phase, forks_that_wait_share_one)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_BOTH)));
	start(&self->first, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->first, 1)));
	start(&self->second, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->second, 2)));
	start(&self->third, job_fork, &fork_files);
	ASSERT_TRUE(wait_until(fg_waiting(&self->third, 3)));
	EXPECT_EQ(1, fg_state().phases);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_BOTH)));
	EXPECT_EQ(0, finish_fork(&self->first));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, finish_fork(&self->third));
	EXPECT_EQ(1, fg_state().phases);
	EXPECT_EQ(3, fg_state().forks);
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(phase, after_the_first_grant_the_next_one_follows)
{
	ASSERT_EQ(0, run(&self->first, job_prepare, ARG(FG_BOTH)));
	start(&self->second, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->second, 2)));
	EXPECT_EQ(1, fg_state().phases);
	ASSERT_EQ(0, run(&self->first, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(2, fg_state().phases);
}

/*
 * The hand-over: the newcomer that one phase kept out is inside before the
 * next one closes, and that one waits for it.
 */
TEST_F(phase, hand_over)
{
	int i;

	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, run(&self->first, job_prepare, ARG(FG_BOTH)));
		start(&self->newcomer, job_hold, ARG(FG_MEMORY));
		ASSERT_TRUE(wait_until(fg_state().blocked == 1));
		start(&self->second, job_fork, &fork_both);
		ASSERT_TRUE(wait_until(fg_waiting(&self->second, 2)));
		ASSERT_EQ(0, run(&self->first, job_release, NULL));
		ASSERT_EQ(0, finish(&self->newcomer));
		EXPECT_TRUE(wait_until(fg_waiting(&self->second, 1)));
		EXPECT_EQ(1, self->newcomer.slot->depth[0]);
		ASSERT_EQ(0, run(&self->newcomer, job_drop, ARG(FG_MEMORY)));
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
	ASSERT_EQ(0, run(&self->first, job_prepare, ARG(FG_BOTH)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		start(&crowd[i], job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == ARRAY_SIZE(crowd)));
	for (i = 0; i < ARRAY_SIZE(forkers); i++)
		start(&forkers[i], job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_state().forkers == 1 + ARRAY_SIZE(forkers)));
	ASSERT_EQ(0, run(&self->first, job_release, NULL));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		ASSERT_EQ(0, finish(&crowd[i]));
	EXPECT_EQ(ARRAY_SIZE(crowd), fg_state().holders_count);
	EXPECT_TRUE(wait_until(fg_waiting(&forkers[0], ARRAY_SIZE(forkers))));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		ASSERT_EQ(0, run(&crowd[i], job_drop, ARG(FG_MEMORY)));
	for (i = 0; i < ARRAY_SIZE(forkers); i++)
		EXPECT_EQ(0, finish_fork(&forkers[i]));
	EXPECT_EQ(2, fg_state().phases);
}

/*
 * One member of the phase is done, the other still drains: the gate stays
 * closed for what that one needs.
 */
TEST_F(phase, stays_closed_until_the_last_member_is_done)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_BOTH)));
	start(&self->first, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->first, 1)));
	start(&self->second, job_fork, &fork_files);
	ASSERT_TRUE(wait_until(fg_waiting(&self->second, 2)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->first));
	EXPECT_TRUE(wait_until(fg_waiting(&self->second, 1)));
	EXPECT_EQ(-EBUSY, run(&self->newcomer, job_tryenter, ARG(FG_FILES)));
	EXPECT_EQ(0, run(&self->newcomer, job_tryenter, ARG(FG_MEMORY)));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, gate.head->closed);
}

/* Inside a section a fork cannot wait for the next phase: that one may wait for it. */
TEST_F(phase, forker_inside_a_section_does_not_queue)
{
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->first, job_prepare, ARG(FG_MEMORY)));
	start(&self->third, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->third, 2)));
	start(&self->second, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->second, 3)));
	ASSERT_EQ(0, run(&self->first, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_TRUE(wait_until(fg_waiting(&self->third, 1)));
	ASSERT_EQ(0, run(&self->second, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, finish_fork(&self->third));
}

/* The phase waits for its section, so it must not wait for the phase. */
TEST_F(phase, forker_that_the_phase_waits_for_does_not_queue)
{
	ASSERT_EQ(0, run(&self->second, job_hold, ARG(FG_MEMORY)));
	start(&self->first, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->first, 1)));
	ASSERT_EQ(0, run(&self->third, job_prepare, ARG(FG_FILES)));
	start(&self->second, job_fork, &fork_files);
	ASSERT_TRUE(wait_until(fg_waiting(&self->second, 3)));
	ASSERT_EQ(0, run(&self->third, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_TRUE(wait_until(fg_waiting(&self->first, 1)));
	ASSERT_EQ(0, run(&self->second, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->first));
	EXPECT_EQ(1, fg_state().phases);
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
		ret = job_hold(ARG(FG_MEMORY));
		if (!ret)
			ret = job_drop(ARG(FG_MEMORY));
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
		ret = fg_enter(FG_MEMORY);
		if (!ret)
			ret = fg_leave(FG_MEMORY);
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
		EXPECT_EQ(0, child_exit(run(&self->newcomer, job_fork, &fork_both)));
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
		ret = fg_enter(on.outer);
		if (!ret)
			ret = fg_enter(on.inner);
		if (!ret)
			ret = fg_leave(on.inner);
		if (!ret)
			ret = fg_leave(on.outer);
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
		EXPECT_EQ(0, child_exit(run(forker, job_fork, how)));
	WRITE_ONCE(stop, 1);
	EXPECT_EQ(0, finish(first));
	EXPECT_EQ(0, finish(second));
}

TEST_F(phase, files_inside_memory_do_not_starve_a_fork_of_files)
{
	on.outer = FG_MEMORY;
	on.inner = FG_FILES;
	nested_sections(_metadata, &self->first, &self->second, &self->third, &fork_files);
}

TEST_F(phase, memory_inside_files_does_not_starve_a_fork_of_memory)
{
	on.outer = FG_FILES;
	on.inner = FG_MEMORY;
	nested_sections(_metadata, &self->first, &self->second, &self->third, &fork_memory);
}

/* Forkers inside a section join any phase. They must not keep one going for ever. */
static long job_vfork_inside_on(void *unused)
{
	long made = 0;
	pid_t pid;
	int ret;

	do {
		if (fg_enter(FG_MEMORY))
			return -1;
		pid = vfork();
		if (!pid)
			_exit(0);
		ret = child_exit(pid);
		if (ret || fg_leave(FG_MEMORY))
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
		EXPECT_EQ(0, child_exit(run(&self->third, job_fork, &fork_both)));
	EXPECT_EQ(0, run(&self->newcomer, job_enter_often, ARG(50)));
	WRITE_ONCE(stop, 1);
	EXPECT_LT(0, finish(&self->first));
	EXPECT_LT(0, finish(&self->second));
}

TEST_HARNESS_MAIN
