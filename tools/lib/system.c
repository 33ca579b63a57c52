// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * system(), made of posix_spawn()
 *
 * The C library's returns when the command has ended. The ticket of its fork has to
 * end before, when the shell has been started, which nothing tells there. In a file
 * of its own like those of interpose.c, and for what forksafe_cond.c says of
 * cancellation: this one, too, is compiled without -fexceptions.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"

#ifndef FORKGATE_SHARED
__typeof__(posix_spawn) INTERPOSED(posix_spawn);
#endif

/* While calls of system() run, the process ignores the two signals. */
static struct {
	pthread_mutex_t lock;
	unsigned int calls;
	struct sigaction interrupt, quit;
} commands = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* In a section: a child finds the lock free. Return: for unlock_commands() */
static int lock_commands(void)
{
	int err = forkgate_enter(FORKGATE_MEMORY);

	pthread_mutex_lock(&commands.lock);
	return err;
}

static void unlock_commands(int err)
{
	pthread_mutex_unlock(&commands.lock);
	if (!err)
		forkgate_leave(FORKGATE_MEMORY);
}

/* @defaults: signals that are not ignored by the program */
static void begin_command(sigset_t *defaults)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	int err = lock_commands();

	if (!commands.calls++) {
		sigaction(SIGINT, &ignore, &commands.interrupt);
		sigaction(SIGQUIT, &ignore, &commands.quit);
	}
	sigemptyset(defaults);
	if (commands.interrupt.sa_handler != SIG_IGN)
		sigaddset(defaults, SIGINT);
	if (commands.quit.sa_handler != SIG_IGN)
		sigaddset(defaults, SIGQUIT);
	unlock_commands(err);
}

static void end_command(const sigset_t *mask)
{
	int err = lock_commands();

	if (!--commands.calls) {
		sigaction(SIGINT, &commands.interrupt, NULL);
		sigaction(SIGQUIT, &commands.quit, NULL);
	}
	unlock_commands(err);
	pthread_sigmask(SIG_SETMASK, mask, NULL);
}

struct command {
	sigset_t mask;
	pid_t pid;
};

static void cancel_command(void *cancelled)
{
	struct command *command = cancelled;

	kill(command->pid, SIGKILL);
	while (waitpid(command->pid, NULL, 0) < 0 && errno == EINTR)
		;
	end_command(&command->mask);
}

FORKGATE_EXPORT int INTERPOSED(system)(const char *text)
{
	char *const argv[] = { "sh", "-c", "--", (char *)text, NULL };
	struct command command;
	posix_spawnattr_t attr;
	sigset_t child, defaults;
	int err, old, status;

	if (!text)
		return !INTERPOSED(system)("exit 0");
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	begin_command(&defaults);
	pthread_sigmask(SIG_BLOCK, &child, &command.mask);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &command.mask);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
	err = INTERPOSED(posix_spawn)(&command.pid, "/bin/sh", NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	pthread_setcancelstate(old, NULL);
	if (err) {
		end_command(&command.mask);
		errno = err;
		return err == ENOENT || err == EACCES || err == ENOEXEC || err == E2BIG ?
		       127 << 8 : -1;
	}

	pthread_cleanup_push(cancel_command, &command);
	while (waitpid(command.pid, &status, 0) < 0) {
		if (errno != EINTR) {
			status = -1;
			break;
		}
	}
	pthread_cleanup_pop(0);
	err = errno;
	end_command(&command.mask);
	errno = err;
	return status;
}
