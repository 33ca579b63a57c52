/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * coexist.h - loading and unloading modules, and a process of its own that
 * finds out whether clones wait for sections
 *
 * It must not decide whether they should.
 */
#ifndef FORKGATE_COEXIST_H
#define FORKGATE_COEXIST_H

#include "../test/harness.h"

#include <sys/stat.h>
#include <sys/utsname.h>

#define PLAIN_CLONES	3	/* of a process without a gate */
#define GATED_CLONES	3	/* of one with */
#define PROBE_NAME	"coexist-clone"

/*
 * Modules
 */

/* module_path - FORKGATE_KO, or where the build puts the module */
static inline const char *module_path(void)
{
	static char path[PATH_MAX];
	struct utsname name;
	const char *given = getenv("FORKGATE_KO");
	ssize_t length;

	if (given)
		return given;
	uname(&name);
	length = readlink("/proc/self/exe", path, sizeof(path) - 200);
	if (length < 0)
		return "";
	path[length] = '\0';
	*strrchr(path, '/') = '\0';
	snprintf(path + strlen(path), 200, "/../../%s/forkgate.ko", name.release);
	return path;
}

/* module_load - 0 or a negative errno */
static inline int module_load(const char *path, const char *parameters)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = syscall(__NR_finit_module, fd, parameters, 0) ? -errno : 0;
	close(fd);
	return ret;
}

/* module_unload - 0 or a negative errno; never waits for users to go away */
static inline int module_unload(const char *name)
{
	return syscall(__NR_delete_module, name, O_NONBLOCK) ? -errno : 0;
}

/* module_unload_idle - the same; what has used it may let go of it a moment later */
static inline int module_unload_idle(const char *name)
{
	int ret;

	return wait_until((ret = module_unload(name)) != -EAGAIN) ? ret : -EAGAIN;
}

static inline bool module_loaded(const char *name)
{
	char path[100];

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", name);
	return !access(path, F_OK);
}

/* forkgate_load - and wait for its device */
static inline int forkgate_load(void)
{
	int ret = module_load(module_path(), "");

	if (!ret && !wait_until(!access(DEVICE, F_OK)))
		ret = -ENODEV;
	return ret;
}

static inline int forkgate_unload(void)
{
	return module_unload("forkgate");
}

/* give_up_gate - what the caller itself holds of the module */
static inline void give_up_gate(void)
{
	if (gate.head)
		gate_unmap();
	if (gate.fd >= 0)
		close(gate.fd);
	gate.head = NULL;
	gate.fd = -1;
}

static inline int forkgate_unload_idle(void)
{
	return module_unload_idle("forkgate");
}

static inline bool forkgate_loaded(void)
{
	return module_loaded("forkgate");
}

/* kernel_trouble - taints by bad pages, oopses, warnings and lockups */
static inline unsigned long kernel_trouble(void)
{
	char text[40];

	if (read_file("/proc/sys/kernel/tainted", text, sizeof(text)) <= 0)
		return ~0UL;
	return strtoul(text, NULL, 10) & 0x42a0;
}

/*
 * Processes
 */

/* shared - memory that processes share */
static inline void *shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/**
 * struct probe - a process that clones
 * @pid: of the process
 * @tid: of its thread that clones, called PROBE_NAME
 * @go: set by its parent, which lets it begin
 * @clones: that the thread did, successful ones
 * @waited: gated clones that waited for a section
 * @passed: gated clones that did not
 * @torn: children that saw half-done work
 * @bypassed: children that were told so by their header
 * @bypasses: what the gate counted
 * @failed: what did not work, empty if all did
 */
struct probe {
	pid_t pid;
	pid_t tid;
	int go;
	int clones;
	int waited;
	int passed;
	int torn;
	int bypassed;
	int bypasses;
	char failed[100];
};

#define CHILD_TORN	3
#define CHILD_BYPASSED	4

static inline int child_tells(void)
{
	return child_whole() | (gate.head->copy & FORKGATE_COPY_BYPASSED ? CHILD_BYPASSED : 0);
}

static inline bool probe_fails(struct probe *probe, const char *what, long how)
{
	snprintf(probe->failed, sizeof(probe->failed), "%s: %ld", what, how);
	return false;
}

/* probe_gated - clone while another thread is inside both domains */
static inline bool probe_gated(struct probe *probe, struct worker *forker, struct worker *holder)
{
	struct fork_how how = { .child = child_tells };
	long ret;
	bool waits;

	ret = run(holder, job_hold, ARG(BOTH));
	if (ret)
		return probe_fails(probe, "hold", ret);
	start(forker, job_fork, &how);
	if (!wait_until(!busy(forker) || worker_waits(forker, 1)))
		return probe_fails(probe, "neither waits nor ends", gate_state().forkers);
	waits = busy(forker);
	if (!waits)
		ret = finish_fork(forker);
	else if (gate_state().holders_count != 1)
		return probe_fails(probe, "holders", gate_state().holders_count);
	if (run(holder, job_drop, ARG(BOTH)))
		return probe_fails(probe, "drop", holder->result);
	if (waits)
		ret = finish_fork(forker);
	if (ret < 0 || ret > (CHILD_TORN | CHILD_BYPASSED))
		return probe_fails(probe, "clone", ret);
	probe->clones++;
	probe->waited += waits;
	probe->passed += !waits;
	probe->torn += !!(ret & CHILD_TORN);
	probe->bypassed += !!(ret & CHILD_BYPASSED);
	return true;
}

static inline long job_name(void *name)
{
	return prctl(PR_SET_NAME, name);
}

static inline bool probe_run(struct probe *probe, bool gated)
{
	struct fork_how plain = { .child = child_nothing };
	struct worker forker, holder;
	long ret;

	ret = worker_spawn(&forker);
	if (!ret)
		ret = run(&forker, job_name, PROBE_NAME);
	if (ret)
		return probe_fails(probe, "thread", ret);
	probe->tid = forker.tid;
	if (!wait_until(__atomic_load_n(&probe->go, __ATOMIC_SEQ_CST)))
		return probe_fails(probe, "not started", 0);
	for (int i = 0; i < PLAIN_CLONES; i++) {
		start(&forker, job_fork, &plain);
		ret = finish_fork(&forker);
		if (ret)
			return probe_fails(probe, "plain clone", ret);
		probe->clones++;
	}
	if (!gated)
		return true;
	ret = gate_setup();
	if (!ret)
		ret = worker_new(&holder);
	if (!ret)
		ret = run(&forker, job_register, &forker);
	if (ret < 0)
		return probe_fails(probe, "set-up", ret);
	for (int i = 0; i < GATED_CLONES; i++) {
		if (!probe_gated(probe, &forker, &holder))
			return false;
	}
	probe->bypasses = gate_state().bypasses;
	return true;
}

/* probe_start - a probe that waits for probe_finish(); NULL when it cannot be started */
static inline struct probe *probe_start(bool gated)
{
	struct probe *probe = shared(sizeof(*probe));
	pid_t pid;

	if (!probe)
		return NULL;
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		probe_run(probe, gated);
		_exit(0);
	}
	probe->pid = pid;
	if (pid < 0 ||
	    !wait_until(__atomic_load_n(&probe->tid, __ATOMIC_SEQ_CST) || task_ended(pid))) {
		munmap(probe, sizeof(*probe));
		return NULL;
	}
	return probe;
}

/* probe_finish - let it clone, wait for its end, return what it found */
static inline struct probe probe_finish(struct probe *probe)
{
	struct probe result;
	int ret;

	__atomic_store_n(&probe->go, 1, __ATOMIC_SEQ_CST);
	ret = child_exit(probe->pid);
	if (ret && !probe->failed[0])
		probe_fails(probe, "probe", ret);
	result = *probe;
	munmap(probe, sizeof(*probe));
	return result;
}

#endif
