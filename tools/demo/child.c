// SPDX-License-Identifier: GPL-2.0-only
/*
 * child - the program that the demonstration runs
 *
 * Ends with status 1 when it has inherited a descriptor beyond the standard
 * three. It must stay small: it is written and run a thousand times.
 */
#include <fcntl.h>
#include <unistd.h>

int main(void)
{
	int fd;

	for (fd = STDERR_FILENO + 1; fd < 64; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			return 1;
	}
	return 0;
}
