// SPDX-License-Identifier: GPL-2.0-only
/*
 * originals.c - finds the functions that the wrappers stand in for, and learns
 * from the environment which domains sections are of
 *
 * Wrappers are called before any constructor has run, also by an allocator that
 * another library brings: here nothing may allocate, and dlsym(), which does
 * when it fails, is only asked for what is there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"
#include "section.h"

static const char *const names[] = {
#define X(name) #name,
#include NAMES
#undef X
};

void *originals[ORIGINALS];
unsigned int section_domains = FORKGATE_MEMORY;

static __attribute__((__noreturn__)) void not_found(const char *name)
{
	static const char text[] = ": called by the program, but missing from this C library\n";

	if (write(STDERR_FILENO, name, strlen(name)) > 0 &&
	    write(STDERR_FILENO, text, sizeof(text) - 1) > 0)
		_exit(127);
	_exit(127);
}

static void *look_up(int number)
{
	int old_errno = errno;
	void *found = dlsym(RTLD_NEXT, names[number]);

	errno = old_errno;
	__atomic_store_n(&originals[number], found, __ATOMIC_RELAXED);
	return found;
}

void *find_original(int number)
{
	void *found = look_up(number);

	if (!found)
		not_found(names[number]);
	return found;
}

static __attribute__((__constructor__)) void find_originals(void)
{
	unsigned int domains = run_settings().domains;
	struct forkgate_slot *slot = forkgate_self;
	unsigned int i;

	/* dlsym() takes locks: best before there are threads and signals */
	for (i = 0; i < ORIGINALS; i++)
		look_up(i);

	/* Locks that are held already will be unlocked with the new domains. */
	for (i = slot ? slot->depth[0] : 0; i; i--) {
		section_enter(domains);
		forkgate_leave(section_domains);
	}
	section_domains = domains;
}
