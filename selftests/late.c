// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 11: what an expired ticket leaves behind, the short wait of the next
 * clone, ends with that clone or after ten times ticket_hold.
 * Rule 8: a wait ends, prepared or not, with the same limit.
 */
#include "test/handler.h"
#include "test/harness.h"

FIXTURE(late) {
	struct worker holder, forker;
};

FIXTURE_SETUP(late)
{
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, change_policy(ticket_hold, NSEC_PER_MSEC));
	/* A ticket that expires unused */
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	ASSERT_TRUE(wait_until(gate_state().expired == 1));
}

FIXTURE_TEARDOWN(late)
{
}

/* forget - let far more than ten times ticket_hold pass */
static void forget(void)
{
	const struct timespec enough = { .tv_nsec = 200 * NSEC_PER_MSEC };

	nanosleep(&enough, NULL);
}

#define LONG	(500 * NSEC_PER_MSEC)	/* far longer than the short wait */

/* A clone long after it waits like any other, rather than fail. */
TEST_F(late, forgotten_ticket)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	forget();
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(!busy(&self->forker) || gate_state().wait_ns > LONG));
	EXPECT_TRUE(busy(&self->forker)) {
		TH_LOG("clone: %ld", self->forker.result);
	}
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* Nor does a signal during its wait bring the ticket back to mind. */
static int handled;

static void handler(int signo)
{
	WRITE_ONCE(handled, 1);
}

TEST_F(late, forgotten_ticket_and_a_signal)
{
	handle(handler, 0);
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	forget();
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_TRUE(wait_until(READ_ONCE(handled)));
	ASSERT_TRUE(wait_until(!busy(&self->forker) || gate_state().wait_ns > LONG));
	EXPECT_TRUE(busy(&self->forker)) {
		TH_LOG("clone: %ld", self->forker.result);
	}
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* A release knows it for as long. */
TEST_F(late, forgotten_ticket_is_not_there_to_release)
{
	forget();
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
}

/*
 * A prepare that timed out leaves the clone nothing to wait for: it has the same
 * limit, not another one.
 */

FIXTURE_WORKERS(vain, holder, forker);

#define BACKSTOP	(2 * NSEC_PER_SEC)

static long job_prepare_in_vain(void *unused)
{
	return gate_prepare_with(BOTH, FORKGATE_TIMED, BACKSTOP, 0, NULL);
}

TEST_F(vain, clone_shares_the_limit)
{
	uint64_t start_ms, prepare_ms;

	ASSERT_EQ(0, change_policy(backstop, BACKSTOP));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(BOTH)));
	start_ms = now_ms();
	ASSERT_EQ(-ETIMEDOUT, run(&self->forker, job_prepare_in_vain, NULL));
	prepare_ms = now_ms() - start_ms;
	start_ms = now_ms();
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_both));
	EXPECT_GT(prepare_ms / 2, now_ms() - start_ms);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(BOTH)));
	/* The one after that has a limit of its own. */
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
}

TEST_HARNESS_MAIN
