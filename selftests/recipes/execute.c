// SPDX-License-Identifier: GPL-2.0-only
/*
 * Recipe of forkgate-guide(7): a program that is written and then executed, while
 * another thread forks. Without the section that fails with ETXTBSY. The child
 * must not execute anything: it keeps its copies of the descriptors until it is
 * told.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <string.h>
#include <unistd.h>

#include <forkgate.h>

#include "scene.h"

static char path[32] = "/tmp/recipe-XXXXXX";
static sem_t executed;

static bool write_program(int fd)
{
	static const char text[] = "#!/bin/sh\nexit 0\n";

	stop_half_way();
	return write(fd, text, sizeof(text) - 1) == sizeof(text) - 1;
}

/* guide: begin */
int build_and_run(const char *path, char *const argv[], pid_t *pid)
{
	bool ok = false;
	int fd;

	forkgate_enter(FORKGATE_FILES);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	if (fd >= 0) {
		ok = write_program(fd);
		close(fd);
	}
	forkgate_leave(FORKGATE_FILES);
	if (!ok)
		return EIO;
	return posix_spawn(pid, path, NULL, NULL, argv, environ);
}

/* guide: end */

static void *builder(void *arg)
{
	char *const argv[] = { path, NULL };
	static int result;
	pid_t pid;

	result = build_and_run(path, argv, &pid);
	sem_post(&executed);
	if (!result)
		need(!outcome(pid), path);
	return &result;
}

int main(void)
{
	pthread_t thread;
	void *result;
	int hold[2];
	char byte;
	pid_t pid;

	set_scene();
	need(!sem_init(&executed, 0, 0) && !pipe(hold), "pipe");
	/* a name that is free */
	need(mkstemp(path) >= 0 && !unlink(path), path);

	need(!pthread_create(&thread, NULL, builder, NULL), "thread");
	need(wait_for(&half_way, LONG), "program");
	pid = fork();
	if (!pid) {
		close(hold[1]);
		_exit(read(hold[0], &byte, 1) ? TROUBLE : 0);
	}
	sem_post(&forked);
	need(wait_for(&executed, LONG), "execution");
	close(hold[1]);
	need(!outcome(pid) && !pthread_join(thread, &result), "thread");
	unlink(path);
	printf("# executed: %s\n", strerror(*(int *)result));
	if (*(int *)result == ETXTBSY)
		return BROKEN;
	return *(int *)result ? TROUBLE : HOLDS;
}
