// SPDX-License-Identifier: GPL-2.0-only
/*
 * symbol.c - names of code addresses of other processes, by elfutils
 *
 * Any user may have written the files that names come from, to harm who looks. So
 * a process of its own reads them, which gives its rights away and has a limit of
 * time and memory: what can go wrong is that a name is missing.
 *
 * Must not stop a process that it looks at, and must not fail: where nothing is
 * known, the name of an address is the address.
 */
#include <elfutils/libdwfl.h>
#include <fcntl.h>
#include <errno.h>
#include <glob.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd.h"

#define NAME_SIZE	512
#define NAME_S		5		/* for one name */
#define ALL_NS		20000000000ULL	/* for all names, until they are forgotten */
#define MEMORY		(512UL << 20)	/* a larger file is not mapped, but read in parts */
#define NOBODY		65534

/* The last few names: watch and trace ask for the same ones all the time. */
static struct known {
	pid_t tgid;
	uint64_t site;
	char *name;
} known[256];

static unsigned int next;
static uint64_t spent;	/* ns */

static pid_t looked_at;

/* A regular file: to open another one may wait, or do something. Nor is a lease waited for. */
static int open_regular(const char *path)
{
	int found = open(path, O_PATH | O_CLOEXEC), fd = -1;
	struct stat status;
	char again[32];

	if (found < 0)
		return -1;
	snprintf(again, sizeof(again), "/proc/self/fd/%d", found);
	if (!fstat(found, &status) && S_ISREG(status.st_mode))
		fd = open(again, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	close(found);
	return fd;
}

/* For good, also those of a program that was executed */
static void drop_rights(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};

	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY) || syscall(__NR_capset, &header, none) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		_exit(CMD_PROBLEM);
}

/*
 * The file that is mapped, not the one that has its path here: the process may
 * have another root, or the file may have been replaced. The last thing that
 * needs rights.
 */
static int find_elf(Dwfl_Module *module, void **data, const char *name, Dwarf_Addr base,
		    char **path, Elf **elf)
{
	char pattern[64];
	glob_t found;
	int fd = -1;

	(void)module;
	(void)data;
	(void)elf;
	if (*name != '/')	/* the vdso has no sections */
		return -1;
	snprintf(pattern, sizeof(pattern), "/proc/%d/map_files/%" PRIx64 "-*", looked_at, base);
	if (!glob(pattern, 0, NULL, &found)) {
		fd = open_regular(found.gl_pathv[0]);
		if (fd >= 0)
			*path = strdup(found.gl_pathv[0]);
	}
	globfree(&found);
	drop_rights();
	return fd;
}

static const Dwfl_Callbacks callbacks = {
	.find_elf = find_elf,
	/* By the build id alone: a file may also name another one, which may be any. */
	.find_debuginfo = dwfl_build_id_find_debuginfo,
};

/* Of a site, "function+0x1f (file)", as far as that is known; otherwise empty */
static void resolve(Dwfl *dwfl, uint64_t site, char name[NAME_SIZE])
{
	const char *symbol = NULL, *path = NULL, *file;
	Dwfl_Module *module;
	GElf_Off offset = 0;
	Dwarf_Addr start = 0;
	GElf_Sym sym;

	module = dwfl_addrmodule(dwfl, site);
	if (module) {
		path = dwfl_module_info(module, NULL, &start, NULL, NULL, NULL, NULL, NULL);
		symbol = dwfl_module_addrinfo(module, site, &offset, &sym, NULL, NULL, NULL);
	}
	file = path && strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	if (symbol)
		snprintf(name, NAME_SIZE, "%s+%#" PRIx64 " (%s)", symbol, (uint64_t)offset, file);
	else if (file)
		snprintf(name, NAME_SIZE, "%s+%#" PRIx64, file, site - start);
}

/* In a process of its own: write the name to a pipe, if there is one. */
static void look_up(pid_t tgid, uint64_t site, int pipe)
{
	const struct rlimit memory = { MEMORY, MEMORY }, seconds = { NAME_S, NAME_S };
	sigset_t none;
	char name[NAME_SIZE] = "";
	Dwfl *dwfl;

	/* It keeps neither the terminal nor other files. */
	setsid();
	dup2(pipe, STDIN_FILENO);
	syscall(__NR_close_range, STDOUT_FILENO, ~0U, 0);	/* glibc 2.34 has it, too */
	setrlimit(RLIMIT_AS, &memory);
	/* It ends if it runs for too long, and if it waits. */
	setrlimit(RLIMIT_CPU, &seconds);
	signal(SIGALRM, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	alarm(NAME_S);

	looked_at = tgid;
	unsetenv("DEBUGINFOD_URLS");	/* nobody wants to wait for a server */
	dwfl = dwfl_begin(&callbacks);
	/* No memory is read, so the process goes on. */
	if (dwfl && !dwfl_linux_proc_report(dwfl, tgid) && !dwfl_report_end(dwfl, NULL, NULL))
		resolve(dwfl, site, name);
	_exit(write(STDIN_FILENO, name, strlen(name)) < 0);
}

/*
 * Return: whether there is a name. The process that looks it up is left alone: to wait
 * for its end may take for ever where a file system does not answer.
 */
static bool ask(pid_t tgid, uint64_t site, char name[NAME_SIZE])
{
	struct pollfd answer = { .events = POLLIN };
	uint64_t began = cmd_now();
	ssize_t length = 0;
	int ends[2], ready;
	pid_t pid;

	if (spent >= ALL_NS || pipe2(ends, O_CLOEXEC))
		return false;
	pid = fork();
	if (!pid) {
		if (fork())
			_exit(0);
		look_up(tgid, site, ends[1]);
	}
	close(ends[1]);
	answer.fd = ends[0];
	if (pid > 0) {
		waitpid(pid, NULL, 0);
		do
			ready = poll(&answer, 1, NAME_S * 1000);
		while (ready < 0 && errno == EINTR);
		if (ready > 0)
			length = read(ends[0], name, NAME_SIZE - 1);
	}
	close(ends[0]);
	spent += cmd_now() - began;
	if (length <= 0)
		return false;
	name[length] = '\0';
	cmd_printable(name);
	return true;
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
	char name[NAME_SIZE];
	struct known *entry;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].name && known[i].tgid == tgid && known[i].site == site)
			return known[i].name;

	snprintf(address, sizeof(address), "%#" PRIx64, site);
	if (!symbol_initial_pids())
		return address;
	entry = &known[next++ % ARRAY_SIZE(known)];
	free(entry->name);
	*entry = (struct known){
		.tgid = tgid, .site = site,
		.name = strdup(ask(tgid, site, name) ? name : address),
	};
	return entry->name ? entry->name : address;
}

void symbol_forget(void)
{
	size_t i;

	spent = 0;
	for (i = 0; i < ARRAY_SIZE(known); i++) {
		free(known[i].name);
		known[i].name = NULL;
	}
}
