// SPDX-License-Identifier: GPL-2.0-only
/*
 * unseen.c - which locks of the program are no sections
 *
 * They are made of atomic operations, futexes or semaphores, by a language or in a
 * library of which the name is known here. Looks at the program and at the libraries
 * that it is linked with, not at what it loads later. The program's file may be
 * shorter than its headers say: must not read the program's memory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "section.h"

/* Of a part of the program, at most: that takes some milliseconds. */
#define SEARCHED	(16 << 20)

/* The JVM's own locks are mutexes; Java's are words that it compares and swaps. */
#define JAVA	"synchronized and java.util.concurrent.locks"

static const struct {
	const char *library, *locks;
} libraries[] = {
	{ "libjli.so", JAVA },	/* of the program "java", which loads libjvm.so later */
	{ "libjvm.so", JAVA },
	{ "libglib-2.0.so", "GMutex" },
	{ "libQt5Core.so", "QMutex" },
	{ "libQt6Core.so", "QMutex" },
	{ "libabsl_synchronization.so", "absl::Mutex" },
	{ "libtbb.so", "tbb::mutex" },
};

/* A function of the interpreter, which is a library or in the program */
static const struct {
	const char *function, *locks;
} interpreters[] = {
	{ "PyMutex_Lock", "PyMutex" },
	{ "PyThread_acquire_lock", "threading.Lock" },
};

/* From a note of Go's linker: its type and its name */
static const char go[] = "\4\0\0\0Go\0";

/* What Rust's library looks for in the environment when a thread panics */
static const char rust[] = "RUST_BACKTRACE";

struct search {
	const ElfW(Phdr) * parts;	/* of the program */
	int count;
	bool libgcc;	/* Rust's programs need it, for a panic. */
	char *end;
	size_t room;
	bool any;
};

static void add(struct search *search, const char *locks, const char *where)
{
	int length = snprintf(search->end, search->room, "%s%s (%s)", search->any ? ", " : "",
			      locks, basename(where));

	if (length < 0 || (size_t)length >= search->room)
		length = search->room - 1;
	search->end += length;
	search->room -= length;
	search->any = true;
}

static int look_at(struct dl_phdr_info *object, size_t size, void *search_)
{
	const char *name = basename(object->dlpi_name);
	struct search *search = search_;
	size_t i;

	(void)size;
	if (!*name) {
		search->parts = object->dlpi_phdr;
		search->count = object->dlpi_phnum;
	}
	search->libgcc = search->libgcc || !strcmp(name, "libgcc_s.so.1");
	for (i = 0; i < sizeof(libraries) / sizeof(*libraries); i++)
		if (!strncmp(name, libraries[i].library, strlen(libraries[i].library)))
			add(search, libraries[i].locks, name);
	return 0;
}

static bool is_in(const char *file, size_t size, const ElfW(Phdr) * part, const void *what,
		  size_t length)
{
	size_t at = part->p_offset, wanted = part->p_filesz < SEARCHED ? part->p_filesz : SEARCHED;

	if (at >= size)
		return false;
	return memmem(file + at, wanted < size - at ? wanted : size - at, what, length);
}

/* Nobody can make the file shorter while the program runs. */
static void look_into_program(struct search *search)
{
	const ElfW(Phdr) * part;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	bool is_go = false, is_rust = false;
	void *file = MAP_FAILED;
	struct stat status;

	if (fd < 0)
		return;
	if (!fstat(fd, &status))
		file = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (file == MAP_FAILED)
		return;
	for (part = search->parts; part < search->parts + search->count; part++) {
		if (part->p_type == PT_NOTE)
			is_go |= is_in(file, status.st_size, part, go, sizeof(go));
		else if (part->p_type == PT_LOAD && search->libgcc &&
			 !(part->p_flags & (PF_W | PF_X)))
			is_rust |= is_in(file, status.st_size, part, rust, strlen(rust));
	}
	munmap(file, status.st_size);
	if (is_go)
		add(search, "sync.Mutex", "Go");
	if (is_rust)
		add(search, "std::sync::Mutex", "Rust");
}

void find_unseen(char *text, size_t size)
{
	struct search search = { .end = text, .room = size };
	int old_errno = errno;
	void *function;
	Dl_info info;
	size_t i;

	*text = '\0';
	dl_iterate_phdr(look_at, &search);
	look_into_program(&search);
	for (i = 0; i < sizeof(interpreters) / sizeof(*interpreters); i++) {
		function = dlsym(RTLD_DEFAULT, interpreters[i].function);
		if (function && dladdr(function, &info))
			add(&search, interpreters[i].locks, info.dli_fname);
	}
	dlerror();	/* the program's next call must not tell of these */
	errno = old_errno;
}
