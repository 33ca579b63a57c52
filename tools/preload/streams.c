// SPDX-License-Identifier: GPL-2.0-only
/*
 * streams.c - with --raw-clone: a section lasts as long as a stream is locked by
 * flockfile(). As in locks.c, who waits for a stream is not inside; here that is
 * polled for.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "section.h"

/* How many the thread has locked: another one must not end its sections. */
static __thread unsigned int held;

EXPORT int ftrylockfile(FILE *stream)
{
	unsigned int domains = section_enter(section_domains);
	int busy = REAL(ftrylockfile)(stream);

	if (busy)
		section_leave(&domains);
	else
		held++;
	return busy;
}

EXPORT void flockfile(FILE *stream)
{
	static const struct timespec nap = { .tv_nsec = 200000 };
	int old_errno = errno;

	while (ftrylockfile(stream))
		nanosleep(&nap, NULL);
	errno = old_errno;
}

EXPORT void funlockfile(FILE *stream)
{
	unsigned int domains = section_domains;

	REAL(funlockfile)(stream);
	if (held) {
		held--;
		section_leave(&domains);
	}
}
