// SPDX-License-Identifier: GPL-2.0-only
/*
 * gates.c - reads the module's list of gates, and prints it for people
 *
 * A line is a word that says what it is about, and NAME=VALUE words. What is
 * not known here is skipped, so that a newer module can say more.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "device.h"
#include "gates.h"

const char * const gates_counters[GATES_COUNTERS] = {
	[GATES_FORKS] = "forks", "phases", "yields", "expired", "timeouts", "deadlocks",
	[GATES_UNSAFE] = "unsafe", "abandoned", [GATES_BYPASSES] = "bypasses",
};

const char *gates_value(const char *line, const char *name)
{
	size_t length = strlen(name);
	const char *at = line;

	while ((at = strstr(at, name))) {
		if (at > line && at[-1] == ' ' && at[length] == '=')
			return at + length + 1;
		at += length;
	}
	return "";
}

uint64_t gates_number(const char *line, const char *name)
{
	return strtoull(gates_value(line, name), NULL, 0);
}

unsigned int gates_set(const char *line, const char *name)
{
	const char *text = gates_value(line, name);
	unsigned int set = 0;

	if (!strncmp(text, "memory", 6)) {
		set |= FORKGATE_MEMORY;
		text += text[6] == ',' ? 7 : 6;
	}
	if (!strncmp(text, "files", 5))
		set |= FORKGATE_FILES;
	return set;
}

static unsigned char octal(const char *s)
{
	return (s[0] - '0') << 6 | (s[1] - '0') << 3 | (s[2] - '0');
}

static bool is_octal(const char *s)
{
	return s[0] >= '0' && s[0] <= '3' && s[1] >= '0' && s[1] <= '7' && s[2] >= '0' &&
	       s[2] <= '7';
}

/* A word as the program wrote it, printable */
static void name(const char *line, const char *field, char *out, size_t size)
{
	const char *in = gates_value(line, field);
	unsigned char c;
	size_t i;

	for (i = 0; i + 1 < size && *in && *in != ' '; i++) {
		c = *in++;
		if (c == '\\' && is_octal(in)) {
			c = octal(in);
			in += 3;
		}
		out[i] = c ? c : '?';
	}
	out[i] = '\0';
	cmd_printable(out);
}

/* Room for one more element of an array that grows by doubling */
static void *grow(void *array, size_t count, size_t size)
{
	if (count & (count - 1))
		return array;
	array = realloc(array, (count ? 2 * count : 1) * size);
	if (!array) {
		cmd_error("out of memory");
		exit(CMD_PROBLEM);
	}
	return array;
}

#define ADD(array, count) \
	((array) = grow((array), (count), sizeof(*(array))), \
	 memset(&(array)[count], 0, sizeof(*(array))), &(array)[(count)++])

static void parse_gate(struct gate *gate, const char *line)
{
	int i;

	gate->tgid = gates_number(line, "tgid");
	name(line, "comm", gate->comm, sizeof(gate->comm));
	gate->closed = gates_set(line, "closed");
	gate->closed_ns = gates_number(line, "closed_ns");
	gate->threads = gates_number(line, "threads");
	gate->blocked = gates_number(line, "blocked");
	for (i = 0; i < GATES_COUNTERS; i++)
		gate->counters[i] = gates_number(line, gates_counters[i]);
}

static void parse_policy(struct gate *gate, const char *line)
{
	gate->patience = gates_number(line, "patience");
	gate->ticket_hold = gates_number(line, "ticket_hold");
	gate->timeout = gates_number(line, "timeout");
	gate->backstop = gates_number(line, "backstop");
	gate->proceed = !strncmp(gates_value(line, "on_timeout"), "proceed", 7);
}

static void parse_fork(struct gate *gate, const char *line)
{
	struct gates_fork *fork = ADD(gate->forks, gate->nr_forks);

	fork->tid = gates_number(line, "tid");
	fork->slot = strtol(gates_value(line, "slot"), NULL, 10);
	fork->queued = !strncmp(gates_value(line, "list"), "queue", 5);
	name(line, "state", fork->state, sizeof(fork->state));
	fork->need = gates_set(line, "need");
	fork->ticket = gates_number(line, "ticket");
	fork->wait_ns = gates_number(line, "wait_ns");
}

static void parse_entry(struct gate *gate, const char *line)
{
	struct gates_entry *entry = ADD(gate->entries, gate->nr_entries);

	entry->tid = gates_number(line, "tid");
	entry->domains = gates_set(line, "domains");
	entry->nested = gates_number(line, "nested");
	entry->wait_ns = gates_number(line, "wait_ns");
}

static void parse_holder(struct gate *gate, const char *line)
{
	struct gates_holder *holder = ADD(gate->holders, gate->nr_holders);
	const char *depth = gates_value(line, "depth");
	char *end;

	holder->tid = gates_number(line, "tid");
	holder->slot = strtol(gates_value(line, "slot"), NULL, 10);
	holder->domains = gates_set(line, "domains");
	holder->depth[0] = strtoul(depth, &end, 10);
	holder->depth[1] = *end == ',' ? strtoul(end + 1, NULL, 10) : 0;
	holder->site = gates_number(line, "site");
	name(line, "label", holder->label, sizeof(holder->label));
}

static const struct {
	const char *word;
	void (*parse)(struct gate *gate, const char *line);
} lines[] = {
	{ " policy ", parse_policy },
	{ " fork ", parse_fork },
	{ " enter ", parse_entry },
	{ " inside ", parse_holder },
};

static int by_tgid(const void *a, const void *b)
{
	return ((const struct gate *)a)->tgid - ((const struct gate *)b)->tgid;
}

void gates_open_error(const char *path, int error)
{
	struct trouble trouble;

	if (error == EACCES || error == EPERM || (error == ENOENT && geteuid()))
		cmd_error("%s: only root may read this.\n"
			  "A program can read the state of its own gate, see forkgate_state(3).",
			  path);
	else if (error == ENOENT && device_not_loaded(&trouble))
		cmd_error("%s\n%s", trouble.what, trouble.cure);
	else if (error == ENOENT && device_contained())
		cmd_error("%s does not exist.\nRun this on the host, outside of containers.",
			  path);
	else if (error == ENOENT)
		cmd_error("%s does not exist.\n"
			  "Mount debugfs: mount -t debugfs none /sys/kernel/debug", path);
	else
		cmd_error("%s: %s", path, strerror(error));
}

bool gates_read(struct gates *gates)
{
	static const char path[] = GATES_DIR "/gates";
	struct gate *gate = NULL;
	char *text, *line, *next;
	size_t i;

	memset(gates, 0, sizeof(*gates));
	text = cmd_read(path);
	if (!text) {
		gates_open_error(path, errno);
		return false;
	}
	for (line = text; *line; line = next) {
		next = strchr(line, '\n');
		if (!next)
			break;
		*next++ = '\0';
		if (!strncmp(line, "gate ", 5)) {
			gate = ADD(gates->gates, gates->count);
			parse_gate(gate, line);
		} else if (gate && !strcmp(line, " more")) {
			gate->cut = true;
		}
		for (i = 0; gate && i < ARRAY_SIZE(lines); i++)
			if (!strncmp(line, lines[i].word, strlen(lines[i].word)))
				lines[i].parse(gate, line);
	}
	free(text);
	if (gates->count)
		qsort(gates->gates, gates->count, sizeof(*gates->gates), by_tgid);
	return true;
}

void gates_free(struct gates *gates)
{
	size_t i;

	for (i = 0; i < gates->count; i++) {
		free(gates->gates[i].forks);
		free(gates->gates[i].entries);
		free(gates->gates[i].holders);
	}
	free(gates->gates);
}

bool gates_waits(const struct gates_fork *fork)
{
	return !strcmp(fork->state, "queued") || !strcmp(fork->state, "draining");
}

bool gates_blocks(const struct gates_holder *holder, const struct gates_fork *fork)
{
	/* A slot is the thread's own, or that of its suspended parent. */
	return gates_waits(fork) && holder->domains & fork->need && holder->slot != fork->slot;
}

const char *gates_domains(unsigned int set)
{
	static const char * const names[] = { "nothing", "memory", "files", "memory,files" };

	return names[set & FORKGATE_DOMAINS];
}

const char *gates_comm(pid_t tgid, pid_t tid)
{
	static char comm[64];
	char path[64], *text;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", tgid, tid);
	text = symbol_initial_pids() ? cmd_read(path) : NULL;
	snprintf(comm, sizeof(comm), "%s", text ? text : "");
	free(text);
	if (*comm)
		comm[strlen(comm) - 1] = '\0';
	cmd_printable(comm);
	return comm;
}

const char *gates_section(const struct gate *gate, const struct gates_holder *holder)
{
	static char text[512];
	const char *symbol = symbol_name(gate->tgid, holder->site);

	if (*holder->label)
		snprintf(text, sizeof(text), "\"%s\" at %s", holder->label, symbol);
	else
		snprintf(text, sizeof(text), "%s", symbol);
	return text;
}

static void print_fork(const struct gate *gate, const struct gates_fork *fork, FILE *out)
{
	const struct gates_holder *holder;
	size_t i, blockers = 0;

	fprintf(out, "  %-8s %7d %-15s ", fork->ticket ? "prepare" : "fork", fork->tid,
		gates_comm(gate->tgid, fork->tid));
	if (!gates_waits(fork)) {
		fprintf(out, "%s%s%s %s\n", cmd_cyan,
			!strcmp(fork->state, "ticket") ? "holds a ticket for" : "copies", cmd_plain,
			gates_domains(fork->need));
		return;
	}
	fprintf(out, "%swaits %s%s for %s%s\n", cmd_red, cmd_time(fork->wait_ns), cmd_plain,
		gates_domains(fork->need), fork->queued ? " (the next phase)" : "");
	for (i = 0; i < gate->nr_holders; i++) {
		holder = &gate->holders[i];
		if (!gates_blocks(holder, fork))
			continue;
		blockers++;
		fprintf(out, "    %s%d %s in %s%s\n",
			blockers == 1 ? "blocked by " : "       and ", holder->tid,
			gates_comm(gate->tgid, holder->tid), gates_section(gate, holder),
			holder->domains & ~fork->need ? " (and in another domain)" : "");
	}
	if (!blockers)
		fprintf(out, "    its turn comes after the other forks\n");
}

void gates_print(const struct gate *gate, FILE *out)
{
	uint64_t forks = gate->counters[GATES_FORKS];
	uint64_t unsafe = gate->counters[GATES_UNSAFE] + gate->counters[GATES_BYPASSES];
	size_t i;

	fprintf(out, "%s%7d %-15s%s %u thread%s, %" PRIu64 " fork%s so far, ", cmd_bold, gate->tgid,
		gate->comm, cmd_plain, gate->threads, gate->threads == 1 ? "" : "s", forks,
		forks == 1 ? "" : "s");
	if (unsafe)
		fprintf(out, "%s%s%" PRIu64 " unsafe cop%s%s, ", cmd_red, cmd_reverse, unsafe,
			unsafe == 1 ? "y" : "ies", cmd_plain);
	if (gate->closed)
		fprintf(out, "%sclosed%s for %s: %s\n", cmd_yellow, cmd_plain,
			cmd_time(gate->closed_ns), gates_domains(gate->closed));
	else
		fprintf(out, "open\n");
	for (i = 0; i < gate->nr_forks; i++)
		print_fork(gate, &gate->forks[i], out);
	for (i = 0; i < gate->nr_holders; i++) {
		const struct gates_holder *holder = &gate->holders[i];

		fprintf(out, "  %-8s %7d %-15s %s, %s\n", "inside", holder->tid,
			gates_comm(gate->tgid, holder->tid), gates_domains(holder->domains),
			gates_section(gate, holder));
	}
	for (i = 0; i < gate->nr_entries; i++) {
		const struct gates_entry *entry = &gate->entries[i];

		fprintf(out, "  %-8s %7d %-15s %swaits %s%s for %s\n", "enters", entry->tid,
			gates_comm(gate->tgid, entry->tid), cmd_yellow, cmd_time(entry->wait_ns),
			cmd_plain, gates_domains(entry->domains));
	}
	if (gate->cut)
		fprintf(out, "  and more that the module does not list\n");
}
