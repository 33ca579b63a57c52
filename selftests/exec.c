// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 9: a task that shares the memory but is no thread of the process counts
 * until it has a new address space, not until its new program is loaded.
 */
#include "test/harness.h"
#include "test/slow_file.h"

FIXTURE(exec) {
	struct worker forker, newcomer;
};

FIXTURE_SETUP(exec)
{
	int ret = slow_file_mount();

	if (ret == -ENODEV)
		SKIP(return, NO_SLOW_FILE);
	ASSERT_EQ(0, ret);
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, worker_new(&self->newcomer));
}

FIXTURE_TEARDOWN(exec)
{
	slow_file_unmount();
}

static int is_inside, may_exec;	/* latches */

static int enter_and_exec(void)
{
	if (gate_register() < 0 || gate_enter(BOTH))
		return 1;
	latch_open(&is_inside);
	latch_wait(&may_exec);
	return -slow_file_exec();
}

static int prepare_and_exec(void)
{
	if (gate_prepare(BOTH))
		return 1;
	latch_open(&is_inside);
	latch_wait(&may_exec);
	return -slow_file_exec();
}

/*
 * start_task - a task that shares the memory; its pid, once it is inside
 *
 * It has the caller's TLS, and so the same "slot".
 */
static pid_t start_task(child_fn child)
{
	struct forkgate_slot *own = slot;
	pid_t pid = spawn_vm(0, child);

	if (pid > 0)
		latch_wait(&is_inside);
	slot = own;
	return pid;
}

/* exec_half - it has another address space now, its program is not loaded */
static bool exec_half(void)
{
	latch_open(&may_exec);
	return wait_until(READ_ONCE(slow_file.reached));
}

TEST_F(exec, leaves_with_the_memory)
{
	pid_t pid = start_task(enter_and_exec);

	ASSERT_LT(0, pid);
	EXPECT_EQ(1, gate_state().holders_count);
	ASSERT_TRUE(exec_half());
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
	EXPECT_EQ(0, gate_state().holders_count);
	EXPECT_EQ(1, gate_state().abandoned);
	slow_file_go_on();
	EXPECT_EQ(SLOW_STATUS, child_exit(pid));
	EXPECT_EQ(1, gate_state().abandoned);
}

TEST_F(exec, wakes_the_fork)
{
	pid_t pid = start_task(enter_and_exec);

	ASSERT_LT(0, pid);
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_TRUE(exec_half());
	EXPECT_EQ(0, finish_fork(&self->forker));
	slow_file_go_on();
	EXPECT_EQ(SLOW_STATUS, child_exit(pid));
}

/* The ticket of such a task ends then, too. */
TEST_F(exec, ends_the_ticket)
{
	pid_t pid = start_task(prepare_and_exec);

	ASSERT_LT(0, pid);
	EXPECT_EQ(1, gate_state().forkers);
	start(&self->newcomer, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_TRUE(exec_half());
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, gate_state().forkers);
	slow_file_go_on();
	EXPECT_EQ(SLOW_STATUS, child_exit(pid));
}

TEST_HARNESS_MAIN
