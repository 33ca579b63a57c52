// SPDX-License-Identifier: GPL-2.0-only
/*
 * ftrace and kprobes switched off under the module: the gate's clones go
 * through unseen by the hook, and that is noticed by the child, the gate, the
 * machine's counters and the kernel's log; "armed" says so before there is a
 * clone. Switched on again, all is well; switched off, the module refuses to
 * load.
 */
#include "coexist.h"
#include "../test/kmsg.h"

FIXTURE(off)
{
	bool loaded;
	unsigned long trouble;
	char before[20];
	int log;
};

FIXTURE_VARIANT(off)
{
	const char *path;
};

FIXTURE_VARIANT_ADD(off, ftrace)
{
	.path = "/proc/sys/kernel/ftrace_enabled",
};

FIXTURE_VARIANT_ADD(off, kprobes)
{
	.path = "/sys/kernel/debug/kprobes/enabled",
};

/* switch_off - 0, -EBUSY while ftrace has a permanent user, -EOPNOTSUPP on newer kernels */
static int switch_off(const char *path)
{
	return write_file(path, "0");
}

static int switch_on(const char *path)
{
	return write_file(path, "1");
}

FIXTURE_SETUP(off)
{
	int ret;

	self->loaded = forkgate_loaded();
	self->trouble = kernel_trouble();
	if (geteuid())
		SKIP(return, "needs root");
	if (read_file(variant->path, self->before, sizeof(self->before)) <= 0)
		SKIP(return, "no %s", variant->path);
	if (access(module_path(), R_OK))
		SKIP(return, "no module at %s", module_path());
	if (!KPROBE_HOOK && !strcmp(variant->path, KPROBES))
		SKIP(return, "the hook is no kprobe here");
	ASSERT_EQ('1', self->before[0]);
	/* Anew, so that its counters know nothing of earlier tests. */
	if (self->loaded)
		ASSERT_EQ(0, forkgate_unload_idle());
	ASSERT_EQ(0, forkgate_load());
	ret = switch_off(variant->path);
	if (ret == -EBUSY || ret == -EOPNOTSUPP) {
		/* Refused, so the hook is as good as before. */
		ASSERT_LE(0, gate_setup());
		ASSERT_EQ(1, gate_health().armed);
		SKIP(return, "%s cannot be switched off here", variant->path);
	}
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, switch_on(variant->path));
	self->log = kmsg_open();
	ASSERT_LE(0, self->log);
}

FIXTURE_TEARDOWN(off)
{
	if (self->before[0])
		EXPECT_EQ(0, switch_on(variant->path));
	give_up_gate();
	if (self->loaded && !forkgate_loaded())
		EXPECT_EQ(0, forkgate_load());
	if (!self->loaded && forkgate_loaded())
		EXPECT_EQ(0, forkgate_unload_idle());
	EXPECT_EQ(self->trouble, kernel_trouble());
}

TEST_F(off, is_noticed)
{
	struct forkgate_health before, after;
	struct fork_how how = { .child = child_tells };
	struct worker forker, holder;

	ASSERT_EQ(0, setup_workers(&forker, 1));
	ASSERT_EQ(0, worker_new(&holder));
	for (int i = 1; i <= 2; i++) {
		before = gate_health();
		EXPECT_EQ(1, before.armed);
		ASSERT_EQ(0, switch_off(variant->path));
		EXPECT_EQ(0, gate_health().armed);
		ASSERT_EQ(0, run(&holder, job_hold, ARG(BOTH)));
		/* This clone does not wait, and its child is told. */
		EXPECT_EQ(CHILD_TORN | CHILD_BYPASSED, run_fork(&forker, &how));
		EXPECT_EQ(i, gate_state().bypasses);
		EXPECT_EQ(0, gate_state().closed);
		EXPECT_EQ(0, gate.head->copy);
		after = gate_health();
		EXPECT_EQ(before.bypasses + 1, after.bypasses);
		EXPECT_EQ(before.redirects, after.redirects);
		EXPECT_EQ(0, after.armed);
		if (i == 1)
			EXPECT_TRUE(kmsg_find(self->log, "gate", ""));
		ASSERT_EQ(0, switch_on(variant->path));

		/* The holder is still inside, and counts again. */
		start(&forker, job_fork, &how);
		ASSERT_TRUE(wait_until(!busy(&forker) || worker_waits(&forker, 1)));
		ASSERT_TRUE(busy(&forker));
		ASSERT_EQ(0, run(&holder, job_drop, ARG(BOTH)));
		EXPECT_EQ(0, finish_fork(&forker));
		EXPECT_EQ(i, gate_state().bypasses);
		EXPECT_EQ(1, gate_health().armed);
		EXPECT_LT(before.redirects, gate_health().redirects);
	}
}

/* The clone has entered the gate: it is kept there, and copied safely. */
TEST_F(off, while_a_clone_waits)
{
	struct fork_how how = { .child = child_tells };
	struct worker forker, holder;

	ASSERT_EQ(0, setup_workers(&forker, 1));
	ASSERT_EQ(0, worker_new(&holder));
	ASSERT_EQ(0, run(&holder, job_hold, ARG(BOTH)));
	ASSERT_TRUE(fork_waits(&forker, &how, 1));
	ASSERT_EQ(0, switch_off(variant->path));
	EXPECT_TRUE(wait_until(worker_waits(&forker, 1)));
	ASSERT_EQ(0, run(&holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&forker));
	EXPECT_EQ(0, gate_state().bypasses);
	EXPECT_EQ(0, gate_state().closed);
	ASSERT_EQ(0, switch_on(variant->path));
}

static int grandchild_tells(void)
{
	int grandchild = child_exit(raw_fork(0, child_tells));

	return grandchild << 4 | child_tells();
}

/* The child of a bypassed copy has a gate: it knows its past, its children do not. */
TEST_F(off, child_of_a_bypass)
{
	struct fork_how how = { .child = grandchild_tells };
	struct worker forker;

	ASSERT_EQ(0, setup_workers(&forker, 1));
	ASSERT_EQ(0, switch_off(variant->path));
	start(&forker, job_fork, &how);
	/* The hook does not see the child's clone either. */
	EXPECT_EQ(CHILD_BYPASSED << 4 | CHILD_BYPASSED, finish_fork(&forker));
	ASSERT_EQ(0, switch_on(variant->path));
	EXPECT_EQ(0, run_fork(&forker, &how));
}

/* No copy of memory, so no header that is the child's: the slot that the two share says it. */
TEST_F(off, shared_memory)
{
	struct worker forker;

	ASSERT_EQ(0, setup_workers(&forker, 1));
	ASSERT_EQ(0, switch_off(variant->path));
	EXPECT_EQ(0, run_fork(&forker, &fork_files));
	EXPECT_EQ(FORKGATE_OUTCOME_BYPASSED, run(&forker, job_outcome, NULL));
	EXPECT_EQ(1, gate_state().bypasses);
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate_state().closed);
	EXPECT_EQ(0, gate.head->copy);
	ASSERT_EQ(0, switch_on(variant->path));
	EXPECT_EQ(0, run_fork(&forker, &fork_files));
	EXPECT_EQ(FORKGATE_OUTCOME_GRANTED, run(&forker, job_outcome, NULL));
}

/* A granted ticket whose clone the hook does not see */
TEST_F(off, with_a_ticket)
{
	struct fork_how how = { .child = child_tells };
	struct worker forker, holder;

	ASSERT_EQ(0, setup_workers(&forker, 1));
	ASSERT_EQ(0, worker_new(&holder));
	ASSERT_EQ(0, run(&forker, job_prepare, ARG(BOTH)));
	ASSERT_EQ(0, switch_off(variant->path));
	EXPECT_EQ(CHILD_BYPASSED, run_fork(&forker, &how));
	ASSERT_EQ(0, switch_on(variant->path));
	/* Whatever has become of the ticket, it can be given back. */
	run(&forker, job_release, NULL);
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, gate_state().closed);
	ASSERT_EQ(0, run(&holder, job_hold, ARG(BOTH)));
	ASSERT_EQ(0, run(&holder, job_drop, ARG(BOTH)));
}

TEST_F(off, load_is_refused)
{
	int ret;

	ASSERT_EQ(0, forkgate_unload_idle());
	ASSERT_EQ(0, switch_off(variant->path));
	ret = forkgate_load();
	EXPECT_NE(0, ret);
	EXPECT_FALSE(forkgate_loaded());
	EXPECT_TRUE(kmsg_find(self->log, "", ""));
	ASSERT_EQ(0, switch_on(variant->path));
	ASSERT_EQ(0, forkgate_load());
}

/*
 * Unloading while it is off, then on: nothing of the module's is left armed.
 * Not for ftrace: kernels up to at least 6.12 lose all of ftrace when any
 * probe is removed while it is switched off.
 */
TEST_F(off, unload)
{
	struct probe *probe, result;

	if (strstr(variant->path, "ftrace"))
		SKIP(return, "the kernel's ftrace does not survive that");
	ASSERT_EQ(0, switch_off(variant->path));
	ASSERT_EQ(0, forkgate_unload_idle());
	ASSERT_EQ(0, switch_on(variant->path));
	probe = probe_start(false);
	ASSERT_NE(NULL, probe);
	result = probe_finish(probe);
	EXPECT_STREQ("", result.failed);
	ASSERT_EQ(0, forkgate_load());
	probe = probe_start(true);
	ASSERT_NE(NULL, probe);
	result = probe_finish(probe);
	EXPECT_STREQ("", result.failed);
	EXPECT_EQ(GATED_CLONES, result.waited);
	EXPECT_EQ(0, result.bypasses);
}

/* Off and on again and again while gated processes clone: never worse than a bypass */
TEST_F(off, flapping)
{
	struct probe *probe[4], result;

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 4; i++) {
			probe[i] = probe_start(true);
			ASSERT_NE(NULL, probe[i]);
		}
		for (int i = 0; i < 4; i++)
			__atomic_store_n(&probe[i]->go, 1, __ATOMIC_SEQ_CST);
		for (int i = 0; i < 5; i++) {
			ASSERT_EQ(0, switch_off(variant->path));
			ASSERT_EQ(0, switch_on(variant->path));
		}
		for (int i = 0; i < 4; i++) {
			result = probe_finish(probe[i]);
			EXPECT_STREQ("", result.failed);
			EXPECT_EQ(result.passed, result.bypassed);
			EXPECT_EQ(result.passed, result.bypasses);
			EXPECT_GE(result.passed, result.torn);
		}
	}
}

TEST_HARNESS_MAIN
