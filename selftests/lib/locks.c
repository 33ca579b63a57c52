// SPDX-License-Identifier: GPL-2.0-only
/*
 * <forksafe_mutex.h>: what each function returns, that locks lock, that a
 * waiter is in no section, and that a child owns what its thread held. Works
 * with and without a module; also built with the sanitizers. What forks make
 * of locks that others hold is tested in lockforks.c, with a module.
 */
#define _GNU_SOURCE
#include "../test/harness.h"

#include <forkgate.h>
#include <forksafe_mutex.h>

#define ODD_ERRNO	7777
#define LEVELS_MAX	0x7fffffff	/* of the library */

/* Children of this program have threads, too. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0:report_thread_leaks=0:atexit_sleep_ms=0";
}

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>

/* which the sanitizer does not know */
int __real_pthread_mutex_clocklock(pthread_mutex_t *lock, clockid_t clock,
				   const struct timespec *abstime);
int __wrap_pthread_mutex_clocklock(pthread_mutex_t *lock, clockid_t clock,
				   const struct timespec *abstime);

int __wrap_pthread_mutex_clocklock(pthread_mutex_t *lock, clockid_t clock,
				   const struct timespec *abstime)
{
	unsigned int failed;
	int err;

	__tsan_mutex_pre_lock(lock, __tsan_mutex_try_lock);
	err = __real_pthread_mutex_clocklock(lock, clock, abstime);
	failed = err && err != EOWNERDEAD ? __tsan_mutex_try_lock_failed : 0;
	__tsan_mutex_post_lock(lock, __tsan_mutex_try_lock | failed, 1);
	return err;
}
#endif

/* The locks of these tests, each of which is a process */
static forksafe_mutex_t mutex = FORKSAFE_MUTEX_INITIALIZER;
static forksafe_mutex_t other = FORKSAFE_RMUTEX_INITIALIZER;
static forksafe_cond_t cond = FORKSAFE_COND_INITIALIZER;
static forksafe_rwlock_t rwlock = FORKSAFE_RWLOCK_INITIALIZER;
static int shared;

static struct timespec in_ms(clockid_t clock, long ms)
{
	struct timespec t;

	clock_gettime(clock, &t);
	t.tv_nsec += ms % 1000 * 1000000;
	t.tv_sec += ms / 1000;
	if (t.tv_nsec >= 1000000000 || t.tv_nsec < 0) {
		t.tv_sec += ms < 0 ? -1 : 1;
		t.tv_nsec += ms < 0 ? 1000000000 : -1000000000;
	}
	return t;
}

static int depth(void)
{
	struct forkgate_slot *slot = forkgate_self;

	return slot ? slot->depth[0] * 10 + slot->depth[1] : 0;
}

/*
 * Jobs of workers
 */

static long do_slot(void *worker)
{
	((struct worker *)worker)->slot = forkgate_attach();
	return 0;
}

static long do_lock(void *unused)
{
	return forksafe_mutex_lock(&mutex);
}

static long do_trylock(void *unused)
{
	return forksafe_mutex_trylock(&mutex);
}

static long do_timedlock(void *ms)
{
	struct timespec limit = in_ms(CLOCK_REALTIME, (long)ms);

	return forksafe_mutex_timedlock(&mutex, &limit);
}

static long do_clocklock(void *ms)
{
	struct timespec limit = in_ms(CLOCK_MONOTONIC, (long)ms);

	return forksafe_mutex_clocklock(&mutex, CLOCK_MONOTONIC, &limit);
}

static long do_unlock(void *unused)
{
	return forksafe_mutex_unlock(&mutex);
}

static long do_consistent(void *unused)
{
	return forksafe_mutex_consistent(&mutex);
}

static long do_depth(void *unused)
{
	return depth();
}

static long do_wait(void *unused)
{
	return forksafe_cond_wait(&cond, &mutex);
}

static long do_rdlock(void *unused)
{
	return forksafe_rwlock_rdlock(&rwlock);
}

static long do_tryrdlock(void *unused)
{
	return forksafe_rwlock_tryrdlock(&rwlock);
}

static long do_wrlock(void *unused)
{
	return forksafe_rwlock_wrlock(&rwlock);
}

static long do_timedwrlock(void *ms)
{
	struct timespec limit = in_ms(CLOCK_REALTIME, (long)ms);

	return forksafe_rwlock_timedwrlock(&rwlock, &limit);
}

static long do_trywrlock(void *unused)
{
	return forksafe_rwlock_trywrlock(&rwlock);
}

static long do_rwunlock(void *unused)
{
	return forksafe_rwlock_unlock(&rwlock);
}

/* Asleep in a job, and in no section meanwhile */
static bool waits_outside(struct worker *worker)
{
	return busy(worker) && task_asleep(worker->tid) &&
	       !READ_ONCE(worker->slot->depth[0]);
}

/* End a thread, but not what it has locked. */
static void *locking_thread(void *job)
{
	return (void *)((long (*)(void *))job)(NULL);
}

static long in_thread(long (*job)(void *))
{
	pthread_t thread;
	void *result;

	if (pthread_create(&thread, NULL, locking_thread, job) ||
	    pthread_join(thread, &result))
		return -1;
	return (long)result;
}

static int spawn_two(struct worker *a, struct worker *b)
{
	if (worker_spawn(a) || worker_spawn(b))
		return -1;
	return run(a, do_slot, a) || run(b, do_slot, b);
}

/*
 * Every kind of mutex
 */

FIXTURE(mutexes) {
	struct worker a, b;
};

FIXTURE_VARIANT(mutexes) {
	int type;
	bool robust;
	bool inherit;
};

FIXTURE_VARIANT_ADD(mutexes, plain)
{
	.type = PTHREAD_MUTEX_DEFAULT,
};

FIXTURE_VARIANT_ADD(mutexes, error_checking)
{
	.type = PTHREAD_MUTEX_ERRORCHECK,
};

FIXTURE_VARIANT_ADD(mutexes, recursive)
{
	.type = PTHREAD_MUTEX_RECURSIVE,
};

FIXTURE_VARIANT_ADD(mutexes, robust)
{
	.type = PTHREAD_MUTEX_DEFAULT,
	.robust = true,
};

FIXTURE_VARIANT_ADD(mutexes, robust_recursive)
{
	.type = PTHREAD_MUTEX_RECURSIVE,
	.robust = true,
};

FIXTURE_VARIANT_ADD(mutexes, inheriting)
{
	.type = PTHREAD_MUTEX_DEFAULT,
	.inherit = true,
};

FIXTURE_VARIANT_ADD(mutexes, inheriting_recursive)
{
	.type = PTHREAD_MUTEX_RECURSIVE,
	.inherit = true,
};

FIXTURE_VARIANT_ADD(mutexes, inheriting_robust)
{
	.type = PTHREAD_MUTEX_DEFAULT,
	.robust = true,
	.inherit = true,
};

static int make(int type, bool robust, bool inherit)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, type);
	if (robust)
		pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	if (inherit)
		pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	return forksafe_mutex_init(&mutex, &attr);
}

FIXTURE_SETUP(mutexes)
{
	ASSERT_EQ(0, make(variant->type, variant->robust, variant->inherit));
	ASSERT_EQ(0, spawn_two(&self->a, &self->b));
}

FIXTURE_TEARDOWN(mutexes)
{
}

TEST_F(mutexes, holding_is_a_section)
{
	EXPECT_EQ(0, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(10, depth());
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(0, forksafe_mutex_trylock(&mutex));
	EXPECT_EQ(10, depth());
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(0, run(&self->a, do_timedlock, ARG(0)));
	EXPECT_EQ(10, run(&self->a, do_depth, NULL));
	EXPECT_EQ(0, run(&self->a, do_unlock, NULL));
	EXPECT_EQ(0, run(&self->a, do_clocklock, ARG(0)));
	EXPECT_EQ(10, run(&self->a, do_depth, NULL));
	EXPECT_EQ(0, run(&self->a, do_unlock, NULL));
	EXPECT_EQ(0, run(&self->a, do_depth, NULL));
}

TEST_F(mutexes, owner_again)
{
	bool recursive = variant->type == PTHREAD_MUTEX_RECURSIVE;

	EXPECT_EQ(0, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(recursive ? 0 : EDEADLK, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(recursive ? 0 : EBUSY, forksafe_mutex_trylock(&mutex));
	EXPECT_EQ(recursive ? 30 : 10, depth());
	if (recursive) {
		EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
		EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
		EXPECT_EQ(EBUSY, run(&self->a, do_trylock, NULL));
		mutex.__count = LEVELS_MAX;
		EXPECT_EQ(EAGAIN, forksafe_mutex_lock(&mutex));
		EXPECT_EQ(EAGAIN, forksafe_mutex_trylock(&mutex));
		EXPECT_EQ(10, depth());
		mutex.__count = 0;
	}
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(EPERM, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(0, run(&self->a, do_trylock, NULL));
}

TEST_F(mutexes, busy)
{
	ASSERT_EQ(0, run(&self->a, do_lock, NULL));
	EXPECT_EQ(EBUSY, forksafe_mutex_trylock(&mutex));
	EXPECT_EQ(EPERM, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(EBUSY, forksafe_mutex_destroy(&mutex));
	EXPECT_EQ(ETIMEDOUT, run(&self->b, do_timedlock, ARG(-1)));
	EXPECT_EQ(ETIMEDOUT, run(&self->b, do_timedlock, ARG(10)));
	EXPECT_EQ(ETIMEDOUT, run(&self->b, do_clocklock, ARG(-1)));
	EXPECT_EQ(ETIMEDOUT, run(&self->b, do_clocklock, ARG(10)));
	EXPECT_EQ(0, run(&self->b, do_depth, NULL));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(0, run(&self->a, do_unlock, NULL));
	EXPECT_EQ(0, forksafe_mutex_trylock(&mutex));
}

TEST_F(mutexes, bad_time)
{
	struct timespec limit = { .tv_sec = 1, .tv_nsec = 1000000000 };
	struct timespec before = { .tv_sec = -1 };

	/* the time matters only to a thread that waits */
	EXPECT_EQ(0, forksafe_mutex_timedlock(&mutex, &limit));
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	ASSERT_EQ(0, run(&self->a, do_lock, NULL));
	EXPECT_EQ(EINVAL, forksafe_mutex_timedlock(&mutex, &limit));
	EXPECT_EQ(EINVAL, forksafe_mutex_clocklock(&mutex, CLOCK_MONOTONIC,
						   &limit));
	limit.tv_nsec = -1;
	EXPECT_EQ(EINVAL, forksafe_mutex_timedlock(&mutex, &limit));
	limit.tv_nsec = 0;
	EXPECT_EQ(EINVAL, forksafe_mutex_clocklock(&mutex, CLOCK_BOOTTIME,
						   &limit));
	EXPECT_EQ(ETIMEDOUT, forksafe_mutex_timedlock(&mutex, &before));
	EXPECT_EQ(0, depth());
}

TEST_F(mutexes, waiting_is_no_section)
{
	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	start(&self->a, do_lock, NULL);
	EXPECT_TRUE(wait_until(waits_outside(&self->a)));
	start(&self->b, do_timedlock, ARG(3600 * 1000));
	EXPECT_TRUE(wait_until(waits_outside(&self->b)));
	ASSERT_EQ(0, forksafe_mutex_unlock(&mutex));
	ASSERT_TRUE(wait_until(!busy(&self->a) || !busy(&self->b)));
	if (busy(&self->a)) {
		EXPECT_EQ(0, finish(&self->b));
		EXPECT_EQ(0, run(&self->b, do_unlock, NULL));
		EXPECT_EQ(0, finish(&self->a));
		EXPECT_EQ(10, run(&self->a, do_depth, NULL));
	} else {
		EXPECT_EQ(0, finish(&self->a));
		EXPECT_EQ(0, run(&self->a, do_unlock, NULL));
		EXPECT_EQ(0, finish(&self->b));
		EXPECT_EQ(10, run(&self->b, do_depth, NULL));
	}
}

/* A wake-up that is not used must reach the next. */
TEST_F(mutexes, waiter_gives_up)
{
	int i;

	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
		start(&self->a, do_timedlock, ARG(2));
		start(&self->b, do_lock, NULL);
		ASSERT_TRUE(wait_until(waits_outside(&self->b)));
		wait_tick(0);
		wait_tick(0);
		ASSERT_EQ(0, forksafe_mutex_unlock(&mutex));
		if (!finish(&self->a))
			ASSERT_EQ(0, run(&self->a, do_unlock, NULL));
		ASSERT_EQ(0, finish(&self->b));
		ASSERT_EQ(0, run(&self->b, do_unlock, NULL));
	}
}

TEST_F(mutexes, destroyed)
{
	EXPECT_EQ(0, forksafe_mutex_destroy(&mutex));
	EXPECT_EQ(EINVAL, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(EINVAL, forksafe_mutex_trylock(&mutex));
	EXPECT_EQ(EINVAL, run(&self->a, do_timedlock, ARG(10)));
	EXPECT_EQ(EINVAL, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(EINVAL, forksafe_mutex_destroy(&mutex));
	EXPECT_EQ(EINVAL, forksafe_mutex_consistent(&mutex));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(0, make(variant->type, variant->robust, variant->inherit));
	EXPECT_EQ(0, forksafe_mutex_lock(&mutex));
}

TEST_F(mutexes, destroyed_by_its_owner)
{
	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	if (variant->type == PTHREAD_MUTEX_RECURSIVE)
		ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(0, forksafe_mutex_destroy(&mutex));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(EINVAL, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(EINVAL, run(&self->a, do_lock, NULL));
}

TEST_F(mutexes, errno_is_kept)
{
	struct timespec soon = in_ms(CLOCK_REALTIME, 5);

	ASSERT_EQ(0, run(&self->a, do_lock, NULL));
	errno = ODD_ERRNO;
	EXPECT_EQ(EBUSY, forksafe_mutex_trylock(&mutex));
	EXPECT_EQ(ETIMEDOUT, forksafe_mutex_timedlock(&mutex, &soon));
	EXPECT_EQ(EPERM, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(ODD_ERRNO, errno);
}

/* Exclusion, and that no sleeper is forgotten */
static long do_count(void *rounds)
{
	long i, bad = 0, err;

	for (i = 0; i < (long)rounds; i++) {
		do {
			switch (i % 4) {
			case 0:
				err = forksafe_mutex_trylock(&mutex);
				break;
			case 1:
				err = do_timedlock(ARG(1));
				break;
			default:
				err = forksafe_mutex_lock(&mutex);
			}
		} while (err == EBUSY || err == ETIMEDOUT);
		bad |= err;
		shared++;
		bad |= forksafe_mutex_unlock(&mutex);
	}
	return bad;
}

TEST_F(mutexes, many)
{
	enum { WORKERS = 4, ROUNDS = 2000 };
	struct worker workers[WORKERS];
	int i;

	for (i = 0; i < WORKERS; i++)
		ASSERT_EQ(0, worker_spawn(&workers[i]));
	for (i = 0; i < WORKERS; i++)
		start(&workers[i], do_count, ARG(ROUNDS));
	for (i = 0; i < WORKERS; i++)
		EXPECT_EQ(0, finish(&workers[i]));
	EXPECT_EQ(WORKERS * ROUNDS, shared);
}

/*
 * What the child of an owner can do with each kind. Everything is as in the
 * parent, with the child's own threads.
 */
static int owning_child(bool recursive)
{
	struct worker a, b;

	if (depth() != (recursive ? 20 : 10))
		return 1;
	if (spawn_two(&a, &b))
		return 2;
	if (run(&a, do_trylock, NULL) != EBUSY)
		return 3;
	if (run(&a, do_unlock, NULL) != EPERM)
		return 4;
	if (run(&a, do_timedlock, ARG(5)) != ETIMEDOUT)
		return 5;
	if (!recursive && forksafe_mutex_lock(&mutex) != EDEADLK)
		return 6;
	if (recursive && forksafe_mutex_unlock(&mutex))
		return 7;
	start(&a, do_lock, NULL);
	if (!wait_until(waits_outside(&a)))
		return 8;
	if (forksafe_mutex_unlock(&mutex) || depth())
		return 9;
	if (finish(&a))
		return 10;
	start(&b, do_lock, NULL);
	if (!wait_until(waits_outside(&b)))
		return 11;
	if (run(&a, do_unlock, NULL) || finish(&b))
		return 12;
	if (forksafe_mutex_trylock(&mutex) != EBUSY)
		return 13;
	if (run(&b, do_unlock, NULL) || forksafe_mutex_lock(&mutex))
		return 14;
	return forksafe_mutex_destroy(&mutex) ? 15 : 0;
}

TEST_F(mutexes, child_owns)
{
	bool recursive = variant->type == PTHREAD_MUTEX_RECURSIVE;
	pid_t pid;

	/* others wait, which the child must not see */
	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	if (recursive)
		ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	start(&self->a, do_lock, NULL);
	ASSERT_TRUE(wait_until(waits_outside(&self->a)));
	pid = fork();
	if (!pid)
		_exit(owning_child(recursive));
	EXPECT_EQ(0, child_exit(pid));

	/* and the parent has it still */
	EXPECT_TRUE(busy(&self->a));
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	if (recursive)
		EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(0, finish(&self->a));
}

/* A grandchild too, and a mutex that was not locked */
static int grandchild(bool recursive)
{
	pid_t pid = fork();

	if (!pid)
		_exit(owning_child(recursive));
	return child_exit(pid);
}

TEST_F(mutexes, grandchild_owns)
{
	bool recursive = variant->type == PTHREAD_MUTEX_RECURSIVE;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(forksafe_mutex_lock(&mutex) ||
		      (recursive && forksafe_mutex_lock(&mutex)) ? 100 :
		      grandchild(recursive));
	EXPECT_EQ(0, child_exit(pid));
	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	if (recursive)
		ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	pid = fork();
	if (!pid)
		_exit(grandchild(recursive));
	EXPECT_EQ(0, child_exit(pid));
}

/*
 * A waiter gets the libc mutex of these kinds before it is inside; that is no
 * moment to wait for, so the mutex in the mutex is taken as it would be.
 */
static long do_take_inner(void *unused)
{
	return pthread_mutex_lock(&mutex.__mutex);
}

static int child_of_handed_over(void)
{
	struct worker a, b;

	if (spawn_two(&a, &b) || run(&a, do_lock, NULL))
		return 1;
	if (run(&b, do_trylock, NULL) != EBUSY)
		return 2;
	start(&b, do_lock, NULL);
	if (!wait_until(waits_outside(&b)))
		return 3;
	return run(&a, do_unlock, NULL) || finish(&b) ? 4 : 0;
}

TEST_F(mutexes, child_of_handed_over)
{
	pid_t pid;

	ASSERT_EQ(0, run(&self->a, do_take_inner, NULL));
	pid = fork();
	if (!pid)
		_exit(child_of_handed_over());
	EXPECT_EQ(0, child_exit(pid));
	pid = fork();
	if (!pid)
		_exit(forksafe_mutex_destroy(&mutex));
	EXPECT_EQ(0, child_exit(pid));
}

static long do_fork_and_unlock(void *unused)
{
	int err = forksafe_mutex_lock(&mutex) ?: forksafe_mutex_lock(&other);
	pid_t pid = fork();

	if (!pid)
		_exit(depth() != 20 ? 1 : forksafe_mutex_unlock(&mutex) ? 2 :
		      forksafe_mutex_lock(&mutex) ? 3 :
		      forksafe_mutex_unlock(&other) ? 4 :
		      forksafe_mutex_unlock(&mutex) ? 5 : depth());
	forksafe_mutex_unlock(&mutex);
	forksafe_mutex_unlock(&other);
	return err ? err : child_exit(pid);
}

/* A thread that is not the first forks, with two locks. */
TEST_F(mutexes, child_of_a_thread)
{
	EXPECT_EQ(0, run(&self->a, do_fork_and_unlock, NULL));
	EXPECT_EQ(0, run(&self->b, do_fork_and_unlock, NULL));
}

/*
 * Robust mutexes
 */

FIXTURE(robust) {
	struct worker a, b;
};

FIXTURE_VARIANT(robust) {
	int type;
	bool robust;
	bool inherit;
};

FIXTURE_VARIANT_ADD(robust, plain)
{
	.type = PTHREAD_MUTEX_DEFAULT,
};

FIXTURE_VARIANT_ADD(robust, recursive)
{
	.type = PTHREAD_MUTEX_RECURSIVE,
};

FIXTURE_VARIANT_ADD(robust, inheriting)
{
	.inherit = true,
};

FIXTURE_SETUP(robust)
{
	ASSERT_EQ(0, make(variant->type, true, variant->inherit));
	ASSERT_EQ(0, spawn_two(&self->a, &self->b));
}

FIXTURE_TEARDOWN(robust)
{
}

TEST_F(robust, owner_dies)
{
	EXPECT_EQ(EINVAL, forksafe_mutex_consistent(&mutex));
	ASSERT_EQ(0, in_thread(do_lock));
	EXPECT_EQ(EOWNERDEAD, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(10, depth());
	EXPECT_EQ(EINVAL, run(&self->a, do_consistent, NULL));
	EXPECT_EQ(0, forksafe_mutex_consistent(&mutex));
	EXPECT_EQ(EINVAL, forksafe_mutex_consistent(&mutex));
	EXPECT_EQ(EBUSY, run(&self->a, do_trylock, NULL));
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(0, run(&self->a, do_lock, NULL));
	EXPECT_EQ(0, run(&self->a, do_unlock, NULL));

	/* several times, with and without repairing it, by trylock */
	ASSERT_EQ(0, in_thread(do_lock));
	EXPECT_EQ(EOWNERDEAD, in_thread(do_trylock));
	EXPECT_EQ(EOWNERDEAD, in_thread(do_lock));
	EXPECT_EQ(EOWNERDEAD, run(&self->a, do_trylock, NULL));
	EXPECT_EQ(10, run(&self->a, do_depth, NULL));
	EXPECT_EQ(0, run(&self->a, do_consistent, NULL));
	EXPECT_EQ(0, run(&self->a, do_unlock, NULL));
	EXPECT_EQ(0, forksafe_mutex_lock(&mutex));
}

/* Threads follow each other at the same address. */
TEST_F(robust, owner_that_looks_like_the_dead)
{
	int i;

	for (i = 0; i < 4; i++)
		EXPECT_EQ(i ? EOWNERDEAD : 0, in_thread(do_lock));
	EXPECT_EQ(EPERM, in_thread(do_unlock));
}

static void *dying_thread(void *go)
{
	long bad = forksafe_mutex_lock(&mutex);

	__atomic_store_n((int *)go, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n((int *)go, __ATOMIC_ACQUIRE) < 2)
		sched_yield();
	return (void *)bad;
}

TEST_F(robust, owner_dies_while_others_wait)
{
	pthread_t thread;
	int go = 0;

	ASSERT_EQ(0, pthread_create(&thread, NULL, dying_thread, &go));
	ASSERT_TRUE(wait_until(__atomic_load_n(&go, __ATOMIC_ACQUIRE)));
	start(&self->a, do_lock, NULL);
	ASSERT_TRUE(wait_until(waits_outside(&self->a)));
	__atomic_store_n(&go, 2, __ATOMIC_RELEASE);
	EXPECT_EQ(EOWNERDEAD, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, do_consistent, NULL));
	EXPECT_EQ(0, run(&self->a, do_unlock, NULL));
	pthread_join(thread, NULL);
}

TEST_F(robust, not_recoverable)
{
	ASSERT_EQ(0, in_thread(do_lock));
	EXPECT_EQ(EOWNERDEAD, forksafe_mutex_lock(&mutex));
	start(&self->a, do_lock, NULL);
	start(&self->b, do_timedlock, ARG(3600 * 1000));
	ASSERT_TRUE(wait_until(waits_outside(&self->a)));
	ASSERT_TRUE(wait_until(waits_outside(&self->b)));
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(ENOTRECOVERABLE, finish(&self->a));
	EXPECT_EQ(ENOTRECOVERABLE, finish(&self->b));
	EXPECT_EQ(0, run(&self->b, do_depth, NULL));
	EXPECT_EQ(ENOTRECOVERABLE, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(ENOTRECOVERABLE, forksafe_mutex_trylock(&mutex));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(EPERM, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(EINVAL, forksafe_mutex_consistent(&mutex));
	EXPECT_EQ(0, forksafe_mutex_destroy(&mutex));
}

/* The child takes the lock's state over, and its threads can die as well. */
static int child_of_inconsistent(void)
{
	if (forksafe_mutex_consistent(&mutex))
		return 1;
	if (forksafe_mutex_unlock(&mutex) || in_thread(do_lock))
		return 2;
	if (forksafe_mutex_lock(&mutex) != EOWNERDEAD)
		return 3;
	return forksafe_mutex_unlock(&mutex) ? 4 :
	       in_thread(do_lock) != ENOTRECOVERABLE ? 5 : 0;
}

TEST_F(robust, child_of_inconsistent)
{
	pid_t pid;

	ASSERT_EQ(0, in_thread(do_lock));
	EXPECT_EQ(EOWNERDEAD, forksafe_mutex_lock(&mutex));
	pid = fork();
	if (!pid)
		_exit(child_of_inconsistent());
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, forksafe_mutex_consistent(&mutex));
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
}

#ifndef __SANITIZE_THREAD__	/* its first thread must not exit */
/* What the forking thread owned has an owner in the child that may die. */
static pthread_t forker;

static void *join_and_lock(void *unused)
{
	int err;

	pthread_join(forker, NULL);
	err = forksafe_mutex_lock(&mutex);
	_exit(err == EOWNERDEAD ? 0 : 1);
	return NULL;
}

TEST_F(robust, owner_dies_in_child)
{
	pthread_t thread;
	pid_t pid;

	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	pid = fork();
	if (!pid) {
		forker = pthread_self();
		if (pthread_create(&thread, NULL, join_and_lock, NULL))
			_exit(2);
		pthread_exit(NULL);
	}
	EXPECT_EQ(0, child_exit(pid));
}
#endif

TEST_F(robust, dead_owner_in_child)
{
	pid_t pid;

	ASSERT_EQ(0, in_thread(do_lock));
	pid = fork();
	if (!pid)
		_exit(forksafe_mutex_lock(&mutex) == EOWNERDEAD ? 0 : 1);
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(EOWNERDEAD, forksafe_mutex_lock(&mutex));
}

/*
 * Priorities
 */

static int stat_priority(pid_t tid)
{
	char path[40], text[512], *at;
	int field;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	if (read_file(path, text, sizeof(text)) <= 0)
		return 0;
	at = strrchr(text, ')');
	for (field = 2; at && field < 18; field++)
		at = strchr(at + 1, ' ');
	return at ? atoi(at) : 0;
}

/* More than the tests run with, and how that looks in proc(5) */
#define URGENT		10
#define URGENT_STAT	(-1 - URGENT)

static long do_become_urgent(void *unused)
{
	struct sched_param param = { .sched_priority = URGENT };

	return sched_setscheduler(0, SCHED_FIFO, &param) ? errno : 0;
}

TEST(priority_is_inherited)
{
	struct worker a, b;
	int before;
	pid_t pid;

	ASSERT_EQ(0, make(PTHREAD_MUTEX_DEFAULT, false, true));
	ASSERT_EQ(0, spawn_two(&a, &b));
	if (run(&b, do_become_urgent, NULL))
		SKIP(return, "no real-time priorities here");
	if (stat_priority(b.tid) != URGENT_STAT)
		SKIP(return, "this machine does not show real-time priorities");
	ASSERT_EQ(0, run(&a, do_lock, NULL));
	before = stat_priority(a.tid);
	ASSERT_LT(URGENT_STAT, before);
	start(&b, do_lock, NULL);
	EXPECT_TRUE(wait_until(stat_priority(a.tid) == URGENT_STAT));
	EXPECT_TRUE(wait_until(waits_outside(&b)));
	EXPECT_EQ(0, run(&a, do_unlock, NULL));
	EXPECT_EQ(0, finish(&b));
	EXPECT_TRUE(wait_until(stat_priority(a.tid) == before));
	EXPECT_EQ(0, run(&b, do_unlock, NULL));

	/* in a child too */
	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	pid = fork();
	if (!pid) {
		if (spawn_two(&a, &b) || run(&b, do_become_urgent, NULL))
			_exit(1);
		start(&b, do_lock, NULL);
		if (!wait_until(stat_priority(getpid()) == URGENT_STAT))
			_exit(2);
		_exit(forksafe_mutex_unlock(&mutex) || finish(&b) ? 3 : 0);
	}
	EXPECT_EQ(0, child_exit(pid));
}

/*
 * Arguments, initializers, handlers
 */

TEST(initializers)
{
	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(EDEADLK, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(0, forksafe_mutex_destroy(&mutex));
	ASSERT_EQ(0, forksafe_mutex_lock(&other));
	EXPECT_EQ(0, forksafe_mutex_lock(&other));
	EXPECT_EQ(0, forksafe_mutex_unlock(&other));
	EXPECT_EQ(0, forksafe_mutex_unlock(&other));
	EXPECT_EQ(EPERM, forksafe_mutex_unlock(&other));
	EXPECT_EQ(0, forksafe_mutex_init(&mutex, NULL));
	EXPECT_EQ(0, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(EDEADLK, forksafe_mutex_lock(&mutex));
}

TEST(bad_arguments)
{
	pthread_mutexattr_t attr;
	pthread_condattr_t condattr;
	pthread_rwlockattr_t rwattr;

	EXPECT_EQ(EFAULT, forksafe_mutex_init(NULL, NULL));
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	EXPECT_EQ(EINVAL, forksafe_mutex_init(&mutex, &attr));
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_PROTECT);
	EXPECT_EQ(EINVAL, forksafe_mutex_init(&mutex, &attr));
	pthread_mutexattr_init(&attr);
	EXPECT_EQ(0, forksafe_mutex_init(&mutex, &attr));

	EXPECT_EQ(EFAULT, forksafe_cond_init(NULL, NULL));
	pthread_condattr_init(&condattr);
	EXPECT_EQ(0, forksafe_cond_init(&cond, &condattr));
	pthread_condattr_setpshared(&condattr, PTHREAD_PROCESS_SHARED);
	EXPECT_EQ(EINVAL, forksafe_cond_init(&cond, &condattr));

	EXPECT_EQ(EFAULT, forksafe_rwlock_init(NULL, NULL));
	pthread_rwlockattr_init(&rwattr);
	EXPECT_EQ(0, forksafe_rwlock_init(&rwlock, &rwattr));
	pthread_rwlockattr_setpshared(&rwattr, PTHREAD_PROCESS_SHARED);
	EXPECT_EQ(EINVAL, forksafe_rwlock_init(&rwlock, &rwattr));

	memset(&mutex, 0x5a, sizeof(mutex));
	EXPECT_EQ(EINVAL, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(EINVAL, forksafe_mutex_trylock(&mutex));
	EXPECT_EQ(EINVAL, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(EINVAL, forksafe_mutex_destroy(&mutex));
	EXPECT_EQ(0, depth());
}

/* Blame names the code that locks, not the library. */
extern const char __executable_start, etext;

TEST(site_is_the_caller)
{
	struct timespec past = { .tv_sec = 1 };
	uintptr_t start = (uintptr_t)&__executable_start;
	uintptr_t end = (uintptr_t)&etext;

#define FROM_HERE(call) do {						\
	forkgate_self->site = 0;					\
	EXPECT_EQ(0, call);						\
	EXPECT_LE(start, forkgate_self->site) TH_LOG("%s", #call); \
	EXPECT_GT(end, forkgate_self->site) TH_LOG("%s", #call);	\
} while (0)

	forkgate_attach();
	FROM_HERE(forksafe_mutex_lock(&mutex));
	FROM_HERE(forksafe_mutex_trylock(&other));
	FROM_HERE(forksafe_mutex_timedlock(&other, &past));
	FROM_HERE(forksafe_rwlock_rdlock(&rwlock));
	FROM_HERE(forksafe_rwlock_tryrdlock(&rwlock));
}

static int handler_trylock = -1, handler_destroy = -1, handler_other = -1;

static void handler(int sig)
{
	handler_trylock = forksafe_mutex_trylock(&mutex);
	handler_destroy = forksafe_mutex_destroy(&mutex);
	handler_other = forksafe_mutex_trylock(&other);
	if (!handler_other)
		handler_other = forksafe_mutex_unlock(&other);
}

/* At any moment: the handler's locking is undone before it returns. */
static void random_handler(int sig)
{
	int err = forksafe_mutex_trylock(&other);

	if (!err)
		err = forksafe_mutex_unlock(&other);
	if (err && err != EBUSY)
		handler_other = err;
	err = forksafe_mutex_trylock(&mutex);
	if (!err)
		err = forksafe_mutex_unlock(&mutex);
	if (err && err != EBUSY)
		handler_trylock = err;
}

TEST(signal_handler)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL,
				  .sigev_signo = SIGUSR2 };
	struct itimerspec often = { .it_interval.tv_nsec = 50000,
				    .it_value.tv_nsec = 50000 };
	timer_t timer;
	int i;

	signal(SIGUSR1, handler);
	ASSERT_EQ(0, in_thread(do_lock));	/* to stay locked */
	raise(SIGUSR1);
	EXPECT_EQ(EBUSY, handler_trylock);
	EXPECT_EQ(EBUSY, handler_destroy);
	EXPECT_EQ(0, handler_other);
	ASSERT_EQ(0, forksafe_mutex_init(&mutex, NULL));
	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	raise(SIGUSR1);
	EXPECT_EQ(EBUSY, handler_trylock);
	EXPECT_EQ(0, handler_destroy);
	EXPECT_EQ(0, depth());

	ASSERT_EQ(0, forksafe_mutex_init(&mutex, NULL));
	handler_trylock = 0;
	handler_other = 0;
	signal(SIGUSR2, random_handler);
	ASSERT_EQ(0, timer_create(CLOCK_MONOTONIC, &event, &timer));
	ASSERT_EQ(0, timer_settime(timer, 0, &often, NULL));
	for (i = 0; i < 300000; i++) {
		if (forksafe_mutex_lock(&mutex) || forksafe_mutex_lock(&other) ||
		    forksafe_mutex_lock(&other) ||
		    forksafe_mutex_unlock(&other) ||
		    forksafe_mutex_unlock(&mutex) ||
		    forksafe_mutex_unlock(&other))
			break;
	}
	ASSERT_EQ(0, timer_delete(timer));
	EXPECT_EQ(300000, i);
	EXPECT_EQ(0, handler_trylock);
	EXPECT_EQ(0, handler_other);
	EXPECT_EQ(0, depth());
}

TEST(strict)
{
	if (forkgate_init(0) != ENODEV)
		SKIP(return, "there is a module");
	EXPECT_EQ(ENODEV, forkgate_init(FORKGATE_STRICT));
	EXPECT_EQ(ENODEV, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(ENODEV, forksafe_mutex_trylock(&mutex));
	EXPECT_EQ(EPERM, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(ENODEV, forksafe_rwlock_rdlock(&rwlock));
	EXPECT_EQ(ENODEV, forksafe_rwlock_trywrlock(&rwlock));
	EXPECT_EQ(EPERM, forksafe_rwlock_unlock(&rwlock));
	EXPECT_EQ(0, depth());
}

/* A child of a bare clone has no atfork handlers. */
TEST(raw_clone)
{
	struct worker a, b;
	pid_t pid;

	ASSERT_EQ(0, spawn_two(&a, &b));
	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	ASSERT_EQ(0, forksafe_mutex_lock(&other));
	start(&a, do_lock, NULL);
	ASSERT_TRUE(wait_until(waits_outside(&a)));
	pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		_exit(forksafe_mutex_lock(&mutex) != EDEADLK ? 1 :
		      forksafe_mutex_unlock(&mutex) ? 2 :
		      forksafe_mutex_lock(&mutex) ? 3 :
		      forksafe_mutex_lock(&other) ? 4 : 0);
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(0, finish(&a));
}

/*
 * Condition variables
 */

FIXTURE(conds) {
	struct worker a, b;
};

FIXTURE_VARIANT(conds) {
	int type;
	bool robust;
	bool inherit;
};

FIXTURE_VARIANT_ADD(conds, plain)
{
	.type = PTHREAD_MUTEX_DEFAULT,
};

FIXTURE_VARIANT_ADD(conds, recursive)
{
	.type = PTHREAD_MUTEX_RECURSIVE,
};

FIXTURE_VARIANT_ADD(conds, inheriting_robust)
{
	.robust = true,
	.inherit = true,
};

FIXTURE_SETUP(conds)
{
	ASSERT_EQ(0, make(variant->type, variant->robust, variant->inherit));
	ASSERT_EQ(0, spawn_two(&self->a, &self->b));
}

FIXTURE_TEARDOWN(conds)
{
}

/* Wait for shared to become positive, and take one. */
static long do_take(void *unused)
{
	long err = forksafe_mutex_lock(&mutex);

	while (!err && shared <= 0)
		err = forksafe_cond_wait(&cond, &mutex);
	shared--;
	return err ? err : forksafe_mutex_unlock(&mutex);
}

static long do_give(void *count)
{
	long err = forksafe_mutex_lock(&mutex);

	shared += (long)count;
	err |= forksafe_mutex_unlock(&mutex);
	if ((long)count > 1)
		return err | forksafe_cond_broadcast(&cond);
	return err | forksafe_cond_signal(&cond);
}

TEST_F(conds, waiting_is_no_section)
{
	start(&self->a, do_take, NULL);
	EXPECT_TRUE(wait_until(waits_outside(&self->a)));
	EXPECT_EQ(0, do_give(ARG(1)));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, do_depth, NULL));
}

TEST_F(conds, broadcast)
{
	start(&self->a, do_take, NULL);
	start(&self->b, do_take, NULL);
	EXPECT_TRUE(wait_until(waits_outside(&self->a)));
	EXPECT_TRUE(wait_until(waits_outside(&self->b)));
	EXPECT_EQ(0, do_give(ARG(2)));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, forksafe_cond_destroy(&cond));
}

TEST_F(conds, all_levels)
{
	bool recursive = variant->type == PTHREAD_MUTEX_RECURSIVE;

	ASSERT_EQ(0, run(&self->a, do_lock, NULL));
	if (recursive)
		ASSERT_EQ(0, run(&self->a, do_lock, NULL));
	start(&self->a, do_wait, NULL);
	EXPECT_TRUE(wait_until(waits_outside(&self->a)));
	EXPECT_EQ(0, forksafe_mutex_trylock(&mutex));
	EXPECT_EQ(0, forksafe_cond_signal(&cond));
	EXPECT_TRUE(wait_until(waits_outside(&self->a)));
	EXPECT_TRUE(busy(&self->a));
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(recursive ? 20 : 10, run(&self->a, do_depth, NULL));
	EXPECT_EQ(0, run(&self->a, do_unlock, NULL));
	EXPECT_EQ(recursive ? 0 : EPERM, run(&self->a, do_unlock, NULL));
	EXPECT_EQ(0, run(&self->a, do_depth, NULL));
}

TEST_F(conds, not_owned)
{
	EXPECT_EQ(EPERM, forksafe_cond_wait(&cond, &mutex));
	ASSERT_EQ(0, run(&self->a, do_lock, NULL));
	EXPECT_EQ(EPERM, forksafe_cond_wait(&cond, &mutex));
}

TEST_F(conds, time)
{
	struct timespec late = in_ms(CLOCK_REALTIME, 10);
	struct timespec mono = in_ms(CLOCK_MONOTONIC, 10);
	struct timespec bad = { .tv_nsec = 1000000000 };
	struct timespec before = { .tv_sec = -1 };
	pthread_condattr_t attr;

	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(ETIMEDOUT, forksafe_cond_timedwait(&cond, &mutex, &late));
	EXPECT_EQ(ETIMEDOUT, forksafe_cond_timedwait(&cond, &mutex, &before));
	EXPECT_EQ(ETIMEDOUT, forksafe_mutex_cond_timedwait(&cond, &mutex,
							   &late));
	EXPECT_EQ(ETIMEDOUT, forksafe_cond_clockwait(&cond, &mutex,
						     CLOCK_MONOTONIC, &mono));
	EXPECT_EQ(EINVAL, forksafe_cond_timedwait(&cond, &mutex, &bad));
	EXPECT_EQ(EINVAL, forksafe_cond_clockwait(&cond, &mutex,
						  CLOCK_BOOTTIME, &late));
	EXPECT_EQ(10, depth());

	/* a time of the wrong clock would be years ahead */
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	ASSERT_EQ(0, forksafe_cond_init(&cond, &attr));
	mono = in_ms(CLOCK_MONOTONIC, 1);
	EXPECT_EQ(ETIMEDOUT, forksafe_cond_timedwait(&cond, &mutex, &mono));
	start(&self->a, do_take, NULL);
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_TRUE(wait_until(waits_outside(&self->a)));
	EXPECT_EQ(0, do_give(ARG(1)));
	EXPECT_EQ(0, finish(&self->a));
}

static long do_take_many(void *count)
{
	long i, err = 0;

	for (i = 0; i < (long)count; i++)
		err |= do_take(NULL);
	return err;
}

static long do_give_many(void *count)
{
	long i, err = 0;

	for (i = 0; i < (long)count; i++)
		err |= do_give(ARG(1));
	return err;
}

TEST_F(conds, no_signal_is_lost)
{
	struct worker c;

	ASSERT_EQ(0, worker_spawn(&c));
	start(&self->a, do_take_many, ARG(1000));
	start(&self->b, do_take_many, ARG(1000));
	start(&c, do_give_many, ARG(2000));
	EXPECT_EQ(0, finish(&c));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, shared);
}

/* A condition that others wait for in the parent is as good as new. */
static int child_of_waiters(void)
{
	struct worker a, b;

	if (forksafe_cond_signal(&cond) || spawn_two(&a, &b))
		return 1;
	start(&a, do_take, NULL);
	start(&b, do_take, NULL);
	if (!wait_until(waits_outside(&a)) || !wait_until(waits_outside(&b)))
		return 2;
	if (do_give(ARG(1)) || !wait_until(!busy(&a) || !busy(&b)))
		return 3;
	return do_give(ARG(1)) || finish(&a) || finish(&b) ||
	       forksafe_cond_destroy(&cond) ? 4 : 0;
}

TEST_F(conds, child)
{
	pid_t pid;

	start(&self->a, do_take, NULL);
	start(&self->b, do_take, NULL);
	ASSERT_TRUE(wait_until(waits_outside(&self->a)));
	ASSERT_TRUE(wait_until(waits_outside(&self->b)));
	/* Held, because without a module nothing keeps it from others during the copy. */
	EXPECT_EQ(0, forksafe_mutex_lock(&mutex));
	EXPECT_EQ(0, forksafe_cond_signal(&cond));
	pid = fork();
	if (!pid)
		_exit(forksafe_mutex_unlock(&mutex) ? 5 : child_of_waiters());
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, do_give(ARG(2)));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, finish(&self->b));
}

/* Cancelled, a thread owns the mutex in its cleanup handlers. */
static pid_t victim;
static int cleanup_result = -1;

static void cleanup(void *unused)
{
	cleanup_result = depth() == 10 ? forksafe_mutex_unlock(&mutex) : -2;
}

static void *victim_thread(void *unused)
{
	int err = forksafe_mutex_lock(&mutex);

	pthread_cleanup_push(cleanup, NULL);
	__atomic_store_n(&victim, sys_gettid(), __ATOMIC_RELEASE);
	while (!err)
		err = forksafe_cond_wait(&cond, &mutex);
	pthread_cleanup_pop(0);
	return NULL;
}

TEST_F(conds, cancelled)
{
	pthread_t thread;
	void *result;

	ASSERT_EQ(0, pthread_create(&thread, NULL, victim_thread, NULL));
	ASSERT_TRUE(wait_until(__atomic_load_n(&victim, __ATOMIC_ACQUIRE) &&
			       task_asleep(victim)));
	/* it has to wait for the mutex */
	ASSERT_EQ(0, forksafe_mutex_lock(&mutex));
	ASSERT_EQ(0, pthread_cancel(thread));
	start(&self->a, do_take, NULL);
	EXPECT_EQ(0, forksafe_mutex_unlock(&mutex));
	ASSERT_EQ(0, pthread_join(thread, &result));
	EXPECT_EQ(PTHREAD_CANCELED, result);
	EXPECT_EQ(0, cleanup_result);
	EXPECT_EQ(0, do_give(ARG(1)));
	EXPECT_EQ(0, finish(&self->a));
}

/*
 * Read-write locks
 */

FIXTURE(rwlocks) {
	struct worker a, b;
};

FIXTURE_SETUP(rwlocks)
{
	ASSERT_EQ(0, spawn_two(&self->a, &self->b));
}

FIXTURE_TEARDOWN(rwlocks)
{
}

TEST_F(rwlocks, readers)
{
	EXPECT_EQ(0, forksafe_rwlock_rdlock(&rwlock));
	EXPECT_EQ(0, forksafe_rwlock_rdlock(&rwlock));
	EXPECT_EQ(20, depth());
	EXPECT_EQ(0, run(&self->a, do_rdlock, NULL));
	EXPECT_EQ(0, run(&self->b, do_tryrdlock, NULL));
	EXPECT_EQ(10, run(&self->b, do_depth, NULL));
	EXPECT_EQ(0, run(&self->b, do_rwunlock, NULL));
	EXPECT_EQ(EPERM, run(&self->b, do_rwunlock, NULL));
	EXPECT_EQ(EBUSY, run(&self->b, do_trywrlock, NULL));
	EXPECT_EQ(0, run(&self->b, do_depth, NULL));
	EXPECT_EQ(EBUSY, forksafe_rwlock_destroy(&rwlock));
	EXPECT_EQ(ETIMEDOUT, run(&self->b, do_timedwrlock, ARG(5)));
	EXPECT_EQ(0, run(&self->b, do_depth, NULL));
	EXPECT_EQ(0, forksafe_rwlock_unlock(&rwlock));
	EXPECT_EQ(0, forksafe_rwlock_unlock(&rwlock));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(EBUSY, run(&self->b, do_trywrlock, NULL));
	EXPECT_EQ(0, run(&self->a, do_rwunlock, NULL));
	EXPECT_EQ(0, run(&self->b, do_trywrlock, NULL));
	EXPECT_EQ(10, run(&self->b, do_depth, NULL));
}

TEST_F(rwlocks, writer)
{
	struct timespec soon = in_ms(CLOCK_REALTIME, 5);
	struct timespec mono = in_ms(CLOCK_MONOTONIC, 5);
	struct timespec bad = { .tv_nsec = -1 };

	ASSERT_EQ(0, run(&self->a, do_wrlock, NULL));
	EXPECT_EQ(EDEADLK, run(&self->a, do_wrlock, NULL));
	EXPECT_EQ(EDEADLK, run(&self->a, do_rdlock, NULL));
	EXPECT_EQ(10, run(&self->a, do_depth, NULL));
	EXPECT_EQ(EBUSY, forksafe_rwlock_tryrdlock(&rwlock));
	EXPECT_EQ(EBUSY, forksafe_rwlock_trywrlock(&rwlock));
	EXPECT_EQ(ETIMEDOUT, forksafe_rwlock_timedrdlock(&rwlock, &soon));
	EXPECT_EQ(ETIMEDOUT, forksafe_rwlock_clockrdlock(&rwlock,
							 CLOCK_MONOTONIC,
							 &mono));
	EXPECT_EQ(ETIMEDOUT, forksafe_rwlock_clockwrlock(&rwlock,
							 CLOCK_MONOTONIC,
							 &mono));
	EXPECT_EQ(EINVAL, forksafe_rwlock_clockwrlock(&rwlock, CLOCK_BOOTTIME,
						      &mono));
	EXPECT_EQ(EINVAL, forksafe_rwlock_timedrdlock(&rwlock, &bad));
	EXPECT_EQ(EINVAL, forksafe_rwlock_timedwrlock(&rwlock, &bad));
	EXPECT_EQ(EPERM, forksafe_rwlock_unlock(&rwlock));
	EXPECT_EQ(EBUSY, forksafe_rwlock_destroy(&rwlock));
	EXPECT_EQ(0, depth());
	EXPECT_EQ(0, run(&self->a, do_rwunlock, NULL));
	EXPECT_EQ(EPERM, run(&self->a, do_rwunlock, NULL));
	EXPECT_EQ(0, forksafe_rwlock_destroy(&rwlock));
	EXPECT_EQ(EINVAL, forksafe_rwlock_rdlock(&rwlock));
	EXPECT_EQ(EINVAL, forksafe_rwlock_wrlock(&rwlock));
	EXPECT_EQ(EINVAL, forksafe_rwlock_tryrdlock(&rwlock));
	EXPECT_EQ(EINVAL, forksafe_rwlock_trywrlock(&rwlock));
	EXPECT_EQ(EINVAL, forksafe_rwlock_unlock(&rwlock));
	EXPECT_EQ(EINVAL, forksafe_rwlock_destroy(&rwlock));
	EXPECT_EQ(0, depth());
}

TEST_F(rwlocks, waiting_is_no_section)
{
	ASSERT_EQ(0, forksafe_rwlock_wrlock(&rwlock));
	start(&self->a, do_rdlock, NULL);
	start(&self->b, do_rdlock, NULL);
	EXPECT_TRUE(wait_until(waits_outside(&self->a)));
	EXPECT_TRUE(wait_until(waits_outside(&self->b)));
	EXPECT_EQ(0, forksafe_rwlock_unlock(&rwlock));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(10, run(&self->a, do_depth, NULL));

	EXPECT_EQ(0, run(&self->a, do_rwunlock, NULL));
	start(&self->a, do_wrlock, NULL);
	EXPECT_TRUE(wait_until(waits_outside(&self->a)));
	EXPECT_EQ(0, run(&self->b, do_rwunlock, NULL));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(10, run(&self->a, do_depth, NULL));
}

/* Readers that come later wait for a writer, unless they read already. */
TEST_F(rwlocks, writer_comes_first)
{
	struct worker c;

	ASSERT_EQ(0, worker_spawn(&c));
	ASSERT_EQ(0, run(&c, do_slot, &c));
	ASSERT_EQ(0, forksafe_rwlock_rdlock(&rwlock));
	start(&self->a, do_wrlock, NULL);
	ASSERT_TRUE(wait_until(waits_outside(&self->a)));
	EXPECT_EQ(EBUSY, run(&self->b, do_tryrdlock, NULL));
	start(&self->b, do_rdlock, NULL);
	EXPECT_TRUE(wait_until(waits_outside(&self->b)));
	EXPECT_EQ(0, forksafe_rwlock_rdlock(&rwlock));
	EXPECT_EQ(0, forksafe_rwlock_unlock(&rwlock));
	EXPECT_EQ(0, forksafe_rwlock_unlock(&rwlock));
	ASSERT_TRUE(wait_until(!busy(&self->a) || !busy(&self->b)));
	if (!busy(&self->b)) {
		EXPECT_EQ(0, finish(&self->b));
		EXPECT_EQ(0, run(&self->b, do_rwunlock, NULL));
		EXPECT_EQ(0, finish(&self->a));
	} else {
		EXPECT_EQ(0, finish(&self->a));
		EXPECT_EQ(0, run(&self->a, do_rwunlock, NULL));
		EXPECT_EQ(0, finish(&self->b));
	}
}

TEST_F(rwlocks, writer_gives_up)
{
	ASSERT_EQ(0, forksafe_rwlock_rdlock(&rwlock));
	start(&self->a, do_timedwrlock, ARG(300));
	ASSERT_TRUE(wait_until(waits_outside(&self->a) || !busy(&self->a)));
	start(&self->b, do_rdlock, NULL);
	EXPECT_EQ(ETIMEDOUT, finish(&self->a));
	EXPECT_EQ(0, finish(&self->b));
}

static int reading_child(void)
{
	struct worker a, b;

	if (spawn_two(&a, &b) || depth() != 10)
		return 1;
	if (run(&a, do_tryrdlock, NULL) || run(&a, do_rwunlock, NULL))
		return 2;
	if (run(&a, do_trywrlock, NULL) != EBUSY)
		return 3;
	start(&a, do_wrlock, NULL);
	if (!wait_until(waits_outside(&a)))
		return 4;
	if (run(&b, do_tryrdlock, NULL) != EBUSY)
		return 5;
	return forksafe_rwlock_unlock(&rwlock) || depth() || finish(&a) ? 6 : 0;
}

static int writing_child(void)
{
	struct worker a, b;

	if (spawn_two(&a, &b) || depth() != 10)
		return 1;
	if (run(&a, do_tryrdlock, NULL) != EBUSY)
		return 2;
	if (forksafe_rwlock_wrlock(&rwlock) != EDEADLK)
		return 3;
	start(&a, do_rdlock, NULL);
	if (!wait_until(waits_outside(&a)))
		return 4;
	return forksafe_rwlock_unlock(&rwlock) || depth() || finish(&a) ? 5 : 0;
}

TEST_F(rwlocks, child_owns)
{
	pid_t pid;

	ASSERT_EQ(0, forksafe_rwlock_rdlock(&rwlock));
	start(&self->a, do_wrlock, NULL);
	ASSERT_TRUE(wait_until(waits_outside(&self->a)));
	pid = fork();
	if (!pid)
		_exit(reading_child());
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, forksafe_rwlock_unlock(&rwlock));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, do_rwunlock, NULL));

	ASSERT_EQ(0, forksafe_rwlock_wrlock(&rwlock));
	start(&self->a, do_wrlock, NULL);
	ASSERT_TRUE(wait_until(waits_outside(&self->a)));
	pid = fork();
	if (!pid)
		_exit(writing_child());
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(0, forksafe_rwlock_unlock(&rwlock));
	EXPECT_EQ(0, finish(&self->a));
}

static long do_rw_many(void *rounds)
{
	long i, bad = 0;
	int seen;

	for (i = 0; i < (long)rounds; i++) {
		if (i % 3) {
			bad |= forksafe_rwlock_rdlock(&rwlock);
			seen = READ_ONCE(shared);
			sched_yield();
			bad |= seen != READ_ONCE(shared);
		} else {
			bad |= forksafe_rwlock_wrlock(&rwlock);
			WRITE_ONCE(shared, shared + 1);
		}
		bad |= forksafe_rwlock_unlock(&rwlock);
	}
	return bad;
}

TEST_F(rwlocks, many)
{
	enum { WORKERS = 4, ROUNDS = 1500 };
	struct worker workers[WORKERS];
	int i;

	for (i = 0; i < WORKERS; i++)
		ASSERT_EQ(0, worker_spawn(&workers[i]));
	for (i = 0; i < WORKERS; i++)
		start(&workers[i], do_rw_many, ARG(ROUNDS));
	for (i = 0; i < WORKERS; i++)
		EXPECT_EQ(0, finish(&workers[i]));
	EXPECT_EQ(WORKERS * ROUNDS / 3, shared);
}

TEST_HARNESS_MAIN
