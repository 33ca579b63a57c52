/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * wrap.h - stands in for syscall(), which is all that the library calls, by ld's
 * --wrap. It must not know any call.
 */
#ifndef LIB_WRAP_H
#define LIB_WRAP_H

#include <stdarg.h>

long __real_syscall(long number, ...);
/* It reads six arguments, however many there are. */
long __wrap_syscall(long number, ...) __attribute__((__no_sanitize_address__));

/* SYSCALL_ARGUMENTS() - of the function that stands in, in an array of six */
#define SYSCALL_ARGUMENTS(args, number) do {				\
	va_list list_;							\
	int i_;								\
									\
	va_start(list_, number);					\
	for (i_ = 0; i_ < 6; i_++)					\
		(args)[i_] = va_arg(list_, long);			\
	va_end(list_);							\
} while (0)

#endif /* LIB_WRAP_H */
