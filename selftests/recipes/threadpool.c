// SPDX-License-Identifier: GPL-2.0-only
/*
 * Recipe of forkgate-guide(7): a pool of threads in a program that forks. In the
 * child no job is half done, and the pool works again; without the section the
 * child finds the first half of a job. Must not use pthread_atfork().
 */
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <unistd.h>

#include "scene.h"

/* guide: begin */
#include <forkgate.h>
#include <forksafe_mutex.h>

#define WORKERS	4

struct job {
	void (*run)(struct job *job);
	struct job *next;
};

static forksafe_mutex_t lock = FORKSAFE_MUTEX_INITIALIZER;
static forksafe_cond_t more = FORKSAFE_COND_INITIALIZER;
static struct job *jobs;
static pid_t owner;		/* the process that has the workers */

static void *worker(void *arg)
{
	struct job *job;

	for (;;) {
		forksafe_mutex_lock(&lock);
		while (!jobs)
			forksafe_cond_wait(&more, &lock);
		job = jobs;
		jobs = job->next;
		forksafe_mutex_unlock(&lock);

		forkgate_enter(FORKGATE_MEMORY);
		job->run(job);
		forkgate_leave(FORKGATE_MEMORY);
	}
	return arg;
}

int submit(struct job *job)
{
	pthread_t thread;
	int i, err = 0;

	forksafe_mutex_lock(&lock);
	if (owner != getpid()) {
		jobs = NULL;	/* the parent runs them itself */
		for (i = 0; i < WORKERS && !err; i++)
			err = pthread_create(&thread, NULL, worker, NULL);
		if (!err)
			owner = getpid();
	}
	if (!err) {
		job->next = jobs;
		jobs = job;
		forksafe_cond_signal(&more);
	}
	forksafe_mutex_unlock(&lock);
	return err;
}

/* guide: end */

struct change {
	struct job job;
	int halves[2];
};

static sem_t done;

static void change(struct job *job)
{
	struct change *change = (struct change *)job;

	change->halves[0]++;
	stop_half_way();
	change->halves[1]++;
}

static void say(struct job *job)
{
	sem_post(&done);
}

/* All workers are half-way, and the queue is longer than what they can take. */
#define CHANGES	(2 * WORKERS + 1)

static struct change changes[CHANGES];

static int judge(void)
{
	struct job job = { .run = say };
	int i;

	for (i = 0; i < CHANGES; i++)
		if (changes[i].halves[0] != changes[i].halves[1])
			return BROKEN;
	while (!sem_trywait(&half_way))
		;	/* the parent's */
	need(!submit(&job) && wait_for(&done, LONG), "the child's pool");
	errno = EEXIST;
	need(!wait_for(&half_way, 1), "a job of the parent, in the child");
	return HOLDS;
}

int main(void)
{
	pid_t pid;
	int i;

	set_scene();
	need(!sem_init(&done, 0, 0), "semaphore");
	for (i = 0; i < CHANGES; i++) {
		changes[i].job.run = change;
		need(!submit(&changes[i].job), "pool");
		need(i >= WORKERS || wait_for(&half_way, LONG), "job");
	}
	pid = fork();
	if (!pid)
		_exit(judge());
	for (i = 0; i < CHANGES; i++)
		sem_post(&forked);
	i = outcome(pid);
	printf("# jobs are %s in the child\n", i == HOLDS ? "whole" : "half done");
	return i;
}
