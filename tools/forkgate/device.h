/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * device.h - the device as the library finds it, and what to do if it does not
 */
#ifndef FORKGATE_DEVICE_H
#define FORKGATE_DEVICE_H

#include "../lib/device-internal.h"

#define DEVICE_LOCKDOWN	"/sys/kernel/security/lockdown"
#define DEVICE_RELOAD	"As root, when no process uses it: modprobe -r forkgate && modprobe forkgate"

/**
 * struct trouble - why there is no gate of the module
 * @what: is wrong, one line
 * @cure: what to do about it, one line
 * @loaded: the module may be
 * @too_old: it is, for this release
 */
struct trouble {
	char what[256];
	char cure[256];
	bool loaded;
	bool too_old;
};

/**
 * device_open - open the device and map it
 * @device: the result
 * @trouble: set if it cannot be used
 *
 * Return: whether programs that run here get the module's gate.
 */
bool device_open(struct forkgate_device *device, struct trouble *trouble);

/**
 * device_find_module - is the module loaded?
 * @number: then the device's, "10:123"
 *
 * Return: 1, 0, or -1 if neither /proc nor /sys tells.
 */
int device_find_module(char number[32]);

/**
 * device_not_loaded - is the module known not to be loaded?
 * @trouble: then says why, as device_open() does
 */
bool device_not_loaded(struct trouble *trouble);

/* device_contained - is this a place for no modules, where /lib/modules is not the kernel's? */
bool device_contained(void);

#endif /* FORKGATE_DEVICE_H */
