/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * worker.h - threads driven by hand, and their jobs
 *
 * A worker is a thread that runs one job at a time: run() waits for its end,
 * start() does not. So every test is a sequence of steps in one function
 * although several threads act in it. A worker must do nothing by itself.
 */
#ifndef TEST_WORKER_H
#define TEST_WORKER_H

#include "proc.h"
#include "section.h"

#include <pthread.h>

#define WORKER_IDLE	0
#define WORKER_BUSY	1
#define WORKER_DONE	2

struct worker {
	pthread_t thread;
	pid_t tid;
	struct forkgate_slot *slot;
	long (*job)(void *arg);
	void *arg;
	long result;
	int state;
};

static inline void worker_set(struct worker *worker, int state)
{
	__atomic_store_n(&worker->state, state, __ATOMIC_SEQ_CST);
	sys_futex(&worker->state, FUTEX_WAKE, INT_MAX, NULL);
}

static inline void *worker_main(void *arg)
{
	struct worker *worker = arg;
	int state;

	worker->tid = sys_gettid();
	worker_set(worker, WORKER_DONE);
	for (;;) {
		while ((state = __atomic_load_n(&worker->state, __ATOMIC_SEQ_CST)) != WORKER_BUSY)
			sys_futex(&worker->state, FUTEX_WAIT, state, NULL);
		worker->result = worker->job(worker->arg);
		worker_set(worker, WORKER_DONE);
	}
	return NULL;
}

/* busy - does the job still run? */
static inline bool busy(struct worker *worker)
{
	return __atomic_load_n(&worker->state, __ATOMIC_SEQ_CST) == WORKER_BUSY;
}

/* finish - wait for the end of the job; -ETIME when it does not end */
static inline long finish(struct worker *worker)
{
	if (!wait_until(!busy(worker)))
		return -ETIME;
	WRITE_ONCE(worker->state, WORKER_IDLE);
	return worker->result;
}

static inline void start(struct worker *worker, long (*job)(void *arg), void *arg)
{
	worker->job = job;
	worker->arg = arg;
	worker_set(worker, WORKER_BUSY);
}

static inline long run(struct worker *worker, long (*job)(void *arg), void *arg)
{
	start(worker, job, arg);
	return finish(worker);
}

/* one_done - wait for one of two jobs to end; that worker is *@done then, the other one *@other */
static inline bool one_done(struct worker **done, struct worker **other)
{
	struct worker *first = *done;

	if (!wait_until(!busy(*done) || !busy(*other)))
		return false;
	if (busy(first)) {
		*done = *other;
		*other = first;
	}
	return true;
}

/* worker_waits - is it asleep in a clone or a prepare, one of @forkers? */
static inline bool worker_waits(struct worker *worker, unsigned int forkers)
{
	return gate_state().forkers == forkers && busy(worker) && task_asleep(worker->tid);
}

/*
 * Jobs
 */

#define ARG(value)	((void *)(uintptr_t)(value))

static inline long job_register(void *worker)
{
	long ret = gate_register();

	((struct worker *)worker)->slot = slot;
	return ret;
}

static inline long job_unregister(void *unused)
{
	return gate_unregister();
}

static inline long job_enter(void *domains)
{
	return gate_enter((uintptr_t)domains);
}

static inline long job_leave(void *domains)
{
	return gate_leave((uintptr_t)domains);
}

static inline long job_tryenter(void *domains)
{
	return gate_enter_flags((uintptr_t)domains, FORKGATE_NONBLOCK);
}

static inline long job_count(void *domains)
{
	gate_count((uintptr_t)domains);
	return 0;
}

static inline long job_admit(void *domains)
{
	return gate_admit((uintptr_t)domains, 0);
}

static inline long job_uncount(void *domains)
{
	gate_uncount((uintptr_t)domains);
	return 0;
}

static inline long job_wake(void *domains)
{
	return gate_wake((uintptr_t)domains);
}

static inline long job_prepare(void *domains)
{
	return gate_prepare((uintptr_t)domains);
}

/* prepare_waits - start a job_prepare() and see it wait, one of @forkers */
static inline bool prepare_waits(struct worker *worker, unsigned int domains, unsigned int forkers)
{
	start(worker, job_prepare, ARG(domains));
	return wait_until(worker_waits(worker, forkers));
}

static inline long job_try_prepare(void *domains)
{
	return gate_prepare_with((uintptr_t)domains, FORKGATE_NONBLOCK, 0, 0, NULL);
}

static inline long job_release(void *unused)
{
	return gate_release();
}

static inline long job_outcome(void *unused)
{
	return READ_ONCE(slot->outcome);
}

/* End this thread without libc, as a crash or a foreign runtime would */
static inline long job_exit(void *unused)
{
	syscall(__NR_exit, 0);
	return -1;
}

/*
 * Making workers
 */

/* worker_spawn - a worker that has not registered; 0 or a negative errno */
static inline int worker_spawn(struct worker *worker)
{
	pthread_attr_t attr;
	int ret;

	memset(worker, 0, sizeof(*worker));
	worker->state = WORKER_BUSY;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	ret = pthread_create(&worker->thread, &attr, worker_main, worker);
	pthread_attr_destroy(&attr);
	return ret ? -ret : finish(worker);
}

/* worker_new - a worker with a slot; 0 or a negative errno */
static inline int worker_new(struct worker *worker)
{
	long ret = worker_spawn(worker);

	if (!ret)
		ret = run(worker, job_register, worker);
	return ret < 0 ? ret : 0;
}

/* workers_new - @count of them in an array; 0 or a negative errno */
static inline int workers_new(struct worker *workers, size_t count)
{
	int ret = 0;
	size_t i;

	for (i = 0; i < count && !ret; i++)
		ret = worker_new(&workers[i]);
	return ret;
}

#endif /* TEST_WORKER_H */
