// SPDX-License-Identifier: GPL-2.0-only
/*
 * functions - a plugin for QEMU that counts executed instructions by address
 *
 * Between two marks that the measured program executes, see MARK in count.c.
 * After the second it prints a line "== NUMBER" and then "ADDRESS COUNT" for
 * each instruction that was executed, to the file that the environment's
 * FORKGATE_FUNCTIONS names. One processor only. The interface of plugins
 * (version 4, QEMU 9.2 and later) is declared here because no package has its
 * header. It must not change what the machine does.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;

typedef void (*on_translation)(uint64_t id, struct qemu_plugin_tb *tb);
typedef void (*on_execution)(unsigned int cpu, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, on_translation callback);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, on_execution callback,
					    int registers, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *buffer, size_t size);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);

int qemu_plugin_version = 4;
int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv);

#define PLACES	1048576

static struct place {
	uint64_t address, count;
} places[PLACES];

static FILE *out;
static int counting, number;

/* By hashing; a machine translates far less than there are places. */
static struct place *place_of(uint64_t address)
{
	size_t i = (address * 0x9e3779b97f4a7c15ULL) >> 44;	/* 20 bits */

	while (places[i].address && places[i].address != address)
		i = (i + 1) % PLACES;
	places[i].address = address;
	return &places[i];
}

static void executed(unsigned int cpu, void *place)
{
	((struct place *)place)->count += counting;
}

static void begin(unsigned int cpu, void *unused)
{
	counting = 1;
}

static void end(unsigned int cpu, void *unused)
{
	size_t i;

	counting = 0;
	fprintf(out, "== %d\n", number++);
	for (i = 0; i < PLACES; i++) {
		if (places[i].count)
			fprintf(out, "%llx %llu\n", (unsigned long long)places[i].address,
				(unsigned long long)places[i].count);
		places[i].count = 0;
	}
	fflush(out);
}

/* MARK(n) of count.c: a long nop with a number in it. Return: n, or 0. */
static int mark_of(const struct qemu_plugin_insn *insn)
{
	static const unsigned char nop[] = { 0x0f, 0x1f, 0x80 }, name[] = "FGK";
	unsigned char code[7];

	if (qemu_plugin_insn_size(insn) != sizeof(code) ||
	    qemu_plugin_insn_data(insn, code, sizeof(code)) != sizeof(code) ||
	    memcmp(code, nop, sizeof(nop)) || memcmp(code + 4, name, 3))
		return 0;
	return code[3];
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	struct qemu_plugin_insn *insn;
	struct place *place;
	size_t i;

	for (i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		insn = qemu_plugin_tb_get_insn(tb, i);
		switch (mark_of(insn)) {
		case 0:
			place = place_of(qemu_plugin_insn_vaddr(insn));
			qemu_plugin_register_vcpu_insn_exec_cb(insn, executed, 0, place);
			break;
		case 1:
			qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, 0, NULL);
			break;
		default:
			qemu_plugin_register_vcpu_insn_exec_cb(insn, end, 0, NULL);
		}
	}
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
	const char *path = getenv("FORKGATE_FUNCTIONS");

	out = path ? fopen(path, "w") : NULL;
	if (!out)
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
