/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * harness.h - the kernel's test harness, and the fixtures that most tests have
 *
 * A fixture that needs no more than a gate and workers is one line here. It must
 * not hide anything that a test is about.
 */
#ifndef TEST_HARNESS_H
#define TEST_HARNESS_H

#include "fork.h"

#include <kselftest_harness.h>

/* The harness ends a test that hangs; waits in it give up much earlier. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	600

/* setup_workers - a gate for the caller and @count workers; 0 or a negative errno */
static inline int setup_workers(struct worker *workers, size_t count)
{
	int ret = gate_setup();

	return ret < 0 ? ret : workers_new(workers, count);
}

/*
 * FIXTURE_WORKERS() - a fixture of workers alone
 *
 * The test itself is registered first, then the workers in the order of their
 * names. A variant may follow.
 */
#define FIXTURE_WORKERS(fixture, ...)						\
	FIXTURE(fixture) {							\
		struct worker __VA_ARGS__;					\
	};									\
	FIXTURE_SETUP(fixture)							\
	{									\
		struct worker *workers = (struct worker *)self;			\
										\
		ASSERT_EQ(0, setup_workers(workers, sizeof(*self) / sizeof(*workers)));	\
	}									\
	FIXTURE_TEARDOWN(fixture)						\
	{									\
	}

#endif /* TEST_HARNESS_H */
