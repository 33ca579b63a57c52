// SPDX-License-Identifier: GPL-2.0-only
/*
 * slow.c - is loaded by gated.c, and keeps the loader's lock until it is told to go
 * on. Must not be found where libraries are looked for.
 */
#include <stdlib.h>
#include <unistd.h>

static __attribute__((__constructor__)) void wait_for_the_fork(void)
{
	char byte = 0;

	if (write(atoi(getenv("LOADED_FD")), &byte, 1) != 1 ||
	    read(atoi(getenv("FORKED_FD")), &byte, 1) != 1)
		abort();
}
