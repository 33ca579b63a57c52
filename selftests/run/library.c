// SPDX-License-Identifier: GPL-2.0-only
/*
 * library.c - is loaded by locks.c, and remembers whether that was in a section.
 * Must not be found where libraries are looked for.
 */
#define _GNU_SOURCE
#include <dlfcn.h>

#include <forkgate.h>

unsigned int inside_constructor;

static __attribute__((__constructor__)) void remember(void)
{
	struct forkgate_slot **self = dlsym(RTLD_DEFAULT, "forkgate_self");

	inside_constructor = self && *self ? (*self)->depth[0] : 0;
}
