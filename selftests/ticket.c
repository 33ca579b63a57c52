// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 11: prepare. A ticket is granted alone, expires, never replaces the
 * check of the clone, can be polled for, and ends with its thread, by
 * release, by exec and by its clone, whatever that returns.
 * Rule 2: each clone verifies itself.
 */
#include "forkgate_test.h"

#include <poll.h>

FIXTURE(ticket) {
	struct worker holder, forker, other;
};

FIXTURE_SETUP(ticket)
{
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, worker_new(&self->other));
}

FIXTURE_TEARDOWN(ticket)
{
}

/* hold_tickets_for - set how long a granted ticket lasts */
static void hold_tickets_for(uint64_t time)
{
	struct forkgate_policy policy = fg_policy();

	policy.ticket_hold = time;
	fg_set_policy(&policy);
}

static long job_prepare_outcome(void *domains)
{
	unsigned int outcome = ~0u;
	long ret = fg_prepare_full((uintptr_t)domains, 0, 0, 0, &outcome);

	return ret ? ret : outcome;
}

/*
 * Grant
 */

TEST_F(ticket, idle_gate_grants_at_once)
{
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_prepare_outcome, ARG(FG_BOTH)));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, self->forker.slot->outcome);
	EXPECT_EQ(1, fg_state().forkers);
	EXPECT_EQ(FG_BOTH, fg_state().closed);
	EXPECT_EQ(FG_BOTH, gate.head->closed);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, fg_state().closed);
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(ticket, closes_only_what_it_is_for)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_FILES)));
	EXPECT_EQ(FG_FILES, gate.head->closed);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, waits_for_holders)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, ignores_the_other_domain)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_FILES)));
	EXPECT_EQ(0, run(&self->forker, job_prepare, ARG(FG_MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_FILES)));
}

TEST_F(ticket, own_sections_never_count)
{
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(FG_BOTH)));
	EXPECT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork,
				    &(struct fork_how){ 0, child_whole })));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(FG_BOTH)));
}

TEST_F(ticket, unregistered_thread_may_prepare)
{
	ASSERT_EQ(0, run(&self->forker, job_unregister, NULL));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_prepare_outcome, ARG(FG_BOTH)));
	start(&self->other, job_enter, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
}

/*
 * Alone
 */

TEST_F(ticket, second_ticket_waits_for_the_first)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	start(&self->other, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->other, 2)));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(1, fg_state().forkers);
	EXPECT_EQ(0, run(&self->other, job_release, NULL));
}

/* Two that waited in the same phase are granted one after the other. */
TEST_F(ticket, two_of_a_phase_are_granted_in_turn)
{
	struct worker *first = &self->forker, *second = &self->other;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_BOTH)));
	start(first, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(first, 1)));
	start(second, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(second, 2)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_BOTH)));
	ASSERT_TRUE(wait_until(!busy(first) || !busy(second)));
	if (busy(first)) {
		first = &self->other;
		second = &self->forker;
	}
	EXPECT_EQ(0, finish(first));
	EXPECT_TRUE(wait_until(fg_waiting(second, 2)));
	EXPECT_EQ(0, run(first, job_release, NULL));
	EXPECT_EQ(0, finish(second));
	EXPECT_EQ(0, run(second, job_release, NULL));
}

/* Domains that do not meet make no difference: alone is alone. */
TEST_F(ticket, tickets_for_different_domains_are_granted_in_turn)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_MEMORY)));
	start(&self->other, job_prepare, ARG(FG_FILES));
	ASSERT_TRUE(wait_until(fg_waiting(&self->other, 2)));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, run(&self->other, job_release, NULL));
}

TEST_F(ticket, clone_of_another_thread_waits)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	start(&self->other, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->other, 2)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_memory)));
	EXPECT_EQ(0, finish_fork(&self->other));
	EXPECT_EQ(0, gate.head->closed);
}

/*
 * The end of a ticket
 */

TEST_F(ticket, clone_consumes_it)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	start(&self->other, job_enter, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(1, fg_state().phases);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FG_BOTH)));
}

static long job_vfork(void *unused)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(0);
	return pid < 0 ? -errno : pid;
}

TEST_F(ticket, vfork_consumes_it)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_vfork, NULL)));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate.head->closed);
}

static struct fork_how fork_refused = { CLONE_NEWNS | CLONE_FS, child_nothing };

TEST_F(ticket, failed_clone_consumes_it)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	start(&self->other, job_enter, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	EXPECT_EQ(-EINVAL, run(&self->forker, job_fork, &fork_refused));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FG_BOTH)));
}

TEST_F(ticket, child_inherits_none)
{
	pid_t pid;

	ASSERT_EQ(0, fg_prepare(FG_BOTH));
	pid = syscall(__NR_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (!pid)
		_exit(fg_release() != -ENOENT || fg_state().forkers || gate.head->closed);
	EXPECT_EQ(0, child_exit(pid));
}

TEST_F(ticket, ends_with_its_thread)
{
	pid_t tid = self->forker.tid;

	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	start(&self->other, job_enter, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	start(&self->forker, job_exit, NULL);
	ASSERT_TRUE(wait_until(fg_gone(tid)));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(1, fg_state().abandoned);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FG_BOTH)));
}

/*
 * Verified, not believed. (The guard "verification behind a ticket".)
 */

/* The clone needs more than its ticket is for. */
TEST_F(ticket, verified_for_the_other_domain)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_FILES)));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	EXPECT_EQ(FG_BOTH, fg_state().closed);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_FILES)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, gate.head->closed);
}

/* And whom the ticket kept out is let in, because the clone waits for it. */
TEST_F(ticket, lets_in_whom_its_clone_waits_for)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_FILES)));
	start(&self->holder, job_enter, ARG(FG_FILES));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_BOTH)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* A thread that did not look at "closed" is inside all the same. */
TEST_F(ticket, verified_for_its_own_domain)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	ASSERT_EQ(0, run(&self->holder, job_count, ARG(FG_MEMORY)));
	WRITE_ONCE(torn, 1);
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	WRITE_ONCE(torn, 0);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Expiry
 */

TEST_F(ticket, expires)
{
	hold_tickets_for(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	EXPECT_EQ(0, run(&self->other, job_enter, ARG(FG_BOTH)));
	ASSERT_TRUE(wait_until(fg_state().expired == 1));
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(-ESTALE, run(&self->forker, job_release, NULL));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FG_BOTH)));
}

/* Nobody inside: the clone is as good as any. */
TEST_F(ticket, clone_after_expiry_verifies_from_scratch)
{
	hold_tickets_for(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	ASSERT_TRUE(wait_until(fg_state().expired == 1));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
}

/*
 * Somebody inside who stays: the clone waits for its patience, then fails so
 * that the caller prepares again.
 */
TEST_F(ticket, clone_after_expiry_fails_when_it_would_wait)
{
	struct forkgate_policy policy = fg_policy();

	policy.ticket_hold = FG_MILLISECOND;
	policy.patience = FG_MILLISECOND;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	ASSERT_TRUE(wait_until(fg_state().expired == 1));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_both));
	EXPECT_EQ(FORKGATE_OUTCOME_EXPIRED, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, fg_state().timeouts);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	/* The library prepares again and retries. */
	start(&self->forker, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	hold_tickets_for(FORKGATE_TIME_MAX);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
}

/* It waits at least as long as somebody is there who leaves in time. */
TEST_F(ticket, clone_after_expiry_waits_for_its_patience)
{
	hold_tickets_for(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	ASSERT_TRUE(wait_until(fg_state().expired == 1));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

TEST_F(ticket, prepare_again_after_expiry)
{
	hold_tickets_for(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	ASSERT_TRUE(wait_until(fg_state().expired == 1));
	hold_tickets_for(FORKGATE_TIME_MAX);
	EXPECT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	EXPECT_EQ(1, fg_state().forkers);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* While it waits, a ticket does not expire: only a granted one does. */
TEST_F(ticket, expiry_counts_from_the_grant)
{
	hold_tickets_for(0);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_BOTH)));
	start(&self->forker, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	EXPECT_EQ(0, fg_state().expired);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_BOTH)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_TRUE(wait_until(fg_state().expired == 1));
}

/*
 * Time-outs
 */

static unsigned int prepare_outcome;

static long job_prepare_past(void *domains)
{
	return fg_prepare_full((uintptr_t)domains, FORKGATE_ABSTIME, 1, 0, &prepare_outcome);
}

static long job_prepare_soon(void *domains)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return fg_prepare_full((uintptr_t)domains, FORKGATE_ABSTIME,
			       now.tv_sec * FG_SECOND + now.tv_nsec + FG_MILLISECOND, 0,
			       &prepare_outcome);
}

static long job_prepare_late(void *domains)
{
	return fg_prepare_full((uintptr_t)domains, FORKGATE_ABSTIME, ~0ULL >> 1, 0,
			       &prepare_outcome);
}

TEST_F(ticket, past_time_is_no_matter_without_a_wait)
{
	EXPECT_EQ(0, run(&self->forker, job_prepare_past, ARG(FG_BOTH)));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, prepare_outcome);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, past_time)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(-ETIMEDOUT, run(&self->forker, job_prepare_past, ARG(FG_BOTH)));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, prepare_outcome);
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, self->forker.slot->outcome);
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(1, fg_state().timeouts);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
}

TEST_F(ticket, time_runs_out)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	start(&self->other, job_prepare, ARG(FG_FILES));
	EXPECT_EQ(-ETIMEDOUT, run(&self->forker, job_prepare_soon, ARG(FG_BOTH)));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, prepare_outcome);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
}

TEST_F(ticket, abstime_overrides_the_policy)
{
	struct forkgate_policy policy = fg_policy();

	policy.timeout = 0;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	start(&self->forker, job_prepare_late, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, time_out_of_the_policy)
{
	struct forkgate_policy policy = fg_policy();

	policy.timeout = FG_MILLISECOND;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(-ETIMEDOUT, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, self->forker.slot->outcome);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
}

/* The time-out of a prepared wait is nothing to a clone, and its backstop nothing to prepare. */
TEST_F(ticket, backstop_is_for_clones)
{
	struct forkgate_policy policy = fg_policy();

	policy.backstop = 0;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	start(&self->forker, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/*
 * Without waiting
 */

static long job_try(void *domains)
{
	return fg_prepare_full((uintptr_t)domains, FORKGATE_NONBLOCK, 0, 0, &prepare_outcome);
}

static long job_poll(void *timeout)
{
	struct pollfd poll_fd = { .fd = gate.fd, .events = POLLIN };
	int ret = poll(&poll_fd, 1, (intptr_t)timeout);

	return ret < 0 ? -errno : ret ? poll_fd.revents : 0;
}

TEST_F(ticket, try_of_an_idle_gate)
{
	EXPECT_EQ(0, run(&self->forker, job_try, ARG(FG_BOTH)));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, prepare_outcome);
	EXPECT_EQ(POLLIN, run(&self->forker, job_poll, ARG(0)));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, try_queues)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_try, ARG(FG_BOTH)));
	EXPECT_EQ(FORKGATE_OUTCOME_NONE, prepare_outcome);
	EXPECT_EQ(1, fg_state().forkers);
	EXPECT_EQ(FG_BOTH, fg_state().closed);
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_try, ARG(FG_BOTH)));
	EXPECT_EQ(1, fg_state().forkers);
	EXPECT_EQ(0, run(&self->forker, job_poll, ARG(0)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(POLLIN, run(&self->forker, job_poll, ARG(-1)));
	EXPECT_EQ(0, run(&self->forker, job_try, ARG(FG_BOTH)));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, prepare_outcome);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, poll_wakes)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_try, ARG(FG_BOTH)));
	start(&self->forker, job_poll, ARG(-1));
	ASSERT_TRUE(wait_until(fg_asleep(self->forker.tid)));
	EXPECT_TRUE(busy(&self->forker));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(POLLIN, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, poll_without_a_ticket)
{
	EXPECT_EQ(POLLERR, run(&self->forker, job_poll, ARG(-1)));
}

TEST_F(ticket, poll_is_about_the_callers_ticket)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	EXPECT_EQ(POLLERR, run(&self->other, job_poll, ARG(-1)));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, poll_of_an_expired_ticket)
{
	hold_tickets_for(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	ASSERT_TRUE(wait_until(fg_state().expired == 1));
	EXPECT_EQ(POLLERR, run(&self->forker, job_poll, ARG(-1)) & POLLERR);
}

TEST_F(ticket, queued_ticket_can_be_given_back)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_try, ARG(FG_BOTH)));
	start(&self->other, job_enter, ARG(FG_FILES));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
}

/* A clone with a ticket that is still queued waits in its place. */
TEST_F(ticket, clone_with_a_queued_ticket_waits)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_try, ARG(FG_BOTH)));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate.head->closed);
}

/* A blocking prepare after a try waits in the same place. */
TEST_F(ticket, prepare_after_a_try_waits)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_try, ARG(FG_BOTH)));
	start(&self->forker, job_prepare, ARG(FG_BOTH));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, queued_ticket_ends_with_its_thread)
{
	pid_t tid = self->forker.tid;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_try, ARG(FG_BOTH)));
	start(&self->other, job_enter, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	start(&self->forker, job_exit, NULL);
	ASSERT_TRUE(wait_until(fg_gone(tid)));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_TRUE(wait_until(fg_state().forkers == 0));
	EXPECT_EQ(0, gate.head->closed);
}

/*
 * Whose result cannot be written: no ticket, no place
 */

static struct forkgate_prepare *results;

static long job_prepare_there(void *flags)
{
	*results = (struct forkgate_prepare) {
		.domains = FG_MEMORY,
		.flags = (uintptr_t)flags,
	};
	return fg_call(FORKGATE_IOC_PREPARE, results);
}

/* The page goes away while the thread waits. */
TEST_F(ticket, granted_to_a_page_that_went_away)
{
	results = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, results);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	start(&self->forker, job_prepare_there, NULL);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, mprotect(results, 4096, PROT_READ));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(-EFAULT, finish(&self->forker));
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
}

/*
 * What handlers do between grant and clone
 */

/*
 * A handler of the prepared thread needs a lock that a blocked newcomer holds:
 * the ticket runs out, the newcomer gets in and gives the lock up.
 */
TEST_F(ticket, expiry_resolves_a_lock_of_a_newcomer)
{
	hold_tickets_for(FG_MILLISECOND);
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	/* "other" holds the lock and enters; "forker" would wait for it. */
	start(&self->other, job_enter, ARG(FG_MEMORY));
	ASSERT_EQ(0, finish(&self->other));
	ASSERT_EQ(0, run(&self->other, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
}

/* A signal during a prepare: the handler runs, the wait goes on. */
static int handler_runs;

static void handler(int signo)
{
	__atomic_add_fetch(&handler_runs, 1, __ATOMIC_SEQ_CST);
}

TEST_F(ticket, signal_during_prepare)
{
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_RESTART };

	sigaction(SIGUSR1, &action, NULL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	start(&self->forker, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, syscall(__NR_tgkill, getpid(), self->forker.tid, SIGUSR1));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs) == 1));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_HARNESS_MAIN
