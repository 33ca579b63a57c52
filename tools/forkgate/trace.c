// SPDX-License-Identifier: GPL-2.0-only
/*
 * trace.c - forkgate trace: run a program and draw a timeline of its forks
 *
 * Records the module's tracepoints in a tracing instance of its own, which it
 * removes however it ends, and looks at the gates while one is closed, because a
 * section that nobody waits for makes no event. Must not change what the program
 * does, but for the time it takes.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"
#include "device.h"
#include "gates.h"
#include "timeline.h"

#define EVENTS		1000000	/* how many are kept */
#define COMM		16	/* columns before "-PID" in a line */
#define PICTURE		"forkgate-trace.svg"

static const char usage[] =
	"usage: forkgate trace [-o FILE] [--perfetto FILE] [--] PROGRAM [ARGUMENT...]\n"
	"\n"
	"Runs a program and draws when its gates were closed, which forks waited and for\n"
	"whom, and who was kept out: a picture that any browser shows. Needs root.\n"
	"\n"
	"  -o, --output FILE  the picture, an SVG file (" PICTURE "); a name that\n"
	"                     ends in .json asks for what --perfetto writes instead\n"
	"  --perfetto FILE    the same for https://ui.perfetto.dev and Chrome's tracing\n"
	"\n"
	"status: that of the program; 125 if the trace failed, 126 if the program cannot be\n"
	"run, 127 if it was not found\n";

static const char * const names[TL_KINDS] = {
	[TL_CLOSE] = "close", [TL_GRANT] = "grant", [TL_YIELD] = "yield", [TL_EXPIRE] = "expire",
	[TL_TIMEOUT] = "timeout", [TL_ABANDON] = "abandon", [TL_BYPASS] = "bypass",
	[TL_OPEN] = "open", [TL_ENTER_WAIT] = "enter_wait", [TL_ENTER_GO] = "enter_go",
	[TL_TASK] = "task_newtask", [TL_NAME] = "task_rename", [TL_EXIT] = "sched_process_exit",
};

static struct timeline tl;

/* Gates that are closed now, by the events */
static struct {
	uint64_t *ids;
	size_t count;
} closed;

static volatile sig_atomic_t forward;
static pid_t child;

/*
 * The tracing instance
 */

static char instance[128];
static int trace_pipe = -1;

static bool set(const char *file, const char *text)
{
	char path[256];
	ssize_t written;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", instance, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	written = write(fd, text, strlen(text));
	close(fd);
	return written >= 0;
}

static void instance_remove(void)
{
	if (!*instance)
		return;
	if (trace_pipe >= 0)
		close(trace_pipe);
	set("events/enable", "0");
	if (rmdir(instance) && errno != ENOENT)
		cmd_error("cannot remove %s: %s", instance, strerror(errno));
	*instance = '\0';
}

/* What was left by one that was killed */
static void remove_stale(const char *tracefs)
{
	char pattern[128];
	glob_t found;
	size_t i;

	snprintf(pattern, sizeof(pattern), "%s/instances/forkgate-trace-*", tracefs);
	if (!glob(pattern, 0, NULL, &found)) {
		for (i = 0; i < found.gl_pathc; i++) {
			pid_t pid = atoi(strrchr(found.gl_pathv[i], '-') + 1);

			if (pid > 0 && kill(pid, 0) && errno == ESRCH)
				rmdir(found.gl_pathv[i]);
		}
	}
	globfree(&found);
}

/* In the order in which it has to be cured */
static void say_unusable(const char *what)
{
	struct trouble trouble;

	if (geteuid())
		cmd_error("needs root");
	else if (device_not_loaded(&trouble))
		cmd_error("%s\n%s", trouble.what, trouble.cure);
	else
		cmd_error("%s", what);
}

static bool instance_make(void)
{
	static const char * const roots[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };
	static const char * const events[] = {
		"events/task/task_newtask/enable", "events/task/task_rename/enable",
		"events/sched/sched_process_exit/enable", "events/forkgate/enable",
	};
	char path[160];
	size_t i;

	/* Events name threads by their ids there. */
	if (!symbol_initial_pids()) {
		say_unusable("run this in the initial pid namespace, outside of containers");
		return false;
	}
	for (i = 0; i < ARRAY_SIZE(roots); i++) {
		snprintf(path, sizeof(path), "%s/instances", roots[i]);
		if (!access(path, F_OK))
			break;
	}
	if (i == ARRAY_SIZE(roots)) {
		say_unusable("no tracefs; mount it: mount -t tracefs none /sys/kernel/tracing");
		return false;
	}
	snprintf(path, sizeof(path), "%s/events/forkgate", roots[i]);
	if (access(path, F_OK)) {
		say_unusable("the module has no tracepoints here; dmesg has the reason");
		return false;
	}
	remove_stale(roots[i]);
	snprintf(instance, sizeof(instance), "%s/instances/forkgate-trace-%d", roots[i], getpid());
	if (mkdir(instance, 0700)) {
		cmd_error("%s: %s", instance, strerror(errno));
		*instance = '\0';
		return false;
	}
	/* What was done in which order on all processors; readers are told at once */
	set("trace_clock", "mono");
	set("buffer_percent", "0");
	set("options/record-cmd", "0");
	for (i = 0; i < ARRAY_SIZE(events); i++) {
		if (!set(events[i], "1")) {
			cmd_error("%s/%s: %s", instance, events[i], strerror(errno));
			return false;
		}
	}
	snprintf(path, sizeof(path), "%s/trace_pipe", instance);
	trace_pipe = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (trace_pipe < 0)
		cmd_error("%s: %s", path, strerror(errno));
	return trace_pipe >= 0;
}

/*
 * Events
 */

static struct tl_event *new_event(enum tl_kind kind, uint64_t at)
{
	struct tl_event *e;

	if (tl.nr_events == EVENTS) {
		tl.lost++;
		return NULL;
	}
	e = tl_add(tl.events, tl.nr_events);
	e->kind = kind;
	e->at = at;
	return e;
}

/* Processes of ours as they come and go, so that only they are looked at */
static struct {
	pid_t tid, tgid;
} *ours;

static size_t nr_ours;

static pid_t our_process(pid_t tid)
{
	size_t i;

	for (i = nr_ours; i-- > 0;)
		if (ours[i].tid == tid)
			return ours[i].tgid;
	return 0;
}

static void ours_add(pid_t tid, pid_t tgid)
{
	ours = tl_grow(ours, nr_ours, sizeof(*ours));
	ours[nr_ours].tid = tid;
	ours[nr_ours++].tgid = tgid;
}

static void ours_remove(pid_t tid)
{
	size_t i;

	for (i = nr_ours; i-- > 0;)
		if (ours[i].tid == tid)
			ours[i] = ours[--nr_ours];
}

/* The last " NAME=" of a line: before it there may be a name that somebody chose */
static const char *last(const char *line, const char *field)
{
	const char *at = line, *found = NULL;

	while ((at = strstr(at, field)))
		found = at++;
	return found ? found + strlen(field) : "";
}

/* What a thread chose as its name lies between two fields. */
static char *chosen(const char *line, const char *before, const char *behind)
{
	const char *from = strstr(line, before), *to = line;
	const char *at = line;

	while ((at = strstr(at, behind)))
		to = at++;
	if (!from)
		return NULL;
	from += strlen(before);
	if (to < from)
		to = from + strlen(from);
	return strndup(from, to - from);
}

static char *section(pid_t tgid, uint64_t site, const char *label)
{
	const char *symbol = symbol_name(tgid, site);
	char *text;

	if (asprintf(&text, *label ? "\"%s\" at %s" : "%s%s", *label ? label : symbol,
		     *label ? symbol : "") < 0)
		return NULL;
	return text;
}

static void on_closed(uint64_t gate, bool is_closed)
{
	size_t i;

	for (i = 0; i < closed.count; i++)
		if (closed.ids[i] == gate)
			break;
	if (is_closed && i == closed.count) {
		closed.ids = tl_grow(closed.ids, closed.count, sizeof(*closed.ids));
		closed.ids[closed.count++] = gate;
	} else if (!is_closed && i < closed.count) {
		closed.ids[i] = closed.ids[--closed.count];
	}
}

static void gate_event(struct tl_event *e, const char *fields, char *label)
{
	uint64_t site;
	pid_t tgid;

	e->gate = strtoull(gates_value(fields, "gate"), NULL, 16);
	e->tid = gates_number(fields, *gates_value(fields, "forker") ? "forker" : "thread");
	e->domains = gates_set(fields, "domains");
	e->flag = gates_number(fields, *gates_value(fields, "granted") ? "granted" : "ticket");
	if (e->kind == TL_OPEN)
		e->ns = gates_number(fields, "closed");
	else
		e->ns = gates_number(fields, e->kind == TL_YIELD ? "patience" : "waited");
	e->other = gates_number(fields, "holder");
	tgid = e->tid ? our_process(e->tid) : 0;
	if (e->kind == TL_CLOSE && tgid)
		on_closed(e->gate, true);
	else if (e->kind == TL_OPEN)
		on_closed(e->gate, false);
	site = gates_number(fields, "site");
	if (label && site)	/* the process may be gone already */
		e->text = tgid ? section(tgid, site, label) : strdup(label);
}

static void task_event(struct tl_event *e, const char *fields, pid_t actor)
{
	unsigned long flags;
	pid_t parent;

	switch (e->kind) {
	case TL_TASK:
		e->tid = gates_number(fields, "pid");
		e->text = chosen(fields, " comm=", " clone_flags=");
		flags = strtoul(last(fields, " clone_flags="), NULL, 16);
		e->flag = flags & 0x10000;	/* CLONE_THREAD */
		e->other = actor;
		parent = our_process(actor);
		if (parent)
			ours_add(e->tid, e->flag ? parent : e->tid);
		break;
	case TL_NAME:
		e->tid = strstr(fields, " pid=") ? (pid_t)gates_number(fields, "pid") : actor;
		e->text = chosen(fields, " newcomm=", " oom_score_adj=");
		break;
	default:
		/* The one who exits */
		e->tid = actor;
		ours_remove(actor);
	}
}

/* Is this about us? The events of tasks are of the whole machine. */
static bool wanted(const struct tl_event *e)
{
	return e->kind < TL_TASK || our_process(e->tid) ||
	       (e->kind == TL_TASK && our_process(e->other));
}

/*
 * "            comm-123     [001] d..2.  12.345678: close: gate=... ..."
 *
 * A name has up to 15 bytes, any bytes: the line is read from column 16 on, and
 * one that a name has broken in two is no line.
 */
static void parse(char *line)
{
	char *at, *end, *label = NULL, *mark;
	struct tl_event *e, event = {};
	double seconds;
	pid_t actor;
	size_t i;

	at = strstr(line, " [LOST ");
	if (at && !strncmp(line, "CPU:", 4)) {
		tl.lost += strtoull(at + 7, NULL, 10);
		return;
	}
	if (strlen(line) < COMM + 2 || line[COMM] != '-')
		return;
	actor = strtol(line + COMM + 1, &end, 10);
	at = strchr(end, ']');
	if (!at)
		return;
	at += strspn(at, "] ");
	at += strcspn(at, " ");		/* flags */
	seconds = strtod(at, &end);
	if (*end != ':' || seconds <= 0)
		return;
	event.at = seconds * 1e9;
	at = end + 1 + strspn(end + 1, " ");
	end = strchr(at, ':');
	if (!end)
		return;
	*end++ = '\0';
	for (i = 0; i < TL_KINDS; i++)
		if (names[i] && !strcmp(at, names[i]))
			break;
	if (i == TL_KINDS)
		return;
	event.kind = i;
	if (event.kind >= TL_TASK) {
		bool was_ours = our_process(actor);

		task_event(&event, end, actor);
		if (!wanted(&event) && !(event.kind == TL_EXIT && was_ours)) {
			free(event.text);
			return;
		}
	} else {
		/* Last, and the only text in these: nothing behind it counts */
		mark = strstr(end, " label=");
		if (mark) {
			label = mark + 7;
			*mark = '\0';
		}
		gate_event(&event, end, label);
	}
	e = new_event(event.kind, event.at);
	if (e)
		*e = event;
	else
		free(event.text);
}

/* Whole lines of what there is; false when there is nothing at the moment */
static bool read_events(void)
{
	static char text[65536];
	static size_t have;
	char *line, *end;
	ssize_t got;

	got = read(trace_pipe, text + have, sizeof(text) - 1 - have);
	if (got <= 0)
		return false;
	have += got;
	text[have] = '\0';
	for (line = text; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		parse(line);
	}
	have = text + have - line;
	memmove(text, line, have);
	if (have == sizeof(text) - 1)
		have = 0;
	return true;
}

/* Who is inside while one of our gates is closed? */
static void look(void)
{
	struct tl_event *e;
	struct gates gates;
	uint64_t at = cmd_now();
	size_t i, j;

	if (!gates_read(&gates))
		return;
	tl.looks++;
	for (i = 0; i < gates.count; i++) {
		struct gate *gate = &gates.gates[i];

		if (!our_process(gate->tgid) || !gate->closed)
			continue;
		for (j = 0; j < gate->nr_holders; j++) {
			e = new_event(TL_SEEN, at);
			if (!e)
				break;
			e->tid = gate->holders[j].tid;
			e->domains = gate->holders[j].domains;
			e->ns = tl.looks;
			e->text = section(gate->tgid, gate->holders[j].site,
					  gate->holders[j].label);
		}
	}
	gates_free(&gates);
}

/*
 * The program
 */

static void on_signal(int signal)
{
	forward = signal;
}

/*
 * start - the program, which waits before its first instruction until something
 * is written to one pipe, and writes to the other why it cannot be executed
 */
static bool start(char **argv, int *go, int *failed)
{
	int gate[2], error[2];
	char c;

	if (pipe2(gate, O_CLOEXEC) || pipe2(error, O_CLOEXEC)) {
		cmd_error("pipe: %s", strerror(errno));
		return false;
	}
	fflush(NULL);
	child = fork();
	if (child < 0) {
		cmd_error("fork: %s", strerror(errno));
		return false;
	}
	if (!child) {
		close(gate[1]);
		if (read(gate[0], &c, 1) != 1)
			_exit(CMD_TRACE_FAILED);
		cmd_execvp(argv[0], argv);
		if (write(error[1], &errno, sizeof(errno)) < 0)
			_exit(CMD_TRACE_FAILED);
		_exit(errno == ENOENT ? CMD_NOT_FOUND : CMD_CANNOT_RUN);
	}
	close(gate[0]);
	close(error[1]);
	*go = gate[1];
	*failed = error[0];
	return true;
}

/* record - until the program ends; its wait status */
static int record(void)
{
	struct pollfd pipe = { .fd = trace_pipe, .events = POLLIN };
	int status = 0;
	bool more;
	pid_t pid;

	do {
		poll(&pipe, 1, closed.count ? 5 : 20);
		if (forward) {
			kill(child, forward);
			forward = 0;
		}
		pid = waitpid(child, &status, WNOHANG);
		do {
			more = read_events();
			if (closed.count)
				look();
		} while (more);
		/* A storm of events is read in heaps. */
		usleep(1000);
	} while (pid != child);
	tl.to = cmd_now();
	return status;
}

static void summary(const char *svg, const char *json)
{
	uint64_t longest = 0;
	size_t i, waits = 0;

	for (i = 0; i < tl.nr_bars; i++) {
		const struct tl_bar *bar = &tl.bars[i];

		if (bar->kind != TL_BAR_WAIT && bar->kind != TL_BAR_FAILED)
			continue;
		waits++;
		if (bar->to - bar->from > longest)
			longest = bar->to - bar->from;
	}
	if (waits)
		cmd_error("%zu fork%s waited, the longest for %s; see %s%s%s", waits,
			  waits == 1 ? "" : "s", cmd_time(longest), svg ? svg : json,
			  svg && json ? " and " : "", svg && json ? json : "");
	else
		cmd_error("no fork waited; see %s", svg ? svg : json);
	if (tl.lost)
		cmd_error("%" PRIu64 " events were lost", tl.lost);
}

/* Where a timeline goes; path is NULL if nowhere */
struct output {
	const char *path;
	FILE *file;
	bool made;	/* the file is new */
};

static bool save(struct output *output, void (*draw)(const struct timeline *, FILE *))
{
	FILE *file = output->file;

	if (!file)
		return true;
	if (!ftruncate(fileno(file), 0) || errno == EINVAL) {
		draw(&tl, file);
		if (!fflush(file) && !ferror(file) && !fclose(file)) {
			output->made = false;	/* it stays */
			return true;
		}
	}
	cmd_error("%s: %s", output->path, strerror(errno));
	return false;
}

/*
 * What cannot be written is not recorded. What is there already stays until there is
 * something to save. A name that was not asked for leads nowhere else: the folder may be
 * another user's.
 */
static bool output_open(struct output *output)
{
	int flags, fd;
	struct stat there;

	if (!output->path)
		return true;
	flags = strcmp(output->path, PICTURE) ? 0 : O_NOFOLLOW | O_NONBLOCK;
	output->made = lstat(output->path, &there);
	fd = open(output->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | flags, 0666);
	output->file = fd < 0 ? NULL : fdopen(fd, "a");
	if (!output->file)
		cmd_error("%s: %s", output->path, flags && errno == ELOOP ?
			  "is a link; name its target with -o" : strerror(errno));
	return output->file;
}

/* There is nothing to save: leave no empty file. */
static void output_drop(const struct output *output)
{
	if (output->file && output->made)
		unlink(output->path);
}

static char *join(char **argv)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return NULL;
	for (; *argv; argv++)
		fprintf(out, "%s%s", *argv, argv[1] ? " " : "");
	fclose(out);
	return text;
}

static int trace(char **argv, const char *svg, const char *json)
{
	struct sigaction action = { .sa_handler = on_signal }, ignore = { .sa_handler = SIG_IGN };
	struct output picture = { .path = svg }, perfetto = { .path = json };
	int go, failed, status, error, result = CMD_TRACE_FAILED;
	struct tl_event *first;
	char *title;

	if (!start(argv, &go, &failed))
		return CMD_TRACE_FAILED;
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	if (!instance_make() || !output_open(&picture) || !output_open(&perfetto)) {
		close(go);
		waitpid(child, NULL, 0);
		instance_remove();
		goto drop;
	}
	/* These go to the program, which is in the same group */
	sigaction(SIGINT, &ignore, NULL);
	sigaction(SIGQUIT, &ignore, NULL);
	tl.from = cmd_now();
	first = new_event(TL_TASK, tl.from);
	first->tid = child;
	ours_add(child, child);
	if (write(go, "", 1) != 1)
		cmd_error("cannot start the program: %s", strerror(errno));
	status = record();
	instance_remove();
	if (read(failed, &error, sizeof(error)) == sizeof(error)) {
		cmd_error("%s: %s", argv[0], strerror(error));
		result = error == ENOENT ? CMD_NOT_FOUND : CMD_CANNOT_RUN;
		goto drop;
	}

	title = join(argv);
	tl.title = title ? title : "";
	tl_build(&tl);
	if (!save(&picture, tl_svg) || !save(&perfetto, tl_perfetto))
		goto drop;
	summary(svg, json);
	tl_free(&tl);
	free(title);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);

drop:
	output_drop(&picture);
	output_drop(&perfetto);
	return result;
}

static bool ends_in(const char *text, const char *end)
{
	size_t length = strlen(text), tail = strlen(end);

	return length >= tail && !strcmp(text + length - tail, end);
}

/* Not 2, which may be the program's status */
static int bad_usage(const char *what, const char *argument)
{
	cmd_usage_error(usage, *argument ? "%s: \"%s\"" : "%s", what, argument);
	return CMD_TRACE_FAILED;
}

int cmd_trace(int argc, char **argv)
{
	static const struct option options[] = {
		{ "output", required_argument, NULL, 'o' },
		{ "perfetto", required_argument, NULL, 'p' },
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	const char *svg = NULL, *json = NULL;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, "+:o:h", options, NULL)) != -1) {
		switch (option) {
		case 'o':
			svg = optarg;
			break;
		case 'p':
			json = optarg;
			break;
		case 'h':
			return cmd_help(usage);
		case ':':
			return bad_usage("option needs a value", argv[optind - 1]);
		default:
			return bad_usage("unknown option", argv[optind - 1]);
		}
	}
	if (optind == argc)
		return bad_usage("no program given", "");
	if (svg && ends_in(svg, ".json")) {
		if (json)
			return bad_usage("give -o FILE.json or --perfetto FILE, not both", "");
		json = svg;
		svg = NULL;
	} else if (!svg && !json) {
		svg = PICTURE;
	}
	return trace(argv + optind, svg, json);
}
