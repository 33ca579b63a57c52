// SPDX-License-Identifier: GPL-2.0-only
/*
 * locks.c - the preloaded library's locks and the rest that is written by hand,
 * without the module: they do what the C library's do, and a thread is inside
 * sections exactly while it holds locks. Must not look at a gate.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include <forkgate.h>

#include <kselftest_harness.h>
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	600

/* Sections of the caller: of the library that is preloaded, not linked */
static unsigned int depth(void)
{
	struct forkgate_slot **self = dlsym(RTLD_DEFAULT, "forkgate_self");

	return self && *self ? (*self)->depth[0] : 0;
}

static struct timespec in_ms(clockid_t clock, long ms)
{
	struct timespec time;

	clock_gettime(clock, &time);
	time.tv_nsec += ms * 1000000L;
	time.tv_sec += time.tv_nsec / 1000000000L;
	time.tv_nsec %= 1000000000L;
	return time;
}

static const struct timespec past = { .tv_sec = 1 };
static const struct timespec bad = { .tv_nsec = 1000000000 };

struct kind {
	int type;
	int protocol;
	int robust;
	int shared;
};

static void init_mutex(pthread_mutex_t *mutex, const struct kind *kind)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, kind->type);
	pthread_mutexattr_setprotocol(&attr, kind->protocol);
	pthread_mutexattr_setrobust(&attr, kind->robust);
	pthread_mutexattr_setpshared(&attr, kind->shared);
	if (pthread_mutex_init(mutex, &attr))
		abort();
}

/*
 * Mutexes of each kind
 */

FIXTURE(mutex) {
	pthread_mutex_t mutex;
	long count;
};

FIXTURE_VARIANT(mutex) {
	struct kind kind;
};

#define VARIANT(name, ...) \
	FIXTURE_VARIANT_ADD(mutex, name) { .kind = { __VA_ARGS__ } }
VARIANT(normal, PTHREAD_MUTEX_NORMAL);
VARIANT(recursive, PTHREAD_MUTEX_RECURSIVE);
VARIANT(checking, PTHREAD_MUTEX_ERRORCHECK);
VARIANT(adaptive, PTHREAD_MUTEX_ADAPTIVE_NP);
VARIANT(inheriting, .protocol = PTHREAD_PRIO_INHERIT);
VARIANT(robust, .robust = PTHREAD_MUTEX_ROBUST);
VARIANT(robust_inheriting, .robust = PTHREAD_MUTEX_ROBUST, .protocol = PTHREAD_PRIO_INHERIT);
VARIANT(shared, .shared = PTHREAD_PROCESS_SHARED);

FIXTURE_SETUP(mutex)
{
	init_mutex(&self->mutex, &variant->kind);
}

FIXTURE_TEARDOWN(mutex)
{
	EXPECT_EQ(0, pthread_mutex_destroy(&self->mutex));
	EXPECT_EQ(0, depth());
}

TEST_F(mutex, held_is_inside)
{
	EXPECT_EQ(0, pthread_mutex_lock(&self->mutex));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(0, pthread_mutex_unlock(&self->mutex));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(0, pthread_mutex_trylock(&self->mutex));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(0, pthread_mutex_unlock(&self->mutex));
	EXPECT_EQ(0, pthread_mutex_timedlock(&self->mutex, &past));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(0, pthread_mutex_unlock(&self->mutex));
	EXPECT_EQ(0, pthread_mutex_clocklock(&self->mutex, CLOCK_MONOTONIC, &past));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(0, pthread_mutex_unlock(&self->mutex));
}

static void *try_taken(void *mutex)
{
	struct timespec soon = in_ms(CLOCK_REALTIME, 20), soon_too = in_ms(CLOCK_MONOTONIC, 20);
	long bits = 0;

	bits |= pthread_mutex_trylock(mutex) == EBUSY;
	bits |= (pthread_mutex_timedlock(mutex, &past) == ETIMEDOUT) << 1;
	bits |= (pthread_mutex_timedlock(mutex, &soon) == ETIMEDOUT) << 2;
	bits |= (pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &soon_too) == ETIMEDOUT) << 3;
	bits |= (pthread_mutex_timedlock(mutex, &bad) == EINVAL) << 4;
	bits |= (depth() == 0) << 5;
	return (void *)bits;
}

TEST_F(mutex, taken_is_not_inside)
{
	pthread_t thread;
	void *bits;

	ASSERT_EQ(0, pthread_mutex_lock(&self->mutex));
	ASSERT_EQ(0, pthread_create(&thread, NULL, try_taken, &self->mutex));
	ASSERT_EQ(0, pthread_join(thread, &bits));
	EXPECT_EQ(0x3f, (long)bits);
	EXPECT_EQ(0, pthread_mutex_unlock(&self->mutex));
}

#define ROUNDS 3000

static void *count_up(void *data)
{
	struct _test_data_mutex *self = data;
	struct timespec far = in_ms(CLOCK_REALTIME, 100000);
	int i;

	for (i = 0; i < ROUNDS; i++) {
		if (i % 3 == 1) {
			if (pthread_mutex_timedlock(&self->mutex, &far))
				return "timedlock";
		} else if (pthread_mutex_lock(&self->mutex)) {
			return "lock";
		}
		self->count++;
		if (i % 100 == 0)
			usleep(10);
		if (pthread_mutex_unlock(&self->mutex))
			return "unlock";
	}
	return depth() ? "inside" : NULL;
}

TEST_F(mutex, excludes_and_wakes)
{
	pthread_t threads[4];
	void *wrong;
	int i;

	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, count_up, self));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &wrong));
		EXPECT_EQ(NULL, wrong) TH_LOG("%s", (char *)wrong);
	}
	EXPECT_EQ(4 * ROUNDS, self->count);
}

TEST_F(mutex, a_wait_for_a_condition_is_outside)
{
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

	ASSERT_EQ(0, pthread_mutex_lock(&self->mutex));
	EXPECT_EQ(ETIMEDOUT, pthread_cond_timedwait(&cond, &self->mutex, &past));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(EINVAL, pthread_cond_timedwait(&cond, &self->mutex, &bad));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(0, pthread_mutex_unlock(&self->mutex));
	EXPECT_EQ(0, pthread_cond_destroy(&cond));
}

TEST(recursion)
{
	pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

	EXPECT_EQ(0, pthread_mutex_lock(&mutex));
	EXPECT_EQ(0, pthread_mutex_lock(&mutex));
	EXPECT_EQ(0, pthread_mutex_trylock(&mutex));
	EXPECT_EQ(3, depth());
	EXPECT_EQ(0, pthread_mutex_unlock(&mutex));
	EXPECT_EQ(0, pthread_mutex_unlock(&mutex));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(0, pthread_mutex_unlock(&mutex));
	EXPECT_EQ(0, depth());
}

TEST(error_checking)
{
	pthread_mutex_t mutex = PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP;

	EXPECT_EQ(EPERM, pthread_mutex_unlock(&mutex));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(0, pthread_mutex_lock(&mutex));
	EXPECT_EQ(EDEADLK, pthread_mutex_lock(&mutex));
	EXPECT_EQ(EBUSY, pthread_mutex_trylock(&mutex));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(0, pthread_mutex_unlock(&mutex));
}

static void *lock_and_die(void *mutex)
{
	pthread_mutex_lock(mutex);
	return NULL;
}

TEST(owner_died)
{
	static const struct kind kind = { .robust = PTHREAD_MUTEX_ROBUST };
	pthread_mutex_t mutex;
	pthread_t thread;

	init_mutex(&mutex, &kind);
	ASSERT_EQ(0, pthread_create(&thread, NULL, lock_and_die, &mutex));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(EOWNERDEAD, pthread_mutex_lock(&mutex));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(0, pthread_mutex_unlock(&mutex));
	EXPECT_EQ(ENOTRECOVERABLE, pthread_mutex_lock(&mutex));
	EXPECT_EQ(0, depth());
}

static void *unlock_one(void *mutex)
{
	pthread_mutex_unlock(mutex);
	return (void *)(long)depth();
}

TEST(unlocked_by_another_thread)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_t thread;
	void *inside;

	ASSERT_EQ(0, pthread_mutex_lock(&mutex));
	ASSERT_EQ(0, pthread_create(&thread, NULL, unlock_one, &mutex));
	ASSERT_EQ(0, pthread_join(thread, &inside));
	EXPECT_EQ(NULL, inside);
	EXPECT_EQ(0, pthread_mutex_trylock(&mutex));
}

/*
 * Condition variables
 */

static struct {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	int turn;
	bool waiting;
} game = { .mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER };

static void *take_turns(void *number)
{
	int i;

	for (i = 0; i < 500; i++) {
		pthread_mutex_lock(&game.mutex);
		while (game.turn % 4 != (long)number)
			pthread_cond_wait(&game.cond, &game.mutex);
		game.turn++;
		pthread_cond_broadcast(&game.cond);
		pthread_mutex_unlock(&game.mutex);
	}
	return (void *)(long)depth();
}

TEST(threads_take_turns)
{
	pthread_t threads[4];
	void *inside;
	long i;

	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, take_turns, (void *)i));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &inside));
		EXPECT_EQ(NULL, inside);
	}
	EXPECT_EQ(2000, game.turn);
	EXPECT_EQ(0, pthread_cond_destroy(&game.cond));
}

static mtx_t mtx;
static cnd_t cnd;
static int items;

static int produce_or_consume(void *consume)
{
	int i;

	for (i = 0; i < 500; i++) {
		mtx_lock(&mtx);
		if (consume) {
			while (!items)
				cnd_wait(&cnd, &mtx);
			items--;
		} else {
			items++;
			cnd_signal(&cnd);
		}
		mtx_unlock(&mtx);
	}
	return depth();
}

TEST(one_signal_for_one_item)
{
	thrd_t threads[4];
	int i, inside;

	mtx_init(&mtx, mtx_plain);
	cnd_init(&cnd);
	for (i = 0; i < 4; i++)
		ASSERT_EQ(thrd_success, thrd_create(&threads[i], produce_or_consume,
						    i % 2 ? (void *)1 : NULL));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(thrd_success, thrd_join(threads[i], &inside));
		EXPECT_EQ(0, inside);
	}
	EXPECT_EQ(0, items);
	EXPECT_EQ(thrd_success, mtx_lock(&mtx));
	EXPECT_EQ(thrd_busy, mtx_trylock(&mtx));
	EXPECT_EQ(thrd_timedout, cnd_timedwait(&cnd, &mtx, &past));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(thrd_success, mtx_unlock(&mtx));
	cnd_destroy(&cnd);
}

static unsigned int inside_cleanup;

static void unlock_cancelled(void *unused)
{
	inside_cleanup = depth();
	game.waiting = false;
	pthread_mutex_unlock(&game.mutex);
}

static void *wait_for_ever(void *unused)
{
	pthread_mutex_lock(&game.mutex);
	pthread_cleanup_push(unlock_cancelled, NULL);
	game.waiting = true;
	for (;;)
		pthread_cond_wait(&game.cond, &game.mutex);
	pthread_cleanup_pop(0);
	return NULL;
}

TEST(a_cancelled_wait_has_the_mutex)
{
	bool waiting = false;
	pthread_t thread;
	void *result;

	ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_ever, NULL));
	while (!waiting) {
		pthread_mutex_lock(&game.mutex);
		waiting = game.waiting;
		pthread_mutex_unlock(&game.mutex);
	}
	ASSERT_EQ(0, pthread_cancel(thread));
	ASSERT_EQ(0, pthread_join(thread, &result));
	EXPECT_EQ(PTHREAD_CANCELED, result);
	EXPECT_EQ(1, inside_cleanup);
	EXPECT_EQ(0, pthread_mutex_trylock(&game.mutex));
	EXPECT_FALSE(game.waiting);
	EXPECT_EQ(0, pthread_mutex_unlock(&game.mutex));
	/* nobody is left who would have to leave it first */
	EXPECT_EQ(0, pthread_cond_destroy(&game.cond));
}

TEST(clocks_of_conditions)
{
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	struct timespec soon = in_ms(CLOCK_MONOTONIC, 10);
	pthread_condattr_t attr;
	pthread_cond_t cond;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	ASSERT_EQ(0, pthread_cond_init(&cond, &attr));
	ASSERT_EQ(0, pthread_mutex_lock(&mutex));
	/* by the real-time clock that would be long over */
	EXPECT_EQ(ETIMEDOUT, pthread_cond_timedwait(&cond, &mutex, &soon));
	clock_gettime(CLOCK_MONOTONIC, &soon);
	EXPECT_EQ(ETIMEDOUT, pthread_cond_clockwait(&cond, &mutex, CLOCK_MONOTONIC, &soon));
	EXPECT_EQ(EINVAL, pthread_cond_clockwait(&cond, &mutex, CLOCK_PROCESS_CPUTIME_ID, &soon));
	EXPECT_EQ(EINVAL, pthread_mutex_clocklock(&mutex, CLOCK_PROCESS_CPUTIME_ID, &soon));
	EXPECT_EQ(0, pthread_mutex_unlock(&mutex));
	EXPECT_EQ(0, pthread_cond_destroy(&cond));
}

static volatile sig_atomic_t signals;

static void count_signal(int sig)
{
	signals++;
}

TEST(a_signal_does_not_end_a_wait_for_a_condition)
{
	const struct itimerval often = { { 0, 10000 }, { 0, 10000 } }, never = { 0 };
	struct sigaction action = { .sa_handler = count_signal };
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
	struct timespec soon;

	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, pthread_mutex_lock(&mutex));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &often, NULL));
	soon = in_ms(CLOCK_REALTIME, 200);
	EXPECT_EQ(ETIMEDOUT, pthread_cond_timedwait(&cond, &mutex, &soon));
	ASSERT_EQ(0, setitimer(ITIMER_REAL, &never, NULL));
	EXPECT_LT(0, signals);
	EXPECT_EQ(0, pthread_mutex_unlock(&mutex));
}

/*
 * Read-write locks and spin locks
 */

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_spinlock_t spin;
static long pair[2], spins;

static void *read_and_write(void *unused)
{
	struct timespec far = in_ms(CLOCK_REALTIME, 100000);
	int i;

	for (i = 0; i < 2000; i++) {
		if (i % 8 == 0) {
			if (i % 16 ? pthread_rwlock_wrlock(&rwlock) :
				     pthread_rwlock_timedwrlock(&rwlock, &far))
				return "write";
			pair[0]++;
			if (i % 32 == 0)
				usleep(10);
			pair[1]++;
		} else {
			if (i % 16 ? pthread_rwlock_rdlock(&rwlock) :
				     pthread_rwlock_timedrdlock(&rwlock, &far))
				return "read";
			if (pair[0] != pair[1])
				return "torn";
		}
		pthread_rwlock_unlock(&rwlock);
		pthread_spin_lock(&spin);
		spins++;
		pthread_spin_unlock(&spin);
	}
	return depth() ? "inside" : NULL;
}

TEST(read_write_and_spin_locks)
{
	pthread_t threads[4];
	void *wrong;
	int i;

	pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, read_and_write, NULL));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &wrong));
		EXPECT_EQ(NULL, wrong) TH_LOG("%s", (char *)wrong);
	}
	EXPECT_EQ(1000, pair[0]);
	EXPECT_EQ(8000, spins);
	EXPECT_EQ(0, pthread_spin_trylock(&spin));
	EXPECT_EQ(EBUSY, pthread_spin_trylock(&spin));
	EXPECT_EQ(1, depth());
	EXPECT_EQ(0, pthread_spin_unlock(&spin));
	EXPECT_EQ(0, depth());
}

static void *try_write_locked(void *lock)
{
	struct timespec soon = in_ms(CLOCK_REALTIME, 20), soon_too = in_ms(CLOCK_MONOTONIC, 20);
	long bits = 0;

	bits |= pthread_rwlock_tryrdlock(lock) == EBUSY;
	bits |= (pthread_rwlock_trywrlock(lock) == EBUSY) << 1;
	bits |= (pthread_rwlock_timedrdlock(lock, &soon) == ETIMEDOUT) << 2;
	bits |= (pthread_rwlock_clockwrlock(lock, CLOCK_MONOTONIC, &soon_too) == ETIMEDOUT) << 3;
	bits |= (pthread_rwlock_timedwrlock(lock, &bad) == EINVAL) << 4;
	bits |= (depth() == 0) << 5;
	return (void *)bits;
}

TEST(write_locked)
{
	pthread_t thread;
	void *bits;

	ASSERT_EQ(0, pthread_rwlock_wrlock(&rwlock));
	EXPECT_EQ(EDEADLK, pthread_rwlock_rdlock(&rwlock));
	EXPECT_EQ(EDEADLK, pthread_rwlock_wrlock(&rwlock));
	EXPECT_EQ(1, depth());
	ASSERT_EQ(0, pthread_create(&thread, NULL, try_write_locked, &rwlock));
	ASSERT_EQ(0, pthread_join(thread, &bits));
	EXPECT_EQ(0x3f, (long)bits);
	EXPECT_EQ(0, pthread_rwlock_unlock(&rwlock));
	EXPECT_EQ(0, depth());
}

/*
 * The rest
 */

TEST(wrappers_leave_errno_alone)
{
	struct tm tm;
	time_t now = 0;

	errno = 7777;
	EXPECT_NE(NULL, localtime_r(&now, &tm));
	EXPECT_EQ(7777, errno);
	EXPECT_EQ(0, depth());
}

static int throw_away(struct dl_phdr_info *info, size_t size, void *unused)
{
	pthread_exit(NULL);
}

static void inside_at_end(void *inside)
{
	*(unsigned int *)inside = depth();
}

static void *unwind(void *inside)
{
	pthread_cleanup_push(inside_at_end, inside);
	dl_iterate_phdr(throw_away, NULL);
	pthread_cleanup_pop(0);
	return NULL;
}

TEST(a_section_is_left_when_the_stack_is_unwound)
{
	unsigned int inside = 7;
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, unwind, &inside));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, inside);
}

/* found by the run path of this program alone, so only if the library does not stand in between */
TEST(dlopen_uses_the_run_path_of_its_caller)
{
	void *library = dlopen("run_path_test.so", RTLD_NOW);

	EXPECT_NE(NULL, library) TH_LOG("%s", dlerror());
}

TEST(dlopen_of_a_path_is_a_section)
{
	void *library = dlopen(TEST_LIBRARY, RTLD_NOW);
	unsigned int *inside;

	ASSERT_NE(NULL, library) TH_LOG("%s", dlerror());
	inside = dlsym(library, "inside_constructor");
	ASSERT_NE(NULL, inside);
	EXPECT_EQ(1, *inside);
	EXPECT_EQ(0, depth());
}

TEST(pclose_has_the_status_and_ends_the_input)
{
	char text[10] = "";
	FILE *file = popen("cat >/dev/null; exit 7", "w");

	ASSERT_NE(NULL, file);
	EXPECT_EQ(3, fwrite("abc", 1, 3, file));
	EXPECT_EQ(7 << 8, pclose(file));
	file = popen("while echo x; do :; done 2>/dev/null; exit 8", "r");
	ASSERT_NE(NULL, file);
	EXPECT_NE(NULL, fgets(text, sizeof(text), file));
	EXPECT_EQ(SIGPIPE, pclose(file) & 0x7f);
	EXPECT_EQ(0, depth());
}

#define main tests_main
TEST_HARNESS_MAIN
#undef main

/* The program is run once more, with the library preloaded. */
int main(int argc, char **argv)
{
	if (!getenv("LD_PRELOAD")) {
		setenv("LD_PRELOAD", PRELOAD, 1);
		execv("/proc/self/exe", argv);
		return 1;
	}
	return tests_main(argc, argv);
}
