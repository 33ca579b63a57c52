// SPDX-License-Identifier: GPL-2.0-only
/*
 * Recipe of forkgate-guide(7): a child is a consistent snapshot of the data.
 * Without the section it has the first half of a change. Must not stop the
 * change anywhere else: a write to the second account faults, once.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <forkgate.h>

#include "scene.h"

#define SUM	100

struct account {
	long balance;
};

static struct account *accounts[2];

static int write_all(const char *path)
{
	FILE *file = fopen(path, "w");

	if (!file)
		return -1;
	fprintf(file, "%ld %ld\n", accounts[0]->balance, accounts[1]->balance);
	return fclose(file);
}

/* guide: begin */
void transfer(struct account *from, struct account *to, long sum)
{
	forkgate_enter(FORKGATE_MEMORY);
	from->balance -= sum;
	to->balance += sum;
	forkgate_leave(FORKGATE_MEMORY);
}

pid_t snapshot(const char *path)
{
	pid_t pid = fork();

	if (!pid)
		_exit(write_all(path) ? EXIT_FAILURE : EXIT_SUCCESS);
	return pid;
}

/* guide: end */

static void fault(int signal)
{
	stop_half_way();
	mprotect(accounts[1], getpagesize(), PROT_READ | PROT_WRITE);
}

static void *mover(void *arg)
{
	transfer(accounts[0], accounts[1], 10);
	return arg;
}

int main(void)
{
	struct sigaction action = { .sa_handler = fault };
	char path[] = "/tmp/recipe-XXXXXX";
	long balance[2];
	pthread_t thread;
	FILE *file;
	int i;

	set_scene();
	for (i = 0; i < 2; i++) {
		accounts[i] = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		need(accounts[i] != MAP_FAILED, "mmap");
	}
	accounts[0]->balance = SUM;
	need(!mprotect(accounts[1], getpagesize(), PROT_READ), "mprotect");
	sigaction(SIGSEGV, &action, NULL);
	need(mkstemp(path) >= 0, path);

	need(!pthread_create(&thread, NULL, mover, NULL), "thread");
	need(wait_for(&half_way, LONG), "change");
	i = outcome(snapshot(path));
	sem_post(&forked);
	need(!i && !pthread_join(thread, NULL), "snapshot");

	file = fopen(path, "r");
	need(file && fscanf(file, "%ld %ld", &balance[0], &balance[1]) == 2, path);
	unlink(path);
	printf("# snapshot: %ld + %ld\n", balance[0], balance[1]);
	return balance[0] + balance[1] == SUM ? HOLDS : BROKEN;
}
