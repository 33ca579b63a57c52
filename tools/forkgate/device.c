// SPDX-License-Identifier: GPL-2.0-only
/*
 * device.c - why the module's gate cannot be used here, and what to do about it
 *
 * For "check" and "run", which therefore agree. The library's own code asks; this
 * finds words for the answer, and looks where it runs only as far as the advice
 * depends on that. Must not change anything.
 */
#include <errno.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "cmd.h"
#include "device.h"

#define MISC_MAJOR	10
#define PAGE		"forkgate-containers(7)"

/* What hands the device to a container, by what made it; %s is the device's number. */
static const struct manager {
	const char *name;	/* in $container, or where systemd keeps that */
	const char *mark;	/* otherwise: a file that it makes, or a variable it sets */
	const char *cure;
} managers[] = {
	{ "kubernetes", "KUBERNETES_SERVICE_HOST",
	  "Hand it to the pod by a device plug-in, see " PAGE "." },
	{ "podman", "/run/.containerenv", "podman run --device /dev/forkgate ..." },
	{ "docker", "/.dockerenv", "docker run --device /dev/forkgate ..." },
	{ "systemd-nspawn", "/run/host/container-manager",
	  "systemd-nspawn --bind=/dev/forkgate --property='DeviceAllow=/dev/forkgate rw' ..." },
	{ "lxc", "/dev/.lxc-boot-id",
	  "lxc.cgroup2.devices.allow = c %s rw, and an lxc.mount.entry, see " PAGE "." },
};

/* The first word of a file, to be freed, or NULL */
static char *word(const char *path)
{
	char *text = cmd_read(path);

	if (text)
		text[strcspn(text, "\n ")] = '\0';
	return text;
}

/* Marks of containers alone do not tell: they stay in file systems that machines are made of. */
bool device_contained(void)
{
	char *users = cmd_read("/proc/self/uid_map");
	bool mapped = users && !strstr(users, " 4294967295\n");

	free(users);
	return mapped || !prctl(PR_CAPBSET_READ, CAP_SYS_MODULE);
}

/*
 * Return: what made the container that this runs in, if it is known. Images may set
 * $container, too, to a name that says nothing.
 */
static const struct manager *find_manager(void)
{
	char *kept = word("/run/systemd/container");
	const char *name = getenv("container") ?: kept ?: "";
	const struct manager *found = NULL;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(managers) && !found; i++)
		if (!strcmp(name, managers[i].name))
			found = &managers[i];
	for (i = 0; i < ARRAY_SIZE(managers) && !found; i++)
		if (*managers[i].mark == '/' ? !access(managers[i].mark, F_OK) :
					       !!getenv(managers[i].mark))
			found = &managers[i];
	free(kept);
	return device_contained() ? found : NULL;
}

/* sysfs and procfs both know, and one may be missing. */
int device_find_module(char number[32])
{
	char *text = word("/sys/class/misc/forkgate/dev"), *name;
	int loaded;

	if (text) {
		snprintf(number, 32, "%s", text);
		free(text);
		return 1;
	}
	text = cmd_read("/proc/misc");
	if (!text)
		return access("/sys/class/misc", F_OK) ? -1 : 0;
	name = strstr(text, " forkgate\n");
	loaded = !!name;
	if (name) {
		*name = '\0';
		name = strrchr(text, '\n');
		snprintf(number, 32, "%d:%d", MISC_MAJOR, atoi(name ? name : text));
	}
	free(text);
	return loaded;
}

static void __attribute__((format(printf, 2, 3))) what(struct trouble *trouble,
						       const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(trouble->what, sizeof(trouble->what), format, args);
	va_end(args);
}

static void cure(struct trouble *trouble, const char *text)
{
	snprintf(trouble->cure, sizeof(trouble->cure), "%s", text);
}

/* @otherwise: outside of containers that are known */
static void hand_over(struct trouble *trouble, const char *number, const char *otherwise)
{
	const struct manager *manager = find_manager();
	const char *text = manager ? manager->cure : otherwise;
	const char *place = strstr(text, "%s");

	if (place)
		snprintf(trouble->cure, sizeof(trouble->cure), "%.*s%s%s", (int)(place - text),
			 text, number, place + 2);
	else
		cure(trouble, text);
}

static void not_loaded(struct trouble *trouble, const char *more)
{
	what(trouble, "module: not loaded%s", more);
	cure(trouble, device_contained() ?
	     "On the host, as root: modprobe forkgate. If that fails, dmesg has the reason." :
	     "Load it, as root: modprobe forkgate. If that fails, dmesg has the reason.");
}

static void no_node(struct trouble *trouble, int loaded, const char *number)
{
	if (!loaded) {
		not_loaded(trouble, "");
		return;
	}
	what(trouble, loaded > 0 ?
	     "device: the module is loaded, but this /dev has no forkgate" :
	     "device: no /dev/forkgate; without /proc and /sys the module cannot be seen either");
	hand_over(trouble, number,
		  "Bind the host's to it, see " PAGE ". On the host: is /dev a devtmpfs?");
}

/* A node of no device, or of another one: it has the number of a module that has gone. */
static void wrong_node(struct trouble *trouble, int loaded, const char *number)
{
	struct stat status;
	char found[32];

	if (stat(FORKGATE_DEVICE, &status) || !S_ISCHR(status.st_mode)) {
		what(trouble, "device: /dev/forkgate is no device");
		cure(trouble, "Remove it on the host, load the module anew, hand it over again.");
		return;
	}
	if (!loaded) {
		not_loaded(trouble, "; /dev/forkgate is left from an earlier time");
		return;
	}
	snprintf(found, sizeof(found), "%u:%u", major(status.st_rdev), minor(status.st_rdev));
	if (loaded > 0 && !strcmp(found, number)) {
		trouble->too_old = true;
		what(trouble, "module: too old, it does not know the calls of this release");
		cure(trouble, "Install the module of this release. " DEVICE_RELOAD);
	} else {
		what(trouble, "device: /dev/forkgate is %s, and the module's %s%s", found,
		     loaded > 0 ? "is " : "cannot be seen", loaded > 0 ? number : "");
		cure(trouble, "The module was loaded anew: start the container again.");
	}
}

static void not_permitted(struct trouble *trouble)
{
	char *label = cmd_read("/proc/self/attr/current");
	struct statvfs mount;
	struct stat status;

	if (label)
		label[strcspn(label, "\n")] = '\0';
	what(trouble, "device: /dev/forkgate: %s", strerror(EACCES));
	if (!statvfs(FORKGATE_DEVICE, &mount) && (mount.f_flag & ST_NODEV)) {
		cure(trouble, "Its file system is mounted nodev: bind the host's there.");
	} else if (stat(FORKGATE_DEVICE, &status) || (status.st_mode & 0666) != 0666) {
		cure(trouble, "Its mode should be 0666, which is safe: install 60-forkgate.rules.");
	} else if (label && strchr(label, ':')) {
		what(trouble, "device: SELinux (%s) forbids /dev/forkgate", label);
		cure(trouble, "For containers: setsebool -P container_use_devices on");
	} else if (label && strchr(label, '(')) {
		what(trouble, "device: AppArmor (%s) forbids /dev/forkgate", label);
		cure(trouble, "Add this line to the profile: /dev/forkgate rw,");
	} else {
		what(trouble, "device: a security module (Landlock?) forbids /dev/forkgate");
		cure(trouble, "Allow to read and write it, and its ioctls.");
	}
	free(label);
}

static void filtered(struct trouble *trouble, const char *call, int error)
{
	bool module = error == EACCES;

	what(trouble, "device: a %s forbids %s: %s", module ?
	     "security module (Landlock, SELinux)" : "filter of system calls (seccomp)", call,
	     strerror(error));
	cure(trouble, module ? "Allow the ioctls of /dev/forkgate." :
	     "Allow ioctl and msync; in a unit of systemd: SystemCallFilter=ioctl msync");
}

static void not_opened(struct trouble *trouble, int error, int loaded, const char *number)
{
	switch (error) {
	case ENOENT:
		no_node(trouble, loaded, number);
		break;
	case ENXIO:
	case ENODEV:
	case EISDIR:
		wrong_node(trouble, loaded, number);
		break;
	case EPERM:
		what(trouble, "device: a device cgroup forbids /dev/forkgate: %s",
		     strerror(error));
		hand_over(trouble, number,
			  "In a unit: DeviceAllow=/dev/forkgate rw. Otherwise see " PAGE ".");
		break;
	case EACCES:
		not_permitted(trouble);
		break;
	default:
		what(trouble, "device: /dev/forkgate: %s", strerror(error));
		cure(trouble, "Are there enough descriptors and memory?");
	}
}

bool device_open(struct forkgate_device *device, struct trouble *trouble)
{
	enum forkgate_obstacle obstacle = forkgate_open_device(device);
	char number[32] = "10:N";
	int loaded;

	if (obstacle == FORKGATE_NO_OBSTACLE)
		return true;
	loaded = device_find_module(number);
	trouble->loaded = loaded;
	trouble->too_old = false;
	if (obstacle == FORKGATE_NOT_OPENED) {
		not_opened(trouble, device->error, loaded, number);
	} else if (obstacle == FORKGATE_NO_IOCTL &&
		   (device->error == ENOTTY || device->error == EINVAL)) {
		wrong_node(trouble, loaded, number);
	} else if (obstacle == FORKGATE_NOT_SPOKEN) {
		trouble->too_old = device->query.abi < FORKGATE_ABI;
		what(trouble, "module: too %s (version %u of the interface, this release has %u)",
		     trouble->too_old ? "old" : "new", device->query.abi, FORKGATE_ABI);
		cure(trouble, trouble->too_old ?
		     "Install the module of this release. " DEVICE_RELOAD :
		     "Install library and command of the module's release.");
	} else if (obstacle == FORKGATE_NOT_MAPPED) {
		what(trouble, "device: /dev/forkgate cannot be mapped: %s",
		     strerror(device->error));
		cure(trouble, "Is there enough memory (ulimit -v, the memory cgroup)?");
	} else {
		filtered(trouble, obstacle == FORKGATE_NO_IOCTL ? "ioctl" : "msync",
			 device->error);
	}
	return false;
}
