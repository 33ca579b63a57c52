// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 11: times of a prepare are durations, so that time namespaces mean nothing
 * to them.
 * Rule 8: a wait ends, however long it may take.
 */
#include "test/harness.h"
#include "test/tracefs.h"

static long job_prepare_timed(void *ns)
{
	return gate_prepare_with(MEMORY, FORKGATE_TIMED, *(uint64_t *)ns, 0, NULL);
}

FIXTURE(namespace) {
};

FIXTURE_VARIANT(namespace) {
	long seconds;
};

FIXTURE_VARIANT_ADD(namespace, ahead) { .seconds = 24 * 3600 };
FIXTURE_VARIANT_ADD(namespace, behind) { .seconds = -3 };

FIXTURE_SETUP(namespace)
{
	if (geteuid())
		SKIP(return, "needs root");
	if (access("/proc/self/timens_offsets", W_OK))
		SKIP(return, "no time namespaces");
}

FIXTURE_TEARDOWN(namespace)
{
}

/* one_second - in a process of the namespace: what went wrong, 0 if nothing */
static int one_second(void)
{
	struct worker holder, forker;
	uint64_t second = NSEC_PER_SEC, before;

	if (gate_setup() < 0 || worker_new(&holder) || worker_new(&forker))
		return 1;
	if (run(&holder, job_enter, ARG(MEMORY)))
		return 2;
	before = now_ms();
	start(&forker, job_prepare_timed, &second);
	switch (finish(&forker)) {
	case -ETIMEDOUT:
		break;
	case -ETIME:
		return 3;	/* it does not end */
	default:
		return 4;
	}
	return now_ms() - before < 1000 ? 5 : 0;
}

TEST_F(namespace, one_second)
{
	char text[64];
	pid_t pid;

	if (variant->seconds < 0 && now_ms() < 1000 * -variant->seconds)
		SKIP(return, "the machine has not been up for so long");
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		snprintf(text, sizeof(text), "monotonic %ld 0", variant->seconds);
		if (unshare(CLONE_NEWTIME))
			_exit(10);
		if (write_file("/proc/self/timens_offsets", text))
			_exit(11);
		pid = fork();
		_exit(pid ? child_exit(pid) : one_second());
	}
	EXPECT_EQ(0, child_exit(pid));
}

/*
 * Limits of more than an hour, which a test cannot wait for: the kernel must set
 * a timer for them.
 */

#define HOUR		(3600 * NSEC_PER_SEC)

FIXTURE(long_time) {
	struct worker holder, forker;
};

FIXTURE_VARIANT(long_time) {
	uint64_t limit;
};

FIXTURE_VARIANT_ADD(long_time, fifty_minutes) { .limit = 3000 * NSEC_PER_SEC };
FIXTURE_VARIANT_ADD(long_time, two_hours) { .limit = 2 * HOUR };
FIXTURE_VARIANT_ADD(long_time, a_week) { .limit = 7 * 24 * HOUR };

FIXTURE_SETUP(long_time)
{
	if (!trace_setup("timer"))
		SKIP(return, NO_TRACEFS);
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
}

FIXTURE_TEARDOWN(long_time)
{
	trace_teardown();
}

/*
 * longest_timer - of the timers that a thread set: how many seconds it has, at
 * least; -1: it set none
 */
static long longest_timer(char *line, pid_t tid)
{
	long longest = -1, left;
	char *at;

	for (; *line; line = trace_next(line)) {
		if (!trace_of(line, tid))
			continue;
		/* In jiffies, of which a second has at most 1000 */
		at = strstr(line, "[timeout=");
		left = at ? atol(at + 9) / 1000 : -1;
		at = strstr(line, " expires=");
		if (strstr(line, "hrtimer_start") && at)
			left = atoll(at + 9) / (long long)NSEC_PER_SEC - (long)(now_ms() / 1000);
		if (left > longest)
			longest = left;
	}
	return longest;
}

TEST_F(long_time, has_a_timer)
{
	uint64_t limit = variant->limit;
	long seconds;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, trace_event("timer/timer_start"));
	ASSERT_EQ(0, trace_event("timer/hrtimer_start"));
	start(&self->forker, job_prepare_timed, &limit);
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	seconds = longest_timer(trace_stop(), self->forker.tid);
	/* It may be set in parts. All others here are shorter. */
	EXPECT_LT(60, seconds);
	EXPECT_GT((long)(limit / NSEC_PER_SEC) + 60, seconds);
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
}

TEST_HARNESS_MAIN
