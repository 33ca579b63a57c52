/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * step.h - forced schedules: debugfs's "steps", in modules built for debugging
 *
 * A test that holds a step must let it go again, or reset them all, before it
 * waits for who comes by there.
 */
#ifndef TEST_STEP_H
#define TEST_STEP_H

#include "gate.h"
#include "proc.h"

#define STEPS		DEBUGFS "/steps"
#define NO_STEPS	"no forced schedules: not root, no debugfs, or a module without FORKGATE_DEBUG"

static inline bool have_steps(void)
{
	struct forkgate_query query = {};
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
	long ret;

	if (fd < 0)
		return false;
	ret = ioctl(fd, FORKGATE_IOC_QUERY, &query);
	close(fd);
	return !ret && query.features & FORKGATE_FEATURE_DEBUG && !access(STEPS, W_OK);
}

static inline int steps_reset(void)
{
	return write_file(STEPS, "reset");
}

/* step_field - a number from the line of a step, -1 without one */
static inline long step_field(const char *name, const char *field)
{
	size_t length = strlen(name);
	char text[4096], *line, *end;

	if (read_file(STEPS, text, sizeof(text)) <= 0)
		return -1;
	for (line = text; *line; line = end + 1) {
		end = strchr(line, '\n');
		if (!end)
			break;
		if (strncmp(line, name, length) || line[length] != ' ')
			continue;
		*end = '\0';
		line = strstr(line, field);
		return line ? atol(line + strlen(field)) : -1;
	}
	return -1;
}

/* step_waiting - how many threads are held there */
static inline long step_waiting(const char *name)
{
	return step_field(name, "waiting=");
}

/*
 * step - "hold", "go", "one" or "delay USEC" at a step
 *
 * After "go" those that were held have gone: one that is only about to would look
 * as if it were asleep in a wait, and a test that looks for that would go on too early.
 */
static inline int step(const char *name, const char *command)
{
	char text[64];
	int ret;

	snprintf(text, sizeof(text), "%s %s", name, command);
	ret = write_file(STEPS, text);
	if (!ret && !strcmp(command, "go") && !wait_until(!step_waiting(name)))
		ret = -ETIMEDOUT;
	return ret;
}

/* step_hits - how often it was passed */
static inline long step_hits(const char *name)
{
	return step_field(name, "hits=");
}

/* held - has one thread come to that step? */
static inline bool held(const char *name)
{
	return wait_until(step_waiting(name) == 1);
}

#endif /* TEST_STEP_H */
