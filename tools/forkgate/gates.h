/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * gates.h - all gates of the machine, as the module tells root, see forkgate(4)
 */
#ifndef FORKGATE_GATES_H
#define FORKGATE_GATES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <linux/forkgate.h>

#define GATES_DIR	"/sys/kernel/debug/forkgate"
#define GATES_NAME_SIZE	(4 * FORKGATE_LABEL_SIZE + 1)

/* Those of the counters that are looked at one by one */
enum {
	GATES_FORKS = 0, GATES_UNSAFE = 6, GATES_BYPASSES = 8, GATES_COUNTERS,
};

/* Names of the counters, as in struct forkgate_state */
extern const char * const gates_counters[GATES_COUNTERS];

struct gates_fork {
	pid_t tid;
	int slot;
	bool queued, ticket;
	char state[16];
	unsigned int need;
	uint64_t wait_ns;
};

struct gates_entry {
	pid_t tid;
	unsigned int domains;
	bool nested;
	uint64_t wait_ns;
};

struct gates_holder {
	pid_t tid;
	int slot;
	unsigned int domains, depth[2];
	uint64_t site;
	char label[GATES_NAME_SIZE];
};

struct gate {
	pid_t tgid;
	char comm[GATES_NAME_SIZE];
	unsigned int closed, threads, blocked;
	uint64_t closed_ns;
	uint64_t counters[GATES_COUNTERS];
	uint64_t patience, ticket_hold, timeout, backstop;
	bool proceed, cut;	/* cut: not all is listed */
	struct gates_fork *forks;
	struct gates_entry *entries;
	struct gates_holder *holders;
	size_t nr_forks, nr_entries, nr_holders;
};

struct gates {
	struct gate *gates;
	size_t count;
};

/* gates_read - by process id; false after a message if that is not possible */
bool gates_read(struct gates *gates);
void gates_free(struct gates *gates);

/* gates_open_error - why a file of the module cannot be read, and what to do */
void gates_open_error(const char *path, int error);

/*
 * The words of a line: the value behind " NAME=" or "", the same as a number, and
 * as a set of domains
 */
const char *gates_value(const char *line, const char *name);
uint64_t gates_number(const char *line, const char *name);
unsigned int gates_set(const char *line, const char *name);

/* gates_waits - does a fork wait, and does it wait for this thread? */
bool gates_waits(const struct gates_fork *fork);
bool gates_blocks(const struct gates_holder *holder, const struct gates_fork *fork);

/* gates_domains - "memory,files" */
const char *gates_domains(unsigned int domains);

/* gates_comm - name of a thread, printable; a static buffer */
const char *gates_comm(pid_t tgid, pid_t tid);

/* gates_section - what a holder is inside of: its label, or where it is */
const char *gates_section(const struct gate *gate, const struct gates_holder *holder);

/* gates_print - one of them, for people */
void gates_print(const struct gate *gate, FILE *out);

#endif /* FORKGATE_GATES_H */
