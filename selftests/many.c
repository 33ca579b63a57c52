// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 8: a signal ends a wait. A fork that looks at many threads, a batch at a
 * time, notices it between two batches.
 */
#include "test/harness.h"
#include "test/handler.h"
#include "test/step.h"

/* More than a batch has, and more than one unit */
#define THREADS		600

FIXTURE(many) {
	struct worker forker, other[THREADS];
};

FIXTURE_SETUP(many)
{
	if (!have_steps() || steps_reset())
		SKIP(return, NO_STEPS);
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, workers_new(self->other, THREADS));
}

FIXTURE_TEARDOWN(many)
{
	if (have_steps())
		steps_reset();
}

/* Written by the kernel when the prepare ends, but not when a signal interrupts it */
static struct forkgate_prepare prepare = { .domains = BOTH };

static int outcome_in_handler = -1;

static void note_outcome(int signo)
{
	WRITE_ONCE(outcome_in_handler, (int)prepare.outcome);
}

static long job_prepare_noted(void *unused)
{
	return gate_call(FORKGATE_IOC_PREPARE, &prepare);
}

/* Nobody is inside: without a look at signals it would be granted first. */
TEST_F(many, signal_between_batches)
{
	handle(note_outcome, SA_RESTART);
	ASSERT_EQ(0, step("fence", "hold"));
	start(&self->forker, job_prepare_noted, NULL);
	ASSERT_TRUE(held("fence"));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_EQ(0, step("fence", "go"));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(FORKGATE_OUTCOME_NONE, READ_ONCE(outcome_in_handler));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, prepare.outcome);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_HARNESS_MAIN
