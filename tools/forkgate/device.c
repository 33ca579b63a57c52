// SPDX-License-Identifier: GPL-2.0-only
/*
 * device.c - why the module's gate cannot be used here, and what to do about it
 *
 * For all subcommands, which therefore agree. The library's own code asks; this
 * finds words for the answer, and looks where it runs only as far as the advice
 * depends on that. Must not change anything.
 */
#include <errno.h>
#include <glob.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cmd.h"
#include "device.h"

#define MISC_MAJOR	10
#define PAGE		"forkgate-containers(7)"
#define LOAD		"Load it, as root: modprobe forkgate."
#define DMESG		"If that fails, dmesg has the reason."

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

/*
 * The module, where it is not loaded
 */

/* What modinfo(8) says of a file, up to a character of @end; to be freed. NULL if nothing. */
static char *module_info(const char *path, const char *field, const char *end)
{
	char *command, *text = NULL;
	size_t size = 0;
	ssize_t length;
	FILE *pipe;

	/* It is not in the path of users. */
	if (asprintf(&command, "PATH=$PATH:/usr/sbin:/sbin modinfo -F %s '%s' 2>/dev/null",
		     field, path) < 0)
		return NULL;
	pipe = popen(command, "re");
	free(command);
	if (!pipe)
		return NULL;
	length = getline(&text, &size, pipe);
	pclose(pipe);
	if (length > 0)
		text[strcspn(text, end)] = '\0';
	if (length > 0 && *text)
		return text;
	free(text);
	return NULL;
}

/* Return: what to do where there is no module for a kernel; a static buffer */
static const char *how_to_install(const char *release)
{
	static char text[256];
	unsigned int major, minor;
	struct stat status;
	char path[256];
	glob_t found;

	if (sscanf(release, "%u.%u", &major, &minor) == 2 &&
	    (major < 5 || (major == 5 && minor < 10)))
		return "forkgate needs Linux 5.10 or later.";
	if (glob("/usr/src/forkgate-*/dkms.conf", 0, NULL, &found))
		return "As root, install forkgate-dkms, or make install in the source tree; "
		       "then modprobe forkgate.";
	globfree(&found);

	snprintf(path, sizeof(path), "/lib/modules/%s/build", release);
	if (stat(path, &status)) {
		snprintf(text, sizeof(text),
			 "For dkms, install the headers of this kernel: linux-headers-%s", release);
	} else if (!glob("/var/lib/dkms/forkgate/*/build/make.log", 0, NULL, &found)) {
		snprintf(text, sizeof(text),
			 "dkms could not build it, see %s. Then, as root: dkms autoinstall",
			 found.gl_pathv[0]);
		globfree(&found);
	} else {
		return "As root: dpkg-reconfigure forkgate-dkms";
	}
	return text;
}

/* Where "make install", DKMS and a kernel's own build put it. Return: to be freed, or NULL. */
static char *find_file(const char *release)
{
	char pattern[256], *path;
	glob_t found;

	snprintf(pattern, sizeof(pattern),
		 "/lib/modules/%s/{updates,updates/dkms,extra,kernel/*/*/*}/forkgate.ko*", release);
	if (glob(pattern, GLOB_BRACE, NULL, &found))
		return NULL;
	path = strdup(found.gl_pathv[0]);
	globfree(&found);
	return path;
}

static bool wants_signature(void)
{
	return cmd_contains("/sys/module/module/parameters/sig_enforce", "Y") ||
	       cmd_contains(DEVICE_LOCKDOWN, "[integrity]") ||
	       cmd_contains(DEVICE_LOCKDOWN, "[confidentiality]");
}

/* One trouble: what keeps it from being loaded, if that is known */
static void not_loaded(struct trouble *trouble, const char *more)
{
	char *path, *built_for, *signature = NULL, *signer = NULL;
	bool signed_only = wants_signature();
	struct utsname kernel;

	what(trouble, "module: not loaded%s", more);
	if (device_contained() || uname(&kernel)) {
		cure(trouble, "On the host, as root: modprobe forkgate. " DMESG);
		return;
	}
	path = find_file(kernel.release);
	if (!path) {
		what(trouble, "module: not installed for kernel %s%s", kernel.release, more);
		cure(trouble, how_to_install(kernel.release));
		return;
	}
	built_for = module_info(path, "vermagic", "\n ");
	if (signed_only) {
		signature = module_info(path, "sig_id", "\n");
		signer = module_info(path, "signer", "\n");	/* may have no name */
	}
	if (built_for && strcmp(built_for, kernel.release)) {
		what(trouble, "module: %s is for kernel %s, and this is %s", path, built_for,
		     kernel.release);
		cure(trouble, "Build it for this one: forkgate-install(7), WHEN IT DOES NOT WORK.");
	} else if (signed_only && !signature) {
		what(trouble, "module: %s is not signed, as this kernel wants it", path);
		cure(trouble, "Sign it: forkgate-install(7), SECURE BOOT.");
	} else if (signature) {
		snprintf(trouble->cure, sizeof(trouble->cure),
			 LOAD " The kernel has to know the key \"%s\": forkgate-install(7)",
			 signer ?: signature);
	} else {
		cure(trouble, LOAD " " DMESG);
	}
	free(signer);
	free(signature);
	free(built_for);
	free(path);
}

bool device_not_loaded(struct trouble *trouble)
{
	char number[32];

	if (device_find_module(number))
		return false;
	not_loaded(trouble, "");
	return true;
}

/*
 * The device
 */

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
