// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * The C library's functions that fork, preparing first
 *
 * In the shared library they have the names of the originals, without a symbol
 * version so that they stand in for every version. In the static one they are
 * called __wrap_NAME, and ld's --wrap=NAME puts them in place; they must be in
 * a file of their own, which a program without --wrap does not link.
 *
 * Each waits before the original has done anything. An original that fails has
 * undone what it did, so it can be called again when its ticket had expired.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pty.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#ifdef FORKGATE_SHARED

#define INTERPOSED(name)	name
#define ORIGINAL(name)	\
	((__typeof__(name) *)original(#name, &name##_original))

static void *daemon_original;
static void *fork_original;
static void *forkpty_original;
static void *popen_original;
static void *posix_spawn_original;
static void *posix_spawnp_original;
static void *system_original;

/* Not in the constructor alone: another one may fork before it has run. */
static void *original(const char *name, void **cache)
{
	void *found = __atomic_load_n(cache, __ATOMIC_RELAXED);

	if (!found) {
		found = dlsym(RTLD_NEXT, name);
		__atomic_store_n(cache, found, __ATOMIC_RELAXED);
	}
	return found;
}

#else

#define INTERPOSED(name)	__wrap_##name
#define ORIGINAL(name)		__real_##name

__typeof__(daemon) __real_daemon;
__typeof__(fork) __real_fork;
__typeof__(forkpty) __real_forkpty;
__typeof__(popen) __real_popen;
__typeof__(posix_spawn) __real_posix_spawn;
__typeof__(posix_spawnp) __real_posix_spawnp;
__typeof__(system) __real_system;

#endif

FORKGATE_EXPORT pid_t INTERPOSED(fork)(void)
{
	return __forkgate_fork_prepared(ORIGINAL(fork));
}

#ifdef FORKGATE_SHARED
FORKGATE_EXPORT pid_t forkgate_fork(void)
{
	return __forkgate_fork_prepared(ORIGINAL(fork));
}

/* dlsym() may take locks; best before there are threads and signals */
static __attribute__((__constructor__)) void find_originals(void)
{
	ORIGINAL(daemon);
	ORIGINAL(fork);
	ORIGINAL(forkpty);
	ORIGINAL(popen);
	ORIGINAL(posix_spawn);
	ORIGINAL(posix_spawnp);
	ORIGINAL(system);
}
#endif

FORKGATE_EXPORT int INTERPOSED(daemon)(int nochdir, int noclose)
{
	struct fork_attempt attempt = { .domains = FORKGATE_DOMAINS };
	bool outer;
	int ret;

	do {
		ret = __forkgate_fork_begin(&attempt);
		if (ret) {
			errno = ret;
			return -1;
		}
		outer = __forkgate_fork_in_call(true);
		ret = ORIGINAL(daemon)(nochdir, noclose);
		__forkgate_fork_in_call(outer);
	} while (ret < 0 && __forkgate_fork_failed(&attempt));
	return ret;
}

FORKGATE_EXPORT int INTERPOSED(forkpty)(int *amaster, char *name,
					const struct termios *termp,
					const struct winsize *winp)
{
	struct fork_attempt attempt = { .domains = FORKGATE_DOMAINS };
	bool outer;
	pid_t pid;

	do {
		pid = __forkgate_fork_begin(&attempt);
		if (pid) {
			errno = pid;
			return -1;
		}
		outer = __forkgate_fork_in_call(true);
		pid = ORIGINAL(forkpty)(amaster, name, termp, winp);
		__forkgate_fork_in_call(outer);
	} while (pid < 0 && __forkgate_fork_failed(&attempt));
	return pid;
}

FORKGATE_EXPORT
int INTERPOSED(posix_spawn)(pid_t *pid, const char *path,
			    const posix_spawn_file_actions_t *actions,
			    const posix_spawnattr_t *attr,
			    char *const argv[], char *const envp[])
{
	struct fork_attempt attempt = { .domains = FORKGATE_FILES };
	int err;

	do {
		err = __forkgate_fork_begin(&attempt);
		if (err)
			return err;
		err = ORIGINAL(posix_spawn)(pid, path, actions, attr, argv,
					    envp);
	} while (err && __forkgate_fork_failed(&attempt));
	return err;
}

FORKGATE_EXPORT
int INTERPOSED(posix_spawnp)(pid_t *pid, const char *file,
			     const posix_spawn_file_actions_t *actions,
			     const posix_spawnattr_t *attr,
			     char *const argv[], char *const envp[])
{
	struct fork_attempt attempt = { .domains = FORKGATE_FILES };
	int err;

	do {
		err = __forkgate_fork_begin(&attempt);
		if (err)
			return err;
		err = ORIGINAL(posix_spawnp)(pid, file, actions, attr, argv,
					     envp);
	} while (err && __forkgate_fork_failed(&attempt));
	return err;
}

FORKGATE_EXPORT FILE *INTERPOSED(popen)(const char *command, const char *type)
{
	struct fork_attempt attempt = { .domains = FORKGATE_FILES };
	FILE *file;
	int err;

	do {
		err = __forkgate_fork_begin(&attempt);
		if (err) {
			errno = err;
			return NULL;
		}
		file = ORIGINAL(popen)(command, type);
	} while (!file && __forkgate_fork_failed(&attempt));
	return file;
}

/*
 * glibc says that it could not fork by errno alone, next to the status of a
 * command that was not found.
 */
FORKGATE_EXPORT int INTERPOSED(system)(const char *command)
{
	struct fork_attempt attempt = { .domains = FORKGATE_FILES };
	int old_errno = errno;
	int status;

	do {
		status = __forkgate_fork_begin(&attempt);
		if (status) {
			errno = status;
			return -1;
		}
		errno = 0;
		status = ORIGINAL(system)(command);
	} while (errno == EAGAIN && __forkgate_fork_failed(&attempt));
	if (!errno)
		errno = old_errno;
	return status;
}
