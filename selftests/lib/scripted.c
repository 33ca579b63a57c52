// SPDX-License-Identifier: GPL-2.0-only
/*
 * libforkgate against a kernel that says what the test wants: each way a call
 * can end, what exactly the library asks for, and what it does not ask for.
 * Needs no module, and must not use one: every system call of the library ends
 * here, by ld's --wrap. /dev/null stands in for the device, so that descriptors
 * are real. Also built with the sanitizers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kselftest_harness.h>
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	600

#include <internal.h>

#include "wrap.h"

#define MEMORY	FORKGATE_MEMORY
#define FILES	FORKGATE_FILES
#define BOTH	FORKGATE_DOMAINS

#define NSEC_PER_SEC	1000000000ULL

/*
 * The kernel of these tests. An error is what the next call of its kind ends
 * with; arguments are those of the last call.
 */
static struct {
	int open_error, query_error, map_error, register_error, unit_error;
	int enter_error, prepare_error, release_error, seek_error;
	int ioctl_error, msync_error;
	int opens, queries, msync_queries, maps, unmaps, closes, dups, units;
	int ioctls, msyncs;	/* the ways of calls */
	int strays;		/* an ioctl has reached another file */
	int registers, enters, leaves, prepares, releases, policies;
	int calls;		/* all of the second line */
	struct forkgate_query query;
	struct forkgate_enter enter;
	struct forkgate_leave leave;
	struct forkgate_prepare prepare;
	struct forkgate_policy policy;
	bool takes_levels;	/* ENTER, before it fails */
	int interrupt_gettid;	/* so many more times, by SIGUSR1 */
	void (*in_register)(void);
	void (*in_prepare)(void);
	void (*after_seek)(int fd);
	char *map;
	int slots;		/* handed out */
} kernel;

static void count(int *what)
{
	__atomic_fetch_add(what, 1, __ATOMIC_RELAXED);
}

static struct forkgate_header *header(void)
{
	return (void *)kernel.map;
}

static struct forkgate_slot *my_slot(void)
{
	return forkgate_self;
}

/* The depth of the caller's sections, memory * 10 + files */
static int depth(void)
{
	return my_slot()->depth[0] * 10 + my_slot()->depth[1];
}

static int fake_register(struct forkgate_register *reg)
{
	static __thread int slot = -1;

	count(&kernel.registers);
	if (kernel.register_error)
		return kernel.register_error;
	if (kernel.in_register)
		kernel.in_register();
	if (slot < 0)
		slot = __atomic_fetch_add(&kernel.slots, 1, __ATOMIC_RELAXED);
	reg->slot = slot;
	reg->offset = FORKGATE_SLOT_OFFSET(slot);
	return 0;
}

static int fake_enter(struct forkgate_enter *enter)
{
	kernel.enters++;
	kernel.enter = *enter;
	if (kernel.takes_levels) {
		my_slot()->depth[0] -= enter->domains & 1;
		my_slot()->depth[1] -= enter->domains >> 1;
		if (kernel.enter_error != EBUSY)
			enter->flags &= ~FORKGATE_COUNTED;
	}
	return kernel.enter_error;
}

static int fake_call(unsigned long request, void *arg)
{
	count(&kernel.calls);
	switch (request) {
	case FORKGATE_IOC_REGISTER:
		return fake_register(arg);
	case FORKGATE_IOC_ENTER:
		return fake_enter(arg);
	case FORKGATE_IOC_LEAVE:
		kernel.leaves++;
		memcpy(&kernel.leave, arg, sizeof(kernel.leave));
		return 0;
	case FORKGATE_IOC_PREPARE:
		kernel.prepares++;
		memcpy(&kernel.prepare, arg, sizeof(kernel.prepare));
		if (kernel.in_prepare)
			kernel.in_prepare();
		return kernel.prepare_error;
	case FORKGATE_IOC_RELEASE:
		kernel.releases++;
		return kernel.release_error;
	case FORKGATE_IOC_POLICY_GET:
		kernel.policies++;
		memcpy(arg, &kernel.policy, sizeof(kernel.policy));
		return 0;
	}
	return ENOTTY;
}

static bool is_device(int fd)
{
	struct stat file;

	return !fstat(fd, &file) && S_ISCHR(file.st_mode) && file.st_rdev == makedev(1, 3);
}

static long result(int error, long success)
{
	if (!error)
		return success;
	errno = error;
	return -1;
}

void *__real_mmap(void *addr, size_t length, int prot, int flags, int fd,
		  off_t offset);
void *__wrap_mmap(void *addr, size_t length, int prot, int flags, int fd,
		  off_t offset);
int __real_munmap(void *addr, size_t length);
int __wrap_munmap(void *addr, size_t length);

long __wrap_syscall(long number, ...)
{
	long args[6], ret;

	SYSCALL_ARGUMENTS(args, number);
	switch (number) {
	case SYS_gettid:
		if (kernel.interrupt_gettid) {
			kernel.interrupt_gettid--;
			raise(SIGUSR1);
		}
		break;
	case SYS_openat:
		if (strcmp((char *)args[1], "/dev/forkgate"))
			break;
		count(&kernel.opens);
		if ((int)args[2] != (O_RDWR | O_CLOEXEC))
			return result(EINVAL, 0);
		if (kernel.open_error)
			return result(kernel.open_error, 0);
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case SYS_lseek:
		if (kernel.seek_error)
			return result(kernel.seek_error, 0);
		ret = is_device(args[0]) ? FORKGATE_POSITION :
					   __real_syscall(number, args[0], args[1], args[2]);
		if (kernel.after_seek)
			kernel.after_seek(args[0]);
		return ret;
	case SYS_membarrier:	/* so the library has no gate of its own, either */
		return result(ENOSYS, 0);
	case SYS_fcntl:
		count(&kernel.dups);
		break;
	case SYS_ioctl:
		if (!is_device(args[0])) {
			count(&kernel.strays);
			break;
		}
		if (kernel.ioctl_error)
			return result(kernel.ioctl_error, 0);
		if ((unsigned long)args[1] != FORKGATE_IOC_QUERY) {
			count(&kernel.ioctls);
			return result(fake_call(args[1], (void *)args[2]), 0);
		}
		count(&kernel.queries);
		memcpy((void *)args[2], &kernel.query, sizeof(kernel.query));
		return result(kernel.query_error, 0);
	case SYS_close:
		if (is_device(args[0]))
			count(&kernel.closes);
		break;
	case SYS_msync:
		if (!kernel.map || (char *)args[0] != kernel.map ||
		    args[1] != FORKGATE_UNIT_SIZE || args[2] != MS_SYNC)
			break;
		if ((unsigned long)args[3] == FORKGATE_IOC_QUERY) {
			count(&kernel.msync_queries);
			return result(kernel.msync_error, 0);
		}
		count(&kernel.msyncs);
		return result(fake_call(args[3], (void *)args[4]), 0);
	}
	return __real_syscall(number, args[0], args[1], args[2], args[3],
			      args[4], args[5]);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void *__wrap_mmap(void *addr, size_t length, int prot, int flags, int fd,
		  off_t offset)
{
	if (!is_device(fd)) {
		if (length == FORKGATE_UNIT_SIZE && kernel.unit_error) {
			errno = kernel.unit_error;
			return MAP_FAILED;
		}
		if (length == FORKGATE_UNIT_SIZE)
			count(&kernel.units);
		return __real_mmap(addr, length, prot, flags, fd, offset);
	}
	count(&kernel.maps);
	if (kernel.map_error || length != FORKGATE_MAP_SIZE || offset ||
	    prot != (PROT_READ | PROT_WRITE) || flags != MAP_SHARED) {
		errno = kernel.map_error ? kernel.map_error : EINVAL;
		return MAP_FAILED;
	}
	pthread_mutex_lock(&lock);
	if (!kernel.map)
		kernel.map = __real_mmap(NULL, length, prot,
					 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_mutex_unlock(&lock);
	return kernel.map;
}

int __wrap_munmap(void *addr, size_t length)
{
	if (addr && addr == kernel.map) {
		count(&kernel.unmaps);
		return 0;
	}
	return __real_munmap(addr, length);
}

/* Before the library's own constructor: a machine without a module */
static __attribute__((__constructor__(101))) void no_module(void)
{
	kernel.open_error = ENOENT;
}

static void fine_module(void)
{
	memset(&kernel, 0, sizeof(kernel));
	kernel.query.abi = FORKGATE_ABI;
	kernel.query.features = FORKGATE_FEATURE_MSYNC;
	kernel.query.slots = FORKGATE_SLOTS;
	kernel.query.slot_size = FORKGATE_SLOT_SIZE;
	kernel.query.map_size = FORKGATE_MAP_SIZE;
}

/*
 * Finding the gate
 */

TEST(constructor_opens_once)
{
	EXPECT_EQ(1, kernel.opens);
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	forkgate_leave(MEMORY);
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(1, kernel.opens);
	EXPECT_EQ(ENOSYS, forkgate_init(0));	/* nor a gate of its own */
	EXPECT_EQ(2, kernel.opens);
}

TEST(open_fails)
{
	static const struct {
		int error, result;
	} cases[] = {
		{ ENOENT, ENODEV }, { ENXIO, ENODEV }, { ENODEV, ENODEV }, { EISDIR, ENODEV },
		{ EACCES, EACCES }, { EPERM, EPERM }, { EMFILE, EMFILE },
		{ ENFILE, ENFILE }, { ENOMEM, ENOMEM },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		fine_module();
		kernel.open_error = cases[i].error;
		EXPECT_EQ(cases[i].result, forkgate_init(FORKGATE_STRICT));
		EXPECT_EQ(cases[i].result, forkgate_enter(BOTH));
		EXPECT_EQ(0, kernel.closes);
		EXPECT_EQ(0, kernel.maps);
	}
}

TEST(unknown_module)
{
	fine_module();
	kernel.query_error = ENOTTY;
	EXPECT_EQ(ENODEV, forkgate_init(FORKGATE_STRICT));
	EXPECT_EQ(1, kernel.closes);
	fine_module();
	kernel.query.abi = 0;
	EXPECT_EQ(ENOTSUP, forkgate_init(FORKGATE_STRICT));
	fine_module();
	kernel.query.features = FORKGATE_FEATURE_DEBUG;
	EXPECT_EQ(ENOTSUP, forkgate_init(FORKGATE_STRICT));
	fine_module();
	kernel.query.slot_size = 128;
	EXPECT_EQ(ENOTSUP, forkgate_init(FORKGATE_STRICT));
	fine_module();
	kernel.query.map_size *= 2;
	EXPECT_EQ(ENOTSUP, forkgate_init(FORKGATE_STRICT));
	EXPECT_EQ(1, kernel.closes);
	EXPECT_EQ(0, kernel.maps);
}

/* A filter may let only one way of calls through, and say what it likes. */
TEST(filtered_module)
{
	static const int errors[] = { EPERM, ENOSYS, EACCES };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		fine_module();
		kernel.query_error = errors[i];
		EXPECT_EQ(EPERM, forkgate_init(FORKGATE_STRICT));
		EXPECT_EQ(1, kernel.closes);
		fine_module();
		kernel.msync_error = errors[i];
		EXPECT_EQ(EPERM, forkgate_init(FORKGATE_STRICT));
		EXPECT_EQ(1, kernel.closes);
		EXPECT_EQ(1, kernel.unmaps);
	}
}

TEST(newer_module)
{
	fine_module();
	kernel.query.abi = FORKGATE_ABI + 1;
	kernel.query.features = ~0u;
	EXPECT_EQ(0, forkgate_init(0));
}

TEST(map_fails)
{
	fine_module();
	kernel.map_error = ENOMEM;
	EXPECT_EQ(ENOSYS, forkgate_init(0));
	EXPECT_EQ(1, kernel.closes);
	EXPECT_EQ(0, forkgate_enter(BOTH));
	forkgate_leave(BOTH);
	EXPECT_EQ(1, kernel.opens);
	kernel.map_error = 0;
	EXPECT_EQ(0, forkgate_init(0));
}

TEST(found_later)
{
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	fine_module();

	/* What has been counted elsewhere stays there. */
	EXPECT_EQ(ENOSYS, forkgate_init(0));
	EXPECT_EQ(0, kernel.opens);
	EXPECT_EQ(10, depth());
	forkgate_leave(MEMORY);
	EXPECT_EQ(0, forkgate_init(0));
	EXPECT_EQ(1, kernel.opens);
	EXPECT_EQ(1, kernel.closes);
	EXPECT_EQ(1, kernel.registers);
	EXPECT_EQ(kernel.map + FORKGATE_SLOT_OFFSET(0), (char *)my_slot());
	EXPECT_EQ(kernel.map, (char *)forkgate_header_of(my_slot()));

	EXPECT_EQ(0, forkgate_init(FORKGATE_STRICT));
	EXPECT_EQ(0, forkgate_enter(BOTH));
	EXPECT_EQ(11, depth());
	forkgate_leave(BOTH);
	EXPECT_EQ(1, kernel.opens);
	EXPECT_EQ(1, kernel.calls);
}

TEST(no_free_slot)
{
	fine_module();
	kernel.register_error = ENOSPC;
	EXPECT_EQ(ENOSPC, forkgate_init(0));
	EXPECT_EQ(0, forkgate_enter(BOTH));
	EXPECT_EQ(11, depth());
	forkgate_leave(BOTH);
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(0, forkgate_release());
	EXPECT_EQ(1, kernel.calls);

	EXPECT_EQ(ENOSPC, forkgate_init(FORKGATE_STRICT));
	EXPECT_EQ(ENOSPC, forkgate_enter(BOTH));
	EXPECT_EQ(ENOSPC, forkgate_tryenter(MEMORY));
	EXPECT_EQ(ENOSPC, forkgate_prepare(MEMORY, NULL));
	EXPECT_EQ(ENOSPC, forkgate_release());
	EXPECT_EQ(0, depth());
	EXPECT_EQ(2, kernel.calls);

	kernel.register_error = 0;
	EXPECT_EQ(ENOSPC, forkgate_enter(BOTH));
	EXPECT_EQ(0, forkgate_init(0));
	EXPECT_EQ(0, forkgate_enter(BOTH));
	forkgate_leave(BOTH);
}

/* A thread that had no gate, in a process that has one since */
static int late_thread_step;

static void *late_thread(void *arg)
{
	long bad = forkgate_enter(MEMORY);

	forkgate_leave(MEMORY);
	__atomic_store_n(&late_thread_step, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&late_thread_step, __ATOMIC_ACQUIRE) < 2)
		sched_yield();
	bad |= forkgate_enter(MEMORY) != ENOSYS;
	bad |= forkgate_init(0);
	bad |= forkgate_enter(MEMORY);
	return (void *)bad;
}

TEST(thread_stays_without)
{
	pthread_t thread;
	void *bad;

	ASSERT_EQ(0, pthread_create(&thread, NULL, late_thread, NULL));
	while (__atomic_load_n(&late_thread_step, __ATOMIC_ACQUIRE) < 1)
		sched_yield();
	fine_module();
	EXPECT_EQ(0, forkgate_init(FORKGATE_STRICT));
	__atomic_store_n(&late_thread_step, 2, __ATOMIC_RELEASE);
	ASSERT_EQ(0, pthread_join(thread, &bad));
	EXPECT_EQ(NULL, bad);
}

/* Registering is interrupted by a handler that registers. */
static int handler_result = -1;

static void handler(int sig)
{
	handler_result = forkgate_enter(BOTH);
	if (!handler_result && depth() != 11)
		handler_result = -2;
	forkgate_leave(BOTH);
}

static void interrupt(void)
{
	kernel.in_register = NULL;
	raise(SIGUSR1);
}

static void interrupt_and_fail(void)
{
	interrupt();
	kernel.register_error = ENOSPC;
}

static void *interrupted_thread(void *arg)
{
	long bad = forkgate_enter(MEMORY);

	return (void *)(bad | (depth() != 10));
}

TEST(handler_while_registering)
{
	pthread_t thread;
	void *bad;

	fine_module();
	ASSERT_EQ(0, forkgate_init(0));
	signal(SIGUSR1, handler);

	kernel.in_register = interrupt;
	ASSERT_EQ(0, pthread_create(&thread, NULL, interrupted_thread, NULL));
	ASSERT_EQ(0, pthread_join(thread, &bad));
	EXPECT_EQ(NULL, bad);
	EXPECT_EQ(0, handler_result);
	EXPECT_EQ(3, kernel.registers);

	handler_result = -1;
	kernel.in_register = interrupt_and_fail;
	ASSERT_EQ(0, pthread_create(&thread, NULL, interrupted_thread, NULL));
	ASSERT_EQ(0, pthread_join(thread, &bad));
	EXPECT_EQ(NULL, bad);
	EXPECT_EQ(0, handler_result);
}

/*
 * The descriptor
 */

#define KEPT_FD	31

FIXTURE(fd) {
};

FIXTURE_SETUP(fd)
{
	fine_module();
	ASSERT_EQ(0, forkgate_init(0));
	kernel.ioctls = 0;
	header()->closed = BOTH;
	errno = EDOM;
}

FIXTURE_TEARDOWN(fd)
{
	EXPECT_EQ(EDOM, errno);
}

/* Each kind of call, and a fork. Return: 0 if all went well. */
static int all_calls(void)
{
	int bad = forkgate_enter(MEMORY);

	forkgate_leave(MEMORY);
	bad |= forkgate_tryenter(FILES);
	forkgate_leave(FILES);
	bad |= forkgate_prepare(BOTH, NULL);
	return bad | forkgate_release();
}

#define CALLS	6

TEST_F(fd, calls)
{
	EXPECT_TRUE(is_device(KEPT_FD));
	EXPECT_EQ(FD_CLOEXEC, fcntl(KEPT_FD, F_GETFD));
	EXPECT_EQ(0, all_calls());
	EXPECT_EQ(CALLS, kernel.ioctls);
	EXPECT_EQ(0, kernel.msyncs);
}

TEST_F(fd, closed)
{
	close_range(3, ~0u, 0);
	EXPECT_EQ(0, all_calls());
	EXPECT_EQ(0, kernel.ioctls);
	EXPECT_EQ(CALLS, kernel.msyncs);
	EXPECT_EQ(1, kernel.opens);
}

static void replace(int fd, const char *path, int flags)
{
	int other = open(path, flags);

	dup2(other, fd);
	close(other);
}

TEST_F(fd, of_another_file)
{
	static const struct {
		const char *path;
		int flags;
	} files[] = {
		{ "/dev/zero", O_RDWR }, { "/", O_RDONLY | O_DIRECTORY },
		{ "/proc/self/exe", O_RDONLY }, { "/proc/self/exe", O_PATH },
	};
	int pair[2];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(files); i++) {
		kernel.msyncs = 0;
		replace(KEPT_FD, files[i].path, files[i].flags);
		EXPECT_EQ(0, all_calls());
		EXPECT_EQ(CALLS, kernel.msyncs) TH_LOG("%s", files[i].path);
	}
	ASSERT_EQ(0, pipe(pair));
	dup2(pair[0], KEPT_FD);
	EXPECT_EQ(0, all_calls());
	EXPECT_EQ(2 * CALLS, kernel.msyncs);
	EXPECT_EQ(0, kernel.ioctls);
	EXPECT_EQ(0, kernel.strays);
	EXPECT_EQ(0, fcntl(KEPT_FD, F_GETFD));
}

/* Any file of the device is as good. */
TEST_F(fd, of_the_same_device)
{
	replace(KEPT_FD, "/dev/null", O_RDONLY);
	EXPECT_EQ(0, all_calls());
	EXPECT_EQ(CALLS, kernel.ioctls);
	EXPECT_EQ(0, kernel.msyncs);
}

/* Another thread closes it, or takes its number, between the look and the call. */
static void close_it(int fd)
{
	close(fd);
}

static void replace_it(int fd)
{
	replace(fd, "/dev/zero", O_RDWR);
}

TEST_F(fd, is_closed_in_between)
{
	kernel.after_seek = close_it;
	EXPECT_EQ(0, all_calls());
	EXPECT_EQ(CALLS, kernel.msyncs);
	EXPECT_EQ(1, kernel.strays);
}

TEST_F(fd, changes_in_between)
{
	kernel.after_seek = replace_it;
	EXPECT_EQ(0, all_calls());
	EXPECT_EQ(CALLS, kernel.msyncs);
	EXPECT_EQ(1, kernel.strays);
}

/* Only what another file might have said is not believed. */
TEST_F(fd, is_believed)
{
	kernel.ioctl_error = ETIMEDOUT;
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(0, kernel.msyncs);
	kernel.ioctl_error = EINVAL;
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(1, kernel.msyncs);
}

TEST(fd_as_the_limit_allows)
{
	static const struct {
		int limit, fd;
	} cases[] = {
		{ 256, 31 }, { 32, 31 }, { 31, 15 }, { 8, 7 },
	};
	struct rlimit limit;
	unsigned int i;
	int status;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		pid = fork();
		if (!pid) {
			close_range(3, ~0u, 0);
			limit.rlim_cur = cases[i].limit;
			limit.rlim_max = cases[i].limit;
			fine_module();
			_exit(setrlimit(RLIMIT_NOFILE, &limit) || forkgate_init(0) ||
			      !is_device(cases[i].fd) || is_device(3));
		}
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status) TH_LOG("limit %d", cases[i].limit);
	}

	/* There is room for one only. */
	close_range(3, ~0u, 0);
	limit.rlim_cur = 4;
	limit.rlim_max = 4;
	fine_module();
	EXPECT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	EXPECT_EQ(0, forkgate_init(0));
	EXPECT_TRUE(is_device(3));
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(0, kernel.msyncs);
}

/* A sandbox that does not let the library recognise its descriptor */
TEST(fd_unknown)
{
	fine_module();
	kernel.seek_error = EPERM;
	EXPECT_EQ(0, forkgate_init(0));
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(0, kernel.ioctls);
	EXPECT_EQ(2, kernel.msyncs);
}

/*
 * Entering and leaving
 */

FIXTURE(gate) {
};

FIXTURE_SETUP(gate)
{
	fine_module();
	ASSERT_EQ(0, forkgate_init(0));
	kernel.calls = 0;
}

FIXTURE_TEARDOWN(gate)
{
}

TEST_F(gate, open)
{
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	EXPECT_EQ(0, forkgate_enter(BOTH));
	EXPECT_EQ(0, forkgate_tryenter(FILES));
	EXPECT_EQ(22, depth());
	forkgate_label("a name");
	forkgate_leave(BOTH);
	forkgate_leave(MEMORY);
	forkgate_leave(FILES);
	EXPECT_EQ(0, depth());
	EXPECT_EQ(0, kernel.calls);
}

TEST_F(gate, closed_for_others)
{
	header()->closed = FILES;
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	EXPECT_EQ(0, forkgate_tryenter(MEMORY));
	forkgate_leave(MEMORY);
	forkgate_leave(MEMORY);
	EXPECT_EQ(0, kernel.calls);
}

TEST_F(gate, enter_asks)
{
	header()->closed = MEMORY;
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	EXPECT_EQ(1, kernel.enters);
	EXPECT_EQ(MEMORY, kernel.enter.domains);
	EXPECT_EQ(FORKGATE_COUNTED, kernel.enter.flags);
	EXPECT_EQ(0, kernel.enter.levels[0]);
	EXPECT_EQ(0, kernel.enter.levels[1]);

	/* every time, not only the first */
	EXPECT_EQ(0, forkgate_enter(BOTH));
	EXPECT_EQ(2, kernel.enters);
	EXPECT_EQ(BOTH, kernel.enter.domains);
	EXPECT_EQ(21, depth());
}

/* The functions for languages that cannot inline: they wait and wake too. */
int enter_function(unsigned int domains) __asm__("forkgate_enter");
void leave_function(unsigned int domains) __asm__("forkgate_leave");

TEST_F(gate, functions_ask)
{
	header()->closed = MEMORY;
	EXPECT_EQ(0, enter_function(BOTH));
	EXPECT_EQ(1, kernel.enters);
	EXPECT_EQ(BOTH, kernel.enter.domains);
	EXPECT_EQ(FORKGATE_COUNTED, kernel.enter.flags);
	EXPECT_EQ(11, depth());
	leave_function(BOTH);
	EXPECT_EQ(1, kernel.leaves);
	EXPECT_EQ(MEMORY, kernel.leave.domains);
	EXPECT_EQ(0, depth());
}

TEST_F(gate, tryenter_asks)
{
	header()->closed = FILES;
	EXPECT_EQ(0, forkgate_tryenter(BOTH));
	EXPECT_EQ(1, kernel.enters);
	EXPECT_EQ(BOTH, kernel.enter.domains);
	EXPECT_EQ(FORKGATE_COUNTED | FORKGATE_NONBLOCK, kernel.enter.flags);
	EXPECT_EQ(11, depth());
}

TEST_F(gate, tryenter_is_busy)
{
	EXPECT_EQ(0, forkgate_enter(FILES));
	header()->closed = BOTH;
	kernel.enter_error = EBUSY;
	kernel.takes_levels = true;
	EXPECT_EQ(EBUSY, forkgate_tryenter(BOTH));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(EBUSY, forkgate_tryenter(FILES));
	EXPECT_EQ(1, depth());
}

TEST_F(gate, enter_fails)
{
	static const int errors[] = { ENXIO, ESRCH, EOVERFLOW, EFAULT };
	size_t i;

	EXPECT_EQ(0, forkgate_enter(MEMORY));
	header()->closed = BOTH;
	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		kernel.enter_error = errors[i];
		EXPECT_EQ(errors[i], forkgate_enter(BOTH));
		EXPECT_EQ(10, depth());
		EXPECT_EQ(errors[i], forkgate_enter(MEMORY));
		EXPECT_EQ(10, depth());
		EXPECT_EQ(errors[i], forkgate_tryenter(FILES));
		EXPECT_EQ(10, depth());
	}
}

/* The gate goes away while the thread sleeps, its levels already taken. */
TEST_F(gate, enter_fails_late)
{
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	header()->closed = BOTH;
	kernel.enter_error = ENXIO;
	kernel.takes_levels = true;
	EXPECT_EQ(ENXIO, forkgate_enter(BOTH));
	EXPECT_EQ(10, depth());
}

TEST_F(gate, bad_domains_count_nothing)
{
	header()->closed = BOTH;
	EXPECT_EQ(EINVAL, forkgate_enter(0));
	EXPECT_EQ(EINVAL, forkgate_enter(4));
	EXPECT_EQ(EINVAL, forkgate_tryenter(0));
	EXPECT_EQ(EINVAL, forkgate_tryenter(5));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(0, kernel.calls);
}

TEST_F(gate, leave_wakes)
{
	EXPECT_EQ(0, forkgate_enter(BOTH));
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	header()->closed = MEMORY;

	/* still inside */
	forkgate_leave(MEMORY);
	EXPECT_EQ(0, kernel.leaves);
	/* only what has become idle and is closed */
	forkgate_leave(BOTH);
	EXPECT_EQ(1, kernel.leaves);
	EXPECT_EQ(MEMORY, kernel.leave.domains);
	EXPECT_EQ(FORKGATE_COUNTED, kernel.leave.flags);
	EXPECT_EQ(0, depth());
}

TEST_F(gate, leave_one_of_two)
{
	EXPECT_EQ(0, forkgate_enter(BOTH));
	EXPECT_EQ(0, forkgate_enter(FILES));
	header()->closed = BOTH;
	forkgate_leave(BOTH);
	EXPECT_EQ(1, kernel.leaves);
	EXPECT_EQ(MEMORY, kernel.leave.domains);
	forkgate_leave(FILES);
	EXPECT_EQ(2, kernel.leaves);
	EXPECT_EQ(FILES, kernel.leave.domains);
	EXPECT_EQ(2, kernel.calls);
}

/* The address and the name of a section */
TEST_F(gate, site_and_label)
{
	__u64 site;

	EXPECT_EQ(0, forkgate_enter(MEMORY));
	site = my_slot()->site;
	EXPECT_NE(0, site);
	EXPECT_NE(site, my_slot()->label_site);

	forkgate_label("1234567890123456789012345");
	EXPECT_EQ(site, my_slot()->site);
	EXPECT_EQ(site, my_slot()->label_site);
	EXPECT_EQ(0, memcmp(my_slot()->label, "123456789012345678901234", 24));
	EXPECT_EQ(0, my_slot()->outcome);

	/* nothing is left of a longer name */
	forkgate_label("short");
	EXPECT_EQ(0, memcmp(my_slot()->label,
			    "short\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24));
	EXPECT_EQ(0, forkgate_enter(MEMORY));
	EXPECT_NE(site, my_slot()->site);
	EXPECT_NE(my_slot()->site, my_slot()->label_site);
	forkgate_label(NULL);
	EXPECT_EQ(my_slot()->site, my_slot()->label_site);
	EXPECT_EQ('\0', my_slot()->label[0]);
}

/*
 * Tickets
 */

TEST_F(gate, prepare)
{
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(BOTH, kernel.prepare.domains);
	EXPECT_EQ(0, kernel.prepare.flags);
	EXPECT_EQ(0, kernel.prepare.timeout);
	EXPECT_EQ(0, kernel.prepare.attempt);
	EXPECT_EQ(0, kernel.prepare.outcome);
	EXPECT_EQ(0, forkgate_release());
	EXPECT_EQ(1, kernel.releases);
}

/* A limit becomes a duration right before the call. */
TEST_F(gate, prepare_until)
{
	struct timespec limit, now;
	__u64 before, after;

	clock_gettime(CLOCK_MONOTONIC, &limit);
	before = limit.tv_sec * NSEC_PER_SEC + limit.tv_nsec;
	limit.tv_sec += 12;
	EXPECT_EQ(0, forkgate_prepare(FILES, &limit));
	clock_gettime(CLOCK_MONOTONIC, &now);
	after = now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
	EXPECT_EQ(FILES, kernel.prepare.domains);
	EXPECT_EQ(FORKGATE_TIMED, kernel.prepare.flags);
	EXPECT_GE(12 * NSEC_PER_SEC, kernel.prepare.timeout);
	EXPECT_LE(12 * NSEC_PER_SEC - (after - before), kernel.prepare.timeout);
	EXPECT_EQ(0, kernel.prepare.attempt);
}

TEST_F(gate, prepare_polls)
{
	struct timespec limit;

	clock_gettime(CLOCK_MONOTONIC, &limit);
	EXPECT_EQ(0, forkgate_prepare(FILES, &limit));
	EXPECT_EQ(FORKGATE_TIMED, kernel.prepare.flags);
	EXPECT_EQ(0, kernel.prepare.timeout);

	limit = (struct timespec){ .tv_nsec = 1 };
	EXPECT_EQ(0, forkgate_prepare(FILES, &limit));
	EXPECT_EQ(FORKGATE_TIMED, kernel.prepare.flags);
	EXPECT_EQ(0, kernel.prepare.timeout);
	limit.tv_sec = -1;
	EXPECT_EQ(0, forkgate_prepare(FILES, &limit));
	EXPECT_EQ(FORKGATE_TIMED, kernel.prepare.flags);
	EXPECT_EQ(0, kernel.prepare.timeout);
	kernel.prepare_error = ETIMEDOUT;
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(FILES, &limit));
}

TEST_F(gate, prepare_until_the_end_of_time)
{
	struct timespec limit, now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	limit = (struct timespec){ .tv_sec = INT64_MAX };
	EXPECT_EQ(0, forkgate_prepare(FILES, &limit));
	EXPECT_EQ(FORKGATE_FOREVER, kernel.prepare.timeout);
	limit.tv_sec = FORKGATE_FOREVER / NSEC_PER_SEC + now.tv_sec + 1;
	EXPECT_EQ(0, forkgate_prepare(FILES, &limit));
	EXPECT_EQ(FORKGATE_FOREVER, kernel.prepare.timeout);
	limit.tv_sec -= 2;
	EXPECT_EQ(0, forkgate_prepare(FILES, &limit));
	EXPECT_GT(FORKGATE_FOREVER, kernel.prepare.timeout);
	EXPECT_LT(FORKGATE_FOREVER - 60 * NSEC_PER_SEC, kernel.prepare.timeout);
}

TEST_F(gate, prepare_bad_arguments)
{
	struct timespec limit = { .tv_sec = 1, .tv_nsec = 1000000000 };

	EXPECT_EQ(EINVAL, forkgate_prepare(0, NULL));
	EXPECT_EQ(EINVAL, forkgate_prepare(4, NULL));
	EXPECT_EQ(EINVAL, forkgate_prepare(BOTH, &limit));
	limit.tv_nsec = -1;
	EXPECT_EQ(EINVAL, forkgate_prepare(BOTH, &limit));
	limit.tv_nsec = 0;
	EXPECT_EQ(EINVAL, forkgate_prepare(0, &limit));
	EXPECT_EQ(0, kernel.calls);
}

TEST_F(gate, prepare_fails)
{
	static const int errors[] = { ETIMEDOUT, EDEADLK, ENOMEM, ENXIO };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		kernel.prepare_error = errors[i];
		EXPECT_EQ(errors[i], forkgate_prepare(BOTH, NULL));
	}
	kernel.prepare_error = EALREADY;
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(0, kernel.releases);
}

TEST_F(gate, release_fails)
{
	kernel.release_error = ENOENT;
	EXPECT_EQ(ENOENT, forkgate_release());
	kernel.release_error = ESTALE;
	EXPECT_EQ(ESTALE, forkgate_release());
}

/*
 * Forks
 */

static struct {
	int fails;		/* so many more times */
	int error;
	unsigned int outcome;
	unsigned int tries;	/* what the slot said, the last time */
	int calls;
} forks;

static pid_t fake_fork(void)
{
	forks.calls++;
	forks.tries = my_slot()->tries;
	if (forks.fails-- <= 0)
		return 1234;
	my_slot()->outcome = forks.outcome;
	errno = forks.error;
	return -1;
}

/* It is tried without a ticket, and mostly that is all. */
TEST_F(gate, fork)
{
	EXPECT_EQ(1234, __forkgate_fork_prepared(fake_fork));
	EXPECT_EQ(1, forks.calls);
	EXPECT_EQ(MEMORY, forks.tries);
	EXPECT_EQ(0, my_slot()->tries);
	EXPECT_EQ(0, kernel.prepares);
	EXPECT_EQ(0, kernel.releases);
}

TEST_F(gate, fork_prepares)
{
	forks.fails = 1;
	forks.error = EAGAIN;
	forks.outcome = FORKGATE_OUTCOME_EXPIRED;
	EXPECT_EQ(1234, __forkgate_fork_prepared(fake_fork));
	EXPECT_EQ(2, forks.calls);
	EXPECT_EQ(0, forks.tries);
	EXPECT_EQ(1, kernel.prepares);
	EXPECT_EQ(BOTH, kernel.prepare.domains);
	EXPECT_EQ(0, kernel.prepare.flags);
	EXPECT_EQ(0, kernel.prepare.attempt);
	EXPECT_EQ(0, kernel.releases);
}

TEST_F(gate, fork_tries_again)
{
	forks.fails = 4;
	forks.error = EAGAIN;
	forks.outcome = FORKGATE_OUTCOME_EXPIRED;
	kernel.release_error = ENOENT;
	EXPECT_EQ(1234, __forkgate_fork_prepared(fake_fork));
	EXPECT_EQ(5, forks.calls);
	EXPECT_EQ(4, kernel.prepares);
	EXPECT_EQ(3, kernel.prepare.attempt);
	EXPECT_EQ(3, kernel.releases);
}

TEST_F(gate, fork_fails)
{
	static const unsigned int outcomes[] = {
		FORKGATE_OUTCOME_NONE, FORKGATE_OUTCOME_GRANTED,
		FORKGATE_OUTCOME_TIMEOUT, FORKGATE_OUTCOME_DEADLK,
		FORKGATE_OUTCOME_UNSAFE,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(outcomes); i++) {
		forks.fails = 1;
		forks.error = EAGAIN + i;
		forks.outcome = outcomes[i];
		EXPECT_EQ(-1, __forkgate_fork_prepared(fake_fork));
		EXPECT_EQ(EAGAIN + (int)i, errno);
		EXPECT_EQ(i + 1, forks.calls);
		EXPECT_EQ(0, kernel.prepares);
		EXPECT_EQ(0, my_slot()->tries);
	}
}

/* The same with a ticket, which is given back */
static pid_t fork_that_fails_with_a_ticket(void)
{
	forks.outcome = forks.calls ? FORKGATE_OUTCOME_GRANTED : FORKGATE_OUTCOME_EXPIRED;
	return fake_fork();
}

TEST_F(gate, fork_gives_its_ticket_back)
{
	forks.fails = 2;
	forks.error = ENOMEM;
	EXPECT_EQ(-1, __forkgate_fork_prepared(fork_that_fails_with_a_ticket));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(2, forks.calls);
	EXPECT_EQ(1, kernel.prepares);
	EXPECT_EQ(1, kernel.releases);
}

TEST_F(gate, fork_without_ticket)
{
	static const struct {
		int prepare, error;
	} cases[] = {
		{ ETIMEDOUT, EAGAIN }, { EDEADLK, EDEADLK },
		/* not because of others: fork, the kernel knows more */
		{ ENOMEM, 0 }, { ENXIO, 0 }, { EFAULT, 0 },
		/* the program's own ticket */
		{ EALREADY, 0 },
	};
	unsigned int i, calls;

	forks.outcome = FORKGATE_OUTCOME_EXPIRED;
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		kernel.prepare_error = cases[i].prepare;
		errno = 0;
		calls = forks.calls;
		forks.fails = 1;
		if (cases[i].error) {
			EXPECT_EQ(-1, __forkgate_fork_prepared(fake_fork));
			EXPECT_EQ(cases[i].error, errno);
			EXPECT_EQ(calls + 1, forks.calls);
		} else {
			EXPECT_EQ(1234, __forkgate_fork_prepared(fake_fork));
			EXPECT_EQ(calls + 2, forks.calls);
		}
	}
	EXPECT_EQ(0, kernel.releases);

	/* what this call has not taken it does not give back */
	kernel.prepare_error = EALREADY;
	forks.calls = 0;
	forks.fails = 2;
	EXPECT_EQ(-1, __forkgate_fork_prepared(fork_that_fails_with_a_ticket));
	EXPECT_EQ(0, kernel.releases);
}

/* An atfork handler forks: the outer call is still tried. */
static pid_t fork_in_fork(void)
{
	if (__forkgate_fork_prepared(fake_fork) != 1234)
		return -1;
	return fake_fork();
}

TEST_F(gate, fork_in_a_handler)
{
	EXPECT_EQ(1234, __forkgate_fork_prepared(fork_in_fork));
	EXPECT_EQ(2, forks.calls);
	EXPECT_EQ(MEMORY, forks.tries);
	EXPECT_EQ(0, my_slot()->tries);
	EXPECT_EQ(0, kernel.prepares);
}

TEST(fork_without_gate)
{
	kernel.calls = 0;
	EXPECT_EQ(1234, __forkgate_fork_prepared(fake_fork));
	forks.fails = 1;
	forks.error = EDOM;
	EXPECT_EQ(-1, __forkgate_fork_prepared(fake_fork));
	EXPECT_EQ(EDOM, errno);
	EXPECT_EQ(2, forks.calls);
	EXPECT_EQ(0, kernel.calls);
}

/*
 * The C library's functions, in their places
 */

#ifdef FORKGATE_SHARED
#define LIBC(name)	((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
#define PIDFD(name)	name
#else
#define LIBC(name)	__real_##name
#define PIDFD(name)	__wrap_##name
#endif

pid_t __real_fork(void);

/* Where libc has none, the static library's is given this as the original. */
__typeof__(posix_spawn) pidfd_spawn, __wrap_pidfd_spawn;
__typeof__(posix_spawnp) pidfd_spawnp, __wrap_pidfd_spawnp;

static bool have_pidfd_spawn = true;

#if !__GLIBC_PREREQ(2, 39) && !defined(FORKGATE_SHARED)
#define PIDFD_SPAWN(name, original)						\
int name(int *fd, const char *path, const posix_spawn_file_actions_t *actions,	\
	 const posix_spawnattr_t *attr, char *const argv[], char *const envp[])	\
{										\
	pid_t pid;								\
	int err = LIBC(original)(&pid, path, actions, attr, argv, envp);	\
										\
	if (!err)								\
		*fd = syscall(SYS_pidfd_open, (long)pid, 0L);			\
	return err;								\
}

__typeof__(posix_spawn) __real_posix_spawn;
__typeof__(posix_spawnp) __real_posix_spawnp;

PIDFD_SPAWN(pidfd_spawn, posix_spawn)
PIDFD_SPAWN(pidfd_spawnp, posix_spawnp)
#endif

static int status_of(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

/* The result of a fork that returns the child: 0 or an error number */
static int forked(pid_t pid)
{
	if (!pid)
		_exit(0);
	return pid < 0 ? errno : status_of(pid);
}

static int call_fork(void)
{
	return forked(fork());
}

static int call_forkgate_fork(void)
{
	return forked(forkgate_fork());
}

static int call__Fork(void)
{
	return forked(_Fork());
}

static int call_forkpty(void)
{
	int fd;

	return forked(forkpty(&fd, NULL, NULL, NULL));
}

static char *const program[] = { "true", NULL };

static int call_posix_spawn(void)
{
	pid_t pid;

	return posix_spawn(&pid, "/bin/true", NULL, NULL, program, environ) ?: status_of(pid);
}

static int call_posix_spawnp(void)
{
	pid_t pid;

	return posix_spawnp(&pid, "true", NULL, NULL, program, environ) ?: status_of(pid);
}

static int reap(int fd)
{
	siginfo_t info;

	if (waitid(P_PIDFD, fd, &info, WEXITED))
		return errno;
	close(fd);
	return info.si_status;
}

static int call_pidfd_spawn(void)
{
	int fd;

	return PIDFD(pidfd_spawn)(&fd, "/bin/true", NULL, NULL, program, environ) ?: reap(fd);
}

static int call_pidfd_spawnp(void)
{
	int fd;

	return PIDFD(pidfd_spawnp)(&fd, "true", NULL, NULL, program, environ) ?: reap(fd);
}

static int call_popen(void)
{
	FILE *file = popen("exit 0", "r");

	return file ? pclose(file) : errno;
}

static int call_system(void)
{
	int status = system("exit 0");

	return status == -1 ? errno : status;
}

FIXTURE(interposed) {
};

FIXTURE_VARIANT(interposed) {
	int (*call)(void);
	unsigned int domains;
	bool pidfd;
};

#define FUNCTION(name, domains_, ...)					\
FIXTURE_VARIANT_ADD(interposed, name)					\
{									\
	.call = call_##name,						\
	.domains = domains_,						\
	__VA_ARGS__							\
}

FUNCTION(fork, BOTH);
FUNCTION(forkgate_fork, BOTH);
FUNCTION(_Fork, BOTH);
FUNCTION(forkpty, BOTH);
FUNCTION(posix_spawn, FILES);
FUNCTION(posix_spawnp, FILES);
FUNCTION(pidfd_spawn, FILES, .pidfd = true);
FUNCTION(pidfd_spawnp, FILES, .pidfd = true);
FUNCTION(popen, FILES);
FUNCTION(system, FILES);

FIXTURE_SETUP(interposed)
{
	fine_module();
	ASSERT_EQ(0, forkgate_init(0));
#if !__GLIBC_PREREQ(2, 39) && defined(FORKGATE_SHARED)
	have_pidfd_spawn = false;
#endif
}

FIXTURE_TEARDOWN(interposed)
{
	EXPECT_EQ(0, __forkgate_forking);
}

TEST_F(interposed, is_tried)
{
	if (variant->pidfd && !have_pidfd_spawn) {
		EXPECT_EQ(ENOSYS, variant->call());
		return;
	}
	EXPECT_EQ(0, variant->call());
	EXPECT_EQ(0, my_slot()->tries);
	EXPECT_EQ(0, kernel.prepares);
	EXPECT_EQ(0, kernel.releases);
}

/*
 * A fork that fails so many times because another thread is inside, or because
 * its ticket has expired, and then goes well: the process may not have any more
 * of them.
 */
static int fails;

static void fail(void)
{
	struct rlimit limit;

	getrlimit(RLIMIT_NPROC, &limit);
	limit.rlim_cur = kernel.prepares < fails ? 0 : limit.rlim_max;
	my_slot()->outcome = FORKGATE_OUTCOME_EXPIRED;
	setrlimit(RLIMIT_NPROC, &limit);
}

/* Return: 0, or -1 if it can not be made to fail. */
static int fail_times(int times)
{
	if (!getuid() && (setgid(65534) || setuid(65534)))
		return -1;
	forkgate_enter(MEMORY);
	forkgate_leave(MEMORY);
	kernel.prepares = 0;
	fails = times;
	kernel.in_prepare = fail;
	fail();
	return 0;
}

TEST_F(interposed, prepares)
{
	if (variant->pidfd && !have_pidfd_spawn)
		return;
	if (fail_times(1))
		SKIP(return, "cannot become another user");
	EXPECT_EQ(0, variant->call());
	EXPECT_EQ(1, kernel.prepares);
	EXPECT_EQ(variant->domains, kernel.prepare.domains);
	EXPECT_EQ(0, kernel.prepare.flags);
	EXPECT_EQ(0, kernel.prepare.attempt);
	EXPECT_EQ(0, kernel.releases);
}

TEST_F(interposed, is_refused)
{
	if (variant->pidfd && !have_pidfd_spawn)
		return;
	if (fail_times(1))
		SKIP(return, "cannot become another user");
	kernel.prepare_error = ETIMEDOUT;
	EXPECT_EQ(EAGAIN, variant->call());
	EXPECT_EQ(1, kernel.prepares);
	EXPECT_EQ(0, fail_times(1));
	kernel.prepare_error = EDEADLK;
	EXPECT_EQ(EDEADLK, variant->call());
	EXPECT_EQ(1, kernel.prepares);
	EXPECT_EQ(0, kernel.releases);
	EXPECT_EQ(0, fail_times(1));
	kernel.prepare_error = EALREADY;
	EXPECT_EQ(0, variant->call());
	EXPECT_EQ(0, kernel.releases);
	EXPECT_EQ(0, my_slot()->tries);
}

TEST_F(interposed, tries_again)
{
	if (variant->pidfd && !have_pidfd_spawn)
		return;
	if (fail_times(3))
		SKIP(return, "cannot become another user");
	EXPECT_EQ(0, variant->call());
	EXPECT_EQ(3, kernel.prepares);
	EXPECT_EQ(2, kernel.prepare.attempt);
	EXPECT_EQ(2, kernel.releases);
}

/* Forks behind the library's back are prepared by the handler, and no others. */
static int libc_fork(void)
{
	return forked(LIBC(fork)());
}

TEST_F(gate, atfork_handler)
{
	EXPECT_EQ(0, call_fork());
	EXPECT_EQ(0, kernel.prepares);
	EXPECT_EQ(0, libc_fork());
	EXPECT_EQ(1, kernel.prepares);
	EXPECT_EQ(FORKGATE_TIMED, kernel.prepare.flags);
	EXPECT_EQ(BOTH, kernel.prepare.domains);
	EXPECT_EQ(0, __forkgate_forking);
}

/* A handler runs while a command does, and forks: it has its own prepare. */
static int fork_in_handler = -1;

static void forking_handler(int sig)
{
	int before = kernel.prepares;

	fork_in_handler = libc_fork() || kernel.prepares != before + 1;
}

TEST_F(gate, handler_forks_in_system)
{
	char command[64];

#ifdef __SANITIZE_THREAD__
	SKIP(return, "the sanitizer runs handlers later");
#endif
	signal(SIGUSR1, forking_handler);
	snprintf(command, sizeof(command), "kill -USR1 %d", getpid());
	EXPECT_EQ(0, system(command));
	EXPECT_EQ(0, fork_in_handler);
}

static int child_of__Fork(void)
{
	struct forkgate_slot *slot = my_slot();

	return slot->tid != (__u32)gettid() || depth() != 10;
}

TEST(units_in_the_child_of__Fork)
{
	pid_t pid;

	ASSERT_EQ(0, forkgate_enter(MEMORY));
	pid = _Fork();
	if (!pid)
		_exit(child_of__Fork());
	EXPECT_EQ(0, status_of(pid));
}

TEST_F(gate, atfork_handler_limits_its_wait)
{
	/* the shorter of the two: what it sleeps the clone no longer may */
	kernel.policy.backstop = 10 * NSEC_PER_SEC;
	kernel.policy.timeout = FORKGATE_FOREVER;
	__forkgate_fork_late();
	EXPECT_EQ(FORKGATE_TIMED, kernel.prepare.flags);
	EXPECT_EQ(10 * NSEC_PER_SEC, kernel.prepare.timeout);
	kernel.policy.timeout = 3 * NSEC_PER_SEC;
	__forkgate_fork_late();
	EXPECT_EQ(FORKGATE_TIMED, kernel.prepare.flags);
	EXPECT_EQ(3 * NSEC_PER_SEC, kernel.prepare.timeout);
	kernel.policy.backstop = FORKGATE_FOREVER;
	kernel.policy.timeout = FORKGATE_FOREVER;
	__forkgate_fork_late();
	EXPECT_EQ(FORKGATE_TIMED, kernel.prepare.flags);
	EXPECT_EQ(FORKGATE_FOREVER, kernel.prepare.timeout);
	EXPECT_EQ(3, kernel.prepares);
}

TEST_F(gate, vfork)
{
	EXPECT_EQ(0, __forkgate_vfork_begin(0, 0));
	EXPECT_EQ(FILES, my_slot()->tries);
	EXPECT_EQ(0, kernel.prepares);

	my_slot()->outcome = FORKGATE_OUTCOME_EXPIRED;
	EXPECT_EQ(0, __forkgate_vfork_begin(EAGAIN, 0));
	EXPECT_EQ(0, my_slot()->tries);
	EXPECT_EQ(FILES, kernel.prepare.domains);
	EXPECT_EQ(0, kernel.prepare.attempt);
	EXPECT_EQ(0, __forkgate_vfork_begin(EAGAIN, 0));
	EXPECT_EQ(0, __forkgate_vfork_begin(EAGAIN, 0));
	EXPECT_EQ(2, kernel.prepare.attempt);
	EXPECT_EQ(2, kernel.releases);

	my_slot()->outcome = FORKGATE_OUTCOME_GRANTED;
	errno = 0;
	EXPECT_EQ(-1, __forkgate_vfork_begin(ENOMEM, 0));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(3, kernel.releases);

	EXPECT_EQ(0, __forkgate_vfork_begin(0, 0));
	my_slot()->outcome = FORKGATE_OUTCOME_EXPIRED;
	kernel.prepare_error = ETIMEDOUT;
	EXPECT_EQ(-1, __forkgate_vfork_begin(EAGAIN, 0));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, my_slot()->tries);
}

/* A child shares its parent's memory, and may do the same. */
TEST_F(gate, vfork_in_a_vfork_child)
{
	int i;

	EXPECT_EQ(0, __forkgate_vfork_begin(0, 0));
	EXPECT_EQ(1, __forkgate_vfork_begin(0, 0));
	EXPECT_EQ(0, __forkgate_vfork_end(1, 1));
	/* The parent's vfork is over: a clone by another way would not be tried again. */
	EXPECT_EQ(0, my_slot()->tries);
	EXPECT_EQ(1, __forkgate_vfork_begin(0, 0));	/* and never comes back */
	EXPECT_EQ(0, __forkgate_vfork_end(1, 0));
	for (i = 0; i < 8; i++)
		EXPECT_EQ(i, __forkgate_vfork_begin(0, 0));
	errno = 0;
	EXPECT_EQ(-1, __forkgate_vfork_begin(0, 0));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, __forkgate_vfork_end(1, 0));
	EXPECT_EQ(0, my_slot()->tries);
}

/* Threads that set themselves up at the same time get one mapping. */
static void *first_section(void *arg)
{
	long bad = forkgate_init(0);

	bad |= forkgate_enter(BOTH);
	bad |= depth() != 11;
	forkgate_leave(BOTH);
	return (void *)bad;
}

TEST(many_threads)
{
	pthread_t threads[16];
	size_t i;
	void *bad;

	fine_module();
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, first_section,
					    NULL));
	for (i = 0; i < ARRAY_SIZE(threads); i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &bad));
		EXPECT_EQ(NULL, bad);
	}
	EXPECT_EQ(ARRAY_SIZE(threads), kernel.slots);
	EXPECT_EQ(kernel.opens, kernel.unmaps + 1);
	/* all descriptors but one, of which each was moved */
	EXPECT_EQ(2 * kernel.opens, kernel.closes + 1);
	EXPECT_EQ(kernel.opens, kernel.dups);
}

/*
 * Threads without a gate
 */

#define CROWD	(FORKGATE_UNIT_SLOTS - 1)	/* the first unit's shared slot */
#define FREE	(CROWD - 1)	/* the harness has one since it forked */

static pthread_barrier_t met;

/* Enters, meets the others inside, and leaves. Return: its slot. */
static void *meet_inside(void *arg)
{
	long bad = forkgate_enter(BOTH);

	pthread_barrier_wait(&met);
	bad |= arg && (depth() != 11 || my_slot()->tid != (__u32)gettid());
	pthread_barrier_wait(&met);
	forkgate_leave(BOTH);
	return bad ? NULL : my_slot();
}

/* A thread that was joined is there for a moment longer. */
static void wait_for_end(struct forkgate_slot *slot)
{
	while (slot->tid && !syscall(SYS_tgkill, getpid(), slot->tid, 0))
		sched_yield();
}

/* So many threads, each inside at the same time; @slots: where they count */
static int threads_inside(int n, void **slots, bool alone)
{
	pthread_t threads[3 * FORKGATE_UNIT_SLOTS];
	int i;

	pthread_barrier_init(&met, NULL, n);
	for (i = 0; i < n; i++)
		if (pthread_create(&threads[i], NULL, meet_inside,
				   alone ? &met : NULL))
			return -1;
	for (i = 0; i < n; i++)
		if (pthread_join(threads[i], &slots[i]) || !slots[i])
			return -1;
	for (i = 0; i < n; i++)
		wait_for_end(slots[i]);
	return 0;
}

static int shared_slots(void **slots, int n)
{
	int shared = 0;
	int i, j;

	for (i = 0; i < n; i++)
		for (j = 0; j < i; j++)
			if (slots[i] == slots[j]) {
				shared++;
				break;
			}
	return shared;
}

TEST(units)
{
	void *slots[3 * FORKGATE_UNIT_SLOTS];
	int n = ARRAY_SIZE(slots), i, turn, made;

	/* one each, of a unit whose header is where the inline code looks */
	ASSERT_EQ(0, forkgate_enter(MEMORY));
	EXPECT_EQ(0, kernel.units);
	ASSERT_EQ(0, threads_inside(n, slots, true));
	EXPECT_EQ(0, shared_slots(slots, n));
	for (i = 0; i < n; i++) {
		EXPECT_NE(my_slot(), slots[i]);
		EXPECT_EQ(0, (uintptr_t)slots[i] % FORKGATE_SLOT_SIZE);
		EXPECT_NE(0, (uintptr_t)slots[i] % FORKGATE_UNIT_SIZE);
		EXPECT_EQ(0, forkgate_closed(slots[i]));
	}
	/* threads that find none free at the same time may make one each */
	made = kernel.units;
	EXPECT_LE(3, made);

	/* again and again: the slots of threads that have ended */
	for (turn = 0; turn < 10; turn++) {
		ASSERT_EQ(0, threads_inside(n, slots, true));
		EXPECT_EQ(0, shared_slots(slots, n));
	}
	EXPECT_GE(made + 1, kernel.units);
	EXPECT_EQ(10, depth());
}

TEST(units_strict)
{
	void *slots[FORKGATE_UNIT_SLOTS];
	struct forkgate_slot *slot;
	int i;

	ASSERT_EQ(0, threads_inside(ARRAY_SIZE(slots), slots, true));
	EXPECT_EQ(ENODEV, forkgate_init(FORKGATE_STRICT));
	for (i = 0; i < (int)ARRAY_SIZE(slots); i++)
		EXPECT_EQ(BOTH, forkgate_closed(slots[i]));
	/* in those to come too */
	for (i = 0; i < 200; i++) {
		slot = __forkgate_unit_claim();
		EXPECT_EQ(BOTH, forkgate_closed(slot));
	}
	EXPECT_LT(1, kernel.units);
}

TEST(units_without_memory)
{
	void *slots[2 * FORKGATE_UNIT_SLOTS];
	int n = ARRAY_SIZE(slots), i;
	struct forkgate_slot *slot;
	char *unit;

#ifdef __SANITIZE_THREAD__
	SKIP(return, "threads that share a slot race");
#endif
	kernel.unit_error = ENOMEM;
	ASSERT_EQ(0, threads_inside(n, slots, false));
	EXPECT_EQ(0, kernel.units);
	EXPECT_EQ(n - FREE - 1, shared_slots(slots, n));
	unit = (char *)forkgate_header_of(slots[0]);
	for (i = 0; i < n; i++)
		EXPECT_EQ(unit, (char *)forkgate_header_of(slots[i]));

	/* Slots of threads that have ended are used again before that. */
	errno = EDOM;
	for (i = 0; i < FREE; i++) {
		slot = __forkgate_unit_claim();
		EXPECT_EQ((__u32)gettid(), slot->tid);
	}
	slot = __forkgate_unit_claim();
	EXPECT_EQ(unit + FORKGATE_SLOT_OFFSET(CROWD), (char *)slot);
	EXPECT_EQ(0, slot->tid);
	__forkgate_unit_release(slot);
	EXPECT_EQ(EDOM, errno);
}

/* A slot is given back when its thread gets a gate. */
TEST(units_are_left)
{
	struct forkgate_slot *slot;

	EXPECT_EQ(0, forkgate_enter(BOTH));
	forkgate_leave(BOTH);
	slot = my_slot();
	EXPECT_EQ((__u32)gettid(), slot->tid);
	fine_module();
	EXPECT_EQ(0, forkgate_init(0));
	EXPECT_NE(slot, my_slot());
	EXPECT_EQ(0, slot->tid);
}

/* The last owner has ended inside. */
static void *end_inside(void *arg)
{
	return forkgate_enter(BOTH) ? NULL : my_slot();
}

TEST(units_are_cleared)
{
	struct forkgate_slot *slot;
	pthread_t thread;
	void *left;
	int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, end_inside, NULL));
	ASSERT_EQ(0, pthread_join(thread, &left));
	wait_for_end(left);
	kernel.unit_error = ENOMEM;
	for (i = 0; i < FREE; i++) {
		slot = __forkgate_unit_claim();
		EXPECT_EQ(0, slot->depth[0]);
		EXPECT_EQ(0, slot->depth[1]);
	}
	EXPECT_EQ(left, slot);
}

/* Handlers that enter, at the worst moment: while the thread claims a slot */
static void *interrupted_claim(void *arg)
{
	long bad = forkgate_enter(MEMORY);

	return bad || depth() != 10 ? NULL : my_slot();
}

TEST(handler_while_claiming)
{
	struct forkgate_slot *slot;
	pthread_t thread;
	void *claimed;
	int i;

	kernel.unit_error = ENOMEM;
	signal(SIGUSR1, handler);
	kernel.interrupt_gettid = 1;
	ASSERT_EQ(0, pthread_create(&thread, NULL, interrupted_claim, NULL));
	ASSERT_EQ(0, pthread_join(thread, &claimed));
	EXPECT_EQ(0, handler_result);
	EXPECT_EQ(0, kernel.interrupt_gettid);
	ASSERT_NE(NULL, claimed);
	wait_for_end(claimed);

	/* For a moment the thread had two: one of them is free again. */
	for (i = 0; i < FREE; i++)
		slot = __forkgate_unit_claim();
	EXPECT_EQ(claimed, slot);
}

/* What a child finds: the forker's slot, with its sections, and no other */
static int child_of_fork(struct forkgate_slot *own, struct forkgate_slot *other)
{
	if (my_slot() != own || depth() != 11)
		return 1;
	if (own->tid != (__u32)gettid())
		return 2;
	if (other->tid || other->depth[0])
		return 3;
	forkgate_leave(BOTH);
	return depth();
}

static void *wait_inside(void *arg)
{
	long bad = forkgate_enter(BOTH);

	*(void **)arg = bad ? NULL : my_slot();
	pthread_barrier_wait(&met);
	pause();
	return NULL;
}

TEST(units_in_a_child)
{
	struct forkgate_slot *other;
	pthread_t thread;
	pid_t pid;

	pthread_barrier_init(&met, NULL, 2);
	ASSERT_EQ(0, pthread_create(&thread, NULL, wait_inside, &other));
	pthread_barrier_wait(&met);
	ASSERT_EQ(0, forkgate_enter(BOTH));
	ASSERT_NE(my_slot(), other);
	pid = fork();
	if (!pid)
		_exit(child_of_fork(my_slot(), other));
	EXPECT_EQ(0, status_of(pid));
}

/* A raw clone runs no handlers: the units that it inherits are left alone. */
static int child_of_clone(struct forkgate_slot *own)
{
	pthread_t thread;
	void *claimed;
	int i;

	if (my_slot() != own || depth() != 10)
		return 1;
	for (i = 0; i < 100; i++) {
		if (pthread_create(&thread, NULL, interrupted_claim, NULL) ||
		    pthread_join(thread, &claimed))
			return 2;
		if (!claimed)
			return 3;
		if (forkgate_header_of(claimed) == forkgate_header_of(own))
			return 4;
	}
	return depth() != 10;
}

TEST(units_in_the_child_of_a_clone)
{
	pid_t pid;

	ASSERT_EQ(0, forkgate_enter(MEMORY));
	pid = syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
	if (!pid)
		_exit(child_of_clone(my_slot()));
	EXPECT_EQ(0, status_of(pid));
	EXPECT_EQ(10, depth());
}

TEST_HARNESS_MAIN
