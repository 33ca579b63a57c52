/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * message-internal.h - messages on the standard error of somebody else's program
 *
 * Must not wait, be cancelled, or raise SIGPIPE: rather nothing is said. Must not be
 * installed.
 */
#ifndef _FORKGATE_MESSAGE_INTERNAL_H
#define _FORKGATE_MESSAGE_INTERNAL_H

#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* In one write. errno is not left alone. */
static inline void forkgate_write_message(const char *text, size_t length)
{
	struct pollfd error = { .fd = STDERR_FILENO, .events = POLLOUT };
	const struct timespec now = { 0 };

	if (syscall(SYS_ppoll, &error, 1L, &now, NULL, 0L) == 1 && error.revents == POLLOUT)
		syscall(SYS_write, (long)STDERR_FILENO, text, length);
}

#endif /* _FORKGATE_MESSAGE_INTERNAL_H */
