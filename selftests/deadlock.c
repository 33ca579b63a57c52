// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 4: no circular wait. Forker i waits for forker j when need(i) meets
 * inside(j); one that would close such a circle gets its outcome at once.
 * Rule 8: which is EDEADLK, or an unsafe copy where the policy says proceed.
 */
#include "test/handler.h"
#include "test/harness.h"

FIXTURE_WORKERS(circle, a, b, c, d);

TEST_F(circle, of_two)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->a, &fork_both, 1));
	EXPECT_EQ(-EDEADLK, run(&self->b, job_fork, &fork_both));
	EXPECT_EQ(FORKGATE_OUTCOME_DEADLK, run(&self->b, job_outcome, NULL));
	EXPECT_EQ(1, gate_state().deadlocks);
	EXPECT_EQ(0, gate_state().timeouts);
	EXPECT_TRUE(wait_until(worker_waits(&self->a, 1)));
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->a, job_outcome, NULL));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, gate.head->closed);
}

/* One needs memory, the other files. */
TEST_F(circle, of_two_domains)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->a, &fork_memory, 1));
	EXPECT_EQ(-EDEADLK, run(&self->b, job_fork, &fork_files));
	EXPECT_EQ(1, gate_state().deadlocks);
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FILES)));
}

TEST_F(circle, of_three)
{
	/* a waits for b and c; b waits for c; c would wait for a */
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->c, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->a, &fork_memory, 1));
	EXPECT_EQ(-EDEADLK, run(&self->c, job_fork, &fork_files));
	ASSERT_EQ(0, run(&self->c, job_leave, ARG(MEMORY)));
	EXPECT_TRUE(wait_until(worker_waits(&self->a, 1)));
	EXPECT_EQ(-EDEADLK, run(&self->b, job_fork, &fork_both));
	EXPECT_EQ(2, gate_state().deadlocks);
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FILES)));
}

/* Three that are inside and need the same: all but the first are refused. */
TEST_F(circle, of_all)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->c, job_enter, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->a, &fork_both, 1));
	EXPECT_EQ(-EDEADLK, run(&self->b, job_fork, &fork_both));
	EXPECT_EQ(-EDEADLK, run(&self->c, job_fork, &fork_both));
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->c, job_leave, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(BOTH)));
}

/* Waiting for a thread that waits is not a circle. */
TEST_F(circle, chain_is_none)
{
	ASSERT_EQ(0, run(&self->a, job_hold, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->b, &fork_memory, 1));
	ASSERT_TRUE(fork_waits(&self->c, &fork_both, 2));
	EXPECT_EQ(0, gate_state().deadlocks);
	ASSERT_EQ(0, run(&self->a, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->c));
	EXPECT_EQ(0, gate_state().deadlocks);
}

/* Two inside of what neither needs wait for others, not for each other. */
TEST_F(circle, sections_that_no_fork_needs_make_none)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->c, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->a, &fork_memory, 1));
	ASSERT_TRUE(fork_waits(&self->b, &fork_memory, 2));
	ASSERT_EQ(0, run(&self->c, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(FILES)));
	EXPECT_EQ(0, gate_state().deadlocks);
}

/* A forker inside a section and one that holds a ticket do not wait for each other. */
TEST_F(circle, ticket_beside_a_section)
{
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->a, job_prepare, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->b, &fork_files, 2));
	ASSERT_EQ(0, run(&self->a, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, gate_state().deadlocks);
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(MEMORY)));
}

/*
 * The holder of a ticket clones for more than it has, and meets a forker that
 * waits for its section.
 */
TEST_F(circle, ticket_that_widens)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->a, job_prepare, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->b, &fork_files, 2));
	EXPECT_EQ(-EDEADLK, run(&self->a, job_fork, &fork_both));
	EXPECT_EQ(1, gate_state().deadlocks);
	EXPECT_EQ(-ENOENT, run(&self->a, job_release, NULL));
	ASSERT_EQ(0, run(&self->a, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(FILES)));
}

TEST_F(circle, prepare)
{
	unsigned int outcome;

	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, gate_enter(MEMORY));
	ASSERT_TRUE(prepare_waits(&self->a, BOTH, 1));
	EXPECT_EQ(-EDEADLK, gate_prepare_with(BOTH, 0, 0, 0, &outcome));
	EXPECT_EQ(FORKGATE_OUTCOME_DEADLK, outcome);
	EXPECT_EQ(FORKGATE_OUTCOME_DEADLK, slot->outcome);
	EXPECT_EQ(-ENOENT, gate_release());
	EXPECT_EQ(0, gate_leave(MEMORY));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, job_release, NULL));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
}

TEST_F(circle, nonblocking_prepare)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, gate_enter(MEMORY));
	ASSERT_TRUE(fork_waits(&self->a, &fork_both, 1));
	EXPECT_EQ(-EDEADLK, gate_prepare_with(BOTH, FORKGATE_NONBLOCK, 0, 0, NULL));
	EXPECT_EQ(-ENOENT, gate_release());
	EXPECT_EQ(0, gate_leave(MEMORY));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
}

/*
 * "a" polls for a ticket, and closes a circle by an entry that it has to wait
 * for. "c" is asleep then. One of the two is refused, and the other goes on
 * waiting.
 */
TEST_F(circle, polled_ticket_counted_in_by_others)
{
	long ret = -EAGAIN;

	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->b, job_prepare, ARG(FILES)));
	ASSERT_EQ(0, run(&self->c, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->a, job_try_prepare, ARG(MEMORY)));
	start(&self->a, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_TRUE(fork_waits(&self->c, &fork_files, 3));
	ASSERT_EQ(0, run(&self->b, job_release, NULL));
	EXPECT_EQ(0, finish(&self->a));
	ASSERT_TRUE(wait_until(gate_state().deadlocks == 1 ||
			       (ret = run(&self->a, job_try_prepare, ARG(MEMORY))) != -EAGAIN));
	EXPECT_EQ(1, gate_state().deadlocks);
	if (ret == -EAGAIN) {
		ASSERT_EQ(-EDEADLK, finish(&self->c));
		EXPECT_EQ(0, run(&self->b, job_leave, ARG(FILES)));
		EXPECT_EQ(0, run(&self->a, job_leave, ARG(FILES)));
		EXPECT_EQ(0, run(&self->a, job_release, NULL));
	} else {
		EXPECT_EQ(-EDEADLK, ret);
		EXPECT_TRUE(wait_until(worker_waits(&self->c, 1)));
		EXPECT_EQ(0, run(&self->a, job_leave, ARG(FILES)));
		EXPECT_EQ(0, run(&self->b, job_leave, ARG(FILES)));
		EXPECT_EQ(0, finish_fork(&self->c));
	}
	EXPECT_EQ(0, run(&self->c, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, gate.head->closed);
}

/* Policy "proceed": the copy is made, and says what it is. */
TEST_F(circle, proceed)
{
	ASSERT_EQ(0, change_policy(on_timeout, FORKGATE_PROCEED));
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->a, &ask_both, 1));
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY,
		  run_fork(&self->b, &ask_memory));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->b, job_outcome, NULL));
	EXPECT_EQ(1, gate_state().deadlocks);
	EXPECT_EQ(1, gate_state().unsafe);
	EXPECT_TRUE(wait_until(worker_waits(&self->a, 1)));
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
}

/* An unsafe ticket: granted at once, and its clone copies at once. */
TEST_F(circle, proceed_with_prepare)
{
	unsigned int outcome;
	pid_t pid;

	ASSERT_EQ(0, change_policy(on_timeout, FORKGATE_PROCEED));
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, gate_enter(MEMORY));
	ASSERT_TRUE(fork_waits(&self->a, &ask_both, 1));
	EXPECT_EQ(0, gate_prepare_with(BOTH, 0, 0, 0, &outcome));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, outcome);
	pid = raw_fork(0, child_copy);
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY,
		  child_exit(pid) & FORKGATE_COPY_UNSAFE_MEMORY);
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, slot->outcome);
	EXPECT_EQ(-ENOENT, gate_release());
	EXPECT_EQ(0, gate_leave(MEMORY));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
}

/*
 * A signal handler that forks inside a section while its thread's own fork
 * waits: no circle with itself.
 */
static long handler_result;

static void handler_forks(int signo)
{
	handler_result = gate_enter(MEMORY);
	if (!handler_result)
		handler_result = raw_fork(0, child_copy);
	gate_leave(MEMORY);
}

TEST_F(circle, handler_inside_a_section_forks)
{
	handle(handler_forks, 0);
	ASSERT_EQ(0, run(&self->a, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->b, &fork_both, 1));
	ASSERT_EQ(0, interrupt(&self->b));
	ASSERT_TRUE(wait_until(READ_ONCE(self->b.slot->depth[0]) == 1));
	EXPECT_TRUE(wait_until(worker_waits(&self->b, 1)));
	ASSERT_EQ(0, run(&self->a, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_LT(0, handler_result);
	EXPECT_EQ(0, child_exit(handler_result));
	EXPECT_EQ(0, gate_state().deadlocks);
	EXPECT_EQ(0, gate.head->closed);
}

/* The ticket of a forker that is refused no longer keeps others out. */
TEST_F(circle, refused_ticket_lets_nested_entries_in)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->c, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->a, job_prepare, ARG(FILES)));
	ASSERT_TRUE(fork_waits(&self->b, &fork_memory, 2));
	start(&self->c, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(-EDEADLK, run(&self->a, job_fork, &fork_both));
	EXPECT_EQ(0, finish(&self->c));
	EXPECT_EQ(0, run(&self->c, job_leave, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(MEMORY)));
}

/*
 * No circle through a level that was stored and not admitted: "a" stores it, and
 * a signal handler forks. The scan has passed its slot, so "c" does not wait for
 * it, though it came later.
 */
static int handler_go, handler_runs;

static void handler_forks_files(int signo)
{
	__atomic_add_fetch(&handler_runs, 1, __ATOMIC_SEQ_CST);
	latch_wait(&handler_go);
	handler_result = spawn_vm(0, child_nothing);
}

TEST_F(circle, none_through_a_level_not_admitted)
{
	handle(handler_forks_files, 0);
	ASSERT_LT((uintptr_t)self->a.slot, (uintptr_t)self->d.slot);
	ASSERT_EQ(0, run(&self->c, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->d, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->b, &fork_memory, 1));
	start(&self->a, job_enter_interrupted, ARG(MEMORY));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs) == 1));
	ASSERT_TRUE(fork_waits(&self->c, &fork_memory, 2));
	latch_open(&handler_go);
	/* The handler's fork waits for "c", which waits for "d" alone. */
	ASSERT_TRUE(wait_until(gate_state().forkers == 3));
	EXPECT_EQ(0, gate_state().deadlocks);
	EXPECT_EQ(0, run(&self->d, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, finish_fork(&self->c));
	EXPECT_EQ(0, run(&self->c, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_LT(0, handler_result);
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
}

/*
 * A fork interrupted by a signal does not wait while its handler runs: no
 * circle through that.
 */
static void handler_stays_inside(int signo)
{
	if (gate_enter(MEMORY))
		return;
	__atomic_add_fetch(&handler_runs, 1, __ATOMIC_SEQ_CST);
	latch_wait(&handler_go);
	gate_leave(MEMORY);
}

TEST_F(circle, none_through_a_fork_that_was_interrupted)
{
	handle(handler_stays_inside, 0);
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->d, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->a, &fork_both, 1));
	ASSERT_EQ(0, interrupt(&self->a));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs) == 1));
	EXPECT_TRUE(fork_waits(&self->b, &fork_memory, 2));
	EXPECT_EQ(0, gate_state().deadlocks);
	latch_open(&handler_go);
	EXPECT_EQ(0, run(&self->d, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(FILES)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, gate_state().deadlocks);
}

/* Blocked newcomers are inside of nothing: many of them and many forkers get on. */
TEST_F(circle, forkers_in_each_others_way)
{
	int i;

	for (i = 0; i < 30; i++) {
		ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
		start(&self->b, job_fork, &fork_both);
		start(&self->c, job_enter, ARG(MEMORY));
		start(&self->d, job_fork, &fork_memory);
		/* Inside what they wait for, needing what no thread is inside of. */
		EXPECT_EQ(0, run_fork(&self->a, &fork_files));
		ASSERT_EQ(0, run(&self->a, job_leave, ARG(MEMORY)));
		EXPECT_EQ(0, finish(&self->c));
		EXPECT_EQ(0, run(&self->c, job_leave, ARG(MEMORY)));
		EXPECT_EQ(0, finish_fork(&self->b));
		EXPECT_EQ(0, finish_fork(&self->d));
	}
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, gate_state().forkers);
}

TEST_HARNESS_MAIN
