/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * cmd.h - what the parts of the command share: its subcommands, messages, the
 * terminal, JSON and names of code addresses
 *
 * Must not know what a gate is: that is in gates.h.
 */
#ifndef FORKGATE_CMD_H
#define FORKGATE_CMD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof(*(array)))

/* Exit statuses; trace ends as its program does, and with those of env(1). */
enum {
	CMD_OK,
	CMD_PROBLEM,
	CMD_USAGE,
	CMD_TRACE_FAILED = 125,
	CMD_CANNOT_RUN = 126,
	CMD_NOT_FOUND = 127,
};

/* The subcommands: as main() */
int cmd_ps(int argc, char **argv);
int cmd_watch(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_run(int argc, char **argv);

/* Messages on standard error, after the name of the subcommand */
extern const char *cmd_name;
void cmd_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
int cmd_usage_error(const char *usage, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
int cmd_help(const char *usage);

/*
 * cmd_children - let this program wait for its children, where whoever started it
 * has SIGCHLD ignored; cmd_execvp - as execvp(), with SIGCHLD as it was before
 */
void cmd_children(void);
void cmd_execvp(const char *file, char **argv);

/* cmd_flush - did all that was printed arrive? CMD_OK or CMD_PROBLEM */
int cmd_flush(void);

/*
 * Colours: empty strings unless standard output is a terminal that wants them.
 * They tell nothing that the words do not, and differ in more than the hue: red
 * is bold, what must not be missed is reversed.
 */
extern const char *cmd_bold, *cmd_red, *cmd_cyan, *cmd_yellow, *cmd_reverse, *cmd_plain;
void cmd_colours(void);

/*
 * cmd_printable - replace by "?" what would do something to a terminal: control
 * characters, and what is not UTF-8. Names and labels are those of any user.
 */
void cmd_printable(char *text);

/* cmd_read - a whole file with a zero byte behind it, or NULL with errno; to be freed */
char *cmd_read(const char *path);

/* cmd_contains - is this text in that file? */
bool cmd_contains(const char *path, const char *text);

/* cmd_now - CLOCK_MONOTONIC, ns */
uint64_t cmd_now(void);

/* cmd_time - nanoseconds for people: "1.2 ms"; one of a few static buffers */
const char *cmd_time(uint64_t ns);

/* A string in JSON, with its quotes; bytes that are no UTF-8 become "?" */
void json_string(FILE *out, const char *string);

/* The same in XML, without quotes */
void xml_string(FILE *out, const char *string);

/**
 * symbol_name - name of a code address: "function+0x1f (program)"
 * @tgid: the process
 * @site: the address in it
 *
 * Return: a static buffer; the bare address if nothing better is known.
 */
const char *symbol_name(pid_t tgid, uint64_t site);

/*
 * symbol_initial_pids - does /proc know processes by the ids that the module
 * names, those of the initial pid namespace? Names are looked up only then.
 */
bool symbol_initial_pids(void);

/* symbol_forget - processes may have executed other programs since */
void symbol_forget(void);

#endif /* FORKGATE_CMD_H */
