// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 13: unprivileged: everything works for any user, and a process can
 * delay only its own forks.
 * Rule 10: exec of a set-user-ID program discards the gate like any exec.
 */
#include "test/harness.h"
#include "test/step.h"

#include <sys/stat.h>

#define NOBODY		65534
#define SETUID_HELPER	"/tmp/forkgate_setuid_helper"

FIXTURE(user) {
	int fds[2];
};

FIXTURE_SETUP(user)
{
	if (geteuid())
		SKIP(return, "not root: cannot become another user");
	ASSERT_EQ(0, pipe(self->fds));
}

FIXTURE_TEARDOWN(user)
{
}

static bool become_nobody(void)
{
	return !setresgid(NOBODY, NOBODY, NOBODY) && !setresuid(NOBODY, NOBODY, NOBODY);
}

/* All that a program does with a gate, as nobody */
static int use_all(void)
{
	struct forkgate_policy policy;
	struct worker holder, forker;

	if (!become_nobody())
		return 1;
	if (setup_workers(&holder, 1))
		return 2;
	if (worker_new(&forker))
		return 3;
	if (run(&holder, job_hold, ARG(BOTH)))
		return 4;
	start(&forker, job_fork, &fork_both);
	if (!wait_until(worker_waits(&forker, 1)))
		return 5;
	if (run(&holder, job_drop, ARG(BOTH)) || finish_fork(&forker))
		return 6;
	if (run(&forker, job_prepare, ARG(BOTH)) || run(&forker, job_release, NULL))
		return 7;
	policy = gate_policy();
	policy.on_timeout = FORKGATE_PROCEED;
	if (gate_set_policy(&policy))
		return 8;
	if (gate_state().threads != 3)
		return 9;
	return 0;
}

TEST_F(user, nobody_can_do_everything)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(use_all());
	EXPECT_EQ(0, child_exit(pid));
}

TEST_F(user, nobody_cannot_look_at_others)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (!become_nobody())
			_exit(1);
		_exit(open(DEBUGFS "/gates", O_RDONLY) >= 0 || open(STEPS, O_RDWR) >= 0);
	}
	EXPECT_EQ(0, child_exit(pid));
}

/*
 * While the gate of a process of the user nobody is shut for good, the forks of
 * root and of another process of that user pass.
 */
TEST_F(user, delays_only_its_own_forks)
{
	struct worker other;
	pid_t pid = fork(), second;
	char byte;

	ASSERT_LE(0, pid);
	if (!pid) {
		if (!become_nobody() || gate_setup() < 0 || gate_prepare(BOTH))
			_exit(1);
		if (write(self->fds[1], "", 1) != 1)
			_exit(2);
		pause();
	}
	ASSERT_EQ(1, read(self->fds[0], &byte, 1));
	ASSERT_LE(0, gate_setup());
	ASSERT_EQ(0, worker_new(&other));
	EXPECT_EQ(0, run_fork(&other, &fork_both));
	second = fork();
	if (!second)
		_exit(!become_nobody() || child_exit(raw_fork(0, child_nothing)));
	EXPECT_EQ(0, child_exit(second));
	kill(pid, SIGKILL);
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_exit(pid));
}

/* A gate taken along through a change of the user stays the process's own. */
static int child_as_nobody(void)
{
	if (!become_nobody())
		return 1;
	if (gate_enter(BOTH) || gate_leave(BOTH) || gate_state().threads != 1)
		return 2;
	return child_exit(raw_fork(0, child_nothing));
}

TEST_F(user, gate_survives_a_change_of_user)
{
	ASSERT_LE(0, gate_setup());
	EXPECT_EQ(0, child_exit(raw_fork(0, child_as_nobody)));
}

/*
 * Exec of a set-user-ID program
 */

static bool copy_helper(void)
{
	char buffer[65536];
	ssize_t got, length;
	int from, to;

	unlink(SETUID_HELPER);
	length = readlink("/proc/self/exe", buffer, sizeof(buffer) - 8);
	if (length < 0)
		return false;
	buffer[length] = '\0';
	memcpy(strrchr(buffer, '/') + 1, "helper", 7);
	from = open(buffer, O_RDONLY | O_CLOEXEC);
	to = open(SETUID_HELPER, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	if (from < 0 || to < 0)
		return false;
	while ((got = read(from, buffer, sizeof(buffer))) > 0)
		if (write(to, buffer, got) != got)
			return false;
	if (fchown(to, 0, 0) || fchmod(to, 04755))
		return false;
	close(from);
	close(to);
	return true;
}

FIXTURE(exec) {
};

FIXTURE_SETUP(exec)
{
	if (geteuid())
		SKIP(return, "not root: cannot make a set-user-ID program");
	if (!copy_helper())
		SKIP(return, "cannot make a set-user-ID program: %s", strerror(errno));
}

FIXTURE_TEARDOWN(exec)
{
	unlink(SETUID_HELPER);
}

static long job_exec_setuid(void *number)
{
	if (number)
		execl(SETUID_HELPER, "helper", "fresh", number, NULL);
	else
		execl(SETUID_HELPER, "helper", "ids", "0", NULL);
	return -errno;
}

/* nobody_execs - with a fork that waits, a blocked newcomer and a ticket in the way */
static int nobody_execs(bool fresh)
{
	struct worker holder, forker, newcomer;
	char number[16];

	if (!become_nobody() || setup_workers(&holder, 1))
		return 100;
	if (worker_new(&forker) || worker_new(&newcomer))
		return 101;
	fcntl(gate.fd, F_SETFD, 0);
	snprintf(number, sizeof(number), "%d", gate.fd);
	if (run(&holder, job_enter, ARG(BOTH)))
		return 102;
	start(&forker, job_fork, &fork_both);
	if (!wait_until(worker_waits(&forker, 1)))
		return 103;
	start(&newcomer, job_enter, ARG(MEMORY));
	if (!wait_until(gate_state().blocked == 1))
		return 104;
	start(&holder, job_exec_setuid, fresh ? number : NULL);
	finish(&holder);
	return 105;
}

TEST_F(exec, becomes_root)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(nobody_execs(false));
	EXPECT_EQ(0, child_exit(pid));
}

TEST_F(exec, takes_no_gate_along)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(nobody_execs(true));
	EXPECT_EQ(0, child_exit(pid));
}

/* A process that shares nobody's memory executes it inside a section: nobody's fork goes on. */
static int sharer_ready, sharer_go;	/* latches */

static int sharer_execs(void)
{
	if (gate_register() < 0 || gate_enter(BOTH))
		return 1;
	latch_open(&sharer_ready);
	latch_wait(&sharer_go);
	execl(SETUID_HELPER, "helper", "ids", "0", NULL);
	return 2;
}

static long job_sharer(void *unused)
{
	return spawn_vm(0, sharer_execs);
}

static int nobody_shares(void)
{
	struct worker spawner, forker;
	pid_t pid;

	if (!become_nobody() || gate_setup() < 0 || worker_spawn(&spawner) || worker_new(&forker))
		return 100;
	pid = run(&spawner, job_sharer, NULL);
	if (!wait_until(READ_ONCE(sharer_ready)))
		return 101;
	start(&forker, job_fork, &fork_both);
	if (!wait_until(worker_waits(&forker, 1)))
		return 102;
	latch_open(&sharer_go);
	if (finish_fork(&forker))
		return 103;
	return child_exit(pid);
}

TEST_F(exec, by_one_that_shares_the_memory)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(nobody_shares());
	EXPECT_EQ(0, child_exit(pid));
}

TEST_HARNESS_MAIN
