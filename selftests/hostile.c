// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 13: unprivileged and harmless. What one user does with his gate costs no
 * other one anything, and no kernel memory is used that was given back.
 */
#include "test/harness.h"
#include "test/kmsg.h"
#include "test/slow_file.h"
#include "test/tracefs.h"

#include <linux/membarrier.h>
#include <poll.h>

/*
 * free_objects - have the kernel free what it keeps for RCU readers, so that
 * KASAN catches whoever still uses it
 */
static void free_objects(void)
{
	int i;

	for (i = 0; i < 3; i++) {
		write_file("/proc/sys/vm/drop_caches", "2");
		syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
	}
}

/*
 * Nests of vforks: each child counts in the slot of its suspended parent. The
 * process (P) dies while the last child lives on.
 */

FIXTURE(nest) {
};

FIXTURE_VARIANT(nest) {
	bool registered;
};

FIXTURE_VARIANT_ADD(nest, with_a_slot) { .registered = true };
FIXTURE_VARIANT_ADD(nest, without_a_slot) { .registered = false };

/* What the processes of a nest tell each other */
static struct nest {
	int stage;
	pid_t first, last;	/* children */
	long slot, enter, seen, leave;
} *nest;

enum {
	STAGE_NONE,
	LAST_RUNS,	/* the last child does */
	MIDDLE_ENDS,	/* the one in between may end */
	PARENT_DEAD,
	CHILD_DONE,
};

static void stage_set(int stage)
{
	__atomic_store_n(&nest->stage, stage, __ATOMIC_SEQ_CST);
}

#define STAGE(n)	wait_until(__atomic_load_n(&nest->stage, __ATOMIC_SEQ_CST) >= (n))

FIXTURE_SETUP(nest)
{
	nest = mmap(NULL, sizeof(*nest), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, nest);
	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
}

FIXTURE_TEARDOWN(nest)
{
	slow_file_unmount();
}

/* The last child of a nest outlives its parent, and has a slot that counts. */
static int last_child(void)
{
	nest->last = syscall(__NR_getpid);
	stage_set(LAST_RUNS);
	if (!STAGE(PARENT_DEAD))
		return 1;
	nest->slot = gate_register();
	nest->enter = gate_enter_by_call(BOTH, 0);
	nest->seen = gate_state().holders_count;
	nest->leave = gate_leave_by_call(BOTH);
	stage_set(CHILD_DONE);
	return 0;
}

static bool parent_setup(bool registered)
{
	if (gate_open() || gate_map())
		return false;
	return !registered || gate_register() >= 0;
}

#define EXPECT_OUTLIVES(parent) ({							\
	EXPECT_EQ(0, kill(parent, SIGKILL));						\
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(parent));				\
	free_objects();									\
	stage_set(PARENT_DEAD);								\
	EXPECT_EQ(0, child_exit(nest->last));						\
	EXPECT_EQ(CHILD_DONE, nest->stage);						\
	EXPECT_LE(0, nest->slot);							\
	EXPECT_GT((long)FORKGATE_SLOTS, nest->slot);					\
	EXPECT_EQ(0, nest->enter);							\
	EXPECT_EQ(1, nest->seen);							\
	EXPECT_EQ(0, nest->leave); })

/*
 * P vforks C1, which vforks C2, which kills C1. P resumes, and vforks C3 while C2
 * still runs.
 */
static int grandchild(void)
{
	kill(nest->first, SIGKILL);
	return STAGE(MIDDLE_ENDS) ? 0 : 1;
}

static int first_child(void)
{
	pid_t pid;

	nest->first = syscall(__NR_getpid);
	pid = spawn_vm(CLONE_VFORK, grandchild);
	return pid < 0 ? 1 : 2;
}

TEST_F(nest, a_grandchild_ends_late)
{
	int status;
	pid_t parent, pid;

	parent = fork();
	ASSERT_LE(0, parent);
	if (!parent) {
		if (!parent_setup(variant->registered))
			_exit(1);
		spawn_vm(CLONE_VFORK, first_child);
		spawn_vm(CLONE_VFORK, last_child);
		_exit(2);
	}
	ASSERT_TRUE(STAGE(LAST_RUNS));
	stage_set(MIDDLE_ENDS);
	/* The grandchild lost its parent and became a child of this process. */
	ASSERT_TRUE(wait_until((pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0));
	ASSERT_NE(parent, pid);
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(0, WEXITSTATUS(status));
	EXPECT_OUTLIVES(parent);
}

/*
 * P vforks C1, which calls exec. P resumes when C1 has its new address space, and
 * vforks C2 before the exec of C1 ends.
 */
static int exec_child(void)
{
	nest->first = syscall(__NR_getpid);
	return -slow_file_exec();
}

TEST_F(nest, an_exec_ends_late)
{
	pid_t parent;
	int ret;

	ret = slow_file_mount();
	if (ret == -ENODEV)
		SKIP(return, NO_SLOW_FILE);
	ASSERT_EQ(0, ret);
	parent = fork();
	ASSERT_LE(0, parent);
	if (!parent) {
		if (!parent_setup(variant->registered))
			_exit(1);
		spawn_vm(CLONE_VFORK, exec_child);
		spawn_vm(CLONE_VFORK, last_child);
		_exit(2);
	}
	ASSERT_TRUE(STAGE(LAST_RUNS));
	ASSERT_TRUE(wait_until(READ_ONCE(slow_file.reached)));
	slow_file_go_on();
	ASSERT_TRUE(wait_until(task_ended(nest->first)));
	EXPECT_OUTLIVES(parent);
}

/*
 * Polling: a thread that waits for its own ticket is not woken for another
 * user's.
 */

FIXTURE_WORKERS(neighbour, holder, forker);

static long job_poll(void *unused)
{
	struct pollfd poll_fd = { .fd = gate.fd, .events = POLLIN };

	return poll(&poll_fd, 1, -1) == 1 ? poll_fd.revents : -errno;
}

/* sleeps - how often a task went to sleep; -1: unknown */
static long sleeps(pid_t tid)
{
	char path[40], text[8192], *line;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	if (read_file(path, text, sizeof(text)) <= 0)
		return -1;
	line = strstr(text, "\nvoluntary_ctxt_switches:");
	return line ? atol(line + 25) : -1;
}

/* What the watcher tells; in memory that it shares with the test */
struct watcher {
	pid_t tid;
	int ready;
};

/* Another process: its ticket waits for its own section, and it polls. */
static int watch(struct watcher *watcher)
{
	struct worker holder;

	if (gate_setup() < 0 || worker_new(&holder) || run(&holder, job_enter, ARG(MEMORY)))
		return 1;
	if (job_try_prepare(ARG(MEMORY)) != -EAGAIN)
		return 2;
	watcher->tid = sys_gettid();
	latch_open(&watcher->ready);
	job_poll(NULL);
	return 3;
}

#define TICKETS	100

TEST_F(neighbour, is_not_woken)
{
	struct watcher *watcher;
	long before, after;
	pid_t pid;
	int i;

	watcher = mmap(NULL, sizeof(*watcher), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	ASSERT_NE(MAP_FAILED, watcher);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		gate_unmap();
		_exit(watch(watcher));
	}
	ASSERT_TRUE(wait_until(READ_ONCE(watcher->ready)));
	ASSERT_TRUE(wait_until(task_asleep(watcher->tid)));
	before = sleeps(watcher->tid);
	ASSERT_LT(0, before);
	for (i = 0; i < TICKETS; i++) {
		ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
		ASSERT_EQ(-EAGAIN, run(&self->forker, job_try_prepare, ARG(MEMORY)));
		start(&self->forker, job_poll, NULL);
		ASSERT_TRUE(wait_until(task_asleep(self->forker.tid)));
		ASSERT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
		ASSERT_EQ(POLLIN, finish(&self->forker));
		ASSERT_EQ(0, run(&self->forker, job_try_prepare, ARG(MEMORY)));
		ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	}
	/* It may run now and then for other reasons. */
	ASSERT_TRUE(wait_until(task_asleep(watcher->tid)));
	after = sleeps(watcher->tid);
	EXPECT_GT(before + TICKETS / 10, after);
	TH_LOG("%d tickets, woken %ld times", TICKETS, after - before);
	kill(pid, SIGKILL);
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
}

/*
 * Messages
 */

FIXTURE(log) {
	struct worker holder, forker;
	int log;
};

FIXTURE_SETUP(log)
{
	self->log = kmsg_open();
	if (self->log < 0)
		SKIP(return, "no /dev/kmsg: %s", strerror(errno));
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&self->holder));
	ASSERT_EQ(0, worker_new(&self->forker));
}

FIXTURE_TEARDOWN(log)
{
	trace_teardown();
}

static long job_name(void *name)
{
	return prctl(PR_SET_NAME, name) ? -errno : 0;
}

static int make_timeouts(int number)
{
	struct worker holder;
	int i;

	/* Another user, with a gate of his own */
	if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
		return 1;
	if (gate_setup() < 0 || worker_new(&holder) || run(&holder, job_enter, ARG(MEMORY)))
		return 2;
	change_policy(backstop, 0);
	for (i = 0; i < number; i++) {
		if (raw_fork(0, child_nothing) != -EAGAIN)
			return 3;
	}
	return 0;
}

static long job_poll_once(void *domains)
{
	return gate_prepare_with((uintptr_t)domains, FORKGATE_NONBLOCK | FORKGATE_TIMED, 0, 0,
				 NULL);
}

static long job_wait_a_little(void *domains)
{
	return gate_prepare_with((uintptr_t)domains, FORKGATE_TIMED, NSEC_PER_MSEC, 0, NULL);
}

/* What the caller asked for himself is no news: polling, and his own limit. */
TEST_F(log, of_polling)
{
	char name[16];

	snprintf(name, sizeof(name), "poll-%d", self->forker.tid);
	ASSERT_EQ(0, run(&self->forker, job_name, name));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-ETIMEDOUT, run(&self->forker, job_poll_once, ARG(MEMORY)));
	EXPECT_EQ(-ETIMEDOUT, run(&self->forker, job_wait_a_little, ARG(MEMORY)));
	EXPECT_FALSE(kmsg_find(self->log, name, ""));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/* A name that a thread gives itself does not make a line of its own. */
TEST_F(log, of_a_name_of_two_lines)
{
	ASSERT_EQ(0, run(&self->forker, job_name, "log\nforged"));
	ASSERT_EQ(0, change_policy(backstop, 0));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_both));
	EXPECT_TRUE(kmsg_find(self->log, "log?forged", "gave up"));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
}

/* One user's time-outs do not silence those of another. */
TEST_F(log, of_another_user)
{
	char name[16];
	pid_t pid;

	if (geteuid())
		SKIP(return, "needs root");
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		gate_unmap();
		_exit(make_timeouts(100));
	}
	ASSERT_EQ(0, child_exit(pid));
	snprintf(name, sizeof(name), "log-%d", self->forker.tid);
	ASSERT_EQ(0, run(&self->forker, job_name, name));
	ASSERT_EQ(0, change_policy(backstop, 0));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_both));
	EXPECT_TRUE(kmsg_find(self->log, name, "")) {
		TH_LOG("no message names %s", name);
	}
}

/* in_softirq - was this line written by a timer on top of the thread that it names? */
static bool in_softirq(const char *line)
{
	const char *flags = strstr(line, "] ");

	return flags && strlen(flags) > 4 && flags[4] == 's';
}

/*
 * A thread that goes away inside a section is reported, but not by itself: its
 * exit hook runs with preemption off, and a console is slow.
 */
TEST_F(log, of_a_thread_that_goes)
{
	pid_t tid = self->holder.tid;
	char text[32], *line;

	if (!trace_setup("printk/console"))
		SKIP(return, NO_TRACEFS);
	snprintf(text, sizeof(text), "thread %d ", tid);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, trace_event("printk/console"));
	start(&self->holder, job_exit, NULL);
	EXPECT_TRUE(wait_until(kmsg_find(self->log, text, "inside")));
	for (line = trace_stop(); *line; line = trace_next(line))
		EXPECT_FALSE(strstr(line, text) && trace_of(line, tid) && !in_softirq(line));
}

TEST_HARNESS_MAIN
