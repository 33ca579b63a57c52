/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * device-internal.h - opening the device, and whether this release can use it
 *
 * The library does this, and the command, which says what is wrong: they agree because
 * the question is here alone. Must not be installed.
 */
#ifndef _FORKGATE_DEVICE_INTERNAL_H
#define _FORKGATE_DEVICE_INTERNAL_H

#include <fcntl.h>
#include <sys/mman.h>

#include "internal.h"

#define FORKGATE_DEVICE	"/dev/forkgate"

/* What cannot be done with the device, in the order that it is tried in */
enum forkgate_obstacle {
	FORKGATE_NOT_OPENED,
	FORKGATE_NO_IOCTL,	/* another device, or a filter of system calls */
	FORKGATE_NOT_SPOKEN,	/* a module of a version that this release does not know */
	FORKGATE_NOT_MAPPED,
	FORKGATE_NO_MSYNC,	/* a filter: calls would fail once the descriptor is closed */
	FORKGATE_NO_OBSTACLE,
};

/**
 * struct forkgate_device - the device, or why it cannot be used
 * @fd: its descriptor
 * @map: its mapping, of FORKGATE_MAP_SIZE bytes
 * @error: of the call that has failed
 * @query: what the module says of itself, unless FORKGATE_NO_IOCTL or before
 */
struct forkgate_device {
	int fd;
	char *map;
	int error;
	struct forkgate_query query;
};

/* A newer module serves this release as long as what is compiled in stays the same. */
static inline bool forkgate_speaks(const struct forkgate_query *query)
{
	return query->abi >= FORKGATE_ABI && query->slot_size == FORKGATE_SLOT_SIZE &&
	       query->map_size <= FORKGATE_MAP_SIZE &&
	       (query->features & FORKGATE_FEATURE_MSYNC);
}

static inline enum forkgate_obstacle forkgate_try_device(struct forkgate_device *device)
{
	struct forkgate_query *query = &device->query;
	int old_errno = errno;
	long result;

	result = raw_call(SYS_ioctl, device->fd, FORKGATE_IOC_QUERY, query);
	device->error = -result;
	if (result < 0)
		return FORKGATE_NO_IOCTL;
	if (!forkgate_speaks(query))
		return FORKGATE_NOT_SPOKEN;

	device->map = mmap(NULL, FORKGATE_MAP_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   device->fd, 0);
	if (device->map == MAP_FAILED) {
		device->error = errno;
		errno = old_errno;
		return FORKGATE_NOT_MAPPED;
	}

	result = raw_call(SYS_msync, device->map, (long)FORKGATE_UNIT_SIZE, (long)MS_SYNC,
			  FORKGATE_IOC_QUERY, query);
	device->error = -result;
	if (result < 0) {
		munmap(device->map, FORKGATE_MAP_SIZE);
		return FORKGATE_NO_MSYNC;
	}
	return FORKGATE_NO_OBSTACLE;
}

/**
 * forkgate_open_device() - open the device and map it
 * @device: the result; nothing is left open unless there is no obstacle
 *
 * Return: what is in the way.
 *
 * Context: async-signal-safe; errno is left alone.
 */
static inline enum forkgate_obstacle forkgate_open_device(struct forkgate_device *device)
{
	enum forkgate_obstacle obstacle;

	*device = (struct forkgate_device){ 0 };
	device->fd = raw_call(SYS_openat, AT_FDCWD, FORKGATE_DEVICE, O_RDWR | O_CLOEXEC);
	if (device->fd < 0) {
		device->error = -device->fd;
		return FORKGATE_NOT_OPENED;
	}
	obstacle = forkgate_try_device(device);
	if (obstacle != FORKGATE_NO_OBSTACLE)
		raw_call(SYS_close, device->fd);
	return obstacle;
}

#endif /* _FORKGATE_DEVICE_INTERNAL_H */
