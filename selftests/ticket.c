// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 11: prepare. A ticket is granted alone, expires, never replaces the
 * check of the clone, can be polled for, and ends with its thread, by
 * release, by exec and by its clone, whatever that returns.
 * Rule 2: each clone verifies itself.
 */
#include "test/handler.h"
#include "test/harness.h"

#include <poll.h>

FIXTURE_WORKERS(ticket, holder, forker, other);

static long job_prepare_outcome(void *domains)
{
	unsigned int outcome = ~0u;
	long ret = gate_prepare_with((uintptr_t)domains, 0, 0, 0, &outcome);

	return ret ? ret : outcome;
}

/*
 * Grant
 */

TEST_F(ticket, idle_gate_grants_at_once)
{
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_prepare_outcome, ARG(BOTH)));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, self->forker.slot->outcome);
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(BOTH, gate_state().closed);
	EXPECT_EQ(BOTH, gate.head->closed);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate_state().closed);
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(ticket, closes_only_what_it_is_for)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FILES)));
	EXPECT_EQ(FILES, gate.head->closed);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, waits_for_holders)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(prepare_waits(&self->forker, BOTH, 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, ignores_the_other_domain)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	EXPECT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
}

TEST_F(ticket, own_sections_never_count)
{
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(0, run_fork(&self->forker, &(struct fork_how){ 0, child_whole }));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(BOTH)));
}

TEST_F(ticket, unregistered_thread_may_prepare)
{
	ASSERT_EQ(0, run(&self->forker, job_unregister, NULL));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_prepare_outcome, ARG(BOTH)));
	start(&self->other, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
}

/*
 * Alone
 */

TEST_F(ticket, second_ticket_waits_for_the_first)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	ASSERT_TRUE(prepare_waits(&self->other, BOTH, 2));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(0, run(&self->other, job_release, NULL));
}

/* Two prepares of the same phase are granted one after the other. */
TEST_F(ticket, two_of_a_phase_are_granted_in_turn)
{
	struct worker *first = &self->forker, *second = &self->other;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(BOTH)));
	ASSERT_TRUE(prepare_waits(first, BOTH, 1));
	ASSERT_TRUE(prepare_waits(second, BOTH, 2));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(BOTH)));
	ASSERT_TRUE(one_done(&first, &second));
	EXPECT_EQ(0, finish(first));
	EXPECT_TRUE(wait_until(worker_waits(second, 2)));
	EXPECT_EQ(0, run(first, job_release, NULL));
	EXPECT_EQ(0, finish(second));
	EXPECT_EQ(0, run(second, job_release, NULL));
}

/* Domains that do not meet make no difference: alone is alone. */
TEST_F(ticket, tickets_for_different_domains_are_granted_in_turn)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	ASSERT_TRUE(prepare_waits(&self->other, FILES, 2));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, run(&self->other, job_release, NULL));
}

TEST_F(ticket, clone_of_another_thread_waits)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->other, &fork_both, 2));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_memory));
	EXPECT_EQ(0, finish_fork(&self->other));
	EXPECT_EQ(0, gate.head->closed);
}

/*
 * The end of a ticket
 */

TEST_F(ticket, clone_consumes_it)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->other, job_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(1, gate_state().phases);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

TEST_F(ticket, vfork_consumes_it)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_vfork, child_nothing)));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate.head->closed);
}

static struct fork_how fork_refused = { CLONE_NEWNS | CLONE_FS, child_nothing };

TEST_F(ticket, failed_clone_consumes_it)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->other, job_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(-EINVAL, run(&self->forker, job_fork, &fork_refused));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

TEST_F(ticket, child_inherits_none)
{
	pid_t pid;

	ASSERT_EQ(0, gate_prepare(BOTH));
	pid = syscall(__NR_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (!pid)
		_exit(gate_release() != -ENOENT || gate_state().forkers || gate.head->closed);
	EXPECT_EQ(0, child_exit(pid));
}

TEST_F(ticket, ends_with_its_thread)
{
	pid_t tid = self->forker.tid;

	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->other, job_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	start(&self->forker, job_exit, NULL);
	ASSERT_TRUE(wait_until(task_ended(tid)));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(1, gate_state().abandoned);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

/*
 * Verified, not believed. (The guard "verification behind a ticket".)
 */

/* The clone needs more than its ticket is for. */
TEST_F(ticket, verified_for_the_other_domain)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FILES)));
	EXPECT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	EXPECT_EQ(BOTH, gate_state().closed);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, gate.head->closed);
}

/* A thread that the ticket kept out is let in, because the clone waits for it. */
TEST_F(ticket, lets_in_whom_its_clone_waits_for)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FILES)));
	start(&self->holder, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * A level that is stored but not admitted is in no section: it does not keep
 * the clone, and its entry is kept out until the copy is done.
 */
TEST_F(ticket, unadmitted_level_does_not_count)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->holder, job_count, ARG(MEMORY)));
	start(&self->holder, job_admit, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(self->holder.slot->depth[0]));
	ASSERT_EQ(0, run(&self->other, job_count, ARG(MEMORY)));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, run(&self->other, job_admit, ARG(MEMORY)));
	EXPECT_EQ(1, self->holder.slot->depth[0]);
	EXPECT_EQ(1, self->other.slot->depth[0]);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
}

/*
 * Expiry. What a ticket leaves behind lasts for ten times ticket_hold.
 */

/* long enough for the test to do something with what is left, even on a busy machine */
static uint64_t short_hold(void)
{
	return 200 * NSEC_PER_MSEC * slow_factor();
}

/* let_expire - the forker's ticket runs out */
static bool let_expire(struct worker *forker, uint64_t hold)
{
	return !change_policy(ticket_hold, hold) && !run(forker, job_prepare, ARG(BOTH)) &&
	       wait_until(gate_state().expired == 1);
}

TEST_F(ticket, expires)
{
	ASSERT_EQ(0, change_policy(ticket_hold, short_hold()));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->other, job_enter, ARG(BOTH)));
	ASSERT_TRUE(wait_until(gate_state().expired == 1));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(-ESTALE, run(&self->forker, job_release, NULL));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

/* All are outside: the clone is as good as any. */
TEST_F(ticket, clone_after_expiry_verifies_from_scratch)
{
	ASSERT_TRUE(let_expire(&self->forker, short_hold()));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
}

/*
 * A thread stays inside: the clone waits for its patience, then fails so that
 * the caller prepares again.
 */
TEST_F(ticket, clone_after_expiry_fails_when_it_would_wait)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_TRUE(let_expire(&self->forker, short_hold()));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_both));
	EXPECT_EQ(FORKGATE_OUTCOME_EXPIRED, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, gate_state().timeouts);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	/* The library prepares again and retries. */
	ASSERT_TRUE(prepare_waits(&self->forker, BOTH, 1));
	ASSERT_EQ(0, change_policy(ticket_hold, FORKGATE_TIME_MAX));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
}

/* It does wait while its patience lasts: the thread inside may leave in time. */
TEST_F(ticket, clone_after_expiry_waits_for_its_patience)
{
	ASSERT_TRUE(let_expire(&self->forker, short_hold()));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	EXPECT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* keeps_waiting - asleep for much longer than the patience of the tests here */
static bool keeps_waiting(struct worker *forker)
{
	return wait_until(gate_state().wait_ns > 100 * NSEC_PER_MSEC) && worker_waits(forker, 1);
}

/* One clone alone is short of time: the next one waits like any. */
TEST_F(ticket, second_clone_after_expiry_waits_like_any)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_TRUE(let_expire(&self->forker, short_hold()));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(keeps_waiting(&self->forker));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

TEST_F(ticket, prepare_again_after_expiry)
{
	ASSERT_TRUE(let_expire(&self->forker, short_hold()));
	ASSERT_EQ(0, change_policy(ticket_hold, FORKGATE_TIME_MAX));
	EXPECT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* While it waits, a ticket does not expire: only a granted one does. */
TEST_F(ticket, expiry_counts_from_the_grant)
{
	ASSERT_EQ(0, change_policy(ticket_hold, 0));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(BOTH)));
	ASSERT_TRUE(prepare_waits(&self->forker, BOTH, 1));
	EXPECT_EQ(0, gate_state().expired);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(BOTH)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_TRUE(wait_until(gate_state().expired == 1));
}

/*
 * Time-outs
 */

/**
 * struct attempt - a prepare and how it ended
 * @flags: FORKGATE_NONBLOCK, FORKGATE_TIMED
 * @timeout: ns, with FORKGATE_TIMED
 * @outcome: what it said
 */
struct attempt {
	unsigned int flags;
	uint64_t timeout;
	unsigned int outcome;
};

static long job_attempt(void *arg)
{
	struct attempt *attempt = arg;

	attempt->outcome = ~0u;
	return gate_prepare_with(BOTH, attempt->flags, attempt->timeout, 0, &attempt->outcome);
}

static struct attempt without_time = { .flags = FORKGATE_TIMED, .timeout = 0 };
static struct attempt with_1_ms = { .flags = FORKGATE_TIMED, .timeout = NSEC_PER_MSEC };
static struct attempt with_1_hour = { .flags = FORKGATE_TIMED, .timeout = FORKGATE_TIME_MAX };
static struct attempt without_limit = { .flags = FORKGATE_TIMED, .timeout = FORKGATE_FOREVER };

TEST_F(ticket, no_time_is_enough_without_a_wait)
{
	EXPECT_EQ(0, run(&self->forker, job_attempt, &without_time));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, without_time.outcome);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, no_time)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-ETIMEDOUT, run(&self->forker, job_attempt, &without_time));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, without_time.outcome);
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, self->forker.slot->outcome);
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(1, gate_state().timeouts);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

TEST_F(ticket, time_runs_out)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->other, job_prepare, ARG(FILES));
	EXPECT_EQ(-ETIMEDOUT, run(&self->forker, job_attempt, &with_1_ms));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, with_1_ms.outcome);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/* overrides_the_policy - which has no time at all to give */
static void overrides_the_policy(struct __test_metadata *_metadata, struct worker *holder,
				 struct worker *forker, struct attempt *attempt)
{
	ASSERT_EQ(0, change_policy(timeout, 0));
	ASSERT_EQ(0, run(holder, job_enter, ARG(MEMORY)));
	start(forker, job_attempt, attempt);
	ASSERT_TRUE(wait_until(worker_waits(forker, 1)));
	ASSERT_EQ(0, run(holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(forker));
	EXPECT_EQ(0, run(forker, job_release, NULL));
}

TEST_F(ticket, time_overrides_the_policy)
{
	overrides_the_policy(_metadata, &self->holder, &self->forker, &with_1_hour);
}

TEST_F(ticket, no_limit_overrides_the_policy)
{
	overrides_the_policy(_metadata, &self->holder, &self->forker, &without_limit);
}

TEST_F(ticket, time_out_of_the_policy)
{
	ASSERT_EQ(0, change_policy(timeout, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-ETIMEDOUT, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, self->forker.slot->outcome);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/* A clone does not go by the time-out of a prepared wait, nor a prepare by the backstop. */
TEST_F(ticket, backstop_is_for_clones)
{
	ASSERT_EQ(0, change_policy(backstop, 0));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(prepare_waits(&self->forker, BOTH, 1));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/*
 * What a prepare has slept in vain counts against the clone that follows, but
 * only against that one,
 */
TEST_F(ticket, failed_prepare_counts_once)
{
	struct attempt attempt = { .flags = FORKGATE_TIMED, .timeout = 100 * NSEC_PER_MSEC };
	uint64_t begin;

	ASSERT_EQ(0, change_policy(backstop, 100 * NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-ETIMEDOUT, run(&self->forker, job_attempt, &attempt));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_both));
	begin = now_ms();
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_both));
	EXPECT_LE(90, now_ms() - begin);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/* and only for as long as an expired ticket matters. */
TEST_F(ticket, failed_prepare_is_forgotten)
{
	struct attempt attempt = { .flags = FORKGATE_TIMED, .timeout = 100 * NSEC_PER_MSEC };
	uint64_t begin;

	ASSERT_EQ(0, change_policy(ticket_hold, NSEC_PER_MSEC));
	ASSERT_EQ(0, change_policy(backstop, 100 * NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-ETIMEDOUT, run(&self->forker, job_attempt, &attempt));
	begin = now_ms();
	ASSERT_TRUE(wait_until(now_ms() > begin + 20));
	begin = now_ms();
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_both));
	EXPECT_LE(90, now_ms() - begin);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/* On time-out the caller's own limit never makes a copy unsafe, whatever the policy says. */
TEST_F(ticket, own_limit_does_not_proceed)
{
	ASSERT_EQ(0, change_policy(on_timeout, FORKGATE_PROCEED));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-ETIMEDOUT, run(&self->forker, job_attempt, &with_1_ms));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, with_1_ms.outcome);
	EXPECT_EQ(0, gate_state().unsafe);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
}

/*
 * Without waiting: the caller polls the descriptor that it prepared with
 */

static struct attempt try = { .flags = FORKGATE_NONBLOCK };

/**
 * struct polling - a poll() of one descriptor
 * @fd: the descriptor
 * @timeout: ms, negative for no limit
 */
struct polling {
	int fd;
	int timeout;
};

/* job_poll - what is reported, 0 for nothing, or a negative errno */
static long job_poll(void *arg)
{
	const struct polling *polling = arg;
	struct pollfd poll_fd = { .fd = polling->fd, .events = POLLIN };
	int ret = poll(&poll_fd, 1, polling->timeout);

	return ret < 0 ? -errno : ret ? poll_fd.revents : 0;
}

/* poll_now - what a poll() by that worker reports at once */
static long poll_now(struct worker *worker, int fd)
{
	struct polling polling = { .fd = fd };

	return run(worker, job_poll, &polling);
}

/* poll_for - the same, but it waits for something to report */
static long poll_for(struct worker *worker, int fd)
{
	struct polling polling = { .fd = fd, .timeout = -1 };

	return run(worker, job_poll, &polling);
}

/* It is granted at once, and there is nothing left to poll for. */
TEST_F(ticket, try_of_an_idle_gate)
{
	EXPECT_EQ(0, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, try.outcome);
	EXPECT_EQ(-EALREADY, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(POLLERR, poll_now(&self->forker, gate.fd));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, try_keeps_its_place)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(FORKGATE_OUTCOME_NONE, try.outcome);
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(BOTH, gate_state().closed);
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(0, poll_now(&self->forker, gate.fd));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(POLLIN, poll_for(&self->forker, gate.fd));
	EXPECT_EQ(0, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, try.outcome);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* by_polling - try, poll and try again until the ticket is granted */
static long by_polling(struct worker *worker)
{
	long ret;

	while ((ret = run(worker, job_attempt, &try)) == -EAGAIN) {
		ret = poll_for(worker, gate.fd);
		if (ret != POLLIN)
			return ret;
	}
	return ret;
}

/* Behind a ticket and a holder: what poll() reports is all that the caller needs to know. */
TEST_F(ticket, poll_until_it_is_granted)
{
	ASSERT_EQ(0, run(&self->holder, job_prepare, ARG(FILES)));
	ASSERT_EQ(0, run(&self->other, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	ASSERT_EQ(0, run(&self->holder, job_release, NULL));
	ASSERT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, by_polling(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(ticket, poll_wakes)
{
	struct polling polling = { .fd = gate.fd, .timeout = -1 };

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	start(&self->forker, job_poll, &polling);
	ASSERT_TRUE(wait_until(task_asleep(self->forker.tid)));
	EXPECT_TRUE(busy(&self->forker));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(POLLIN, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* Behind another ticket, which is given back. */
TEST_F(ticket, poll_wakes_when_its_turn_comes)
{
	struct polling polling = { .fd = gate.fd, .timeout = -1 };

	ASSERT_EQ(0, run(&self->other, job_prepare, ARG(BOTH)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(0, poll_now(&self->forker, gate.fd));
	start(&self->forker, job_poll, &polling);
	ASSERT_TRUE(wait_until(task_asleep(self->forker.tid)));
	ASSERT_EQ(0, run(&self->other, job_release, NULL));
	EXPECT_EQ(POLLIN, finish(&self->forker));
	EXPECT_EQ(0, by_polling(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, poll_without_a_ticket)
{
	EXPECT_EQ(POLLERR, poll_for(&self->forker, gate.fd));
}

TEST_F(ticket, poll_is_about_the_callers_ticket)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(POLLERR, poll_for(&self->other, gate.fd));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/* A prepare that waits by itself is not polled for. */
TEST_F(ticket, poll_of_a_blocking_prepare)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(POLLERR, poll_for(&self->forker, gate.fd));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, poll_after_a_release)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(POLLERR, poll_for(&self->forker, gate.fd));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

TEST_F(ticket, poll_of_another_open_file)
{
	int other = open(DEVICE, O_RDWR | O_CLOEXEC), same = dup(gate.fd);

	ASSERT_LE(0, other);
	ASSERT_LE(0, same);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(POLLERR, poll_for(&self->forker, other));
	EXPECT_EQ(0, poll_now(&self->forker, same));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(POLLIN, poll_for(&self->forker, same));
	EXPECT_EQ(POLLERR, poll_for(&self->forker, other));
	EXPECT_EQ(0, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* Through the mapping: the descriptor is one of the open file that was mapped. */
TEST_F(ticket, poll_of_a_try_through_msync)
{
	gate.msync = true;
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(0, poll_now(&self->forker, gate.fd));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(POLLIN, poll_for(&self->forker, gate.fd));
	EXPECT_EQ(0, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* A ticket that has expired unseen is worth a call too: it gives the caller a new place. */
TEST_F(ticket, poll_of_an_expired_ticket)
{
	ASSERT_EQ(0, change_policy(ticket_hold, short_hold()));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	ASSERT_TRUE(wait_until(gate_state().expired == 1));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(POLLIN, poll_for(&self->forker, gate.fd));
	ASSERT_EQ(0, change_policy(ticket_hold, FORKGATE_TIME_MAX));
	EXPECT_EQ(0, run(&self->forker, job_attempt, &try));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* The time counts from the first try; poll() tells when it is over. */
TEST_F(ticket, tries_run_out_of_time)
{
	struct attempt attempt = {
		.flags = FORKGATE_NONBLOCK | FORKGATE_TIMED,
		.timeout = 100 * NSEC_PER_MSEC,
	};

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_attempt, &attempt));
	EXPECT_EQ(POLLIN, poll_for(&self->forker, gate.fd));
	EXPECT_EQ(-ETIMEDOUT, run(&self->forker, job_attempt, &attempt));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, attempt.outcome);
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/* The same for a caller that tries all the time. */
TEST_F(ticket, many_tries_run_out_of_time)
{
	struct attempt attempt = {
		.flags = FORKGATE_NONBLOCK | FORKGATE_TIMED,
		.timeout = 100 * NSEC_PER_MSEC,
	};
	long ret;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_TRUE(wait_until((ret = run(&self->forker, job_attempt, &attempt)) != -EAGAIN));
	EXPECT_EQ(-ETIMEDOUT, ret);
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

TEST_F(ticket, queued_ticket_can_be_given_back)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	start(&self->other, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/* A clone with a ticket that is still queued waits in its place. */
TEST_F(ticket, clone_with_a_queued_ticket_waits)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	EXPECT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate.head->closed);
}

/* A blocking prepare after a try waits in the same place. */
TEST_F(ticket, prepare_after_a_try_waits)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	EXPECT_TRUE(prepare_waits(&self->forker, BOTH, 1));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_F(ticket, queued_ticket_ends_with_its_thread)
{
	pid_t tid = self->forker.tid;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_attempt, &try));
	start(&self->other, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	start(&self->forker, job_exit, NULL);
	ASSERT_TRUE(wait_until(task_ended(tid)));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_TRUE(wait_until(gate_state().forkers == 0));
	EXPECT_EQ(0, gate.head->closed);
}

/*
 * A prepare whose result cannot be written gets no ticket and no place
 */

static struct forkgate_prepare *results;

static long job_prepare_there(void *flags)
{
	*results = (struct forkgate_prepare) {
		.domains = MEMORY,
		.flags = (uintptr_t)flags,
	};
	return gate_call(FORKGATE_IOC_PREPARE, results);
}

/* The page goes away while the thread waits. */
TEST_F(ticket, granted_to_a_page_that_went_away)
{
	results = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, results);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->forker, job_prepare_there, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, mprotect(results, 4096, PROT_READ));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(-EFAULT, finish(&self->forker));
	EXPECT_EQ(0, gate_state().forkers);
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
	ASSERT_EQ(0, change_policy(ticket_hold, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	/* "other" holds the lock and enters; "forker" would wait for it. */
	start(&self->other, job_enter, ARG(MEMORY));
	ASSERT_EQ(0, finish(&self->other));
	ASSERT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
}

/* A signal during a prepare: the handler runs, the wait goes on. */
static int handler_runs;

static void handler(int signo)
{
	__atomic_add_fetch(&handler_runs, 1, __ATOMIC_SEQ_CST);
}

TEST_F(ticket, signal_during_prepare)
{
	handle(handler, SA_RESTART);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(prepare_waits(&self->forker, BOTH, 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs) == 1));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_HARNESS_MAIN
