// SPDX-License-Identifier: GPL-2.0-only
/*
 * A program that knows nothing of libforkgate, run with LD_PRELOAD: says
 * whether its calls of fork() go there. Must not be linked with the library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
	void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
	int status = 1;
	pid_t pid;

	if (!libc || dlsym(libc, "fork") == fork)
		return 1;
#ifdef VFORK
	if (dlsym(libc, "vfork") == vfork)
		return 2;
#endif
	pid = fork();
	if (!pid)
		_exit(0);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 3;
	return status;
}
