// SPDX-License-Identifier: GPL-2.0-only
/*
 * Recipe of forkgate-guide(7): a daemon whose libraries have threads before it
 * becomes one. Their locks are free in it; without the section one never will
 * be. The process must not be the one that judges: daemon() ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include <forkgate.h>

#include "scene.h"

struct configuration {
	char text[64];
};

static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;
static int said[2];

/* A thread that a library has started when it was loaded */
static void *library_thread(void *arg)
{
	forkgate_enter(FORKGATE_MEMORY);
	pthread_mutex_lock(&library_lock);
	stop_half_way();
	pthread_mutex_unlock(&library_lock);
	forkgate_leave(FORKGATE_MEMORY);
	return arg;
}

static int configure(struct configuration *configuration, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		return -1;
	length = read(fd, configuration->text, sizeof(configuration->text));
	close(fd);
	return length > 0 ? 0 : -1;
}

/* A thread of the daemon, which uses the library */
static void *service(void *arg)
{
	char result = pthread_mutex_trylock(&library_lock) ? BROKEN : HOLDS;

	if (write(said[1], &result, 1) != 1)
		_exit(TROUBLE);
	return arg;
}

static int start_threads(const struct configuration *configuration)
{
	pthread_t thread;

	need(strlen(configuration->text), "configuration");
	return pthread_create(&thread, NULL, service, NULL) || pthread_join(thread, NULL) ? -1 : 0;
}

/* guide: begin */
int start_up(const char *path)
{
	struct configuration configuration;

	if (configure(&configuration, path))
		return -1;
	if (daemon(0, 0))
		return -1;
	return start_threads(&configuration);
}

/* guide: end */

int main(void)
{
	pthread_t thread;
	char result;
	pid_t pid;

	need(!pipe(said), "pipe");
	pid = fork();
	if (!pid) {
		close(said[0]);
		set_scene();
		need(!pthread_create(&thread, NULL, library_thread, NULL), "thread");
		need(wait_for(&half_way, LONG), "library");
		_exit(start_up("/proc/self/comm") ? TROUBLE : 0);
	}
	close(said[1]);
	need(!outcome(pid), "start");
	need(read(said[0], &result, 1) == 1, "daemon");
	printf("# the library's lock is %s in the daemon\n", result == HOLDS ? "free" : "taken");
	return result;
}
