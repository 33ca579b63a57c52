/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * gate.h - a gate without the library, for programs that measure the module
 *
 * The library sets itself up before main(), in every process that is linked with
 * it; what these programs make must be all that they measure.
 */
#ifndef BENCH_GATE_H
#define BENCH_GATE_H

#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/forkgate.h>

/* Where there is nothing else: the page tables of what lies here are its own. */
#define GATE_ADDRESS	((void *)0x200000000000)

/* map_shared - map so much of a file as a gate takes, and its first page */
static inline int map_shared(const char *file, int protection)
{
	int fd = open(file, O_RDWR | O_CLOEXEC);
	volatile char *map;

	if (fd < 0)
		error(2, errno, "%s", file);
	map = mmap(GATE_ADDRESS, FORKGATE_MAP_SIZE, protection,
		   MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
	if (map != GATE_ADDRESS)
		error(2, errno, "mmap %s", file);
	(void)map[0];
	return fd;
}

/* gate_register - give the calling thread a slot, and touch that */
static inline void gate_register(int fd)
{
	struct forkgate_register slot = { .flags = 0 };

	if (ioctl(fd, FORKGATE_IOC_REGISTER, &slot))
		error(2, errno, "FORKGATE_IOC_REGISTER");
	(void)((volatile struct forkgate_slot *)((char *)GATE_ADDRESS + slot.offset))->tid;
}

#endif /* BENCH_GATE_H */
