// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 14: never fails silently. A copy that reaches the mapping without
 * having passed the hook is noticed, counted, reported, and readable in the
 * child. While all is well, the hook sees every clone. HEALTH's "armed" says
 * what is true now.
 */
#include "test/harness.h"
#include "test/kmsg.h"
#include "test/step.h"

#include <sys/stat.h>

#define FTRACE		"/proc/sys/kernel/ftrace_enabled"
#define INSTANCE	"/sys/kernel/tracing/instances/forkgate_bypass"

/* A bypassed child is a good process with a good gate, and it is told what it is. */
static int child_bypassed(void)
{
	struct forkgate_state state = gate_state();

	if (gate.head->copy != FORKGATE_COPY_BYPASSED)
		return 1;
	if (state.threads != 1 || state.closed || state.forkers || state.bypasses)
		return 2;
	if (slot->tid != (unsigned int)sys_gettid() || slot->depth[0] != 1)
		return 3;
	if (gate_enter(BOTH) || gate_leave(BOTH) || gate_leave(MEMORY))
		return 4;
	return gate_prepare(BOTH) || gate_release() ? 5 : 0;
}

static struct fork_how check = { 0, child_bypassed };

FIXTURE_WORKERS(hook, holder, forker);

TEST_F(hook, is_armed)
{
	EXPECT_EQ(1, gate_health().armed);
	EXPECT_EQ(0, run_fork(&self->forker, &ask_both));
	EXPECT_EQ(0, gate_state().bypasses);
}

TEST_F(hook, counts_clones)
{
	uint64_t clones = gate_health().clones, redirects = gate_health().redirects;
	int i;

	for (i = 0; i < 10; i++)
		EXPECT_EQ(0, run_fork(&self->forker, &ask_both));
	EXPECT_LE(clones + 10, gate_health().clones);
	EXPECT_LE(redirects + 10, gate_health().redirects);
}

/* In the kernel's own tree kernel_clone() calls the hook. */
static bool hook_is_called(void)
{
	return kernel_has("fork_gate_register");
}

static bool hook_is_kprobe(void)
{
	return KPROBE_HOOK && !hook_is_called();
}

/* A hook that is no kprobe has no switch. */
TEST_F(hook, has_no_switch)
{
	if (hook_is_kprobe())
		SKIP(return, "the hook is a kprobe here");
	if (hook_is_called())
		write_file(FTRACE, "0");	/* which newer kernels refuse */
	else
		EXPECT_EQ(-EBUSY, write_file(FTRACE, "0"));
	ASSERT_EQ(0, write_file(KPROBES, "0"));
	EXPECT_EQ(1, gate_health().armed);
	EXPECT_EQ(0, run_fork(&self->forker, &ask_both));
	EXPECT_EQ(0, gate_state().bypasses);
	EXPECT_EQ(0, write_file(KPROBES, "1"));
	write_file(FTRACE, "1");
}

FIXTURE(off) {
	struct worker holder, forker;
	char before[16];
	uint64_t bypasses;
};

FIXTURE_VARIANT(off) {
	const char *file;
};

FIXTURE_VARIANT_ADD(off, kprobes) { .file = KPROBES };
FIXTURE_VARIANT_ADD(off, ftrace) { .file = FTRACE };

FIXTURE_SETUP(off)
{
	if (!hook_is_kprobe())
		SKIP(return, "the hook has no switch here, see has_no_switch");
	if (read_file(variant->file, self->before, sizeof(self->before)) <= 0 ||
	    access(variant->file, W_OK))
		SKIP(return, "cannot write %s", variant->file);
	ASSERT_EQ(0, setup_workers(&self->holder, 2));
	self->bypasses = gate_health().bypasses;
	/* Newer kernels refuse this for ftrace (EOPNOTSUPP). */
	if (write_file(variant->file, "0"))
		SKIP(return, "cannot write %s", variant->file);
}

FIXTURE_TEARDOWN(off)
{
	write_file(variant->file, "1");
}

/* The child of a child that has not touched its slot has one all the same. */
static int grandchild_bypassed(void)
{
	if (slot->tid != (unsigned int)sys_gettid() || gate_state().threads != 1)
		return 1;
	if (gate_enter(MEMORY) || gate_state().holders_count != 1)
		return 2;
	return gate_leave_by_call(MEMORY) ? 3 : 0;
}

static int child_bypasses_again(void)
{
	return child_exit(raw_fork(0, grandchild_bypassed));
}

TEST_F(off, grandchild_has_a_slot)
{
	struct fork_how how = { 0, child_bypasses_again };

	EXPECT_EQ(0, run_fork(&self->forker, &how));
}

TEST_F(off, is_noticed_and_readable)
{
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(MEMORY)));
	EXPECT_EQ(0, run_fork(&self->forker, &check));
	EXPECT_EQ(1, gate_state().bypasses);
	EXPECT_EQ(self->bypasses + 1, gate_health().bypasses);
	EXPECT_EQ(0, gate.head->copy);
	EXPECT_EQ(FORKGATE_OUTCOME_BYPASSED, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(MEMORY)));
}

/* A child that shares the memory has no header of its own: the slot that the two share tells. */
TEST_F(off, vfork_is_noticed)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_vfork, child_nothing)));
	EXPECT_EQ(FORKGATE_OUTCOME_BYPASSED, run(&self->forker, job_outcome, NULL));
	EXPECT_EQ(1, gate_state().bypasses);
	EXPECT_EQ(self->bypasses + 1, gate_health().bypasses);
	EXPECT_EQ(0, gate.head->copy);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	ASSERT_EQ(0, write_file(variant->file, "1"));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_vfork, child_nothing)));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&self->forker, job_outcome, NULL));
}

/* A thread is no copy. */
TEST_F(off, thread_is_no_bypass)
{
	struct worker fresh;

	EXPECT_EQ(0, worker_new(&fresh));
	EXPECT_EQ(0, gate_state().bypasses);
	EXPECT_EQ(FORKGATE_OUTCOME_NONE, slot->outcome);
}

/* No clone of the process is needed to find out, either way. */
TEST_F(off, is_not_armed)
{
	EXPECT_EQ(0, gate_health().armed);
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, run_fork(&self->forker, &ask_both));
	EXPECT_EQ(0, gate_health().armed);
	ASSERT_EQ(0, write_file(variant->file, "1"));
	/* A clone of the module's own finds out, at most one a second. */
	EXPECT_TRUE(wait_until(gate_health().armed == 1));
	EXPECT_EQ(0, run_fork(&self->forker, &ask_both));
	EXPECT_EQ(1, gate_health().armed);
}

/* Nothing delays such a fork, not even a section: that is what is wrong with it. */
TEST_F(off, does_not_wait)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, run_fork(&self->forker, &ask_both));
	EXPECT_EQ(1, gate_state().bypasses);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/* A ticket is neither consumed nor believed. */
TEST_F(off, ticket_does_not_help)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, run_fork(&self->forker, &ask_both));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(off, unregistered_thread)
{
	ASSERT_EQ(0, run(&self->forker, job_unregister, NULL));
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, run_fork(&self->forker, &ask_both));
	EXPECT_EQ(1, gate_state().bypasses);
}

TEST_F(off, is_over_afterwards)
{
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, run_fork(&self->forker, &ask_both));
	ASSERT_EQ(0, write_file(variant->file, "1"));
	EXPECT_EQ(0, run_fork(&self->forker, &ask_both));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	EXPECT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, gate_state().bypasses);
}

TEST_F(off, leaves_a_message)
{
	int log = kmsg_open();

	if (log < 0)
		SKIP(return, "no /dev/kmsg: %s", strerror(errno));
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, run_fork(&self->forker, &ask_both));
	EXPECT_TRUE(kmsg_find(log, "without passing", ""));
}

TEST_F(off, leaves_a_trace_event)
{
	static char text[1 << 18];
	char forker[32];

	if (mkdir(INSTANCE, 0755) && errno != EEXIST)
		SKIP(return, "no tracefs: %s", strerror(errno));
	ASSERT_EQ(0, write_file(INSTANCE "/events/forkgate/bypass/enable", "1"));
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, run_fork(&self->forker, &ask_both));
	snprintf(forker, sizeof(forker), "forker=%d", self->forker.tid);
	EXPECT_TRUE(wait_until(read_file(INSTANCE "/trace", text, sizeof(text)) > 0 &&
			       strstr(text, " bypass: ") && strstr(text, forker)));
	write_file(INSTANCE "/events/forkgate/enable", "0");
	rmdir(INSTANCE);
}

/*
 * Those who ask whether the hook still works do so together, however often it is
 * bypassed meanwhile: one user must not keep others waiting.
 */
FIXTURE_WORKERS(trial, forker, first, second, third, fourth);

static long job_health(void *unused)
{
	return gate_health().armed;
}

/* bypass - let a fork go past the hook once; what its child says of its copy */
static int bypass(struct worker *forker)
{
	int copy;

	if (write_file(KPROBES, "0"))
		return -1;
	copy = run_fork(forker, &ask_both);
	write_file(KPROBES, "1");
	return copy;
}

TEST_F(trial, is_shared)
{
	if (!hook_is_kprobe())
		SKIP(return, "the hook has no switch here");
	if (!have_steps() || steps_reset() || access(KPROBES, W_OK))
		SKIP(return, NO_STEPS);
	ASSERT_EQ(FORKGATE_COPY_BYPASSED, bypass(&self->forker));
	ASSERT_EQ(0, step("trial", "hold"));
	start(&self->first, job_health, NULL);
	ASSERT_TRUE(held("trial"));
	ASSERT_EQ(FORKGATE_COPY_BYPASSED, bypass(&self->forker));
	start(&self->second, job_health, NULL);
	start(&self->third, job_health, NULL);
	start(&self->fourth, job_health, NULL);
	ASSERT_TRUE(wait_until(task_asleep(self->second.tid) && task_asleep(self->third.tid) &&
			       task_asleep(self->fourth.tid)));
	/* What has begun before they asked tells them nothing. */
	ASSERT_EQ(0, step("trial", "one"));
	EXPECT_EQ(1, finish(&self->first));
	ASSERT_TRUE(held("trial"));
	EXPECT_TRUE(busy(&self->second) && busy(&self->third) && busy(&self->fourth));
	ASSERT_EQ(FORKGATE_COPY_BYPASSED, bypass(&self->forker));
	ASSERT_EQ(0, step("trial", "one"));
	EXPECT_EQ(1, finish(&self->second));
	EXPECT_EQ(1, finish(&self->third));
	EXPECT_EQ(1, finish(&self->fourth));
	EXPECT_EQ(0, steps_reset());
}

/*
 * One whose thread is kept from running, in the middle of it, does not keep
 * others waiting: the trial is nobody's.
 */
TEST_F(trial, is_nobodys)
{
	struct worker *done = &self->first, *other = &self->second;

	if (!hook_is_kprobe())
		SKIP(return, "the hook has no switch here");
	if (!have_steps() || steps_reset() || access(KPROBES, W_OK))
		SKIP(return, NO_STEPS);
	ASSERT_EQ(0, step("trial", "hold"));
	ASSERT_EQ(0, step("asked", "hold"));
	ASSERT_EQ(FORKGATE_COPY_BYPASSED, bypass(&self->forker));
	start(&self->first, job_health, NULL);
	ASSERT_TRUE(held("asked"));
	ASSERT_TRUE(held("trial"));
	/* The clone that was tried came through the hook. */
	ASSERT_EQ(FORKGATE_COPY_BYPASSED, bypass(&self->forker));
	start(&self->second, job_health, NULL);
	ASSERT_TRUE(wait_until(step_waiting("asked") == 2));
	ASSERT_EQ(0, step("trial", "go"));
	ASSERT_EQ(0, step("asked", "one"));
	ASSERT_TRUE(one_done(&done, &other));
	EXPECT_EQ(1, finish(done));
	EXPECT_TRUE(busy(other));
	EXPECT_EQ(0, steps_reset());
	EXPECT_EQ(1, finish(other));
}

TEST_HARNESS_MAIN
