// SPDX-License-Identifier: GPL-2.0-only
/*
 * ps.c - forkgate ps: all gates, once, for people or in JSON
 */
#include <getopt.h>
#include <inttypes.h>

#include "cmd.h"
#include "gates.h"

static const char usage[] =
	"usage: forkgate ps [--json]\n"
	"\n"
	"Lists the gates of all processes: who is inside sections, which forks wait, who\n"
	"they wait for, and who waits to enter. Needs root.\n"
	"\n"
	"  --json  in JSON, for programs\n";

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

static void json_gates(const struct gates *gates)
{
	size_t i;

	printf("{\"gates\": [");
	for (i = 0; i < gates->count; i++) {
		printf("%s", i ? ",\n " : "");
		json_gate(&gates->gates[i]);
	}
	printf("]}\n");
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
	int option;

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
	if (optind < argc)
		return cmd_usage_error(usage, "unknown argument \"%s\"", argv[optind]);

	if (!gates_read(&gates))
		return CMD_PROBLEM;
	if (!symbol_initial_pids())
		cmd_error("process ids are those of the initial pid namespace; run this there\n"
			  "to see the names of threads and functions");
	if (json)
		json_gates(&gates);
	else
		gates_print(&gates, stdout);
	gates_free(&gates);
	return cmd_flush();
}
