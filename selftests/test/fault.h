/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fault.h - the n-th allocation, or copy, of the calling thread fails
 *
 * For kernels with fault injection. It must disarm with a write that is
 * repeated: what is to fail may be the very call that reads or writes it.
 */
#ifndef TEST_FAULT_H
#define TEST_FAULT_H

#include "base.h"

#include <fcntl.h>
#include <sys/rseq.h>

/*
 * fail_nth_open - a descriptor for the functions below, or -1 with errno
 *
 * The thread must have no rseq area: when it is preempted, and the kernel cannot
 * write there because the page is shared with a child and its copy is what
 * fails, the thread gets a SIGSEGV.
 */
static inline int fail_nth_open(void)
{
	if (__rseq_size)
		syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32,
			RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
	return open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
}

/* fail_nth - the write copies from user space too, but before it arms */
static inline bool fail_nth(int fd, unsigned int n)
{
	char text[12];
	int length = snprintf(text, sizeof(text), "%u", n);

	return pwrite(fd, text, length, 0) == length;
}

/* fail_nth_fired - did it fail something? Disarms. */
static inline bool fail_nth_fired(int fd)
{
	char text[12] = "1";
	bool fired;

	/* If this read is what fails, nothing did before. */
	fired = pread(fd, text, sizeof(text) - 1, 0) > 0 && !atoi(text);
	while (pwrite(fd, "0", 1, 0) != 1)
		;
	return fired;
}

#endif /* TEST_FAULT_H */
