// SPDX-License-Identifier: GPL-2.0-only
/*
 * locks.c - the program's own locks: a section lasts as long as one is held
 *
 * A lock is only taken inside a section, because a child must never find it
 * taken by a thread that it lacks. But a thread that waits for a lock must not be
 * inside a section for it: if the forking thread holds the lock, as in a
 * program's handlers of pthread_atfork(), each would wait for the other. So:
 *
 *	W1  enter
 *	W2  trylock; done if that gets it
 *	W3  leave
 *	W4  sleep until the lock may be free, and go on with W1
 *
 * W4 takes nothing. It waits on the word of an ordinary mutex as glibc itself
 * does, see mutex_sleep(), and for all other locks in a place of its own, see
 * park(): there the unlocking functions below wake it.
 *
 * Condition variables are made anew, because glibc's pthread_cond_wait() takes
 * the mutex again before it returns, outside of any section. What is left of
 * theirs is what init and destroy know: the attributes and the count of waiters
 * in __wrefs. Only those that processes share are glibc's own.
 *
 * This file must not call anything that calls back into the program. A function
 * is entered by a thread that may have a signal handler do the same at any point.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include "section.h"

#define NSEC_PER_SEC	1000000000L

/* glibc's layout: bits of pthread_mutex_t.__data.__kind */
#define KIND_TYPE	3	/* normal, recursive, error-checking, adaptive */
#define KIND_ROBUST	16
#define KIND_PI		32
#define KIND_PP		64
#define KIND_SHARED	128

/* bits of pthread_cond_t.__data.__wrefs, and one waiter in it */
#define COND_SHARED	1
#define COND_MONOTONIC	2
#define COND_DESTROYED	4
#define COND_WAITER	8

/*
 * How many locks the thread has taken: a mutex that is unlocked by another thread
 * than it was locked by must not end a section that is not there.
 */
static __thread unsigned int held;

static void relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#endif
}

/*
 * Enter before a lock is taken: forkgate_enter(), with the code that wants the
 * lock to blame. Return: what to leave.
 */
static inline unsigned int lock_enter(void *caller)
{
	unsigned int domains = section_domains;

	return likely(!forkgate_enter_at(caller, domains, 0)) ? domains : 0;
}

/* After the attempt to take a lock, with its result: inside if it is ours now */
static inline int lock_tried(unsigned int domains, int err)
{
	if (likely(!err || err == EOWNERDEAD))
		held++;
	else
		section_leave(&domains);
	return err;
}

/* W1 to W3. Return: what @try does; the caller is inside if that got the lock. */
static inline __attribute__((__always_inline__))
int lock_try(int (*try)(void *lock), void *lock, void *caller)
{
	unsigned int domains = lock_enter(caller);

	return lock_tried(domains, try(lock));
}

/* After a lock was given back, with the result of that */
static inline int lock_left(int err)
{
	unsigned int domains = section_domains;

	if (likely(!err && held)) {
		held--;
		section_leave(&domains);
	}
	return err;
}

/*
 * Sleeping. All of it leaves errno alone.
 */

static int futex(const void *word, int op, unsigned int value, const struct timespec *time)
{
	int old_errno = errno, err = 0;

	if (syscall(SYS_futex, word, op, value, time, NULL, FUTEX_BITSET_MATCH_ANY) < 0)
		err = errno;
	errno = old_errno;
	return err;
}

/*
 * Sleep while *@word is @value, on after a signal: glibc's pthread_cond_wait()
 * does not return for one. Return: 0 or ETIMEDOUT.
 */
static int sleep_on(const void *word, unsigned int value, bool shared, clockid_t clock,
		    const struct timespec *abstime)
{
	int op = FUTEX_WAIT_BITSET | (shared ? 0 : FUTEX_PRIVATE_FLAG) |
		 (clock == CLOCK_REALTIME ? FUTEX_CLOCK_REALTIME : 0);
	int err;

	if (abstime && abstime->tv_sec < 0)
		return ETIMEDOUT;
	do {
		err = futex(word, op, value, abstime);
	} while (err == EINTR);
	return err == ETIMEDOUT ? ETIMEDOUT : 0;
}

static void wake(const void *word, int count, bool shared)
{
	futex(word, FUTEX_WAKE | (shared ? 0 : FUTEX_PRIVATE_FLAG), count, NULL);
}

static bool valid_clock(clockid_t clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC;
}

static bool valid_time(const struct timespec *time)
{
	return !time || (time->tv_nsec >= 0 && time->tv_nsec < NSEC_PER_SEC);
}

/*
 * Places to wait for a lock whose insides are not known: unlocking changes
 * @sequence and wakes if there are waiters. Unlocking is a locked instruction
 * (A), pairing with the one that counts the waiter (B): either the waiter's next
 * trylock sees the lock free or the unlocking thread sees the waiter. The sleep
 * has a limit, for locks that are unlocked by another process or by code that
 * has the C library's own functions.
 */
static struct place {
	unsigned int waiters;
	unsigned int sequence;
} __attribute__((__aligned__(64))) places[64];

static struct place *place_of(const void *lock)
{
	return &places[((uintptr_t)lock >> 3) * 0x9e3779b97f4a7c15 >> 58];
}

static void unpark(struct place *place)
{
#ifndef __x86_64__
	__atomic_thread_fence(__ATOMIC_SEQ_CST);	/* (A) */
#endif
	if (unlikely(__atomic_load_n(&place->waiters, __ATOMIC_SEQ_CST))) {
		__atomic_fetch_add(&place->sequence, 1, __ATOMIC_SEQ_CST);
		wake(&place->sequence, INT_MAX, false);
	}
}

/* Sleep for at most @ms, or until @abstime. Return: 0 or ETIMEDOUT. */
static int park(struct place *place, unsigned int sequence, int ms, clockid_t clock,
		const struct timespec *abstime)
{
	int64_t sleep = ms * 1000000L, rest;
	struct timespec now, limit;

	if (abstime) {
		clock_gettime(clock, &now);
		rest = (int64_t)abstime->tv_sec - now.tv_sec;
		if (__builtin_mul_overflow(rest, NSEC_PER_SEC, &rest) ||
		    __builtin_add_overflow(rest, abstime->tv_nsec - now.tv_nsec, &rest))
			rest = abstime->tv_sec < now.tv_sec ? 0 : sleep;
		if (rest <= 0)
			return ETIMEDOUT;
		if (rest < sleep)
			sleep = rest;
	}
	clock_gettime(CLOCK_MONOTONIC, &limit);
	limit.tv_nsec += sleep;
	if (limit.tv_nsec >= NSEC_PER_SEC) {
		limit.tv_nsec -= NSEC_PER_SEC;
		limit.tv_sec++;
	}
	sleep_on(&place->sequence, sequence, false, CLOCK_MONOTONIC, &limit);
	return 0;
}

/* The way W1 to W4 of a lock that parks. @ms: the longest sleep */
static int lock_parking(void *lock, int (*try)(void *lock), int ms, clockid_t clock,
			const struct timespec *abstime, void *caller)
{
	struct place *place = place_of(lock);
	unsigned int sequence;
	int err;

	if (!valid_time(abstime))
		return EINVAL;
	__atomic_fetch_add(&place->waiters, 1, __ATOMIC_SEQ_CST);	/* (B) */
	do {
		sequence = __atomic_load_n(&place->sequence, __ATOMIC_SEQ_CST);
		err = lock_try(try, lock, caller);
		if (err != EBUSY)
			break;
		err = park(place, sequence, ms, clock, abstime);
	} while (!err);
	__atomic_fetch_sub(&place->waiters, 1, __ATOMIC_SEQ_CST);
	return err;
}

/* A child has no waiters. */
static void clear_places(void)
{
	unsigned int i;

	for (i = 0; i < sizeof(places) / sizeof(*places); i++)
		places[i].waiters = 0;
}

static __attribute__((__constructor__)) void setup_places(void)
{
	pthread_atfork(NULL, NULL, clear_places);
}

/*
 * Mutexes
 */

/*
 * CPython's global lock is a flag with a mutex and a condition variable. Whoever has
 * the lock needs the mutex to give it back, and must not be kept out with it, as
 * threads in sections may wait for it. The child makes all of it anew, so it is no
 * section. It lies in an object of the interpreter's.
 */
static uintptr_t runtime, runtime_size;

static __attribute__((__constructor__)) void find_runtime(void)
{
	const ElfW(Sym) * symbol;
	Dl_info info;
	void *found = dlsym(RTLD_DEFAULT, "_PyRuntime");

	if (found && dladdr1(found, &info, (void **)&symbol, RTLD_DL_SYMENT) && symbol) {
		runtime = (uintptr_t)found;
		runtime_size = symbol->st_size;
	}
}

static inline bool is_runtimes(const pthread_mutex_t *mutex)
{
	return unlikely((uintptr_t)mutex - runtime < runtime_size);
}

static int kind_of(const pthread_mutex_t *mutex)
{
	return __atomic_load_n(&mutex->__data.__kind, __ATOMIC_RELAXED);
}

static bool kind_parks(int kind)
{
	return kind & (KIND_ROBUST | KIND_PI | KIND_PP);
}

/*
 * The word of an ordinary mutex is 0 when it is free, 1 when it is taken and 2
 * when unlocking has to wake a sleeper. What is most frequent is done here,
 * because a call of the original costs as much as the lock.
 */
static inline bool mutex_take(pthread_mutex_t *mutex)
{
	int free = 0;

	if (!__atomic_compare_exchange_n(&mutex->__data.__lock, &free, 1, false,
					 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return false;
	mutex->__data.__owner = forkgate_self->tid;
	mutex->__data.__nusers++;
	return true;
}

static int mutex_try(void *mutex)
{
	if (likely(kind_of(mutex) == PTHREAD_MUTEX_NORMAL))
		return mutex_take(mutex) ? 0 : EBUSY;
	return REAL(pthread_mutex_trylock)(mutex);
}

/* Sleep until the mutex may be free. */
static int mutex_sleep(pthread_mutex_t *mutex, bool shared, clockid_t clock,
		       const struct timespec *abstime)
{
	int *word = &mutex->__data.__lock, taken = 1;

	if (!__atomic_compare_exchange_n(word, &taken, 2, false, __ATOMIC_RELAXED,
					 __ATOMIC_RELAXED) && !taken)
		return 0;
	return sleep_on(word, 2, shared, clock, abstime);
}

static int mutex_wait(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *abstime,
		      void *caller)
{
	int *word = &mutex->__data.__lock, taken = 1;
	int kind = kind_of(mutex), err;
	bool shared = kind & KIND_SHARED;
	unsigned int domains;

	if ((kind & KIND_TYPE) == PTHREAD_MUTEX_ERRORCHECK &&
	    mutex->__data.__owner == (int)syscall(SYS_gettid))
		return EDEADLK;
	if (kind_parks(kind))
		return lock_parking(mutex, mutex_try, 2, clock, abstime, caller);
	if (!valid_time(abstime))
		return EINVAL;

	for (;;) {
		err = mutex_sleep(mutex, shared, clock, abstime);
		if (err)
			return err;
		/*
		 * Whoever unlocked has woken this thread alone. If that is to be
		 * kept out by a fork, another one that waits may be inside
		 * sections already and be what the fork is waiting for.
		 */
		domains = section_domains;
		if (forkgate_tryenter(domains) == EBUSY) {
			wake(word, 1, shared);
			domains = lock_enter(caller);
		}
		err = lock_tried(domains, mutex_try(mutex));
		if (err != EBUSY)
			break;
	}
	/* There may be more sleepers. */
	if (!err)
		__atomic_compare_exchange_n(word, &taken, 2, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED);
	return err;
}

static __attribute__((__noinline__))
int mutex_lock_any(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *abstime,
		   void *caller)
{
	int err = lock_try(mutex_try, mutex, caller);

	return err != EBUSY ? err : mutex_wait(mutex, clock, abstime, caller);
}

/* The gate is closed or the mutex taken: all over again */
static __attribute__((__noinline__))
int mutex_lock_missed(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *abstime,
		      void *caller)
{
	forkgate_leave(FORKGATE_MEMORY);
	return mutex_lock_any(mutex, clock, abstime, caller);
}

/* What is most frequent comes first, and needs no register saved. */
static inline int mutex_lock(pthread_mutex_t *mutex, clockid_t clock,
			     const struct timespec *abstime, void *caller)
{
	struct forkgate_slot *slot = forkgate_self;

	if (is_runtimes(mutex))
		return abstime ? REAL(pthread_mutex_clocklock)(mutex, clock, abstime) :
				 REAL(pthread_mutex_lock)(mutex);
	if (unlikely(!slot || section_domains != FORKGATE_MEMORY ||
		     kind_of(mutex) != PTHREAD_MUTEX_NORMAL))
		return mutex_lock_any(mutex, clock, abstime, caller);
	if (unlikely(forkgate_enter_steps(slot, caller, FORKGATE_MEMORY) ||
		     !mutex_take(mutex)))
		return mutex_lock_missed(mutex, clock, abstime, caller);
	held++;
	return 0;
}

static __attribute__((__noinline__)) int mutex_unlock_any(pthread_mutex_t *mutex, int kind)
{
	int err = lock_left(REAL(pthread_mutex_unlock)(mutex));

	if (kind_parks(kind))
		unpark(place_of(mutex));
	return err;
}

static inline int mutex_unlock(pthread_mutex_t *mutex)
{
	int kind = kind_of(mutex);	/* it may be gone once it is unlocked */

	if (is_runtimes(mutex))
		return REAL(pthread_mutex_unlock)(mutex);
	if (unlikely(kind != PTHREAD_MUTEX_NORMAL))
		return mutex_unlock_any(mutex, kind);
	mutex->__data.__owner = 0;
	mutex->__data.__nusers--;
	if (unlikely(__atomic_exchange_n(&mutex->__data.__lock, 0, __ATOMIC_RELEASE) > 1))
		wake(&mutex->__data.__lock, 1, false);
	return lock_left(0);
}

#define CALLER	__builtin_return_address(0)

EXPORT int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	return mutex_lock(mutex, CLOCK_REALTIME, NULL, CALLER);
}

EXPORT int pthread_mutex_trylock(pthread_mutex_t *mutex)
{
	if (is_runtimes(mutex))
		return REAL(pthread_mutex_trylock)(mutex);
	return lock_try(mutex_try, mutex, CALLER);
}

EXPORT int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *abstime)
{
	return mutex_lock(mutex, CLOCK_REALTIME, abstime, CALLER);
}

EXPORT int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock,
				   const struct timespec *abstime)
{
	if (!valid_clock(clock))
		return EINVAL;
	return mutex_lock(mutex, clock, abstime, CALLER);
}

EXPORT int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
	return mutex_unlock(mutex);
}

/*
 * Condition variables: a number that each signal changes
 */

static unsigned int *cond_word(pthread_cond_t *cond)
{
	return &cond->__data.__g_signals[0];
}

static unsigned int cond_flags(pthread_cond_t *cond)
{
	return __atomic_load_n(&cond->__data.__wrefs, __ATOMIC_RELAXED);
}

/* The caller has stopped waiting, which pthread_cond_destroy() waits for. */
static void cond_leave(pthread_cond_t *cond)
{
	unsigned int *wrefs = &cond->__data.__wrefs;
	unsigned int old = __atomic_fetch_sub(wrefs, COND_WAITER, __ATOMIC_RELEASE);

	if (unlikely(old >> 2 == (COND_WAITER | COND_DESTROYED) >> 2))
		wake(wrefs, INT_MAX, false);
}

struct cond_wait {
	pthread_cond_t *cond;
	pthread_mutex_t *mutex;
	void *caller;
};

/* Cancelled while it slept: a signal that it may have got is for another. */
static void cond_cancelled(void *arg)
{
	struct cond_wait *wait = arg;

	wake(cond_word(wait->cond), 1, false);
	cond_leave(wait->cond);
	mutex_lock(wait->mutex, CLOCK_REALTIME, NULL, wait->caller);
}

static int cond_wait_shared(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock,
			    const struct timespec *abstime, void *caller)
{
	unsigned int domains;
	int err;

	lock_left(0);
	err = abstime ? REAL(pthread_cond_clockwait)(cond, mutex, clock, abstime) :
			REAL(pthread_cond_wait)(cond, mutex);
	domains = lock_enter(caller);
	return err == EPERM ? lock_tried(domains, err) : (lock_tried(domains, 0), err);
}

static int cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock,
		     const struct timespec *abstime, void *caller)
{
	struct cond_wait wait = { cond, mutex, caller };
	unsigned int *word = cond_word(cond), value;
	int err, locked, type;

	if (!valid_time(abstime))
		return EINVAL;
	if (unlikely(cond_flags(cond) & COND_SHARED))
		return cond_wait_shared(cond, mutex, clock, abstime, caller);

	/* Before the mutex is unlocked: a signal after that finds a waiter. */
	__atomic_fetch_add(&cond->__data.__wrefs, COND_WAITER, __ATOMIC_SEQ_CST);
	value = __atomic_load_n(word, __ATOMIC_SEQ_CST);
	err = mutex_unlock(mutex);
	if (err) {
		cond_leave(cond);
		return err;
	}

	pthread_cleanup_push(cond_cancelled, &wait);
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	err = sleep_on(word, value, false, clock, abstime);
	pthread_setcanceltype(type, NULL);
	pthread_cleanup_pop(0);

	cond_leave(cond);
	locked = mutex_lock(mutex, CLOCK_REALTIME, NULL, caller);
	return locked ? locked : err;
}

static clockid_t cond_clock(pthread_cond_t *cond)
{
	return cond_flags(cond) & COND_MONOTONIC ? CLOCK_MONOTONIC : CLOCK_REALTIME;
}

/* How many: 1 or all */
static void cond_wake(pthread_cond_t *cond, int count)
{
	__atomic_fetch_add(cond_word(cond), 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&cond->__data.__wrefs, __ATOMIC_SEQ_CST) >= COND_WAITER)
		wake(cond_word(cond), count, false);
}

EXPORT int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	return cond_wait(cond, mutex, CLOCK_REALTIME, NULL, CALLER);
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *abstime)
{
	return cond_wait(cond, mutex, cond_clock(cond), abstime, CALLER);
}

EXPORT int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock,
				  const struct timespec *abstime)
{
	if (!valid_clock(clock))
		return EINVAL;
	return cond_wait(cond, mutex, clock, abstime, CALLER);
}

EXPORT int pthread_cond_signal(pthread_cond_t *cond)
{
	if (unlikely(cond_flags(cond) & COND_SHARED))
		return REAL(pthread_cond_signal)(cond);
	cond_wake(cond, 1);
	return 0;
}

EXPORT int pthread_cond_broadcast(pthread_cond_t *cond)
{
	if (unlikely(cond_flags(cond) & COND_SHARED))
		return REAL(pthread_cond_broadcast)(cond);
	cond_wake(cond, INT_MAX);
	return 0;
}

/*
 * Read-write locks
 */

static int read_try(void *lock)
{
	return REAL(pthread_rwlock_tryrdlock)(lock);
}

static int write_try(void *lock)
{
	return REAL(pthread_rwlock_trywrlock)(lock);
}

static inline int rwlock_lock(pthread_rwlock_t *lock, int (*try)(void *lock), clockid_t clock,
			      const struct timespec *abstime, void *caller)
{
	int err = lock_try(try, lock, caller);

	if (likely(err != EBUSY))
		return err;
	if (lock->__data.__cur_writer == (int)syscall(SYS_gettid))
		return EDEADLK;
	return lock_parking(lock, try, lock->__data.__shared ? 2 : 100, clock, abstime, caller);
}

EXPORT int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
	return rwlock_lock(lock, read_try, CLOCK_REALTIME, NULL, CALLER);
}

EXPORT int pthread_rwlock_tryrdlock(pthread_rwlock_t *lock)
{
	return lock_try(read_try, lock, CALLER);
}

EXPORT int pthread_rwlock_timedrdlock(pthread_rwlock_t *lock, const struct timespec *abstime)
{
	return rwlock_lock(lock, read_try, CLOCK_REALTIME, abstime, CALLER);
}

EXPORT int pthread_rwlock_clockrdlock(pthread_rwlock_t *lock, clockid_t clock,
				      const struct timespec *abstime)
{
	if (!valid_clock(clock))
		return EINVAL;
	return rwlock_lock(lock, read_try, clock, abstime, CALLER);
}

EXPORT int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
	return rwlock_lock(lock, write_try, CLOCK_REALTIME, NULL, CALLER);
}

EXPORT int pthread_rwlock_trywrlock(pthread_rwlock_t *lock)
{
	return lock_try(write_try, lock, CALLER);
}

EXPORT int pthread_rwlock_timedwrlock(pthread_rwlock_t *lock, const struct timespec *abstime)
{
	return rwlock_lock(lock, write_try, CLOCK_REALTIME, abstime, CALLER);
}

EXPORT int pthread_rwlock_clockwrlock(pthread_rwlock_t *lock, clockid_t clock,
				      const struct timespec *abstime)
{
	if (!valid_clock(clock))
		return EINVAL;
	return rwlock_lock(lock, write_try, clock, abstime, CALLER);
}

EXPORT int pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
	struct place *place = place_of(lock);
	int err = lock_left(REAL(pthread_rwlock_unlock)(lock));

	unpark(place);
	return err;
}

/*
 * Spin locks
 */

static int spin_try(void *lock)
{
	return REAL(pthread_spin_trylock)(lock);
}

EXPORT int pthread_spin_lock(pthread_spinlock_t *lock)
{
	while (lock_try(spin_try, (void *)lock, CALLER))
		relax();
	return 0;
}

EXPORT int pthread_spin_trylock(pthread_spinlock_t *lock)
{
	return lock_try(spin_try, (void *)lock, CALLER);
}

EXPORT int pthread_spin_unlock(pthread_spinlock_t *lock)
{
	return lock_left(REAL(pthread_spin_unlock)(lock));
}

/*
 * C11's locks are the same under other names.
 */

static int thrd_result(int err)
{
	switch (err) {
	case 0:
		return thrd_success;
	case EBUSY:
		return thrd_busy;
	case ETIMEDOUT:
		return thrd_timedout;
	case ENOMEM:
		return thrd_nomem;
	default:
		return thrd_error;
	}
}

EXPORT int mtx_lock(mtx_t *mutex)
{
	return thrd_result(mutex_lock((pthread_mutex_t *)mutex, CLOCK_REALTIME, NULL, CALLER));
}

EXPORT int mtx_trylock(mtx_t *mutex)
{
	return thrd_result(lock_try(mutex_try, mutex, CALLER));
}

EXPORT int mtx_timedlock(mtx_t *restrict mutex, const struct timespec *restrict abstime)
{
	return thrd_result(mutex_lock((pthread_mutex_t *)mutex, CLOCK_REALTIME, abstime, CALLER));
}

EXPORT int mtx_unlock(mtx_t *mutex)
{
	return thrd_result(mutex_unlock((pthread_mutex_t *)mutex));
}

EXPORT int cnd_wait(cnd_t *cond, mtx_t *mutex)
{
	return thrd_result(cond_wait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex,
				     CLOCK_REALTIME, NULL, CALLER));
}

EXPORT int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex,
			 const struct timespec *restrict abstime)
{
	return thrd_result(cond_wait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex,
				     CLOCK_REALTIME, abstime, CALLER));
}

EXPORT int cnd_signal(cnd_t *cond)
{
	return thrd_result(pthread_cond_signal((pthread_cond_t *)cond));
}

EXPORT int cnd_broadcast(cnd_t *cond)
{
	return thrd_result(pthread_cond_broadcast((pthread_cond_t *)cond));
}
