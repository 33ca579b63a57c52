// SPDX-License-Identifier: GPL-2.0-only
/*
 * fuzz - makes programs of operations, and keeps those that reach new code of the module
 *
 * It runs in a virtual machine that has nothing else to do, as root. The module "fuzz_cover" tells
 * which code of forkgate ran. A program that reached some for the first time is cut down to what
 * that needs, and kept in a folder. What a program does is in ops.c.
 *
 * It must not judge what a call returns: the tests do that. A finding is a complaint of the kernel,
 * a victim that does not end, or a gate or a reference that stays: the machine is then of no more
 * use, and the last programs are in the file "last".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/forkgate.h>

#include "cover/cover.h"
#include "prog.h"

#define TEXT_SIZE	8192	/* of a program */
#define LAST		32	/* programs in the file "last", after which there is a check */
#define GROUP		"/sys/fs/cgroup/fuzz"
#define HANG_S		60	/* a victim that was killed ends within this time */
#define GONE_S		20	/* and its gates within this */
#define TROUBLE		0x42a0	/* taints by bad pages, oopses, warnings and lockups */
#define EDGES		COVER_EDGES
#define CORPUS		4096

static struct cover *cover;
static uint8_t seen[EDGES];
static unsigned int nr_seen;
static struct prog *corpus;
static unsigned int nr_corpus;
static const char *corpus_dir;
static unsigned long executed, checked;
static int group = -1, freezer = -1, last = -1;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -1;
	ret = write(fd, text, strlen(text)) < 0 ? -1 : 0;
	close(fd);
	return ret;
}

static long read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	long ret;

	if (fd < 0)
		return -1;
	ret = read(fd, text, size - 1);
	close(fd);
	text[ret > 0 ? ret : 0] = '\0';
	return ret;
}

/*
 * Random numbers: the same seed, and the same coverage, give the same programs
 */

static uint64_t random_state;

static uint32_t rnd(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (random_state >> 20) % n;
}

static uint32_t any_word(void)
{
	switch (rnd(4)) {
	case 0:
		return 1u << rnd(32);
	case 1:
		return -rnd(4);
	case 2:
		return rnd(0x10000);
	default:
		return random_state >> 16;
	}
}

/* CSIGNAL's byte is the other argument */
static uint32_t clone_flags(void)
{
	static const uint32_t common[] = {
		0, CLONE_VM, CLONE_VM | CLONE_VFORK, CLONE_VFORK, CLONE_FILES,
		CLONE_VM | CLONE_FILES, CLONE_VM | CLONE_FILES | CLONE_VFORK,
		CLONE_VM | CLONE_SIGHAND, CLONE_VM | CLONE_SIGHAND | CLONE_THREAD,
		CLONE_VFORK | CLONE_FILES, CLONE_UNTRACED | CLONE_VM, CLONE_PTRACE,
		CLONE_NEWUSER, CLONE_NEWPID, CLONE_PARENT, CLONE_PIDFD,
	};
	uint32_t flags = common[rnd(ARRAY_SIZE(common))];

	while (!rnd(3))
		flags ^= 256u << rnd(24);
	return flags;
}

/* new_arg - an argument by its kind in op_types: mostly what makes sense, sometimes anything */
static uint32_t new_arg(char kind)
{
	static const uint32_t calls[] = {
		FORKGATE_IOC_QUERY, FORKGATE_IOC_REGISTER, FORKGATE_IOC_UNREGISTER,
		FORKGATE_IOC_ENTER, FORKGATE_IOC_LEAVE, FORKGATE_IOC_PREPARE,
		FORKGATE_IOC_RELEASE, FORKGATE_IOC_POLICY_GET, FORKGATE_IOC_POLICY_SET,
		FORKGATE_IOC_STATE, FORKGATE_IOC_HEALTH,
	};

	if (!rnd(40) && kind != 'q')
		return any_word();
	switch (kind) {
	case 'z':	/* to be zero */
		return rnd(12) ? 0 : 1;
	case 'h':	/* how a call is made */
		return rnd(8) ? rnd(2) : rnd(256);
	case 'd':	/* domains */
		return rnd(20) ? 1 + rnd(3) : rnd(5);
	case 'f':	/* flags of a call */
		return rnd(8);
	case 't':	/* a time */
		return rnd(11);
	case 'p':	/* four times */
		return rnd(8) << 12 | rnd(8) << 8 | rnd(8) << 4 | rnd(11);
	case 'l':	/* levels of two domains */
		return rnd(3) | rnd(3) << 16;
	case 'c':
		return clone_flags();
	case 's':
		return rnd(SCRIPTS);
	case 'g':	/* a signal, of children */
		return rnd(3) ? 17 : rnd(64);
	case 'k':
		return rnd(3) ? rnd(4) : rnd(TASKS + 2);
	case 'o':	/* a piece of the mapping, or a word of it */
		return rnd(4) ? rnd(20) : rnd(0x400);
	case 'w':	/* which mapping */
		return rnd(6) ? 0 : rnd(2);
	case 'e':
		return rnd(6);
	case 'm':
		return rnd(2) ? rnd(20) : rnd(1024);
	case 'u':
		return rnd(3) ? rnd(3000) : rnd(30000);
	case 'q':	/* how many threads, less one */
		return rnd(30) ? rnd(3) : 60 + rnd(20);
	case 'i':
		return rnd(3) ? calls[rnd(ARRAY_SIZE(calls))] :
				calls[rnd(ARRAY_SIZE(calls))] ^ (1u << rnd(32));
	case 'x':
		return rnd(2) ? rnd(4) : any_word();
	default:
		return rnd(8);
	}
}

static struct op new_op(void)
{
	struct op op = { .code = rnd(4) ? rnd(nr_op_types) : rnd(20) };
	const char *args = op_types[op.code].args;

	for (int i = 0; args[i]; i++)
		op.arg[i] = new_arg(args[i]);
	return op;
}

static void insert_op(struct script *script, uint32_t at, struct op op)
{
	if (script->n == OPS)
		return;
	memmove(&script->op[at + 1], &script->op[at], (script->n - at) * sizeof(op));
	script->op[at] = op;
	script->n++;
}

static void remove_op(struct script *script, uint32_t at)
{
	script->n--;
	memmove(&script->op[at], &script->op[at + 1], (script->n - at) * sizeof(script->op[0]));
}

static void new_prog(struct prog *prog)
{
	memset(prog, 0, sizeof(*prog));
	prog->threads = 1 + rnd(4);
	for (int i = 0; i < SCRIPTS; i++) {
		/* Most of what threads do means nothing without a slot. */
		if (rnd(8))
			prog->script[i].op[prog->script[i].n++] = (struct op) { .code = 0 };
		for (int n = rnd(OPS / 2); n; n--)
			insert_op(&prog->script[i], prog->script[i].n, new_op());
	}
}

static void mutate(struct prog *prog)
{
	struct script *script = &prog->script[rnd(rnd(2) ? prog->threads : SCRIPTS)];
	const struct prog *other = nr_corpus ? &corpus[rnd(nr_corpus)] : prog;
	const char *args;
	struct op *op;

	switch (rnd(10)) {
	case 0 ... 2:
		insert_op(script, rnd(script->n + 1), new_op());
		break;
	case 3 ... 5:
		if (!script->n)
			break;
		op = &script->op[rnd(script->n)];
		args = op_types[op->code].args;
		if (*args) {
			uint32_t arg = rnd(strlen(args));

			op->arg[arg] = new_arg(args[arg]);
		}
		break;
	case 6:
		if (script->n)
			remove_op(script, rnd(script->n));
		break;
	case 7:
		if (script->n)
			insert_op(script, rnd(script->n + 1), script->op[rnd(script->n)]);
		break;
	case 8:
		*script = other->script[rnd(SCRIPTS)];
		break;
	case 9:
		prog->threads = 1 + rnd(4);
		break;
	}
}

/*
 * Texts of programs
 */

static size_t print_prog(const struct prog *prog, char *text)
{
	char *at = text;

	at += sprintf(at, "threads %u\n", prog->threads);
	for (int i = 0; i < SCRIPTS; i++) {
		at += sprintf(at, "script %d\n", i);
		for (uint32_t j = 0; j < prog->script[i].n; j++) {
			const struct op *op = &prog->script[i].op[j];

			at += sprintf(at, "\t%s", op_types[op->code].name);
			for (int k = 0; op_types[op->code].args[k]; k++)
				at += sprintf(at, op->arg[k] < 10 ? " %u" : " %#x", op->arg[k]);
			*at++ = '\n';
		}
	}
	*at = '\0';
	return at - text;
}

static bool parse_op(struct script *script, char *line)
{
	char *word = strtok(line, " \t");
	struct op op = {};

	while (op.code < nr_op_types && strcmp(op_types[op.code].name, word))
		op.code++;
	if (op.code == nr_op_types || script->n == OPS)
		return false;
	for (int i = 0; op_types[op.code].args[i]; i++) {
		word = strtok(NULL, " \t");
		if (!word)
			return false;
		op.arg[i] = strtoul(word, NULL, 0);
	}
	script->op[script->n++] = op;
	return !strtok(NULL, " \t");
}

static bool read_prog(const char *path, struct prog *prog)
{
	struct script *script = NULL;
	unsigned int number;
	char line[200];
	FILE *file = fopen(path, "r");
	bool good = file;

	memset(prog, 0, sizeof(*prog));
	prog->threads = 1;
	while (good && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "#\n")] = '\0';
		if (!line[strspn(line, " \t")])
			continue;
		if (sscanf(line, "threads %u", &number) == 1)
			good = (prog->threads = number) >= 1 && number <= SCRIPTS;
		else if (sscanf(line, "script %u", &number) == 1)
			good = (script = number < SCRIPTS ? &prog->script[number] : NULL);
		else
			good = script && parse_op(script, line);
	}
	if (file)
		fclose(file);
	if (!good)
		fprintf(stderr, "fuzz: %s is no program\n", path);
	return good;
}

/*
 * Running programs
 */

static void report(const char *what)
{
	char text[100];

	snprintf(text, sizeof(text), "<4>WARNING: fuzz: %s\n", what);
	write_file("/dev/kmsg", text);
	printf("finding: %s\n", what);
	fflush(stdout);
	/* Blocked tasks and their stacks, for the log */
	write_file("/proc/sysrq-trigger", "w");
	write_file("/proc/sysrq-trigger", "t");
	exit(3);
}

static void remember(const struct prog *prog)
{
	static char text[TEXT_SIZE];
	size_t size = sprintf(text, "# program %lu of this run\n", executed);

	size += print_prog(prog, text + size);
	memset(text + size, '\n', sizeof(text) - size);
	if (pwrite(last, text, sizeof(text), executed % LAST * sizeof(text)) < 0)
		die("fuzz: last");
}

static void set_frozen(const char *how)
{
	if (pwrite(freezer, how, 1, 0) < 0)
		die("fuzz: cgroup.freeze");
}

static void reap(pid_t pid)
{
	const struct timespec tick = { .tv_nsec = 500000 };
	double begin = now(), thaw = 0, killed = 0;
	int status;

	while (waitpid(pid, &status, WNOHANG | __WALL) != pid) {
		uint32_t ms = __atomic_exchange_n(&shared->freeze, 0, __ATOMIC_SEQ_CST);

		if (ms && !thaw) {
			set_frozen("1");
			thaw = now() + ms / 1e3;
		}
		if (thaw && now() > thaw) {
			set_frozen("0");
			thaw = 0;
		}
		if (!killed && now() - begin > 1.5) {
			kill(pid, SIGKILL);
			killed = now();
		}
		if (killed && now() - killed > HANG_S)
			report("a victim that was killed does not end");
		nanosleep(&tick, NULL);
	}
	if (thaw)
		set_frozen("0");
}

/* Whatever a victim made is gone with it; what the kernel thinks of it all */
static void check(void)
{
	double begin = now();
	char text[4096], *locks;

	checked = executed;
	if (read_file("/proc/sys/kernel/tainted", text, sizeof(text)) > 0 &&
	    strtoul(text, NULL, 10) & TROUBLE)
		report("the kernel is tainted");
	locks = read_file("/proc/lockdep_stats", text, sizeof(text)) > 0 ?
		strstr(text, "debug_locks:") : NULL;
	if (locks && strtol(locks + 12, NULL, 10) != 1)
		report("lockdep has found something");
	while (read_file("/sys/kernel/debug/forkgate/gates", text, sizeof(text)) > 0 && text[0]) {
		if (now() - begin > GONE_S)
			report("a gate is left behind");
		usleep(10000);
	}
	while (read_file("/sys/module/forkgate/refcnt", text, sizeof(text)) <= 0 ||
	       text[0] != '0') {
		if (now() - begin > GONE_S)
			report("something still holds the module");
		usleep(10000);
	}
}

/* run_prog - run it, and mark the edges of its coverage; how many were not in @known */
static unsigned int run_prog(const struct prog *prog, const uint8_t *known, uint8_t *edges)
{
	unsigned int fresh = 0;
	pid_t pid;

	remember(prog);
	memset(shared, 0, sizeof(*shared));
	shared->prog = *prog;
	memset(cover->edges, 0, sizeof(cover->edges));
	memset(cover->before, 0, sizeof(cover->before));
	pid = victim_start(group);
	if (pid < 0) {
		errno = -pid;
		die("fuzz: no victim");
	}
	reap(pid);
	executed++;
	memcpy(edges, cover->edges, EDGES);
	for (int i = 0; i < EDGES; i++)
		fresh += edges[i] && !known[i];
	/* What left something behind is still one of the last. */
	if (executed - checked >= LAST)
		check();
	return fresh;
}

/*
 * The corpus
 */

static void merge(const uint8_t *edges)
{
	for (int i = 0; i < EDGES; i++) {
		nr_seen += edges[i] && !seen[i];
		seen[i] |= edges[i];
	}
}

static void save(const struct prog *prog)
{
	static char text[TEXT_SIZE];
	uint64_t hash = 0xcbf29ce484222325ull;
	size_t size = print_prog(prog, text);
	char path[4200];
	FILE *file;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3ull;
	snprintf(path, sizeof(path), "%s/%016llx", corpus_dir, (unsigned long long)hash);
	file = fopen(path, "w");
	if (!file || fwrite(text, 1, size, file) != size || fclose(file))
		die(path);
}

static bool still_covers(const struct prog *prog, const uint8_t *wanted)
{
	static uint8_t edges[EDGES];

	run_prog(prog, seen, edges);
	for (int i = 0; i < EDGES; i++) {
		if (wanted[i] && !edges[i])
			return false;
	}
	return true;
}

/* Take out what the new edges do not need. Some come by chance: those are not looked for. */
static void minimise(struct prog *prog, const uint8_t *edges)
{
	static uint8_t wanted[EDGES], got[EDGES];
	bool any = false;

	run_prog(prog, seen, got);
	for (int i = 0; i < EDGES; i++) {
		wanted[i] = edges[i] && got[i] && !seen[i];
		any |= wanted[i];
	}
	if (!any)
		return;
	/* Whole scripts first, which is quick and mostly works */
	for (int i = SCRIPTS - 1; i >= 0; i--) {
		struct prog less = *prog;

		less.script[i].n = 0;
		if (prog->script[i].n && still_covers(&less, wanted))
			*prog = less;
	}
	for (int i = SCRIPTS - 1; i >= 0; i--) {
		for (int j = prog->script[i].n - 1; j >= 0; j--) {
			struct prog less = *prog;

			remove_op(&less.script[i], j);
			if (still_covers(&less, wanted))
				*prog = less;
		}
	}
}

static void consider(struct prog *prog, bool keep)
{
	static uint8_t edges[EDGES];
	bool fresh = run_prog(prog, seen, edges);

	if (fresh && !keep)
		minimise(prog, edges);
	merge(edges);
	if ((fresh || keep) && nr_corpus < CORPUS)
		corpus[nr_corpus++] = *prog;
	if (fresh && !keep)
		save(prog);
}

static int by_name(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* Those that machines have kept may be cut, where one ended; seeds may not. */
static void load(const char *dir, bool seeds)
{
	struct dirent **names;
	int n = scandir(dir, &names, by_name, alphasort);
	static struct prog prog;
	char path[4200];

	if (n < 0)
		die(dir);
	for (int i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name);
		if (read_prog(path, &prog))
			consider(&prog, true);
		else if (seeds)
			exit(2);
	}
}

/* The blocks that ran since the module was loaded, as addresses within its text */
static void save_blocks(const char *path)
{
	unsigned long text;
	char line[40];
	FILE *file;

	if (read_file("/sys/module/forkgate/sections/.text", line, sizeof(line)) <= 0)
		die("/sys/module/forkgate");
	text = strtoul(line, NULL, 16);
	file = fopen(path, "w");
	if (!file)
		die(path);
	for (unsigned long i = 0; i < COVER_TEXT; i++) {
		if (cover->blocks[(text + i) % COVER_TEXT])
			fprintf(file, "%#lx\n", i);
	}
	if (fclose(file))
		die(path);
}

static void fuzz(double seconds, const char *blocks)
{
	double begin = now(), said = begin;
	static struct prog prog;
	unsigned int which;

	while (now() - begin < seconds) {
		if (!nr_corpus || !rnd(10)) {
			new_prog(&prog);
		} else {
			/* The newest are the least known. */
			which = rnd(nr_corpus);
			prog = corpus[rnd(2) ? which : nr_corpus - 1 - rnd(which + 1)];
			for (int n = 1 + rnd(4); n; n--)
				mutate(&prog);
		}
		consider(&prog, false);
		if (now() - said > 30) {
			said = now();
			printf("%.0f s: %lu executed, %u edges, %u programs\n", said - begin,
			       executed, nr_seen, nr_corpus);
			fflush(stdout);
			save_blocks(blocks);
		}
	}
	check();
	save_blocks(blocks);
	printf("%lu executed, %u edges, %u programs\n", executed, nr_seen, nr_corpus);
}

static void replay(const char *path, unsigned long times)
{
	static uint8_t edges[EDGES];
	static struct prog prog;

	if (!read_prog(path, &prog))
		exit(2);
	for (unsigned long i = 0; i < times; i++)
		run_prog(&prog, seen, edges);
	for (uint32_t i = 0; i < shared->logged && i < LOGGED && times == 1; i++) {
		const char *args = op_types[shared->log[i].code].args;

		printf("%u: %s", shared->log[i].task, op_types[shared->log[i].code].name);
		for (int k = 0; args[k]; k++)
			printf(" %#x", shared->log[i].arg[k]);
		printf(" = %d%s%s\n", shared->log[i].ret, shared->log[i].ret < 0 ? " " : "",
		       shared->log[i].ret < 0 ? strerror(-shared->log[i].ret) : "");
	}
	merge(edges);
	check();
}

static void faults_init(void)
{
	static const char *const capabilities[] = {
		"failslab", "fail_page_alloc", "fail_usercopy",
	};
	static const char *const settings[][2] = {
		{ "probability", "0" }, { "verbose", "0" }, { "task-filter", "Y" },
		{ "ignore-gfp-wait", "N" }, { "ignore-gfp-highmem", "N" }, { "min-order", "0" },
	};
	char path[100];

	for (int i = 0; i < ARRAY_SIZE(capabilities); i++) {
		for (int j = 0; j < ARRAY_SIZE(settings); j++) {
			sprintf(path, "/sys/kernel/debug/%s/%s", capabilities[i], settings[j][0]);
			write_file(path, settings[j][1]);
		}
	}
}

static void cover_init(void)
{
	int fd = open("/dev/fuzz_cover", O_RDWR | O_CLOEXEC);

	cover = mmap(NULL, sizeof(*cover), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd < 0 || cover == MAP_FAILED || madvise(cover, sizeof(*cover), MADV_DONTFORK))
		die("/dev/fuzz_cover");
	close(fd);
}

static void group_init(void)
{
	if (mkdir(GROUP, 0755) && errno != EEXIST)
		die(GROUP);
	write_file(GROUP "/pids.max", "150");
	group = open(GROUP, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	freezer = open(GROUP "/cgroup.freeze", O_WRONLY | O_CLOEXEC);
	if (group < 0 || freezer < 0)
		die(GROUP);
}

static int bad_usage(void)
{
	fprintf(stderr,
		"usage: run SEED SECONDS LAST CORPUS SEEDS BLOCKS\n"
		"           make programs; those in two folders are known; BLOCKS is what has run\n"
		"       replay TIMES LAST FILE...\n"
		"           run them; once says what each operation returned\n");
	return 2;
}

int main(int argc, char **argv)
{
	const size_t size = CORPUS * sizeof(*corpus);
	bool run = argc == 8 && !strcmp(argv[1], "run");

	if (argc == 2 && !strcmp(argv[1], "after-exec"))
		return after_exec();
	if (!run && (argc < 5 || strcmp(argv[1], "replay")))
		return bad_usage();

	last = open(argv[run ? 4 : 3], O_RDWR | O_CREAT | O_DSYNC | O_CLOEXEC, 0644);
	if (last < 0)
		die(argv[run ? 4 : 3]);
	corpus = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* Victims do not inherit it. */
	if (corpus == MAP_FAILED || madvise(corpus, size, MADV_DONTFORK))
		die("fuzz");
	ops_init();
	cover_init();
	group_init();
	faults_init();
	if (run) {
		/* A state of zero would stay zero. */
		random_state = strtoull(argv[2], NULL, 0) * 2 + 1;
		corpus_dir = argv[5];
		load(argv[6], true);
		load(corpus_dir, false);
		printf("%u programs are known, with %u edges\n", nr_corpus, nr_seen);
		fuzz(atof(argv[3]), argv[7]);
		return 0;
	}
	for (int i = 4; i < argc; i++)
		replay(argv[i], strtoul(argv[2], NULL, 0));
	printf("%lu executed, %u edges\n", executed, nr_seen);
	return 0;
}
