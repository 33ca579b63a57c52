/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tracefs.h - what the kernel traces while a test acts, in a buffer of its own
 *
 * It must not touch the buffer that everybody shares, and must leave no instance
 * behind. For root.
 */
#ifndef TEST_TRACEFS_H
#define TEST_TRACEFS_H

#include "proc.h"

#include <ctype.h>
#include <sys/stat.h>

#define TRACEFS		"/sys/kernel/tracing/"
#define NO_TRACEFS	"no tracefs, no such event, or not root"

static char trace_instance[80];
static char trace_text[1 << 24];

static inline int trace_write(const char *file, const char *text)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", trace_instance, file);
	return write_file(path, text);
}

/* trace_setup - an instance that can trace @event, a folder of "events"; false if there is none */
static inline bool trace_setup(const char *event)
{
	char path[200];

	snprintf(path, sizeof(path), TRACEFS "events/%s/enable", event);
	if (access(path, W_OK))
		return false;
	snprintf(trace_instance, sizeof(trace_instance), TRACEFS "instances/test-%d", getpid());
	if (mkdir(trace_instance, 0700)) {
		trace_instance[0] = '\0';
		return false;
	}
	/* An order that holds for all processors */
	return !trace_write("trace_clock", "counter") && !trace_write("buffer_size_kb", "8192");
}

static inline int trace_event(const char *event)
{
	char path[100];

	snprintf(path, sizeof(path), "events/%s/enable", event);
	return trace_write(path, "1");
}

/* trace_stop - the lines of what was traced, each ended by a zero, to be read with trace_next() */
static inline char *trace_stop(void)
{
	char path[200], *at;

	trace_write("events/enable", "0");
	snprintf(path, sizeof(path), "%s/trace", trace_instance);
	if (read_file(path, trace_text, sizeof(trace_text) - 1) < 0)
		trace_text[0] = '\0';
	trace_text[strlen(trace_text) + 1] = '\0';
	for (at = trace_text; *at; at++) {
		if (*at == '\n')
			*at = '\0';
	}
	return trace_text;
}

/* trace_next - the line after @line; empty after the last */
static inline char *trace_next(char *line)
{
	return line + strlen(line) + 1;
}

/* trace_of - is this line an event that thread @tid caused? */
static inline bool trace_of(const char *line, pid_t tid)
{
	char who[20];
	const char *at;

	snprintf(who, sizeof(who), "-%d", tid);
	at = strstr(line, who);
	return *line != '#' && at && !isdigit((unsigned char)at[strlen(who)]);
}

static inline void trace_teardown(void)
{
	if (trace_instance[0])
		rmdir(trace_instance);
	trace_instance[0] = '\0';
}

#endif /* TEST_TRACEFS_H */
