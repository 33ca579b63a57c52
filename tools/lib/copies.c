// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * Several copies of the library in one process share one gate
 *
 * A plug-in that was linked with the static library has a copy of its own, whose
 * symbols nothing can find. So each copy leaves an ELF note in the object that it
 * is part of. The note says where the copy keeps the address of its gate, and the
 * loader knows all objects.
 *
 * The loader makes sure that one constructor runs at a time. Must not be used in
 * signal handlers, other than in one that comes before any constructor.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdbool.h>
#include <string.h>

#include "gate-internal.h"

#define NOTE_NAME	"forkgate"
#define NOTE_TYPE	1

struct own_gate *__forkgate_own __attribute__((__visibility__("hidden")));

#define TEXT_(x)	#x
#define TEXT(x)		TEXT_(x)

/* sizes of the name and of what follows it, type, name, and: where, which generation */
__asm__(".pushsection .note.forkgate, \"a\", %note\n"
	".balign 4\n"
	".long 9, 8, " TEXT(NOTE_TYPE) "\n"
	".asciz \"" NOTE_NAME "\"\n"
	".balign 4\n"
	".long __forkgate_own - ., " TEXT(FORKGATE_GENERATION) "\n"
	".popsection");

struct description {
	int32_t offset;		/* from here */
	__u32 generation;
};

struct search {
	struct own_gate *found;
	int error;
};

static void look_at(struct search *search, const struct description *note)
{
	struct own_gate **own = (void *)((uintptr_t)note + note->offset);
	struct own_gate *found = __atomic_load_n(own, __ATOMIC_ACQUIRE);

	if (!found)
		return;
	if (note->generation == FORKGATE_GENERATION)
		search->found = found;
	else
		search->error = ENOTSUP;
}

/* The loader does not read notes: a damaged file may say that they are anywhere. */
static bool is_loaded(const struct dl_phdr_info *object, const ElfW(Phdr) * notes)
{
	const ElfW(Phdr) * part;

	for (part = object->dlpi_phdr; part < object->dlpi_phdr + object->dlpi_phnum; part++)
		if (part->p_type == PT_LOAD && notes->p_vaddr >= part->p_vaddr &&
		    notes->p_vaddr - part->p_vaddr <= part->p_filesz &&
		    notes->p_memsz <= part->p_filesz - (notes->p_vaddr - part->p_vaddr))
			return true;
	return false;
}

static int look_into(struct dl_phdr_info *object, size_t size, void *search)
{
	const ElfW(Phdr) * part;
	const ElfW(Nhdr) * note;
	uintptr_t at, end;

	(void)size;
	for (part = object->dlpi_phdr; part < object->dlpi_phdr + object->dlpi_phnum; part++) {
		if (part->p_type != PT_NOTE || part->p_align > 4 ||
		    !is_loaded(object, part))
			continue;
		at = object->dlpi_addr + part->p_vaddr;
		for (end = at + part->p_memsz; at + sizeof(*note) <= end;) {
			uintptr_t name = at + sizeof(*note), text;

			note = (void *)at;
			if (note->n_namesz > end - at || note->n_descsz > end - at)
				break;
			text = name + ((note->n_namesz + 3) & ~3u);
			at = text + ((note->n_descsz + 3) & ~3u);
			if (at > end)
				break;
			if (note->n_namesz == sizeof(NOTE_NAME) && note->n_type == NOTE_TYPE &&
			    note->n_descsz >= sizeof(struct description) &&
			    !memcmp((void *)name, NOTE_NAME, sizeof(NOTE_NAME)))
				look_at(search, (void *)text);
		}
	}
	return 0;
}

/*
 * "forkgate run" puts a section around the function, which would come back here for
 * a gate: the one of the C library is behind the shared library.
 */
static __typeof__(dl_iterate_phdr) *iterate(void)
{
#ifdef FORKGATE_SHARED
	void *found = dlsym(RTLD_NEXT, "dl_iterate_phdr");

	if (found)
		return found;
#endif
	return dl_iterate_phdr;
}

struct own_gate *__forkgate_copies_gate(int *error)
{
	struct search search = { 0 };

	iterate()(look_into, &search);
	*error = search.found ? 0 : search.error;
	return search.found;
}
