// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plug-in with a copy of libforkgate of its own, from the static library.
 * Must not share a symbol with the program that loads it.
 */
#include <forkgate.h>

int plugin_enter(unsigned int domains);
void plugin_leave(unsigned int domains);
struct forkgate_slot **plugin_self(void);
int plugin_protection(int *reason);

int plugin_enter(unsigned int domains)
{
	return forkgate_enter(domains);
}

void plugin_leave(unsigned int domains)
{
	forkgate_leave(domains);
}

struct forkgate_slot **plugin_self(void)
{
	return &forkgate_self;
}

int plugin_protection(int *reason)
{
	return forkgate_protection(reason);
}
