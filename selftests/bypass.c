// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 14: never fails silently. A copy that reaches the mapping without
 * having passed the hook is noticed, counted, reported, and readable in the
 * child. And while all is well, the hook sees every clone.
 */
#include "forkgate_test.h"

#define KPROBES		"/sys/kernel/debug/kprobes/enabled"
#define FTRACE		"/proc/sys/kernel/ftrace_enabled"
#define INSTANCE	"/sys/kernel/tracing/instances/forkgate_bypass"

static struct forkgate_health health(void)
{
	struct forkgate_health health = {};

	fg_call(FORKGATE_IOC_HEALTH, &health);
	return health;
}

static int child_copy(void)
{
	return gate.head->copy;
}

/* A bypassed child is a good process with a good gate, but for what it was told. */
static int child_bypassed(void)
{
	struct forkgate_state state = fg_state();

	if (gate.head->copy != FORKGATE_COPY_BYPASSED)
		return 1;
	if (state.threads != 1 || state.closed || state.forkers || state.bypasses)
		return 2;
	if (slot->tid != (unsigned int)fg_gettid() || slot->depth[0] != 1)
		return 3;
	if (fg_enter(FG_BOTH) || fg_leave(FG_BOTH) || fg_leave(FG_MEMORY))
		return 4;
	return fg_prepare(FG_BOTH) || fg_release() ? 5 : 0;
}

static struct fork_how ask = { 0, child_copy };
static struct fork_how check = { 0, child_bypassed };

FIXTURE(hook) {
	struct worker holder, forker;
};

FIXTURE_SETUP(hook)
{
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
}

FIXTURE_TEARDOWN(hook)
{
}

TEST_F(hook, is_armed)
{
	EXPECT_EQ(1, health().armed);
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &ask)));
	EXPECT_EQ(0, fg_state().bypasses);
}

TEST_F(hook, counts_clones)
{
	uint64_t clones = health().clones, redirects = health().redirects;
	int i;

	for (i = 0; i < 10; i++)
		EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &ask)));
	EXPECT_LE(clones + 10, health().clones);
	EXPECT_LE(redirects + 10, health().redirects);
}

FIXTURE(off) {
	struct worker holder, forker;
	char before[16];
	uint64_t bypasses;
};

FIXTURE_VARIANT(off) {
	const char *file;
	const char *value;
};

FIXTURE_VARIANT_ADD(off, kprobes) { .file = KPROBES, .value = "0" };
FIXTURE_VARIANT_ADD(off, ftrace) { .file = FTRACE, .value = "0" };

FIXTURE_SETUP(off)
{
	if (fg_read_file(variant->file, self->before, sizeof(self->before)) <= 0 ||
	    access(variant->file, W_OK))
		SKIP(return, "cannot write %s", variant->file);
	ASSERT_LE(0, fg_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
	self->bypasses = health().bypasses;
	if (fg_write_file(variant->file, variant->value))
		SKIP(return, "cannot write %s", variant->file);
}

FIXTURE_TEARDOWN(off)
{
	fg_write_file(variant->file, "1");
}

TEST_F(off, is_noticed_and_readable)
{
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &check)));
	EXPECT_EQ(1, fg_state().bypasses);
	EXPECT_EQ(self->bypasses + 1, health().bypasses);
	EXPECT_EQ(0, gate.head->copy);
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(FG_MEMORY)));
}

/* Nothing holds such a fork up, not even a section: that is what is wrong with it. */
TEST_F(off, does_not_wait)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FG_MEMORY)));
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, child_exit(run(&self->forker, job_fork, &ask)));
	EXPECT_EQ(1, fg_state().bypasses);
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(FG_MEMORY)));
}

/* With a ticket held, too: it is neither used up nor believed. */
TEST_F(off, ticket_does_not_help)
{
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FG_BOTH)));
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, child_exit(run(&self->forker, job_fork, &ask)));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, gate.head->closed);
}

TEST_F(off, unregistered_thread)
{
	ASSERT_EQ(0, run(&self->forker, job_unregister, NULL));
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, child_exit(run(&self->forker, job_fork, &ask)));
	EXPECT_EQ(1, fg_state().bypasses);
}

TEST_F(off, is_over_afterwards)
{
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, child_exit(run(&self->forker, job_fork, &ask)));
	ASSERT_EQ(0, fg_write_file(variant->file, "1"));
	EXPECT_EQ(0, child_exit(run(&self->forker, job_fork, &ask)));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FG_MEMORY)));
	start(&self->forker, job_fork, &fork_both);
	EXPECT_TRUE(wait_until(fg_waiting(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FG_MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(1, fg_state().bypasses);
}

TEST_F(off, leaves_a_message)
{
	int log = fg_kmsg_open();

	if (log < 0)
		SKIP(return, "no /dev/kmsg: %s", strerror(errno));
	/* Messages are limited in number: until one comes. */
	EXPECT_TRUE(wait_until(child_exit(run(&self->forker, job_fork, &ask)) ==
			       FORKGATE_COPY_BYPASSED && fg_kmsg_find(log, "without passing", "")));
}

TEST_F(off, leaves_a_trace_event)
{
	static char text[1 << 18];
	char forker[32];

	if (mkdir(INSTANCE, 0755) && errno != EEXIST)
		SKIP(return, "no tracefs: %s", strerror(errno));
	ASSERT_EQ(0, fg_write_file(INSTANCE "/events/forkgate/bypass/enable", "1"));
	EXPECT_EQ(FORKGATE_COPY_BYPASSED, child_exit(run(&self->forker, job_fork, &ask)));
	snprintf(forker, sizeof(forker), "forker=%d", self->forker.tid);
	EXPECT_TRUE(wait_until(fg_read_file(INSTANCE "/trace", text, sizeof(text)) > 0 &&
			       strstr(text, " bypass: ") && strstr(text, forker)));
	fg_write_file(INSTANCE "/events/forkgate/enable", "0");
	rmdir(INSTANCE);
}

TEST_HARNESS_MAIN
