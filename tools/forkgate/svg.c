// SPDX-License-Identifier: GPL-2.0-only
/*
 * svg.c - a timeline as one SVG file, which needs nothing else to be seen
 *
 * One lane for each thread with something to see, grouped by process. Long times
 * in which nothing happens are cut out; every bar has its text as a tooltip, and
 * inside where it fits. It can be read in print: as wide as A4 without margins of
 * 1 cm, no text is smaller than 8 points, and kinds of bars differ in stripes or
 * lightness, not only in hue. Stripes are dashes, because printing from a browser
 * makes an image of every bar that has a pattern.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "timeline.h"

#define WIDTH		1000
#define LEFT		225
#define RIGHT		15
#define LEGEND		56
#define TOP		140
#define LANE		27
#define HEADER		34
#define BAR		20
#define CUT		56	/* width of a cut */
#define CUTS		8
#define LETTER		8.4	/* width of one at 15 px, about */
#define ENOUGH		16	/* letters of a longer text that say something */
#define TITLE		90	/* letters of it that have room */
#define SHAPES		50000	/* what a browser still shows */
#define LANES		400

/* A piece of the time that is drawn to scale, [from, to) at x */
struct piece {
	uint64_t from, to;
	double x;
};

struct picture {
	const struct timeline *tl;
	FILE *out;
	struct piece *pieces;
	size_t nr_pieces;
	double scale;		/* pixels per ns */
	int *lanes;		/* y of each task's lane, 0 for none */
	int *tops, *bottoms;	/* of its process */
	int height;
	size_t shapes, left_out;
};

static const char * const classes[TL_BARS] = {
	[TL_BAR_CLOSED] = "closed",
	[TL_BAR_SEEN] = "seen",
	[TL_BAR_ENTRY] = "entry",
	[TL_BAR_WAIT] = "wait",
	[TL_BAR_FAILED] = "failed",
	[TL_BAR_TICKET] = "ticket",
	[TL_BAR_COPY] = "copy",
};

static const char style[] =
	"@page { margin: 1cm }\n"
	"@media print { svg { width: 100%; height: auto } }\n"
	"text { font: 15px 'DejaVu Sans', Verdana, sans-serif; fill: #111 }\n"
	".h { font-size: 18px; font-weight: bold }\n"
	".p { font-size: 16px; font-weight: bold }\n"
	".d { fill: #444 }\n"
	".m { fill: #444; text-anchor: middle }\n"
	".on { pointer-events: none; paint-order: stroke; stroke: #fff; stroke-width: 4px;\n"
	"stroke-linejoin: round }\n"
	".in { pointer-events: none; fill: #fff }\n"
	".lane { fill: #f6f6f4 }\n"
	".life { fill: #999 }\n"
	".tick { stroke: #ccc }\n"
	".cut { fill: #fff; stroke: #777; stroke-dasharray: 2 3 }\n"
	".closed { fill: #f0e442; fill-opacity: .3; stroke: #a89f00; stroke-width: .5 }\n"
	".band { fill: #f0e442; stroke: #6b6300 }\n"
	".seen { fill: #56b4e9; stroke: #1b4f6e }\n"
	".entry { fill: #fff1dd; stroke: #8a5a00 }\n"
	".wait { fill: #ffd9c7; stroke: #8f2d00 }\n"
	".failed { fill: #7b1e3a; stroke: #7b1e3a }\n"
	".ticket { fill: #fff; stroke: #00664a }\n"
	".copy { fill: #00382a; stroke: #00382a }\n"
	".stripes { pointer-events: none; stroke-width: 19px }\n"
	".entry.stripes { stroke: #e69f00; stroke-dasharray: 2 7 }\n"
	".wait.stripes { stroke: #d55e00; stroke-dasharray: 3 3 }\n"
	".failed.stripes { stroke: #fff; stroke-dasharray: 3 6 }\n"
	".ticket.stripes { stroke: #009e73; stroke-width: 6px; stroke-dasharray: 6 5 }\n"
	".child { fill: #00382a; stroke: #fff }\n"
	".yield { stroke: #8f2d00; stroke-width: 2; stroke-dasharray: 4 3 }\n"
	".problem { fill: #7b1e3a; stroke: #fff }\n";

/*
 * Elements. A tooltip, or the text, may be what a program wrote.
 */

static void end_element(struct picture *p, const char *name, const char *tip)
{
	if (!tip) {
		fprintf(p->out, "/>\n");
		return;
	}
	fprintf(p->out, "><title>");
	xml_string(p->out, tip);
	fprintf(p->out, "</title></%s>\n", name);
}

static void quad(struct picture *p, const char *class, double x, int y, double width, int height,
		 const char *tip)
{
	fprintf(p->out, "<rect class=\"%s\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"",
		class, x, y, width, height);
	end_element(p, "rect", tip);
}

/* A bar: of the gate, or in a lane */
static void box(struct picture *p, enum tl_bar_kind kind, double x, int y, double width,
		const char *tip)
{
	const char *class = kind == TL_BAR_CLOSED ? "band" : classes[kind];

	quad(p, class, x, y, width, BAR, tip);
	if (kind == TL_BAR_ENTRY || kind == TL_BAR_WAIT || kind == TL_BAR_FAILED ||
	    kind == TL_BAR_TICKET)
		fprintf(p->out, "<path class=\"%s stripes\" d=\"M%.1f %dh%.1f\"/>\n", class, x,
			y + BAR / 2, width);
}

static void vertical(struct picture *p, const char *class, double x, int from, int to,
		     const char *tip)
{
	fprintf(p->out, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"", class, x,
		x, from, to);
	end_element(p, "line", tip);
}

/* A triangle that points to the right, at x, or a diamond around x; 20 high */
static void shape(struct picture *p, bool diamond, double x, int y, const char *tip)
{
	fprintf(p->out, "<path class=\"%s\" d=\"M%.1f %d %s z\"", diamond ? "problem" : "child", x,
		y, diamond ? "l8 10 l-8 10 l-8 -10" : "l9 10 l-9 10");
	end_element(p, "path", tip);
}

static void note(struct picture *p, const char *class, double x, int y, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

static void note(struct picture *p, const char *class, double x, int y, const char *format, ...)
{
	char *string;
	va_list args;
	int ret;

	va_start(args, format);
	ret = vasprintf(&string, format, args);
	va_end(args);
	if (ret < 0)
		return;
	fprintf(p->out, "<text class=\"%s\" x=\"%.1f\" y=\"%d\">", class, x, y);
	xml_string(p->out, string);
	fprintf(p->out, "</text>\n");
	free(string);
}

/*
 * The axis of time
 */

struct span {
	uint64_t from, to;
};

static int by_from(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

/* When something is to be seen, joined and in order; at least one */
static size_t busy_spans(const struct timeline *tl, struct span **spans)
{
	size_t i, joined = 0, count = 0;
	struct span *all = NULL, *s;

	for (i = 0; i < tl->nr_bars; i++) {
		s = tl_add(all, count);
		*s = (struct span){ tl->bars[i].from, tl->bars[i].to };
	}
	for (i = 0; i < tl->nr_marks; i++) {
		s = tl_add(all, count);
		*s = (struct span){ tl->marks[i].at, tl->marks[i].at };
	}
	if (!count) {
		s = tl_add(all, count);
		*s = (struct span){ tl->from, tl->to };
	}
	qsort(all, count, sizeof(*all), by_from);
	for (i = 1; i < count; i++) {
		if (all[i].from > all[joined].to)
			all[++joined] = all[i];
		else if (all[i].to > all[joined].to)
			all[joined].to = all[i].to;
	}
	*spans = all;
	return joined + 1;
}

/* Gaps from the limit on are cut. Doubling the limit makes the cuts few enough. */
static size_t count_gaps(const struct span *spans, size_t count, uint64_t limit)
{
	size_t i, gaps = 0;

	for (i = 1; i < count; i++)
		gaps += spans[i].from - spans[i - 1].to > limit;
	return gaps;
}

static void layout_time(struct picture *p)
{
	const struct timeline *tl = p->tl;
	uint64_t busy = 0, drawn = 0, limit, margin;
	size_t i, count;
	struct piece *piece;
	struct span *spans;
	double x = LEFT;

	count = busy_spans(tl, &spans);
	for (i = 0; i < count; i++)
		busy += spans[i].to - spans[i].from;
	if (!busy)
		busy = 1000000;
	limit = busy / 3 + 1000;
	while (count_gaps(spans, count, limit) > CUTS)
		limit *= 2;
	margin = limit / 4;

	for (i = 0; i < count; i++) {
		if (!i || spans[i].from - spans[i - 1].to > limit) {
			piece = tl_add(p->pieces, p->nr_pieces);
			piece->from = tl->from;
			if (spans[i].from - tl->from > margin)
				piece->from = spans[i].from - margin;
		} else {
			piece = &p->pieces[p->nr_pieces - 1];
		}
		piece->to = spans[i].to + margin;
	}
	free(spans);
	for (i = 0; i < p->nr_pieces; i++)
		drawn += p->pieces[i].to - p->pieces[i].from;
	p->scale = (WIDTH - LEFT - RIGHT - CUT * (p->nr_pieces - 1.0)) / drawn;
	for (i = 0; i < p->nr_pieces; i++) {
		p->pieces[i].x = x;
		x += (p->pieces[i].to - p->pieces[i].from) * p->scale + CUT;
	}
}

static double x_of(const struct picture *p, uint64_t at)
{
	const struct piece *piece = p->pieces;
	size_t i;

	for (i = 0; i + 1 < p->nr_pieces && at >= p->pieces[i + 1].from; i++)
		piece = &p->pieces[i + 1];
	if (at < piece->from)
		return piece->x;
	if (at > piece->to)
		at = piece->to;
	return piece->x + (at - piece->from) * p->scale;
}

static void draw_ticks(struct picture *p, const struct piece *piece, uint64_t step)
{
	uint64_t t = (piece->from - p->tl->from + step - 1) / step * step;
	double x, before = -100;

	for (; t + p->tl->from <= piece->to; t += step) {
		x = x_of(p, t + p->tl->from);
		if (x < before + 80)
			continue;
		before = x;
		vertical(p, "tick", x, TOP - 6, p->height, NULL);
		note(p, "m", x, TOP - 10, "%s", t ? cmd_time(t) : "0");
		note(p, "m", x, p->height + 14, "%s", t ? cmd_time(t) : "0");
	}
}

static void draw_axis(struct picture *p)
{
	static const double nice[] = { 1, 2, 5 };
	double base = 1, want = 120 / p->scale;
	const char *length;
	double x;
	size_t i;
	int n;

	for (n = 0; nice[n] * base < want; n = (n + 1) % 3)
		base *= n == 2 ? 10 : 1;
	for (i = 0; i < p->nr_pieces; i++) {
		draw_ticks(p, &p->pieces[i], nice[n] * base);
		if (!i)
			continue;
		x = p->pieces[i].x;
		length = cmd_time(p->pieces[i].from - p->pieces[i - 1].to);
		quad(p, "cut", x - CUT + 18, TOP - 4, CUT - 36, p->height - TOP + 4,
		     "nothing happened");
		fprintf(p->out, "<g transform=\"translate(%.1f %d) rotate(-90)\">", x - CUT / 2 + 5,
			(TOP + p->height) / 2);
		note(p, "m", 0, 0, "%s", length);
		fprintf(p->out, "</g>\n");
	}
}

/*
 * Lanes
 */

static void layout_lanes(struct picture *p)
{
	const struct timeline *tl = p->tl;
	size_t i, j, shown = 0;
	int y = TOP;

	p->lanes = calloc(tl->nr_tasks + 1, sizeof(int));
	p->tops = calloc(tl->nr_tasks + 1, sizeof(int));
	p->bottoms = calloc(tl->nr_tasks + 1, sizeof(int));
	if (!p->lanes || !p->tops || !p->bottoms) {
		cmd_error("out of memory");
		exit(CMD_TRACE_FAILED);
	}
	for (i = 0; i < tl->nr_tasks && shown < LANES; i++) {
		const struct tl_task *first = &tl->tasks[i];

		if (!first->lane || first->tid != first->tgid)
			continue;
		p->tops[i] = y;
		y += HEADER;
		for (j = i; j < tl->nr_tasks && shown < LANES; j++) {
			if (tl->tasks[j].tgid != first->tgid)
				continue;
			if (j > i && tl->tasks[j].tid == first->tgid)
				break;	/* the number was used again */
			if (!tl->tasks[j].lane)
				continue;
			p->tops[j] = p->tops[i];
			p->lanes[j] = y;
			y += LANE;
			shown++;
		}
		for (j = i; j < tl->nr_tasks; j++)
			if (p->tops[j] == p->tops[i])
				p->bottoms[j] = y;
		y += 8;
	}
	p->height = y;
}

static void draw_lanes(struct picture *p)
{
	const struct tl_task *task;
	double x, end;
	size_t i;
	int y;

	for (i = 0; i < p->tl->nr_tasks; i++) {
		task = &p->tl->tasks[i];
		y = p->lanes[i];
		if (!y)
			continue;
		if (task->tid == task->tgid)
			note(p, "p", 8, p->tops[i] + 24, "%s %d", task->name, task->tgid);
		x = x_of(p, task->from);
		end = x_of(p, task->to);
		quad(p, "lane", LEFT, y, WIDTH - LEFT - RIGHT, LANE - 2, NULL);
		quad(p, "life", x, y + LANE / 2 - 2, end > x ? end - x : 1, 2, NULL);
		note(p, "t", 18, y + 18, "%d %s", task->tid, task->name);
	}
}

/* The lane of a thread at a time: its id may have had several owners. */
static size_t lane_of(const struct picture *p, pid_t tid, uint64_t at)
{
	size_t i;

	for (i = p->tl->nr_tasks; i-- > 0;)
		if (p->tl->tasks[i].tid == tid && p->tl->tasks[i].from <= at + 1000)
			return i;
	return p->tl->nr_tasks;
}

static bool room(struct picture *p, size_t lane)
{
	/* What happened before the process had a gate */
	if (lane < p->tl->nr_tasks && !p->tl->tasks[lane].lane)
		return false;
	if (lane >= p->tl->nr_tasks || !p->lanes[lane] || p->shapes >= SHAPES) {
		p->left_out++;
		return false;
	}
	p->shapes++;
	return true;
}

static void draw_bar(struct picture *p, const struct tl_bar *bar)
{
	size_t lane = lane_of(p, bar->tid, bar->from);
	double x = x_of(p, bar->from), width = x_of(p, bar->to) - x;
	const char *class = bar->kind == TL_BAR_COPY ? "in" : "on";
	const char *label = bar->text ? bar->text : "";
	bool closed = bar->kind == TL_BAR_CLOSED;
	int y, letters;
	char *tip;

	if (!room(p, lane))
		return;
	y = closed ? p->tops[lane] + 8 : p->lanes[lane] + (LANE - 2 - BAR) / 2;
	if (closed)
		quad(p, "closed", x, y, width < 1 ? 1 : width, p->bottoms[lane] - y, NULL);
	if (asprintf(&tip, "%s: %s", tl_bar_names[bar->kind], label) < 0)
		tip = NULL;
	box(p, bar->kind, x, y, width < 2 ? 2 : width, tip);
	free(tip);
	letters = (width - 6) / LETTER;
	if (letters >= (int)strlen(label))
		note(p, class, x + 4, y + 15, "%s", label);
	else if (letters >= ENOUGH)
		note(p, class, x + 4, y + 15, "%.*s...", letters - 3, label);
}

static void draw_mark(struct picture *p, const struct tl_mark *mark)
{
	size_t lane = lane_of(p, mark->tid, mark->at);
	const char *tip = mark->text ? mark->text : "";
	double x = x_of(p, mark->at);
	int y;

	if (!room(p, lane))
		return;
	y = p->lanes[lane] + (LANE - 2) / 2 - 8;
	if (mark->kind == TL_MARK_YIELD)
		vertical(p, "yield", x, p->tops[lane] + 8, p->bottoms[lane], tip);
	else
		shape(p, mark->kind == TL_MARK_PROBLEM, x, y, tip);
}

/* Room for one more entry in the legend; a new row if this one is full */
static void legend_entry(double *x, int *y, const char *name, double *at)
{
	double width = 52 + strlen(name) * LETTER;

	if (*x + width > WIDTH) {
		*x = 10;
		*y += 27;
	}
	*at = *x;
	*x += width;
}

static void draw_legend(struct picture *p)
{
	static const enum tl_bar_kind order[] = {
		TL_BAR_CLOSED, TL_BAR_SEEN, TL_BAR_ENTRY, TL_BAR_WAIT, TL_BAR_FAILED,
		TL_BAR_TICKET, TL_BAR_COPY,
	};
	static const char * const marks[] = { "child", "yield", "problem" };
	int y = LEGEND - 15;
	double x = 10, at;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(order); i++) {
		legend_entry(&x, &y, tl_bar_names[order[i]], &at);
		box(p, order[i], at, y, 28, NULL);
		note(p, "t", at + 34, y + 15, "%s", tl_bar_names[order[i]]);
	}
	for (i = 0; i < ARRAY_SIZE(marks); i++) {
		legend_entry(&x, &y, marks[i], &at);
		if (i == 1)
			vertical(p, "yield", at + 16, y, y + BAR, NULL);
		else
			shape(p, i == 2, at + 14, y, NULL);
		note(p, "t", at + 34, y + 15, "%s", marks[i]);
	}
	note(p, "d", 8, p->height + 40,
	     "A section that no fork waits for leaves no trace. Those drawn were seen in %" PRIu64
	     " looks while a gate", p->tl->looks);
	note(p, "d", 8, p->height + 60,
	     "was closed: they may have begun before and ended later. Threads with nothing to show are left out.");
}

void tl_svg(const struct timeline *tl, FILE *out)
{
	struct picture p = { .tl = tl, .out = out };
	int total;
	size_t i;

	layout_time(&p);
	layout_lanes(&p);
	total = p.height + 70;
	fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\"", WIDTH,
		total);
	fprintf(out, " viewBox=\"0 0 %d %d\">\n", WIDTH, total);
	fprintf(out, "<title>forkgate: ");
	xml_string(out, tl->title);
	fprintf(out, "</title>\n<defs><style>\n%s</style></defs>\n", style);
	fprintf(out, "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n");
	note(&p, "h", 8, 24, "%.*s%s", TITLE, tl->title, strlen(tl->title) > TITLE ? "..." : "");
	if (p.height == TOP) {
		note(&p, "t", 8, LEGEND, "No gate was closed: no process with a gate has forked.");
	} else {
		draw_lanes(&p);
		draw_axis(&p);
		for (i = 0; i < tl->nr_bars; i++)
			if (tl->bars[i].kind == TL_BAR_CLOSED)
				draw_bar(&p, &tl->bars[i]);
		for (i = 0; i < tl->nr_bars; i++)
			if (tl->bars[i].kind != TL_BAR_CLOSED)
				draw_bar(&p, &tl->bars[i]);
		for (i = 0; i < tl->nr_marks; i++)
			draw_mark(&p, &tl->marks[i]);
		draw_legend(&p);
	}
	if (p.left_out || tl->lost)
		note(&p, "h", 8, LEGEND + 56,
		     "Not complete: %zu bars and marks left out, %" PRIu64 " events lost.",
		     p.left_out, tl->lost);
	fprintf(out, "</svg>\n");
	free(p.pieces);
	free(p.lanes);
	free(p.tops);
	free(p.bottoms);
}
