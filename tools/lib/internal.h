/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * What the files of the library share with each other
 *
 * Must not be installed. Everything is hidden but what says FORKGATE_EXPORT,
 * and in the static library that is hidden too: a plug-in that was linked with
 * it keeps its copy to itself.
 */
#ifndef _FORKGATE_INTERNAL_H
#define _FORKGATE_INTERNAL_H

#include <stdbool.h>

#include "forkgate.h"

#ifdef FORKGATE_SHARED
#define FORKGATE_EXPORT __attribute__((__visibility__("default")))
#else
#define FORKGATE_EXPORT __attribute__((__visibility__("hidden")))
#endif

/**
 * struct fork_attempt - one call of a function that forks
 * @domains: what the child gets a copy of
 * @count: how often it was tried before
 * @ticket: the ticket was taken for this call, not by the program before
 */
struct fork_attempt {
	unsigned int domains;
	unsigned int count;
	bool ticket;
};

/* forkgate.c */

/**
 * fork_begin() - take a ticket, before the C library takes its locks
 * @attempt: the call
 *
 * When no ticket can be had for a reason that has nothing to do with other
 * threads the fork goes ahead: it finds the gate in the kernel.
 *
 * Return: 0, or the errno that the fork has failed with.
 */
int fork_begin(struct fork_attempt *attempt);

/**
 * fork_failed() - give the ticket back after the fork failed
 * @attempt: the call
 *
 * errno is left alone.
 *
 * Return: true when the ticket had expired, so that it is worth a fork_begin().
 */
bool fork_failed(struct fork_attempt *attempt);

/**
 * fork_late() - take a ticket while atfork handlers may hold their locks
 *
 * A thread that is inside a section may want one of them, so this waits no
 * longer than an unprepared clone may. The kernel counts what it has slept
 * against the clone that follows, so that both together do not wait longer.
 */
void fork_late(void);

/* fork.c */

/**
 * fork_setup() - register the atfork handler
 */
void fork_setup(void);

/**
 * fork_prepared() - fork, with a ticket
 * @real: the C library's fork()
 *
 * Return: as forkgate_fork().
 */
pid_t fork_prepared(pid_t (*real)(void));

/**
 * vfork_begin() - what vfork.S does in C
 * @err: 0, or the error that vfork(2) has just failed with
 *
 * Return: 0: vfork (again); -1: that is the result, and errno is set.
 */
int vfork_begin(int err);

/**
 * fork_in_call() - say that the caller prepares its forks itself
 * @yes: new state
 *
 * Return: old state, to be restored later.
 */
bool fork_in_call(bool yes);

#endif /* _FORKGATE_INTERNAL_H */
