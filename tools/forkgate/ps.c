// SPDX-License-Identifier: GPL-2.0-only
/*
 * ps.c - forkgate ps: all gates, once, for people or in JSON
 */
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "gates.h"

static const char usage[] =
	"usage: forkgate ps [--json] [PID...]\n"
	"\n"
	"Lists the gates of all processes, or of those named: who is inside sections, which\n"
	"forks wait, who they wait for, and who waits to enter. Needs root.\n"
	"\n"
	"  --json  print JSON, for programs\n";

static void json_domains(const char *field, unsigned int domains)
{
	printf("\"%s\": [%s%s%s]", field, domains & FORKGATE_MEMORY ? "\"memory\"" : "",
	       domains == FORKGATE_DOMAINS ? ", " : "",
	       domains & FORKGATE_FILES ? "\"files\"" : "");
}

static void json_thread(const struct gate *gate, pid_t tid)
{
	printf("{\"tid\": %d, \"comm\": ", tid);
	json_string(stdout, gates_comm(gate->tgid, tid));
	printf(", ");
}

/* Times without end are null. */
static void json_time(const char *field, uint64_t ns)
{
	if (ns == FORKGATE_FOREVER)
		printf("\"%s\": null, ", field);
	else
		printf("\"%s\": %" PRIu64 ", ", field, ns);
}

static void json_fork(const struct gate *gate, const struct gates_fork *fork)
{
	bool more = false;
	size_t i;

	json_thread(gate, fork->tid);
	printf("\"state\": ");
	json_string(stdout, fork->state);
	printf(", \"ticket\": %s, ", fork->ticket ? "true" : "false");
	json_domains("need", fork->need);
	printf(", \"wait_ns\": %" PRIu64 ", \"blocked_by\": [", fork->wait_ns);
	for (i = 0; i < gate->nr_holders; i++) {
		if (!gates_blocks(&gate->holders[i], fork))
			continue;
		printf("%s%d", more ? ", " : "", gate->holders[i].tid);
		more = true;
	}
	printf("]}");
}

static void json_holder(const struct gate *gate, const struct gates_holder *holder)
{
	json_thread(gate, holder->tid);
	json_domains("domains", holder->domains);
	printf(", \"depth\": {\"memory\": %u, \"files\": %u}", holder->depth[0],
	       holder->depth[1]);
	printf(", \"site\": \"%#" PRIx64 "\", \"symbol\": ", holder->site);
	json_string(stdout, symbol_name(gate->tgid, holder->site));
	printf(", \"label\": ");
	if (*holder->label)
		json_string(stdout, holder->label);
	else
		printf("null");
	printf("}");
}

static void json_entry(const struct gate *gate, const struct gates_entry *entry)
{
	json_thread(gate, entry->tid);
	json_domains("domains", entry->domains);
	printf(", \"nested\": %s, \"wait_ns\": %" PRIu64 "}", entry->nested ? "true" : "false",
	       entry->wait_ns);
}

static void json_gate(const struct gate *gate)
{
	size_t i;

	printf("{\"tgid\": %d, \"comm\": ", gate->tgid);
	json_string(stdout, gate->comm);
	printf(", ");
	json_domains("closed", gate->closed);
	printf(", \"closed_ns\": %" PRIu64 ", \"threads\": %u, \"blocked\": %u, \"complete\": %s",
	       gate->closed_ns, gate->threads, gate->blocked, gate->cut ? "false" : "true");
	printf(",\n  \"counters\": {");
	for (i = 0; i < GATES_COUNTERS; i++)
		printf("%s\"%s\": %" PRIu64, i ? ", " : "", gates_counters[i], gate->counters[i]);
	printf("},\n  \"policy\": {");
	json_time("patience", gate->patience);
	json_time("ticket_hold", gate->ticket_hold);
	json_time("timeout", gate->timeout);
	json_time("backstop", gate->backstop);
	printf("\"on_timeout\": \"%s\"},\n  \"forks\": [", gate->proceed ? "proceed" : "fail");
	for (i = 0; i < gate->nr_forks; i++) {
		printf("%s", i ? ",\n    " : "");
		json_fork(gate, &gate->forks[i]);
	}
	printf("],\n  \"inside\": [");
	for (i = 0; i < gate->nr_holders; i++) {
		printf("%s", i ? ",\n    " : "");
		json_holder(gate, &gate->holders[i]);
	}
	printf("],\n  \"entering\": [");
	for (i = 0; i < gate->nr_entries; i++) {
		printf("%s", i ? ",\n    " : "");
		json_entry(gate, &gate->entries[i]);
	}
	printf("]}");
}

/* A process id, or 0 */
static pid_t parse_pid(const char *word)
{
	unsigned long pid;

	if (!*word || strspn(word, "0123456789") != strlen(word))
		return 0;
	pid = strtoul(word, NULL, 10);
	return pid <= INT_MAX ? pid : 0;
}

static bool is_named(const struct gate *gate, char **pids)
{
	if (!*pids)
		return true;
	for (; *pids; pids++)
		if (parse_pid(*pids) == gate->tgid)
			return true;
	return false;
}

/* Why there is nothing to print about a process */
static void explain(pid_t pid)
{
	char path[32], *text, *tgid;

	if (!symbol_initial_pids()) {
		cmd_error("no process %d of the initial pid namespace has a gate", pid);
		return;
	}
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	text = cmd_read(path);
	tgid = text ? strstr(text, "\nTgid:") : NULL;
	if (!tgid)
		cmd_error("there is no process %d", pid);
	else if (atoi(tgid + 6) != pid)
		cmd_error("%d is a thread of process %d", pid, atoi(tgid + 6));
	else
		cmd_error("process %d has no gate", pid);
	free(text);
}

static int print(const struct gates *gates, char **pids, bool json)
{
	int status = CMD_OK, printed = 0;
	size_t i;

	if (json)
		printf("{\"gates\": [");
	for (i = 0; i < gates->count; i++) {
		if (!is_named(&gates->gates[i], pids))
			continue;
		if (json && printed++)
			printf(",\n ");
		if (json)
			json_gate(&gates->gates[i]);
		else
			gates_print(&gates->gates[i], stdout);
	}
	if (json)
		printf("]}\n");
	else if (!gates->count && !*pids)
		printf("No process has a gate.\n");

	for (; *pids; pids++) {
		pid_t pid = parse_pid(*pids);

		for (i = 0; i < gates->count && gates->gates[i].tgid != pid; i++)
			;
		if (i < gates->count)
			continue;
		explain(pid);
		status = CMD_PROBLEM;
	}
	return status;
}

int cmd_ps(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	struct gates gates;
	bool json = false;
	int option, i, status;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (option) {
		case 'j':
			json = true;
			break;
		case 'h':
			return cmd_help(usage);
		default:
			return cmd_usage_error(usage, "unknown option \"%s\"", argv[optind - 1]);
		}
	}
	for (i = optind; i < argc; i++)
		if (!parse_pid(argv[i]))
			return cmd_usage_error(usage, "invalid process id \"%s\"", argv[i]);

	if (!gates_read(&gates))
		return CMD_PROBLEM;
	if (!symbol_initial_pids())
		cmd_error("process ids are those of the initial pid namespace; run this there\n"
			  "to see the names of threads and functions");
	status = print(&gates, argv + optind, json);
	gates_free(&gates);
	return cmd_flush() ? CMD_PROBLEM : status;
}
