/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * section.h - sections around functions of the C library
 *
 * What the wrappers, made by tools/preload/generate or by hand, are built from.
 * A wrapper has the name of the original, without a symbol version, so that it
 * stands in for every version; it must not change what the original does, errno
 * included. A section is also left when the thread is cancelled or an exception
 * of a callback goes through; not when a callback leaves by longjmp().
 */
#ifndef FORKGATE_SECTION_H
#define FORKGATE_SECTION_H

#include <stdarg.h>

#include <forkgate.h>

#define EXPORT		__attribute__((__visibility__("default")))
#define HIDDEN		__attribute__((__visibility__("hidden")))
#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)

/* The functions that this library stands in for: ORIGINAL_name is a number. */
enum {
#define X(name) ORIGINAL_##name,
#include NAMES
#undef X
	ORIGINALS
};

extern HIDDEN void *originals[ORIGINALS];

/**
 * find_original() - look for the function that a wrapper stands in for
 * @number: ORIGINAL_*
 *
 * The constructor has found all of them; this is for calls that come before. The
 * program ends if there is none.
 *
 * Return: its address.
 */
void *find_original(int number);

static inline void *original(int number)
{
	void *found = __atomic_load_n(&originals[number], __ATOMIC_RELAXED);

	return likely(found) ? found : find_original(number);
}

/* Private to libforkgate, see its internal.h */
int __forkgate_call(unsigned long request, void *arg);

/**
 * find_unseen() - which locks of the program are no sections, as far as is known
 * @text: where to put a list of them, with commas; empty if there are none
 * @size: of @text
 */
HIDDEN void find_unseen(char *text, size_t size);

#define REAL(name)	((__typeof__(name) *)original(ORIGINAL_##name))

/* The domains of all sections: what "forkgate run --domains" says. */
extern HIDDEN unsigned int section_domains;

/* Return: what to leave; 0 if the program asked for FORKGATE_STRICT in vain. */
static inline unsigned int section_enter(unsigned int domains)
{
	return likely(!forkgate_enter(domains)) ? domains : 0;
}

static inline void section_leave(unsigned int *domains)
{
	if (likely(*domains))
		forkgate_leave(*domains);
}

#define IN_SECTION(domains)						\
	unsigned int inside __attribute__((__cleanup__(section_leave))) =	\
		section_enter(domains);					\
	(void)inside

/*
 * The assembler's name is the real one: headers give some functions another, such
 * as __isoc99_sscanf for sscanf.
 */
#define WRAPPER(type, name, parameters)					\
EXPORT type section_##name parameters __asm__(#name);			\
type section_##name parameters

#ifndef QUICK

#define SECTION(type, name, parameters, arguments)			\
WRAPPER(type, name, parameters)						\
{									\
	IN_SECTION(section_domains);					\
	return REAL(name) arguments;					\
}

#else

static inline void section_leave_memory(char *unused)
{
	(void)unused;
	forkgate_leave(FORKGATE_MEMORY);
}

/*
 * For functions as short as malloc(): what is most frequent comes first and saves
 * few registers, because all that would need them is in functions of its own.
 */
#define SECTION(type, name, parameters, arguments)			\
static __attribute__((__noinline__)) type any_##name parameters		\
{									\
	IN_SECTION(section_domains);					\
	return REAL(name) arguments;					\
}									\
									\
/* The gate is closed: all over again */				\
static __attribute__((__noinline__)) type missed_##name parameters	\
{									\
	forkgate_leave(FORKGATE_MEMORY);				\
	return any_##name arguments;					\
}									\
									\
WRAPPER(type, name, parameters)						\
{									\
	void *found = __atomic_load_n(&originals[ORIGINAL_##name],	\
				      __ATOMIC_RELAXED);		\
	struct forkgate_slot *slot = forkgate_self;			\
									\
	if (unlikely(!found || !slot || section_domains != FORKGATE_MEMORY)) \
		return any_##name arguments;				\
	if (unlikely(forkgate_enter_steps(slot, forkgate_site(),	\
					  FORKGATE_MEMORY)))		\
		return missed_##name arguments;				\
									\
	char inside __attribute__((__cleanup__(section_leave_memory)));	\
									\
	(void)inside;							\
	return ((__typeof__(name) *)found) arguments;			\
}

#endif

#define SECTION_VOID(name, parameters, arguments)			\
	SECTION(void, name, parameters, arguments)

#define UNPACK(...)	__VA_ARGS__

#define SECTION_VARIADIC(type, name, twin, parameters, last, arguments)	\
WRAPPER(type, name, (UNPACK parameters))				\
{									\
	IN_SECTION(section_domains);					\
	va_list list;							\
	type result;							\
									\
	va_start(list, last);						\
	result = REAL(twin) arguments;					\
	va_end(list);							\
	return result;							\
}

#define SECTION_VARIADIC_VOID(type, name, twin, parameters, last, arguments) \
WRAPPER(type, name, (UNPACK parameters))				\
{									\
	IN_SECTION(section_domains);					\
	va_list list;							\
									\
	va_start(list, last);						\
	REAL(twin) arguments;						\
	va_end(list);							\
}

#endif /* FORKGATE_SECTION_H */
