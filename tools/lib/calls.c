// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Calls that programs make to learn of their gate, or to change it
 *
 * What is here stands on __forkgate_call() alone, which leads to the module's
 * gate or to the library's own. It must not look into either: the answers are
 * the gate's.
 */
#include "internal.h"

static int ask(unsigned long request, void *arg)
{
	int err = __forkgate_gate();

	return err ? err : __forkgate_call(request, arg);
}

FORKGATE_EXPORT int forkgate_policy_get(struct forkgate_policy *policy)
{
	return ask(FORKGATE_IOC_POLICY_GET, policy);
}

FORKGATE_EXPORT int forkgate_policy_set(const struct forkgate_policy *policy)
{
	return ask(FORKGATE_IOC_POLICY_SET, (void *)policy);
}

FORKGATE_EXPORT int forkgate_state(struct forkgate_state *state)
{
	return ask(FORKGATE_IOC_STATE, state);
}

FORKGATE_EXPORT unsigned int forkgate_copy(void)
{
	struct forkgate_policy policy;

	/* The library's own gate learns that it is a child's when it is used. */
	return forkgate_policy_get(&policy) ? 0 : forkgate_header_of(forkgate_self)->copy;
}

FORKGATE_EXPORT int forkgate_tryprepare(unsigned int domains, int *fd)
{
	struct forkgate_prepare prepare = {
		.domains = domains,
		.flags = FORKGATE_NONBLOCK,
	};
	int err;

	*fd = -1;
	/* Without a gate there is nothing to wait for, and with one it may be the wrong one. */
	if (domains - 1 >= FORKGATE_DOMAINS || __forkgate_not_strict_enough())
		return forkgate_prepare(domains, NULL);
	err = __forkgate_call(FORKGATE_IOC_PREPARE, &prepare);
	if (err == EAGAIN)
		*fd = __forkgate_descriptor();
	return err == EALREADY ? 0 : err;
}
