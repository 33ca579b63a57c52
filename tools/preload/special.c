// SPDX-License-Identifier: GPL-2.0-only
/*
 * special.c - what tools/preload/generate cannot make
 *
 * dlopen() and dlmopen() look at who called them: they search the run path of
 * the object that contains the return address, and expand $ORIGIN for it. Where
 * that matters the original must be called as if by the caller, by a jump, and
 * there can be no section. sem_open() takes more arguments, or does not. popen()
 * and pclose() take a lock, and then the first forks and the other waits for a
 * command.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "section.h"

static bool has_run_path(void *caller)
{
	const ElfW(Dyn) * entry;
	struct link_map *object;
	Dl_info info;

	if (!dladdr1(caller, &info, (void **)&object, RTLD_DL_LINKMAP))
		return true;
	for (entry = object->l_ld; entry && entry->d_tag != DT_NULL; entry++)
		if (entry->d_tag == DT_RUNPATH || entry->d_tag == DT_RPATH)
			return true;
	return false;
}

static bool caller_matters(const char *file, void *caller)
{
	if (!file || !*file)
		return false;
	return strchr(file, '$') || (!strchr(file, '/') && has_run_path(caller));
}

EXPORT void *dlopen(const char *file, int mode)
{
	/* a jump: both have the same parameters and nothing is left to do */
	if (caller_matters(file, __builtin_return_address(0)))
		return REAL(dlopen)(file, mode);

	IN_SECTION(section_domains);
	return REAL(dlopen)(file, mode);
}

EXPORT void *dlmopen(Lmid_t space, const char *file, int mode)
{
	if (caller_matters(file, __builtin_return_address(0)))
		return REAL(dlmopen)(space, file, mode);

	IN_SECTION(section_domains);
	return REAL(dlmopen)(space, file, mode);
}

EXPORT sem_t *sem_open(const char *name, int flags, ...)
{
	IN_SECTION(section_domains);
	unsigned int value;
	mode_t mode;
	va_list list;

	if (!(flags & O_CREAT))
		return REAL(sem_open)(name, flags);
	va_start(list, flags);
	mode = va_arg(list, mode_t);
	value = va_arg(list, unsigned int);
	va_end(list);
	return REAL(sem_open)(name, flags, mode, value);
}

/*
 * The C library's own popen(), not libforkgate's: that takes a ticket if it has
 * to wait, and would hold it while it waits for the lock that another thread holds while
 * its fork waits for the ticket. A fork that has not prepared waits in the kernel
 * for files sections only, and this section is none. The library's own gate, which
 * knows no QUERY, sees only forks that prepare; there that is before the lock.
 */
static FILE *(*libc_popen)(const char *command, const char *type);

static __attribute__((__constructor__)) void find_popen(void)
{
	void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
	struct forkgate_query query = {};

	if (libc && !__forkgate_call(FORKGATE_IOC_QUERY, &query))
		libc_popen = dlsym(libc, "popen");
}

EXPORT FILE *popen(const char *command, const char *type)
{
	IN_SECTION(FORKGATE_MEMORY);

	return libc_popen ? libc_popen(command, type) : REAL(popen)(command, type);
}

/* glibc's layout: behind the stream and the pointer to its functions */
struct command {
	FILE stream;
	const void *functions;
	pid_t pid;
};

/*
 * Close the pipe, so that the command sees its end, and wait for the command
 * without taking notice of it. It is not worth an error if that does not work.
 */
static void wait_for_command(FILE *stream)
{
	pid_t pid = ((struct command *)stream)->pid;
	int null, old_errno = errno;
	siginfo_t info;

	if (pid <= 0 || waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT))
		goto out;
	fflush(stream);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0)
		goto out;
	if (dup3(null, fileno(stream), O_CLOEXEC) >= 0)
		while (waitid(P_PID, pid, &info, WEXITED | WNOWAIT) && errno == EINTR)
			;
	close(null);
out:
	errno = old_errno;
}

EXPORT int pclose(FILE *stream)
{
	wait_for_command(stream);

	IN_SECTION(FORKGATE_MEMORY);
	return REAL(pclose)(stream);
}
