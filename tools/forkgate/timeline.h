/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * timeline.h - what trace.c records, what timeline.c makes of it, and the two
 * ways to draw that
 *
 * Times are nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef FORKGATE_TIMELINE_H
#define FORKGATE_TIMELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/* The first are tracepoints forkgate:*, of the same names */
enum tl_kind {
	TL_CLOSE, TL_GRANT, TL_YIELD, TL_EXPIRE, TL_TIMEOUT, TL_ABANDON, TL_BYPASS, TL_OPEN,
	TL_ENTER_WAIT, TL_ENTER_GO,
	TL_TASK,	/* a thread or process came */
	TL_NAME,	/* it got a name */
	TL_EXIT,	/* it went */
	TL_SEEN,	/* seen inside a section */
	TL_KINDS,
};

/**
 * struct tl_event - something happened
 * @at: when
 * @order: in which order it was recorded
 * @kind: what
 * @gate: where; 0 if it has to do with none
 * @tid: to whom; 0 if to none
 * @domains: as in the tracepoint
 * @flag: its ticket or granted; of a task: it is a thread
 * @ns: its waited, closed or patience; of TL_SEEN: which look at the gates
 * @other: its holder or blocked; of a task: its parent
 * @text: section, name; to be freed
 */
struct tl_event {
	uint64_t at;
	size_t order;
	enum tl_kind kind;
	uint64_t gate;
	pid_t tid;
	unsigned int domains;
	bool flag;
	uint64_t ns;
	pid_t other;
	char *text;
};

enum tl_bar_kind {
	TL_BAR_CLOSED,	/* of a process: its gate */
	TL_BAR_SEEN,	/* of a thread, as all others: seen inside a section */
	TL_BAR_ENTRY,	/* waits to enter */
	TL_BAR_WAIT,	/* fork or prepare waits */
	TL_BAR_FAILED,	/* the same, in vain */
	TL_BAR_TICKET,	/* holds a ticket */
	TL_BAR_COPY,	/* the kernel copies */
	TL_BARS,
};

struct tl_bar {
	enum tl_bar_kind kind;
	pid_t tid;
	uint64_t from, to;
	char *text;
};

enum tl_mark_kind {
	TL_MARK_CHILD,
	TL_MARK_YIELD,	/* of a process */
	TL_MARK_PROBLEM,
};

struct tl_mark {
	enum tl_mark_kind kind;
	pid_t tid;
	uint64_t at;
	char *text;
};

/* A thread; @lane is whether there is something to see of it, or of a thread that it leads */
struct tl_task {
	pid_t tid, tgid;
	uint64_t from, to;
	char name[64];
	bool busy, lane;
	size_t older;		/* next in its list of tl->lists, from 1 on; 0 ends it */
	/* while the timeline is built: beginnings, 0 without one */
	uint64_t ticket, copy, entry, looked;
	size_t seen;
};

struct timeline {
	const char *title;
	uint64_t from, to;
	uint64_t lost;		/* events that the kernel dropped */
	uint64_t looks;		/* how often sections were looked at */
	struct tl_event *events;
	struct tl_task *tasks;
	struct tl_bar *bars;
	struct tl_mark *marks;
	size_t nr_events, nr_tasks, nr_bars, nr_marks;
	size_t lists[4096];	/* tasks by the end of their ids, the last one first */
};

/* tl_add - room for one more element at the end, zeroed; ends the program without memory */
#define tl_add(array, count) \
	((array) = tl_grow((array), (count), sizeof(*(array))), &(array)[(count)++])
void *tl_grow(void *array, size_t count, size_t size);

/* tl_build - tasks, bars and marks from the events of the first task and its descendants */
void tl_build(struct timeline *tl);
void tl_free(struct timeline *tl);

/* tl_task - by its id; the last one that had it, NULL if it is none of ours */
struct tl_task *tl_task(const struct timeline *tl, pid_t tid);

extern const char * const tl_bar_names[TL_BARS];

void tl_svg(const struct timeline *tl, FILE *out);
void tl_perfetto(const struct timeline *tl, FILE *out);

#endif /* FORKGATE_TIMELINE_H */
