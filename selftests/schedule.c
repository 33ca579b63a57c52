// SPDX-License-Identifier: GPL-2.0-only
/*
 * Forced schedules: threads held at a step of the protocol while others act.
 * Needs a module built with CONFIG_FORKGATE_DEBUG.
 *
 * Rule 2: no section is missed, whatever the interleaving.
 * Rule 5: what may pass during a copy, and what may not.
 * Rule 6: the hand-over; no wake-up is lost.
 * Rule 9: the dead are released, at whatever step they die.
 * Rule 11: verification behind a ticket.
 *
 * Each guard of the protocol has a test that fails without it:
 *
 *	the IPI					ipi
 *	the grant by the last to leave		granted_before_it_runs*
 *	the hand-over				hand_over (and phase.c)
 *	the wake by the last to leave		wakes.*
 *	the exit hook				wakes.*_exit (and death.c)
 *	reopening after a failed clone		killed.* (and fork.c, failed.*)
 *	the verification behind a ticket	ticket_expired_before_it_was_seen
 *						(and ticket.c, verified_*)
 *	the test of closed on nested entries	nested_entries_during_a_copy
 *						(and enter.c, nested_entries_*)
 */
#include "test/cpu.h"
#include "test/handler.h"
#include "test/harness.h"
#include "test/step.h"

/* setup_steps - false if there are none */
static bool setup_steps(void)
{
	return have_steps() && !steps_reset();
}

/* slots_ascend - a scan passes the workers in this order */
static bool slots_ascend(const struct worker *workers, size_t count)
{
	size_t i;

	for (i = 1; i < count; i++)
		if (workers[i - 1].slot >= workers[i].slot)
			return false;
	return true;
}

/* FIXTURE_STEPS() - a fixture of workers alone, whose slots ascend, for forced schedules */
#define FIXTURE_STEPS(fixture, ...)						\
	FIXTURE(fixture) {							\
		struct worker __VA_ARGS__;					\
	};									\
	FIXTURE_SETUP(fixture)							\
	{									\
		const size_t count = sizeof(*self) / sizeof(struct worker);	\
		struct worker *workers = (struct worker *)self;			\
										\
		if (!setup_steps())						\
			SKIP(return, NO_STEPS);					\
		ASSERT_EQ(0, setup_workers(workers, count));			\
		ASSERT_TRUE(slots_ascend(workers, count));			\
	}									\
	FIXTURE_TEARDOWN(fixture)						\
	{									\
		steps_reset();							\
	}

/* "early" is passed by a scan that stands at "holder", "late" is not. */
FIXTURE_STEPS(step, early, holder, forker, second, late);

/*
 * The files of the steps themselves
 */

TEST_F(step, all_steps_are_there)
{
	static const char * const names[] = {
		"begin", "close", "fence", "sleep", "woken", "refused", "grant", "copied",
		"enter", "blocked", "admitted", "leave", "release", "prepared", "asked", "trial",
		"exit",
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		EXPECT_EQ(0, step_waiting(names[i]));
		EXPECT_EQ(0, step(names[i], "delay 10"));
		EXPECT_EQ(10, step_field(names[i], "delay_us="));
	}
	EXPECT_EQ(0, steps_reset());
	for (i = 0; i < ARRAY_SIZE(names); i++)
		EXPECT_EQ(0, step_field(names[i], "delay_us="));
	EXPECT_EQ(-EINVAL, step("exit", "hold"));
	EXPECT_EQ(-EINVAL, step("nowhere", "hold"));
	EXPECT_EQ(-EINVAL, step("begin", "jump"));
}

/* A fork that has to wait comes through all steps of a fork, in this order. */
TEST_F(step, steps_of_a_fork)
{
	static const char * const names[] = {
		"begin", "close", "fence", "sleep", "woken", "grant", "copied",
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		ASSERT_EQ(0, step(names[i], "hold"));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		ASSERT_TRUE(held(names[i])) {
			TH_LOG("at %s", names[i]);
		}
		if (!strcmp(names[i], "sleep"))
			ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
		ASSERT_EQ(0, step(names[i], "go"));
	}
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * The IPI: between closing and scanning, every CPU that runs the process is
 * interrupted. What it prevents cannot be forced from outside, because only a
 * processor's store buffer could do it; so count interrupts.
 */

TEST_F(step, ipi)
{
	long before[MAX_CPUS], after[MAX_CPUS];
	int i, interrupted = 0;
	cpu_set_t allowed;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(allowed), &allowed));
	if (!CPU_ISSET(0, &allowed) || !CPU_ISSET(1, &allowed))
		SKIP(return, "needs CPUs 0 and 1");
	if (function_calls(before) < 2)
		SKIP(return, "/proc/interrupts does not count function calls");
	ASSERT_EQ(0, job_pin(ARG(0)));
	ASSERT_EQ(0, run(&self->forker, job_pin, ARG(0)));
	ASSERT_EQ(0, spin_on(&self->late, 1));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, step("close", "hold"));
		ASSERT_EQ(0, step("fence", "hold"));
		start(&self->forker, job_fork, &fork_both);
		ASSERT_TRUE(held("close"));
		function_calls(before);
		ASSERT_EQ(0, step("close", "go"));
		ASSERT_TRUE(held("fence"));
		function_calls(after);
		interrupted += before[1] < after[1];
		ASSERT_EQ(0, step("fence", "go"));
		EXPECT_EQ(0, finish_fork(&self->forker));
	}
	/* A kernel thread may be on top of the spinning one: no interrupt then. */
	EXPECT_LT(5, interrupted);
	WRITE_ONCE(spin_stop, 1);
	EXPECT_EQ(0, finish(&self->late));
}

/*
 * The scan sees a level that was stored before the fence, although its thread
 * has not looked at "closed" yet.
 */
TEST_F(step, store_before_the_fence_is_seen)
{
	ASSERT_EQ(0, step("close", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(held("close"));
	ASSERT_EQ(0, run(&self->late, job_count, ARG(MEMORY)));
	WRITE_ONCE(torn, 1);
	ASSERT_EQ(0, step("close", "go"));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	WRITE_ONCE(torn, 0);
	ASSERT_EQ(0, run(&self->late, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* With more than one forker the gate looks whom it can grant before all slots are counted. */
TEST_F(step, store_before_the_fence_is_seen_by_two)
{
	ASSERT_EQ(0, step("close", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(held("close"));
	start(&self->second, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(step_waiting("close") == 2));
	ASSERT_EQ(0, run(&self->late, job_count, ARG(MEMORY)));
	WRITE_ONCE(torn, 1);
	ASSERT_EQ(0, step("close", "go"));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 2)));
	EXPECT_TRUE(wait_until(worker_waits(&self->second, 2)));
	WRITE_ONCE(torn, 0);
	ASSERT_EQ(0, run(&self->late, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/* A thread that looks at "closed" after the fence is kept out, although the scan has not begun. */
TEST_F(step, entry_after_the_fence_is_kept_out)
{
	ASSERT_EQ(0, step("fence", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(held("fence"));
	start(&self->early, job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("fence", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->early));
	EXPECT_EQ(0, run(&self->early, job_drop, ARG(MEMORY)));
}

/* A second forker joins while the first is at its fence, and does not go by that. */
TEST_F(step, joining_forker_has_a_fence_of_its_own)
{
	long fences;

	ASSERT_EQ(0, step("close", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(held("close"));
	fences = step_hits("fence");
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->second, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(step_waiting("close") == 2));
	EXPECT_EQ(fences, step_hits("fence"));
	ASSERT_EQ(0, step("close", "one"));
	ASSERT_TRUE(held("grant"));
	EXPECT_LT(fences, step_hits("fence"));
	ASSERT_EQ(0, steps_reset());
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/*
 * Granted by the last thread to leave, before the forker runs: from then on all
 * that the fork needs is barred.
 */

/*
 * The holder leaves memory and the fork is woken. Before it runs, the holder,
 * still inside files, wants to enter memory once more.
 */
TEST_F(step, granted_before_it_runs)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	ASSERT_EQ(0, step("woken", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	ASSERT_TRUE(held("woken"));
	start(&self->holder, job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("woken", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
}

/* The same by a thread that the scan found outside. */
TEST_F(step, granted_before_it_runs_past_another)
{
	ASSERT_EQ(0, run(&self->early, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	ASSERT_EQ(0, step("woken", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	ASSERT_TRUE(held("woken"));
	EXPECT_EQ(-EBUSY, run(&self->early, job_tryenter, ARG(MEMORY)));
	start(&self->early, job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("woken", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->early));
	EXPECT_EQ(0, run(&self->early, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->early, job_leave, ARG(FILES)));
}

/* Before the grant a thread inside may enter more, and the fork waits for that too. */
TEST_F(step, entry_by_a_thread_that_was_passed)
{
	ASSERT_EQ(0, run(&self->early, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_memory, 1));
	ASSERT_EQ(0, run(&self->early, job_hold, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->early, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, run(&self->early, job_leave, ARG(FILES)));
}

/* A holder that is not the last wakes no fork. */
TEST_F(step, leaves_that_wake_no_fork)
{
	long hits;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->late, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	hits = step_hits("woken");
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	EXPECT_EQ(hits, step_hits("woken"));
	ASSERT_EQ(0, run(&self->late, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_LT(hits, step_hits("woken"));
}

/*
 * Wake-ups. No timer is set in these tests: a forker that is not woken sleeps on.
 * The fork is at one of its steps while the last holder goes away.
 */

FIXTURE_STEPS(wakes, forker, second, late);

FIXTURE_VARIANT(wakes) {
	const char *at;
	bool exit;
};

FIXTURE_VARIANT_ADD(wakes, close) { .at = "close" };
FIXTURE_VARIANT_ADD(wakes, fence) { .at = "fence" };
FIXTURE_VARIANT_ADD(wakes, sleep) { .at = "sleep" };
FIXTURE_VARIANT_ADD(wakes, woken) { .at = "woken" };
FIXTURE_VARIANT_ADD(wakes, asleep) { .at = NULL };
FIXTURE_VARIANT_ADD(wakes, close_exit) { .at = "close", .exit = true };
FIXTURE_VARIANT_ADD(wakes, fence_exit) { .at = "fence", .exit = true };
FIXTURE_VARIANT_ADD(wakes, sleep_exit) { .at = "sleep", .exit = true };
FIXTURE_VARIANT_ADD(wakes, woken_exit) { .at = "woken", .exit = true };
FIXTURE_VARIANT_ADD(wakes, asleep_exit) { .at = NULL, .exit = true };

/* depart - leave the section, one way or the other */
static bool depart(struct worker *worker, bool exit)
{
	pid_t tid = worker->tid;

	if (!exit)
		return !run(worker, job_leave, ARG(MEMORY));
	start(worker, job_exit, NULL);
	return wait_until(task_ended(tid));
}

/*
 * come_to - a fork comes to a step and is held there, as number @nth; or it
 * falls asleep. Only a signal wakes one for which nothing has changed.
 */
static bool come_to(const char *at, struct worker *worker, struct fork_how *how, unsigned int nth)
{
	bool woken = at && !strcmp(at, "woken");

	if (at && !woken)
		start(worker, job_fork, how);
	else if (!fork_waits(worker, how, nth))
		return false;
	if (woken && interrupt(worker))
		return false;
	return !at || wait_until(step_waiting(at) == nth);
}

static void handler(int signo)
{
}

TEST_F(wakes, the_last_holder_leaves)
{
	handle(handler, 0);
	if (variant->exit)
		ASSERT_EQ(0, step("exit", "delay 1000"));
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(MEMORY)));
	if (variant->at)
		ASSERT_EQ(0, step(variant->at, "hold"));
	ASSERT_TRUE(come_to(variant->at, &self->forker, &fork_both, 1));
	ASSERT_TRUE(depart(&self->late, variant->exit));
	if (variant->at)
		ASSERT_EQ(0, step(variant->at, "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(variant->exit, gate_state().abandoned);
}

/* Two forkers wait for the same thread: both are woken. */
TEST_F(wakes, two_forkers)
{
	handle(handler, 0);
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(MEMORY)));
	if (variant->at)
		ASSERT_EQ(0, step(variant->at, "hold"));
	/* The second needs a fence of its own, because it needs more. */
	ASSERT_TRUE(come_to(variant->at, &self->forker, &fork_memory, 1));
	ASSERT_TRUE(come_to(variant->at, &self->second, &fork_both, 2));
	ASSERT_TRUE(depart(&self->late, variant->exit));
	if (variant->at)
		ASSERT_EQ(0, step(variant->at, "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/* The holder's call to wake is late: the level is out, the fork sleeps on, nothing is lost. */
TEST_F(step, late_leave)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, step("leave", "hold"));
	start(&self->holder, job_drop, ARG(MEMORY));
	ASSERT_TRUE(held("leave"));
	EXPECT_EQ(0, READ_ONCE(self->holder.slot->depth[0]));
	ASSERT_EQ(0, step("leave", "go"));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* The same, but the fork has given up, and the gate has opened and closed again meanwhile. */
TEST_F(step, very_late_leave)
{
	ASSERT_EQ(0, change_policy(backstop, NSEC_PER_SEC * slow_factor()));
	ASSERT_EQ(0, step("leave", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	start(&self->holder, job_leave, ARG(MEMORY));
	ASSERT_TRUE(held("leave"));
	EXPECT_EQ(-EAGAIN, finish(&self->forker));
	EXPECT_EQ(0, run_fork(&self->second, &fork_both));
	ASSERT_EQ(0, step("leave", "go"));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
}

/* Nor does it matter to a fork that comes while the call is on its way: it waits for that. */
TEST_F(step, fork_joins_before_a_late_leave)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, step("leave", "hold"));
	start(&self->holder, job_leave, ARG(MEMORY));
	ASSERT_TRUE(held("leave"));
	start(&self->second, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(gate_state().forkers == 2 || !busy(&self->second)));
	ASSERT_EQ(0, step("leave", "go"));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, gate.head->closed);
}

/*
 * A signal comes between a holder's store and its call to wake, and the handler
 * forks: it queues behind a fork that waits for that call.
 */
static pid_t handler_child;

static void handler_forks(int signo)
{
	handler_child = raw_fork(CLONE_FILES, child_nothing);
}

TEST_F(step, fork_between_leaving_and_waking)
{
	handle(handler_forks, 0);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->forker, job_fork, &fork_files);
	ASSERT_TRUE(held("grant"));
	ASSERT_TRUE(fork_waits(&self->second, &fork_memory, 2));
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
 * Entries between their store and the kernel's decision
 */

/* The scan stands at the slot: the entry turns out to be a newcomer's and gives back its level. */
TEST_F(step, late_entry_at_the_cursor)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_EQ(0, step("fence", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(held("fence"));
	ASSERT_EQ(0, step("enter", "hold"));
	start(&self->late, job_hold, ARG(MEMORY));
	ASSERT_TRUE(held("enter"));
	ASSERT_EQ(0, step("fence", "go"));
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	/* Now it waits for a level that has not been admitted. */
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	EXPECT_EQ(1, READ_ONCE(self->late.slot->depth[0]));
	ASSERT_EQ(0, step("enter", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(MEMORY)));
}

/* The scan has passed the slot, the fork even copies: the entry is kept out until that is over. */
TEST_F(step, late_entry_behind_the_cursor)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, step("enter", "hold"));
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->early, job_hold, ARG(MEMORY));
	ASSERT_TRUE(held("enter"));
	EXPECT_EQ(1, READ_ONCE(self->early.slot->depth[0]));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	ASSERT_TRUE(held("grant"));
	ASSERT_EQ(0, step("enter", "go"));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(self->early.slot->depth[0]));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->early));
	EXPECT_EQ(1, self->early.slot->depth[0]);
	EXPECT_EQ(0, run(&self->early, job_drop, ARG(MEMORY)));
}

/* The fork is over before the entry asks: it just goes on. */
TEST_F(step, late_entry_after_the_fork)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, step("enter", "hold"));
	start(&self->early, job_hold, ARG(MEMORY));
	ASSERT_TRUE(held("enter"));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	ASSERT_EQ(0, step("enter", "go"));
	EXPECT_EQ(0, finish(&self->early));
	EXPECT_EQ(1, self->early.slot->depth[0]);
	EXPECT_EQ(0, run(&self->early, job_drop, ARG(MEMORY)));
}

/* The gate opens between the decision to wait and the sleep. */
TEST_F(step, released_before_it_sleeps)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	ASSERT_EQ(0, step("blocked", "hold"));
	start(&self->late, job_enter, ARG(BOTH));
	ASSERT_TRUE(held("blocked"));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate_state().blocked);
	EXPECT_EQ(1, READ_ONCE(self->late.slot->depth[0]));
	ASSERT_EQ(0, step("blocked", "go"));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(1, self->late.slot->depth[0]);
	EXPECT_EQ(1, self->late.slot->depth[1]);
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(BOTH)));
}

/* Counted in by the kernel, the thread has not run since: the next fork waits for it. */
TEST_F(step, admitted_counts_before_it_runs)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->late, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("admitted", "hold"));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	ASSERT_TRUE(held("admitted"));
	EXPECT_TRUE(fork_waits(&self->second, &fork_both, 1));
	ASSERT_EQ(0, step("admitted", "go"));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_TRUE(wait_until(worker_waits(&self->second, 1)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/* A signal meets a release: the entry is counted exactly once. */
TEST_F(step, signal_meets_release)
{
	handle(handler, 0);
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	ASSERT_EQ(0, step("blocked", "hold"));
	start(&self->late, job_enter, ARG(BOTH));
	ASSERT_TRUE(held("blocked"));
	ASSERT_EQ(0, interrupt(&self->late));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	ASSERT_EQ(0, step("blocked", "go"));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(1, self->late.slot->depth[0]);
	EXPECT_EQ(1, self->late.slot->depth[1]);
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(BOTH)));
	EXPECT_EQ(0, gate_state().blocked);
}

/*
 * During the copy
 */

/* copying - hold the fork between its grant and its copy */
static bool copying(struct worker *forker, struct fork_how *how)
{
	if (step("grant", "hold"))
		return false;
	start(forker, job_fork, how);
	return held("grant");
}

TEST_F(step, newcomers_during_a_copy)
{
	ASSERT_TRUE(copying(&self->forker, &fork_memory));
	EXPECT_EQ(-EBUSY, run(&self->late, job_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->late, job_tryenter, ARG(FILES)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FILES)));
	start(&self->late, job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(MEMORY)));
}

/* Patience 0 keeps newcomers out of a copy all the same. */
TEST_F(step, newcomers_during_a_copy_without_patience)
{
	ASSERT_EQ(0, change_policy(patience, 0));
	ASSERT_TRUE(copying(&self->forker, &fork_both));
	EXPECT_EQ(-EBUSY, run(&self->late, job_tryenter, ARG(MEMORY)));
	start(&self->late, job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(MEMORY)));
}

/* Inside the other domain: enters more of that, and waits with what is being copied. */
TEST_F(step, nested_entries_during_a_copy)
{
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(FILES)));
	ASSERT_TRUE(copying(&self->forker, &fork_memory));
	EXPECT_EQ(0, run(&self->late, job_enter, ARG(FILES)));
	EXPECT_EQ(-EBUSY, run(&self->late, job_tryenter, ARG(MEMORY)));
	start(&self->late, job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(self->late.slot->depth[0]));
	EXPECT_EQ(2, READ_ONCE(self->late.slot->depth[1]));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(1, self->late.slot->depth[0]);
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FILES)));
}

/*
 * A thread stores its level, then a signal handler enters, while the fork
 * copies. The handler's entry looks nested and is not.
 */
static struct {
	int runs;
	long result;
} handled;

static void handler_enters(int signo)
{
	handled.result = job_hold(ARG(MEMORY));
	__atomic_add_fetch(&handled.runs, 1, __ATOMIC_SEQ_CST);
	if (!handled.result)
		handled.result = job_drop(ARG(MEMORY));
}

TEST_F(step, handler_enters_during_a_copy)
{
	handle(handler_enters, 0);
	ASSERT_TRUE(copying(&self->forker, &fork_both));
	start(&self->early, job_enter_interrupted, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(handled.runs));
	EXPECT_EQ(0, READ_ONCE(self->early.slot->depth[0]));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->early));
	EXPECT_EQ(1, handled.runs);
	EXPECT_EQ(0, handled.result);
	EXPECT_EQ(1, self->early.slot->depth[0]);
	EXPECT_EQ(0, run(&self->early, job_leave, ARG(MEMORY)));
}

/* Copied but not reopened: still closed. */
TEST_F(step, closed_until_the_copy_returns)
{
	ASSERT_EQ(0, step("copied", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(held("copied"));
	EXPECT_EQ(BOTH, gate.head->closed);
	start(&self->late, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("copied", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FILES)));
}

/* Two copy at once; the first to be done does not open. */
TEST_F(step, two_copies)
{
	struct worker *done = &self->forker, *other = &self->second;

	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	start(&self->second, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 2) && worker_waits(&self->second, 2)));
	ASSERT_EQ(0, step("grant", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	ASSERT_TRUE(wait_until(step_waiting("grant") == 2));
	start(&self->late, job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("grant", "one"));
	ASSERT_TRUE(one_done(&done, &other));
	EXPECT_EQ(0, finish_fork(done));
	EXPECT_EQ(BOTH, gate.head->closed);
	EXPECT_EQ(1, gate_state().blocked);
	EXPECT_TRUE(busy(other));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(other));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(MEMORY)));
}

/* A ticket is granted alone: not while another thread copies. */
TEST_F(step, ticket_waits_for_a_copy)
{
	ASSERT_TRUE(copying(&self->forker, &fork_memory));
	EXPECT_TRUE(prepare_waits(&self->second, FILES, 2));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->second));
	EXPECT_EQ(0, run(&self->second, job_release, NULL));
}

/* A signal after the grant: the kernel's clone restarts, the fork is granted anew. */
TEST_F(step, signal_after_the_grant)
{
	handle(handler, 0);
	ASSERT_TRUE(copying(&self->forker, &fork_both));
	start(&self->late, job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, gate_state().forkers);
}

/*
 * The hand-over
 */

/* After a real copy: the newcomer that it kept out is inside before the next fork is granted. */
TEST_F(step, hand_over)
{
	int i;

	for (i = 0; i < 10; i++) {
		ASSERT_TRUE(copying(&self->forker, &fork_both));
		start(&self->late, job_hold, ARG(MEMORY));
		ASSERT_TRUE(wait_until(gate_state().blocked == 1));
		ASSERT_TRUE(fork_waits(&self->second, &fork_both, 2));
		/* Let the newcomer be slow on its way. */
		ASSERT_EQ(0, step("admitted", "hold"));
		ASSERT_EQ(0, step("grant", "go"));
		EXPECT_EQ(0, finish_fork(&self->forker));
		ASSERT_TRUE(held("admitted"));
		EXPECT_TRUE(wait_until(worker_waits(&self->second, 1)));
		EXPECT_EQ(1, READ_ONCE(self->late.slot->depth[0]));
		ASSERT_EQ(0, step("admitted", "go"));
		EXPECT_EQ(0, finish(&self->late));
		EXPECT_TRUE(wait_until(worker_waits(&self->second, 1)));
		ASSERT_EQ(0, run(&self->late, job_drop, ARG(MEMORY)));
		EXPECT_EQ(0, finish_fork(&self->second));
	}
}

/* In batches: nothing is granted while some are released and not yet inside. */
TEST_F(step, hand_over_in_batches)
{
	static struct worker crowd[100];
	struct forkgate_state state;
	int i;

	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		ASSERT_EQ(0, worker_new(&crowd[i]));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		start(&crowd[i], job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == ARRAY_SIZE(crowd)));
	ASSERT_TRUE(fork_waits(&self->second, &fork_both, 2));
	ASSERT_EQ(0, step("release", "hold"));
	start(&self->forker, job_release, NULL);
	ASSERT_TRUE(wait_until(step_waiting("release") > 0));
	/* Those counted in help with the others, so it may be over by now. */
	state = gate_state();
	EXPECT_TRUE(state.phases == 1 || !state.blocked);
	EXPECT_TRUE(busy(&self->second));
	ASSERT_EQ(0, step("release", "go"));
	EXPECT_EQ(0, finish(&self->forker));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		EXPECT_EQ(0, finish(&crowd[i]));
	EXPECT_EQ(ARRAY_SIZE(crowd), gate_state().holders_count);
	EXPECT_TRUE(wait_until(worker_waits(&self->second, 1)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		EXPECT_EQ(0, run(&crowd[i], job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/* A forker that comes while they are on their way in does not overtake them. */
TEST_F(step, fork_during_the_hand_over)
{
	static struct worker crowd[100];
	int i;

	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		ASSERT_EQ(0, worker_new(&crowd[i]));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		start(&crowd[i], job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == ARRAY_SIZE(crowd)));
	ASSERT_EQ(0, step("release", "hold"));
	start(&self->forker, job_release, NULL);
	ASSERT_TRUE(wait_until(step_waiting("release") > 0));
	start(&self->second, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(gate_state().forkers == 1));
	ASSERT_EQ(0, step("release", "go"));
	EXPECT_EQ(0, finish(&self->forker));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		EXPECT_EQ(0, finish(&crowd[i]));
	EXPECT_EQ(ARRAY_SIZE(crowd), gate_state().holders_count);
	EXPECT_TRUE(wait_until(worker_waits(&self->second, 1)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		EXPECT_EQ(0, run(&crowd[i], job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/*
 * Forkers that may always join, because they are inside a section or have no
 * patience: once a newcomer has been kept out through the end of a grant, they
 * queue until the gate has let it in.
 */
static void queues_behind_the_blocked(struct __test_metadata *_metadata, struct worker *forker,
				      struct worker *joins, struct worker *queues,
				      struct worker *late)
{
	struct worker *done = forker, *other = joins;

	ASSERT_EQ(0, step("grant", "hold"));
	start(forker, job_fork, &fork_memory);
	ASSERT_TRUE(held("grant"));
	start(joins, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(step_waiting("grant") == 2));
	start(late, job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, step("grant", "one"));
	ASSERT_TRUE(one_done(&done, &other));
	EXPECT_EQ(0, finish_fork(done));
	ASSERT_TRUE(fork_waits(queues, &fork_memory, 2));
	EXPECT_EQ(1, step_waiting("grant"));
	EXPECT_EQ(1, gate_state().blocked);
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(other));
	EXPECT_EQ(0, finish(late));
	/* Now it waits for that section. */
	EXPECT_TRUE(wait_until(worker_waits(queues, 1)));
	EXPECT_EQ(0, run(late, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(queues));
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(step, forkers_inside_sections_queue_behind_the_blocked)
{
	ASSERT_EQ(0, run(&self->early, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(FILES)));
	queues_behind_the_blocked(_metadata, &self->forker, &self->early, &self->second,
				  &self->late);
	EXPECT_EQ(0, run(&self->early, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(FILES)));
}

TEST_F(step, forkers_without_patience_queue_behind_the_blocked)
{
	ASSERT_EQ(0, change_policy(patience, 0));
	queues_behind_the_blocked(_metadata, &self->forker, &self->early, &self->second,
				  &self->late);
}

/*
 * Tickets
 */

/* It ran out before PREPARE had even returned; then another thread got in. */
TEST_F(step, ticket_expired_before_it_was_seen)
{
	ASSERT_EQ(0, change_policy(ticket_hold, NSEC_PER_MSEC));
	ASSERT_EQ(0, step("prepared", "hold"));
	start(&self->forker, job_prepare, ARG(BOTH));
	ASSERT_TRUE(held("prepared"));
	ASSERT_TRUE(wait_until(gate_state().expired == 1));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_EQ(0, step("prepared", "go"));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* It runs out between the start of its clone and the check: checked all the same. */
TEST_F(step, ticket_expires_at_the_begin_of_its_clone)
{
	ASSERT_EQ(0, change_policy(ticket_hold, 200 * NSEC_PER_MSEC));
	ASSERT_EQ(0, step("begin", "hold"));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(held("begin"));
	ASSERT_TRUE(wait_until(gate_state().expired == 1));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_EQ(0, step("begin", "go"));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Once its clone has begun, it does not run out any more: no thread gets in
 * before the copy is done.
 */
TEST_F(step, ticket_does_not_expire_in_its_clone)
{
	uint64_t begin, expired;

	ASSERT_EQ(0, change_policy(ticket_hold, 200 * NSEC_PER_MSEC));
	/* If it runs out before its clone begins, because the machine is busy: once more. */
	for (;;) {
		expired = gate_state().expired;
		ASSERT_GT(50, expired);
		ASSERT_EQ(0, step("grant", "hold"));
		ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
		start(&self->forker, job_fork, &fork_both);
		ASSERT_TRUE(held("grant"));
		if (gate_state().expired == expired)
			break;
		ASSERT_EQ(0, step("grant", "go"));
		ASSERT_EQ(0, finish_fork(&self->forker));
	}
	start(&self->late, job_hold, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	/* Give it the chance. */
	begin = now_ms();
	ASSERT_TRUE(wait_until(now_ms() > begin + 400));
	EXPECT_EQ(expired, gate_state().expired);
	EXPECT_EQ(1, gate_state().blocked);
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(MEMORY)));
}

/*
 * Granted with a ticket, its clone was interrupted before it copied, and then
 * has to wait for a thread that was inside the other domain: still a prepared
 * clone, whose caller is told to prepare again.
 */
static int handler_runs, handler_leave;	/* latches */

static void handler_stays(int signo)
{
	latch_open(&handler_runs);
	latch_wait(&handler_leave);
}

TEST_F(step, prepared_clone_interrupted_after_the_grant)
{
	handle(handler_stays, 0);
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	ASSERT_EQ(0, change_policy(ticket_hold, 10 * NSEC_PER_SEC));
	ASSERT_EQ(0, change_policy(backstop, 10 * NSEC_PER_MSEC));
	ASSERT_TRUE(copying(&self->forker, &fork_memory));
	ASSERT_EQ(0, interrupt(&self->forker));
	ASSERT_EQ(0, step("grant", "go"));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs)));
	EXPECT_EQ(0, run(&self->late, job_enter, ARG(MEMORY)));
	latch_open(&handler_leave);
	EXPECT_EQ(-EAGAIN, finish(&self->forker));
	EXPECT_EQ(FORKGATE_OUTCOME_EXPIRED, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(0, gate_state().timeouts);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(BOTH)));
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
}

/*
 * Killed at any step: a process that shares the memory, so that the gate and
 * all others live on.
 */

static int sharer_ready, sharer_go;	/* latches */

static int sharer_forks(void)
{
	latch_open(&sharer_ready);
	latch_wait(&sharer_go);
	return child_exit(raw_fork(0, child_nothing));
}

static long job_sharer(void *unused)
{
	return spawn_vm(0, sharer_forks);
}

FIXTURE(killed) {
	struct worker spawner, holder, forker, late;
};

FIXTURE_VARIANT(killed) {
	const char *at;
	bool after_a_wait;
};

FIXTURE_VARIANT_ADD(killed, begin) { .at = "begin" };
FIXTURE_VARIANT_ADD(killed, close) { .at = "close" };
FIXTURE_VARIANT_ADD(killed, fence) { .at = "fence" };
FIXTURE_VARIANT_ADD(killed, sleep) { .at = "sleep" };
FIXTURE_VARIANT_ADD(killed, woken) { .at = "woken", .after_a_wait = true };
FIXTURE_VARIANT_ADD(killed, grant) { .at = "grant", .after_a_wait = true };
FIXTURE_VARIANT_ADD(killed, copied) { .at = "copied", .after_a_wait = true };

FIXTURE_SETUP(killed)
{
	if (!setup_steps())
		SKIP(return, NO_STEPS);
	ASSERT_EQ(0, worker_spawn(&self->spawner));
	ASSERT_EQ(0, setup_workers(&self->holder, 3));
}

FIXTURE_TEARDOWN(killed)
{
	steps_reset();
}

TEST_F(killed, all_others_go_on)
{
	bool begin = !strcmp(variant->at, "begin");
	pid_t pid;

	pid = run(&self->spawner, job_sharer, NULL);
	ASSERT_LT(0, pid);
	ASSERT_TRUE(wait_until(READ_ONCE(sharer_ready)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, step(variant->at, "hold"));
	latch_open(&sharer_go);
	if (variant->after_a_wait) {
		ASSERT_TRUE(wait_until(gate_state().forkers == 1 && task_asleep(pid)));
		start(&self->late, job_enter, ARG(BOTH));
		ASSERT_TRUE(wait_until(gate_state().blocked == 1));
		ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
		ASSERT_TRUE(held(variant->at));
	} else {
		ASSERT_TRUE(held(variant->at));
		start(&self->late, job_enter, ARG(BOTH));
		if (!begin)
			ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	}
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	if (!variant->after_a_wait)
		EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(BOTH)));
	ASSERT_EQ(0, steps_reset());
	EXPECT_EQ(0, run_fork(&self->forker, &fork_both));
}

/*
 * The gate ends while a thread is at any step
 */

FIXTURE_STEPS(ended, holder, actor, other);

FIXTURE_VARIANT(ended) {
	const char *at;
	long (*job)(void *arg);
	void *arg;
	bool needs_holder;	/* leaves before "at" is reached, if needs_wake */
	bool needs_wake;
	bool needs_ticket;	/* of another thread */
};

#define FORKING(name, ...)						\
	FIXTURE_VARIANT_ADD(ended, name) {				\
		.at = #name, .job = job_fork, .arg = &fork_both, __VA_ARGS__	\
	}

FORKING(begin);
FORKING(close);
FORKING(fence);
FORKING(sleep, .needs_holder = true);
FORKING(woken, .needs_holder = true, .needs_wake = true);
FORKING(grant);
FORKING(copied);

#define ACTING(name, what, domains, ...)				\
	FIXTURE_VARIANT_ADD(ended, name) {				\
		.at = #name, .job = what, .arg = (void *)(uintptr_t)(domains), __VA_ARGS__	\
	}

ACTING(enter, job_enter, MEMORY, .needs_ticket = true);
ACTING(blocked, job_enter, MEMORY, .needs_ticket = true);
ACTING(prepared, job_prepare, BOTH);

TEST_F(ended, by_munmap)
{
	long ret;

	if (variant->needs_ticket)
		ASSERT_EQ(0, run(&self->other, job_prepare, ARG(BOTH)));
	if (variant->needs_holder)
		ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, step(variant->at, "hold"));
	start(&self->actor, variant->job, variant->arg);
	if (variant->needs_wake) {
		ASSERT_TRUE(wait_until(worker_waits(&self->actor, 1)));
		ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	}
	ASSERT_TRUE(held(variant->at));
	ASSERT_EQ(0, gate_unmap());
	ASSERT_EQ(0, step(variant->at, "go"));
	if (variant->job == job_fork) {
		ret = finish(&self->actor);
		EXPECT_LT(0, ret);
		/* Its child has no gate to look at. */
		EXPECT_EQ(0, child_exit(ret));
	} else if (variant->job == job_prepare) {
		EXPECT_EQ(0, finish(&self->actor));
		EXPECT_EQ(-ENXIO, run(&self->actor, job_release, NULL));
	} else {
		EXPECT_EQ(-ENXIO, finish(&self->actor));
	}
	/* A new one is as good as ever. */
	ASSERT_EQ(0, steps_reset());
	ASSERT_EQ(0, gate_map());
	ASSERT_LE(0, gate_register());
	ASSERT_LE(0, run(&self->actor, job_register, &self->actor));
	EXPECT_EQ(0, gate_enter(BOTH));
	EXPECT_EQ(0, gate_leave(BOTH));
	EXPECT_EQ(0, run_fork(&self->actor, &fork_both));
}

/*
 * Everything slow at once: any order of steps comes up
 */

static int stop;

static long job_enter_on(void *domains)
{
	long ret;

	while (!READ_ONCE(stop)) {
		ret = job_hold(ARG(MEMORY));
		if (!ret)
			ret = gate_enter((uintptr_t)domains);
		if (!ret)
			ret = gate_leave((uintptr_t)domains);
		if (!ret)
			ret = job_drop(ARG(MEMORY));
		if (ret)
			return ret;
	}
	return 0;
}

static long job_fork_on(void *unused)
{
	int i, status;

	for (i = 0; i < 20; i++) {
		status = child_exit(raw_fork(i % 2 ? CLONE_FILES : 0, child_memory_whole));
		if (status)
			return status;
	}
	return 0;
}

FIXTURE_STEPS(slow, a, b, c, d);

FIXTURE_VARIANT(slow) {
	const char *at;
};

#define SLOW(name)	FIXTURE_VARIANT_ADD(slow, name) { .at = #name }

SLOW(begin);
SLOW(close);
SLOW(fence);
SLOW(sleep);
SLOW(woken);
SLOW(grant);
SLOW(copied);
SLOW(enter);
SLOW(blocked);
SLOW(admitted);
SLOW(leave);
SLOW(release);

TEST_F(slow, step)
{
	/* Yields come up too, but nothing times out. */
	ASSERT_EQ(0, change_policy(patience, 10 * NSEC_PER_MSEC));
	ASSERT_EQ(0, step(variant->at, "delay 3000"));
	start(&self->a, job_enter_on, ARG(MEMORY));
	start(&self->b, job_enter_on, ARG(FILES));
	start(&self->c, job_fork_on, NULL);
	start(&self->d, job_fork_on, NULL);
	EXPECT_EQ(0, finish(&self->c));
	EXPECT_EQ(0, finish(&self->d));
	WRITE_ONCE(stop, 1);
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate_state().blocked);
	EXPECT_EQ(0, gate_state().holders_count);
}

TEST_HARNESS_MAIN
