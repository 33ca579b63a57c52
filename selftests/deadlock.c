// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 4: no circular wait. Forker i waits for forker j when need(i) meets
 * inside(j); one that would close such a circle gets its outcome at once.
 * Rule 8: which is EDEADLK, or an unsafe copy where the policy says proceed.
 */
#include "forkgate_test.h"

FIXTURE(circle) {
	struct worker a, b, c, d;
};

FIXTURE_SETUP(circle)
{
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->a));
	ASSERT_EQ(0, worker_new(&self->b));
	ASSERT_EQ(0, worker_new(&self->c));
	ASSERT_EQ(0, worker_new(&self->d));
}

FIXTURE_TEARDOWN(circle)
{
}

/* What the child can read about its copy */
static int child_copy(void)
{
	return gate.head->copy;
}

static struct fork_how fork_asking = { 0, child_copy };
static struct fork_how fork_memory_asking = { CLONE_FILES, child_copy };

static void proceed(void)
{
	struct forkgate_policy policy = fg_policy();

	policy.on_timeout = FORKGATE_PROCEED;
	fg_set_policy(&policy);
}

TEST_F(circle, of_two)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_MEMORY)));
	start(&self->a, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->a, 1)));
	EXPECT_EQ(-EDEADLK, run(&self->b, job_fork, &fork_both));
	EXPECT_EQ(FORKGATE_OUTCOME_DEADLK, run(&self->b, job_outcome, NULL));
	EXPECT_EQ(1, fg_state().deadlocks);
	EXPECT_EQ(0, fg_state().timeouts);
	EXPECT_TRUE(fg_waiting(&self->a, 1));
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->a, job_outcome, NULL));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, gate.head->closed);
}

/* One needs memory, the other files. */
TEST_F(circle, of_two_domains)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_MEMORY)));
	start(&self->a, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->a, 1)));
	EXPECT_EQ(-EDEADLK, run(&self->b, job_fork, &fork_files));
	EXPECT_EQ(1, fg_state().deadlocks);
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_FILES)));
}

TEST_F(circle, of_three)
{
	/* a waits for b and c; b waits for c; c would wait for a */
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->c, job_enter, ARG(FG_MEMORY)));
	start(&self->a, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->a, 1)));
	EXPECT_EQ(-EDEADLK, run(&self->c, job_fork, &fork_files));
	ASSERT_EQ(0, run(&self->c, job_leave, ARG(FG_MEMORY)));
	EXPECT_TRUE(fg_waiting(&self->a, 1));
	EXPECT_EQ(-EDEADLK, run(&self->b, job_fork, &fork_both));
	EXPECT_EQ(2, fg_state().deadlocks);
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_FILES)));
}

/* Three that are inside and need the same: all but the first are refused. */
TEST_F(circle, of_all)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_BOTH)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_BOTH)));
	ASSERT_EQ(0, run(&self->c, job_enter, ARG(FG_BOTH)));
	start(&self->a, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->a, 1)));
	EXPECT_EQ(-EDEADLK, run(&self->b, job_fork, &fork_both));
	EXPECT_EQ(-EDEADLK, run(&self->c, job_fork, &fork_both));
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(FG_BOTH)));
	ASSERT_EQ(0, run(&self->c, job_leave, ARG(FG_BOTH)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_BOTH)));
}

/* Waiting for one that waits is no circle. */
TEST_F(circle, chain_is_none)
{
	ASSERT_EQ(0, run(&self->a, job_hold, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_FILES)));
	start(&self->b, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->b, 1)));
	start(&self->c, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->c, 2)));
	EXPECT_EQ(0, fg_state().deadlocks);
	ASSERT_EQ(0, run(&self->a, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, finish_fork(&self->c));
	EXPECT_EQ(0, fg_state().deadlocks);
}

/* Two inside of what neither needs wait for others, not for each other. */
TEST_F(circle, sections_nobody_needs_make_none)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->c, job_hold, ARG(FG_MEMORY)));
	start(&self->a, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->a, 1)));
	start(&self->b, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->b, 2)));
	ASSERT_EQ(0, run(&self->c, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, fg_state().deadlocks);
}

/* A forker inside a section and one that holds a ticket do not wait for each other. */
TEST_F(circle, ticket_beside_a_section)
{
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->a, job_prepare, ARG(FG_FILES)));
	start(&self->b, job_fork, &fork_files);
	ASSERT_TRUE(wait_until(fg_waiting(&self->b, 2)));
	ASSERT_EQ(0, run(&self->a, job_release, NULL));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, fg_state().deadlocks);
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(FG_MEMORY)));
}

/*
 * The holder of a ticket clones for more than it has, and meets a forker that
 * waits for its section.
 */
TEST_F(circle, ticket_that_widens)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->a, job_prepare, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_FILES)));
	start(&self->b, job_fork, &fork_files);
	ASSERT_TRUE(wait_until(fg_waiting(&self->b, 2)));
	EXPECT_EQ(-EDEADLK, run(&self->a, job_fork, &fork_both));
	EXPECT_EQ(1, fg_state().deadlocks);
	EXPECT_EQ(-ENOENT, run(&self->a, job_release, NULL));
	ASSERT_EQ(0, run(&self->a, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(FG_FILES)));
}

TEST_F(circle, prepare)
{
	unsigned int outcome;

	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, fg_enter(FG_MEMORY));
	start(&self->a, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(wait_until(fg_waiting(&self->a, 1)));
	EXPECT_EQ(-EDEADLK, fg_prepare_full(FG_BOTH, 0, 0, 0, &outcome));
	EXPECT_EQ(FORKGATE_OUTCOME_DEADLK, outcome);
	EXPECT_EQ(FORKGATE_OUTCOME_DEADLK, slot->outcome);
	EXPECT_EQ(-ENOENT, fg_release());
	EXPECT_EQ(0, fg_leave(FG_MEMORY));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, job_release, NULL));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_MEMORY)));
}

TEST_F(circle, nonblocking_prepare)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, fg_enter(FG_MEMORY));
	start(&self->a, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->a, 1)));
	EXPECT_EQ(-EDEADLK, fg_prepare_full(FG_BOTH, FORKGATE_NONBLOCK, 0, 0, NULL));
	EXPECT_EQ(-ENOENT, fg_release());
	EXPECT_EQ(0, fg_leave(FG_MEMORY));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_MEMORY)));
}

/* Policy "proceed": the copy is made, and says what it is. */
static long job_try(void *domains)
{
	return fg_prepare_full((uintptr_t)domains, FORKGATE_NONBLOCK, 0, 0, NULL);
}

/*
 * "a" polls for a ticket, and closes a circle by an entry that it has to wait
 * for: then whoever releases it has "c" look again, which sleeps for "b".
 */
TEST_F(circle, polled_ticket_counted_in_by_others)
{
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->b, job_prepare, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->c, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->a, job_try, ARG(FG_MEMORY)));
	start(&self->a, job_enter, ARG(FG_FILES));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	start(&self->c, job_fork, &fork_files);
	ASSERT_TRUE(wait_until(fg_waiting(&self->c, 3)));
	ASSERT_EQ(0, run(&self->b, job_release, NULL));
	EXPECT_EQ(0, finish(&self->a));
	ASSERT_EQ(-EDEADLK, finish(&self->c));
	EXPECT_EQ(1, fg_state().deadlocks);
	EXPECT_EQ(0, run(&self->c, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, run(&self->a, job_release, NULL));
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(circle, proceed)
{
	proceed();
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_MEMORY)));
	start(&self->a, job_fork, &fork_asking);
	ASSERT_TRUE(wait_until(fg_waiting(&self->a, 1)));
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY,
		  child_exit(run(&self->b, job_fork, &fork_memory_asking)));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->b, job_outcome, NULL));
	EXPECT_EQ(1, fg_state().deadlocks);
	EXPECT_EQ(1, fg_state().unsafe);
	EXPECT_TRUE(fg_waiting(&self->a, 1));
	ASSERT_EQ(0, run(&self->b, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_MEMORY)));
}

/* An unsafe ticket: granted at once, and its clone copies at once. */
TEST_F(circle, proceed_with_prepare)
{
	unsigned int outcome;
	pid_t pid;

	proceed();
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, fg_enter(FG_MEMORY));
	start(&self->a, job_fork, &fork_asking);
	ASSERT_TRUE(wait_until(fg_waiting(&self->a, 1)));
	EXPECT_EQ(0, fg_prepare_full(FG_BOTH, 0, 0, 0, &outcome));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, outcome);
	pid = raw_fork(0, child_copy);
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY,
		  child_exit(pid) & FORKGATE_COPY_UNSAFE_MEMORY);
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, slot->outcome);
	EXPECT_EQ(-ENOENT, fg_release());
	EXPECT_EQ(0, fg_leave(FG_MEMORY));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_MEMORY)));
}

/*
 * A signal handler that forks inside a section while its thread's own fork
 * waits: no circle with itself.
 */
static long handler_result;

static void handler_forks(int signo)
{
	handler_result = fg_enter(FG_MEMORY);
	if (!handler_result)
		handler_result = raw_fork(0, child_copy);
	fg_leave(FG_MEMORY);
}

TEST_F(circle, handler_inside_a_section_forks)
{
	struct sigaction action = { .sa_handler = handler_forks };

	sigaction(SIGUSR1, &action, NULL);
	ASSERT_EQ(0, run(&self->a, job_hold, ARG(FG_MEMORY)));
	start(&self->b, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->b, 1)));
	ASSERT_EQ(0, syscall(__NR_tgkill, getpid(), self->b.tid, SIGUSR1));
	ASSERT_TRUE(wait_until(READ_ONCE(self->b.slot->depth[0]) == 1));
	EXPECT_TRUE(wait_until(fg_waiting(&self->b, 1)));
	ASSERT_EQ(0, run(&self->a, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_LT(0, handler_result);
	EXPECT_EQ(0, child_exit(handler_result));
	EXPECT_EQ(0, fg_state().deadlocks);
	EXPECT_EQ(0, gate.head->closed);
}

/* The ticket of one that is refused keeps nobody out any more. */
TEST_F(circle, refused_ticket_lets_nested_entries_in)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->c, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->a, job_prepare, ARG(FG_FILES)));
	start(&self->b, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->b, 2)));
	start(&self->c, job_enter, ARG(FG_FILES));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	EXPECT_EQ(-EDEADLK, run(&self->a, job_fork, &fork_both));
	EXPECT_EQ(0, finish(&self->c));
	EXPECT_EQ(0, run(&self->c, job_leave, ARG(FG_BOTH)));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(FG_MEMORY)));
}

/*
 * A circle through a level that was stored and not admitted: "a" stores it, and
 * a signal handler forks. "b" has passed its slot, "c" waits for it.
 */
static int handler_go, handler_runs;

static void handler_forks_files(int signo)
{
	__atomic_add_fetch(&handler_runs, 1, __ATOMIC_SEQ_CST);
	while (!READ_ONCE(handler_go))
		fg_futex(&handler_go, FUTEX_WAIT, 0, NULL);
	handler_result = spawn_vm(0, child_nothing);
}

static long job_enter_interrupted(void *domains)
{
	fg_count((uintptr_t)domains);
	raise(SIGUSR1);
	return fg_admit((uintptr_t)domains, 0);
}

TEST_F(circle, through_a_level_not_admitted)
{
	struct sigaction action = { .sa_handler = handler_forks_files };

	sigaction(SIGUSR1, &action, NULL);
	ASSERT_LT((uintptr_t)self->a.slot, (uintptr_t)self->d.slot);
	ASSERT_EQ(0, run(&self->c, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->d, job_enter, ARG(FG_MEMORY)));
	start(&self->b, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->b, 1)));
	start(&self->a, job_enter_interrupted, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs) == 1));
	start(&self->c, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->c, 2)));
	WRITE_ONCE(handler_go, 1);
	fg_futex(&handler_go, FUTEX_WAKE, 1, NULL);
	/* The handler's fork is refused; then the entry of "a" waits, outside. */
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	EXPECT_EQ(-EDEADLK, handler_result);
	EXPECT_EQ(0, run(&self->d, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, finish_fork(&self->c));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, run(&self->c, job_leave, ARG(FG_FILES)));
}

/*
 * A fork interrupted by a signal waits for nobody while its handler runs: no
 * circle through that.
 */
static void handler_stays_inside(int signo)
{
	if (fg_enter(FG_MEMORY))
		return;
	__atomic_add_fetch(&handler_runs, 1, __ATOMIC_SEQ_CST);
	while (!READ_ONCE(handler_go))
		fg_futex(&handler_go, FUTEX_WAIT, 0, NULL);
	fg_leave(FG_MEMORY);
}

TEST_F(circle, none_through_a_fork_that_was_interrupted)
{
	struct sigaction action = { .sa_handler = handler_stays_inside };

	sigaction(SIGUSR1, &action, NULL);
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->d, job_enter, ARG(FG_MEMORY)));
	start(&self->a, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->a, 1)));
	ASSERT_EQ(0, syscall(__NR_tgkill, getpid(), self->a.tid, SIGUSR1));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs) == 1));
	start(&self->b, job_fork, &fork_memory);
	EXPECT_TRUE(wait_until(fg_waiting(&self->b, 2)));
	EXPECT_EQ(0, fg_state().deadlocks);
	WRITE_ONCE(handler_go, 1);
	fg_futex(&handler_go, FUTEX_WAKE, 1, NULL);
	EXPECT_EQ(0, run(&self->d, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->b));
	EXPECT_EQ(0, run(&self->b, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, finish_fork(&self->a));
	EXPECT_EQ(0, fg_state().deadlocks);
}

/* Blocked newcomers are inside of nothing: many of them and many forkers get on. */
TEST_F(circle, forkers_in_each_others_way)
{
	int i;

	for (i = 0; i < 30; i++) {
		ASSERT_EQ(0, run(&self->a, job_enter, ARG(FG_MEMORY)));
		start(&self->b, job_fork, &fork_both);
		start(&self->c, job_enter, ARG(FG_MEMORY));
		start(&self->d, job_fork, &fork_memory);
		/* Inside what they wait for, needing what nobody is inside of. */
		EXPECT_EQ(0, child_exit(run(&self->a, job_fork, &fork_files)));
		ASSERT_EQ(0, run(&self->a, job_leave, ARG(FG_MEMORY)));
		EXPECT_EQ(0, finish(&self->c));
		EXPECT_EQ(0, run(&self->c, job_leave, ARG(FG_MEMORY)));
		EXPECT_EQ(0, finish_fork(&self->b));
		EXPECT_EQ(0, finish_fork(&self->d));
	}
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, fg_state().forkers);
}

TEST_HARNESS_MAIN
