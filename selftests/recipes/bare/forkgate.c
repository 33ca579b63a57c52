// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sections that are not there, for programs that do not include the header:
 * linked into one, it stands in for the library's functions. Must not change
 * anything else.
 */
int forkgate_enter(unsigned int domains);
void forkgate_leave(unsigned int domains);

int forkgate_enter(unsigned int domains)
{
	return domains ? 0 : 22;
}

void forkgate_leave(unsigned int domains)
{
	(void)domains;
}
