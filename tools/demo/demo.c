// SPDX-License-Identifier: GPL-2.0-only
/*
 * demo - what goes wrong when a multi-threaded process forks
 *
 * "demo ROW without|with FORKS" runs one row of the table and prints two
 * numbers: how many of the copies were broken, and how many there were; "demo
 * gate" prints which gate programs have here, "module" or "library". The
 * same program runs both ways; without the gate it only leaves out the calls
 * that mark the sections, and stops after MAX_BAD broken copies. It must not
 * retry, repair or leave out anything else, and must count nothing that it did
 * not see happen in a child.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/sched.h>

#include <forkgate.h>

#define MAX_BAD		20	/* broken copies that are enough to see */
#define MAX_CHILDREN	32	/* children that may be running at a time */
#define WORKERS		2
#define ACCOUNTS	8	/* of each worker */
#define HUNG_SECONDS	10	/* what a child may take to get a lock */

static char *child_path;	/* the program that is spawned */
static bool gated;
static unsigned long forks;
static unsigned long done_forks, done_bad;
static atomic_bool stop;

static void enter(unsigned int domains)
{
	int err = gated ? forkgate_enter(domains) : 0;

	if (err)
		error(2, err, "forkgate_enter");
}

static void leave(unsigned int domains)
{
	if (gated)
		forkgate_leave(domains);
}

/* What a thread does for a while, in a section or between two */
static void pass(unsigned int milliseconds)
{
	struct timespec time = { .tv_nsec = milliseconds * 1000000L };

	nanosleep(&time, NULL);
}

/* lock: the workers share a mutex, and so does the child. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *lock_worker(void *unused)
{
	while (!stop) {
		enter(FORKGATE_MEMORY);
		pthread_mutex_lock(&mutex);
		pass(1);
		pthread_mutex_unlock(&mutex);
		leave(FORKGATE_MEMORY);
		pass(1);
	}
	return NULL;
}

/* Nobody in the child unlocks it: if it is locked now, SIGALRM is the end. */
static int lock_child(void)
{
	alarm(HUNG_SECONDS);
	pthread_mutex_lock(&mutex);
	return 0;
}

/* snapshot: money moves from account to account, the child adds up. */
static atomic_long accounts[WORKERS][ACCOUNTS];

static void *snapshot_worker(void *number)
{
	atomic_long *own = accounts[(long)number];
	unsigned int i;

	for (i = 0; !stop; i++) {
		enter(FORKGATE_MEMORY);
		own[i % ACCOUNTS] -= 100;
		pass(1);
		own[(i + 1) % ACCOUNTS] += 100;
		leave(FORKGATE_MEMORY);
		pass(1);
	}
	return NULL;
}

static int snapshot_child(void)
{
	long sum = 0;
	int i, j;

	for (i = 0; i < WORKERS; i++) {
		for (j = 0; j < ACCOUNTS; j++)
			sum += accounts[i][j];
	}
	return sum != 0;
}

/* descriptor: opened first, marked close-on-exec then. */
static void *descriptor_worker(void *unused)
{
	int fd;

	while (!stop) {
		enter(FORKGATE_FILES);
		fd = open("/dev/null", O_RDONLY);
		if (fd < 0)
			error(2, errno, "/dev/null");
		pass(1);
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		leave(FORKGATE_FILES);
		close(fd);
		pass(1);
	}
	return NULL;
}

/* Ways to copy a process */
static pid_t by_fork(int (*child)(void))
{
	pid_t pid = fork();

	if (!pid)
		_exit(child());
	return pid;
}

static pid_t by_clone(int (*child)(void))
{
	pid_t pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (!pid)
		_exit(child());
	return pid;
}

static pid_t by_clone3(int (*child)(void))
{
	struct clone_args args = { .exit_signal = SIGCHLD };
	pid_t pid = syscall(SYS_clone3, &args, sizeof(args));

	if (!pid)
		_exit(child());
	return pid;
}

static pid_t by_spawn(int (*unused)(void))
{
	char *const argv[] = { child_path, NULL };
	pid_t pid;
	int err = posix_spawn(&pid, child_path, NULL, NULL, argv, environ);

	if (!err)
		return pid;
	errno = err;
	return -1;
}

static int exec_child(void *unused)
{
	char *const argv[] = { child_path, NULL };

	execve(child_path, argv, environ);
	_exit(127);
}

/* As other runtimes do it: libforkgate would see a call of vfork(). */
static pid_t by_vfork(int (*unused)(void))
{
	static max_align_t stack[4096];

	return clone(exec_child, stack + 4096,
		     CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
}

/* Count a child: it ended well, or it is what the row is about. */
static void count(int status)
{
	if (WIFSIGNALED(status) ? WTERMSIG(status) == SIGALRM :
				  WEXITSTATUS(status) == 1)
		done_bad++;
	else if (status)
		error(2, 0, "a child ended with status %#x", status);
}

static void copy(pid_t (*by)(int (*)(void)), int (*child)(void))
{
	unsigned int children = 0;
	int status;
	pid_t pid;

	while (children || (done_forks < forks && done_bad < MAX_BAD)) {
		if (done_forks < forks && done_bad < MAX_BAD &&
		    children < MAX_CHILDREN) {
			pid = by(child);
			if (pid < 0)
				error(2, errno, "no child");
			done_forks++;
			children++;
			pid = waitpid(-1, &status, WNOHANG);
		} else {
			pid = waitpid(-1, &status, 0);
		}
		if (pid > 0) {
			children--;
			count(status);
		}
	}
}

/* busy: a script is written and run, while other threads fork. */
static sem_t written;	/* once for each script that is being written */

static void *busy_worker(void *unused)
{
	pid_t pid;

	while (sem_wait(&written) || !stop) {
		pid = fork();
		if (pid < 0)
			error(2, errno, "fork");
		if (!pid) {
			pass(20);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
	return NULL;
}

/* In two pieces, as one that is being downloaded */
static void write_program(const char *path, const char *text)
{
	size_t half = strlen(text) / 2;
	int fd;

	unlink(path);
	enter(FORKGATE_FILES);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
	if (fd < 0)
		error(2, errno, "%s", path);
	sem_post(&written);
	if (write(fd, text, half) < 0)
		error(2, errno, "%s", path);
	pass(3);
	if (write(fd, text + half, strlen(text) - half) < 0 || close(fd))
		error(2, errno, "%s", path);
	leave(FORKGATE_FILES);
}

static void busy(void)
{
	const char *dir = getenv("TMPDIR") ?: "/tmp";
	char *text;
	int status;
	pid_t pid;

	if (asprintf(&text, "#!%s\n", child_path) < 0 ||
	    asprintf(&child_path, "%s/forkgate-demo.%d", dir, getpid()) < 0)
		error(2, errno, "asprintf");
	while (done_forks < forks && done_bad < MAX_BAD) {
		write_program(child_path, text);
		done_forks++;
		pid = by_spawn(NULL);
		if (pid < 0 && errno == ETXTBSY) {
			done_bad++;
		} else if (pid < 0) {
			error(2, errno, "%s", child_path);
		} else if (waitpid(pid, &status, 0) != pid || status) {
			error(2, 0, "%s ended with status %#x", child_path,
			      status);
		}
	}
	unlink(child_path);
	free(text);
}

static const struct row {
	const char *name;
	void *(*worker)(void *number);
	pid_t (*by)(int (*child)(void));
	int (*child)(void);
} rows[] = {
	{ "lock", lock_worker, by_fork, lock_child },
	{ "snapshot", snapshot_worker, by_fork, snapshot_child },
	{ "descriptor", descriptor_worker, by_spawn, NULL },
	{ "busy", busy_worker, NULL, NULL },
	{ "clone", lock_worker, by_clone, lock_child },
	{ "clone3", lock_worker, by_clone3, lock_child },
	{ "vfork", descriptor_worker, by_vfork, NULL },
	{ NULL, NULL, NULL, NULL }
};

static int print_gate(void)
{
	int reason, gate = forkgate_protection(&reason);

	if (gate == FORKGATE_UNPROTECTED)
		error(2, reason, "there is no gate");
	puts(gate == FORKGATE_BY_MODULE ? "module" : "library");
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t workers[WORKERS];
	const struct row *row = rows;
	long i;

	if (argc == 2 && !strcmp(argv[1], "gate"))
		return print_gate();
	while (argc == 4 && row->name && strcmp(row->name, argv[1]))
		row++;
	if (argc != 4 || !row->name)
		error(2, 0, "usage: demo gate, or demo ROW without|with FORKS");
	sem_init(&written, 0, 0);
	closefrom(STDERR_FILENO + 1);
	gated = !strcmp(argv[2], "with");
	forks = strtoul(argv[3], NULL, 10);
	if (asprintf(&child_path, "%s-child", argv[0]) < 0)
		error(2, errno, "asprintf");
	errno = gated ? forkgate_init(0) : 0;
	if (errno)
		error(2, errno, "forkgate_init");
	for (i = 0; i < WORKERS; i++) {
		errno = pthread_create(&workers[i], NULL, row->worker, (void *)i);
		if (errno)
			error(2, errno, "pthread_create");
	}
	if (row->by)
		copy(row->by, row->child);
	else
		busy();
	stop = true;
	for (i = 0; i < WORKERS; i++)
		sem_post(&written);
	for (i = 0; i < WORKERS; i++)
		pthread_join(workers[i], NULL);
	printf("%lu %lu\n", done_bad, done_forks);
	return 0;
}
