// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guards of the protocol that no scenario of the other tests depends on: each
 * test here forces the schedule in which one of them alone decides. Without the
 * guard it fails, see mutants/.
 *
 * Rule 4: circles through forkers that poll.
 * Rule 5: what a copy keeps out, although others of the same kind have ended.
 * Rule 6: who joins a phase, and who is let in before it grants.
 * Rule 7: yields.
 * Rule 8: places that are kept.
 * Rule 9: the heir of a killed parent.
 */
#include "test/cpu.h"
#include "test/handler.h"
#include "test/harness.h"
#include "test/step.h"

#include <poll.h>
#include <setjmp.h>
#include <sys/ptrace.h>

FIXTURE_WORKERS(guard, holder, forker, second, third, newcomer, late);

/* The same with forced schedules */
FIXTURE(forced) {
	struct worker holder, forker, second, third, newcomer, late;
};

FIXTURE_SETUP(forced)
{
	if (!have_steps() || steps_reset())
		SKIP(return, NO_STEPS);
	ASSERT_EQ(0, setup_workers(&self->holder, sizeof(*self) / sizeof(struct worker)));
}

FIXTURE_TEARDOWN(forced)
{
	steps_reset();
}

static int handler_runs, handler_leave;	/* latches */

static void handler_stays(int signo)
{
	latch_open(&handler_runs);
	latch_wait(&handler_leave);
}

/* poll_now - what poll() reports to that worker at once; 0 for nothing */
static long job_poll_now(void *unused)
{
	struct pollfd poll_fd = { .fd = gate.fd, .events = POLLIN };
	int ret = poll(&poll_fd, 1, 0);

	return ret < 0 ? -errno : ret ? poll_fd.revents : 0;
}

static long poll_now(struct worker *worker)
{
	return run(worker, job_poll_now, NULL);
}

static void handler_returns(int signo)
{
}

/*
 * A ticket can be granted, and expire, before the thread that sleeps for it runs
 * again. That thread has no place any more that a signal could keep.
 */
TEST_F(forced, a_ticket_expires_before_its_holder_runs)
{
	handle(handler_returns, 0);
	/* What it leaves ends after ten times that, which must be later than the release. */
	ASSERT_EQ(0, change_policy(ticket_hold, 200 * NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(prepare_waits(&self->forker, MEMORY, 1));
	ASSERT_EQ(0, step("woken", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	ASSERT_TRUE(held("woken"));
	ASSERT_TRUE(wait_until(gate_state().expired == 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_EQ(0, step("woken", "go"));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(-ESTALE, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_memory));
	EXPECT_EQ(0, gate.head->closed);
}

/*
 * Rule 5: a copy that goes ahead unsafe beside a ticket keeps out others than
 * the ticket's holder.
 */
TEST_F(forced, a_holder_passes_a_forced_copy)
{
	ASSERT_EQ(0, change_policy(backstop, NSEC_PER_MSEC));
	ASSERT_EQ(0, change_policy(on_timeout, FORKGATE_PROCEED));
	ASSERT_EQ(0, run(&self->holder, job_prepare, ARG(MEMORY)));
	ASSERT_EQ(0, step("copied", "hold"));
	start(&self->forker, job_fork, &ask_memory);
	ASSERT_TRUE(held("copied"));
	EXPECT_EQ(-EBUSY, run(&self->newcomer, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	ASSERT_EQ(0, step("copied", "go"));
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY, finish_fork(&self->forker));
	EXPECT_EQ(0, run(&self->holder, job_release, NULL));
}

/*
 * Whose turn it is
 */

/* The only thread inside is a forker itself, and not the first of those that wait. */
TEST_F(guard, the_only_one_inside_is_not_the_first)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	ASSERT_TRUE(fork_waits(&self->second, &fork_memory, 2));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->second, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * A yield lets a newcomer in and the queue join. What the newcomer enters is
 * closed and counted already, so that a forker from the queue could be granted
 * at once.
 */
TEST_F(guard, a_yield_lets_in_before_it_grants)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	/* No yield while there is a ticket. */
	ASSERT_EQ(0, run(&self->third, job_prepare, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->second, &fork_files, 3));
	start(&self->newcomer, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, run(&self->third, job_release, NULL));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_LE(1, gate_state().yields);
	EXPECT_TRUE(wait_until(worker_waits(&self->second, 2)));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_TRUE(worker_waits(&self->forker, 1));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* Who enters past a drain keeps newcomers of the other domain out, too. */
TEST_F(guard, an_entry_past_a_drain_is_the_last)
{
	ASSERT_EQ(0, run(&self->third, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_files, 1));
	EXPECT_EQ(0, run(&self->newcomer, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->third, job_enter, ARG(FILES)));
	EXPECT_EQ(BOTH, gate.head->closed);
	EXPECT_EQ(-EBUSY, run(&self->newcomer, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->third, job_leave, ARG(BOTH)));
	EXPECT_EQ(-EBUSY, run(&self->newcomer, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, gate.head->closed);
}

/* So does a forker that waits for the next phase. */
TEST_F(guard, a_queue_keeps_all_newcomers_out)
{
	ASSERT_EQ(0, run(&self->holder, job_prepare, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->newcomer, job_tryenter, ARG(FILES)));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 2));
	EXPECT_EQ(BOTH, gate.head->closed);
	EXPECT_EQ(-EBUSY, run(&self->newcomer, job_tryenter, ARG(FILES)));
	EXPECT_EQ(0, run(&self->holder, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * A forker of the next phase enters what this phase waits for, and then needs
 * more: it must not wait for a phase that waits for it.
 */
TEST_F(guard, a_queued_forker_joins_once_it_is_inside)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_files, 1));
	ASSERT_EQ(0, run(&self->third, job_prepare, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->second, job_try_prepare, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_TRUE(prepare_waits(&self->second, MEMORY, 3));
	ASSERT_EQ(0, run(&self->third, job_release, NULL));
	EXPECT_EQ(0, finish(&self->second));
	EXPECT_EQ(1, gate_state().phases);
	EXPECT_EQ(0, run(&self->second, job_release, NULL));
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * The next phase begins with a forker that polls and does not call: it loses its
 * place, rather than keep a newcomer out.
 */
TEST_F(guard, a_forker_that_does_not_call_loses_its_place)
{
	ASSERT_EQ(0, run(&self->holder, job_prepare, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_try_prepare, ARG(BOTH)));
	ASSERT_EQ(0, change_policy(ticket_hold, 200 * NSEC_PER_MSEC * slow_factor()));
	ASSERT_EQ(0, run(&self->holder, job_release, NULL));
	EXPECT_EQ(0, run(&self->newcomer, job_enter, ARG(FILES)));
	EXPECT_EQ(1, gate_state().expired);
	EXPECT_EQ(POLLIN, poll_now(&self->forker));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(FILES)));
}

/*
 * Two copies. A thread inside the other domain that wants in has been kept out
 * by both: the end of the first does not let it in.
 */
TEST_F(forced, the_second_copy_keeps_out_what_the_first_did)
{
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	ASSERT_TRUE(fork_waits(&self->second, &fork_memory, 2));
	ASSERT_EQ(0, step("grant", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	ASSERT_TRUE(wait_until(step_waiting("grant") == 2));
	start(&self->late, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("grant", "one"));
	ASSERT_TRUE(wait_until(gate_state().forkers == 1));
	EXPECT_EQ(1, gate_state().blocked);
	EXPECT_EQ(0, READ_ONCE(self->late.slot->depth[0]));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(BOTH)));
}

/*
 * A thread was kept out through the end of a copy, so that forkers queue. It gets
 * in at the end of the other copy: now those that queue join.
 */
TEST_F(forced, the_queue_joins_once_all_are_let_in)
{
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->newcomer, &fork_files, 1));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 2));
	ASSERT_TRUE(fork_waits(&self->second, &fork_memory, 3));
	ASSERT_EQ(0, step("grant", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	ASSERT_TRUE(wait_until(step_waiting("grant") == 2));
	start(&self->late, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("grant", "one"));
	ASSERT_TRUE(wait_until(gate_state().forkers == 2));
	ASSERT_TRUE(fork_waits(&self->third, &fork_memory, 3));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_TRUE(wait_until(worker_waits(&self->third, 2)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->third));
	EXPECT_EQ(1, gate_state().phases);
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->newcomer));
}

/*
 * But a forker that is inside joins at any time while the phase drains: it may
 * wait for that one.
 */
TEST_F(guard, a_forker_that_is_waited_for_joins_at_any_time)
{
	ASSERT_EQ(0, run(&self->third, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_files, 1));
	start(&self->newcomer, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, run_fork(&self->second, &fork_memory));
	/* The end of that copy lets nobody into what the other fork waits for. */
	EXPECT_EQ(1, gate_state().blocked);
	EXPECT_EQ(0, READ_ONCE(self->newcomer.slot->depth[1]));
	EXPECT_EQ(0, run_fork(&self->third, &fork_memory));
	EXPECT_EQ(1, gate_state().phases);
	EXPECT_EQ(0, run(&self->third, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(FILES)));
}

/* A newcomer that a copy alone kept out gets in when that ends, though the phase goes on. */
TEST_F(forced, the_end_of_a_copy_lets_newcomers_in)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->second, &fork_files, 1));
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->forker, job_fork, &fork_memory);
	ASSERT_TRUE(held("grant"));
	start(&self->newcomer, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_TRUE(worker_waits(&self->second, 1));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/* A clone that could copy beside another does not overtake a ticket, which has to be alone. */
TEST_F(forced, a_clone_does_not_overtake_a_ticket)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	ASSERT_TRUE(prepare_waits(&self->second, MEMORY, 2));
	ASSERT_TRUE(fork_waits(&self->third, &fork_memory, 3));
	ASSERT_EQ(0, step("grant", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	ASSERT_TRUE(held("grant"));
	EXPECT_TRUE(worker_waits(&self->second, 3));
	EXPECT_TRUE(worker_waits(&self->third, 3));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->second));
	EXPECT_TRUE(worker_waits(&self->third, 2));
	EXPECT_EQ(0, run(&self->second, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->third));
}

/*
 * A forker that was granted nothing copies all the same, because the policy says
 * so: until it is done it keeps others out as any copy does.
 */
TEST_F(forced, an_unsafe_copy_keeps_others_out)
{
	ASSERT_EQ(0, change_policy(on_timeout, FORKGATE_PROCEED));
	ASSERT_EQ(0, change_policy(backstop, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, step("copied", "hold"));
	start(&self->forker, job_fork, &ask_memory);
	ASSERT_TRUE(held("copied"));
	EXPECT_EQ(1, gate_state().unsafe);
	EXPECT_EQ(-EBUSY, run(&self->newcomer, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(-EBUSY, run(&self->late, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(-EBUSY, run(&self->holder, job_tryenter, ARG(MEMORY)));
	ASSERT_EQ(0, step("copied", "go"));
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY, finish_fork(&self->forker));
	EXPECT_EQ(0, run(&self->newcomer, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, gate.head->closed);
}

/* One whose wait is over, but that is granted before it goes ahead, is as safe as any. */
TEST_F(forced, a_grant_in_time_is_not_called_unsafe)
{
	ASSERT_EQ(0, change_policy(on_timeout, FORKGATE_PROCEED));
	ASSERT_EQ(0, change_policy(backstop, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, step("refused", "hold"));
	start(&self->forker, job_fork, &ask_memory);
	ASSERT_TRUE(held("refused"));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	ASSERT_EQ(0, step("refused", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(0, gate_state().unsafe);
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
}

/*
 * A signal handler forks between its thread's store and its call to wake, as
 * in schedule.c, but the thread has a place already.
 */
static pid_t handler_child;

static void handler_forks(int signo)
{
	handler_child = raw_fork(CLONE_FILES, child_nothing);
}

TEST_F(forced, fork_with_a_place_between_leaving_and_waking)
{
	handle(handler_forks, 0);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->forker, job_fork, &fork_files);
	ASSERT_TRUE(held("grant"));
	ASSERT_TRUE(fork_waits(&self->second, &fork_memory, 2));
	ASSERT_EQ(-EAGAIN, run(&self->holder, job_try_prepare, ARG(FILES)));
	start(&self->holder, job_leave_interrupted, ARG(MEMORY));
	ASSERT_TRUE(wait_until(step_waiting("grant") == 2));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, child_exit(handler_child));
	EXPECT_EQ(0, gate.head->closed);
}

/*
 * Yields
 */

/* A drain that waits beside a copy does not yield: the newcomers are kept out by the copy. */
TEST_F(forced, no_yield_during_a_copy)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->second, &fork_files, 1));
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->forker, job_fork, &fork_memory);
	ASSERT_TRUE(held("grant"));
	start(&self->newcomer, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_TRUE(wait_until(gate_state().wait_ns > 100 * NSEC_PER_MSEC));
	EXPECT_EQ(1, gate_state().blocked);
	EXPECT_EQ(0, gate_state().yields);
	EXPECT_EQ(0, READ_ONCE(self->newcomer.slot->depth[0]));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/* Nor beside a ticket. */
TEST_F(guard, no_yield_during_a_ticket)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->second, &fork_files, 1));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	start(&self->newcomer, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_TRUE(wait_until(gate_state().wait_ns > 100 * NSEC_PER_MSEC));
	EXPECT_EQ(1, gate_state().blocked);
	EXPECT_EQ(0, gate_state().yields);
	EXPECT_EQ(0, READ_ONCE(self->newcomer.slot->depth[0]));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/*
 * When patience is over, nothing more is granted beside a copy, so that it ends
 * and the drain can yield.
 */
TEST_F(forced, no_grant_before_a_yield_that_is_due)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->third, &fork_files, 1));
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->forker, job_fork, &fork_memory);
	ASSERT_TRUE(held("grant"));
	start(&self->newcomer, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_TRUE(wait_until(gate_state().wait_ns > 100 * NSEC_PER_MSEC));
	EXPECT_TRUE(fork_waits(&self->second, &fork_memory, 3));
	EXPECT_EQ(1, step_waiting("grant"));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->newcomer));
	EXPECT_TRUE(wait_until(worker_waits(&self->second, 2)));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->third));
}

/* The tenth yield comes after 1 + 2 + 4 + ... + 512 times the patience. */
TEST_F(guard, yields_come_ever_later)
{
	int i;

	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(0, run(&self->newcomer, job_enter, ARG(MEMORY)));
		EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
	}
	EXPECT_EQ(10, gate_state().yields);
	EXPECT_LE(1023 * NSEC_PER_MSEC, gate_state().wait_ns);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Places
 */

/* Nothing is granted to a thread whose place is kept: it would have no end. */
TEST_F(guard, a_kept_place_is_not_granted)
{
	handle(handler_stays, 0);
	ASSERT_EQ(0, change_policy(ticket_hold, NSEC_PER_SEC * slow_factor()));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->newcomer, job_enter, ARG(MEMORY)));
	EXPECT_EQ(1, gate_state().expired);
	EXPECT_TRUE(busy(&self->forker));
	EXPECT_EQ(0, run(&self->newcomer, job_leave, ARG(MEMORY)));
	latch_open(&handler_leave);
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* A signal after the grant: what was granted is given back, the place is kept. */
TEST_F(forced, place_is_kept_after_a_grant)
{
	handle(handler_stays, 0);
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(FILES)));
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->forker, job_fork, &fork_memory);
	ASSERT_TRUE(held("grant"));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_EQ(0, step("grant", "go"));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs)));
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(-EBUSY, run(&self->newcomer, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->late, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(MEMORY)));
	latch_open(&handler_leave);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, gate_state().phases);
}

/*
 * The first forker of a phase was woken to close and count, and a signal
 * interrupts it before it has: the next one does that instead.
 */
TEST_F(forced, an_interrupted_forker_wakes_the_next)
{
	handle(handler_stays, 0);
	ASSERT_EQ(0, run(&self->holder, job_prepare, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 2));
	ASSERT_TRUE(fork_waits(&self->second, &fork_both, 3));
	ASSERT_EQ(0, step("woken", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_release, NULL));
	ASSERT_TRUE(held("woken"));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_EQ(0, step("woken", "go"));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs)));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_TRUE(busy(&self->forker));
	latch_open(&handler_leave);
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * A handler that does not return: what its wait had slept is forgotten, and not
 * held against a fork much later at the same place.
 */
static sigjmp_buf out_of_the_wait;

static void handler_jumps(int signo)
{
	siglongjmp(out_of_the_wait, 1);
}

static long job_fork_or_jump(void *how)
{
	return sigsetjmp(out_of_the_wait, 1) ? -EINTR : job_fork(how);
}

TEST_F(guard, time_of_a_wait_that_was_left_is_forgotten)
{
	const uint64_t backstop = 1000 * NSEC_PER_MSEC * slow_factor();
	uint64_t begin;

	handle(handler_jumps, 0);
	ASSERT_EQ(0, change_policy(ticket_hold, 0));
	ASSERT_EQ(0, change_policy(backstop, backstop));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	start(&self->forker, job_fork_or_jump, &fork_memory);
	ASSERT_TRUE(wait_until(gate_state().wait_ns > backstop / 2 ||
			       !busy(&self->forker)));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_EQ(-EINTR, finish(&self->forker));
	/* It lasts for a second, see fg_fork_hold(). */
	begin = now_ms();
	ASSERT_TRUE(wait_until(now_ms() > begin + 1100));
	begin = now_ms();
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork_or_jump, &fork_memory));
	EXPECT_LE(backstop / NSEC_PER_MSEC - 10, now_ms() - begin);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/*
 * The gate ends while a fork waits, and there is a new one by the time that it
 * looks: it waits there.
 */
TEST_F(forced, a_fork_goes_to_the_new_gate)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, step("woken", "hold"));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	ASSERT_EQ(0, gate_unmap());
	ASSERT_TRUE(held("woken"));
	ASSERT_EQ(0, gate_map());
	ASSERT_EQ(0, gate_set_policy(&patient_policy));
	ASSERT_LE(0, run(&self->holder, job_register, &self->holder));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, step("woken", "go"));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Circles
 */

/*
 * "forker" polls. It gets inside what another waits for that waits for it, by an
 * entry that it had to wait for: poll() tells it to call, to learn that it is
 * refused.
 */
TEST_F(guard, a_poller_let_into_a_circle_is_told)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->holder, job_prepare, ARG(FILES)));
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_try_prepare, ARG(MEMORY)));
	start(&self->forker, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_TRUE(fork_waits(&self->second, &fork_files, 3));
	ASSERT_EQ(0, run(&self->holder, job_release, NULL));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(POLLIN, poll_now(&self->forker));
	EXPECT_EQ(-EDEADLK, run(&self->forker, job_try_prepare, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(MEMORY)));
}

/* The same by an entry that asked nobody: the other one, which finds it inside, is refused. */
TEST_F(guard, a_poller_inside_makes_a_circle)
{
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_try_prepare, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(FILES)));
	EXPECT_EQ(-EDEADLK, run(&self->second, job_fork, &fork_files));
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_try_prepare, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(FILES)));
}

/* Nor has the gate been told when one that polls leaves what nobody needs yet. */
TEST_F(guard, a_poller_that_has_left_makes_no_circle)
{
	static struct worker crowd[FORKGATE_UNIT_SLOTS];
	struct worker *poller = &crowd[FORKGATE_UNIT_SLOTS - 1];

	/* In a unit where no other thread is inside anything */
	ASSERT_EQ(0, workers_new(crowd, FORKGATE_UNIT_SLOTS));
	ASSERT_EQ(gate_unit(1), slot_header(poller->slot));
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(poller, job_enter, ARG(FILES)));
	ASSERT_EQ(-EAGAIN, run(poller, job_try_prepare, ARG(MEMORY)));
	ASSERT_EQ(0, run(poller, job_leave, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->second, &fork_files, 2));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(poller, job_try_prepare, ARG(MEMORY)));
	EXPECT_EQ(0, run(poller, job_release, NULL));
}

/*
 * One that polls has stored a level that the scan has passed, and has not asked
 * for it yet: no fork waits for it, though its ticket is for the next phase. A
 * handler that leaves another section then has the gate look at it.
 */
TEST_F(guard, an_unadmitted_level_of_a_queued_poller_makes_no_circle)
{
	ASSERT_EQ(0, change_policy(patience, FORKGATE_FOREVER));
	/* It is told to call, and does not. */
	ASSERT_EQ(0, change_policy(ticket_hold, 10 * NSEC_PER_SEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_files, 1));
	/* Granted, so that those outside of sections queue */
	ASSERT_EQ(0, run_fork(&self->third, &fork_memory));
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->third, job_try_prepare, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->third, job_count, ARG(FILES)));
	ASSERT_EQ(0, run(&self->third, job_wake, ARG(MEMORY)));
	EXPECT_TRUE(fork_waits(&self->second, &fork_files, 3));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, gate_state().deadlocks);
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->third, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->third, job_release, NULL));
}

/* A wait that is over makes no circle any more. */
TEST_F(guard, a_wait_that_is_over_makes_no_circle)
{
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_files, 1));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	ASSERT_EQ(0, finish_fork(&self->forker));
	/*
	 * Inside what that one needed, needing what it was inside of, for which
	 * another is to blame
	 */
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(FILES)));
	EXPECT_TRUE(fork_waits(&self->second, &fork_memory, 1));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(FILES)));
	EXPECT_EQ(0, gate_state().deadlocks);
}

/*
 * Opening
 */

/* The fork of a traced thread stops for the tracer, with its copy complete: the gate is open. */
static struct opening {
	int stopped, inside;	/* latches */
} *opening;

static long job_enter_when_stopped(void *unused)
{
	latch_wait(&opening->stopped);
	if (!gate_enter(BOTH))
		latch_open(&opening->inside);
	return 0;
}

TEST_F(guard, a_fork_that_stops_for_its_tracer_is_open)
{
	unsigned long child = 0;
	int status, fds[2];
	pid_t pid;
	char byte;

	opening = mmap(NULL, sizeof(*opening), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	ASSERT_NE(MAP_FAILED, opening);
	ASSERT_EQ(0, pipe(fds));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct worker other;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (worker_new(&other) || read(fds[0], &byte, 1) != 1)
			_exit(1);
		start(&other, job_enter_when_stopped, NULL);
		_exit(child_exit(raw_fork(0, child_nothing)));
	}
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACEFORK));
	ASSERT_EQ(1, write(fds[1], "", 1));
	ASSERT_EQ(pid, waitpid(pid, &status, __WALL));
	ASSERT_EQ(SIGTRAP | PTRACE_EVENT_FORK << 8, status >> 8);
	ASSERT_EQ(0, ptrace(PTRACE_GETEVENTMSG, pid, NULL, &child));
	latch_open(&opening->stopped);
	EXPECT_TRUE(wait_until(READ_ONCE(opening->inside)));
	kill(child, SIGKILL);
	kill(pid, SIGKILL);
}

/*
 * Entries
 */

/*
 * Threads are let go that are more than a batch, and the second batch has not
 * been counted in yet. A signal that comes to one of these then is late: it is in
 * before the handler runs.
 */
#define BATCH	16	/* FG_RELEASE_BATCH */
#define BUSY_CPU	1	/* where that batch is, and stays */

static unsigned int handler_depth;

static void handler_looks(int signo)
{
	WRITE_ONCE(handler_depth, slot->depth[0]);
	latch_open(&handler_runs);
}

#define RT_RUNTIME	"/proc/sys/kernel/sched_rt_runtime_us"

FIXTURE(crowd) {
	struct worker holder, forker, spinner, last, batch[BATCH];
	char runtime[32];
};

FIXTURE_SETUP(crowd)
{
	cpu_set_t set;

	self->runtime[0] = '\0';
	if (!have_steps() || steps_reset())
		SKIP(return, NO_STEPS);
	ASSERT_EQ(0, sched_getaffinity(0, sizeof(set), &set));
	if (!CPU_ISSET(0, &set) || !CPU_ISSET(BUSY_CPU, &set))
		SKIP(return, "needs CPUs 0 and %d", BUSY_CPU);
	if (read_file(RT_RUNTIME, self->runtime, sizeof(self->runtime)) <= 0 ||
	    write_file(RT_RUNTIME, "-1"))
		SKIP(return, "cannot let a thread keep a CPU to itself");
	ASSERT_EQ(0, job_pin(ARG(0)));
	ASSERT_EQ(0, setup_workers(&self->holder, 4 + BATCH));
}

FIXTURE_TEARDOWN(crowd)
{
	steps_reset();
	if (self->runtime[0])
		write_file(RT_RUNTIME, self->runtime);
}

/* enter_waits - start an entry and see it wait, one of @blocked */
static bool enter_waits(struct worker *worker, unsigned int domains, unsigned int blocked)
{
	start(worker, job_enter, ARG(domains));
	return wait_until(gate_state().blocked == blocked && task_asleep(worker->tid));
}

/*
 * let_go - the holder of a ticket releases it and is held between two batches.
 * The first batch is in and does not get to run; "last", who enters @domains, is
 * the second.
 */
static bool let_go(struct worker *holder, struct worker *spinner, struct worker *batch,
		   struct worker *last, unsigned int domains)
{
	int i;

	for (i = 0; i < BATCH; i++)
		if (run(&batch[i], job_pin, ARG(BUSY_CPU)) ||
		    !enter_waits(&batch[i], MEMORY, i + 1))
			return false;
	if (!enter_waits(last, domains, BATCH + 1) || run(spinner, job_realtime, ARG(1)) ||
	    spin_on(spinner, BUSY_CPU) || step("release", "hold"))
		return false;
	start(holder, job_release, NULL);
	return held("release") && gate_state().blocked == 1;
}

/* all_in - let them all run, and see them inside */
static bool all_in(struct worker *holder, struct worker *spinner, struct worker *batch,
		   struct worker *last)
{
	bool well = !step("release", "go");
	int i;

	WRITE_ONCE(spin_stop, 1);
	well &= !finish(spinner);
	well &= !finish(holder);
	for (i = 0; i < BATCH; i++)
		well &= !finish(&batch[i]);
	return well && !finish(last) && gate_state().holders_count == BATCH + 1;
}

TEST_F(crowd, a_signal_meets_a_release)
{
	handle(handler_looks, 0);
	ASSERT_EQ(0, run(&self->holder, job_prepare, ARG(BOTH)));
	ASSERT_TRUE(let_go(&self->holder, &self->spinner, self->batch, &self->last, MEMORY));
	EXPECT_EQ(0, READ_ONCE(self->last.slot->depth[0]));
	ASSERT_EQ(0, interrupt(&self->last));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs)));
	EXPECT_EQ(1, READ_ONCE(handler_depth));
	EXPECT_TRUE(all_in(&self->holder, &self->spinner, self->batch, &self->last));
}

/* A fork of the next phase needs what only the last of them enters. */
TEST_F(crowd, nothing_is_granted_before_all_are_in)
{
	ASSERT_EQ(0, run(&self->holder, job_prepare, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_files, 2));
	ASSERT_TRUE(let_go(&self->holder, &self->spinner, self->batch, &self->last, FILES));
	EXPECT_EQ(1, gate_state().phases);
	EXPECT_TRUE(worker_waits(&self->forker, 1));
	EXPECT_TRUE(all_in(&self->holder, &self->spinner, self->batch, &self->last));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	EXPECT_EQ(0, run(&self->last, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Many units
 */

/* A unit far away says "closed" before anything is granted, too. */
TEST_F(guard, units_far_away_are_closed)
{
	unsigned int far = FORKGATE_UNITS - 1;

	EXPECT_EQ(0, READ_ONCE(gate_unit(far)->closed));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	EXPECT_EQ(MEMORY, READ_ONCE(gate_unit(far)->closed));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/* The scan comes to the last of many units. */
TEST_F(guard, units_far_away_are_scanned)
{
	static struct worker crowd[5 * FORKGATE_UNIT_SLOTS];
	struct worker *last = &crowd[5 * FORKGATE_UNIT_SLOTS - 1];

	ASSERT_EQ(0, workers_new(crowd, 5 * FORKGATE_UNIT_SLOTS));
	ASSERT_EQ(gate_unit(5), slot_header(last->slot));
	/* A copy that does not wait may sleep all the same, but its child would be torn. */
	ASSERT_EQ(0, run(last, job_hold, ARG(MEMORY)));
	EXPECT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	EXPECT_EQ(0, run(last, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * A parent is killed while it is suspended for its vfork child: the child has
 * the slot from then on, and what it enters counts, as its own.
 */
static int child_runs, parent_is_dead, child_inside, child_go;	/* latches */

static int child_goes_on(void)
{
	latch_open(&child_runs);
	latch_wait(&parent_is_dead);
	if (gate_enter(MEMORY))
		return 1;
	/* Rule 3: its own sections, which those of one that only survives in a slot are not */
	if (child_exit(raw_fork(CLONE_FILES, child_nothing)))
		return 3;
	latch_open(&child_inside);
	latch_wait(&child_go);
	return gate_leave(MEMORY) ? 2 : 0;
}

static int parent_vforks(void)
{
	if (gate_register() < 0)
		return 1;
	spawn_vm(CLONE_VFORK, child_goes_on);
	return 2;
}

static long job_parent(void *unused)
{
	return spawn_vm(0, parent_vforks);
}

TEST_F(guard, the_child_of_a_killed_parent_has_its_slot)
{
	struct worker spawner;
	int status;
	pid_t pid;

	/* Both use the thread-local storage of this worker, which must keep still. */
	ASSERT_EQ(0, worker_spawn(&spawner));
	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	pid = run(&spawner, job_parent, NULL);
	ASSERT_LT(0, pid);
	ASSERT_TRUE(wait_until(READ_ONCE(child_runs)));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	latch_open(&parent_is_dead);
	ASSERT_TRUE(wait_until(READ_ONCE(child_inside)));
	EXPECT_EQ(1, gate_state().holders_count);
	EXPECT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	latch_open(&child_go);
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_TRUE(wait_until(waitpid(-1, &status, WNOHANG | __WALL) > 0));
	EXPECT_EQ(0, status);
}

/* A vfork child that goes away inside a section of its own takes that along. */
static int child_ends_inside(void)
{
	return gate_enter(MEMORY);
}

TEST_F(guard, sections_of_a_vfork_child_end_with_it)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	EXPECT_EQ(0, child_exit(run(&self->holder, job_vfork, child_ends_inside)));
	EXPECT_EQ(0, self->holder.slot->depth[0]);
	EXPECT_EQ(1, self->holder.slot->depth[1]);
	EXPECT_EQ(1, gate_state().abandoned);
	EXPECT_EQ(0, run_fork(&self->forker, &fork_memory));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
}

/* One that waits to enter takes its parent's unadmitted level along, and it comes back. */
static pid_t child_pid;

static int child_waits(void)
{
	WRITE_ONCE(child_pid, syscall(__NR_getpid));
	return gate_enter(MEMORY);
}

TEST_F(guard, an_unadmitted_level_outlives_a_vfork_child_that_waits)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	ASSERT_EQ(0, run(&self->second, job_count, ARG(MEMORY)));
	start(&self->second, job_vfork, child_waits);
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, kill(READ_ONCE(child_pid), SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(finish(&self->second)));
	EXPECT_EQ(1, self->second.slot->depth[0]);
	EXPECT_EQ(0, gate_state().abandoned);
	start(&self->second, job_admit, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->second));
	EXPECT_EQ(1, self->second.slot->depth[0]);
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, self->second.slot->depth[0]);
}

/*
 * A nest of vforks: the one in between is killed, so that the thread goes on
 * while the last one still runs, inside a section that is in the thread's slot.
 * The thread's own fork waits for it.
 */
static pid_t middle, next;
static int middle_is_dead, last_called;	/* latches */
static long last_registers;

static int last_enters(void)
{
	struct forkgate_slot *parents = slot;

	WRITE_ONCE(child_pid, syscall(__NR_getpid));
	if (gate_enter(MEMORY))
		return 1;
	latch_open(&child_inside);
	latch_wait(&middle_is_dead);
	last_registers = gate_register();
	slot = parents;
	latch_open(&last_called);
	latch_wait(&child_go);
	gate_leave(MEMORY);	/* what counts is that it ends */
	return 0;
}

static int middle_vforks(void)
{
	WRITE_ONCE(middle, syscall(__NR_getpid));
	spawn_vm(CLONE_VFORK, last_enters);
	return 3;
}

static long job_nest(void *unused)
{
	return spawn_vm(CLONE_VFORK, middle_vforks);
}

/* The same with one more between */
static int next_vforks(void)
{
	WRITE_ONCE(next, syscall(__NR_getpid));
	spawn_vm(CLONE_VFORK, last_enters);
	return 4;
}

static int middle_vforks_next(void)
{
	WRITE_ONCE(middle, syscall(__NR_getpid));
	spawn_vm(CLONE_VFORK, next_vforks);
	return 3;
}

static long job_deep_nest(void *unused)
{
	return spawn_vm(CLONE_VFORK, middle_vforks_next);
}

/* nest_of - the last child of a nest in that worker is inside, the one in between is dead */
static bool nest_of(struct worker *worker, long (*job)(void *unused))
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	start(worker, job, NULL);
	if (!wait_until(READ_ONCE(child_inside)) || kill(READ_ONCE(middle), SIGKILL) ||
	    child_exit(finish(worker)) != CHILD_SIGNAL + SIGKILL)
		return false;
	latch_open(&middle_is_dead);
	return wait_until(READ_ONCE(last_called));
}

static bool nest(struct worker *worker)
{
	return nest_of(worker, job_nest);
}

/* nest_ends - the last child leaves; its exit status */
static int nest_ends(void)
{
	int status;

	latch_open(&child_go);
	return wait_until(waitpid(-1, &status, WNOHANG | __WALL) > 0) ? status : CHILD_HANGS;
}

TEST_F(guard, a_fork_waits_for_who_survives_in_its_slot)
{
	ASSERT_TRUE(nest(&self->second));
	/* It may be inside by a slot that is not its own, so it gets no other. */
	EXPECT_EQ(-EAGAIN, last_registers);
	EXPECT_EQ(1, READ_ONCE(self->second.slot->depth[0]));
	EXPECT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	EXPECT_TRUE(fork_waits(&self->second, &fork_memory, 2));
	EXPECT_EQ(0, nest_ends());
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, READ_ONCE(self->second.slot->depth[0]));
}

/* One that dies inside is reported. What it was inside of cannot be told from its heir's. */
TEST_F(guard, a_survivor_that_dies_inside_is_reported)
{
	uint64_t abandoned;
	int status;

	ASSERT_TRUE(nest(&self->second));
	abandoned = gate_state().abandoned;
	ASSERT_EQ(0, kill(READ_ONCE(child_pid), SIGKILL));
	ASSERT_TRUE(wait_until(waitpid(-1, &status, WNOHANG | __WALL) > 0));
	EXPECT_EQ(abandoned + 1, gate_state().abandoned);
	EXPECT_EQ(0, run_fork(&self->second, &fork_memory));
}

/* The thread goes away before that child does. */
TEST_F(guard, a_slot_stays_while_one_survives_in_it)
{
	pid_t tid = self->second.tid;

	ASSERT_TRUE(nest(&self->second));
	start(&self->second, job_exit, NULL);
	ASSERT_TRUE(wait_until(task_ended(tid)));
	EXPECT_EQ(1, READ_ONCE(self->second.slot->depth[0]));
	EXPECT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	EXPECT_EQ(0, nest_ends());
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * The survivor is itself suspended for the last child, and is killed later than
 * the first one: it leaves the child behind in the slot.
 */
TEST_F(guard, a_child_of_who_survives_survives_it)
{
	ASSERT_TRUE(nest_of(&self->second, job_deep_nest));
	EXPECT_EQ(-EAGAIN, last_registers);
	ASSERT_EQ(0, kill(next, SIGKILL));
	ASSERT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(next));
	EXPECT_EQ(1, READ_ONCE(self->second.slot->depth[0]));
	EXPECT_TRUE(fork_waits(&self->second, &fork_memory, 1));
	EXPECT_EQ(0, nest_ends());
	EXPECT_EQ(0, finish_fork(&self->second));
}

TEST_HARNESS_MAIN
