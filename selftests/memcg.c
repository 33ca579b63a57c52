// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 10: what the kernel needs for the child is allocated before the copy:
 * failure is the clone's ENOMEM. The page of its slot comes with its first use.
 * Rule 13: memory that user space makes the kernel allocate is charged to its
 * memory cgroup, and not allocated under a lock that others need.
 */
#include "test/fault.h"
#include "test/harness.h"

#include <sys/resource.h>
#include <sys/stat.h>

#define GROUP	"/sys/fs/cgroup/forkgate_memory"

FIXTURE(group) {
	int fds[2];
};

/* enter_group - move the caller there; "max" is no limit */
static bool enter_group(const char *max)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", getpid());
	return !write_file(GROUP "/memory.max", max) &&
	       !write_file(GROUP "/cgroup.procs", text);
}

static long group_usage(void)
{
	char text[32];

	return read_file(GROUP "/memory.current", text, sizeof(text)) > 0 ? atol(text) : -1;
}

/* kill_group - Linux 5.10 has no cgroup.kill */
static void kill_group(void)
{
	FILE *procs = fopen(GROUP "/cgroup.procs", "r");
	int pid;

	while (procs && fscanf(procs, "%d", &pid) == 1)
		kill(pid, SIGKILL);
	if (procs)
		fclose(procs);
}

FIXTURE_SETUP(group)
{
	if (mkdir(GROUP, 0755) && errno != EEXIST)
		SKIP(return, "no cgroup v2: %s", strerror(errno));
	if (access(GROUP "/memory.max", W_OK)) {
		rmdir(GROUP);
		SKIP(return, "no memory controller, or not root");
	}
	write_file(GROUP "/memory.swap.max", "0");
	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	ASSERT_EQ(0, pipe(self->fds));
}

FIXTURE_TEARDOWN(group)
{
	kill_group();
	wait_until(!rmdir(GROUP) || errno != EBUSY);
}

/* touch_all - have the memory of every unit allocated */
static void touch_all(void)
{
	unsigned int n;

	for (n = 0; n < FORKGATE_SLOTS; n += FORKGATE_UNIT_SLOTS)
		WRITE_ONCE(gate_slot(n)->reserved, 0);
}

TEST_F(group, slots_are_charged)
{
	long before, after;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (!enter_group("max"))
			_exit(1);
		if (gate_setup() < 0)
			_exit(2);
		before = group_usage();
		touch_all();
		after = group_usage();
		_exit(before < 0 || after - before < FORKGATE_MAP_SIZE * 3L / 4 ? 3 : 0);
	}
	EXPECT_EQ(0, child_exit(pid));
}

#define FILES_OPENED	16000

/* cost_of_opens - what the caller is charged for opening a device that often, or -1 */
static long cost_of_opens(const char *path)
{
	long before = group_usage(), after;
	int i;

	for (i = 0; i < FILES_OPENED; i++)
		if (open(path, O_RDWR) < 0)
			return -1;
	after = group_usage();
	return before < 0 || after < before ? -1 : after - before;
}

/*
 * Rule 13: open() is called under a lock that all misc devices share, so it must
 * not allocate what a memory cgroup may have to be searched for.
 */
TEST_F(group, open_allocates_nothing)
{
	struct rlimit limit = { 2 * FILES_OPENED + 100, 2 * FILES_OPENED + 100 };
	long cost[2];
	pid_t pid;

	if (slow_factor() > 2)
		SKIP(return, "%d opens take minutes with all checkers on", 2 * FILES_OPENED);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (setrlimit(RLIMIT_NOFILE, &limit) || !enter_group("max"))
			_exit(1);
		/* The table of descriptors does not grow any more. */
		if (dup2(0, 2 * FILES_OPENED + 99) < 0)
			_exit(2);
		cost[0] = cost_of_opens("/dev/null");
		cost[1] = cost_of_opens(DEVICE);
		_exit(write(self->fds[1], cost, sizeof(cost)) == sizeof(cost) ? 0 : 3);
	}
	ASSERT_EQ(0, child_exit(pid));
	ASSERT_EQ((ssize_t)sizeof(cost), read(self->fds[0], cost, sizeof(cost)));
	ASSERT_LT(0, cost[0]);
	ASSERT_LT(0, cost[1]);
	/* Less than a cache line for each; charges are made in advance, for 64 pages. */
	EXPECT_GT(FILES_OPENED * 64L, cost[1] - cost[0]) {
		TH_LOG("%ld bytes, /dev/null %ld", cost[1], cost[0]);
	}
}

/* A process that asks for more than its limit is killed. */
TEST_F(group, limit_is_a_limit)
{
	char max[32];
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (!enter_group("max") || gate_setup() < 0)
			_exit(1);
		snprintf(max, sizeof(max), "%ld", group_usage() + 512 * 1024);
		if (write_file(GROUP "/memory.max", max))
			_exit(2);
		touch_all();
		_exit(0);
	}
	EXPECT_LE(CHILD_SIGNAL, child_exit(pid));
}

/* A child that uses its gate, tells so, and stays */
static int use_gate(int fd)
{
	if (slot->depth[0] != 1 || gate.head->copy || gate.head->closed)
		return 1;
	if (gate_enter(BOTH) || gate_leave(BOTH) || gate_leave(MEMORY))
		return 2;
	if (gate_prepare(BOTH) || gate_release())
		return 3;
	if (write(fd, "", 1) != 1)
		return 4;
	pause();
	return 5;
}

/* Children until there is no room for more. None of those that were made may be spoilt. */
TEST_F(group, children_up_to_the_limit)
{
	int status, made = 0, bad = 0;
	pid_t pid, middle;
	char byte;

	middle = fork();
	ASSERT_LE(0, middle);
	if (!middle) {
		struct worker other;

		if (!enter_group("33554432") || gate_setup() < 0 || worker_new(&other) ||
		    gate_enter(MEMORY))
			_exit(1);
		for (;;) {
			pid = syscall(__NR_clone, SIGCHLD, NULL, NULL, NULL, NULL);
			if (!pid)
				_exit(use_gate(self->fds[1]));
			if (pid < 0)
				_exit(errno == ENOMEM || errno == EAGAIN ? 0 : 2);
			/* One after the other, so that it is known who asked for too much. */
			if (read(self->fds[0], &byte, 1) != 1)
				_exit(3);
		}
	}
	close(self->fds[0]);
	close(self->fds[1]);
	ASSERT_TRUE(wait_until(waitpid(middle, &status, WNOHANG) == middle));
	EXPECT_TRUE((WIFEXITED(status) && !WEXITSTATUS(status)) ||
		    (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) {
		TH_LOG("status %#x", status);
	}
	kill_group();
	while ((pid = waitpid(-1, &status, __WALL)) > 0) {
		made++;
		/* Killed by us or for want of memory */
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
			TH_LOG("a child ended with status %#x", status);
			bad++;
		}
	}
	EXPECT_LT(10, made);
	EXPECT_EQ(0, bad);
}

/*
 * Every allocation of a clone fails once
 */

FIXTURE(fail) {
	struct worker other;
};

FIXTURE_VARIANT(fail) {
	unsigned long flags;
};

FIXTURE_VARIANT_ADD(fail, fork) { .flags = 0 };
FIXTURE_VARIANT_ADD(fail, files) { .flags = CLONE_FILES };
FIXTURE_VARIANT_ADD(fail, vfork) { .flags = CLONE_VM | CLONE_VFORK };

FIXTURE_SETUP(fail)
{
	if (access("/proc/self/fail-nth", W_OK))
		SKIP(return, "this kernel has no fault injection");
	/* Failing allocations that may sleep, of any order, is what this is about. */
	if (write_file("/sys/kernel/debug/failslab/ignore-gfp-wait", "N"))
		SKIP(return, "this kernel has no failslab");
	write_file("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N");
	write_file("/sys/kernel/debug/fail_page_alloc/min-order", "0");
	ASSERT_EQ(0, setup_workers(&self->other, 1));
}

FIXTURE_TEARDOWN(fail)
{
}

static int child_works(void)
{
	if (slot->depth[0] != 1 || gate_state().threads != 1 ||
	    gate.head->copy || gate.head->closed)
		return 1;
	return gate_leave(MEMORY) || gate_register() < 0 || gate_prepare(BOTH) || gate_release() ?
	       2 : 0;
}

static long fail_fork(unsigned long flags)
{
	static char stack[65536] __attribute__((aligned(16)));
	pid_t pid;

	if (!(flags & CLONE_VM))
		return raw_fork(flags, child_works);
	pid = clone(spawn_vm_main, stack + sizeof(stack), flags | SIGCHLD, child_nothing);
	return pid < 0 ? -errno : pid;
}

TEST_F(fail, each_allocation_of_a_clone)
{
	int n, fd, failed = 0;
	bool fired;
	long pid;

	fd = fail_nth_open();
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, gate_enter(MEMORY));
	for (n = 1; n < 5000; n++) {
		ASSERT_TRUE(fail_nth(fd, n));
		pid = fail_fork(variant->flags);
		fired = fail_nth_fired(fd);
		if (pid > 0) {
			EXPECT_EQ(0, child_exit(pid));
		} else {
			EXPECT_TRUE(pid == -ENOMEM || pid == -EAGAIN);
			failed++;
		}
		EXPECT_EQ(0, gate.head->closed);
		EXPECT_EQ(0, gate_state().forkers);
		if (!fired)
			break;
	}
	EXPECT_LT(n, 5000);
	EXPECT_LT(0, failed);
	TH_LOG("%d allocations, %d clones failed", n, failed);
	EXPECT_EQ(0, run(&self->other, job_tryenter, ARG(BOTH)));
}

TEST_HARNESS_MAIN
