// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 8: a wait ends. What happens when its time is up: EAGAIN, or a copy
 * that says that it is unsafe; and a message of the kernel with the blame.
 */
#include "test/cpu.h"
#include "test/harness.h"
#include "test/kmsg.h"

FIXTURE_WORKERS(timeout, holder, forker, other);

static void give_up_after(uint64_t backstop, unsigned int on_timeout)
{
	struct forkgate_policy policy = gate_policy();

	policy.backstop = backstop;
	policy.on_timeout = on_timeout;
	gate_set_policy(&policy);
}

TEST_F(timeout, fails)
{
	give_up_after(NSEC_PER_MSEC, FORKGATE_FAIL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &ask_both));
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(1, gate_state().timeouts);
	EXPECT_EQ(0, gate_state().unsafe);
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run_fork(&self->forker, &ask_both));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_outcome, NULL));
}

TEST_F(timeout, fails_at_once)
{
	give_up_after(0, FORKGATE_FAIL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_files));
	EXPECT_EQ(1, gate_state().timeouts);
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(timeout, is_no_matter_without_a_wait)
{
	give_up_after(0, FORKGATE_FAIL);
	EXPECT_EQ(0, run_fork(&self->forker, &ask_both));
	EXPECT_EQ(0, gate_state().timeouts);
}

/*
 * Nothing but the forker gets to run on its CPU: with PREEMPT_RT not the timers of a
 * softirq either.
 */
#define BUSY_CPU	1

TEST_F(timeout, of_a_real_time_thread)
{
	cpu_set_t set;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(set), &set));
	if (!CPU_ISSET(0, &set) || !CPU_ISSET(BUSY_CPU, &set))
		SKIP(return, "needs CPUs 0 and %d", BUSY_CPU);
	CPU_CLR(BUSY_CPU, &set);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(set), &set));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->forker, job_pin, ARG(BUSY_CPU)));
	ASSERT_EQ(0, run(&self->forker, job_realtime, ARG(20)));
	ASSERT_EQ(0, run(&self->other, job_realtime, ARG(10)));
	ASSERT_EQ(0, spin_on(&self->other, BUSY_CPU));
	give_up_after(NSEC_PER_MSEC, FORKGATE_FAIL);
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &ask_both));
	EXPECT_TRUE(busy(&self->other));
	WRITE_ONCE(spin_stop, 1);
	EXPECT_EQ(0, finish(&self->other));
}

/* The newcomer that was kept out gets in. */
TEST_F(timeout, lets_newcomers_in)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	give_up_after(100 * NSEC_PER_MSEC, FORKGATE_FAIL);
	start(&self->forker, job_fork, &ask_both);
	start(&self->other, job_enter, ARG(FILES));
	EXPECT_EQ(-EAGAIN, finish(&self->forker));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, gate.head->closed);
}

/* The other forker goes on waiting. */
TEST_F(timeout, of_one_is_not_that_of_another)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->other, &fork_both, 1));
	give_up_after(NSEC_PER_MSEC, FORKGATE_FAIL);
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &ask_both));
	EXPECT_TRUE(wait_until(worker_waits(&self->other, 1)));
	EXPECT_EQ(BOTH, gate.head->closed);
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->other));
}

TEST_F(timeout, proceeds)
{
	int copy;

	give_up_after(NSEC_PER_MSEC, FORKGATE_PROCEED);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	copy = run_fork(&self->forker, &ask_both);
	EXPECT_LT(0, copy);
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY, copy & FORKGATE_COPY_UNSAFE_MEMORY);
	EXPECT_EQ(0, copy & ~(FORKGATE_COPY_UNSAFE_MEMORY | FORKGATE_COPY_UNSAFE_FILES));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(1, gate_state().timeouts);
	EXPECT_EQ(1, gate_state().unsafe);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, gate.head->copy);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run_fork(&self->forker, &ask_both));
}

TEST_F(timeout, proceeds_with_memory_alone)
{
	give_up_after(NSEC_PER_MSEC, FORKGATE_PROCEED);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY,
		  run_fork(&self->forker, &ask_memory));
}

/* Nothing of the memory was copied: nothing is said in it. */
TEST_F(timeout, proceeds_with_files_alone)
{
	give_up_after(NSEC_PER_MSEC, FORKGATE_PROCEED);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	EXPECT_EQ(0, run_fork(&self->forker, &ask_files));
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(1, gate_state().unsafe);
	EXPECT_EQ(0, gate.head->copy);
}

/*
 * The unsafe copy was made while others were inside: the child's gate is clean
 * all the same.
 */
static int child_unsafe_but_clean(void)
{
	struct forkgate_state state = gate_state();

	if (state.threads != 1 || state.closed || state.forkers || state.holders_count)
		return 1;
	if (!(gate.head->copy & FORKGATE_COPY_UNSAFE_MEMORY))
		return 2;
	return child_exit(raw_fork(0, child_nothing));
}

TEST_F(timeout, unsafe_child_starts_clean)
{
	struct fork_how how = { 0, child_unsafe_but_clean };

	give_up_after(NSEC_PER_MSEC, FORKGATE_PROCEED);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(BOTH)));
	EXPECT_EQ(0, run_fork(&self->forker, &how));
}

/*
 * Prepare: granted unsafe, and so is the clone.
 */

static long job_prepare_unsafe(void *unused)
{
	unsigned int outcome = 0;
	long ret = gate_prepare_with(BOTH, 0, 0, 0, &outcome);

	return ret ? ret : outcome;
}

static long prepare_unsafe(struct worker *worker)
{
	return change_policy(timeout, NSEC_PER_MSEC) ?:
	       change_policy(on_timeout, FORKGATE_PROCEED) ?:
	       run(worker, job_prepare_unsafe, NULL);
}

TEST_F(timeout, prepare_proceeds)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(FORKGATE_OUTCOME_UNSAFE, prepare_unsafe(&self->forker));
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY,
		  run_fork(&self->forker, &ask_both) & FORKGATE_COPY_UNSAFE_MEMORY);
	EXPECT_EQ(FORKGATE_OUTCOME_UNSAFE, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(0, gate.head->closed);
}

/* By the time of the clone all are outside: then the copy is safe after all. */
TEST_F(timeout, unsafe_ticket_may_copy_safely)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(FORKGATE_OUTCOME_UNSAFE, prepare_unsafe(&self->forker));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run_fork(&self->forker, &ask_both));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_outcome, NULL));
}

TEST_F(timeout, unsafe_ticket_can_be_released)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(FORKGATE_OUTCOME_UNSAFE, prepare_unsafe(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(-ENOENT, run(&self->forker, job_release, NULL));
}

/*
 * The message
 */

FIXTURE(message) {
	struct worker holder, forker;
	int log;
};

FIXTURE_SETUP(message)
{
	self->log = kmsg_open();
	if (self->log < 0)
		SKIP(return, "no /dev/kmsg: %s", strerror(errno));
	ASSERT_EQ(0, setup_workers(&self->holder, 2));
}

FIXTURE_TEARDOWN(message)
{
}

static long job_label(void *label)
{
	WRITE_ONCE(slot->site, 0x1234567);
	memcpy(slot->label, label, strnlen(label, FORKGATE_LABEL_SIZE));
	WRITE_ONCE(slot->label_site, 0x1234567);
	return 0;
}

/* complains - does a fork that fails leave a message with both texts? */
static bool complains(struct worker *forker, int log, const char *first, const char *second)
{
	return run(forker, job_fork, &ask_both) != -ETIME && kmsg_find(log, first, second);
}

/* The limit on messages is the gate's own: the first time-out of a gate is always logged. */
TEST_F(message, has_the_blame)
{
	char tid[32];

	give_up_after(NSEC_PER_MSEC, FORKGATE_FAIL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_label, "index of the archive"));
	snprintf(tid, sizeof(tid), "%d", self->holder.tid);
	EXPECT_TRUE(complains(&self->forker, self->log, "index of the archive", tid));
}

TEST_F(message, tells_that_it_proceeds)
{
	give_up_after(NSEC_PER_MSEC, FORKGATE_PROCEED);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_label, "proceeds"));
	EXPECT_TRUE(complains(&self->forker, self->log, "unsafe", "proceeds"));
}

TEST_F(message, of_a_prepare)
{
	ASSERT_EQ(0, change_policy(timeout, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_label, "prepare"));
	ASSERT_EQ(-ETIMEDOUT, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_TRUE(kmsg_find(self->log, "inside memory", "prepare"));
}

/* Rule 13: what the caller asked for himself is not logged. */
static long job_prepare_limited(void *flags)
{
	return gate_prepare_with(BOTH, (uintptr_t)flags | FORKGATE_TIMED, NSEC_PER_MSEC, 0, NULL);
}

TEST_F(message, none_when_the_caller_limits_the_wait)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_label, "unasked"));
	ASSERT_EQ(-ETIMEDOUT, run(&self->forker, job_prepare_limited, ARG(0)));
	ASSERT_TRUE(wait_until(run(&self->forker, job_prepare_limited, ARG(FORKGATE_NONBLOCK)) ==
			       -ETIMEDOUT));
	EXPECT_EQ(2, gate_state().timeouts);
	EXPECT_FALSE(kmsg_find(self->log, "unasked", ""));
	/* Nor did it use up what the gate may log. */
	give_up_after(NSEC_PER_MSEC, FORKGATE_FAIL);
	ASSERT_EQ(0, run(&self->holder, job_label, "asked"));
	EXPECT_TRUE(complains(&self->forker, self->log, "inside memory", "asked"));
}

/* Rule 13: the messages of one gate are not counted against another. */
static int child_complains(void)
{
	struct worker holder, forker;
	int i;

	if (setup_workers(&holder, 1) || worker_new(&forker) ||
	    run(&holder, job_enter, ARG(MEMORY)))
		return 1;
	give_up_after(0, FORKGATE_FAIL);
	for (i = 0; i < 500; i++)
		if (run(&forker, job_fork, &ask_both) != -EAGAIN)
			return 2;
	return 0;
}

TEST_F(message, limit_is_the_gates_own)
{
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(child_complains());
	EXPECT_EQ(0, child_exit(pid));
	give_up_after(NSEC_PER_MSEC, FORKGATE_FAIL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_label, "first of its gate"));
	EXPECT_TRUE(complains(&self->forker, self->log, "inside memory", "first of its gate"));
}

/* What a program puts into a label cannot look like a message of its own. */
TEST_F(message, is_one_line_of_plain_text)
{
	give_up_after(NSEC_PER_MSEC, FORKGATE_FAIL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_label, "x\nBUG\033[31m\tred"));
	EXPECT_TRUE(complains(&self->forker, self->log, "inside memory", "BUG"));
	EXPECT_FALSE(kmsg_find(self->log, "x\\x0aBUG", ""));
}

TEST_HARNESS_MAIN
