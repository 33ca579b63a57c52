// SPDX-License-Identifier: GPL-2.0-only
/*
 * perfetto.c - a timeline in the JSON format of Chrome's tracing, which
 * ui.perfetto.dev shows
 */
#include <inttypes.h>

#include "cmd.h"
#include "timeline.h"

/* Microseconds, as the format wants them */
static double us(const struct timeline *tl, uint64_t at)
{
	return (at - tl->from) / 1e3;
}

/* An event of a thread, up to what is particular to its kind: "ph" and "ts" come here */
static void begin(const char *phase, const struct tl_task *task, pid_t tid, double at, FILE *out)
{
	fprintf(out, "{\"ph\": \"%s\", \"cat\": \"forkgate\", \"pid\": %d, \"tid\": %d", phase,
		task->tgid, tid);
	fprintf(out, ", \"ts\": %.3f, \"name\": ", at);
}

static void arg(const char *name, const char *text, FILE *out)
{
	fprintf(out, ", \"args\": {\"%s\": ", name);
	json_string(out, text ? text : "");
	fprintf(out, "}");
}

/* A name for a process or a thread */
static void metadata(const struct tl_task *task, const char *what, FILE *out)
{
	begin("M", task, task->tid, 0, out);
	json_string(out, what);
	arg("name", task->name, out);
	fprintf(out, "},\n");
}

static void print_bar(const struct timeline *tl, const struct tl_bar *bar, size_t id, FILE *out)
{
	const struct tl_task *task = tl_task(tl, bar->tid);
	const char *name = tl_bar_names[bar->kind];

	if (!task)
		return;
	if (bar->kind == TL_BAR_CLOSED) {
		/* A track of its own, beside those of the threads */
		begin("b", task, bar->tid, us(tl, bar->from), out);
		json_string(out, name);
		arg("what", bar->text, out);
		fprintf(out, ", \"id\": %zu},\n", id);
		begin("e", task, bar->tid, us(tl, bar->to), out);
		json_string(out, name);
		fprintf(out, ", \"id\": %zu},\n", id);
		return;
	}
	begin("X", task, bar->tid, us(tl, bar->from), out);
	json_string(out, name);
	arg("what", bar->text, out);
	fprintf(out, ", \"dur\": %.3f},\n", (bar->to - bar->from) / 1e3);
}

static void print_mark(const struct timeline *tl, const struct tl_mark *mark, FILE *out)
{
	const struct tl_task *task = tl_task(tl, mark->tid);

	if (!task)
		return;
	begin("i", task, mark->tid, us(tl, mark->at), out);
	json_string(out, mark->text ? mark->text : "");
	fprintf(out, ", \"s\": \"%s\"},\n", mark->kind == TL_MARK_YIELD ? "p" : "t");
}

void tl_perfetto(const struct timeline *tl, FILE *out)
{
	size_t i;

	fprintf(out, "{\"displayTimeUnit\": \"ms\", \"otherData\": {\"command\": ");
	json_string(out, tl->title);
	fprintf(out, ", \"lost_events\": %" PRIu64 "},\n\"traceEvents\": [\n", tl->lost);
	for (i = 0; i < tl->nr_tasks; i++) {
		if (!tl->tasks[i].lane)
			continue;
		if (tl->tasks[i].tid == tl->tasks[i].tgid)
			metadata(&tl->tasks[i], "process_name", out);
		metadata(&tl->tasks[i], "thread_name", out);
	}
	for (i = 0; i < tl->nr_bars; i++)
		print_bar(tl, &tl->bars[i], i, out);
	for (i = 0; i < tl->nr_marks; i++)
		print_mark(tl, &tl->marks[i], out);
	/* The last element has no comma behind it; the first task is always there. */
	begin("i", tl->tasks, tl->tasks->tid, us(tl, tl->to), out);
	fprintf(out, "\"end of the recording\", \"s\": \"g\"}\n]}\n");
}
