/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * proc.h - small files of procfs, sysfs, debugfs and cgroups, and what they say of a task
 *
 * It must not use stdio, which allocates: another thread may hold libc's locks
 * inside a clone that waits.
 */
#ifndef TEST_PROC_H
#define TEST_PROC_H

#include "base.h"

#include <fcntl.h>

/* read_file - all of it, up to @size - 1 bytes, as a string; its length or a negative errno */
static inline ssize_t read_file(const char *path, char *buffer, size_t size)
{
	size_t done = 0;
	ssize_t got;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (done < size - 1) {
		got = read(fd, buffer + done, size - 1 - done);
		if (got <= 0)
			break;
		done += got;
	}
	buffer[done] = '\0';
	close(fd);
	return done;
}

/* kernel_has - is this the name of a function or variable of the kernel? */
static inline bool kernel_has(const char *name)
{
	static char text[65536];
	char line[100];
	size_t length = snprintf(line, sizeof(line), " %s\n", name), kept = 0;
	bool found = false;
	ssize_t got;
	int fd;

	fd = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);
	while (!found && (got = read(fd, text + kept, sizeof(text) - kept)) > 0) {
		kept += got;
		found = memmem(text, kept, line, length);
		/* It may go on in what is read next. */
		if (kept > length) {
			memmove(text, text + kept - length, length);
			kept = length;
		}
	}
	if (fd >= 0)
		close(fd);
	return found;
}

/* write_file - 0 or a negative errno */
static inline int write_file(const char *path, const char *text)
{
	ssize_t done;
	int error = 0;
	int fd;

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	done = write(fd, text, strlen(text));
	if (done < 0)
		error = -errno;
	close(fd);
	return error;
}

/* task_state - the letter of /proc/TID/stat, 0 for no such task */
static inline char task_state(pid_t tid)
{
	char path[40], text[512], *end;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	if (read_file(path, text, sizeof(text)) <= 0)
		return 0;
	end = strrchr(text, ')');
	return end && end[1] ? end[2] : 0;
}

static inline bool task_asleep(pid_t tid)
{
	char state = task_state(tid);

	return state == 'S' || state == 'D';
}

static inline bool task_ended(pid_t tid)
{
	char state = task_state(tid);

	return !state || state == 'Z' || state == 'X';
}

#endif /* TEST_PROC_H */
