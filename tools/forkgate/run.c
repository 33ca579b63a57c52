// SPDX-License-Identifier: GPL-2.0-only
/*
 * run.c - runs a program that knows nothing of forkgate, with sections around
 * its locks and around the functions of the C library that take locks
 *
 * Checks what it can check before, tells the preloaded library what to do, and
 * becomes the program. Must not stay: the program is not its child.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../preload/run.h"
#include "cmd.h"
#include "device.h"

static const char usage[] =
	"usage: forkgate run [OPTION...] [--] PROGRAM [ARGUMENT...]\n"
	"\n"
	"  --timeout TIME     how long a fork waits for other threads (5s); 0: no limit\n"
	"  --on-timeout WHAT  then it goes ahead (proceed) or fails with EAGAIN (fail)\n"
	"  --patience TIME    how long it keeps threads out before it lets them through (100ms)\n"
	"  --domains LIST     what sections protect: memory (default), files or both: memory,files\n"
	"  --raw-clone        sections also of what only a raw clone leaves locked: malloc, stdio\n"
	"  --require-module   do not run what is not protected by the module\n"
	"  --verbose          each program says on standard error whether it is protected\n"
	"\n"
	"TIME is a number with ns, us, ms, s, min or h behind it; s if there is nothing.\n";

enum {
	OPTION_TIMEOUT = 256,
	OPTION_ON_TIMEOUT,
	OPTION_PATIENCE,
	OPTION_DOMAINS,
	OPTION_RAW_CLONE,
	OPTION_REQUIRE_MODULE,
	OPTION_VERBOSE,
	OPTION_HELP,
};

static const struct option options[] = {
	{ "timeout", required_argument, NULL, OPTION_TIMEOUT },
	{ "on-timeout", required_argument, NULL, OPTION_ON_TIMEOUT },
	{ "patience", required_argument, NULL, OPTION_PATIENCE },
	{ "domains", required_argument, NULL, OPTION_DOMAINS },
	{ "raw-clone", no_argument, NULL, OPTION_RAW_CLONE },
	{ "require-module", no_argument, NULL, OPTION_REQUIRE_MODULE },
	{ "verbose", no_argument, NULL, OPTION_VERBOSE },
	{ "help", no_argument, NULL, OPTION_HELP },
	{ }
};

/* "1.5s" in ns. Return: false if it is none, or more than the kernel takes. */
static bool parse_time(const char *text, unsigned long long *ns)
{
	static const struct {
		const char *name;
		double ns;
	} units[] = {
		{ "", 1e9 }, { "s", 1e9 }, { "ms", 1e6 }, { "us", 1e3 }, { "ns", 1 },
		{ "min", 60e9 }, { "h", 3600e9 },
	};
	double number;
	char *end;
	size_t i;

	if (*text < '0' || *text > '9')
		return false;
	number = strtod(text, &end);
	for (i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(end, units[i].name))
			continue;
		number *= units[i].ns;
		if (!(number <= FORKGATE_TIME_MAX))
			return false;
		*ns = number;
		return true;
	}
	return false;
}

static bool parse_domains(const char *text, unsigned int *domains)
{
	size_t length;

	*domains = 0;
	do {
		length = strcspn(text, ",");
		if (length == 6 && !memcmp(text, "memory", 6))
			*domains |= FORKGATE_MEMORY;
		else if (length == 5 && !memcmp(text, "files", 5))
			*domains |= FORKGATE_FILES;
		else
			return false;
		text += length;
	} while (*text++);
	return true;
}

/*
 * Can the library be preloaded into this program?
 */
/* As execvp() finds it. Return: false with errno. */
static bool find_program(const char *name, char path[PATH_MAX])
{
	const char *dirs = getenv("PATH"), *dir;
	int err = ENOENT, length;

	if (strchr(name, '/'))
		return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX;
	if (!dirs)
		dirs = "/bin:/usr/bin";
	for (dir = dirs; ; dir += length + 1) {
		length = strcspn(dir, ":");
		if (snprintf(path, PATH_MAX, "%.*s%s%s", length, dir, length ? "/" : "", name) <
		    PATH_MAX && !access(path, X_OK)) {
			struct stat status;

			if (!stat(path, &status) && S_ISREG(status.st_mode))
				return true;
		} else if (errno == EACCES) {
			err = EACCES;
		}
		if (!dir[length])
			break;
	}
	errno = err;
	return false;
}

#ifdef __aarch64__
#define MACHINE		EM_AARCH64
#define MACHINE_NAME	"64-bit ARM"
#else
#define MACHINE		EM_X86_64
#define MACHINE_NAME	"64-bit x86"
#endif

/* An ELF file of this machine. Return: NULL if it is fine, or what is wrong. */
static const char *check_elf(int fd, const Elf64_Ehdr *head)
{
	char loader[PATH_MAX] = "";
	const char *name;
	Elf64_Phdr part;
	int i;

	if (head->e_ident[EI_CLASS] != ELFCLASS64 || head->e_machine != MACHINE)
		return "is for another kind of machine than the library (" MACHINE_NAME ")";
	for (i = 0; i < head->e_phnum; i++) {
		if (pread(fd, &part, sizeof(part), head->e_phoff + i * head->e_phentsize) !=
		    sizeof(part))
			return "is damaged";
		if (part.p_type != PT_INTERP)
			continue;
		if (part.p_filesz >= sizeof(loader) ||
		    pread(fd, loader, part.p_filesz, part.p_offset) != (ssize_t)part.p_filesz)
			return "is damaged";
	}
	if (!*loader)
		return "is statically linked: nothing can be preloaded, link it with libforkgate.a";
	name = strrchr(loader, '/');
	name = name ? name + 1 : loader;
	if (!strncmp(name, "ld-musl", 7))
		return "uses musl, and the library is for glibc";
	if (strncmp(name, "ld-linux", 8))
		return "uses a C library other than glibc";
	return NULL;
}

/* Return: an exit status, CMD_OK for a program that can be run. */
static int check_program(const char *name, const char *path, int depth)
{
	union {
		Elf64_Ehdr head;
		char text[256];
	} start = { };
	const char *wrong = NULL;
	struct stat status;
	ssize_t size;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		/* The kernel can run what may not be read. */
		if (errno == EACCES && !access(path, X_OK)) {
			cmd_error("%s: cannot be read; whether it is protected is not known", path);
			return CMD_OK;
		}
		cmd_error("%s: %s", name, strerror(errno));
		return errno == ENOENT || errno == ENOTDIR ? CMD_NOT_FOUND : CMD_CANNOT_RUN;
	}
	size = pread(fd, &start, sizeof(start) - 1, 0);
	if (size >= (ssize_t)sizeof(start.head) && !memcmp(&start, ELFMAG, SELFMAG))
		wrong = check_elf(fd, &start.head);
	if (!depth && !fstat(fd, &status) && (status.st_mode & (S_ISUID | S_ISGID)) &&
	    S_ISREG(status.st_mode))
		cmd_error("%s: changes its user or group, so it runs without the gate", name);
	close(fd);
	if (wrong) {
		cmd_error("%s %s", path, wrong);
		return CMD_CANNOT_RUN;
	}
	if (size > 2 && !memcmp(&start, "#!", 2) && depth < 4) {
		char *interpreter = start.text + 2;

		interpreter += strspn(interpreter, " \t");
		interpreter[strcspn(interpreter, " \t\n")] = '\0';
		return check_program(interpreter, interpreter, depth + 1);
	}
	return CMD_OK;
}

/*
 * The libraries
 */
/* Where libraries are, seen from the command: built here, or installed */
static const struct {
	const char *preload;
	const char *library;
} places[] = {
	{ "../preload", "../lib" },
	{ "../lib/forkgate", "../lib" },
#ifdef FORKGATE_LIBDIR
	{ FORKGATE_LIBDIR "/forkgate", FORKGATE_LIBDIR },
#endif
};

static bool join(char path[PATH_MAX], const char *base, const char *dir, const char *file)
{
	char long_path[2 * PATH_MAX];

	if (snprintf(long_path, sizeof(long_path), "%s%s%s/%s", *dir == '/' ? "" : base,
		     *dir == '/' ? "" : "/", dir, file) >= (int)sizeof(long_path))
		return false;
	return realpath(long_path, path);
}

/* Put the libraries before what LD_PRELOAD names already. */
static int set_preload(bool raw_clone)
{
	char base[PATH_MAX], preload[PATH_MAX], raw[PATH_MAX], library[PATH_MAX];
	ssize_t length = readlink("/proc/self/exe", base, sizeof(base) - 1);
	const char *old = getenv("LD_PRELOAD");
	char *value;
	size_t i;

	if (length < 0)		/* no /proc */
		length = snprintf(base, sizeof(base), "%s", (char *)getauxval(AT_EXECFN));
	base[length < (ssize_t)sizeof(base) ? length : 0] = '\0';
	*(strrchr(base, '/') ?: base) = '\0';
	for (i = 0; i < ARRAY_SIZE(places); i++)
		if (join(preload, base, places[i].preload, "libforkgate-preload.so") &&
		    join(raw, base, places[i].preload, "libforkgate-preload-raw.so") &&
		    join(library, base, places[i].library, "libforkgate.so.0"))
			break;
	if (i == ARRAY_SIZE(places)) {
		cmd_error("the libraries are not where they belong, near %s", *base ? base : "/");
		return CMD_TRACE_FAILED;
	}
	if (strpbrk(preload, " :") || strpbrk(library, " :")) {
		cmd_error("%s: nothing can be preloaded from a name with a space or colon",
			  preload);
		return CMD_TRACE_FAILED;
	}
	if (asprintf(&value, "%s %s%s%s %s", preload, raw_clone ? raw : "", raw_clone ? " " : "",
		     library, old ? old : "") < 0 || setenv("LD_PRELOAD", value, 1)) {
		cmd_error("%s", strerror(errno));
		return CMD_TRACE_FAILED;
	}
	return CMD_OK;
}

static int start(const struct run_settings *settings, bool raw_clone, char **argv)
{
	char path[PATH_MAX], value[160];
	struct forkgate_device device;
	struct trouble trouble;
	int status;

	if (!find_program(argv[0], path)) {
		cmd_error("%s: %s", argv[0], strerror(errno));
		return errno == ENOENT ? CMD_NOT_FOUND : CMD_CANNOT_RUN;
	}
	status = check_program(argv[0], path, 0);
	if (status)
		return status;
	/*
	 * The library cannot tell a module that is too old from another device. Mapping and
	 * descriptor end with this program.
	 */
	if ((settings->require_module || !access(FORKGATE_DEVICE, F_OK)) &&
	    !device_open(&device, &trouble)) {
		if (settings->require_module) {
			cmd_error("%s\n%s", trouble.what, trouble.cure);
			return CMD_TRACE_FAILED;
		}
		if (trouble.too_old)
			cmd_error("%s; until it is replaced, the library is the gate.\n%s",
				  trouble.what, trouble.cure);
	}
	status = set_preload(raw_clone);
	if (status)
		return status;
	snprintf(value, sizeof(value), RUN_FORMAT, settings->timeout, settings->patience,
		 settings->on_timeout, settings->domains, settings->verbose,
		 settings->require_module, getpid());
	if (setenv(RUN_VARIABLE, value, 1)) {
		cmd_error("%s", strerror(errno));
		return CMD_TRACE_FAILED;
	}
	cmd_execvp(path, argv);	/* with a shell for what has no #! */
	cmd_error("%s: %s", argv[0], strerror(errno));
	return errno == ENOENT ? CMD_NOT_FOUND : CMD_CANNOT_RUN;
}

#define INVALID_DOMAINS	"\"%s\" is not memory, files or memory,files"
#define INVALID_TIME	"\"%s\" is not a number with ns, us, ms, s, min or h, at most 1h"
#define bad_value(format)	cmd_usage_error(usage, format, optarg)

int cmd_run(int argc, char **argv)
{
	struct run_settings settings = RUN_SETTINGS_DEFAULT;
	bool raw_clone = false;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "+:h", options, NULL)) >= 0) {
		switch (option) {
		case OPTION_TIMEOUT:
			if (!parse_time(optarg, &settings.timeout))
				return bad_value("--timeout: " INVALID_TIME);
			if (!settings.timeout)
				settings.timeout = FORKGATE_FOREVER;
			break;
		case OPTION_ON_TIMEOUT:
			if (!strcmp(optarg, "proceed"))
				settings.on_timeout = FORKGATE_PROCEED;
			else if (!strcmp(optarg, "fail"))
				settings.on_timeout = FORKGATE_FAIL;
			else
				return bad_value("--on-timeout: \"%s\" is not proceed or fail");
			break;
		case OPTION_PATIENCE:
			if (!parse_time(optarg, &settings.patience))
				return bad_value("--patience: " INVALID_TIME);
			break;
		case OPTION_DOMAINS:
			if (!parse_domains(optarg, &settings.domains))
				return bad_value("--domains: " INVALID_DOMAINS);
			break;
		case OPTION_RAW_CLONE:
			raw_clone = true;
			break;
		case OPTION_REQUIRE_MODULE:
			settings.require_module = 1;
			break;
		case OPTION_VERBOSE:
			settings.verbose = 1;
			break;
		case 'h':
		case OPTION_HELP:
			return cmd_help(usage);
		case ':':
			return cmd_usage_error(usage, "%s needs a value", argv[optind - 1]);
		default:
			return cmd_usage_error(usage, "unknown option \"%s\"", argv[optind - 1]);
		}
	}
	if (optind == argc)
		return cmd_usage_error(usage, "no program");
	return start(&settings, raw_clone, argv + optind);
}
