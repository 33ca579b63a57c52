// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 13: nothing that a user does costs another one, nor the kernel: no work
 * item is on a path that a user can load.
 */
#include "test/harness.h"
#include "test/tracefs.h"

#define ENTRIES		2000

FIXTURE(work) {
	struct worker nested, holder, forker;
};

FIXTURE_SETUP(work)
{
	if (!trace_setup("workqueue"))
		SKIP(return, NO_TRACEFS);
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&self->nested));
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
}

FIXTURE_TEARDOWN(work)
{
	trace_teardown();
}

static long job_in_and_out(void *domains)
{
	long ret = 0;
	int i;

	for (i = 0; i < ENTRIES && !ret; i++) {
		ret = gate_enter((uintptr_t)domains);
		if (!ret)
			ret = gate_leave((uintptr_t)domains);
	}
	return ret;
}

/* works - how much work of the module was queued, according to the trace */
static int works(char *line)
{
	int n = 0;

	for (; *line; line = trace_next(line))
		n += *line != '#' && strstr(line, "forkgate");
	return n;
}

/* A polled ticket waits for one thread, while another one goes in and out. */
TEST_F(work, entries_under_a_polled_ticket)
{
	int n;

	ASSERT_EQ(0, run(&self->nested, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_try_prepare, ARG(MEMORY)));
	ASSERT_EQ(0, trace_event("workqueue/workqueue_queue_work"));
	ASSERT_EQ(0, run(&self->nested, job_in_and_out, ARG(MEMORY)));
	n = works(trace_stop());
	EXPECT_GT(ENTRIES / 100, n) {
		TH_LOG("%d works for %d entries", n, ENTRIES);
	}
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_TRUE(wait_until(run(&self->forker, job_try_prepare, ARG(MEMORY)) == 0));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

TEST_HARNESS_MAIN
