/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fork.h - clones, what their children look for, and jobs that clone
 *
 * Clones here go past libc, unless they say otherwise: libc's fork() takes
 * locks and runs handlers. A child must judge only what it can see, by its exit
 * status: 0 for "all is well".
 */
#ifndef TEST_FORK_H
#define TEST_FORK_H

#include "worker.h"

#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* child_exit(): a signal ended it, or it did not end */
#define CHILD_SIGNAL	1000
#define CHILD_HANGS	(-1)

/*
 * What a section protects: half-done work that no child may see. Held by
 * job_hold(), finished by job_drop().
 */

#define TORN_FD		200

static int torn __maybe_unused;

static inline long job_hold(void *arg)
{
	unsigned int domains = (uintptr_t)arg;
	long ret = gate_enter(domains);

	if (ret)
		return ret;
	if (domains & MEMORY)
		__atomic_fetch_add(&torn, 1, __ATOMIC_RELAXED);
	if (domains & FILES && dup2(STDIN_FILENO, TORN_FD) < 0)
		return -errno;
	return 0;
}

static inline long job_drop(void *arg)
{
	unsigned int domains = (uintptr_t)arg;

	if (domains & MEMORY)
		__atomic_fetch_sub(&torn, 1, __ATOMIC_RELAXED);
	if (domains & FILES)
		fcntl(TORN_FD, F_SETFD, FD_CLOEXEC);
	return gate_leave(domains);
}

static inline bool files_torn(void)
{
	int flags = fcntl(TORN_FD, F_GETFD);

	return flags >= 0 && !(flags & FD_CLOEXEC);
}

/*
 * Children
 */

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

/* What the header says of the copy: FORKGATE_COPY_* */
static inline int child_copy(void)
{
	return gate.head->copy;
}

/* exec_helper - become ./helper, which lies beside this program; returns a negative errno */
static inline long exec_helper(const char *what, const char *arg)
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

/* child_exit - exit status, CHILD_SIGNAL plus a signal, or CHILD_HANGS; a negative pid as it is */
static inline int child_exit(pid_t pid)
{
	int status;

	if (pid <= 0)
		return pid;
	if (!wait_until(waitpid(pid, &status, WNOHANG | __WALL) == pid))
		return CHILD_HANGS;
	return WIFEXITED(status) ? WEXITSTATUS(status) : CHILD_SIGNAL + WTERMSIG(status);
}

/*
 * Clones
 */

/* raw_fork - clone(2) without CLONE_VM; pid or a negative errno */
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

/* What job_fork() does: flags of the clone, work of the child */
struct fork_how {
	unsigned long flags;
	child_fn child;
};

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

/* The same, with children that tell what was said of their copies */
static struct fork_how ask_both __maybe_unused = {
	.child = child_copy,
};

static struct fork_how ask_memory __maybe_unused = {
	.flags = CLONE_FILES,
	.child = child_copy,
};

static struct fork_how ask_files __maybe_unused = {
	.flags = CLONE_VM,
	.child = child_copy,
};

/* job_fork - the pid of the child or a negative errno */
static inline long job_fork(void *arg)
{
	const struct fork_how *how = arg;

	if (how->flags & CLONE_VM)
		return spawn_vm(how->flags & ~CLONE_VM, how->child);
	return raw_fork(how->flags, how->child);
}

/* job_vfork - the same by libc's vfork(); the work of the child is the argument */
static inline long job_vfork(void *child)
{
	child_fn function = child;
	pid_t pid = vfork();

	if (!pid)
		_exit(function());
	return pid < 0 ? -errno : pid;
}

/* finish_fork - end of job_fork() and of its child: 0 if both went well */
static inline int finish_fork(struct worker *worker)
{
	return child_exit(finish(worker));
}

/* run_fork - a whole job_fork(), and its child */
static inline int run_fork(struct worker *worker, struct fork_how *how)
{
	start(worker, job_fork, how);
	return finish_fork(worker);
}

/* fork_waits - start a job_fork() and see it wait, one of @forkers */
static inline bool fork_waits(struct worker *worker, struct fork_how *how, unsigned int forkers)
{
	start(worker, job_fork, how);
	return wait_until(worker_waits(worker, forkers));
}

#endif /* TEST_FORK_H */
