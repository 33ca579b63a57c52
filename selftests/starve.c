// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 6: neither side starves. Forkers that may always join a phase, because
 * nobody is kept out by a drain (patience 0) or because they are inside a
 * section themselves, do not prolong it without end: once a newcomer has waited
 * through a grant, the next grants are only for those who were there.
 */
#include <sys/resource.h>

#include "test/harness.h"
#include "test/step.h"
#include "test/tracefs.h"

#define FORKERS		8
#define ROUNDS		10

FIXTURE(starve) {
	struct worker newcomer, forker[FORKERS];
};

FIXTURE_VARIANT(starve) {
	uint64_t patience;
	unsigned int inside;	/* domains that the forkers are inside of */
	struct fork_how *how;
};

FIXTURE_VARIANT_ADD(starve, without_patience) {
	.patience = 0,
	.how = &fork_both,
};

FIXTURE_VARIANT_ADD(starve, inside_a_section) {
	.patience = FORKGATE_FOREVER,
	.inside = FILES,
	.how = &fork_memory,
};

FIXTURE_VARIANT_ADD(starve, inside_without_patience) {
	.patience = 0,
	.inside = FILES,
	.how = &fork_memory,
};

FIXTURE_SETUP(starve)
{
	int i;

	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, change_policy(patience, variant->patience));
	ASSERT_EQ(0, worker_new(&self->newcomer));
	ASSERT_EQ(0, workers_new(self->forker, FORKERS));
	for (i = 0; variant->inside && i < FORKERS; i++)
		ASSERT_EQ(0, run(&self->forker[i], job_enter, ARG(variant->inside)));
}

FIXTURE_TEARDOWN(starve)
{
	trace_teardown();
	if (have_steps())
		steps_reset();
}

static long job_pass(void *domains)
{
	long ret = gate_enter((uintptr_t)domains);

	return ret ? ret : gate_leave((uintptr_t)domains);
}

/*
 * Two forkers take turns: each arrives while the other copies, and only then may
 * the other's copy end.
 */
TEST_F(starve, turns)
{
	struct worker *copies, *comes, *ends;
	int i, grants;
	long sleeps;

	if (!have_steps() || steps_reset())
		SKIP(return, NO_STEPS);
	ASSERT_EQ(0, step("grant", "hold"));
	copies = &self->forker[0];
	comes = &self->forker[1];
	start(copies, job_fork, variant->how);
	ASSERT_TRUE(wait_until(step_waiting("grant") == 1));
	start(&self->newcomer, job_pass, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	grants = 0;
	for (i = 0; i < ROUNDS; i++) {
		sleeps = step_hits("sleep");
		start(comes, job_fork, variant->how);
		ASSERT_TRUE(wait_until(step_waiting("grant") == 2 || step_hits("sleep") > sleeps));
		if (step_waiting("grant") != 2)
			break;
		grants++;
		ASSERT_EQ(0, step("grant", "one"));
		ASSERT_TRUE(wait_until(!busy(copies) || !busy(comes)));
		ends = busy(copies) ? comes : copies;
		EXPECT_EQ(0, finish_fork(ends));
		copies = busy(copies) ? copies : comes;
		comes = ends;
		if (!busy(&self->newcomer))
			break;
	}
	/* The second may be granted before the newcomer has waited through a grant. */
	EXPECT_GE(2, grants) {
		TH_LOG("%d grants, the newcomer %s", grants,
		       busy(&self->newcomer) ? "waits" : "is in");
	}
	ASSERT_EQ(0, step("grant", "go"));
	EXPECT_EQ(0, finish_fork(copies));
	EXPECT_EQ(0, finish(&self->newcomer));
	if (comes->state != WORKER_IDLE)
		EXPECT_EQ(0, finish_fork(comes));
}

static int stop;

static long job_fork_on(void *how)
{
	long ret = 0;

	while (!ret && !READ_ONCE(stop))
		ret = child_exit(job_fork(how));
	return ret;
}

/*
 * most_grants - during one wait of a thread, according to the trace
 *
 * Nothing is granted once it is in, so what counts is between the start of its
 * wait and its return. @waits is how often it waited.
 */
static int most_grants(char *line, pid_t tid, int *waits)
{
	int most = 0, grants = -1;

	for (; *line; line = trace_next(line)) {
		if (strstr(line, ": enter_wait:") && trace_of(line, tid)) {
			grants = 0;
			++*waits;
		} else if (strstr(line, ": enter_go:") && trace_of(line, tid)) {
			grants = -1;
		} else if (grants >= 0 && strstr(line, ": grant:") && ++grants > most) {
			most = grants;
		}
	}
	return most;
}

/* Return: 1 if it had to sleep for its entry, or an error */
static long job_pass_slept(void *domains)
{
	struct rusage before, after;
	long ret;

	getrusage(RUSAGE_THREAD, &before);
	ret = gate_enter((uintptr_t)domains);
	getrusage(RUSAGE_THREAD, &after);
	ret = ret ?: gate_leave((uintptr_t)domains);
	return ret ?: after.ru_nvcsw > before.ru_nvcsw;
}

/* As many forkers as there are, and chance */
TEST_F(starve, storm)
{
	int i, most, slept = 0, waits = 0;
	long ret;

	if (!trace_setup("forkgate"))
		SKIP(return, NO_TRACEFS);
	ASSERT_EQ(0, trace_event("forkgate"));
	for (i = 0; i < FORKERS; i++)
		start(&self->forker[i], job_fork_on, variant->how);
	for (i = 0; i < 3 * ROUNDS || (!slept && i < 1000 * ROUNDS); i++) {
		ret = run(&self->newcomer, job_pass_slept, ARG(MEMORY));
		ASSERT_LE(0, ret);
		slept += ret;
	}
	WRITE_ONCE(stop, 1);
	for (i = 0; i < FORKERS; i++)
		EXPECT_EQ(0, finish(&self->forker[i]));
	most = most_grants(trace_stop(), self->newcomer.tid, &waits);
	TH_LOG("%d waits, at most %d grants of %d forkers in one", waits, most, FORKERS);
	EXPECT_LT(0, waits);
	EXPECT_GE(3 * FORKERS, most);
}

TEST_HARNESS_MAIN
