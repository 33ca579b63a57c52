/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * prog.h - a program of the fuzzer, and the memory that it shares with those who run it
 *
 * A program is a few scripts: short lists of operations. The first ones are run by the threads of
 * the victim, a process that is made for each program; the others by children, more threads and
 * signal handlers, as operations say. It must not know what an operation does: that is in ops.c.
 */
#ifndef FUZZ_PROG_H
#define FUZZ_PROG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define SCRIPTS		6
#define OPS		14	/* of a script */
#define ARGS		4
#define TASKS		16	/* that others can name; more may run */
#define DEVICE_FD	10
#define MAX_OPS		1000	/* of all tasks of a program */
#define LOGGED		256
#define STACKS		160	/* of threads and of children that share memory */

struct op {
	uint32_t code;
	uint32_t arg[ARGS];
};

struct script {
	uint32_t n;
	struct op op[OPS];
};

struct prog {
	uint32_t threads;
	struct script script[SCRIPTS];
};

/**
 * struct op_type - an operation
 * @name: in texts of programs
 * @args: what each argument is, for those who make programs: see new_arg()
 * @run: do it; returns what the system call did
 */
struct ctx;
struct op_type {
	const char *name;
	const char *args;
	long (*run)(struct ctx *ctx, const uint32_t *arg);
};

extern const struct op_type op_types[];
extern const unsigned int nr_op_types;

/**
 * struct shared - between the fuzzer and all tasks of a victim
 * @prog: what they run
 * @tasks: how many there were
 * @stacks: stacks taken
 * @ops: operations begun
 * @freeze: ms for which the fuzzer is asked to freeze the victim, once
 * @event: of post and await
 * @handler: the script of each signal's handler
 * @tid: of the first tasks
 * @slot: where the slot of each lies in the mapping, or 0
 * @logged: how many of @log there are, or were
 * @log: what operations returned
 */
struct shared {
	struct prog prog;
	uint32_t tasks;
	uint32_t stacks;
	uint32_t ops;
	uint32_t freeze;
	uint32_t event[8];
	uint32_t handler[65];
	uint32_t tid[TASKS];
	uint32_t slot[TASKS];
	uint32_t logged;
	struct {
		uint32_t task;
		uint32_t code;
		uint32_t arg[ARGS];
		int32_t ret;
	} log[LOGGED];
};

extern struct shared *shared;

/* ops.c */
void ops_init(void);
int victim_start(int cgroup);
int after_exec(void);

#endif /* FUZZ_PROG_H */
