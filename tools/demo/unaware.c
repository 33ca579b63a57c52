// SPDX-License-Identifier: GPL-2.0-only
/*
 * unaware - programs that know nothing of forkgate
 *
 * usage: unaware FUNCTION FORKS
 *
 * Threads call one function of the C library while the first one forks, and each
 * child calls it too. Prints how many children hung, and of how many.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define WORKERS		3
#define MAX_BAD		20	/* that are enough to see */
#define MAX_CHILDREN	20	/* at a time */
#define HUNG_SECONDS	10

static void call_localtime_r(void)
{
	time_t now = time(NULL);
	struct tm tm;

	localtime_r(&now, &tm);
}

static void call_syslog(void)
{
	syslog(LOG_DEBUG, "nothing to say");
}

static void call_getpwnam(void)
{
	getpwnam("root");
}

static const struct {
	const char *name;
	void (*call)(void);
} functions[] = {
	{ "localtime_r", call_localtime_r },
	{ "syslog", call_syslog },
	{ "getpwnam", call_getpwnam },
	{ NULL, NULL }
}, *function = functions;

static volatile bool stop;

static void *worker(void *unused)
{
	while (!stop)
		function->call();
	return NULL;
}

/* Wait for a child. Return: whether it hung. */
static bool child_hung(void)
{
	int status;

	if (wait(&status) < 0)
		error(2, errno, "wait");
	if (!status)
		return false;
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGALRM)
		error(2, 0, "a child ended with status %#x", status);
	return true;
}

int main(int argc, char **argv)
{
	unsigned long forks, done = 0, bad = 0, children = 0;
	pthread_t workers[WORKERS];
	pid_t pid;
	int i;

	while (argc == 3 && function->name && strcmp(function->name, argv[1]))
		function++;
	if (argc != 3 || !function->name)
		error(2, 0, "usage: unaware FUNCTION FORKS");
	forks = strtoul(argv[2], NULL, 10);
	for (i = 0; i < WORKERS; i++) {
		errno = pthread_create(&workers[i], NULL, worker, NULL);
		if (errno)
			error(2, errno, "pthread_create");
	}
	while (children || (done < forks && bad < MAX_BAD)) {
		if (children == MAX_CHILDREN || done == forks || bad >= MAX_BAD) {
			bad += child_hung();
			children--;
			continue;
		}
		pid = fork();
		if (pid < 0)
			error(2, errno, "fork");
		if (!pid) {
			alarm(HUNG_SECONDS);
			function->call();
			_exit(0);
		}
		done++;
		children++;
	}
	stop = true;
	for (i = 0; i < WORKERS; i++)
		pthread_join(workers[i], NULL);
	printf("%lu %lu\n", bad, done);
	return 0;
}
