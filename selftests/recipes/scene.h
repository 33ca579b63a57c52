/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the programs around the recipes share: the schedule that they force. One
 * thread stops half-way, another forks then, and the first goes on when that has
 * forked. A fork that waits for the first cannot: so the first goes on after
 * HOLD at the latest. Without its sections it never has to, and the recipe must
 * fail. Must not have anything that a recipe needs: its lines are complete.
 */
#ifndef SCENE_H
#define SCENE_H

#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

/* exit status of a recipe */
enum { HOLDS, BROKEN, TROUBLE };

#define HOLD	2	/* seconds, long for a fork that nothing holds up */
#define LONG	30	/* for what has to happen */

static sem_t half_way, forked;

/* A failure that says nothing about the recipe */
static inline void need(bool fine, const char *what)
{
	if (fine)
		return;
	perror(what);
	_exit(TROUBLE);
}

static inline bool wait_for(sem_t *event, int seconds)
{
	struct timespec limit;

	clock_gettime(CLOCK_MONOTONIC, &limit);
	limit.tv_sec += seconds;
	while (sem_clockwait(event, CLOCK_MONOTONIC, &limit))
		if (errno != EINTR)
			return false;
	return true;
}

/* By the thread that has to be half-way while the other one forks */
static inline void stop_half_way(void)
{
	sem_post(&half_way);
	wait_for(&forked, HOLD);
}

static inline void set_scene(void)
{
	need(!sem_init(&half_way, 0, 0) && !sem_init(&forked, 0, 0), "semaphores");
	alarm(2 * LONG);
}

/* The exit status of a child, which is that of a recipe */
static inline int outcome(pid_t pid)
{
	int status;

	need(pid > 0 && waitpid(pid, &status, 0) == pid, "child");
	return WIFEXITED(status) ? WEXITSTATUS(status) : TROUBLE;
}

#endif
