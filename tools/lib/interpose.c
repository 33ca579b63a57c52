// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * The C library's functions that fork, preparing if they have to
 *
 * In the shared library they have the names of the originals, without a symbol
 * version so that they stand in for every version. In the static one they are
 * called __wrap_NAME, and ld's --wrap=NAME puts them in place; they must be in
 * a file of their own, which a program without --wrap does not link.
 *
 * No original waits at the module's gate: it fails, and has undone what it did. Then
 * comes the wait, and then it is called again. The library's own gate waits before.
 *
 * Those that not every C library has are made where the library is built with
 * one that has them, and say ENOSYS where it then runs with one that has not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pty.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <utmp.h>

#include "internal.h"

#ifndef HAVE__FORK
#define HAVE__FORK		__GLIBC_PREREQ(2, 34)
#endif
#ifndef HAVE_PIDFD_SPAWN
#define HAVE_PIDFD_SPAWN	__GLIBC_PREREQ(2, 39)
#endif

#if HAVE_PIDFD_SPAWN
/* Their types are the same, with a descriptor in the place of the process. */
__typeof__(posix_spawn) pidfd_spawn;
__typeof__(posix_spawnp) pidfd_spawnp;
#endif

#ifdef FORKGATE_SHARED

#define ORIGINAL(name)	\
	((__typeof__(name) *)original(#name, &originals.name))
#define EXISTS(name)		(!!ORIGINAL(name))

static struct {
	void *fork;
	void *popen;
	void *posix_spawn;
	void *posix_spawnp;
#if HAVE__FORK
	void *_Fork;
#endif
#if HAVE_PIDFD_SPAWN
	void *pidfd_spawn;
	void *pidfd_spawnp;
#endif
} originals;

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

/* dlsym() may take locks; best before there are threads and signals */
static __attribute__((__constructor__)) void find_originals(void)
{
	ORIGINAL(fork);
	ORIGINAL(popen);
	ORIGINAL(posix_spawn);
	ORIGINAL(posix_spawnp);
#if HAVE__FORK
	ORIGINAL(_Fork);
#endif
#if HAVE_PIDFD_SPAWN
	ORIGINAL(pidfd_spawn);
	ORIGINAL(pidfd_spawnp);
#endif
}

#else

#define ORIGINAL(name)		__real_##name
#define EXISTS(name)		((void)ORIGINAL(name), true)

__typeof__(fork) __real_fork;
__typeof__(popen) __real_popen;
__typeof__(posix_spawn) __real_posix_spawn;
__typeof__(posix_spawnp) __real_posix_spawnp;
#if HAVE__FORK
__typeof__(_Fork) __real__Fork;
#endif
#if HAVE_PIDFD_SPAWN
__typeof__(pidfd_spawn) __real_pidfd_spawn;
__typeof__(pidfd_spawnp) __real_pidfd_spawnp;
#endif

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
#endif

/*
 * The C library's daemon() and forkpty() call their own fork(). They are made anew
 * of the one above, which can try again.
 */

FORKGATE_EXPORT int INTERPOSED(daemon)(int nochdir, int noclose)
{
	struct stat status;
	int fd, to, ignored;

	switch (__forkgate_fork_prepared(ORIGINAL(fork))) {
	case -1:
		return -1;
	case 0:
		break;
	default:
		_exit(0);
	}
	if (setsid() < 0)
		return -1;
	ignored = nochdir ? 0 : chdir("/");	/* as glibc does */
	(void)ignored;
	if (noclose)
		return 0;
	fd = open("/dev/null", O_RDWR);
	if (fd < 0)
		return -1;
	if (fstat(fd, &status) || status.st_rdev != makedev(1, 3)) {
		close(fd);
		errno = ENODEV;
		return -1;
	}
	for (to = STDIN_FILENO; to <= STDERR_FILENO; to++)
		dup2(fd, to);
	if (fd > STDERR_FILENO)
		close(fd);
	return 0;
}

FORKGATE_EXPORT int INTERPOSED(forkpty)(int *amaster, char *name,
					const struct termios *termp,
					const struct winsize *winp)
{
	int master, slave, err;
	pid_t pid;

	if (openpty(&master, &slave, name, termp, winp) < 0)
		return -1;
	pid = __forkgate_fork_prepared(ORIGINAL(fork));
	if (!pid) {
		close(master);
		if (login_tty(slave))
			_exit(1);
		return 0;
	}
	err = errno;
	close(slave);
	if (pid < 0)
		close(master);
	else
		*amaster = master;
	errno = err;
	return pid;
}

FORKGATE_EXPORT
int INTERPOSED(posix_spawn)(pid_t *pid, const char *path,
			    const posix_spawn_file_actions_t *actions,
			    const posix_spawnattr_t *attr,
			    char *const argv[], char *const envp[])
{
	return PREPARED(FORK_SPAWN, error,
			ORIGINAL(posix_spawn)(pid, path, actions, attr, argv,
					      envp),
			result);
}

FORKGATE_EXPORT
int INTERPOSED(posix_spawnp)(pid_t *pid, const char *file,
			     const posix_spawn_file_actions_t *actions,
			     const posix_spawnattr_t *attr,
			     char *const argv[], char *const envp[])
{
	return PREPARED(FORK_SPAWN, error,
			ORIGINAL(posix_spawnp)(pid, file, actions, attr, argv,
					       envp),
			result);
}

FORKGATE_EXPORT FILE *INTERPOSED(popen)(const char *command, const char *type)
{
	return PREPARED(FORK_SPAWN, (errno = error, NULL),
			ORIGINAL(popen)(command, type), !result);
}

#if HAVE__FORK
/*
 * The only one here that may be called in signal handlers, as prepare may. In a
 * static program it is also what libc's fork() calls, with its locks taken, and
 * must then not wait: the outer call tries, or has prepared.
 */
FORKGATE_EXPORT pid_t INTERPOSED(_Fork)(void)
{
	if (!EXISTS(_Fork)) {
		errno = ENOSYS;
		return -1;
	}
#ifndef FORKGATE_SHARED
	if (__forkgate_forking)
		return ORIGINAL(_Fork)();
#endif
	return PREPARED(FORK_BARE, (errno = error, -1), ORIGINAL(_Fork)(),
			result < 0);
}
#endif

#if HAVE_PIDFD_SPAWN
FORKGATE_EXPORT
int INTERPOSED(pidfd_spawn)(int *fd, const char *path,
			    const posix_spawn_file_actions_t *actions,
			    const posix_spawnattr_t *attr,
			    char *const argv[], char *const envp[])
{
	if (!EXISTS(pidfd_spawn))
		return ENOSYS;
	return PREPARED(FORK_SPAWN, error,
			ORIGINAL(pidfd_spawn)(fd, path, actions, attr, argv,
					      envp),
			result);
}

FORKGATE_EXPORT
int INTERPOSED(pidfd_spawnp)(int *fd, const char *file,
			     const posix_spawn_file_actions_t *actions,
			     const posix_spawnattr_t *attr,
			     char *const argv[], char *const envp[])
{
	if (!EXISTS(pidfd_spawnp))
		return ENOSYS;
	return PREPARED(FORK_SPAWN, error,
			ORIGINAL(pidfd_spawnp)(fd, file, actions, attr, argv,
					       envp),
			result);
}
#endif
