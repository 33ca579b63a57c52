// SPDX-License-Identifier: GPL-2.0-only
/*
 * libforkgate without the module: programs run as they would without the
 * library, protected by its own gate, and are told so once they ask strictly.
 * Must not need privileges or a gate; all tests are skipped where there is one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <pty.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kselftest_harness.h>
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	600

#include <forkgate.h>

#define MEMORY	FORKGATE_MEMORY
#define FILES	FORKGATE_FILES
#define BOTH	FORKGATE_DOMAINS

#define ODD_ERRNO	7777

static struct timespec now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now;
}

static int exit_status(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

/* The depth of the caller's sections, memory * 10 + files */
static int depth(void)
{
	struct forkgate_slot *slot = forkgate_self;

	return slot->depth[0] * 10 + slot->depth[1];
}

FIXTURE(nomodule) {
};

FIXTURE_SETUP(nomodule)
{
	if (!access("/dev/forkgate", F_OK))
		SKIP(return, "there is a module");
}

FIXTURE_TEARDOWN(nomodule)
{
}

TEST_F(nomodule, sections)
{
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	EXPECT_EQ(10, depth());
	EXPECT_EQ(0, forkgate_enter(BOTH));
	EXPECT_EQ(21, depth());
	EXPECT_EQ(0, forkgate_tryenter(FILES));
	EXPECT_EQ(22, depth());
	forkgate_label("a name");
	forkgate_label(NULL);
	forkgate_leave(BOTH);
	EXPECT_EQ(11, depth());
	forkgate_leave(FILES);
	forkgate_leave(MEMORY);
	EXPECT_EQ(0, depth());
}

/* The library's functions, for languages that cannot inline those of the header */
int enter_function(unsigned int domains) __asm__("forkgate_enter");
void leave_function(unsigned int domains) __asm__("forkgate_leave");

static __attribute__((__noinline__)) int call_enter(unsigned int domains)
{
	int err = enter_function(domains);

	forkgate_barrier();	/* no jump */
	return err;
}

TEST_F(nomodule, functions)
{
	EXPECT_EQ(0, call_enter(MEMORY));
	EXPECT_EQ(10, depth());
	/* the caller is to blame */
	EXPECT_LT((uintptr_t)call_enter, forkgate_self->site);
	EXPECT_GT((uintptr_t)call_enter + 64, forkgate_self->site);
	EXPECT_EQ(0, call_enter(BOTH));
	EXPECT_EQ(21, depth());
	EXPECT_EQ(EINVAL, call_enter(0));
	EXPECT_EQ(EINVAL, call_enter(4));
	leave_function(BOTH);
	leave_function(MEMORY);
	EXPECT_EQ(0, depth());
	EXPECT_EQ(ENODEV, forkgate_init(FORKGATE_STRICT));
	EXPECT_EQ(ENODEV, call_enter(BOTH));
	EXPECT_EQ(0, depth());
}

static void *label_thread(void *arg)
{
	forkgate_label("a name");
	return forkgate_self ? NULL : arg;
}

TEST_F(nomodule, label_before_the_first_section)
{
	pthread_t thread;
	void *said;

	ASSERT_EQ(0, pthread_create(&thread, NULL, label_thread, "fine"));
	ASSERT_EQ(0, pthread_join(thread, &said));
	EXPECT_STREQ("fine", said);
}

TEST_F(nomodule, protection)
{
	int reason = -1;

	EXPECT_EQ(FORKGATE_BY_LIBRARY, forkgate_protection(&reason));
	EXPECT_EQ(ENODEV, reason);
	EXPECT_EQ(FORKGATE_BY_LIBRARY, forkgate_protection(NULL));
}

TEST_F(nomodule, tickets)
{
	struct timespec limit = now();

	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(0, forkgate_prepare(FILES, &limit));
	EXPECT_EQ(0, forkgate_release());
	EXPECT_EQ(ENOENT, forkgate_release());
}

TEST_F(nomodule, bad_arguments)
{
	struct timespec limit = { .tv_sec = 1 };

	EXPECT_EQ(EINVAL, forkgate_enter(0));
	EXPECT_EQ(EINVAL, forkgate_enter(4));
	EXPECT_EQ(EINVAL, forkgate_enter(~0u));
	EXPECT_EQ(EINVAL, forkgate_tryenter(0));
	EXPECT_EQ(EINVAL, forkgate_tryenter(4));
	EXPECT_EQ(EINVAL, forkgate_prepare(0, NULL));
	EXPECT_EQ(EINVAL, forkgate_prepare(4, NULL));
	EXPECT_EQ(EINVAL, forkgate_prepare(4, &limit));
	EXPECT_EQ(EINVAL, forkgate_init(2));

	limit.tv_nsec = 999999999;
	EXPECT_EQ(0, forkgate_prepare(BOTH, &limit));
	limit.tv_nsec = 1000000000;
	EXPECT_EQ(EINVAL, forkgate_prepare(BOTH, &limit));
	limit.tv_nsec = -1;
	EXPECT_EQ(EINVAL, forkgate_prepare(BOTH, &limit));
}

TEST_F(nomodule, asking_changes_nothing)
{
	EXPECT_EQ(0, forkgate_init(0));
	EXPECT_EQ(0, forkgate_enter(BOTH));
	forkgate_leave(BOTH);
	EXPECT_EQ(0, forkgate_init(0));
	EXPECT_EQ(0, forkgate_tryenter(MEMORY));
	forkgate_leave(MEMORY);
}

static void *strict_thread(void *arg)
{
	if (forkgate_enter(FILES) != ENODEV)
		return "entered";
	if (depth())
		return "counted";
	return arg;
}

TEST_F(nomodule, strict)
{
	struct timespec limit = now();
	pthread_t thread;
	void *said;

	EXPECT_EQ(ENODEV, forkgate_init(FORKGATE_STRICT));
	EXPECT_EQ(ENODEV, forkgate_enter(MEMORY));
	EXPECT_EQ(ENODEV, forkgate_enter(BOTH));
	EXPECT_EQ(ENODEV, forkgate_tryenter(FILES));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(ENODEV, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(ENODEV, forkgate_prepare(BOTH, &limit));
	EXPECT_EQ(ENODEV, forkgate_release());
	EXPECT_EQ(EINVAL, forkgate_enter(0));

	/* In every thread, and for good */
	EXPECT_EQ(ENODEV, forkgate_init(0));
	ASSERT_EQ(0, pthread_create(&thread, NULL, strict_thread, "fine"));
	ASSERT_EQ(0, pthread_join(thread, &said));
	EXPECT_STREQ("fine", said);
}

static int strict_in_child(void)
{
	return forkgate_enter(MEMORY) == ENODEV ? 0 : 1;
}

TEST_F(nomodule, strict_is_inherited)
{
	pid_t pid;

	EXPECT_EQ(ENODEV, forkgate_init(FORKGATE_STRICT));
	pid = fork();
	if (!pid)
		_exit(strict_in_child());
	EXPECT_EQ(0, exit_status(pid));
}

TEST_F(nomodule, strict_inside)
{
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	EXPECT_EQ(ENODEV, forkgate_init(FORKGATE_STRICT));
	EXPECT_EQ(ENODEV, forkgate_enter(MEMORY));
	EXPECT_EQ(10, depth());
	forkgate_leave(MEMORY);
	EXPECT_EQ(0, depth());
}

TEST_F(nomodule, errno_is_kept)
{
	struct timespec limit = now();

#define KEEPS_ERRNO(call) do {						\
	errno = ODD_ERRNO;						\
	call;								\
	EXPECT_EQ(ODD_ERRNO, errno) TH_LOG("%s", #call);		\
} while (0)

	KEEPS_ERRNO(forkgate_enter(MEMORY));
	KEEPS_ERRNO(forkgate_tryenter(FILES));
	KEEPS_ERRNO(forkgate_label("a name"));
	KEEPS_ERRNO(forkgate_leave(BOTH));
	KEEPS_ERRNO(forkgate_prepare(BOTH, NULL));
	KEEPS_ERRNO(forkgate_prepare(BOTH, &limit));
	KEEPS_ERRNO(forkgate_release());
	KEEPS_ERRNO(forkgate_init(0));
	KEEPS_ERRNO(forkgate_init(FORKGATE_STRICT));
	KEEPS_ERRNO(forkgate_enter(MEMORY));
	KEEPS_ERRNO(forkgate_tryenter(MEMORY));
	KEEPS_ERRNO(forkgate_prepare(MEMORY, NULL));
	KEEPS_ERRNO(forkgate_release());
}

/* Strict seccomp kills whoever makes a system call. */
static void no_system_calls(void)
{
	int i;

	forkgate_enter(BOTH);
	forkgate_leave(BOTH);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
		syscall(SYS_exit, 1);
	for (i = 0; i < 1000; i++) {
		forkgate_enter(BOTH);
		forkgate_label("a name");
		forkgate_tryenter(MEMORY);
		forkgate_leave(BOTH);
		forkgate_leave(MEMORY);
	}
	syscall(SYS_exit, 0);
}

TEST_F(nomodule, no_system_calls)
{
	pid_t pid = fork();

	if (!pid)
		no_system_calls();
	EXPECT_EQ(0, exit_status(pid));
}

static void *idle(void *arg)
{
	pause();
	return arg;
}

/* More than one thread, as libc treats the two cases differently */
static int threaded(void)
{
	pthread_t thread;

	return pthread_create(&thread, NULL, idle, NULL);
}

TEST_F(nomodule, fork)
{
	pid_t pid;

	ASSERT_EQ(0, threaded());
	EXPECT_EQ(0, forkgate_enter(BOTH));
	pid = fork();
	if (!pid) {
		forkgate_leave(BOTH);
		_exit(depth());
	}
	EXPECT_EQ(0, exit_status(pid));
	forkgate_leave(BOTH);

	pid = forkgate_fork();
	if (!pid)
		_exit(forkgate_enter(BOTH));
	EXPECT_EQ(0, exit_status(pid));
}

/* It runs no handlers, and the child still knows its thread. */
static int child_of__Fork(void)
{
	if (forkgate_self->tid != (__u32)syscall(SYS_gettid))
		return 1;
	forkgate_leave(BOTH);
	return depth();
}

TEST_F(nomodule, _Fork)
{
	pid_t pid;

	ASSERT_EQ(0, threaded());
	EXPECT_EQ(0, forkgate_enter(BOTH));
	pid = _Fork();
	if (!pid)
		_exit(child_of__Fork());
	EXPECT_EQ(0, exit_status(pid));
}

TEST_F(nomodule, forkpty)
{
	pid_t pid;
	int fd;

	ASSERT_EQ(0, threaded());
	pid = forkpty(&fd, NULL, NULL, NULL);
	if (!pid)
		_exit(isatty(STDIN_FILENO) ? 0 : 1);
	EXPECT_EQ(0, exit_status(pid));
}

TEST_F(nomodule, daemon)
{
	pid_t pid, sid = -1;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	pid = fork();
	if (!pid) {
		if (threaded() || daemon(1, 1))
			_exit(1);
		sid = getsid(0);
		_exit(write(fds[1], &sid, sizeof(sid)) != sizeof(sid));
	}
	close(fds[1]);
	EXPECT_EQ(0, exit_status(pid));
	ASSERT_EQ(sizeof(sid), read(fds[0], &sid, sizeof(sid)));
	EXPECT_NE(getsid(0), sid);
}

TEST_F(nomodule, vfork)
{
	char *const argv[] = { "sh", "-c", "exit 42", NULL };
	volatile int before = 1;
	pid_t pid;

	ASSERT_EQ(0, threaded());
	pid = vfork();
	if (!pid) {
		before = 2;
		execv("/bin/sh", argv);
		_exit(127);
	}
	EXPECT_EQ(2, before);
	EXPECT_EQ(42, exit_status(pid));

	pid = vfork();
	if (!pid)
		_exit(43);
	EXPECT_EQ(43, exit_status(pid));
}

/* Let one system call fail. */
static int forbid(int number, int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {
		.len = ARRAY_SIZE(code),
		.filter = code,
	};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

TEST_F(nomodule, vfork_fails)
{
#ifdef SYS_vfork
	volatile pid_t pid;

	ASSERT_EQ(0, forbid(SYS_vfork, EDQUOT));
	errno = 0;
	pid = vfork();
	if (!pid)
		_exit(1);
	EXPECT_EQ(-1, pid);
	EXPECT_EQ(EDQUOT, errno);
#else
	SKIP(return, "there is no system call");
#endif
}

TEST_F(nomodule, posix_spawn)
{
	char *const argv[] = { "sh", "-c", "exit 44", NULL };
	char *const none[] = { "none", NULL };
	pid_t pid;

	ASSERT_EQ(0, threaded());
	EXPECT_EQ(0, posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ));
	EXPECT_EQ(44, exit_status(pid));
	EXPECT_EQ(0, posix_spawnp(&pid, "sh", NULL, NULL, argv, environ));
	EXPECT_EQ(44, exit_status(pid));

	EXPECT_EQ(ENOENT, posix_spawn(&pid, "/none", NULL, NULL, none,
				      environ));
	EXPECT_EQ(ENOENT, posix_spawnp(&pid, "n o n e", NULL, NULL, none,
				       environ));
}

TEST_F(nomodule, system)
{
	ASSERT_EQ(0, threaded());
	errno = ODD_ERRNO;
	EXPECT_EQ(45 << 8, system("exit 45"));
	EXPECT_EQ(ODD_ERRNO, errno);
	EXPECT_NE(0, system(NULL));
}

TEST_F(nomodule, popen)
{
	char said[32] = "";
	FILE *file;

	ASSERT_EQ(0, threaded());
	file = popen("echo hello; exit 46", "r");
	ASSERT_NE(NULL, file);
	EXPECT_NE(NULL, fgets(said, sizeof(said), file));
	EXPECT_STREQ("hello\n", said);
	EXPECT_EQ(46 << 8, pclose(file));

	errno = 0;
	EXPECT_EQ(NULL, popen("true", "neither"));
	EXPECT_EQ(EINVAL, errno);
}

#ifndef STATIC
static bool interposed(const char *name, void *address)
{
	void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);

	return libc && dlsym(libc, name) && dlsym(libc, name) != address;
}

TEST_F(nomodule, interposed)
{
	EXPECT_TRUE(interposed("daemon", daemon));
	EXPECT_TRUE(interposed("fork", fork));
	EXPECT_TRUE(interposed("_Fork", _Fork));
	EXPECT_TRUE(interposed("forkpty", forkpty));
	EXPECT_TRUE(interposed("popen", popen));
	EXPECT_TRUE(interposed("posix_spawn", posix_spawn));
	EXPECT_TRUE(interposed("posix_spawnp", posix_spawnp));
	EXPECT_TRUE(interposed("system", system));
#ifdef VFORK
	EXPECT_TRUE(interposed("vfork", vfork));
#endif
	EXPECT_FALSE(interposed("waitpid", waitpid));
}

TEST_F(nomodule, preloaded)
{
	char program[4096];
	pid_t pid;

	/* it is beside this program */
	ASSERT_LT(0, readlink("/proc/self/exe", program, sizeof(program) - 16));
	snprintf(strrchr(program, '/'), 16, "/" PRELOADED);
	pid = fork();
	if (!pid) {
		setenv("LD_PRELOAD", LIBRARY, 1);
		execl(program, program, NULL);
		_exit(127);
	}
	EXPECT_EQ(0, exit_status(pid));
}
#endif

TEST_HARNESS_MAIN
