// SPDX-License-Identifier: GPL-2.0-only
/*
 * Forced schedules: threads held at a step of the protocol while others act.
 * Needs a module built with CONFIG_FORKGATE_DEBUG.
 *
 * Rule 2: no section is missed, whatever the interleaving.
 * Rule 5: what may pass during a copy, and what may not.
 * Rule 6: the hand-over; no wake-up is lost.
 * Rule 9: whoever dies at whatever step is released.
 * Rule 11: verification behind a ticket.
 *
 * Each guard of the protocol has a test that fails without it:
 *
 *	the IPI					ipi
 *	the re-check				recheck_after_a_wake
 *	the hand-over				hand_over (and phase.c)
 *	the wake of the cursor's leaver		wakes.*
 *	the exit hook				wakes.*_exit (and death.c)
 *	reopening after a failed clone		killed.* (and fork.c, failed.*)
 *	the verification behind a ticket	ticket_expired_before_it_was_seen
 *						(and ticket.c, verified_*)
 *	the test of closed on nested entries	nested_entries_during_a_copy
 *						(and enter.c, nested_entries_*)
 */
#include "forkgate_test.h"

#define HELD(name)	wait_until(step_waiting(name) == 1)

/* setup_steps - false if there are none */
static bool setup_steps(void)
{
	return fg_has_steps() && !steps_reset();
}

FIXTURE(step) {
	struct worker early, holder, forker, second, late;
};

/* Slots are given in order: "early" is passed by a scan that stands at "holder", "late" is not. */
FIXTURE_SETUP(step)
{
	if (!setup_steps())
		SKIP(return, NO_STEPS);
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->early));
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, worker_new(&self->second));
	ASSERT_EQ(0, worker_new(&self->late));
	ASSERT_LT((uintptr_t)self->early.slot, (uintptr_t)self->holder.slot);
	ASSERT_LT((uintptr_t)self->holder.slot, (uintptr_t)self->late.slot);
}

FIXTURE_TEARDOWN(step)
{
	steps_reset();
}

/*
 * The files of the steps themselves
 */

TEST_F(step, all_steps_are_there)
{
	static const char * const names[] = {
		"begin", "close", "fence", "sleep", "woken", "grant", "copied",
		"enter", "blocked", "admitted", "leave", "release", "prepared", "exit",
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
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		ASSERT_TRUE(HELD(names[i])) {
			TH_LOG("at %s", names[i]);
		}
		if (!strcmp(names[i], "sleep"))
			ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
		ASSERT_EQ(0, step(names[i], "go"));
	}
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * The IPI: between closing and scanning, every CPU that runs the process is
 * interrupted. What it prevents cannot be forced from outside, because only a
 * processor's store buffer could do it; so count interrupts.
 */

static int spins, spin_stop;

static long job_spin(void *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((uintptr_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return -errno;
	WRITE_ONCE(spins, 1);
	while (!READ_ONCE(spin_stop))
		barrier();
	return 0;
}

static long job_move(void *cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((uintptr_t)cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set) ? -errno : 0;
}

/* function_calls - interrupts of a CPU to have it call a function; -1: not told here */
static long function_calls(int cpu)
{
	static char text[262144];
	char *line, *end;
	long count = -1;

	if (fg_read_file("/proc/interrupts", text, sizeof(text)) <= 0)
		return -1;
	line = strstr(text, "Function call interrupts");
	if (!line)
		return -1;
	while (line > text && line[-1] != '\n')
		line--;
	line = strchr(line, ':');
	for (; line && cpu >= 0; cpu--) {
		count = strtol(line + 1, &end, 10);
		line = end - 1;
	}
	return count;
}

TEST_F(step, ipi)
{
	cpu_set_t allowed;
	long before;
	int i;

	ASSERT_EQ(0, sched_getaffinity(0, sizeof(allowed), &allowed));
	if (!CPU_ISSET(0, &allowed) || !CPU_ISSET(1, &allowed))
		SKIP(return, "needs CPUs 0 and 1");
	if (function_calls(1) < 0)
		SKIP(return, "/proc/interrupts does not count function calls");
	ASSERT_EQ(0, job_move(ARG(0)));
	ASSERT_EQ(0, run(&self->forker, job_move, ARG(0)));
	start(&self->late, job_spin, ARG(1));
	ASSERT_TRUE(wait_until(READ_ONCE(spins)));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, step("close", "hold"));
		ASSERT_EQ(0, step("fence", "hold"));
		start(&self->forker, job_fork, &fork_both);
		ASSERT_TRUE(HELD("close"));
		before = function_calls(1);
		ASSERT_EQ(0, step("close", "go"));
		ASSERT_TRUE(HELD("fence"));
		EXPECT_LT(before, function_calls(1));
		ASSERT_EQ(0, step("fence", "go"));
		EXPECT_EQ(0, finish_fork(&self->forker));
	}
	WRITE_ONCE(spin_stop, 1);
	EXPECT_EQ(0, finish(&self->late));
}

/*
 * Who stored its level before the fence is seen by the scan, though it has
 * not looked at "closed" yet.
 */
TEST_F(step, store_before_the_fence_is_seen)
{
	ASSERT_EQ(0, step("close", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(HELD("close"));
	ASSERT_EQ(0, run(&self->late, job_count, ARG(FG_MEMORY)));
	WRITE_ONCE(torn, 1);
	ASSERT_EQ(0, step("close", "go"));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	WRITE_ONCE(torn, 0);
	ASSERT_EQ(0, run(&self->late, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* Who looks at "closed" after the fence is kept out, though the scan has not begun. */
TEST_F(step, entry_after_the_fence_is_kept_out)
{
	ASSERT_EQ(0, step("fence", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(HELD("fence"));
	start(&self->early, job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, step("fence", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->early));
	EXPECT_EQ(0, run(&self->early, job_drop, ARG(FG_MEMORY)));
}

/* A second forker joins while the first is at its fence, and does not go by that. */
TEST_F(step, joining_forker_has_a_fence_of_its_own)
{
	long fences;

	ASSERT_EQ(0, step("close", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(HELD("close"));
	fences = step_hits("fence");
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->second, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(step_waiting("close") == 2));
	EXPECT_EQ(fences, step_hits("fence"));
	ASSERT_EQ(0, step("close", "one"));
	ASSERT_TRUE(HELD("grant"));
	EXPECT_LT(fences, step_hits("fence"));
	ASSERT_EQ(0, steps_reset());
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/*
 * The re-check: woken is not granted
 */

/*
 * The holder leaves memory and the fork is woken. Before it scans again, the
 * holder, still inside files, enters memory once more.
 */
TEST_F(step, recheck_after_a_wake)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_BOTH)));
	start(&self->forker, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, step("woken", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	ASSERT_TRUE(HELD("woken"));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	ASSERT_EQ(0, step("woken", "go"));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1) && step_waiting("woken") == 0));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_FILES)));
}

/*
 * The same by a thread that the scan had passed: an entry during the drain
 * takes the cursor back.
 */
TEST_F(step, recheck_of_a_slot_that_was_passed)
{
	ASSERT_EQ(0, run(&self->early, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, step("woken", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	ASSERT_TRUE(HELD("woken"));
	ASSERT_EQ(0, run(&self->early, job_hold, ARG(FG_MEMORY)));
	ASSERT_EQ(0, step("woken", "go"));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1) && step_waiting("woken") == 0));
	ASSERT_EQ(0, run(&self->early, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, run(&self->early, job_leave, ARG(FG_FILES)));
}

/* Woken by the one it stood at, it finds the next one inside. */
TEST_F(step, recheck_finds_the_next_holder)
{
	long hits;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->late, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	hits = step_hits("woken");
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1) && step_hits("woken") > hits));
	ASSERT_EQ(0, run(&self->late, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Wake-ups. No timer is set in these tests: whoever is not woken sleeps on.
 * The fork is at one of its steps while the last holder goes away.
 */

FIXTURE(wakes) {
	struct worker holder, forker, second, late;
};

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

FIXTURE_SETUP(wakes)
{
	if (!setup_steps())
		SKIP(return, NO_STEPS);
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, worker_new(&self->second));
	ASSERT_EQ(0, worker_new(&self->late));
}

FIXTURE_TEARDOWN(wakes)
{
	steps_reset();
}

/* depart - leave the section, one way or the other */
static bool depart(struct worker *worker, bool exit)
{
	pid_t tid = worker->tid;

	if (!exit)
		return !run(worker, job_leave, ARG(FG_MEMORY));
	start(worker, job_exit, NULL);
	return wait_until(fg_gone(tid));
}

TEST_F(wakes, the_last_holder_leaves)
{
	bool woken = variant->at && !strcmp(variant->at, "woken");

	if (variant->exit)
		ASSERT_EQ(0, step("exit", "delay 1000"));
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(FG_MEMORY)));
	if (woken)
		ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	if (variant->at)
		ASSERT_EQ(0, step(variant->at, "hold"));
	start(&self->forker, job_fork, &fork_both);
	if (woken || !variant->at)
		ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	if (woken)
		ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	if (variant->at)
		ASSERT_TRUE(HELD(variant->at));
	ASSERT_TRUE(depart(&self->late, variant->exit));
	if (variant->at)
		ASSERT_EQ(0, step(variant->at, "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(variant->exit, fg_state().abandoned);
}

/* Two forkers stand at the same slot: both are woken. */
TEST_F(wakes, two_forkers)
{
	bool woken = variant->at && !strcmp(variant->at, "woken");

	ASSERT_EQ(0, run(&self->late, job_enter, ARG(FG_MEMORY)));
	if (woken)
		ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	if (variant->at)
		ASSERT_EQ(0, step(variant->at, "hold"));
	/* The second needs a fence of its own, because it needs more. */
	start(&self->forker, job_fork, &fork_memory);
	if (variant->at && !woken) {
		ASSERT_TRUE(HELD(variant->at));
	} else {
		/* at the slot, not for the other's fence */
		ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	}
	start(&self->second, job_fork, &fork_both);
	if (woken || !variant->at)
		ASSERT_TRUE(wait_until(fg_waiting(&self->second, 2)));
	if (woken)
		ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	if (variant->at)
		ASSERT_TRUE(wait_until(step_waiting(variant->at) == 2));
	ASSERT_TRUE(depart(&self->late, variant->exit));
	if (variant->at)
		ASSERT_EQ(0, step(variant->at, "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/* The holder's call to wake is late: the level is out, the fork sleeps on, nothing is lost. */
TEST_F(step, late_leave)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, step("leave", "hold"));
	start(&self->holder, job_drop, ARG(FG_MEMORY));
	ASSERT_TRUE(HELD("leave"));
	EXPECT_EQ(0, READ_ONCE(self->holder.slot->depth[0]));
	ASSERT_EQ(0, step("leave", "go"));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* The same, but the gate has opened and closed again meanwhile. */
TEST_F(step, very_late_leave)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, step("leave", "hold"));
	start(&self->holder, job_leave, ARG(FG_MEMORY));
	ASSERT_TRUE(HELD("leave"));
	/* Somebody else's fork finds the slot idle, and wakes the first by the way. */
	start(&self->second, job_fork, &fork_both);
	EXPECT_EQ(0, finish_fork(&self->second));
	ASSERT_EQ(0, step("leave", "go"));
	EXPECT_EQ(0, finish(&self->holder));
	EXPECT_EQ(0, finish_fork(&self->forker));
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

static long job_leave_interrupted(void *arg)
{
	fg_uncount((uintptr_t)arg);
	raise(SIGUSR1);
	return fg_wake((uintptr_t)arg);
}

TEST_F(step, fork_between_leaving_and_waking)
{
	struct sigaction action = { .sa_handler = handler_forks };

	sigaction(SIGUSR1, &action, NULL);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, run(&self->second, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->forker, job_fork, &fork_files);
	ASSERT_TRUE(HELD("grant"));
	start(&self->second, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(fg_waiting(&self->second, 2)));
	start(&self->holder, job_leave_interrupted, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(step_waiting("grant") == 2));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->second));
	EXPECT_EQ(0, run(&self->second, job_leave, ARG(FG_MEMORY)));
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
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	ASSERT_EQ(0, step("fence", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(HELD("fence"));
	ASSERT_EQ(0, step("enter", "hold"));
	start(&self->late, job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(HELD("enter"));
	ASSERT_EQ(0, step("fence", "go"));
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	/* Now it waits for a level that nobody has admitted. */
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	EXPECT_EQ(1, READ_ONCE(self->late.slot->depth[0]));
	ASSERT_EQ(0, step("enter", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(FG_MEMORY)));
}

/* The scan has passed the slot, the fork even copies: the entry is kept out until that is over. */
TEST_F(step, late_entry_behind_the_cursor)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, step("enter", "hold"));
	ASSERT_EQ(0, step("grant", "hold"));
	start(&self->early, job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(HELD("enter"));
	EXPECT_EQ(1, READ_ONCE(self->early.slot->depth[0]));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	ASSERT_TRUE(HELD("grant"));
	ASSERT_EQ(0, step("enter", "go"));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(self->early.slot->depth[0]));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->early));
	EXPECT_EQ(1, self->early.slot->depth[0]);
	EXPECT_EQ(0, run(&self->early, job_drop, ARG(FG_MEMORY)));
}

/* The fork is over before the entry asks: it just goes on. */
TEST_F(step, late_entry_after_the_fork)
{
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, step("enter", "hold"));
	start(&self->early, job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(HELD("enter"));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	ASSERT_EQ(0, step("enter", "go"));
	EXPECT_EQ(0, finish(&self->early));
	EXPECT_EQ(1, self->early.slot->depth[0]);
	EXPECT_EQ(0, run(&self->early, job_drop, ARG(FG_MEMORY)));
}

/* The gate opens between the decision to wait and the sleep. */
TEST_F(step, released_before_it_sleeps)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	ASSERT_EQ(0, step("blocked", "hold"));
	start(&self->late, job_enter, ARG(FG_BOTH));
	ASSERT_TRUE(HELD("blocked"));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, fg_state().blocked);
	EXPECT_EQ(1, READ_ONCE(self->late.slot->depth[0]));
	ASSERT_EQ(0, step("blocked", "go"));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(1, self->late.slot->depth[0]);
	EXPECT_EQ(1, self->late.slot->depth[1]);
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FG_BOTH)));
}

/* Counted in by the kernel, the thread has not run since: the next fork waits for it. */
TEST_F(step, admitted_counts_before_it_runs)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	start(&self->late, job_enter, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, step("admitted", "hold"));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	ASSERT_TRUE(HELD("admitted"));
	start(&self->second, job_fork, &fork_both);
	EXPECT_TRUE(wait_until(fg_waiting(&self->second, 1)));
	ASSERT_EQ(0, step("admitted", "go"));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_TRUE(fg_waiting(&self->second, 1));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/* A signal meets a release: the entry is counted exactly once. */
static void handler(int signo)
{
}

TEST_F(step, signal_meets_release)
{
	struct sigaction action = { .sa_handler = handler };

	sigaction(SIGUSR1, &action, NULL);
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	ASSERT_EQ(0, step("blocked", "hold"));
	start(&self->late, job_enter, ARG(FG_BOTH));
	ASSERT_TRUE(HELD("blocked"));
	ASSERT_EQ(0, syscall(__NR_tgkill, getpid(), self->late.tid, SIGUSR1));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	ASSERT_EQ(0, step("blocked", "go"));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(1, self->late.slot->depth[0]);
	EXPECT_EQ(1, self->late.slot->depth[1]);
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FG_BOTH)));
	EXPECT_EQ(0, fg_state().blocked);
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
	return HELD("grant");
}

TEST_F(step, newcomers_during_a_copy)
{
	ASSERT_TRUE(copying(&self->forker, &fork_memory));
	EXPECT_EQ(-EBUSY, run(&self->late, job_tryenter, ARG(FG_MEMORY)));
	EXPECT_EQ(0, run(&self->late, job_tryenter, ARG(FG_FILES)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FG_FILES)));
	start(&self->late, job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(FG_MEMORY)));
}

/* Patience 0 keeps newcomers out of a copy all the same. */
TEST_F(step, newcomers_during_a_copy_without_patience)
{
	struct forkgate_policy policy = fg_policy();

	policy.patience = 0;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_TRUE(copying(&self->forker, &fork_both));
	EXPECT_EQ(-EBUSY, run(&self->late, job_tryenter, ARG(FG_MEMORY)));
	start(&self->late, job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(FG_MEMORY)));
}

/* Inside the other domain: enters more of that, and waits with what is being copied. */
TEST_F(step, nested_entries_during_a_copy)
{
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(FG_FILES)));
	ASSERT_TRUE(copying(&self->forker, &fork_memory));
	EXPECT_EQ(0, run(&self->late, job_enter, ARG(FG_FILES)));
	EXPECT_EQ(-EBUSY, run(&self->late, job_tryenter, ARG(FG_MEMORY)));
	start(&self->late, job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(self->late.slot->depth[0]));
	EXPECT_EQ(2, READ_ONCE(self->late.slot->depth[1]));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(1, self->late.slot->depth[0]);
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FG_FILES)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FG_FILES)));
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
	handled.result = job_hold(ARG(FG_MEMORY));
	__atomic_add_fetch(&handled.runs, 1, __ATOMIC_SEQ_CST);
	if (!handled.result)
		handled.result = job_drop(ARG(FG_MEMORY));
}

static long job_enter_interrupted(void *arg)
{
	unsigned int domains = (uintptr_t)arg;

	fg_count(domains);
	raise(SIGUSR1);
	return fg_admit(domains, 0);
}

TEST_F(step, handler_enters_during_a_copy)
{
	struct sigaction action = { .sa_handler = handler_enters };

	sigaction(SIGUSR1, &action, NULL);
	ASSERT_TRUE(copying(&self->forker, &fork_both));
	start(&self->early, job_enter_interrupted, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(handled.runs));
	EXPECT_EQ(0, READ_ONCE(self->early.slot->depth[0]));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->early));
	EXPECT_EQ(1, handled.runs);
	EXPECT_EQ(0, handled.result);
	EXPECT_EQ(1, self->early.slot->depth[0]);
	EXPECT_EQ(0, run(&self->early, job_leave, ARG(FG_MEMORY)));
}

/* Copied but not reopened: still closed. */
TEST_F(step, closed_until_the_copy_returns)
{
	ASSERT_EQ(0, step("copied", "hold"));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(HELD("copied"));
	EXPECT_EQ(FG_BOTH, gate.head->closed);
	start(&self->late, job_enter, ARG(FG_FILES));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, step("copied", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FG_FILES)));
}

/* Two copy at once; the first to be done does not open. */
TEST_F(step, two_copies)
{
	struct worker *done = &self->forker, *other = &self->second;

	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	start(&self->second, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->forker, 2) && fg_waiting(&self->second, 2)));
	ASSERT_EQ(0, step("grant", "hold"));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	ASSERT_TRUE(wait_until(step_waiting("grant") == 2));
	start(&self->late, job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, step("grant", "one"));
	ASSERT_TRUE(wait_until(!busy(done) || !busy(other)));
	if (busy(done)) {
		done = &self->second;
		other = &self->forker;
	}
	EXPECT_EQ(0, finish_fork(done));
	EXPECT_EQ(FG_BOTH, gate.head->closed);
	EXPECT_EQ(1, fg_state().blocked);
	EXPECT_TRUE(busy(other));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(other));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(FG_MEMORY)));
}

/* A ticket is granted alone: not while somebody copies. */
TEST_F(step, ticket_waits_for_a_copy)
{
	ASSERT_TRUE(copying(&self->forker, &fork_memory));
	start(&self->second, job_prepare, ARG(FG_FILES));
	EXPECT_TRUE(wait_until(fg_waiting(&self->second, 2)));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->second));
	EXPECT_EQ(0, run(&self->second, job_release, NULL));
}

/* A signal after the grant: the kernel's clone restarts, the fork is granted anew. */
TEST_F(step, signal_after_the_grant)
{
	struct sigaction action = { .sa_handler = handler };

	sigaction(SIGUSR1, &action, NULL);
	ASSERT_TRUE(copying(&self->forker, &fork_both));
	start(&self->late, job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	ASSERT_EQ(0, syscall(__NR_tgkill, getpid(), self->forker.tid, SIGUSR1));
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, fg_state().forkers);
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
		start(&self->late, job_hold, ARG(FG_MEMORY));
		ASSERT_TRUE(wait_until(fg_state().blocked == 1));
		start(&self->second, job_fork, &fork_both);
		ASSERT_TRUE(wait_until(fg_waiting(&self->second, 2)));
		/* Let the newcomer be slow on its way. */
		ASSERT_EQ(0, step("admitted", "hold"));
		ASSERT_EQ(0, step("grant", "go"));
		EXPECT_EQ(0, finish_fork(&self->forker));
		ASSERT_TRUE(HELD("admitted"));
		EXPECT_TRUE(wait_until(fg_waiting(&self->second, 1)));
		EXPECT_EQ(1, READ_ONCE(self->late.slot->depth[0]));
		ASSERT_EQ(0, step("admitted", "go"));
		EXPECT_EQ(0, finish(&self->late));
		EXPECT_TRUE(fg_waiting(&self->second, 1));
		ASSERT_EQ(0, run(&self->late, job_drop, ARG(FG_MEMORY)));
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
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		start(&crowd[i], job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == ARRAY_SIZE(crowd)));
	start(&self->second, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_waiting(&self->second, 2)));
	ASSERT_EQ(0, step("release", "hold"));
	start(&self->forker, job_release, NULL);
	ASSERT_TRUE(wait_until(step_waiting("release") > 0));
	/* Those counted in help with the others, so it may be over by now. */
	state = fg_state();
	EXPECT_TRUE(state.phases == 1 || !state.blocked);
	EXPECT_TRUE(busy(&self->second));
	ASSERT_EQ(0, step("release", "go"));
	EXPECT_EQ(0, finish(&self->forker));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		EXPECT_EQ(0, finish(&crowd[i]));
	EXPECT_EQ(ARRAY_SIZE(crowd), fg_state().holders_count);
	EXPECT_TRUE(wait_until(fg_waiting(&self->second, 1)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		EXPECT_EQ(0, run(&crowd[i], job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/* A forker that comes while they are on their way in does not overtake them. */
TEST_F(step, fork_during_the_hand_over)
{
	static struct worker crowd[100];
	int i;

	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		ASSERT_EQ(0, worker_new(&crowd[i]));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		start(&crowd[i], job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == ARRAY_SIZE(crowd)));
	ASSERT_EQ(0, step("release", "hold"));
	start(&self->forker, job_release, NULL);
	ASSERT_TRUE(wait_until(step_waiting("release") > 0));
	start(&self->second, job_fork, &fork_both);
	ASSERT_TRUE(wait_until(fg_state().forkers == 1));
	ASSERT_EQ(0, step("release", "go"));
	EXPECT_EQ(0, finish(&self->forker));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		EXPECT_EQ(0, finish(&crowd[i]));
	EXPECT_EQ(ARRAY_SIZE(crowd), fg_state().holders_count);
	EXPECT_TRUE(wait_until(fg_waiting(&self->second, 1)));
	for (i = 0; i < ARRAY_SIZE(crowd); i++)
		EXPECT_EQ(0, run(&crowd[i], job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->second));
}

/*
 * Tickets
 */

static void hold_tickets_for(uint64_t time)
{
	struct forkgate_policy policy = fg_policy();

	policy.ticket_hold = time;
	fg_set_policy(&policy);
}

/* It ran out before PREPARE had even returned; then somebody got in. */
TEST_F(step, ticket_expired_before_it_was_seen)
{
	hold_tickets_for(FG_MILLISECOND);
	ASSERT_EQ(0, step("prepared", "hold"));
	start(&self->forker, job_prepare, ARG(FG_BOTH));
	ASSERT_TRUE(HELD("prepared"));
	ASSERT_TRUE(wait_until(fg_state().expired == 1));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	ASSERT_EQ(0, step("prepared", "go"));
	EXPECT_EQ(0, finish(&self->forker));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/* It runs out between the start of its clone and the check: checked all the same. */
TEST_F(step, ticket_expires_at_the_begin_of_its_clone)
{
	hold_tickets_for(200 * FG_MILLISECOND);
	ASSERT_EQ(0, step("begin", "hold"));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	start(&self->forker, job_fork, &fork_both);
	ASSERT_TRUE(HELD("begin"));
	ASSERT_TRUE(wait_until(fg_state().expired == 1));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	ASSERT_EQ(0, step("begin", "go"));
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

/*
 * Once its clone has begun, it does not run out any more: nobody gets in
 * before the copy is done.
 */
TEST_F(step, ticket_does_not_expire_in_its_clone)
{
	uint64_t begin, expired;

	hold_tickets_for(200 * FG_MILLISECOND);
	/* If it runs out before its clone begins, because the machine is busy: once more. */
	for (;;) {
		expired = fg_state().expired;
		ASSERT_GT(50, expired);
		ASSERT_EQ(0, step("grant", "hold"));
		ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
		start(&self->forker, job_fork, &fork_both);
		ASSERT_TRUE(HELD("grant"));
		if (fg_state().expired == expired)
			break;
		ASSERT_EQ(0, step("grant", "go"));
		ASSERT_EQ(0, finish_fork(&self->forker));
	}
	start(&self->late, job_hold, ARG(FG_MEMORY));
	ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	/* Give it the chance. */
	begin = now_ms();
	ASSERT_TRUE(wait_until(now_ms() > begin + 400));
	EXPECT_EQ(expired, fg_state().expired);
	EXPECT_EQ(1, fg_state().blocked);
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, run(&self->late, job_drop, ARG(FG_MEMORY)));
}

/*
 * Granted with a ticket, its clone was interrupted before it copied, and then
 * has to wait for somebody who was inside the other domain: still a prepared
 * clone, whose caller is told to prepare again.
 */
static int handler_stay, handler_runs;

static void handler_stays(int signo)
{
	__atomic_add_fetch(&handler_runs, 1, __ATOMIC_SEQ_CST);
	while (READ_ONCE(handler_stay))
		fg_futex(&handler_stay, FUTEX_WAIT, 1, NULL);
}

TEST_F(step, prepared_clone_interrupted_after_the_grant)
{
	struct sigaction action = { .sa_handler = handler_stays };
	struct forkgate_policy policy = fg_policy();

	sigaction(SIGUSR1, &action, NULL);
	WRITE_ONCE(handler_stay, 1);
	policy.patience = FG_MILLISECOND;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_EQ(0, run(&self->late, job_enter, ARG(FG_FILES)));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_MEMORY)));
	policy.ticket_hold = 10 * FG_SECOND;
	policy.backstop = 10 * FG_MILLISECOND;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_TRUE(copying(&self->forker, &fork_memory));
	ASSERT_EQ(0, syscall(__NR_tgkill, getpid(), self->forker.tid, SIGUSR1));
	ASSERT_EQ(0, step("grant", "go"));
	ASSERT_TRUE(wait_until(READ_ONCE(handler_runs) == 1));
	EXPECT_EQ(0, run(&self->late, job_enter, ARG(FG_MEMORY)));
	WRITE_ONCE(handler_stay, 0);
	fg_futex(&handler_stay, FUTEX_WAKE, 1, NULL);
	EXPECT_EQ(-EAGAIN, finish(&self->forker));
	EXPECT_EQ(FORKGATE_OUTCOME_EXPIRED, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(0, fg_state().timeouts);
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FG_BOTH)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
}

/*
 * Killed at any step: a process that shares the memory, so that the gate and
 * everybody else live on.
 */

static int sharer_ready, sharer_go;

static int sharer_forks(void)
{
	WRITE_ONCE(sharer_ready, 1);
	while (!READ_ONCE(sharer_go))
		fg_futex(&sharer_go, FUTEX_WAIT, 0, NULL);
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
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_spawn(&self->spawner));
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
	ASSERT_EQ(0, worker_new(&self->late));
}

FIXTURE_TEARDOWN(killed)
{
	steps_reset();
}

TEST_F(killed, everybody_else_goes_on)
{
	bool begin = !strcmp(variant->at, "begin");
	pid_t pid;

	pid = run(&self->spawner, job_sharer, NULL);
	ASSERT_LT(0, pid);
	ASSERT_TRUE(wait_until(READ_ONCE(sharer_ready)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, step(variant->at, "hold"));
	WRITE_ONCE(sharer_go, 1);
	fg_futex(&sharer_go, FUTEX_WAKE, 1, NULL);
	if (variant->after_a_wait) {
		ASSERT_TRUE(wait_until(fg_state().forkers == 1 && fg_asleep(pid)));
		start(&self->late, job_enter, ARG(FG_BOTH));
		ASSERT_TRUE(wait_until(fg_state().blocked == 1));
		ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
		ASSERT_TRUE(HELD(variant->at));
	} else {
		ASSERT_TRUE(HELD(variant->at));
		start(&self->late, job_enter, ARG(FG_BOTH));
		if (!begin)
			ASSERT_TRUE(wait_until(fg_state().blocked == 1));
	}
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
	EXPECT_EQ(0, finish(&self->late));
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, gate.head->closed);
	if (!variant->after_a_wait)
		EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	EXPECT_EQ(0, run(&self->late, job_leave, ARG(FG_BOTH)));
	ASSERT_EQ(0, steps_reset());
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &fork_both)));
}

/*
 * The gate ends while somebody is at any step
 */

FIXTURE(ended) {
	struct worker holder, actor, other;
};

FIXTURE_VARIANT(ended) {
	const char *at;
	long (*job)(void *arg);
	void *arg;
	bool needs_holder;	/* who leaves before "at" is reached, if needs_wake */
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

ACTING(enter, job_enter, FG_MEMORY, .needs_ticket = true);
ACTING(blocked, job_enter, FG_MEMORY, .needs_ticket = true);
ACTING(prepared, job_prepare, FG_BOTH);

FIXTURE_SETUP(ended)
{
	if (!setup_steps())
		SKIP(return, NO_STEPS);
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->actor));
	ASSERT_EQ(0, worker_new(&self->other));
}

FIXTURE_TEARDOWN(ended)
{
	steps_reset();
}

TEST_F(ended, by_munmap)
{
	long ret;

	if (variant->needs_ticket)
		ASSERT_EQ(0, run(&self->other, job_prepare, ARG(FG_BOTH)));
	if (variant->needs_holder)
		ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	ASSERT_EQ(0, step(variant->at, "hold"));
	start(&self->actor, variant->job, variant->arg);
	if (variant->needs_wake) {
		ASSERT_TRUE(wait_until(fg_waiting(&self->actor, 1)));
		ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
	}
	ASSERT_TRUE(HELD(variant->at));
	ASSERT_EQ(0, munmap(gate.head, FORKGATE_MAP_SIZE));
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
	ASSERT_EQ(0, fg_map());
	ASSERT_LE(0, fg_register());
	ASSERT_LE(0, run(&self->actor, job_register, &self->actor));
	EXPECT_EQ(0, fg_enter(FG_BOTH));
	EXPECT_EQ(0, fg_leave(FG_BOTH));
	EXPECT_EQ(0, child_exit(run(&self->actor, job_fork, &fork_both)));
}

/*
 * Everything slow at once: any order of steps comes up
 */

static int stop;

static long job_enter_on(void *domains)
{
	long ret;

	while (!READ_ONCE(stop)) {
		ret = job_hold(ARG(FG_MEMORY));
		if (!ret)
			ret = fg_enter((uintptr_t)domains);
		if (!ret)
			ret = fg_leave((uintptr_t)domains);
		if (!ret)
			ret = job_drop(ARG(FG_MEMORY));
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

FIXTURE(slow) {
	struct worker a, b, c, d;
};

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

FIXTURE_SETUP(slow)
{
	struct forkgate_policy policy = fg_patient;

	if (!setup_steps())
		SKIP(return, NO_STEPS);
	ASSERT_LE(0, fg_setup());
	/* Yields come up too, but nothing times out. */
	policy.patience = 10 * FG_MILLISECOND;
	ASSERT_EQ(0, fg_set_policy(&policy));
	ASSERT_EQ(0, worker_new(&self->a));
	ASSERT_EQ(0, worker_new(&self->b));
	ASSERT_EQ(0, worker_new(&self->c));
	ASSERT_EQ(0, worker_new(&self->d));
}

FIXTURE_TEARDOWN(slow)
{
	steps_reset();
}

TEST_F(slow, step)
{
	ASSERT_EQ(0, step(variant->at, "delay 3000"));
	start(&self->a, job_enter_on, ARG(FG_MEMORY));
	start(&self->b, job_enter_on, ARG(FG_FILES));
	start(&self->c, job_fork_on, NULL);
	start(&self->d, job_fork_on, NULL);
	EXPECT_EQ(0, finish(&self->c));
	EXPECT_EQ(0, finish(&self->d));
	WRITE_ONCE(stop, 1);
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, fg_state().forkers);
	EXPECT_EQ(0, fg_state().blocked);
	EXPECT_EQ(0, fg_state().holders_count);
}

TEST_HARNESS_MAIN
