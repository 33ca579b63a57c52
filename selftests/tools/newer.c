// SPDX-License-Identifier: GPL-2.0-only
/*
 * newer.c - preloaded: makes the module say of itself what the environment wants,
 * as one of another release would. Must not change anything else.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/forkgate.h>

static unsigned long from(const char *variable, unsigned long otherwise)
{
	const char *text = getenv(variable);

	return text ? strtoul(text, NULL, 0) : otherwise;
}

/* Library and command make their system calls by this function. */
long syscall(long number, ...)
{
	long (*real)(long number, ...) = dlsym(RTLD_NEXT, "syscall");
	struct forkgate_query *query;
	long args[6], result;
	va_list list;
	int i;

	va_start(list, number);
	for (i = 0; i < 6; i++)
		args[i] = va_arg(list, long);
	va_end(list);
	i = number == SYS_ioctl ? 1 : number == SYS_msync ? 3 : 0;
	if (i && (unsigned int)args[i] != FORKGATE_IOC_QUERY)
		i = 0;
	if (i && from("NEWER_ERROR", 0)) {
		errno = from("NEWER_ERROR", 0);
		return -1;
	}
	result = real(number, args[0], args[1], args[2], args[3], args[4], args[5]);
	if (i && !result) {
		query = (void *)args[i + 1];
		query->abi = from("NEWER_ABI", query->abi);
		query->features |= from("NEWER_FEATURES", 0);
		query->slot_size = from("NEWER_SLOT_SIZE", query->slot_size);
		query->map_size = from("NEWER_MAP_SIZE", query->map_size);
	}
	return result;
}
