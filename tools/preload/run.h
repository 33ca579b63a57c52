/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * run.h - what "forkgate run" tells the preloaded library, by the environment
 *
 * Private to these two, which are installed together. Must compile into both.
 */
#ifndef FORKGATE_RUN_H
#define FORKGATE_RUN_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <linux/forkgate.h>

#define RUN_VARIABLE	"FORKGATE_RUN"

/**
 * struct run_settings - the options of "forkgate run"
 * @timeout: ns that a fork waits, or FORKGATE_FOREVER
 * @patience: ns
 * @on_timeout: FORKGATE_FAIL or FORKGATE_PROCEED
 * @domains: of all sections
 * @verbose: each program says whether it is protected
 * @require_module: each program ends at once if it is not protected by the module
 * @pid: of the process that was the command; always says which locks are not seen
 */
struct run_settings {
	unsigned long long timeout;
	unsigned long long patience;
	unsigned int on_timeout;
	unsigned int domains;
	unsigned int verbose;
	unsigned int require_module;
	unsigned int pid;
};

#define RUN_SETTINGS_DEFAULT {						\
	.timeout = 5000000000ULL,					\
	.patience = 100000000ULL,					\
	.on_timeout = FORKGATE_PROCEED,					\
	.domains = FORKGATE_MEMORY,					\
}

/* As numbers with a letter behind each; without stdio, see originals.c */
#define RUN_FORMAT	"%llup%lluo%ud%uv%um%ui%u"
#define RUN_LETTERS	"podvmi"	/* and the end of the string */
#define RUN_NUMBERS	sizeof(RUN_LETTERS)

#define RUN_REFUSED	125	/* the status of what is not run, as of env(1) */

static inline struct run_settings run_settings(void)
{
	struct run_settings settings = RUN_SETTINGS_DEFAULT;
	const char *text = getenv(RUN_VARIABLE);
	unsigned long long numbers[RUN_NUMBERS];
	char *end;
	size_t i;

	if (!text)
		return settings;
	for (i = 0; i < RUN_NUMBERS; i++) {
		numbers[i] = strtoull(text, &end, 10);
		if (end == text || *end != RUN_LETTERS[i])
			return settings;
		text = end + 1;
	}
	settings.timeout = numbers[0];
	settings.patience = numbers[1];
	settings.on_timeout = numbers[2];
	settings.verbose = numbers[4];
	settings.require_module = numbers[5];
	settings.pid = numbers[6];
	if (numbers[3] - 1 < FORKGATE_DOMAINS)
		settings.domains = numbers[3];
	return settings;
}

#endif /* FORKGATE_RUN_H */
