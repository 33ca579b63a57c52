// SPDX-License-Identifier: GPL-2.0-only
/*
 * stat.c - forkgate stat: the counters and histograms of the machine
 *
 * For people, in JSON, and in the text format of Prometheus.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "device.h"
#include "gates.h"

#define BUCKETS	64	/* more than the module has */

/* ns, the first and the last limit of the module's buckets */
#define SHORTEST	1024ULL
#define LONGEST		(SHORTEST << 30)

static const char usage[] =
	"usage: forkgate stat [--json | --prometheus]\n"
	"\n"
	"Prints what happened on this machine since the module was loaded, and how long\n"
	"waits and phases took. Needs root.\n"
	"\n"
	"  --json        print JSON, for programs\n"
	"  --prometheus  print the text format of Prometheus\n";

/* As in forkgate(4), in the order of printing */
static struct {
	const char *name;
	const char *what;
	uint64_t value;
} counters[] = {
	{ "clones", "clones of any process that the hook saw" },
	{ "redirects", "clones that the hook sent through a gate" },
	{ "forks", "clones that passed a gate" },
	{ "phases", "times a gate was closed" },
	{ "yields", "times a fork let newcomers through" },
	{ "expired", "tickets and kept places that expired" },
	{ "timeouts", "waits of forks that timed out" },
	{ "deadlocks", "waits that would have been circular" },
	{ "unsafe", "copies that went ahead unsafe" },
	{ "abandoned", "threads that went away inside a section" },
	{ "bypasses", "copies that did not pass the hook" },
};

static struct histogram {
	const char *name;
	const char *what;
	uint64_t sum, count;
	int buckets;
	/* below[i] ns or FORKGATE_FOREVER; in ascending order */
	uint64_t below[BUCKETS], counts[BUCKETS];
} histograms[] = {
	{ .name = "fork_wait", .what = "time that waiting forks slept" },
	{ .name = "entry_wait", .what = "time that threads waited to enter" },
	{ .name = "phase", .what = "time that gates were closed" },
};

static bool armed;

/* Numbers of the moment, from the list of gates */
static struct {
	const char *name;
	const char *what;
	uint64_t value;
} gauges[] = {
	{ "gates", "processes with a gate" },
	{ "threads", "threads with a slot" },
	{ "inside", "threads inside sections" },
	{ "waiting_forks", "forks that wait" },
	{ "waiting_entries", "threads that wait to enter" },
};

static void parse_histogram(struct histogram *histogram, char *words)
{
	char *word, *save = NULL, *equals;
	int i;

	for (word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		equals = strchr(word, '=');
		if (!equals)
			continue;
		if (!strncmp(word, "sum_ns=", 7)) {
			histogram->sum = strtoull(equals + 1, NULL, 10);
			continue;
		}
		if (histogram->buckets == BUCKETS)
			return;
		i = histogram->buckets++;
		histogram->below[i] = !strncmp(word, "inf=", 4) ? FORKGATE_FOREVER :
								 strtoull(word, NULL, 10);
		histogram->counts[i] = strtoull(equals + 1, NULL, 10);
		histogram->count += histogram->counts[i];
	}
}

static bool read_stats(void)
{
	static const char path[] = GATES_DIR "/stats";
	char *text = cmd_read(path), *line, *save = NULL, *rest;
	size_t i;

	if (!text) {
		gates_open_error(path, errno);
		return false;
	}
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		rest = strchr(line, ' ');
		if (!rest)
			continue;
		*rest++ = '\0';
		if (!strcmp(line, "armed"))
			armed = *rest == '1';
		for (i = 0; i < ARRAY_SIZE(counters); i++)
			if (!strcmp(line, counters[i].name))
				counters[i].value = strtoull(rest, NULL, 10);
		for (i = 0; i < ARRAY_SIZE(histograms); i++)
			if (!strcmp(line, histograms[i].name))
				parse_histogram(&histograms[i], rest);
	}
	free(text);
	return true;
}

static bool read_gauges(void)
{
	struct gates gates;
	size_t i, j;

	if (!gates_read(&gates))
		return false;
	gauges[0].value = gates.count;
	for (i = 0; i < gates.count; i++) {
		gauges[1].value += gates.gates[i].threads;
		gauges[2].value += gates.gates[i].nr_holders;
		for (j = 0; j < gates.gates[i].nr_forks; j++)
			gauges[3].value += gates_waits(&gates.gates[i].forks[j]);
		gauges[4].value += gates.gates[i].blocked;
	}
	gates_free(&gates);
	return true;
}

static void print_histogram(const struct histogram *histogram)
{
	static const char bar[] = "########################################";
	uint64_t most = 1;
	int i;

	printf("\n%s%s%s: %s\n", cmd_bold, histogram->name, cmd_plain, histogram->what);
	if (!histogram->count) {
		printf("  none\n");
		return;
	}
	printf("  %" PRIu64 " in all, %s on average\n", histogram->count,
	       cmd_time(histogram->sum / histogram->count));
	for (i = 0; i < histogram->buckets; i++)
		if (histogram->counts[i] > most)
			most = histogram->counts[i];
	for (i = 0; i < histogram->buckets; i++)
		printf("  %5s %8s %10" PRIu64 " %.*s\n",
		       histogram->below[i] == FORKGATE_FOREVER ? "more" : "below",
		       histogram->below[i] == FORKGATE_FOREVER ? "" : cmd_time(histogram->below[i]),
		       histogram->counts[i],
		       (int)((histogram->counts[i] * (sizeof(bar) - 1) + most - 1) / most), bar);
}

static void print_text(void)
{
	size_t i;

	printf("%sThe hook is %s.%s\n\n", armed ? "" : cmd_red, armed ? "armed" : "not armed",
	       armed ? "" : cmd_plain);
	for (i = 0; i < ARRAY_SIZE(gauges); i++)
		printf("%12" PRIu64 "  %s\n", gauges[i].value, gauges[i].what);
	printf("\n");
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		printf("%12" PRIu64 "  %s\n", counters[i].value, counters[i].what);
	for (i = 0; i < ARRAY_SIZE(histograms); i++)
		print_histogram(&histograms[i]);
}

static void print_json(void)
{
	const struct histogram *histogram;
	size_t i;
	int j;

	printf("{\"armed\": %s", armed ? "true" : "false");
	for (i = 0; i < ARRAY_SIZE(gauges); i++)
		printf(", \"%s\": %" PRIu64, gauges[i].name, gauges[i].value);
	printf(",\n \"counters\": {");
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		printf("%s\"%s\": %" PRIu64, i ? ", " : "", counters[i].name, counters[i].value);
	printf("},\n \"histograms\": {");
	for (i = 0; i < ARRAY_SIZE(histograms); i++) {
		histogram = &histograms[i];
		printf("%s\"%s\": {\"count\": %" PRIu64 ", \"sum_ns\": %" PRIu64 ", \"buckets\": [",
		       i ? ",\n  " : "\n  ", histogram->name, histogram->count, histogram->sum);
		for (j = 0; j < histogram->buckets; j++) {
			printf("%s{\"below_ns\": ", j ? ", " : "");
			if (histogram->below[j] == FORKGATE_FOREVER)
				printf("null");
			else
				printf("%" PRIu64, histogram->below[j]);
			printf(", \"count\": %" PRIu64 "}", histogram->counts[j]);
		}
		printf("]}");
	}
	printf("}}\n");
}

/* https://prometheus.io/docs/instrumenting/exposition_formats/ */
static void print_gauge(const char *name, const char *help, uint64_t value)
{
	printf("# HELP forkgate_%s %s\n# TYPE forkgate_%s gauge\nforkgate_%s %" PRIu64 "\n", name,
	       help, name, name, value);
}

/* What to watch is there without the module, too: an alert on nothing does not fire. */
static void print_protection(bool loaded)
{
	print_gauge("module_loaded", "1 if the module is loaded.", loaded);
	print_gauge("armed", "1 if the hook works at this moment.", armed);
}

static void print_prometheus(void)
{
	const struct histogram *histogram;
	uint64_t sum, below;
	char help[64];
	size_t i;
	int j;

	print_protection(true);
	for (i = 0; i < ARRAY_SIZE(gauges); i++) {
		snprintf(help, sizeof(help), "Number of %s now.", gauges[i].what);
		print_gauge(gauges[i].name, help, gauges[i].value);
	}
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		printf("# HELP forkgate_%s_total Number of %s.\n# TYPE forkgate_%s_total counter\n"
		       "forkgate_%s_total %" PRIu64 "\n",
		       counters[i].name, counters[i].what, counters[i].name, counters[i].name,
		       counters[i].value);
	for (i = 0; i < ARRAY_SIZE(histograms); i++) {
		histogram = &histograms[i];
		printf("# HELP forkgate_%s_seconds The %s.\n# TYPE forkgate_%s_seconds histogram\n",
		       histogram->name, histogram->what, histogram->name);
		/* The same buckets every time, also those that are empty so far */
		for (sum = 0, j = 0, below = SHORTEST; below <= LONGEST; below *= 2) {
			for (; j < histogram->buckets && histogram->below[j] <= below; j++)
				sum += histogram->counts[j];
			printf("forkgate_%s_seconds_bucket{le=\"%.9g\"} %" PRIu64 "\n",
			       histogram->name, below / 1e9, sum);
		}
		printf("forkgate_%s_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n"
		       "forkgate_%s_seconds_sum %.9f\nforkgate_%s_seconds_count %" PRIu64 "\n",
		       histogram->name, histogram->count, histogram->name, histogram->sum / 1e9,
		       histogram->name, histogram->count);
	}
}

int cmd_stat(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "prometheus", no_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	void (*print)(void) = print_text;
	int option, loaded;
	char number[32];

	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (option) {
		case 'j':
		case 'p':
			if (print != print_text)
				return cmd_usage_error(usage, "choose --json or --prometheus");
			print = option == 'j' ? print_json : print_prometheus;
			break;
		case 'h':
			return cmd_help(usage);
		default:
			return cmd_usage_error(usage, "unknown option \"%s\"", argv[optind - 1]);
		}
	}
	if (optind < argc)
		return cmd_usage_error(usage, "unknown argument \"%s\"", argv[optind]);

	loaded = device_find_module(number);
	if (print == print_prometheus && !loaded) {
		print_protection(false);
		return cmd_flush();
	}
	if (!read_stats() || !read_gauges())
		return CMD_PROBLEM;
	print();
	return cmd_flush();
}
