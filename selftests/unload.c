// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 15: unloading is refused while gates exist or forks are in flight. Here
 * the refusals; loading and unloading under load is another test's matter.
 *
 * The module must be loaded as a module. Should it let itself be unloaded,
 * all further tests fail.
 */
#include "test/harness.h"
#include "test/step.h"

static long unload(void)
{
	return syscall(__NR_delete_module, "forkgate", O_NONBLOCK) ? -errno : 0;
}

/* references - how often the module is held; -1: unknown */
static long references(void)
{
	char text[24];

	return read_file("/sys/module/forkgate/refcnt", text, sizeof(text)) > 0 ? atol(text) : -1;
}

/* in_module - is this thread, once it sleeps, inside the module's clone? -1: unknown */
static int in_module(pid_t tid)
{
	char path[40], text[4096];

	snprintf(path, sizeof(path), "/proc/%d/stack", tid);
	if (read_file(path, text, sizeof(text)) <= 0)
		return -1;
	return !!strstr(text, "fg_clone");
}

FIXTURE(loaded) {
	struct worker holder, forker;
};

FIXTURE_SETUP(loaded)
{
	if (geteuid())
		SKIP(return, "not root: cannot unload a module");
	if (access("/sys/module/forkgate/refcnt", R_OK))
		SKIP(return, "forkgate is not a module here");
	ASSERT_EQ(0, setup_workers(&self->holder, 2));
}

FIXTURE_TEARDOWN(loaded)
{
	steps_reset();
}

TEST_F(loaded, refused_while_open_and_mapped)
{
	EXPECT_EQ(-EWOULDBLOCK, unload());
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
}

TEST_F(loaded, refused_while_mapped)
{
	close(gate.fd);
	gate.msync = true;
	EXPECT_EQ(-EWOULDBLOCK, unload());
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
}

TEST_F(loaded, refused_while_open)
{
	ASSERT_EQ(0, gate_unmap());
	EXPECT_EQ(-EWOULDBLOCK, unload());
	ASSERT_EQ(0, gate_map());
}

TEST_F(loaded, refused_while_a_fork_waits)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	EXPECT_EQ(-EWOULDBLOCK, unload());
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

static int vfork_ready, vfork_go;	/* latches */

static int child_stays(void)
{
	/* Its copy of the descriptor would do to keep the module. */
	close(gate.fd);
	latch_open(&vfork_ready);
	latch_wait(&vfork_go);
	return 0;
}

/* Neither mapped nor open any more, but a vfork has yet to return through the module. */
TEST_F(loaded, refused_while_a_vfork_is_in_flight)
{
	start(&self->forker, job_vfork, child_stays);
	ASSERT_TRUE(wait_until(READ_ONCE(vfork_ready)));
	ASSERT_EQ(0, gate_unmap());
	close(gate.fd);
	ASSERT_EQ(1, references());
	EXPECT_TRUE(wait_until(in_module(self->forker.tid) == 1));
	EXPECT_EQ(-EWOULDBLOCK, unload());
	latch_open(&vfork_go);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, references());
}

/*
 * One that finds its gate gone must not go on from inside of the module, which
 * nothing holds for it: an unload would wait until its child execs or ends.
 */
TEST_F(loaded, not_held_up_by_a_vfork_that_came_too_late)
{
	if (!have_steps())
		SKIP(return, NO_STEPS);
	ASSERT_EQ(0, steps_reset());
	ASSERT_EQ(0, step("begin", "hold"));
	start(&self->forker, job_vfork, child_stays);
	ASSERT_TRUE(held("begin"));
	ASSERT_TRUE(wait_until(in_module(self->forker.tid) == 1));
	ASSERT_EQ(0, gate_unmap());
	close(gate.fd);
	ASSERT_EQ(0, references());
	ASSERT_EQ(0, step("begin", "go"));
	ASSERT_TRUE(wait_until(READ_ONCE(vfork_ready)));
	EXPECT_TRUE(wait_until(in_module(self->forker.tid) == 0));
	EXPECT_EQ(0, references());
	latch_open(&vfork_go);
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* The same for a fork between its copy and its return. */
TEST_F(loaded, refused_while_a_fork_is_in_flight)
{
	if (!have_steps())
		SKIP(return, NO_STEPS);
	ASSERT_EQ(0, steps_reset());
	ASSERT_EQ(0, step("copied", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(held("copied"));
	ASSERT_EQ(0, gate_unmap());
	close(gate.fd);
	/* The child's copy of the descriptor would do, too, until it has ended. */
	ASSERT_TRUE(wait_until(references() <= 1));
	ASSERT_EQ(1, references());
	EXPECT_EQ(-EWOULDBLOCK, unload());
	ASSERT_EQ(0, step("copied", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, references());
}

TEST_HARNESS_MAIN
