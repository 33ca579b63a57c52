// SPDX-License-Identifier: GPL-2.0-only
/*
 * <forksafe_mutex.h> with the module: forks wait for threads that hold a lock,
 * and not for those that only wait for one; whatever threads do with their locks,
 * no fork hangs, and no child. What the locks do by themselves is tested in
 * locks.c.
 */
#define _GNU_SOURCE
#include "../test/harness.h"

#include <forkgate.h>
#include <forksafe_mutex.h>

enum { PLAIN, RECURSIVE, ROBUST, INHERITING, INHERITING_ROBUST, KINDS };

static forksafe_rwlock_t rwlock = FORKSAFE_RWLOCK_INITIALIZER;
static forksafe_cond_t cond = FORKSAFE_COND_INITIALIZER;
static forksafe_mutex_t outer = FORKSAFE_MUTEX_INITIALIZER;
static forksafe_mutex_t inner;

static int depth(void)
{
	struct forkgate_slot *slot = forkgate_self;

	return slot ? slot->depth[0] : 0;
}

/*
 * Jobs of workers. A mutex of NULL stands for the read-write lock.
 */

static long do_lock(void *mutex)
{
	return mutex ? forksafe_mutex_lock(mutex) :
		       forksafe_rwlock_wrlock(&rwlock);
}

static long do_trylock(void *mutex)
{
	return mutex ? forksafe_mutex_trylock(mutex) :
		       forksafe_rwlock_trywrlock(&rwlock);
}

static long do_unlock(void *mutex)
{
	return mutex ? forksafe_mutex_unlock(mutex) :
		       forksafe_rwlock_unlock(&rwlock);
}

static long do_rdlock(void *unused)
{
	return forksafe_rwlock_rdlock(&rwlock);
}

static long do_wait(void *mutex)
{
	return forksafe_cond_wait(&cond, mutex);
}

static long do_depth(void *unused)
{
	return depth();
}

static long do_prepare(void *unused)
{
	return forkgate_prepare(FORKGATE_DOMAINS, NULL);
}

static long do_release(void *unused)
{
	return forkgate_release();
}

static long do_enter(void *unused)
{
	return forkgate_enter(FORKGATE_MEMORY);
}

static long do_leave(void *unused)
{
	forkgate_leave(FORKGATE_MEMORY);
	return 0;
}

/* Both locks, in a section of the first while waiting for the second */
static long do_lock_inside(void *mutex)
{
	return forksafe_mutex_lock(&outer) ?: do_lock(mutex) ?:
	       do_unlock(mutex) ?: forksafe_mutex_unlock(&outer);
}

static long do_fork(void *mutex)
{
	pid_t pid = fork();

	if (!pid)
		_exit(depth() != 0 ? 1 : do_lock(mutex) ? 2 :
		      do_unlock(mutex) ? 3 : forkgate_header_of(forkgate_self)->copy);
	return pid < 0 ? -errno : child_exit(pid);
}

/* The child owns what this thread has locked. */
static long do_fork_owner(void *mutex)
{
	pid_t pid = fork();

	if (!pid)
		_exit(depth() != 1 ? 1 : do_unlock(mutex) ? 2 :
		      depth() ? 3 : do_lock(mutex) ? 4 : do_unlock(mutex));
	return pid < 0 ? -errno : child_exit(pid);
}

static long do_raw_fork(void *mutex)
{
	pid_t pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (!pid)
		_exit(do_lock(mutex) ? 1 : do_unlock(mutex));
	return pid < 0 ? -errno : child_exit(pid);
}

static bool asleep(struct worker *worker)
{
	return busy(worker) && task_asleep(worker->tid);
}

static int make(forksafe_mutex_t *mutex, int kind)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	if (kind == RECURSIVE)
		pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	if (kind == ROBUST || kind == INHERITING_ROBUST)
		pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	if (kind == INHERITING || kind == INHERITING_ROBUST)
		pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	return forksafe_mutex_init(mutex, &attr);
}

/*
 * The fixture: four threads beside the test's own; no timers, so that whatever
 * comes to an end does so without patience
 */

FIXTURE(lockforks) {
	struct worker a, b, c, d;
	forksafe_mutex_t *lock;
};

FIXTURE_VARIANT(lockforks) {
	int kind;
};

FIXTURE_VARIANT_ADD(lockforks, plain)
{
	.kind = PLAIN,
};

FIXTURE_VARIANT_ADD(lockforks, recursive)
{
	.kind = RECURSIVE,
};

FIXTURE_VARIANT_ADD(lockforks, robust)
{
	.kind = ROBUST,
};

FIXTURE_VARIANT_ADD(lockforks, inheriting)
{
	.kind = INHERITING,
};

FIXTURE_VARIANT_ADD(lockforks, inheriting_robust)
{
	.kind = INHERITING_ROBUST,
};

FIXTURE_VARIANT_ADD(lockforks, rwlock)
{
	.kind = KINDS,
};

FIXTURE_SETUP(lockforks)
{
	int err = forkgate_init(FORKGATE_STRICT);

	if (err == ENODEV)
		SKIP(return, "no module");
	ASSERT_EQ(0, err);
	ASSERT_EQ(0, gate_open());
	ASSERT_EQ(0, gate_set_policy(&patient_policy));
	if (variant->kind < KINDS) {
		ASSERT_EQ(0, make(&inner, variant->kind));
		self->lock = &inner;
	}
	ASSERT_EQ(0, worker_spawn(&self->a));
	ASSERT_EQ(0, worker_spawn(&self->b));
	ASSERT_EQ(0, worker_spawn(&self->c));
	ASSERT_EQ(0, worker_spawn(&self->d));
}

FIXTURE_TEARDOWN(lockforks)
{
}

TEST_F(lockforks, fork_waits_for_the_owner)
{
	ASSERT_EQ(0, run(&self->a, do_lock, self->lock));
	start(&self->b, do_fork, self->lock);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&self->a, do_unlock, self->lock));
	EXPECT_EQ(0, finish(&self->b));
}

TEST_F(lockforks, bare_clone_waits_for_the_owner)
{
	ASSERT_EQ(0, run(&self->a, do_lock, self->lock));
	start(&self->b, do_raw_fork, self->lock);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&self->a, do_unlock, self->lock));
	EXPECT_EQ(0, finish(&self->b));
}

TEST_F(lockforks, owner_forks_while_others_wait)
{
	ASSERT_EQ(0, run(&self->a, do_lock, self->lock));
	start(&self->b, do_lock, self->lock);
	start(&self->c, do_lock, self->lock);
	ASSERT_TRUE(wait_until(asleep(&self->b) && asleep(&self->c)));
	EXPECT_EQ(0, run(&self->a, do_fork_owner, self->lock));
	EXPECT_EQ(0, run(&self->a, do_unlock, self->lock));
	ASSERT_TRUE(wait_until(!busy(&self->b) || !busy(&self->c)));
	if (busy(&self->b)) {
		EXPECT_EQ(0, finish(&self->c));
		EXPECT_EQ(0, run(&self->c, do_unlock, self->lock));
		EXPECT_EQ(0, finish(&self->b));
	} else {
		EXPECT_EQ(0, finish(&self->b));
		EXPECT_EQ(0, run(&self->b, do_unlock, self->lock));
		EXPECT_EQ(0, finish(&self->c));
	}
}

/*
 * The first in the queue cannot enter any more; the second is inside, and the
 * fork waits for it: it must get the lock nevertheless.
 */
TEST_F(lockforks, who_is_kept_out_keeps_nobody_asleep)
{
	ASSERT_EQ(0, run(&self->a, do_lock, self->lock));
	start(&self->b, do_lock, self->lock);
	ASSERT_TRUE(wait_until(asleep(&self->b)));
	start(&self->c, do_lock_inside, self->lock);
	ASSERT_TRUE(wait_until(asleep(&self->c)));
	start(&self->d, do_fork, self->lock);
	ASSERT_TRUE(wait_until(worker_waits(&self->d, 1)));
	EXPECT_EQ(0, run(&self->a, do_unlock, self->lock));
	EXPECT_EQ(0, finish(&self->c));
	EXPECT_EQ(0, finish(&self->d));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, run(&self->b, do_unlock, self->lock));
}

TEST_F(lockforks, closed_gate)
{
	ASSERT_EQ(0, run(&self->a, do_prepare, NULL));
	EXPECT_EQ(EBUSY, run(&self->b, do_trylock, self->lock));
	EXPECT_EQ(0, run(&self->b, do_depth, NULL));
	start(&self->b, do_lock, self->lock);
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));

	/* a thread that waits at the gate has not taken the lock */
	EXPECT_EQ(0, run(&self->a, do_trylock, self->lock));
	EXPECT_EQ(0, run(&self->a, do_unlock, self->lock));
	EXPECT_EQ(0, run(&self->a, do_release, NULL));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(1, run(&self->b, do_depth, NULL));
	EXPECT_EQ(0, run(&self->b, do_unlock, self->lock));
}

TEST_F(lockforks, condition)
{
	forksafe_mutex_t *mutex = self->lock ? self->lock : &outer;

	ASSERT_EQ(0, run(&self->a, do_lock, mutex));
	start(&self->a, do_wait, mutex);
	ASSERT_TRUE(wait_until(asleep(&self->a)));
	EXPECT_EQ(0, run(&self->b, do_fork, mutex));

	/* to come back it has to pass the gate, without the mutex */
	ASSERT_EQ(0, run(&self->c, do_enter, NULL));
	start(&self->b, do_fork, mutex);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, forksafe_cond_broadcast(&cond));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	EXPECT_EQ(0, run(&self->c, do_trylock, mutex));
	EXPECT_EQ(0, run(&self->c, do_unlock, mutex));
	EXPECT_EQ(0, run(&self->c, do_leave, NULL));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, finish(&self->a));
	EXPECT_EQ(0, run(&self->a, do_unlock, mutex));
}

TEST_F(lockforks, reader)
{
	ASSERT_EQ(0, run(&self->a, do_rdlock, NULL));
	ASSERT_EQ(0, run(&self->b, do_rdlock, NULL));
	start(&self->c, do_lock, NULL);
	ASSERT_TRUE(wait_until(asleep(&self->c)));
	start(&self->b, do_fork_owner, NULL);
	ASSERT_TRUE(wait_until(worker_waits(&self->b, 1)));
	EXPECT_EQ(0, run(&self->a, do_unlock, NULL));
	EXPECT_EQ(0, finish(&self->b));
	EXPECT_EQ(0, run(&self->b, do_unlock, NULL));
	EXPECT_EQ(0, finish(&self->c));
	EXPECT_EQ(0, run(&self->c, do_unlock, NULL));
}

/*
 * Constant locking by many threads, and forks: every child takes every lock,
 * and finds what it protects whole. No gate helps against a thread that owns
 * one lock and waits for another that the forking thread owns; so those that it
 * owns now and then are locked alone.
 */

#define THREADS	8
#define FORKS	200

static struct pair {
	int first, second;
} pairs[2 * KINDS + 1];

/* Those that may be nested, in this order, then those that are locked alone */
static forksafe_mutex_t mutexes[2 * KINDS];

static int stop;
static unsigned long locked;

static void change(struct pair *pair)
{
	WRITE_ONCE(pair->first, pair->first + 1);
	barrier();
	WRITE_ONCE(pair->second, pair->second + 1);
}

static bool torn_pair(struct pair *pair)
{
	return READ_ONCE(pair->first) != READ_ONCE(pair->second);
}

static long do_storm(void *seed)
{
	unsigned long long x = (uintptr_t)seed * 2654435761u + 1;
	struct timespec soon;
	long bad = 0;
	int i, j;

	while (!bad && !__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		x = x * 6364136223846793005ULL + 1442695040888963407ULL;
		i = (x >> 33) % (2 * KINDS + 1);
		j = (x >> 43) % KINDS;
		if (i == 2 * KINDS) {
			bad = x >> 63 ? forksafe_rwlock_rdlock(&rwlock) :
					forksafe_rwlock_wrlock(&rwlock);
			if (x >> 63)
				bad |= torn_pair(&pairs[i]);
			else
				change(&pairs[i]);
			bad |= forksafe_rwlock_unlock(&rwlock);
			continue;
		}
		bad = forksafe_mutex_lock(&mutexes[i]);
		change(&pairs[i]);
		if (i < j) {
			bad |= forksafe_mutex_lock(&mutexes[j]);
			change(&pairs[j]);
			bad |= forksafe_mutex_unlock(&mutexes[j]);
		} else if (i == j) {
			clock_gettime(CLOCK_REALTIME, &soon);
			bad |= forksafe_cond_timedwait(&cond, &mutexes[i],
						       &soon) != ETIMEDOUT;
		}
		bad |= forksafe_mutex_unlock(&mutexes[i]);
		__atomic_fetch_add(&locked, 1, __ATOMIC_RELAXED);
	}
	return bad;
}

/* 0, or what was wrong. @bare: libc knows nothing of this child */
static int storm_child(forksafe_mutex_t *owned, bool bare)
{
	int i;

	if (depth() != (owned ? 1 : 0))
		return 1;
	if (owned && forksafe_mutex_unlock(owned))
		return 2;
	for (i = 0; i < 2 * KINDS; i++) {
		if (bare && i % KINDS >= ROBUST)
			continue;
		if (forksafe_mutex_lock(&mutexes[i]) || torn_pair(&pairs[i]))
			return 10 + i;
		if (forksafe_mutex_unlock(&mutexes[i]))
			return 30 + i;
	}
	if (forksafe_rwlock_wrlock(&rwlock) || torn_pair(&pairs[2 * KINDS]))
		return 50;
	forksafe_cond_broadcast(&cond);
	return forksafe_rwlock_unlock(&rwlock) || depth() ||
	       forkgate_header_of(forkgate_self)->copy ? 60 : 0;
}

TEST(storm)
{
	int i, found = 0, hung = 0, status;
	struct worker workers[THREADS];
	forksafe_mutex_t *owned;
	pid_t pid;

	if (forkgate_init(FORKGATE_STRICT) == ENODEV)
		SKIP(return, "no module");
	for (i = 0; i < 2 * KINDS; i++)
		ASSERT_EQ(0, make(&mutexes[i], i % KINDS));
	for (i = 0; i < THREADS; i++)
		ASSERT_EQ(0, worker_spawn(&workers[i]));
	for (i = 0; i < THREADS; i++)
		start(&workers[i], do_storm, ARG(i + 1));

	for (i = 0; i < FORKS; i++) {
		owned = i % 3 == 1 ? &mutexes[KINDS + i / 3 % KINDS] : NULL;
		if (owned)
			ASSERT_EQ(0, forksafe_mutex_lock(owned));
		if (i % 3 == 2)
			pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
		else
			pid = fork();
		if (!pid)
			_exit(storm_child(owned, i % 3 == 2));
		ASSERT_LT(0, pid);
		if (owned)
			ASSERT_EQ(0, forksafe_mutex_unlock(owned));
		status = child_exit(pid);
		if (status == CHILD_HANGS) {
			hung++;
			kill(pid, SIGKILL);
		} else if (status) {
			TH_LOG("fork %d: %d", i, status);
			found++;
		}
		if (i % 20 == 0)
			TH_LOG("%d forks next to %lu locks", i + 1,
			       READ_ONCE(locked));
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < THREADS; i++)
		EXPECT_EQ(0, finish(&workers[i]));
	TH_LOG("%d forks next to %lu locks: %d hung", FORKS, locked, hung);
	EXPECT_EQ(0, hung);
	EXPECT_EQ(0, found);
	EXPECT_LT(FORKS, locked);
	for (i = 0; i <= 2 * KINDS; i++)
		EXPECT_FALSE(torn_pair(&pairs[i]));
}

TEST_HARNESS_MAIN
