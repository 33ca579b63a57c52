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
 */
struct run_settings {
	unsigned long long timeout;
	unsigned long long patience;
	unsigned int on_timeout;
	unsigned int domains;
	unsigned int verbose;
};

#define RUN_SETTINGS_DEFAULT {						\
	.timeout = 5000000000ULL,					\
	.patience = 100000000ULL,					\
	.on_timeout = FORKGATE_PROCEED,					\
	.domains = FORKGATE_MEMORY,					\
}

/* As five numbers with a letter between them; without stdio, see originals.c */
#define RUN_FORMAT	"%llup%lluo%ud%uv%u"

static inline struct run_settings run_settings(void)
{
	struct run_settings settings = RUN_SETTINGS_DEFAULT;
	const char *text = getenv(RUN_VARIABLE);
	unsigned long long numbers[5];
	char *end;
	int i;

	if (!text)
		return settings;
	for (i = 0; i < 5; i++) {
		numbers[i] = strtoull(text, &end, 10);
		if (end == text || *end != "podv"[i])
			return settings;
		text = end + 1;
	}
	settings.timeout = numbers[0];
	settings.patience = numbers[1];
	settings.on_timeout = numbers[2];
	settings.verbose = numbers[4];
	if (numbers[3] - 1 < FORKGATE_DOMAINS)
		settings.domains = numbers[3];
	return settings;
}

#endif /* FORKGATE_RUN_H */
