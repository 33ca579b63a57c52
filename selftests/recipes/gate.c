// SPDX-License-Identifier: GPL-2.0-only
/*
 * Says why sections are not protected here, and nothing where they are: a recipe
 * can show nothing then. Must not be part of a recipe.
 */
#include <stdio.h>
#include <string.h>

#include <forkgate.h>

int main(void)
{
	int err = forkgate_init(0);

	if (err)
		puts(strerror(err));
	return !!err;
}
