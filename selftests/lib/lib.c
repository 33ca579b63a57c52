// SPDX-License-Identifier: GPL-2.0-only
/*
 * libforkgate with either gate, the module's where there is one: every function's
 * results, and forks that do not hang whatever other threads, handlers and libc
 * hold. Built as an ordinary, a static and a 32-bit program. What the kernel
 * decides is tested elsewhere; this must not look into the gate but through what
 * the library offers and through FORKGATE_IOC_STATE, to know when a thread waits.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pty.h>
#include <spawn.h>
#include <sys/stat.h>

#include "jobs.h"

#define ODD_ERRNO	7777

/* Private to the release: the library's own gate has no descriptor. */
int __forkgate_call(unsigned long request, void *arg);

/* ThreadSanitizer: children may have threads. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

static bool own_gate(void)
{
	return forkgate_protection(NULL) == FORKGATE_BY_LIBRARY;
}

#define MODULE_ONLY(why) do {						\
	if (own_gate())							\
		SKIP(return, "the library's own gate: " why);		\
} while (0)

static struct timespec in_ms(long ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += ms % 1000 * 1000000;
	t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return t;
}

/*
 * Jobs of workers
 */

static long do_depth(void *unused)
{
	return depth();
}

static long do_label(void *label)
{
	forkgate_label(label);
	return 0;
}

static long do_allocate(void *unused)
{
	FILE *file;
	void *mem;

	mem = malloc(100);
	file = fopen("/dev/null", "r");
	if (!mem || !file)
		return -1;
	fclose(file);
	free(mem);
	return 0;
}

/* What a child finds: no other thread, an open gate, and sections that work */
static int child_clean(void)
{
	struct forkgate_slot *slot = forkgate_self;

	if (slot->tid != (__u32)sys_gettid())
		return 2;
	if (forkgate_header_of(forkgate_self)->closed)
		return 3;
	if (forkgate_header_of(forkgate_self)->copy)
		return 4;
	if (forkgate_enter(BOTH))
		return 5;
	forkgate_leave(BOTH);
	return 0;
}

static long do_fork(void *unused)
{
	return forked(fork(), child_clean);
}

static long do__Fork(void *unused)
{
	return forked(_Fork(), child_clean);
}

static long do_forkgate_fork(void *unused)
{
	return forked(forkgate_fork(), child_clean);
}

static long do_forkpty(void *unused)
{
	pid_t pid;
	int fd;

	pid = forkpty(&fd, NULL, NULL, NULL);
	if (!pid)
		_exit(isatty(STDIN_FILENO) ? child_clean() : 1);
	return pid < 0 ? -errno : pid;
}

static char *const true_argv[] = { "true", NULL };

static long do_vfork(void *unused)
{
	pid_t pid = vfork();

	if (!pid) {
		execv("/bin/true", true_argv);
		_exit(127);
	}
	return pid < 0 ? -errno : pid;
}

static long do_posix_spawn(void *unused)
{
	pid_t pid;
	int err;

	err = posix_spawn(&pid, "/bin/true", NULL, NULL, true_argv, environ);
	return err ? -err : pid;
}

static long do_posix_spawnp(void *unused)
{
	pid_t pid;
	int err;

	err = posix_spawnp(&pid, "true", NULL, NULL, true_argv, environ);
	return err ? -err : pid;
}

static long do_system(void *unused)
{
	int status = system("exit 0");

	return status == -1 ? -errno : status;
}

static long do_popen(void *unused)
{
	FILE *file = popen("exit 0", "r");

	return file ? pclose(file) : -errno;
}

/*
 * The fixture: two threads beside the test's own; no timers
 */

FIXTURE(lib) {
	struct worker a, b;
};

FIXTURE_SETUP(lib)
{
	int err = forkgate_init(0);

	ASSERT_EQ(0, err);
	if (own_gate())
		gate.call = __forkgate_call;
	else
		ASSERT_EQ(0, gate_open());
	ASSERT_EQ(0, gate_set_policy(&patient_policy));
	ASSERT_EQ(0, worker_spawn(&self->a));
	ASSERT_EQ(0, worker_spawn(&self->b));
}

FIXTURE_TEARDOWN(lib)
{
}

static int set_timeout(__u64 ms, __u32 on_timeout)
{
	struct forkgate_policy policy = patient_policy;

	policy.timeout = ms * NSEC_PER_MSEC;
	policy.on_timeout = on_timeout;
	return gate_set_policy(&policy);
}

/*
 * Sections
 */

TEST_F(lib, counts)
{
	ASSERT_EQ(0, forkgate_enter(MEMORY));
	EXPECT_EQ(10, depth());
	EXPECT_EQ(sys_gettid(), forkgate_self->tid);
	EXPECT_EQ(FORKGATE_ABI, forkgate_header_of(forkgate_self)->abi);
	ASSERT_EQ(0, forkgate_enter(BOTH));
	ASSERT_EQ(0, forkgate_tryenter(FILES));
	EXPECT_EQ(22, depth());
	forkgate_leave(MEMORY);
	forkgate_leave(FILES);
	EXPECT_EQ(11, depth());
	forkgate_leave(BOTH);
	EXPECT_EQ(0, depth());
}

TEST_F(lib, bad_arguments)
{
	struct timespec limit = { .tv_sec = 1 };

	EXPECT_EQ(EINVAL, forkgate_enter(0));
	EXPECT_EQ(EINVAL, forkgate_enter(4));
	EXPECT_EQ(EINVAL, forkgate_tryenter(0));
	EXPECT_EQ(EINVAL, forkgate_tryenter(7));
	EXPECT_EQ(EINVAL, forkgate_prepare(0, NULL));
	EXPECT_EQ(EINVAL, forkgate_prepare(4, NULL));
	limit.tv_nsec = 1000000000;
	EXPECT_EQ(EINVAL, forkgate_prepare(BOTH, &limit));
	limit.tv_nsec = -1;
	EXPECT_EQ(EINVAL, forkgate_prepare(BOTH, &limit));
	EXPECT_EQ(EINVAL, forkgate_init(~0u));
	EXPECT_EQ(0, forkgate_init(0));
}

TEST_F(lib, errno_is_kept)
{
	struct timespec past = { .tv_sec = 1 };

#define KEEPS_ERRNO(result, call) do {					\
	errno = ODD_ERRNO;						\
	EXPECT_EQ(result, call);					\
	EXPECT_EQ(ODD_ERRNO, errno) TH_LOG("%s", #call);		\
} while (0)

	KEEPS_ERRNO(0, forkgate_enter(BOTH));
	KEEPS_ERRNO(0, (forkgate_label("a name"), 0));
	KEEPS_ERRNO(0, (forkgate_leave(BOTH), 0));
	KEEPS_ERRNO(ENOENT, forkgate_release());
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	KEEPS_ERRNO(ETIMEDOUT, forkgate_prepare(BOTH, &past));
	ASSERT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
	ASSERT_EQ(0, run(&self->a, do_prepare, ARG(BOTH)));
	KEEPS_ERRNO(EBUSY, forkgate_tryenter(BOTH));
	ASSERT_EQ(0, run(&self->a, do_release, NULL));
	KEEPS_ERRNO(0, forkgate_prepare(BOTH, &past));
	KEEPS_ERRNO(0, forkgate_release());
}

/* On the slow paths too */
static long do_enter_errno(void *domains)
{
	int err;

	errno = ODD_ERRNO;
	err = forkgate_enter((uintptr_t)domains);
	return err || errno != ODD_ERRNO;
}

static long do_leave_errno(void *domains)
{
	errno = ODD_ERRNO;
	forkgate_leave((uintptr_t)domains);
	return errno != ODD_ERRNO;
}

TEST_F(lib, errno_is_kept_by_those_who_wait)
{
	ASSERT_EQ(0, run(&self->a, do_prepare, ARG(BOTH)));
	start(&self->b, do_enter_errno, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, run(&self->a, do_release, NULL));
	EXPECT_EQ(0, finish(&self->b));
	start(&self->a, do_prepare, ARG(BOTH));
	ASSERT_TRUE(wait_until(worker_waits(&self->a, 1)));
	EXPECT_EQ(0, run(&self->b, do_leave_errno, ARG(BOTH)));
	EXPECT_EQ(0, finish(&self->a));
}

TEST_F(lib, tryenter_is_busy)
{
	ASSERT_EQ(0, run(&self->a, do_prepare, ARG(MEMORY)));
	EXPECT_EQ(EBUSY, run(&self->b, do_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->b, do_depth, NULL));
	EXPECT_EQ(EBUSY, run(&self->b, do_tryenter, ARG(BOTH)));
	EXPECT_EQ(0, run(&self->b, do_depth, NULL));
	EXPECT_EQ(0, run(&self->b, do_tryenter, ARG(FILES)));
	EXPECT_EQ(1, run(&self->b, do_depth, NULL));
	EXPECT_EQ(EBUSY, run(&self->b, do_tryenter, ARG(MEMORY)));
	EXPECT_EQ(1, run(&self->b, do_depth, NULL));
	ASSERT_EQ(0, run(&self->a, do_release, NULL));
	EXPECT_EQ(0, run(&self->b, do_tryenter, ARG(BOTH)));
	EXPECT_EQ(12, run(&self->b, do_depth, NULL));
}

TEST_F(lib, enter_waits_for_a_ticket)
{
	ASSERT_EQ(0, run(&self->a, do_prepare, ARG(BOTH)));
	start(&self->b, do_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_TRUE(busy(&self->b));
	ASSERT_EQ(0, run(&self->a, do_release, NULL));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(10, run(&self->b, do_depth, NULL));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(MEMORY)));
}

/*
 * Tickets
 */

TEST_F(lib, prepare_and_release)
{
	EXPECT_EQ(ENOENT, forkgate_release());
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(0, forkgate_prepare(FILES, NULL));
	EXPECT_EQ(0, forkgate_release());
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(ENOENT, forkgate_release());
}

TEST_F(lib, prepare_more)
{
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(FILES)));
	EXPECT_EQ(0, run(&self->b, do_prepare, ARG(MEMORY)));
	start(&self->b, do_prepare, ARG(BOTH));
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	ASSERT_EQ(0, run(&self->a, do_leave, ARG(FILES)));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(EBUSY, run(&self->a, do_tryenter, ARG(FILES)));
	EXPECT_EQ(EBUSY, run(&self->a, do_tryenter, ARG(MEMORY)));
}

TEST_F(lib, prepare_until)
{
	struct timespec past = { .tv_sec = 1, .tv_nsec = 999999999 };
	struct timespec never = { .tv_sec = -1 };
	struct timespec soon, late;

	/* A ticket that is to be had at once is granted however late it is. */
	EXPECT_EQ(0, forkgate_prepare(BOTH, &past));
	EXPECT_EQ(0, forkgate_release());
	EXPECT_EQ(0, forkgate_prepare(BOTH, &never));
	EXPECT_EQ(0, forkgate_release());

	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(BOTH, &past));
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(BOTH, &never));
	soon = in_ms(20);
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(BOTH, &soon));
	late = in_ms(0);
	EXPECT_TRUE(late.tv_sec > soon.tv_sec ||
		    (late.tv_sec == soon.tv_sec &&
		     late.tv_nsec >= soon.tv_nsec));
	EXPECT_EQ(0, gate_state().forkers);
	soon = in_ms(3600 * 1000);
	EXPECT_EQ(0, forkgate_prepare(FILES, &soon));
	EXPECT_EQ(0, forkgate_release());
	if (sizeof(soon.tv_sec) == 8) {
		soon.tv_sec = INT64_MAX;
		EXPECT_EQ(0, forkgate_prepare(FILES, &soon));
		EXPECT_EQ(0, forkgate_release());
	}
}

TEST_F(lib, prepare_as_the_policy_says)
{
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	ASSERT_EQ(0, set_timeout(20, FORKGATE_FAIL));
	EXPECT_EQ(ETIMEDOUT, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(ENOENT, forkgate_release());
	EXPECT_EQ(FORKGATE_OUTCOME_TIMEOUT, forkgate_self->outcome);
}

TEST_F(lib, ticket_expires)
{
	ASSERT_EQ(0, set_times(100, 20));
	EXPECT_EQ(0, forkgate_prepare(BOTH, NULL));
	ASSERT_TRUE(wait_until(gate_state().expired == 1));
	EXPECT_EQ(ESTALE, forkgate_release());
	EXPECT_EQ(ENOENT, forkgate_release());
}

TEST_F(lib, prepare_in_a_circle)
{
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->b, do_enter, ARG(MEMORY)));
	start(&self->a, do_prepare, ARG(BOTH));
	ASSERT_TRUE(wait_until(worker_waits(&self->a, 1)));
	EXPECT_EQ(EDEADLK, run(&self->b, do_prepare, ARG(MEMORY)));
	EXPECT_EQ(-EDEADLK, run(&self->b, do_fork, NULL));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
}

TEST_F(lib, fork_uses_the_ticket)
{
	pid_t pid;

	ASSERT_EQ(0, forkgate_prepare(BOTH, NULL));
	pid = fork();
	if (!pid)
		_exit(child_clean() ?: forkgate_release() != ENOENT);
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(ENOENT, forkgate_release());
	EXPECT_EQ(0, gate_state().forkers);
}

/* What did not get as far as a clone has not used its ticket. */
TEST_F(lib, failed_spawn_gives_its_ticket_back)
{
	char *const none[] = { "none", NULL };
	FILE *file;
	pid_t pid;

	EXPECT_EQ(ENOENT, posix_spawn(&pid, "/none", NULL, NULL, none,
				      environ));
	EXPECT_EQ(0, gate_state().forkers);
	errno = 0;
	file = popen("true", "neither");
	EXPECT_EQ(NULL, file);
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, gate_state().forkers);

	/* but a ticket of the program's own is left to it */
	ASSERT_EQ(0, forkgate_prepare(BOTH, NULL));
	EXPECT_EQ(NULL, popen("true", "neither"));
	EXPECT_EQ(1, gate_state().forkers);
	EXPECT_EQ(0, forkgate_release());
}

/*
 * Forks
 */

FIXTURE(forks) {
	struct worker a, b;
};

FIXTURE_VARIANT(forks) {
	long (*job)(void *unused);
	unsigned int domains;
};

FIXTURE_VARIANT_ADD(forks, fork)
{
	.job = do_fork,
	.domains = BOTH,
};

FIXTURE_VARIANT_ADD(forks, forkgate_fork)
{
	.job = do_forkgate_fork,
	.domains = BOTH,
};

FIXTURE_VARIANT_ADD(forks, _Fork)
{
	.job = do__Fork,
	.domains = BOTH,
};

FIXTURE_VARIANT_ADD(forks, forkpty)
{
	.job = do_forkpty,
	.domains = BOTH,
};

FIXTURE_VARIANT_ADD(forks, vfork)
{
	.job = do_vfork,
	.domains = FILES,
};

FIXTURE_VARIANT_ADD(forks, posix_spawn)
{
	.job = do_posix_spawn,
	.domains = FILES,
};

FIXTURE_VARIANT_ADD(forks, posix_spawnp)
{
	.job = do_posix_spawnp,
	.domains = FILES,
};

FIXTURE_VARIANT_ADD(forks, system)
{
	.job = do_system,
	.domains = FILES,
};

FIXTURE_VARIANT_ADD(forks, popen)
{
	.job = do_popen,
	.domains = FILES,
};

/* ThreadSanitizer makes a fork of it, and knows nothing of what shares memory. */
#ifdef __SANITIZE_THREAD__
#define NEEDS_VFORK(needs)						\
	do {								\
		if (needs)						\
			SKIP(return, "ThreadSanitizer has a vfork() of its own"); \
	} while (0)
#else
#define NEEDS_VFORK(needs) ((void)(needs))
#endif

FIXTURE_SETUP(forks)
{
	NEEDS_VFORK(variant->job == do_vfork);
	lib_setup(_metadata, (void *)self, NULL);
}

FIXTURE_TEARDOWN(forks)
{
}

TEST_F(forks, wait_without_a_lock)
{
	/* The holder goes on with all that libc has locks for. */
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(variant->domains)));
	start(&self->b, variant->job, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&self->a, do_allocate, NULL));
	EXPECT_TRUE(busy(&self->b));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(variant->domains)));
	EXPECT_EQ(0, reap(finish(&self->b)));
	EXPECT_EQ(0, gate_state().forkers);
}

TEST_F(forks, wait_for_what_they_copy)
{
	unsigned int other = BOTH & ~variant->domains;

	ASSERT_EQ(0, run(&self->a, do_enter, ARG(FILES)));
	start(&self->b, variant->job, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(FILES)));
	EXPECT_EQ(0, reap(finish(&self->b)));

	if (!other)
		return;
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(other)));
	EXPECT_EQ(0, reap(run(&self->b, variant->job, NULL)));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(other)));
}

TEST_F(forks, time_out)
{
	ASSERT_EQ(0, set_timeout(20, FORKGATE_FAIL));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	EXPECT_EQ(-EAGAIN, run(&self->b, variant->job, NULL));
	EXPECT_EQ(0, gate_state().forkers);
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, reap(run(&self->b, variant->job, NULL)));
}

TEST_F(forks, own_sections_do_not_count)
{
	ASSERT_EQ(0, run(&self->b, do_enter, ARG(BOTH)));
	EXPECT_EQ(0, reap(run(&self->b, variant->job, NULL)));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(BOTH)));
}

static long do_fork_unsafe(void *unused)
{
	pid_t pid = fork();

	if (!pid)
		_exit(forkgate_header_of(forkgate_self)->copy);
	return pid < 0 ? -errno : pid;
}

TEST_F(lib, fork_goes_ahead_unsafe)
{
	ASSERT_EQ(0, set_timeout(20, FORKGATE_PROCEED));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	EXPECT_EQ(FORKGATE_COPY_UNSAFE_MEMORY | FORKGATE_COPY_UNSAFE_FILES,
		  reap(run(&self->b, do_fork_unsafe, NULL)));
}

/*
 * A ticket that expires while atfork handlers run
 */

static struct {
	struct worker *other;
	int prepares, parents;
	long failed;
} slow;

/*
 * The first time the fork is tried: another thread is inside. The second time
 * the handler is too slow for the ticket; as soon as it has expired, the other
 * thread enters again. The third time all goes well.
 */
static void slow_prepare(void)
{
	slow.prepares++;
	if (slow.prepares == 2 && !wait_until(gate_state().expired == 1))
		slow.failed = 1;
	if (slow.prepares <= 2)
		slow.failed |= run(slow.other, do_enter, ARG(BOTH));
}

static void slow_parent(void)
{
	if (++slow.parents <= 2)
		slow.failed |= run(slow.other, do_leave, ARG(BOTH));
}

TEST_F(lib, fork_tries_again)
{
	slow.other = &self->a;
	ASSERT_EQ(0, pthread_atfork(slow_prepare, slow_parent, NULL));
	ASSERT_EQ(0, set_times(20, 20));
	EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
	EXPECT_EQ(3, slow.prepares);
	EXPECT_EQ(3, slow.parents);
	EXPECT_EQ(0, slow.failed);
	/* On a busy machine the second ticket may run out too, with no thread inside. */
	EXPECT_LE(1, gate_state().expired);
	EXPECT_EQ(0, gate_state().forkers);
}

TEST_F(lib, forkpty_tries_again)
{
	slow.other = &self->a;
	ASSERT_EQ(0, pthread_atfork(slow_prepare, slow_parent, NULL));
	ASSERT_EQ(0, set_times(20, 20));
	EXPECT_EQ(0, reap(run(&self->b, do_forkpty, NULL)));
	EXPECT_EQ(3, slow.prepares);
	EXPECT_EQ(0, slow.failed);
}

/* A handler that needs a lock which a blocked newcomer holds */
static pthread_mutex_t inverse = PTHREAD_MUTEX_INITIALIZER;

static void lock_inverse(void)
{
	pthread_mutex_lock(&inverse);
}

static void unlock_inverse(void)
{
	pthread_mutex_unlock(&inverse);
}

static long do_inverse(void *unused)
{
	int err;

	pthread_mutex_lock(&inverse);
	err = forkgate_enter(BOTH);
	forkgate_leave(BOTH);
	pthread_mutex_unlock(&inverse);
	return err;
}

static long do_lock_and_enter(void *unused)
{
	int err;

	pthread_mutex_lock(&inverse);
	err = forkgate_enter(BOTH);
	return err;
}

static long do_leave_and_unlock(void *unused)
{
	forkgate_leave(BOTH);
	pthread_mutex_unlock(&inverse);
	return 0;
}

TEST_F(lib, handlers_lock_in_the_other_order)
{
	int i;

	ASSERT_EQ(0, pthread_atfork(lock_inverse, unlock_inverse,
				    unlock_inverse));
	ASSERT_EQ(0, set_times(5, 5));

	/* Inside with the lock: it is the handler that waits. */
	ASSERT_EQ(0, run(&self->a, do_lock_and_enter, NULL));
	start(&self->b, do_fork, NULL);
	ASSERT_TRUE(wait_until(task_asleep(self->b.tid)));
	EXPECT_EQ(0, run(&self->a, do_leave_and_unlock, NULL));
	EXPECT_EQ(0, reap(finish(&self->b)));

	/* Kept out with the lock, at some moment or other, when there is a ticket */
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, forkgate_enter(BOTH));
		start(&self->b, do_fork, NULL);
		EXPECT_TRUE(wait_until(worker_waits(&self->b, 1)));
		start(&self->a, do_inverse, NULL);
		forkgate_leave(BOTH);
		EXPECT_EQ(0, reap(finish(&self->b)));
		EXPECT_EQ(0, finish(&self->a));
	}
}

static pid_t do_fork_empty(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid;
}

static pid_t do_vfork_empty(void)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(0);
	return pid;
}

/* Without its gate a program forks as it did before. */
static int child_unmapped(void)
{
	if (munmap((void *)forkgate_header_of(forkgate_self), FORKGATE_MAP_SIZE))
		return 1;
	if (reap(do_fork_empty()) || reap(do_vfork_empty()))
		return 2;
	return 0;
}

TEST_F(lib, forks_when_unmapped)
{
	pid_t pid;

	MODULE_ONLY("is not to be unmapped");
	pid = fork();
	if (!pid)
		_exit(child_unmapped());
	EXPECT_EQ(0, reap(pid));
}

/*
 * Forks that libc does behind the library's back
 */

static pid_t (*libc_fork)(void);

static long do_libc_fork(void *unused)
{
	return forked(libc_fork(), child_clean);
}

#ifdef STATIC
pid_t __libc_fork(void);

static bool find_libc_fork(void)
{
	libc_fork = __libc_fork;
	return true;
}
#else
static bool find_libc_fork(void)
{
	void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);

	libc_fork = libc ? dlsym(libc, "fork") : NULL;
	return libc_fork;
}
#endif

/* What the library does not see it cannot let fail; the child can read it (4). */
static long failed_libc_fork(void)
{
	return own_gate() ? 4 : -EAGAIN;
}

TEST_F(lib, atfork_handler_prepares)
{
	ASSERT_TRUE(find_libc_fork());
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	start(&self->b, do_libc_fork, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&self->a, do_allocate, NULL));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, reap(finish(&self->b)));
}

TEST_F(lib, atfork_handler_waits_with_a_limit)
{
	struct forkgate_policy policy = patient_policy;

	ASSERT_TRUE(find_libc_fork());
	policy.backstop = 20 * NSEC_PER_MSEC;
	ASSERT_EQ(0, gate_set_policy(&policy));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	EXPECT_EQ(failed_libc_fork(), reap(run(&self->b, do_libc_fork, NULL)));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, reap(run(&self->b, do_libc_fork, NULL)));
}

/* What the handler has waited for the clone need not: it fails, or copies, at once. */
TEST_F(lib, atfork_handler_and_clone_share_a_limit)
{
	struct forkgate_policy policy = patient_policy;
	uint64_t start_ms;

	ASSERT_TRUE(find_libc_fork());
	policy.backstop = 3 * NSEC_PER_SEC;
	ASSERT_EQ(0, gate_set_policy(&policy));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	start_ms = now_ms();
	EXPECT_EQ(failed_libc_fork(), reap(run(&self->b, do_libc_fork, NULL)));
	EXPECT_LE(2990, now_ms() - start_ms);
	EXPECT_GT(5500, now_ms() - start_ms);

	policy.on_timeout = FORKGATE_PROCEED;
	policy.timeout = 2 * NSEC_PER_SEC;
	policy.backstop = 2 * NSEC_PER_SEC;
	ASSERT_EQ(0, gate_set_policy(&policy));
	start_ms = now_ms();
	/* 4: the child can read that its copy is unsafe */
	EXPECT_EQ(4, reap(run(&self->b, do_libc_fork, NULL)));
	EXPECT_GT(3500, now_ms() - start_ms);
}

static int *shared_word(void)
{
	int *word = mmap(NULL, sizeof(*word), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return word == MAP_FAILED ? NULL : word;
}

static long do_daemon(void *arg)
{
	int *word = arg;
	int status;

	if (daemon(1, 1))
		_exit(1);
	status = child_clean();
	__atomic_store_n(word, status ? status : -1, __ATOMIC_SEQ_CST);
	_exit(status);
}

/* In a child, for daemon() ends the process that calls it */
static int daemon_child(int *word)
{
	struct worker holder, other;

	if (worker_spawn(&holder) || worker_spawn(&other))
		return 1;
	if (run(&holder, do_enter, ARG(BOTH)))
		return 2;
	start(&other, do_daemon, word);
	if (!wait_until(worker_waits(&other, 1)))
		return 3;
	if (run(&holder, do_allocate, NULL))
		return 4;
	if (READ_ONCE(*word))
		return 5;
	start(&holder, do_leave, ARG(BOTH));
	pause();
	return 6;
}

TEST_F(lib, daemon)
{
	int *word = shared_word();
	pid_t pid;

	ASSERT_NE(NULL, word);
	pid = fork();
	if (!pid)
		_exit(daemon_child(word));
	EXPECT_EQ(0, child_exit(pid));
	ASSERT_TRUE(wait_until(READ_ONCE(*word)));
	EXPECT_EQ(-1, READ_ONCE(*word));
}

/*
 * Places where the library may find itself
 */

static int bare_child(void)
{
	struct worker holder, other;

	/* the library's way, as the test has no descriptor either */
	gate.msync = true;
	gate.head = (struct forkgate_header *)forkgate_header_of(forkgate_self);
	if (chroot("/proc/self/fdinfo") || chdir("/"))
		return 1;
	syscall(SYS_close_range, 3, ~0u, 0);
	if (!access("/dev/forkgate", F_OK))
		return 2;

	if (worker_spawn(&holder) || worker_spawn(&other))
		return 3;
	if (run(&holder, do_enter, ARG(BOTH)))
		return 4;
	start(&other, do_fork, NULL);
	if (!wait_until(gate_state().forkers == 1))
		return 5;
	if (!busy(&other))
		return 6;
	if (run(&holder, do_leave, ARG(BOTH)))
		return 7;
	return reap(finish(&other)) ? 8 : 0;
}

TEST_F(lib, without_descriptors_and_device)
{
	pid_t pid;

	ASSERT_EQ(0, forkgate_enter(MEMORY));
	forkgate_leave(MEMORY);
	pid = fork();
	if (!pid)
		_exit(bare_child());
	EXPECT_EQ(0, child_exit(pid));
}

/*
 * The library's descriptor
 */

/* The lowest descriptor of the device except the test's own, or -1 */
static int library_fd(void)
{
	struct stat device, other;
	int fd;

	if (fstat(gate.fd, &device))
		return -1;
	for (fd = 3; fd < 1024; fd++)
		if (fd != gate.fd && !fstat(fd, &other) && S_ISCHR(other.st_mode) &&
		    other.st_rdev == device.st_rdev)
			return fd;
	return -1;
}

TEST_F(lib, descriptor)
{
	int fd = library_fd();

	MODULE_ONLY("has no descriptor");
	ASSERT_LT(30, fd);
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
	close(fd);
	EXPECT_EQ(-1, library_fd());
}

/* Enters, leaves, waits and wakes as ever, and does nothing to the other file. */
TEST_F(lib, descriptor_of_another_file)
{
	int fd = library_fd(), pair[2], left = -1;

	MODULE_ONLY("has no descriptor");
	ASSERT_EQ(0, pipe(pair));
	ASSERT_EQ(fd, dup2(pair[0], fd));

	ASSERT_EQ(0, run(&self->a, do_enter, ARG(BOTH)));
	start(&self->b, do_fork, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(EBUSY, forkgate_tryenter(FILES));
	EXPECT_EQ(0, run(&self->a, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, reap(finish(&self->b)));

	ASSERT_EQ(0, run(&self->a, do_prepare, ARG(BOTH)));
	start(&self->b, do_enter, ARG(BOTH));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, run(&self->b, do_leave, ARG(BOTH)));

	EXPECT_EQ(0, ioctl(fd, FIONREAD, &left));
	EXPECT_EQ(0, left);
	EXPECT_EQ(0, fcntl(fd, F_GETFD));
}

/*
 * Threads whose slots are not in the first unit
 */

static long do_self(void *unused)
{
	return (uintptr_t)forkgate_self;
}

TEST_F(lib, beyond_the_first_unit)
{
	static struct worker many[FORKGATE_UNIT_SLOTS + 1];
	struct worker *far = &many[ARRAY_SIZE(many) - 1], *near = far - 1;
	const struct forkgate_header *header;
	size_t i;

	ASSERT_EQ(0, forkgate_enter(MEMORY));
	forkgate_leave(MEMORY);
	for (i = 0; i < ARRAY_SIZE(many); i++) {
		ASSERT_EQ(0, worker_spawn(&many[i]));
		ASSERT_EQ(0, run(&many[i], do_enter, ARG(BOTH)));
		ASSERT_EQ(0, run(&many[i], do_leave, ARG(BOTH)));
	}
	header = forkgate_header_of((void *)(uintptr_t)run(far, do_self, NULL));
	EXPECT_NE(forkgate_header_of(forkgate_self), header);
	EXPECT_EQ(FORKGATE_ABI, header->abi);
	EXPECT_EQ(0, header->closed);

	/* It keeps a fork waiting and wakes it; its neighbour is kept out. */
	ASSERT_EQ(0, run(far, do_enter, ARG(BOTH)));
	start(&self->b, do_fork, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(EBUSY, run(near, do_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(far, do_leave, ARG(BOTH)));
	EXPECT_EQ(0, reap(finish(&self->b)));
	EXPECT_EQ(0, run(near, do_tryenter, ARG(MEMORY)));
	EXPECT_EQ(0, run(near, do_leave, ARG(MEMORY)));
	/* and it forks, to a child whose only slot is there */
	EXPECT_EQ(0, reap(run(far, do_fork, NULL)));
}

/*
 * A clock that is ahead of the kernel's
 */

static int child_of_namespace(void)
{
	struct timespec limit;
	struct worker holder;

	limit = in_ms(0);
	if (limit.tv_sec < 1000000)
		return 10;
	if (worker_spawn(&holder) || run(&holder, do_enter, ARG(MEMORY)))
		return 11;
	limit = in_ms(20);
	if (forkgate_prepare(BOTH, &limit) != ETIMEDOUT)
		return 12;
	limit = in_ms(0);
	if (forkgate_prepare(BOTH, &limit) != ETIMEDOUT)
		return 13;
	limit = in_ms(3600 * 1000);
	if (forkgate_prepare(FILES, &limit) || forkgate_release())
		return 14;
	return 0;
}

static int time_namespace(void)
{
	pid_t pid;

	if (unshare(CLONE_NEWTIME))
		return 77;
	if (write_file("/proc/self/timens_offsets", "monotonic 1000000 0"))
		return 77;
	pid = fork();
	if (!pid)
		_exit(child_of_namespace());
	return child_exit(pid);
}

TEST_F(lib, prepare_in_a_time_namespace)
{
	pid_t pid = fork();
	int ret;

	if (!pid)
		_exit(time_namespace());
	ret = child_exit(pid);
	if (ret == 77)
		SKIP(return, "no permission to make a time namespace");
	EXPECT_EQ(0, ret);
}

/* The child of a fork inside sections: goes on, forks, has threads. */
static int heir(int generation)
{
	struct worker worker;
	pid_t pid;

	if (depth() != 21)
		return 1;
	if (forkgate_self->tid != (__u32)sys_gettid())
		return 2;
	if (worker_spawn(&worker) || run(&worker, do_enter, ARG(BOTH)))
		return 3;
	if (run(&worker, do_leave, ARG(BOTH)))
		return 4;
	if (generation < 3) {
		pid = fork();
		if (!pid)
			_exit(heir(generation + 1));
		if (child_exit(pid))
			return 5;
	}
	forkgate_leave(BOTH);
	if (depth() != 10)
		return 6;
	forkgate_leave(MEMORY);
	return depth();
}

TEST_F(lib, child_inherits_sections)
{
	struct forkgate_slot *slot;
	pid_t pid;

	ASSERT_EQ(0, forkgate_enter(BOTH));
	ASSERT_EQ(0, forkgate_enter(MEMORY));
	slot = forkgate_self;
	pid = fork();
	if (!pid)
		_exit(slot == forkgate_self ? heir(0) : 99);
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(21, depth());
	forkgate_leave(BOTH);
	forkgate_leave(MEMORY);
}

static int entries;

static void enter_handler(int sig)
{
	int before = depth(), saved = errno;

	errno = ODD_ERRNO;
	if (forkgate_enter(BOTH))
		abort();
	forkgate_label("handler");
	if (forkgate_enter(MEMORY))
		abort();
	forkgate_leave(BOTH);
	forkgate_leave(MEMORY);
	if (depth() != before || errno != ODD_ERRNO)
		abort();
	errno = saved;
	__atomic_fetch_add(&entries, 1, __ATOMIC_RELAXED);
}

static bool stop;

static long do_sections(void *unused)
{
	long turns;

	for (turns = 0; !READ_ONCE(stop); turns++) {
		if (forkgate_enter(MEMORY))
			return -1;
		forkgate_label("turn");
		if (forkgate_enter(BOTH))
			return -2;
		forkgate_leave(MEMORY);
		forkgate_leave(BOTH);
		if (!forkgate_tryenter(FILES))
			forkgate_leave(FILES);
		if (depth())
			return -3;
	}
	return turns;
}

static void *one_section(void *unused)
{
	void *failed = (void *)1;

	if (forkgate_enter(BOTH))
		return failed;
	if (forkgate_self->tid != (__u32)sys_gettid() || depth() != 11)
		return failed;
	forkgate_leave(BOTH);
	return depth() ? failed : NULL;
}

/* A wait does not notice that it was interrupted: enter */
static int seen = -1;

static void inside_handler(int sig)
{
	int before = depth();
	int err = forkgate_enter(FILES);

	if (!err)
		forkgate_leave(FILES);
	__atomic_store_n(&seen, err ? 1000 + err : before, __ATOMIC_SEQ_CST);
}

static int catch(void (*handler)(int sig))
{
	struct sigaction action = { .sa_handler = handler };

	return sigaction(SIGUSR1, &action, NULL);
}

/* Asleep first: ThreadSanitizer keeps a signal back that comes before a system call. */
static int interrupt_depth(struct worker *worker)
{
	WRITE_ONCE(seen, -1);
	if (!wait_until(task_asleep(worker->tid)))
		return -EBUSY;
	if (syscall(SYS_tgkill, getpid(), worker->tid, SIGUSR1))
		return -errno;
	return wait_until(READ_ONCE(seen) >= 0) ? READ_ONCE(seen) : -ETIME;
}

TEST_F(lib, enter_is_interrupted)
{
	int i;

	ASSERT_EQ(0, catch(inside_handler));
	ASSERT_EQ(0, forkgate_prepare(MEMORY, NULL));
	start(&self->a, do_enter, ARG(BOTH));
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(wait_until(gate_state().blocked == 1));
		EXPECT_EQ(0, interrupt_depth(&self->a));
	}
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, forkgate_release());
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(11, run(&self->a, do_depth, NULL));
}

TEST_F(lib, prepare_is_interrupted)
{
	int i;

	ASSERT_EQ(0, catch(inside_handler));
	ASSERT_EQ(0, forkgate_enter(MEMORY));
	start(&self->a, do_prepare, ARG(MEMORY));
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(wait_until(worker_waits(&self->a, 1)));
		EXPECT_EQ(0, interrupt_depth(&self->a));
	}
	forkgate_leave(MEMORY);
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(EBUSY, forkgate_tryenter(MEMORY));
}

/* A handler that forks, of all things, while its thread waits to fork */
static void fork_handler(int sig)
{
	pid_t pid = fork();

	if (!pid)
		_exit(child_clean());
	__atomic_store_n(&seen, child_exit(pid), __ATOMIC_SEQ_CST);
}

TEST_F(lib, handler_forks_while_fork_waits)
{
	ASSERT_EQ(0, catch(fork_handler));
	ASSERT_EQ(0, forkgate_enter(BOTH));
	start(&self->a, do_fork, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->a, 1)));
	WRITE_ONCE(seen, -1);
	ASSERT_EQ(0, syscall(SYS_tgkill, getpid(), self->a.tid, SIGUSR1));
	ASSERT_TRUE(wait_until(worker_waits(&self->a, 1)));
	forkgate_leave(BOTH);
	EXPECT_EQ(0, reap(finish(&self->a)));
	EXPECT_EQ(0, READ_ONCE(seen));
}

/* A vfork child is its parent as far as sections go. */
static long do_vfork_sections(void *unused)
{
	volatile int bad = 0;
	pid_t pid;

	if (forkgate_enter(MEMORY))
		return -1;
	pid = vfork();
	if (!pid) {
		if (forkgate_enter(BOTH))
			_exit(1);
		bad = depth() != 21;
		forkgate_leave(BOTH);
		_exit(0);
	}
	if (bad || depth() != 10)
		return -2;
	forkgate_leave(MEMORY);
	return pid < 0 ? -errno : pid;
}

TEST_F(lib, vfork_child_enters)
{
	EXPECT_EQ(0, reap(run(&self->a, do_vfork_sections, NULL)));
	EXPECT_EQ(0, reap(run(&self->b, do_fork, NULL)));
}

/* Even if that is the first section of both; by a vfork unknown to us */
static int child_enters(void)
{
	if (forkgate_enter(BOTH))
		return 1;
	forkgate_leave(BOTH);
	return depth();
}

static long do_foreign_vfork(void *unused)
{
	return spawn_vm(CLONE_VFORK, child_enters);
}

static long do_slot_tid(void *unused)
{
	return forkgate_self->tid;
}

TEST_F(lib, vfork_child_enters_first)
{
	NEEDS_VFORK(true);
	EXPECT_EQ(0, reap(run(&self->a, do_foreign_vfork, NULL)));
	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	EXPECT_EQ(self->a.tid, run(&self->a, do_slot_tid, NULL));
	start(&self->b, do_fork, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	ASSERT_EQ(0, run(&self->a, do_leave, ARG(MEMORY)));
	EXPECT_EQ(0, reap(finish(&self->b)));
}

/*
 * Signals that enter hit entering, waiting and forking. One at a time, and one
 * per fork: a fork that is interrupted more often than it can be done never is.
 */
static struct {
	pid_t tids[3];		/* the last one forks */
	int forks;
} pestered;

static long do_pester(void *unused)
{
	int i, sent, forks = 0;

	for (i = 0; !READ_ONCE(stop); i++) {
		if (i % 3 == 2) {
			if (forks == READ_ONCE(pestered.forks))
				continue;
			forks = READ_ONCE(pestered.forks);
		}
		sent = READ_ONCE(entries);
		if (syscall(SYS_tgkill, getpid(), pestered.tids[i % 3],
			    SIGUSR1))
			return -errno;
		if (!wait_until(READ_ONCE(entries) > sent))
			return -ETIME;
	}
	return 0;
}

TEST_F(lib, signal_handlers_enter)
{
	const char *count = getenv("FORKS");
	int forks = count ? atoi(count) : 50;
	struct worker pest;
	pthread_t thread;
	void *failed;
	int i;

	ASSERT_EQ(0, worker_spawn(&pest));
	ASSERT_EQ(0, set_times(10, 100));
	ASSERT_EQ(0, catch(enter_handler));
	pestered.tids[0] = self->a.tid;
	pestered.tids[1] = self->b.tid;
	pestered.tids[2] = sys_gettid();
	start(&self->a, do_sections, NULL);
	start(&self->b, do_sections, NULL);
	start(&pest, do_pester, NULL);
	for (i = 0; i < forks; i++) {
		WRITE_ONCE(pestered.forks, i + 1);
		ASSERT_EQ(0, reap(do_fork(NULL)))
			TH_LOG("outcome %u", forkgate_self->outcome);
		ASSERT_EQ(0, pthread_create(&thread, NULL, one_section, NULL));
		ASSERT_EQ(0, pthread_join(thread, &failed));
		ASSERT_EQ(NULL, failed);
	}
	ASSERT_TRUE(wait_until(READ_ONCE(entries) > 10));
	WRITE_ONCE(stop, true);
	EXPECT_EQ(0, finish(&pest));
	EXPECT_LT(0, finish(&self->a));
	EXPECT_LT(0, finish(&self->b));
	EXPECT_EQ(0, gate_state().holders_count);
}

static struct forkgate_holder only_holder(void)
{
	struct forkgate_holder holder = {};
	struct forkgate_state state = {
		.holders = (uintptr_t)&holder,
		.holders_max = 1,
	};

	gate_call(FORKGATE_IOC_STATE, &state);
	if (state.holders_count != 1)
		holder.tid = -1;
	return holder;
}

TEST_F(lib, label)
{
	struct forkgate_holder holder;

	ASSERT_EQ(0, run(&self->a, do_enter, ARG(MEMORY)));
	holder = only_holder();
	EXPECT_EQ(self->a.tid, holder.tid);
	EXPECT_EQ(MEMORY, holder.domains);
	EXPECT_EQ('\0', holder.label[0]);
	/* the address is one of do_enter() or near */
	EXPECT_LT((uintptr_t)do_enter - 4096, holder.site);
	EXPECT_GT((uintptr_t)do_enter + 4096, holder.site);

	run(&self->a, do_label, "a short name");
	EXPECT_STREQ("a short name", only_holder().label);
	run(&self->a, do_label, "123456789012345678901234567890");
	holder = only_holder();
	EXPECT_EQ(0, memcmp(holder.label, "123456789012345678901234",
			    sizeof(holder.label)));
	run(&self->a, do_label, NULL);
	EXPECT_EQ('\0', only_holder().label[0]);

	/* A name belongs to one section. */
	run(&self->a, do_label, "outer");
	ASSERT_EQ(0, run(&self->a, do_tryenter, ARG(FILES)));
	EXPECT_EQ('\0', only_holder().label[0]);
	run(&self->a, do_label, "inner");
	EXPECT_STREQ("inner", only_holder().label);
}

/* Entering is no cancellation point, not even when it waits. */
static long do_cancelled(void *unused)
{
	pthread_cancel(pthread_self());
	return forkgate_enter(BOTH) ?: forkgate_prepare(BOTH, NULL) ?:
	       forkgate_release();
}

TEST_F(lib, no_cancellation_point)
{
	ASSERT_EQ(0, forkgate_prepare(BOTH, NULL));
	start(&self->a, do_cancelled, NULL);
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	ASSERT_EQ(0, forkgate_release());
	ASSERT_TRUE(wait_until(!busy(&self->a)));
	EXPECT_EQ(0, self->a.result);
}

/* Rule 16: then the gate is the library's own. */
static int nobody_child(void)
{
	int err;

	if (chmod("/dev/forkgate", 0600) || setresgid(65534, 65534, 65534) ||
	    setresuid(65534, 65534, 65534))
		return 1;
	execl("/proc/self/exe", "nobody", NULL);
	err = errno;
	return err == EACCES ? 77 : 2;
}

/* main() of a process without permission, see nobody_child() */
static int nobody_main(void)
{
	int reason;

	if (forkgate_enter(BOTH))
		return 11;
	if (forkgate_init(0) || forkgate_protection(&reason) != FORKGATE_BY_LIBRARY ||
	    reason != EACCES)
		return 12;
	forkgate_leave(BOTH);
	if (forkgate_init(FORKGATE_STRICT) != EACCES)
		return 13;
	if (forkgate_enter(MEMORY) != EACCES)
		return 14;
	if (forkgate_prepare(MEMORY, NULL) != EACCES)
		return 15;
	return depth();
}

TEST_F(lib, without_permission)
{
	pid_t pid;
	int ret;

	MODULE_ONLY("needs none");
	if (getuid())
		SKIP(return, "not root");
	pid = fork();
	if (!pid)
		_exit(nobody_child());
	ret = child_exit(pid);
	chmod("/dev/forkgate", 0666);
	/* 127 is what the dynamic linker says that may not read the library. */
	if (ret == 77 || ret == 127)
		SKIP(return, "the user nobody may not read these programs");
	EXPECT_EQ(0, ret);
}

#ifndef STATIC
/*
 * A plug-in with a copy of the library of its own
 */

static struct {
	int (*enter)(unsigned int domains);
	void (*leave)(unsigned int domains);
	struct forkgate_slot **(*self)(void);
} plugin;

static long do_plugin_enter(void *domains)
{
	int err = plugin.enter((uintptr_t)domains) ?:
		  forkgate_enter((uintptr_t)domains);

	if (err)
		return err;
	if (plugin.self() == &forkgate_self)
		return -1;
	/* the same slot, mapped twice */
	return (*plugin.self())->depth[0] == forkgate_self->depth[0] ? 0 : -2;
}

static long do_plugin_leave(void *domains)
{
	plugin.leave((uintptr_t)domains);
	return depth();
}

TEST_F(lib, two_copies)
{
	void *object = dlopen(PLUGIN, RTLD_NOW);

	ASSERT_NE(NULL, object) TH_LOG("%s", dlerror());
	plugin.enter = dlsym(object, "plugin_enter");
	plugin.leave = dlsym(object, "plugin_leave");
	plugin.self = dlsym(object, "plugin_self");

	ASSERT_EQ(0, run(&self->a, do_plugin_enter, ARG(MEMORY)));
	EXPECT_EQ(20, run(&self->a, do_depth, NULL));
	start(&self->b, do_fork, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(10, run(&self->a, do_plugin_leave, ARG(MEMORY)));
	EXPECT_TRUE(busy(&self->b));
	EXPECT_EQ(0, run(&self->a, do_plugin_leave, ARG(MEMORY)));
	EXPECT_EQ(0, reap(finish(&self->b)));
}
#endif

int main(int argc, char **argv)
{
	if (argc && !strcmp(argv[0], "nobody"))
		return nobody_main();
	return test_harness_run(argc, argv);
}
