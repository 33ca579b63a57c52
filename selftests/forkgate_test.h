/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * forkgate_test.h - what the selftests of forkgate share
 *
 * Programs here speak the raw ABI of <linux/forkgate.h>, never libforkgate:
 * the library has tests of its own. This file must not decide what is right:
 * it opens, maps, enters, forks and waits, and leaves every judgement to the
 * test. A wait is for an event with a long limit (30 s, times KSELFTEST_SLOW
 * from the environment), never for a time.
 *
 * Tests drive threads by hand: a worker is a thread that runs one job at a
 * time, run() waits for its end, start() does not. So every test is a
 * sequence of steps in one function although several threads act in it.
 */
#ifndef FORKGATE_TEST_H
#define FORKGATE_TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/forkgate.h>

/* A helper program has no tests. */
#ifndef FG_NO_HARNESS
#include <kselftest_harness.h>
#endif

/* The harness ends a test that hangs; waits in it give up much earlier. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	600

#ifndef READ_ONCE
#define READ_ONCE(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v)	__atomic_store_n(&(x), v, __ATOMIC_RELAXED)
#endif
#ifndef __maybe_unused
#define __maybe_unused		__attribute__((__unused__))
#endif
#define barrier()		__asm__ __volatile__("" ::: "memory")

#define FG_MEMORY		FORKGATE_MEMORY
#define FG_FILES		FORKGATE_FILES
#define FG_BOTH			FORKGATE_DOMAINS

#define FG_SECOND		1000000000ULL
#define FG_MILLISECOND		1000000ULL

#define FG_DEVICE		"/dev/forkgate"
#define FG_DEBUGFS		"/sys/kernel/debug/forkgate"

/* child_exit(): a signal ended it, or it did not end */
#define CHILD_SIGNAL		1000
#define CHILD_HANGS		(-1)

/*
 * Waiting
 */

static inline uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

/* fg_slow - how much longer things take on this kernel */
static inline int fg_slow(void)
{
	const char *slow = getenv("KSELFTEST_SLOW");
	int factor = slow ? atoi(slow) : 1;

	return factor > 0 ? factor : 1;
}

/* fg_limit - the moment at which a wait that starts now gives up */
static inline uint64_t fg_limit(void)
{
	return now_ms() + 30000ULL * fg_slow();
}

/* fg_nap - let others run before the next look; false once it is too late */
static inline bool fg_nap(uint64_t limit)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	nanosleep(&ms, NULL);
	return now_ms() < limit;
}

/* wait_until() - poll for an event; false when it did not come */
#define wait_until(condition) ({					\
	uint64_t limit_ = fg_limit();					\
	bool met_, late_ = false;					\
									\
	while (!(met_ = !!(condition)) && !late_)			\
		late_ = !fg_nap(limit_);				\
	met_; })

/*
 * fg_fail_nth_open - to let the n-th allocation, or copy, of the calling thread
 * fail; -1 with errno
 *
 * The thread must have no rseq area: when it is preempted, and the kernel cannot
 * write there because the page is shared with a child and its copy is what
 * fails, the thread gets a SIGSEGV.
 */
static inline int fg_fail_nth_open(void)
{
	if (__rseq_size)
		syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32,
			RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
	return open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
}

static inline long fg_futex(int *word, int op, int value, const struct timespec *time)
{
#ifdef __NR_futex
	return syscall(__NR_futex, word, op, value, time, NULL, 0);
#else
	return syscall(__NR_futex_time64, word, op, value, time, NULL, 0);
#endif
}

static inline pid_t fg_gettid(void)
{
	return syscall(__NR_gettid);
}

/*
 * Small files, without the allocations of stdio: another thread may hold
 * libc's locks inside a clone that waits.
 */

static inline ssize_t fg_read_file(const char *path, char *buffer, size_t size)
{
	size_t done = 0;
	ssize_t got;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (done < size - 1) {
		got = read(fd, buffer + done, size - 1 - done);
		if (got <= 0)
			break;
		done += got;
	}
	buffer[done] = '\0';
	close(fd);
	return done;
}

static inline int fg_write_file(const char *path, const char *text)
{
	ssize_t done;
	int error = 0;
	int fd;

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	done = write(fd, text, strlen(text));
	if (done < 0)
		error = -errno;
	close(fd);
	return error;
}

/* fg_task_state - the letter of /proc/TID/stat, 0 for no such task */
static inline char fg_task_state(pid_t tid)
{
	char path[40], text[512], *end;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	if (fg_read_file(path, text, sizeof(text)) <= 0)
		return 0;
	end = strrchr(text, ')');
	return end && end[1] ? end[2] : 0;
}

static inline bool fg_asleep(pid_t tid)
{
	char state = fg_task_state(tid);

	return state == 'S' || state == 'D';
}

/* fg_gone - has this task ended? */
static inline bool fg_gone(pid_t tid)
{
	char state = fg_task_state(tid);

	return !state || state == 'Z' || state == 'X';
}

/*
 * The gate
 */

static struct {
	int fd;
	struct forkgate_header *head;
	bool msync;	/* reach the gate through msync(2) */
} gate = { .fd = -1 };

static __thread struct forkgate_slot *slot;

static inline struct forkgate_slot *fg_slot(unsigned int n)
{
	return (void *)((char *)gate.head + FORKGATE_SLOT_OFFSET(n));
}

static inline long fg_msync(void *map, unsigned long request, void *arg)
{
	return syscall(__NR_msync, map, 4096UL, (unsigned long)MS_SYNC, request, arg);
}

/* fg_call - one request to the own gate; 0 or a negative errno */
static inline long fg_call(unsigned long request, void *arg)
{
	long ret;

	if (gate.msync)
		ret = fg_msync(gate.head, request, arg);
	else
		ret = ioctl(gate.fd, request, arg);
	return ret < 0 ? -errno : ret;
}

/* fg_open - 0 or a negative errno */
static inline int fg_open(void)
{
	gate.fd = open(FG_DEVICE, O_RDWR | O_CLOEXEC);
	return gate.fd < 0 ? -errno : 0;
}

static inline void *fg_mmap(int fd, size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static inline int fg_map(void)
{
	void *map = fg_mmap(gate.fd, FORKGATE_MAP_SIZE);

	if (map == MAP_FAILED)
		return -errno;
	gate.head = map;
	return 0;
}

/* fg_register - give the caller its slot; its number or a negative errno */
static inline long fg_register(void)
{
	struct forkgate_register reg = {};
	long ret = fg_call(FORKGATE_IOC_REGISTER, &reg);

	if (ret)
		return ret;
	slot = (void *)((char *)gate.head + reg.offset);
	return reg.slot;
}

static inline struct forkgate_state fg_state(void)
{
	struct forkgate_state state = {};

	if (fg_call(FORKGATE_IOC_STATE, &state))
		memset(&state, 0xff, sizeof(state));
	return state;
}

static inline struct forkgate_policy fg_policy(void)
{
	struct forkgate_policy policy = {};

	fg_call(FORKGATE_IOC_POLICY_GET, &policy);
	return policy;
}

static inline long fg_set_policy(const struct forkgate_policy *policy)
{
	return fg_call(FORKGATE_IOC_POLICY_SET, (void *)policy);
}

/* No timer helps: only what the test does makes anything go on. */
static const struct forkgate_policy fg_patient __maybe_unused = {
	.patience = FORKGATE_FOREVER,
	.ticket_hold = FORKGATE_TIME_MAX,
	.timeout = FORKGATE_FOREVER,
	.backstop = FORKGATE_FOREVER,
};

/* fg_setup - open, map and register the caller, with a policy without timers */
static inline int fg_setup(void)
{
	long ret;

	ret = fg_open();
	if (!ret)
		ret = fg_map();
	if (!ret)
		ret = fg_register();
	if (ret >= 0)
		ret = fg_set_policy(&fg_patient);
	return ret;
}

/*
 * Sections. The steps E1 to E3 and L1 to L3 are apart, so that a test can do
 * something in between.
 */

/* E1: count (plain stores) */
static inline void fg_count(unsigned int domains)
{
	if (domains & FG_MEMORY)
		WRITE_ONCE(slot->depth[0], slot->depth[0] + 1);
	if (domains & FG_FILES)
		WRITE_ONCE(slot->depth[1], slot->depth[1] + 1);
}

/* The call behind E3, repeated should a signal handler without SA_RESTART end it */
static inline long fg_enter_call(struct forkgate_enter *enter)
{
	long ret;

	do {
		ret = fg_call(FORKGATE_IOC_ENTER, enter);
	} while (ret == -EINTR);
	return ret;
}

/* E3: the test of "closed", on every entry */
static inline long fg_admit(unsigned int domains, unsigned int flags)
{
	struct forkgate_enter enter = {
		.domains = domains,
		.flags = FORKGATE_COUNTED | flags,
	};

	if (!(READ_ONCE(gate.head->closed) & domains))
		return 0;
	return fg_enter_call(&enter);
}

static inline long fg_enter_flags(unsigned int domains, unsigned int flags)
{
	fg_count(domains);
	barrier();
	return fg_admit(domains, flags);
}

static inline long fg_enter(unsigned int domains)
{
	return fg_enter_flags(domains, 0);
}

/* L1: the store, releasing what was done inside */
static inline void fg_uncount(unsigned int domains)
{
	if (domains & FG_MEMORY)
		__atomic_store_n(&slot->depth[0], slot->depth[0] - 1, __ATOMIC_RELEASE);
	if (domains & FG_FILES)
		__atomic_store_n(&slot->depth[1], slot->depth[1] - 1, __ATOMIC_RELEASE);
}

/* L3: wake whoever waits for a domain that is idle now */
static inline long fg_wake(unsigned int domains)
{
	struct forkgate_leave leave = { .flags = FORKGATE_COUNTED };
	unsigned int idle = 0;

	if (domains & FG_MEMORY && !slot->depth[0])
		idle |= FG_MEMORY;
	if (domains & FG_FILES && !slot->depth[1])
		idle |= FG_FILES;
	if (!(READ_ONCE(gate.head->closed) & idle))
		return 0;
	leave.domains = idle;
	return fg_call(FORKGATE_IOC_LEAVE, &leave);
}

static inline long fg_leave(unsigned int domains)
{
	fg_uncount(domains);
	barrier();
	return fg_wake(domains);
}

/* The same by calls alone, without touching the slot */
static inline long fg_enter_uncounted(unsigned int domains, unsigned int flags)
{
	struct forkgate_enter enter = {
		.domains = domains,
		.flags = flags,
		.levels = { !!(domains & FG_MEMORY), !!(domains & FG_FILES) },
	};

	return fg_enter_call(&enter);
}

static inline long fg_leave_uncounted(unsigned int domains)
{
	struct forkgate_leave leave = { .domains = domains };

	return fg_call(FORKGATE_IOC_LEAVE, &leave);
}

static inline long fg_prepare_full(unsigned int domains, unsigned int flags, uint64_t abstime,
				   unsigned int attempt, unsigned int *outcome)
{
	struct forkgate_prepare prepare = {
		.domains = domains,
		.flags = flags,
		.abstime = abstime,
		.attempt = attempt,
	};
	long ret = fg_call(FORKGATE_IOC_PREPARE, &prepare);

	if (outcome)
		*outcome = prepare.outcome;
	return ret;
}

static inline long fg_prepare(unsigned int domains)
{
	return fg_prepare_full(domains, 0, 0, 0, NULL);
}

static inline long fg_release(void)
{
	return fg_call(FORKGATE_IOC_RELEASE, NULL);
}

/*
 * Workers
 */

#define WORKER_IDLE	0
#define WORKER_BUSY	1
#define WORKER_DONE	2

struct worker {
	pthread_t thread;
	pid_t tid;
	struct forkgate_slot *slot;
	long (*job)(void *arg);
	void *arg;
	long result;
	int state;
};

static inline void worker_set(struct worker *worker, int state)
{
	__atomic_store_n(&worker->state, state, __ATOMIC_SEQ_CST);
	fg_futex(&worker->state, FUTEX_WAKE, INT_MAX, NULL);
}

static inline void *worker_main(void *arg)
{
	struct worker *worker = arg;
	int state;

	worker->tid = fg_gettid();
	worker_set(worker, WORKER_DONE);
	for (;;) {
		while ((state = __atomic_load_n(&worker->state, __ATOMIC_SEQ_CST)) != WORKER_BUSY)
			fg_futex(&worker->state, FUTEX_WAIT, state, NULL);
		worker->result = worker->job(worker->arg);
		worker_set(worker, WORKER_DONE);
	}
	return NULL;
}

/* busy - does the job still run? */
static inline bool busy(struct worker *worker)
{
	return __atomic_load_n(&worker->state, __ATOMIC_SEQ_CST) == WORKER_BUSY;
}

/* finish - wait for the end of the job; -ETIME when it does not end */
static inline long finish(struct worker *worker)
{
	if (!wait_until(!busy(worker)))
		return -ETIME;
	WRITE_ONCE(worker->state, WORKER_IDLE);
	return worker->result;
}

static inline void start(struct worker *worker, long (*job)(void *arg), void *arg)
{
	worker->job = job;
	worker->arg = arg;
	worker_set(worker, WORKER_BUSY);
}

static inline long run(struct worker *worker, long (*job)(void *arg), void *arg)
{
	start(worker, job, arg);
	return finish(worker);
}

#define ARG(value)	((void *)(uintptr_t)(value))

static inline long job_register(void *worker)
{
	long ret = fg_register();

	((struct worker *)worker)->slot = slot;
	return ret;
}

static inline long job_unregister(void *unused)
{
	return fg_call(FORKGATE_IOC_UNREGISTER, NULL);
}

/* worker_spawn - a worker that has not registered; 0 or a negative errno */
static inline int worker_spawn(struct worker *worker)
{
	pthread_attr_t attr;
	int ret;

	memset(worker, 0, sizeof(*worker));
	worker->state = WORKER_BUSY;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	ret = pthread_create(&worker->thread, &attr, worker_main, worker);
	pthread_attr_destroy(&attr);
	return ret ? -ret : finish(worker);
}

/* worker_new - a worker with a slot; 0 or a negative errno */
static inline int worker_new(struct worker *worker)
{
	long ret = worker_spawn(worker);

	if (!ret)
		ret = run(worker, job_register, worker);
	return ret < 0 ? ret : 0;
}

/*
 * Jobs
 */

static inline long job_enter(void *domains)
{
	return fg_enter((uintptr_t)domains);
}

static inline long job_leave(void *domains)
{
	return fg_leave((uintptr_t)domains);
}

static inline long job_tryenter(void *domains)
{
	return fg_enter_flags((uintptr_t)domains, FORKGATE_NONBLOCK);
}

static inline long job_count(void *domains)
{
	fg_count((uintptr_t)domains);
	return 0;
}

static inline long job_admit(void *domains)
{
	return fg_admit((uintptr_t)domains, 0);
}

static inline long job_uncount(void *domains)
{
	fg_uncount((uintptr_t)domains);
	return 0;
}

static inline long job_wake(void *domains)
{
	return fg_wake((uintptr_t)domains);
}

static inline long job_prepare(void *domains)
{
	return fg_prepare((uintptr_t)domains);
}

static inline long job_release(void *unused)
{
	return fg_release();
}

static inline long job_outcome(void *unused)
{
	return READ_ONCE(slot->outcome);
}

/* End this thread without libc, as a crash or a foreign runtime would */
static inline long job_exit(void *unused)
{
	syscall(__NR_exit, 0);
	return -1;
}

/*
 * What a section protects: half-done work that no child may see. Held by
 * job_hold(), finished by job_drop().
 */

#define TORN_FD		200

static int torn __maybe_unused;

static inline long job_hold(void *arg)
{
	unsigned int domains = (uintptr_t)arg;
	long ret = fg_enter(domains);

	if (ret)
		return ret;
	if (domains & FG_MEMORY)
		__atomic_fetch_add(&torn, 1, __ATOMIC_RELAXED);
	if (domains & FG_FILES && dup2(STDIN_FILENO, TORN_FD) < 0)
		return -errno;
	return 0;
}

static inline long job_drop(void *arg)
{
	unsigned int domains = (uintptr_t)arg;

	if (domains & FG_MEMORY)
		__atomic_fetch_sub(&torn, 1, __ATOMIC_RELAXED);
	if (domains & FG_FILES)
		fcntl(TORN_FD, F_SETFD, FD_CLOEXEC);
	return fg_leave(domains);
}

static inline bool files_torn(void)
{
	int flags = fcntl(TORN_FD, F_GETFD);

	return flags >= 0 && !(flags & FD_CLOEXEC);
}

/*
 * Clones
 */

/* fg_exec_helper - become ./helper, which lies beside this program; returns a negative errno */
static inline long fg_exec_helper(const char *what, const char *arg)
{
	char path[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 8);
	char *end;

	if (length < 0)
		return -errno;
	path[length] = '\0';
	end = strrchr(path, '/');
	if (!end)
		return -ENOENT;
	memcpy(end + 1, "helper", 7);
	execl(path, "helper", what, arg, NULL);
	return -errno;
}

/* The work of a child: its exit status, 0 for "all is well" */
typedef int (*child_fn)(void);

static inline int child_whole(void)
{
	return (READ_ONCE(torn) ? 1 : 0) + (files_torn() ? 2 : 0);
}

/* The same where descriptors are shared, not copied */
static inline int child_memory_whole(void)
{
	return READ_ONCE(torn) ? 1 : 0;
}

static inline int child_nothing(void)
{
	return 0;
}

/* raw_fork - clone(2) without CLONE_VM, past libc; pid or a negative errno */
static inline pid_t raw_fork(unsigned long flags, child_fn child)
{
	long pid = syscall(__NR_clone, flags | SIGCHLD, NULL, NULL, NULL, NULL);

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(child());
	}
	return pid < 0 ? -errno : pid;
}

static inline int spawn_vm_main(void *child)
{
	return ((child_fn)child)();
}

/* spawn_vm - a process that shares the memory; pid or a negative errno */
static inline pid_t spawn_vm(unsigned long flags, child_fn child)
{
	const size_t size = 128 * 1024;
	char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	if (stack == MAP_FAILED)
		return -errno;
	pid = clone(spawn_vm_main, stack + size, CLONE_VM | SIGCHLD | flags, child);
	return pid < 0 ? -errno : pid;
}

/* child_exit - exit status, CHILD_SIGNAL plus a signal, or CHILD_HANGS */
static inline int child_exit(pid_t pid)
{
	int status;

	if (pid <= 0)
		return pid;
	if (!wait_until(waitpid(pid, &status, WNOHANG | __WALL) == pid))
		return CHILD_HANGS;
	return WIFEXITED(status) ? WEXITSTATUS(status) : CHILD_SIGNAL + WTERMSIG(status);
}

/* What job_fork() does: flags of the clone, work of the child */
struct fork_how {
	unsigned long flags;
	child_fn child;
};

/* job_fork - the pid of the child or a negative errno */
static inline long job_fork(void *arg)
{
	const struct fork_how *how = arg;

	if (how->flags & CLONE_VM)
		return spawn_vm(how->flags & ~CLONE_VM, how->child);
	return raw_fork(how->flags, how->child);
}

static struct fork_how fork_both __maybe_unused = {
	.child = child_whole,
};

static struct fork_how fork_memory __maybe_unused = {
	.flags = CLONE_FILES,
	.child = child_memory_whole,
};

static struct fork_how fork_files __maybe_unused = {
	.flags = CLONE_VM,
	.child = child_nothing,
};

/* finish_fork - end of job_fork() and of its child: 0 if both went well */
static inline int finish_fork(struct worker *worker)
{
	return child_exit(finish(worker));
}

/* fg_waiting - is this worker asleep in a fork, one of @forkers? */
static inline bool fg_waiting(struct worker *worker, unsigned int forkers)
{
	return fg_state().forkers == forkers && busy(worker) && fg_asleep(worker->tid);
}

/*
 * Forced schedules, in modules built for debugging
 */

#define STEPS	FG_DEBUGFS "/steps"

static inline bool fg_has_steps(void)
{
	struct forkgate_query query = {};
	int fd = open(FG_DEVICE, O_RDWR | O_CLOEXEC);
	long ret;

	if (fd < 0)
		return false;
	ret = ioctl(fd, FORKGATE_IOC_QUERY, &query);
	close(fd);
	return !ret && query.features & FORKGATE_FEATURE_DEBUG && !access(STEPS, W_OK);
}

#define NO_STEPS	"no forced schedules: not root, no debugfs, or a module without FORKGATE_DEBUG"

static inline int steps_reset(void)
{
	return fg_write_file(STEPS, "reset");
}

/* step - "hold", "go", "one" or "delay USEC" at a step */
static inline int step(const char *name, const char *command)
{
	char text[64];

	snprintf(text, sizeof(text), "%s %s", name, command);
	return fg_write_file(STEPS, text);
}

/* step_field - a number from the line of a step, -1 without one */
static inline long step_field(const char *name, const char *field)
{
	size_t length = strlen(name);
	char text[4096], *line, *end;

	if (fg_read_file(STEPS, text, sizeof(text)) <= 0)
		return -1;
	for (line = text; *line; line = end + 1) {
		end = strchr(line, '\n');
		if (!end)
			break;
		if (strncmp(line, name, length) || line[length] != ' ')
			continue;
		*end = '\0';
		line = strstr(line, field);
		return line ? atol(line + strlen(field)) : -1;
	}
	return -1;
}

static inline long step_waiting(const char *name)
{
	return step_field(name, "waiting=");
}

static inline long step_hits(const char *name)
{
	return step_field(name, "hits=");
}

/*
 * The kernel's log
 */

static inline int fg_kmsg_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

/* fg_kmsg_find - read on until a message of ours has all of both texts */
static inline bool fg_kmsg_find(int fd, const char *first, const char *second)
{
	char record[2048];
	ssize_t got;

	for (;;) {
		got = read(fd, record, sizeof(record) - 1);
		if (got < 0 && errno == EPIPE)
			continue;
		if (got <= 0)
			return false;
		record[got] = '\0';
		if (strstr(record, "forkgate") && strstr(record, first) && strstr(record, second))
			return true;
	}
}

#endif /* FORKGATE_TEST_H */
