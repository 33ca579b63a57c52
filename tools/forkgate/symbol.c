// SPDX-License-Identifier: GPL-2.0-only
/*
 * symbol.c - names of code addresses of other processes, by elfutils
 *
 * Must not stop a process that it looks at, and must not fail: where nothing is
 * known, the name of an address is the address.
 */
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd.h"

/* The last few names: watch and trace ask for the same ones all the time. */
static struct known {
	pid_t tgid;
	uint64_t site;
	char *name;
} known[256];

static unsigned int next;

static pid_t looked_at;

/*
 * The file that is mapped, not the one that has its path here: the process may
 * have another root, or the file may have been replaced.
 */
static int find_elf(Dwfl_Module *module, void **data, const char *name, Dwarf_Addr base,
		    char **path, Elf **elf)
{
	char pattern[64];
	glob_t found;
	int fd = -1;

	if (*name != '/')	/* the vdso */
		return dwfl_linux_proc_find_elf(module, data, name, base, path, elf);
	snprintf(pattern, sizeof(pattern), "/proc/%d/map_files/%" PRIx64 "-*", looked_at, base);
	if (!glob(pattern, 0, NULL, &found)) {
		fd = open(found.gl_pathv[0], O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			*path = strdup(found.gl_pathv[0]);
	}
	globfree(&found);
	return fd;
}

static const Dwfl_Callbacks callbacks = {
	.find_elf = find_elf,
	.find_debuginfo = dwfl_standard_find_debuginfo,
};

/* Of a site, "function+0x1f (file)", as far as that is known; to be freed */
static char *resolve(Dwfl *dwfl, uint64_t site)
{
	const char *symbol = NULL, *path = NULL, *file;
	Dwfl_Module *module;
	GElf_Off offset = 0;
	Dwarf_Addr start = 0;
	GElf_Sym sym;
	char *name;
	int ret;

	module = dwfl_addrmodule(dwfl, site);
	if (module) {
		path = dwfl_module_info(module, NULL, &start, NULL, NULL, NULL, NULL, NULL);
		symbol = dwfl_module_addrinfo(module, site, &offset, &sym, NULL, NULL, NULL);
	}
	file = path && strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	if (symbol)
		ret = asprintf(&name, "%s+%#" PRIx64 " (%s)", symbol, (uint64_t)offset, file);
	else if (file)
		ret = asprintf(&name, "%s+%#" PRIx64, file, site - start);
	else
		ret = asprintf(&name, "%#" PRIx64, site);
	if (ret < 0)
		return NULL;
	cmd_printable(name);
	return name;
}

/* The number that the kernel gives the first namespace: PROC_PID_INIT_INO */
static bool is_initial(const char *namespace)
{
	struct stat st;

	return !stat(namespace, &st) && st.st_ino == 0xeffffffc;
}

bool symbol_initial_pids(void)
{
	static int answer;

	/* We may be in another one, or look at the /proc of another one. */
	if (!answer)
		answer = is_initial("/proc/self/ns/pid") && is_initial("/proc/1/ns/pid") ? 1 : -1;
	return answer > 0;
}

const char *symbol_name(pid_t tgid, uint64_t site)
{
	static char address[32];
	struct known *entry;
	Dwfl *dwfl;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].name && known[i].tgid == tgid && known[i].site == site)
			return known[i].name;

	snprintf(address, sizeof(address), "%#" PRIx64, site);
	if (!symbol_initial_pids())
		return address;
	looked_at = tgid;
	unsetenv("DEBUGINFOD_URLS");	/* nobody wants to wait for a server */
	dwfl = dwfl_begin(&callbacks);
	if (!dwfl)
		return address;
	/* No memory is read, so the process goes on. */
	if (dwfl_linux_proc_report(dwfl, tgid) || dwfl_report_end(dwfl, NULL, NULL)) {
		dwfl_end(dwfl);
		return address;
	}
	entry = &known[next++ % ARRAY_SIZE(known)];
	free(entry->name);
	*entry = (struct known){ .tgid = tgid, .site = site, .name = resolve(dwfl, site) };
	dwfl_end(dwfl);
	return entry->name ? entry->name : address;
}

void symbol_forget(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(known); i++) {
		free(known[i].name);
		known[i].name = NULL;
	}
}
