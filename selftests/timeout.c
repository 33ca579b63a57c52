// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 8: a wait ends. What happens when its time is up: EAGAIN, or a copy
 * that says that it is unsafe; and a message of the kernel with the blame.
 */
#include "forkgate_test.h"

FIXTURE(timeout) {
	struct worker holder, forker, other;
};

FIXTURE_SETUP(timeout)
{
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, worker_new(&self->other));
}

FIXTURE_TEARDOWN(timeout)
{
}

static void give_up_after(uint64_t backstop, unsigned int on_timeout)
{
	struct forkgate_policy policy = fg_policy();

	policy.backstop = backstop;
	policy.on_timeout = on_timeout;
	fg_set_policy(&policy);
}

static int child_copy(void)
{
	return gate.head->copy;
}

static struct fork_how ask_both = { 0, child_copy };
static struct fork_how ask_memory = { CLONE_FILES, child_copy };
static struct fork_how ask_vfork = { CLONE_VM, child_copy };

TEST_F(timeout, fails)
{
	give_up_after(FG_MILLISECOND, FORKGATE_FAIL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &ask_both));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(1, fg_state().timeouts);
	EXPECT_EQ(0, fg_state().unsafe);
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &ask_both)));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_outcome, NULL));
}

TEST_F(timeout, fails_at_once)
{
	give_up_after(0, FORKGATE_FAIL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_FILES)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_files));
	EXPECT_EQ(1, fg_state().timeouts);
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(timeout, is_no_matter_without_a_wait)
{
	give_up_after(0, FORKGATE_FAIL);
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &ask_both)));
	EXPECT_EQ(0, fg_state().timeouts);
}

/* Whoever was kept out gets in, and the other forker goes on waiting. */
TEST_F(timeout, lets_newcomers_in)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	give_up_after(100 * FG_MILLISECOND, FORKGATE_FAIL);
	start(&self->forker, job_fork, &ask_both);
	start(&self->other, job_enter, ARG(FG_FILES));
	EXPECT_EQ(-EAGAIN, finish(&self->forker));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(timeout, of_one_is_not_that_of_another)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->other, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->other, 1)));
	give_up_after(FG_MILLISECOND, FORKGATE_FAIL);
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &ask_both));
	EXPECT_TRUE(fg_waiting(&self->other, 1));
	EXPECT_EQ(FG_BOTH, gate.head->closed);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->other));
}

TEST_F(timeout, proceeds)
{
	int copy;

	give_up_after(FG_MILLISECOND, FORKGATE_PROCEED);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	copy = child_exit(run(&self->forker, job_fork, &ask_both));
	EXPECT_LT(0, copy);
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY, copy & FORKGATE_COPY_UNSAFE_MEMORY);
	EXPECT_EQ(0, copy & ~(FORKGATE_COPY_UNSAFE_MEMORY | FORKGATE_COPY_UNSAFE_FILES));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(1, fg_state().timeouts);
	EXPECT_EQ(1, fg_state().unsafe);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, gate.head->copy);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &ask_both)));
}

TEST_F(timeout, proceeds_with_memory_alone)
{
	give_up_after(FG_MILLISECOND, FORKGATE_PROCEED);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY,
		  child_exit(run(&self->forker, job_fork, &ask_memory)));
}

/* Nothing of the memory was copied: nothing is said in it. */
TEST_F(timeout, proceeds_with_files_alone)
{
	give_up_after(FG_MILLISECOND, FORKGATE_PROCEED);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_FILES)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &ask_vfork)));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(1, fg_state().unsafe);
	EXPECT_EQ(0, gate.head->copy);
}

/*
 * The unsafe copy holds others' sections, and they its: the child is a clean
 * process all the same.
 */
static int child_unsafe_but_clean(void)
{
	struct forkgate_state state = fg_state();

	if (state.threads != 1 || state.closed || state.forkers || state.holders_count)
		return 1;
	if (!(gate.head->copy & FORKGATE_COPY_UNSAFE_MEMORY))
		return 2;
	return child_exit(raw_fork(0, child_nothing));
}

TEST_F(timeout, unsafe_child_starts_clean)
{
	struct fork_how how = { 0, child_unsafe_but_clean };

	give_up_after(FG_MILLISECOND, FORKGATE_PROCEED);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_BOTH)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &how)));
}

/* Prepare: granted unsafe, and so is the clone. */
static long job_prepare_unsafe(void *unused)
{
	unsigned int outcome = 0;
	long ret = fg_prepare_full(FG_BOTH, 0, 0, 0, &outcome);

	return ret ? ret : outcome;
}

TEST_F(timeout, prepare_proceeds)
{
	struct forkgate_policy policy = fg_policy();

	policy.timeout = FG_MILLISECOND;
	policy.on_timeout = FORKGATE_PROCEED;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_prepare_unsafe, NULL));
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY,
		  child_exit(run(&self->forker, job_fork, &ask_both)) &
		  FORKGATE_COPY_UNSAFE_MEMORY);
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(0, gate.head->closed);
}

/* By the time of the clone all are outside: then the copy is safe after all. */
TEST_F(timeout, unsafe_ticket_may_copy_safely)
{
	struct forkgate_policy policy = fg_policy();

	policy.timeout = FG_MILLISECOND;
	policy.on_timeout = FORKGATE_PROCEED;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_prepare_unsafe, NULL));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &ask_both)));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_outcome, NULL));
}

TEST_F(timeout, unsafe_ticket_can_be_released)
{
	struct forkgate_policy policy = fg_policy();

	policy.timeout = FG_MILLISECOND;
	policy.on_timeout = FORKGATE_PROCEED;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_prepare_unsafe, NULL));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
}

/*
 * The message
 */

static long job_label(void *label)
{
	WRITE_ONCE(slot->site, 0x1234567);
	memcpy(slot->label, label, strnlen(label, FORKGATE_LABEL_SIZE));
	WRITE_ONCE(slot->label_site, 0x1234567);
	return 0;
}

/*
 * complains - time-outs, until one leaves a message with both texts; messages
 * are limited in number
 */
static bool complains(struct worker *forker, int log, const char *first, const char *second)
{
	return wait_until(run(forker, job_fork, &ask_both) != -ETIME &&
			  fg_kmsg_find(log, first, second));
}

TEST_F(timeout, message_has_the_blame)
{
	char tid[32];
	int log;

	log = fg_kmsg_open();
	if (log < 0)
		SKIP(return, "no /dev/kmsg: %s", strerror(errno));
	give_up_after(FG_MILLISECOND, FORKGATE_FAIL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_label, "index of the archive"));
	snprintf(tid, sizeof(tid), "%d", self->holder.tid);
	EXPECT_TRUE(complains(&self->forker, log, "index of the archive", tid));
}

TEST_F(timeout, message_tells_that_it_proceeds)
{
	int log;

	log = fg_kmsg_open();
	if (log < 0)
		SKIP(return, "no /dev/kmsg: %s", strerror(errno));
	give_up_after(FG_MILLISECOND, FORKGATE_PROCEED);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_label, "proceeds"));
	EXPECT_TRUE(complains(&self->forker, log, "unsafe", "proceeds"));
}

/* What a program puts into a label cannot look like a message of its own. */
TEST_F(timeout, message_is_one_line_of_plain_text)
{
	int log;

	log = fg_kmsg_open();
	if (log < 0)
		SKIP(return, "no /dev/kmsg: %s", strerror(errno));
	give_up_after(FG_MILLISECOND, FORKGATE_FAIL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_label, "x\nBUG\033[31m\tred"));
	EXPECT_TRUE(complains(&self->forker, log, "inside memory", "BUG"));
	EXPECT_FALSE(fg_kmsg_find(log, "x\\x0aBUG", ""));
}

TEST_HARNESS_MAIN
