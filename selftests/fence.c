// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 13: only processors that run a thread of the process are interrupted for
 * it. (schedule.c counts that those are.)
 */
#include "test/cpu.h"
#include "test/harness.h"

#define ROUNDS	2000

FIXTURE(fence) {
	int cpus;
};

FIXTURE_SETUP(fence)
{
	long counts[MAX_CPUS];
	cpu_set_t allowed;
	int i;

	self->cpus = function_calls(counts);
	if (self->cpus < 2)
		SKIP(return, "needs two CPUs, and /proc/interrupts to count function calls");
	ASSERT_EQ(0, sched_getaffinity(0, sizeof(allowed), &allowed));
	for (i = 0; i < self->cpus; i++) {
		if (!CPU_ISSET(i, &allowed))
			SKIP(return, "needs all CPUs");
	}
	ASSERT_LE(0, gate_setup());
}

FIXTURE_TEARDOWN(fence)
{
}

/* visit_all - run on every CPU once, and stay on the first */
static long visit_all(int cpus)
{
	long ret = 0;
	int i;

	for (i = cpus - 1; i >= 0 && !ret; i--)
		ret = job_pin(ARG(i));
	return ret;
}

static long job_tickets(void *rounds)
{
	long i, ret = 0;

	for (i = 0; i < (long)rounds && !ret; i++) {
		ret = gate_prepare(BOTH);
		if (!ret)
			ret = gate_release();
	}
	return ret;
}

/* Far fewer interrupts than tickets, on all CPUs but the first */
#define EXPECT_QUIET(before, cpus, what) ({						\
	long after_[MAX_CPUS];								\
	int cpu_;									\
											\
	ASSERT_EQ(cpus, function_calls(after_));					\
	for (cpu_ = 1; cpu_ < (cpus); cpu_++) {						\
		EXPECT_GT(ROUNDS / 10, after_[cpu_] - (before)[cpu_]) {			\
			TH_LOG("CPU %d, " what ": %ld interrupts", cpu_,		\
			       after_[cpu_] - (before)[cpu_]);				\
		}									\
	} })

/* The only thread was on all CPUs once; the others are idle since. */
TEST_F(fence, single_thread)
{
	long before[MAX_CPUS];

	ASSERT_EQ(0, visit_all(self->cpus));
	ASSERT_EQ(self->cpus, function_calls(before));
	ASSERT_EQ(0, job_tickets(ARG(ROUNDS)));
	EXPECT_QUIET(before, self->cpus, "idle");
}

/* On x86 not all kernels say which CPUs have an address space without running it. */
static bool idle_is_known(void)
{
	return !KPROBE_HOOK || kernel_has("cpu_tlbstate_shared");
}

/* Other threads sleep: their idle CPUs keep the address space without running it. */
TEST_F(fence, sleeping_threads)
{
	struct worker worker[3];
	long before[MAX_CPUS];
	int i, n = self->cpus - 1 < 3 ? self->cpus - 1 : 3;

	if (!idle_is_known())
		SKIP(return, "this kernel does not say which CPUs are idle");
	ASSERT_EQ(0, visit_all(self->cpus));
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, worker_new(&worker[i]));
		ASSERT_EQ(0, run(&worker[i], job_pin, ARG(i + 1)));
		ASSERT_TRUE(wait_until(task_asleep(worker[i].tid)));
	}
	ASSERT_EQ(self->cpus, function_calls(before));
	ASSERT_EQ(0, job_tickets(ARG(ROUNDS)));
	EXPECT_QUIET(before, self->cpus, "a thread sleeps there");
}

/* Other processes run on CPUs where this one was. */
TEST_F(fence, busy_neighbours)
{
	pid_t pid[MAX_CPUS];
	struct worker other;
	long before[MAX_CPUS];
	int i;

	ASSERT_EQ(0, worker_new(&other));
	ASSERT_EQ(0, run(&other, job_pin, ARG(0)));
	for (i = 1; i < self->cpus; i++) {
		pid[i] = fork();
		ASSERT_LE(0, pid[i]);
		if (!pid[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			job_pin(ARG(i));
			for (;;)
				barrier();
		}
	}
	for (i = 1; i < self->cpus; i++)
		ASSERT_TRUE(wait_until(task_state(pid[i]) == 'R'));
	/* Behind the forks, which have the kernel forget where the process has been. */
	ASSERT_EQ(0, visit_all(self->cpus));
	ASSERT_EQ(self->cpus, function_calls(before));
	ASSERT_EQ(0, job_tickets(ARG(ROUNDS)));
	EXPECT_QUIET(before, self->cpus, "another process runs there");
	for (i = 1; i < self->cpus; i++) {
		kill(pid[i], SIGKILL);
		child_exit(pid[i]);
	}
}

/*
 * A vfork child whose parent was killed between it and the thread that goes on:
 * it may count in that thread's slot, and sleeps.
 */
#define SURVIVED_ROUNDS	200	/* where it is not known which CPU runs it, a fence takes long */

static pid_t middle;
static int last_runs, last_may_end;

static int last_sleeps(void)
{
	latch_open(&last_runs);
	latch_wait(&last_may_end);
	return 0;
}

static int middle_vforks(void)
{
	WRITE_ONCE(middle, syscall(__NR_getpid));
	spawn_vm(CLONE_VFORK, last_sleeps);
	return 3;
}

static long job_nest(void *unused)
{
	return spawn_vm(CLONE_VFORK, middle_vforks);
}

/* pin_rcu - keep RCU's thread on the first CPU: it is woken by interrupts of the kind */
static bool pin_rcu(void)
{
	char path[32], name[32];
	cpu_set_t set;
	int pid;

	CPU_ZERO(&set);
	CPU_SET(0, &set);
	for (pid = 2; pid < 200; pid++) {
		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		if (read_file(path, name, sizeof(name)) > 0 &&
		    (!strcmp(name, "rcu_preempt\n") || !strcmp(name, "rcu_sched\n")))
			return !sched_setaffinity(pid, sizeof(set), &set);
	}
	return false;
}

TEST_F(fence, sleeping_survivor)
{
	struct worker worker;
	long before[MAX_CPUS], after[MAX_CPUS], least = LONG_MAX;
	int i, status;

	if (!idle_is_known())
		SKIP(return, "this kernel does not say which CPUs are idle");
	if (!pin_rcu())
		SKIP(return, "cannot pin RCU's thread");
	ASSERT_EQ(0, worker_new(&worker));
	ASSERT_EQ(0, run(&worker, job_pin, ARG(0)));
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	start(&worker, job_nest, NULL);
	latch_wait(&last_runs);
	ASSERT_EQ(0, kill(READ_ONCE(middle), SIGKILL));
	ASSERT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(finish(&worker)));
	ASSERT_EQ(0, visit_all(self->cpus));
	ASSERT_EQ(self->cpus, function_calls(before));
	ASSERT_EQ(0, run(&worker, job_tickets, ARG(SURVIVED_ROUNDS)));
	ASSERT_EQ(self->cpus, function_calls(after));
	for (i = 1; i < self->cpus; i++)
		least = after[i] - before[i] < least ? after[i] - before[i] : least;
	EXPECT_GT(SURVIVED_ROUNDS / 2, least) {
		TH_LOG("each other CPU: at least %ld interrupts", least);
	}
	latch_open(&last_may_end);
	ASSERT_TRUE(wait_until(waitpid(-1, &status, WNOHANG | __WALL) > 0));
}

TEST_HARNESS_MAIN
