// SPDX-License-Identifier: GPL-2.0-only
/*
 * timeline.c - from events to what lasts: waits, tickets, copies, closed gates
 *
 * Must not know where events come from, or how the result is drawn.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "gates.h"
#include "timeline.h"

/* A gate as the events show it */
struct tl_gate {
	uint64_t id;
	pid_t tgid;		/* 0: not of our processes */
	uint64_t closed;	/* since when, 0 if it is open */
};

static struct tl_gate *gates;
static size_t nr_gates;

const char * const tl_bar_names[TL_BARS] = {
	[TL_BAR_CLOSED] = "gate closed",
	[TL_BAR_SEEN] = "inside",
	[TL_BAR_ENTRY] = "waits to enter",
	[TL_BAR_WAIT] = "fork waits",
	[TL_BAR_FAILED] = "fork waits in vain",
	[TL_BAR_TICKET] = "ticket",
	[TL_BAR_COPY] = "copy",
};

void *tl_grow(void *array, size_t count, size_t size)
{
	if (!(count & (count - 1))) {
		array = realloc(array, (count ? 2 * count : 1) * size);
		if (!array) {
			cmd_error("out of memory");
			exit(CMD_TRACE_FAILED);
		}
	}
	memset((char *)array + count * size, 0, size);
	return array;
}

struct tl_task *tl_task(const struct timeline *tl, pid_t tid)
{
	size_t i = tl->lists[tid % ARRAY_SIZE(tl->lists)];

	for (; i; i = tl->tasks[i - 1].older)
		if (tl->tasks[i - 1].tid == tid)
			return &tl->tasks[i - 1];
	return NULL;
}

static char *format(const char *format, ...) __attribute__((format(printf, 1, 2)));

static char *format(const char *format, ...)
{
	va_list args;
	char *text;
	int ret;

	va_start(args, format);
	ret = vasprintf(&text, format, args);
	va_end(args);
	return ret < 0 ? NULL : text;
}

/* The text is the bar's from now on. */
static void add_bar(struct timeline *tl, enum tl_bar_kind kind, pid_t tid, uint64_t from,
		    uint64_t to, char *text)
{
	struct tl_bar *bar = tl_add(tl->bars, tl->nr_bars);

	*bar = (struct tl_bar){
		.kind = kind, .tid = tid, .from = from < tl->from ? tl->from : from, .to = to,
		.text = text,
	};
}

static void add_mark(struct timeline *tl, enum tl_mark_kind kind, pid_t tid, uint64_t at,
		     char *text)
{
	struct tl_mark *mark = tl_add(tl->marks, tl->nr_marks);

	*mark = (struct tl_mark){ .kind = kind, .tid = tid, .at = at, .text = text };
}

static struct tl_gate *find_gate(uint64_t id)
{
	struct tl_gate *gate;
	size_t i;

	for (i = nr_gates; i-- > 0;)
		if (gates[i].id == id)
			return &gates[i];
	gate = tl_add(gates, nr_gates);
	gate->id = id;
	return gate;
}

static void end_ticket(struct timeline *tl, struct tl_task *task, uint64_t at)
{
	if (task->ticket)
		add_bar(tl, TL_BAR_TICKET, task->tid, task->ticket, at,
			format("ticket held for %s", cmd_time(at - task->ticket)));
	task->ticket = 0;
}

static void end_copy(struct timeline *tl, struct tl_task *task, uint64_t at)
{
	if (task->copy)
		add_bar(tl, TL_BAR_COPY, task->tid, task->copy, at,
			format("copy, %s", cmd_time(at - task->copy)));
	task->copy = 0;
}

static void on_task(struct timeline *tl, const struct tl_event *e)
{
	struct tl_task *parent = tl_task(tl, e->other), *task;
	size_t *list = &tl->lists[e->tid % ARRAY_SIZE(tl->lists)];
	pid_t tgid;

	/* The first one is ours, the others by descent */
	if (!parent && tl->nr_tasks)
		return;
	tgid = parent && e->flag ? parent->tgid : e->tid;
	if (parent && !e->flag) {
		end_copy(tl, parent, e->at);
		add_mark(tl, TL_MARK_CHILD, parent->tid, e->at, format("child %d", e->tid));
	}
	task = tl_add(tl->tasks, tl->nr_tasks);
	*task = (struct tl_task){ .tid = e->tid, .tgid = tgid, .from = e->at, .older = *list };
	*list = tl->nr_tasks;
	snprintf(task->name, sizeof(task->name), "%s", e->text ? e->text : "");
}

static void on_grant(struct timeline *tl, struct tl_task *task, const struct tl_event *e)
{
	uint64_t from = e->at - e->ns;

	/* After a ticket the clone is granted once more; its wait began with that. */
	if (task->ticket)
		from = task->ticket;
	else if (e->ns)
		add_bar(tl, TL_BAR_WAIT, task->tid, from, e->at,
			format("%s waits %s for %s", e->flag ? "prepare" : "fork",
			       cmd_time(e->ns), gates_domains(e->domains)));
	end_ticket(tl, task, e->at);
	if (e->flag)
		task->ticket = e->at;
	else
		task->copy = e->at;
}

static void on_timeout(struct timeline *tl, struct tl_task *task, const struct tl_event *e)
{
	struct tl_task *holder = e->other ? tl_task(tl, e->other) : NULL;

	add_bar(tl, TL_BAR_FAILED, task->tid, e->at - e->ns, e->at,
		format("waits %s for %s, in vain; thread %d is inside %s", cmd_time(e->ns),
		       gates_domains(e->domains), e->other, e->text ? e->text : ""));
	add_mark(tl, TL_MARK_PROBLEM, task->tid, e->at,
		 format("the wait of %s ended without a grant", cmd_time(e->ns)));
	if (holder) {
		holder->busy = true;
		add_mark(tl, TL_MARK_PROBLEM, holder->tid, e->at,
			 format("thread %d gave up: this one was inside %s", task->tid,
				e->text ? e->text : ""));
	}
}

/* Looks at the gates that follow one another make one bar. */
static void on_seen(struct timeline *tl, struct tl_task *task, const struct tl_event *e)
{
	struct tl_bar *bar = task->looked ? &tl->bars[task->seen] : NULL;

	if (!bar || task->looked + 1 != e->ns || strcmp(bar->text, e->text ? e->text : "")) {
		task->seen = tl->nr_bars;
		add_bar(tl, TL_BAR_SEEN, task->tid, e->at, e->at, strdup(e->text ? e->text : ""));
		bar = &tl->bars[task->seen];
	}
	bar->to = e->at;
	task->looked = e->ns;
}

static void on_thread(struct timeline *tl, struct tl_task *task, const struct tl_event *e)
{
	task->busy = true;
	switch (e->kind) {
	case TL_GRANT:
		on_grant(tl, task, e);
		break;
	case TL_EXPIRE:
		end_ticket(tl, task, e->at);
		add_mark(tl, TL_MARK_PROBLEM, task->tid, e->at,
			 format("%s expired", e->flag ? "ticket" : "kept place"));
		break;
	case TL_TIMEOUT:
		on_timeout(tl, task, e);
		break;
	case TL_ABANDON:
		add_mark(tl, TL_MARK_PROBLEM, task->tid, e->at,
			 e->domains ? format("went away inside %s", e->text ? e->text : "") :
				      format("went away with a ticket"));
		break;
	case TL_BYPASS:
		add_mark(tl, TL_MARK_PROBLEM, task->tid, e->at,
			 format("a copy did not pass the hook"));
		break;
	case TL_ENTER_WAIT:
		task->entry = e->at;
		break;
	case TL_ENTER_GO:
		add_bar(tl, TL_BAR_ENTRY, task->tid, e->at - e->ns, e->at,
			format("waits %s to enter %s", cmd_time(e->ns), gates_domains(e->domains)));
		task->entry = 0;
		break;
	case TL_SEEN:
		on_seen(tl, task, e);
		break;
	default:
		break;
	}
}

static void on_open(struct timeline *tl, struct tl_gate *gate, const struct tl_event *e)
{
	size_t i;

	add_bar(tl, TL_BAR_CLOSED, gate->tgid, e->at - e->ns, e->at,
		format("closed for %s", cmd_time(e->ns)));
	gate->closed = 0;
	for (i = 0; i < tl->nr_tasks; i++) {
		if (tl->tasks[i].tgid != gate->tgid)
			continue;
		end_ticket(tl, &tl->tasks[i], e->at);
		end_copy(tl, &tl->tasks[i], e->at);
		tl->tasks[i].looked = 0;	/* not looked at until it is closed again */
	}
}

static void on_event(struct timeline *tl, const struct tl_event *e)
{
	struct tl_task *task = e->tid ? tl_task(tl, e->tid) : NULL;
	struct tl_gate *gate;

	switch (e->kind) {
	case TL_TASK:
		on_task(tl, e);
		return;
	case TL_NAME:
		if (task)
			snprintf(task->name, sizeof(task->name), "%s", e->text ? e->text : "");
		return;
	case TL_EXIT:
		if (task)
			task->to = e->at;
		return;
	default:
		break;
	}
	/* The memory of a gate may become that of another process's. */
	gate = e->gate ? find_gate(e->gate) : NULL;
	if (gate && e->tid)
		gate->tgid = task ? task->tgid : 0;
	if (e->kind == TL_CLOSE && gate && task && !gate->closed)
		gate->closed = e->at;
	if (task)
		on_thread(tl, task, e);
	if (!gate || !gate->tgid)
		return;
	if (e->kind == TL_OPEN)
		on_open(tl, gate, e);
	else if (e->kind == TL_YIELD)
		add_mark(tl, TL_MARK_YIELD, gate->tgid, e->at,
			 format("yield to newcomers; patience %s from now on", cmd_time(e->ns)));
}

/* What has not ended is drawn to the end. */
static void finish(struct timeline *tl)
{
	struct tl_task *task;
	size_t i, j;

	for (i = 0; i < nr_gates; i++)
		if (gates[i].closed && gates[i].tgid)
			add_bar(tl, TL_BAR_CLOSED, gates[i].tgid, gates[i].closed, tl->to,
				format("still closed at the end"));
	for (i = 0; i < tl->nr_tasks; i++) {
		task = &tl->tasks[i];
		if (!task->to)
			task->to = tl->to;
		if (task->entry)
			add_bar(tl, TL_BAR_ENTRY, task->tid, task->entry, task->to,
				format("still waits to enter at the end"));
		end_ticket(tl, task, task->to);
		end_copy(tl, task, task->to);
	}
	for (i = 0; i < tl->nr_tasks; i++)
		for (j = 0; tl->tasks[i].busy && j < tl->nr_tasks; j++)
			if (j == i || tl->tasks[j].tid == tl->tasks[i].tgid)
				tl->tasks[j].lane = true;
}

static int by_time(const void *a, const void *b)
{
	const struct tl_event *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	return x->order < y->order ? -1 : 1;
}

void tl_build(struct timeline *tl)
{
	size_t i;

	for (i = 0; i < tl->nr_events; i++)
		tl->events[i].order = i;
	if (tl->nr_events)
		qsort(tl->events, tl->nr_events, sizeof(*tl->events), by_time);
	for (i = 0; i < tl->nr_events; i++)
		on_event(tl, &tl->events[i]);
	finish(tl);
}

void tl_free(struct timeline *tl)
{
	size_t i;

	for (i = 0; i < tl->nr_events; i++)
		free(tl->events[i].text);
	for (i = 0; i < tl->nr_bars; i++)
		free(tl->bars[i].text);
	for (i = 0; i < tl->nr_marks; i++)
		free(tl->marks[i].text);
	free(tl->events);
	free(tl->tasks);
	free(tl->bars);
	free(tl->marks);
	free(gates);
}
