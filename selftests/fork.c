// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 1: who waits, and for what, by every way to fork there is.
 * Rule 2: the gate opens when the copy is complete, also when it failed.
 * Rule 3: own sections never count; the child inherits the forker's nesting;
 * a vfork child stands for its parent.
 * Rule 10: the child starts clean, on every clone path.
 *
 * Also built as a static and as a 32-bit program: the ways differ there.
 */
#include "test/harness.h"

#include <pty.h>
#include <spawn.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>

extern char **environ;

/*
 * The ways. Each makes a child that judges what it got, waits for it, and
 * returns 0 if all was well.
 */

static unsigned int way_needs;

/* What a child without exec says: 0, or what it saw half done. */
static int way_child(void)
{
	struct forkgate_state state;

	if (way_needs & MEMORY && READ_ONCE(torn))
		return 1;
	if (way_needs & FILES && files_torn())
		return 2;
	if (!(way_needs & MEMORY))
		return 0;
	/* A memory of its own: and in it, a gate that knows nothing of the parent's. */
	state = gate_state();
	if (state.closed || state.forkers || state.blocked || state.forks || state.threads != 1)
		return 3;
	if (gate.head->closed || gate.head->copy)
		return 4;
	if (slot->tid != (unsigned int)sys_gettid())
		return 5;
	return 0;
}

/* The same as a shell command; only the table of descriptors survives an exec. */
#define WAY_COMMAND	"test ! -e /proc/self/fd/200"

static long wait_way(pid_t pid)
{
	int status;

	if (pid < 0)
		return -errno;
	if (waitpid(pid, &status, __WALL) != pid)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : CHILD_SIGNAL + WTERMSIG(status);
}

static long way_fork(void *unused)
{
	pid_t pid = fork();

	if (!pid)
		_exit(way_child());
	return wait_way(pid);
}

static long way_vfork(void *unused)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(way_child());
	return wait_way(pid);
}

static long way_vfork_exec(void *unused)
{
	pid_t pid = vfork();

	if (!pid) {
		execl("/bin/sh", "sh", "-c", WAY_COMMAND, NULL);
		_exit(127);
	}
	return wait_way(pid);
}

static int way_clone_main(void *unused)
{
	return way_child();
}

static long way_clone_flags(int flags)
{
	char *stack = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long ret;

	if (stack == MAP_FAILED)
		return -errno;
	ret = wait_way(clone(way_clone_main, stack + 65536, flags | SIGCHLD, NULL));
	munmap(stack, 65536);
	return ret;
}

static long way_clone(void *unused)
{
	return way_clone_flags(0);
}

static long way_clone_files(void *unused)
{
	return way_clone_flags(CLONE_FILES);
}

static long way_clone_vm(void *unused)
{
	return way_clone_flags(CLONE_VM);
}

static long way_clone_vm_files(void *unused)
{
	return way_clone_flags(CLONE_VM | CLONE_FILES);
}

static long way_clone_vm_vfork(void *unused)
{
	return way_clone_flags(CLONE_VM | CLONE_VFORK);
}

/* CLONE_VFORK without CLONE_VM: waits for the child, and copies memory */
static long way_clone_vfork(void *unused)
{
	return way_clone_flags(CLONE_VFORK);
}

static long way_raw_clone(void *unused)
{
	pid_t pid = syscall(__NR_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (!pid)
		_exit(way_child());
	return wait_way(pid);
}

#ifdef __NR_fork
static long way_raw_fork(void *unused)
{
	pid_t pid = syscall(__NR_fork);

	if (!pid)
		_exit(way_child());
	return wait_way(pid);
}
#endif

static long way_clone3_flags(uint64_t flags)
{
	struct clone_args args = { .flags = flags, .exit_signal = SIGCHLD };
	pid_t pid = syscall(__NR_clone3, &args, sizeof(args));

	if (!pid)
		_exit(way_child());
	return wait_way(pid);
}

static long way_clone3(void *unused)
{
	return way_clone3_flags(0);
}

static long way_clone3_files(void *unused)
{
	return way_clone3_flags(CLONE_FILES);
}

static long way_clone3_clear_sighand(void *unused)
{
	return way_clone3_flags(CLONE_CLEAR_SIGHAND);
}

static long way_posix_spawn(void *unused)
{
	char *const argv[] = { "sh", "-c", WAY_COMMAND, NULL };
	pid_t pid;
	int ret;

	ret = posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ);
	return ret ? -ret : wait_way(pid);
}

static long way_system(void *unused)
{
	int status = system(WAY_COMMAND);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static long way_popen(void *unused)
{
	FILE *pipe = popen(WAY_COMMAND, "r");
	int status;

	if (!pipe)
		return -errno;
	status = pclose(pipe);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static long way_forkpty(void *unused)
{
	pid_t pid;
	int fd;

	pid = forkpty(&fd, NULL, NULL, NULL);
	if (!pid)
		_exit(way_child());
	return wait_way(pid);
}

#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 34)
#define HAVE__FORK
#endif
#endif

#ifdef HAVE__FORK
static long way__fork(void *unused)
{
	pid_t pid = _Fork();

	if (!pid)
		_exit(way_child());
	return wait_way(pid);
}
#endif

FIXTURE(way) {
	struct worker holder, forker, other;
};

FIXTURE_VARIANT(way) {
	long (*fork)(void *unused);
	unsigned int needs;
};

#define WAY(name, function, need)					\
	FIXTURE_VARIANT_ADD(way, name) { .fork = function, .needs = need }

WAY(fork, way_fork, BOTH);
WAY(vfork, way_vfork, FILES);
WAY(vfork_exec, way_vfork_exec, FILES);
WAY(clone, way_clone, BOTH);
WAY(clone_files, way_clone_files, MEMORY);
WAY(clone_vm, way_clone_vm, FILES);
WAY(clone_vm_files, way_clone_vm_files, 0);
WAY(clone_vm_vfork, way_clone_vm_vfork, FILES);
WAY(clone_vfork, way_clone_vfork, BOTH);
WAY(raw_clone, way_raw_clone, BOTH);
#ifdef __NR_fork
WAY(raw_fork, way_raw_fork, BOTH);
#endif
WAY(clone3, way_clone3, BOTH);
WAY(clone3_files, way_clone3_files, MEMORY);
WAY(clone3_clear_sighand, way_clone3_clear_sighand, BOTH);
WAY(posix_spawn, way_posix_spawn, FILES);
WAY(system, way_system, FILES);
WAY(popen, way_popen, FILES);
WAY(forkpty, way_forkpty, BOTH);
#ifdef HAVE__FORK
WAY(_Fork, way__fork, BOTH);
#endif

FIXTURE_SETUP(way)
{
	way_needs = variant->needs;
	ASSERT_EQ(0, setup_workers(&self->holder, 3));
}

FIXTURE_TEARDOWN(way)
{
}

/* way_waits - the way waits for a section of @domains if it needs to, and passes otherwise */
static void way_waits(struct __test_metadata *_metadata, struct worker *holder,
		      struct worker *forker, long (*way)(void *), unsigned int needs,
		      unsigned int domains)
{
	uint64_t phases = gate_state().phases;

	ASSERT_EQ(0, run(holder, job_hold, ARG(domains)));
	if (!(needs & domains)) {
		EXPECT_EQ(0, run(forker, way, NULL));
		EXPECT_EQ(0, run(holder, job_drop, ARG(domains)));
		return;
	}
	start(forker, way, NULL);
	EXPECT_TRUE(wait_until(worker_waits(forker, 1)));
	EXPECT_EQ(needs, READ_ONCE(gate.head->closed));
	EXPECT_EQ(needs, gate_state().closed);
	EXPECT_EQ(0, run(holder, job_drop, ARG(domains)));
	EXPECT_EQ(0, finish(forker));
	EXPECT_EQ(0, READ_ONCE(gate.head->closed));
	EXPECT_EQ(phases + 1, gate_state().phases);
}

TEST_F(way, passes_an_idle_gate)
{
	EXPECT_EQ(0, run(&self->forker, variant->fork, NULL));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, gate_state().forkers);
}

TEST_F(way, waits_for_memory)
{
	way_waits(_metadata, &self->holder, &self->forker, variant->fork, variant->needs,
		  MEMORY);
}

TEST_F(way, waits_for_files)
{
	way_waits(_metadata, &self->holder, &self->forker, variant->fork, variant->needs,
		  FILES);
}

TEST_F(way, waits_for_both)
{
	way_waits(_metadata, &self->holder, &self->forker, variant->fork, variant->needs, BOTH);
}

TEST_F(way, waits_for_the_last_holder)
{
	if (!variant->needs)
		return;
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->other, job_enter, ARG(BOTH)));
	start(&self->forker, variant->fork, NULL);
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish(&self->forker));
}

TEST_F(way, own_sections_never_count)
{
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->forker, variant->fork, NULL));
	EXPECT_EQ(1, self->forker.slot->depth[0]);
	EXPECT_EQ(1, self->forker.slot->depth[1]);
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(BOTH)));
}

TEST_F(way, waits_for_others_inside_its_own)
{
	if (!variant->needs)
		return;
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	start(&self->forker, variant->fork, NULL);
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(BOTH)));
}

/* After each way the gate works as before. */
TEST_F(way, twice)
{
	EXPECT_EQ(0, run(&self->forker, variant->fork, NULL));
	way_waits(_metadata, &self->holder, &self->other, way_raw_clone, BOTH, MEMORY);
}

/*
 * A process of one thread never waits, whatever it is inside of.
 */

TEST(single_threaded)
{
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, gate_enter(BOTH));
	way_needs = BOTH;
	EXPECT_EQ(0, way_fork(NULL));
	EXPECT_EQ(0, way_clone3(NULL));
	way_needs = FILES;
	EXPECT_EQ(0, way_vfork(NULL));
	EXPECT_EQ(0, way_posix_spawn(NULL));
	EXPECT_EQ(0, way_system(NULL));
	EXPECT_EQ(0, way_popen(NULL));
	EXPECT_EQ(1, slot->depth[0]);
	EXPECT_EQ(1, slot->depth[1]);
}

/*
 * Clones that are not the gate's business
 */

/* Threads, forks, but no mapping: never redirected. */
TEST(unmapped_process_is_never_delayed)
{
	struct worker forker;
	uint64_t redirects;
	int i;

	ASSERT_EQ(0, gate_open());
	ASSERT_EQ(0, worker_spawn(&forker));
	redirects = gate_health().redirects;
	for (i = 0; i < 20; i++)
		EXPECT_EQ(0, run_fork(&forker, &(struct fork_how){ 0, child_nothing }));
	EXPECT_EQ(redirects, gate_health().redirects);
	EXPECT_EQ(1, gate_health().armed);
}

FIXTURE(fork) {
	struct worker holder, forker, other;
};

FIXTURE_SETUP(fork)
{
	way_needs = BOTH;
	ASSERT_EQ(0, setup_workers(&self->holder, 3));
}

FIXTURE_TEARDOWN(fork)
{
}

/* Thread creation waits neither for a holder nor for a fork that waits. */
TEST_F(fork, thread_creation_never_waits)
{
	struct worker fresh[3];
	uint64_t forks;

	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(BOTH)));
	EXPECT_EQ(0, worker_new(&fresh[0]));
	EXPECT_EQ(0, gate_state().phases);
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	forks = gate_state().forks;
	EXPECT_EQ(0, worker_new(&fresh[1]));
	EXPECT_EQ(forks, gate_state().forks);
	EXPECT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	/* Nor for a ticket. */
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(0, worker_new(&fresh[2]));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
}

static long job_new_thread(void *worker)
{
	return worker_new(worker);
}

TEST_F(fork, thread_creation_consumes_no_ticket)
{
	struct worker fresh;

	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->forker, job_new_thread, &fresh));
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(BOTH, gate_state().closed);
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
}

/*
 * What the child finds
 */

/* In every child: nesting as the forker's, one slot at the same address, nothing else. */
static int child_inherits(void)
{
	struct forkgate_state state = gate_state();
	struct forkgate_slot *before = slot;
	unsigned int n;

	if (slot->depth[0] != 2 || slot->depth[1] != 1)
		return 1;
	if (state.threads != 1 || state.holders_count != 1 || state.closed || state.forkers)
		return 2;
	if (state.blocked || state.forks || state.phases || state.yields || state.expired ||
	    state.timeouts || state.deadlocks || state.unsafe || state.abandoned ||
	    state.bypasses || state.wait_ns)
		return 3;
	if (gate.head->copy || gate.head->closed || gate.head->abi != FORKGATE_ABI)
		return 4;
	if (slot->tid != (unsigned int)sys_gettid())
		return 5;
	/* No other thread has left anything. */
	for (n = 0; n < 256; n++) {
		struct forkgate_slot *each = gate_slot(n);

		if (each != slot && (each->tid || each->depth[0] || each->depth[1] ||
				     each->site || each->label_site || each->label[0] ||
				     each->outcome))
			return 6;
	}
	if (gate_register() < 0 || slot != before || slot->depth[0] != 2)
		return 7;
	if (gate_leave(MEMORY) || gate_leave(BOTH) || gate_state().holders_count)
		return 8;
	/* Its own forks pass, and so do theirs. */
	if (gate_enter(BOTH) || child_exit(raw_fork(0, child_nothing)) || gate_leave(BOTH))
		return 9;
	return gate_call(FORKGATE_IOC_UNREGISTER, NULL) ? 10 : 0;
}

FIXTURE(child) {
	struct worker holder, other, forker;
};

FIXTURE_VARIANT(child) {
	unsigned long flags;
};

FIXTURE_VARIANT_ADD(child, fork) { .flags = 0 };
FIXTURE_VARIANT_ADD(child, files) { .flags = CLONE_FILES };
FIXTURE_VARIANT_ADD(child, vfork) { .flags = CLONE_VFORK };
FIXTURE_VARIANT_ADD(child, parent) { .flags = CLONE_PARENT };
FIXTURE_VARIANT_ADD(child, newpid) { .flags = CLONE_NEWPID };

FIXTURE_SETUP(child)
{
	ASSERT_EQ(0, setup_workers(&self->holder, 3));
	self->other.slot->site = 4711;
	memcpy(self->other.slot->label, "somebody", 8);
}

FIXTURE_TEARDOWN(child)
{
}

static long job_report_child(void *flags)
{
	int fds[2], status = CHILD_HANGS;
	long pid;

	/* By a pipe: a sibling (CLONE_PARENT) is not ours to wait for. */
	if (pipe(fds))
		return -errno;
	pid = syscall(__NR_clone, (uintptr_t)flags | SIGCHLD, NULL, NULL, NULL, NULL);
	if (!pid) {
		status = child_inherits();
		if (write(fds[1], &status, sizeof(status)) != sizeof(status))
			_exit(1);
		_exit(0);
	}
	if (pid < 0)
		return -errno;
	return read(fds[0], &status, sizeof(status)) == sizeof(status) ? status : -EIO;
}

TEST_F(child, starts_clean)
{
	if (variant->flags & CLONE_NEWPID && geteuid())
		SKIP(return, "not root: no new pid namespace");
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_report_child, ARG(variant->flags)));
	EXPECT_EQ(2, self->forker.slot->depth[0]);
}

/*
 * The same after a wait, with blocked newcomers, other forkers and holders of
 * the other domain around.
 */
TEST_F(child, starts_clean_after_a_wait)
{
	unsigned int needs = variant->flags & CLONE_FILES ? MEMORY : BOTH;
	struct worker newcomer;

	if (variant->flags & CLONE_NEWPID && geteuid())
		SKIP(return, "not root: no new pid namespace");
	ASSERT_EQ(0, worker_new(&newcomer));
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(BOTH)));
	start(&self->forker, job_report_child, ARG(variant->flags));
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	start(&self->other, job_fork, &fork_memory);
	ASSERT_TRUE(wait_until(gate_state().forkers == 2));
	start(&newcomer, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(needs)));
	EXPECT_EQ(0, finish(&self->forker));
	/* The other one waits for the sections that this one has. */
	EXPECT_TRUE(busy(&self->other));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(BOTH)));
	EXPECT_EQ(0, finish_fork(&self->other));
	EXPECT_EQ(0, finish(&newcomer));
	EXPECT_EQ(0, run(&newcomer, job_leave, ARG(MEMORY)));
}

/* The tid in the slot is the one that its owner knows itself by. */
static int child_newpid(void)
{
	return slot->tid != 1 || sys_gettid() != 1;
}

TEST_F(fork, child_in_a_new_pid_namespace)
{
	struct fork_how how = { .flags = CLONE_NEWPID, .child = child_newpid };
	long pid = run(&self->forker, job_fork, &how);

	if (pid == -EPERM)
		SKIP(return, "not root: no new pid namespace");
	EXPECT_EQ(0, child_exit(pid));
}

/* A child gets threads of its own, and its gate works like any other. */
TEST_F(fork, gate_of_the_child_works)
{
	pid_t pid;

	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(FILES)));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct worker holder, forker;

		if (worker_new(&holder) || worker_new(&forker))
			_exit(1);
		if (gate_state().threads != 3)
			_exit(2);
		if (run(&holder, job_hold, ARG(MEMORY)))
			_exit(3);
		start(&forker, job_fork, &fork_both);
		if (!wait_until(worker_waits(&forker, 1)))
			_exit(4);
		if (run(&holder, job_drop, ARG(MEMORY)))
			_exit(5);
		_exit(finish_fork(&forker) ? 6 : 0);
	}
	EXPECT_EQ(0, child_exit(pid));
	/* And what went on there is nothing to the parent. */
	EXPECT_EQ(4, gate_state().threads);
	EXPECT_EQ(0, gate.head->closed);
}

static int generations;

static int child_generation(void)
{
	if (slot->depth[0] != 1 || gate_state().threads != 1)
		return 1;
	if (--generations == 0)
		return 0;
	return child_exit(raw_fork(0, child_generation));
}

TEST_F(fork, ten_generations)
{
	generations = 10;
	ASSERT_EQ(0, gate_enter(MEMORY));
	EXPECT_EQ(0, child_exit(raw_fork(0, child_generation)));
	EXPECT_EQ(0, gate_leave(MEMORY));
}

/*
 * Processes that share the memory
 */

static int hold_child[2];

/* Waits until the test lets it go on. */
static int child_waits(void)
{
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return read(hold_child[0], &byte, 1) != 1;
}

static long job_vfork_child(void *child)
{
	return wait_way(job_vfork(child));
}

/* The gate opens when the copy is complete, not when the child of a vfork executes. */
TEST_F(fork, vfork_opens_before_exec)
{
	ASSERT_EQ(0, pipe(hold_child));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(FILES)));
	start(&self->forker, job_vfork_child, child_waits);
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	start(&self->other, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(FILES)));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_TRUE(wait_until(gate_state().forkers == 0));
	EXPECT_EQ(0, READ_ONCE(gate.head->closed));
	EXPECT_TRUE(busy(&self->forker));
	/* And another fork passes while that child still runs. */
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(FILES)));
	EXPECT_EQ(0, run_fork(&self->other, &fork_both));
	EXPECT_TRUE(busy(&self->forker));
	ASSERT_EQ(1, write(hold_child[1], "", 1));
	EXPECT_EQ(0, finish(&self->forker));
}

static int child_is_inside;

static int child_stays_inside(void)
{
	int ret;

	if (gate_enter(MEMORY))
		return 1;
	WRITE_ONCE(child_is_inside, 1);
	ret = child_waits();
	return gate_leave(MEMORY) ? 2 : ret;
}

/* What the child of a vfork enters, its suspended parent is inside of. */
TEST_F(fork, vfork_child_stands_for_its_parent)
{
	ASSERT_EQ(0, pipe(hold_child));
	start(&self->forker, job_vfork_child, child_stays_inside);
	ASSERT_TRUE(wait_until(READ_ONCE(child_is_inside)));
	EXPECT_EQ(1, self->forker.slot->depth[0]);
	EXPECT_TRUE(fork_waits(&self->other, &fork_both, 1));
	ASSERT_EQ(1, write(hold_child[1], "", 1));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, finish_fork(&self->other));
	EXPECT_EQ(0, self->forker.slot->depth[0]);
}

static int child_enters(void)
{
	if (gate_enter(MEMORY))
		return 1;
	return gate_leave(MEMORY) ? 2 : 0;
}

static int vfork_go;	/* latch */

static int child_enters_late(void)
{
	latch_wait(&vfork_go);
	return child_enters();
}

/* Its entries wait like its parent's would. */
TEST_F(fork, vfork_child_is_kept_out)
{
	start(&self->forker, job_vfork_child, child_enters_late);
	ASSERT_TRUE(wait_until(gate_state().forks == 1 && gate_state().forkers == 0));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->other, &fork_both, 1));
	latch_open(&vfork_go);
	EXPECT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, READ_ONCE(self->forker.slot->depth[0]));
	EXPECT_TRUE(busy(&self->forker));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->other));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, self->forker.slot->depth[0]);
}

static int child_forks(void)
{
	return child_exit(raw_fork(0, child_nothing));
}

/* The parent's sections are the child's own: its forks do not wait for them. */
TEST_F(fork, vfork_child_forks_inside_its_parents_sections)
{
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->forker, job_vfork_child, child_forks));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(BOTH)));
}

TEST_F(fork, vfork_child_forks_and_waits_for_others)
{
	ASSERT_EQ(0, run(&self->forker, job_enter, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	start(&self->forker, job_vfork_child, child_forks);
	EXPECT_TRUE(wait_until(gate_state().forkers == 1));
	EXPECT_TRUE(busy(&self->forker));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->forker));
	EXPECT_EQ(0, run(&self->forker, job_leave, ARG(BOTH)));
}

/* A child of a vfork that ends inside a section takes nothing from its parent. */
TEST_F(fork, vfork_child_ends_inside_its_parents_section)
{
	ASSERT_EQ(0, run(&self->forker, job_hold, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, job_vfork_child, child_nothing));
	EXPECT_EQ(1, self->forker.slot->depth[0]);
	EXPECT_EQ(0, gate_state().abandoned);
	EXPECT_TRUE(fork_waits(&self->other, &fork_both, 1));
	ASSERT_EQ(0, run(&self->forker, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->other));
}

/* The same for one that executes. */
TEST_F(fork, vfork_child_execs_inside_its_parents_section)
{
	ASSERT_EQ(0, run(&self->forker, job_hold, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->forker, way_vfork_exec, NULL));
	EXPECT_EQ(1, self->forker.slot->depth[0]);
	EXPECT_EQ(0, gate_state().abandoned);
	EXPECT_TRUE(fork_waits(&self->other, &fork_both, 1));
	ASSERT_EQ(0, run(&self->forker, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->other));
}

/* A process that shares the memory without being a thread waits for its gate too. */
TEST_F(fork, process_sharing_memory_forks)
{
	pid_t pid;

	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	pid = spawn_vm(CLONE_FILES, child_forks);
	ASSERT_LT(0, pid);
	EXPECT_TRUE(wait_until(gate_state().forkers == 1));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, child_exit(pid));
}

/*
 * Clones that fail
 */

FIXTURE(failed) {
	struct worker holder, forker, other;
};

FIXTURE_VARIANT(failed) {
	unsigned long flags;
	int error;
};

#define FAILED(name, flag, number)					\
	FIXTURE_VARIANT_ADD(failed, name) { .flags = flag, .error = number }

/* Refused by the kernel after the gate was passed */
FAILED(fork, CLONE_NEWNS | CLONE_FS, EINVAL);
FAILED(files, CLONE_FILES | CLONE_SIGHAND, EINVAL);
FAILED(vfork, CLONE_VM | CLONE_VFORK | CLONE_NEWNS | CLONE_FS, EINVAL);
FAILED(no_pids, 0, EAGAIN);
FAILED(no_pids_vfork, CLONE_VM | CLONE_VFORK, EAGAIN);

#define PIDS_GROUP	"/sys/fs/cgroup/forkgate_pids"

FIXTURE_SETUP(failed)
{
	char text[32];

	ASSERT_EQ(0, setup_workers(&self->holder, 3));
	if (variant->error != EAGAIN)
		return;
	if (mkdir(PIDS_GROUP, 0755) && errno != EEXIST)
		SKIP(return, "no cgroup v2: %s", strerror(errno));
	snprintf(text, sizeof(text), "%d", getpid());
	if (write_file(PIDS_GROUP "/cgroup.procs", text))
		SKIP(return, "cannot enter a cgroup");
	if (write_file(PIDS_GROUP "/pids.max", "4"))
		SKIP(return, "no pids controller");
}

FIXTURE_TEARDOWN(failed)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", getpid());
	write_file("/sys/fs/cgroup/cgroup.procs", text);
	rmdir(PIDS_GROUP);
}

static long job_fail(void *flags)
{
	char stack[4096] __attribute__((aligned(16)));
	pid_t pid;

	if (!((uintptr_t)flags & CLONE_VM))
		return raw_fork((uintptr_t)flags, child_nothing);
	pid = clone(spawn_vm_main, stack + sizeof(stack), (uintptr_t)flags | SIGCHLD,
		    child_nothing);
	return pid < 0 ? -errno : pid;
}

TEST_F(failed, reopens)
{
	int i;

	for (i = 0; i < 20; i++)
		EXPECT_EQ(-variant->error, run(&self->forker, job_fail, ARG(variant->flags)));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, run(&self->other, job_tryenter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

/* The same after a wait: the blocked get in. */
TEST_F(failed, reopens_after_a_wait)
{
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(BOTH)));
	start(&self->forker, job_fail, ARG(variant->flags));
	ASSERT_TRUE(wait_until(worker_waits(&self->forker, 1)));
	start(&self->other, job_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, run(&self->holder, job_leave, ARG(BOTH)));
	EXPECT_EQ(-variant->error, finish(&self->forker));
	EXPECT_EQ(0, finish(&self->other));
	EXPECT_EQ(0, gate.head->closed);
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(BOTH)));
}

/*
 * A redirected clone is the clone that was asked for
 */

static pid_t noted_child;

static void note_child(int signo, siginfo_t *info, void *context)
{
	WRITE_ONCE(noted_child, info->si_pid);
}

TEST_F(fork, arguments_survive_the_redirection)
{
	int parent_tid = 0, child_tid = 0, pidfd = -1;
	struct clone_args args = {
		.flags = CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID,
		.pidfd = (uintptr_t)&pidfd,
		.parent_tid = (uintptr_t)&parent_tid,
		.child_tid = (uintptr_t)&child_tid,
		.exit_signal = SIGUSR2,
	};
	uint64_t redirects = gate_health().redirects;
	struct sigaction action = { .sa_sigaction = note_child,
				    .sa_flags = SA_SIGINFO | SA_RESTART };
	siginfo_t info = {};
	pid_t pid;

	sigaction(SIGUSR2, &action, NULL);
	pid = syscall(__NR_clone3, &args, sizeof(args));
	if (!pid)
		_exit(READ_ONCE(child_tid) == sys_gettid() ? 33 : 1);
	ASSERT_LT(0, pid);
	EXPECT_EQ(pid, parent_tid);
	EXPECT_EQ(0, child_tid);
	EXPECT_LE(0, pidfd);
	EXPECT_EQ(0, waitid(P_PIDFD, pidfd, &info, WEXITED | __WALL));
	EXPECT_EQ(pid, info.si_pid);
	EXPECT_EQ(33, info.si_status);
	EXPECT_TRUE(wait_until(READ_ONCE(noted_child) == pid));
	EXPECT_LT(redirects, gate_health().redirects);
}

/* A tracer sees the child of a redirected fork, with the right event. */
TEST_F(fork, tracer_sees_the_child)
{
	unsigned long child = 0;
	int status, fds[2];
	pid_t pid, traced;
	char byte;

	ASSERT_EQ(0, pipe(fds));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct worker other;

		if (worker_new(&other))
			_exit(1);
		if (read(fds[0], &byte, 1) != 1)
			_exit(2);
		traced = fork();
		_exit(traced ? child_exit(traced) : 0);
	}
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACEFORK));
	ASSERT_EQ(1, write(fds[1], "", 1));
	ASSERT_EQ(pid, waitpid(pid, &status, __WALL));
	EXPECT_EQ(SIGTRAP | PTRACE_EVENT_FORK << 8, status >> 8);
	ASSERT_EQ(0, ptrace(PTRACE_GETEVENTMSG, pid, NULL, &child));
	traced = waitpid(child, &status, __WALL);
	EXPECT_EQ(child, traced);
	kill(child, SIGKILL);
	kill(pid, SIGKILL);
}

TEST_HARNESS_MAIN
