// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 11: a thread may try a clone before it prepares. Such a clone does not
 * wait, whatever stands in its way: it fails with EAGAIN and the outcome that
 * says "prepare", is no time-out and no circle, and leaves nothing behind.
 */
#include "test/handler.h"
#include "test/harness.h"
#include "test/step.h"

FIXTURE(tries) {
	struct worker holder, forker, other, newcomer;
};

FIXTURE_VARIANT(tries) {
	struct fork_how *how;
	unsigned int needs;
	unsigned int kind;	/* what its thread says that it tries */
};

FIXTURE_VARIANT_ADD(tries, both) {
	.how = &fork_both,
	.needs = BOTH,
	.kind = MEMORY,
};

FIXTURE_VARIANT_ADD(tries, memory) {
	.how = &fork_memory,
	.needs = MEMORY,
	.kind = MEMORY,
};

FIXTURE_VARIANT_ADD(tries, files) {
	.how = &fork_files,
	.needs = FILES,
	.kind = FILES,
};

FIXTURE_SETUP(tries)
{
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, worker_new(&self->other));
}

FIXTURE_TEARDOWN(tries)
{
}

static long job_say(void *kind)
{
	slot->tries = (uintptr_t)kind;
	return 0;
}

static long job_said(void *unused)
{
	return slot->tries;
}

/* What a failed try says, and that the gate is as if it had not been. */
static bool tried_in_vain(struct worker *forker, struct fork_how *how)
{
	struct forkgate_state state;

	if (run(forker, job_fork, how) != -EAGAIN)
		return false;
	if (run(forker, job_outcome, NULL) != FORKGATE_OUTCOME_EXPIRED)
		return false;
	state = gate_state();
	return !state.timeouts && !state.deadlocks && !state.unsafe;
}

static int child_tries_nothing(void)
{
	return slot->tries;
}

TEST_F(tries, goes_through)
{
	struct fork_how how = { variant->how->flags, child_tries_nothing };

	ASSERT_EQ(0, run(&self->forker, job_say, ARG(variant->kind)));
	EXPECT_EQ(0, run_fork(&self->forker, variant->how));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(0, run(&self->forker, job_said, NULL));
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(variant->kind)));
	/* A child of its own memory tries nothing, inside a section or not. */
	if (!(variant->needs & MEMORY))
		return;
	EXPECT_EQ(0, run_fork(&self->forker, &how));
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(BOTH)));
	/* Nor what the kernel has not taken back, as it is of another kind */
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(BOTH)));
	EXPECT_EQ(0, run_fork(&self->forker, &how));
}

TEST_F(tries, does_not_wait)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(variant->needs)));
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(variant->kind)));
	EXPECT_TRUE(tried_in_vain(&self->forker, variant->how));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	/* It was said of that clone alone. */
	EXPECT_EQ(0, run(&self->forker, job_said, NULL));
	ASSERT_TRUE(fork_waits(&self->forker, variant->how, 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(variant->needs)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* It says it of one kind of clone alone. */
TEST_F(tries, another_kind_waits)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(variant->needs)));
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(BOTH & ~variant->kind)));
	ASSERT_TRUE(fork_waits(&self->forker, variant->how, 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(variant->needs)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* What goes ahead unsafe has waited first. */
TEST_F(tries, does_not_proceed)
{
	ASSERT_EQ(0, change_policy(on_timeout, FORKGATE_PROCEED));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(variant->needs)));
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(variant->kind)));
	EXPECT_TRUE(tried_in_vain(&self->forker, variant->how));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(variant->needs)));
}

/* After a prepare that said so it does. */
static long job_prepare_briefly(void *domains)
{
	return gate_prepare((uintptr_t)domains);
}

TEST_F(tries, proceeds_when_prepared)
{
	struct fork_how how = { variant->how->flags, child_nothing };

	ASSERT_EQ(0, change_policy(on_timeout, FORKGATE_PROCEED));
	ASSERT_EQ(0, change_policy(timeout, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(variant->needs)));
	ASSERT_EQ(0, run(&self->forker, job_prepare_briefly, ARG(variant->needs)));
	ASSERT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_outcome, NULL));
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(variant->kind)));
	EXPECT_EQ(0, run_fork(&self->forker, &how));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(1, gate_state().unsafe);
}

/* A clone that was prepared waits, if its ticket does not do, as any such clone. */
TEST_F(tries, waits_when_prepared)
{
	unsigned int held = variant->needs & FILES ? FILES : MEMORY;

	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH & ~held)));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(held)));
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(variant->kind)));
	ASSERT_TRUE(fork_waits(&self->forker, variant->how, 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(held)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* Nor beside another's ticket; its own it uses. */
TEST_F(tries, ticket)
{
	ASSERT_EQ(0, change_policy(ticket_hold, FORKGATE_TIME_MAX));
	ASSERT_EQ(0, run(&self->other, job_prepare, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(variant->kind)));
	EXPECT_TRUE(tried_in_vain(&self->forker, variant->how));
	EXPECT_EQ(1, gate_state().forkers);
	ASSERT_EQ(0, run(&self->other, job_release, NULL));

	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(0, run_fork(&self->forker, variant->how));
	EXPECT_EQ(0, gate_state().forkers);
}

/* Behind a phase that drains it leaves, and those in it go on waiting. */
TEST_F(tries, beside_a_drain)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->other, &fork_both, 1));
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(variant->kind)));
	EXPECT_TRUE(tried_in_vain(&self->forker, variant->how));
	EXPECT_TRUE(wait_until(worker_waits(&self->other, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->other));
}

/* Rule 6: nor does it join a phase that keeps a thread out. */
TEST_F(tries, beside_a_newcomer)
{
	long closes;

	if (!have_steps() || steps_reset())
		SKIP(return, NO_STEPS);
	ASSERT_EQ(0, change_policy(patience, FORKGATE_FOREVER));
	ASSERT_EQ(0, worker_new(&self->newcomer));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->other, &fork_both, 1));
	start(&self->newcomer, job_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	closes = step_hits("close");
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(variant->kind)));
	EXPECT_TRUE(tried_in_vain(&self->forker, variant->how));
	EXPECT_EQ(closes, step_hits("close"));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->other));
	EXPECT_EQ(0, finish(&self->newcomer));
}

/*
 * A signal interrupts a try that is not decided yet. A handler that does not try
 * must not get its place: its clone waits.
 */
static struct fork_how *handler_how;
static int handler_child;

static void handler_forks(int signo)
{
	slot->tries = 0;
	WRITE_ONCE(handler_child, -1);
	WRITE_ONCE(handler_child, job_fork(handler_how));
}

TEST_F(tries, interrupted)
{
	if (!have_steps() || steps_reset())
		SKIP(return, NO_STEPS);
	handler_how = variant->how;
	handle(handler_forks, 0);
	ASSERT_EQ(0, change_policy(on_timeout, FORKGATE_PROCEED));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(variant->needs)));
	ASSERT_EQ(0, run(&self->forker, job_say, ARG(variant->kind)));
	ASSERT_EQ(0, step("close", "hold"));
	start(&self->forker, job_fork, variant->how);
	ASSERT_TRUE(wait_until(step_waiting("close") == 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_EQ(0, step("close", "go"));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_child)));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	EXPECT_EQ(-1, READ_ONCE(handler_child));
	EXPECT_EQ(0, gate_state().unsafe);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(variant->needs)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, child_exit(handler_child));
	steps_reset();
}

FIXTURE_WORKERS(circle, a, b);

/* To close a circle is for the prepare to be refused for. */
TEST_F(circle, is_no_circle)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->a, &fork_memory, 1));
	ASSERT_EQ(0, run(&self->b, job_say, ARG(FILES)));
	EXPECT_TRUE(tried_in_vain(&self->b, &fork_files));
	EXPECT_EQ(-EDEADLK, run(&self->b, job_prepare, ARG(FILES)));
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
}

TEST_HARNESS_MAIN
