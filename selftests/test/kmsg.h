/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kmsg.h - the kernel's log, from a moment on
 *
 * It must look at messages of forkgate alone: others write there too.
 */
#ifndef TEST_KMSG_H
#define TEST_KMSG_H

#include "base.h"

#include <fcntl.h>

/* kmsg_open - a descriptor that reads what is logged from now on, or -1 with errno */
static inline int kmsg_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

/* kmsg_find - read on until a message of forkgate has all of both texts */
static inline bool kmsg_find(int fd, const char *first, const char *second)
{
	char record[2048];
	ssize_t got;

	for (;;) {
		got = read(fd, record, sizeof(record) - 1);
		if (got < 0 && errno == EPIPE)
			continue;
		if (got <= 0)
			return false;
		record[got] = '\0';
		if (strstr(record, "forkgate") && strstr(record, first) && strstr(record, second))
			return true;
	}
}

#endif /* TEST_KMSG_H */
