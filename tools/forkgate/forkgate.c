// SPDX-License-Identifier: GPL-2.0-only
/*
 * forkgate - shows what fork gates do, and runs programs with them
 *
 * Only finds the subcommand; each has a file of its own. See forkgate(1).
 */
#include <string.h>

#include "../../module/version.h"
#include "cmd.h"

static const struct {
	const char *name;
	int (*main)(int argc, char **argv);
	const char *what;
} commands[] = {
	{ "run", cmd_run, "run an unmodified program with a gate" },
	{ "ps", cmd_ps, "list gates, sections, waiting forks and who they wait for" },
	{ "watch", cmd_watch, "show the same continuously" },
	{ "stat", cmd_stat, "print counters, and how long waits took" },
	{ "check", cmd_check, "check whether forks wait here, and say what to do if not" },
	{ "trace", cmd_trace, "run a program and draw a timeline of its forks" },
};

static void overview(FILE *out)
{
	size_t i;

	fprintf(out, "usage: forkgate COMMAND [ARGUMENT...]\n\n");
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-6s %s\n", commands[i].name, commands[i].what);
	fprintf(out, "\n\"forkgate COMMAND --help\" says more; so does forkgate(1).\n");
}

int main(int argc, char **argv)
{
	size_t i;

	if (argc < 2) {
		overview(stderr);
		return CMD_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		overview(stdout);
		return cmd_flush();
	}
	if (!strcmp(argv[1], "--version")) {
		puts("forkgate " FG_VERSION);
		return cmd_flush();
	}
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		cmd_name = commands[i].name;
		cmd_colours();
		cmd_children();
		return commands[i].main(argc - 1, argv + 1);
	}
	fprintf(stderr, "forkgate: unknown command \"%s\"\n\n", argv[1]);
	overview(stderr);
	return CMD_USAGE;
}
