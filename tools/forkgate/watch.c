// SPDX-License-Identifier: GPL-2.0-only
/*
 * watch.c - forkgate watch: all gates, continuously
 *
 * Must leave the terminal as it was, however it ends.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"
#include "gates.h"

#define FORGET	30	/* refreshes after which symbols are looked up again */
#define ESCAPE	'\033'

static const char usage[] =
	"usage: forkgate watch [-d SECONDS]\n"
	"\n"
	"Shows what \"forkgate ps\" prints, again and again. Needs root, and a terminal.\n"
	"\n"
	"  -d, --delay SECONDS  time between two looks (1)\n"
	"\n"
	"keys: s sorts by wait, pid, name or forks; / filters by name or pid; p or space\n"
	"pauses; q quits\n";

/* A gate as it was at the last look; names are looked up only once */
struct shown {
	pid_t tgid;
	char comm[GATES_NAME_SIZE];
	uint64_t urgency, forks;
	char *text;
};

static struct shown *shown;
static size_t nr_shown;
static time_t looked;

static enum { BY_WAIT, BY_PID, BY_NAME, BY_FORKS, ORDERS } order;
static const char * const orders[ORDERS] = { "wait", "pid", "name", "forks" };

static char filter[64];
static bool typing, paused, quit;

static volatile sig_atomic_t stopped, suspended, resumed;
static struct termios before;
static bool on_screen;

static void on_signal(int signal)
{
	if (signal == SIGTSTP)
		suspended = 1;
	else if (signal == SIGCONT)
		resumed = 1;
	else if (signal != SIGWINCH)
		stopped = 1;
}

/* A screen of its own, no cursor, no echo */
static void screen_enter(void)
{
	struct termios raw = before;

	raw.c_lflag &= ~(ECHO | ICANON);
	tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
	fputs("\033[?1049h\033[?25l", stdout);
	fflush(stdout);
	on_screen = true;
}

static void screen_leave(void)
{
	if (!on_screen)
		return;
	on_screen = false;
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
}

/*
 * What is shown
 */

/* Waiting forks first, the longest wait before all; then closed gates */
static uint64_t urgency(const struct gate *gate)
{
	uint64_t most = gate->closed || gate->blocked;
	size_t i;

	for (i = 0; i < gate->nr_forks; i++)
		if (gates_waits(&gate->forks[i]) && gate->forks[i].wait_ns > most)
			most = gate->forks[i].wait_ns;
	return most;
}

static int descending(uint64_t x, uint64_t y)
{
	return x < y ? 1 : x > y ? -1 : 0;
}

static int by_order(const void *a, const void *b)
{
	const struct shown *x = a, *y = b;
	int result = 0;

	if (order == BY_WAIT)
		result = descending(x->urgency, y->urgency);
	else if (order == BY_NAME)
		result = strcmp(x->comm, y->comm);
	else if (order == BY_FORKS)
		result = descending(x->forks, y->forks);
	return result ? result : x->tgid - y->tgid;
}

static bool passes_filter(const struct shown *gate)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", gate->tgid);
	return strstr(gate->comm, filter) || !strcmp(pid, filter);
}

static bool look(void)
{
	struct gates gates;
	size_t i, length;
	FILE *out;

	if (!gates_read(&gates))
		return false;
	for (i = 0; i < nr_shown; i++)
		free(shown[i].text);
	free(shown);
	nr_shown = gates.count;
	shown = calloc(nr_shown + 1, sizeof(*shown));
	for (i = 0; shown && i < nr_shown; i++) {
		const struct gate *gate = &gates.gates[i];

		shown[i].tgid = gate->tgid;
		snprintf(shown[i].comm, sizeof(shown[i].comm), "%s", gate->comm);
		shown[i].urgency = urgency(gate);
		shown[i].forks = gate->counters[GATES_FORKS];
		out = open_memstream(&shown[i].text, &length);
		if (!out)
			break;
		gates_print(gate, out);
		fclose(out);
	}
	if (!shown || i < nr_shown) {
		cmd_error("out of memory");
		exit(CMD_PROBLEM);
	}
	gates_free(&gates);
	looked = time(NULL);
	return true;
}

static void print_all(FILE *out)
{
	size_t i, waiting = 0, passed = 0;
	char when[32];

	for (i = 0; i < nr_shown; i++)
		waiting += shown[i].urgency > 1;
	strftime(when, sizeof(when), "%H:%M:%S", localtime(&looked));
	fprintf(out, "forkgate watch  %s%s  gates: %zu, with waiting forks: %zu\n", when,
		paused ? " (paused)" : "", nr_shown, waiting);
	fprintf(out, "%s\n", symbol_initial_pids() ? "" :
		"Run this in the initial pid namespace to see the names of threads and functions.");
	if (nr_shown)
		qsort(shown, nr_shown, sizeof(*shown), by_order);
	for (i = 0; i < nr_shown; i++) {
		if (!passes_filter(&shown[i]))
			continue;
		fputs(shown[i].text, out);
		passed++;
	}
	if (!passed)
		fprintf(out, nr_shown ? "No gate passes the filter.\n" :
			"No process has a gate.\n");
}

static void print_keys(FILE *out)
{
	if (typing)
		fprintf(out, "filter by name or pid: %s_  (Enter: keep it, Esc: show all)\n",
			filter);
	else
		fprintf(out, "s sort: %s  / filter: %s  p %s  q quit\n", orders[order],
			*filter ? filter : "none", paused ? "go on" : "pause");
}

/*
 * The terminal
 */

/* Columns of a character: those of UTF-8 that continue one have none */
static bool is_column(char c)
{
	return (c & 0xc0) != 0x80;
}

/* The last byte of an escape sequence, or of its line where it has no end */
static const char *escape_end(const char *text)
{
	text += strcspn(text, "m\n");
	return *text == 'm' ? text : text - 1;
}

static int columns_of(const char *text)
{
	int columns = 0;

	for (; *text && *text != '\n'; text++) {
		if (*text == ESCAPE)
			text = escape_end(text);
		else
			columns += is_column(*text);
	}
	return columns;
}

/*
 * print_line - what fits of a line, ">" instead of the end where it does not;
 * escape sequences take no room. Returns the next line.
 */
static const char *print_line(const char *text, int columns)
{
	bool fits = columns_of(text) <= columns;
	const char *end;
	int column = 0;

	/* Before the text: behind a full line this would erase its last character. */
	fputs("\033[K", stdout);
	for (; *text && *text != '\n'; text++) {
		if (*text == ESCAPE) {
			end = escape_end(text);
			fwrite(text, 1, end - text + 1, stdout);
			text = end;
			continue;
		}
		column += is_column(*text);
		if (fits || column < columns)
			putchar(*text);
		else if (column == columns && is_column(*text))
			putchar('>');
	}
	return text + !!*text;
}

static int count_lines(const char *text)
{
	int lines = 0;

	for (; *text; text++)
		lines += *text == '\n';
	return lines;
}

/* The last row is for the keys, the one before for what else there would be. */
static void print_screen(const char *text, const char *keys, int rows, int columns)
{
	int lines = count_lines(text), room = rows - 1, row;
	int cut = lines > room ? lines - room + 1 : 0;
	char hint[80];

	snprintf(hint, sizeof(hint), "%d more line%s; enlarge the window or filter\n", cut,
		 cut == 1 ? "" : "s");
	fputs("\033[H", stdout);
	for (row = 0; row < room; row++) {
		if (cut && row == room - 1)
			text = hint;
		text = print_line(text, columns);
		putchar('\n');
	}
	fputs(cmd_reverse, stdout);
	print_line(keys, columns);
	fputs(cmd_plain, stdout);
	fputs("\033[?25l", stdout);
	fflush(stdout);
}

static void draw(void)
{
	struct winsize size = {};
	char *text = NULL, *keys = NULL;
	size_t length;
	FILE *out;

	out = open_memstream(&text, &length);
	if (out) {
		print_all(out);
		fclose(out);
	}
	out = open_memstream(&keys, &length);
	if (out) {
		print_keys(out);
		fclose(out);
	}
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_row || !size.ws_col)
		size = (struct winsize){ .ws_row = 24, .ws_col = 80 };
	if (text && keys)
		print_screen(text, keys, size.ws_row, size.ws_col);
	free(text);
	free(keys);
}

/*
 * Keys
 */

static void on_filter_key(char key)
{
	size_t length = strlen(filter);

	switch (key) {
	case ESCAPE:
		*filter = '\0';
		typing = false;
		break;
	case '\n':
		typing = false;
		break;
	case '\b':
	case 127:
		/* The whole character */
		while (length && !is_column(filter[length - 1]))
			length--;
		filter[length ? length - 1 : 0] = '\0';
		break;
	default:
		if ((unsigned char)key < ' ' || length + 1 == sizeof(filter))
			break;
		filter[length] = key;
		filter[length + 1] = '\0';
	}
}

static void on_key(char key)
{
	if (typing) {
		on_filter_key(key);
		return;
	}
	switch (key) {
	case 's':
		order = (order + 1) % ORDERS;
		break;
	case '/':
		typing = true;
		break;
	case 'p':
	case ' ':
		paused = !paused;
		break;
	case 'q':
		quit = true;
		break;
	}
}

/* Of what a key sends after Escape, as an arrow or a letter with Alt: the last character */
static ssize_t sequence_end(const char *keys, ssize_t i, ssize_t count)
{
	if (keys[i] == '[' || keys[i] == 'O')
		do
			i++;
		while (i < count && keys[i] < '@');
	return i;
}

/* Until the delay is over or something happens; false when nobody can type any more */
static bool wait_keys(const struct timespec *delay, const sigset_t *mask)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	char keys[64];
	ssize_t i, count;

	if (ppoll(&in, 1, paused ? NULL : delay, mask) <= 0)
		return true;
	count = read(STDIN_FILENO, keys, sizeof(keys));
	for (i = 0; i < count; i++) {
		/* Alone it is a key, with more behind it one that has no meaning here */
		if (keys[i] == ESCAPE && i + 1 < count)
			i = sequence_end(keys, i + 1, count);
		else
			on_key(keys[i]);
	}
	return count > 0;
}

static int watch(const struct timespec *delay)
{
	static const int signals[] = {
		SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT, SIGWINCH,
	};
	struct sigaction action = { .sa_handler = on_signal };
	int refreshes = 0, status = CMD_OK;
	struct gates gates;
	sigset_t mask, old;
	size_t i;

	/* They arrive in ppoll() alone */
	sigemptyset(&mask);
	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		sigaddset(&mask, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
	sigprocmask(SIG_BLOCK, &mask, &old);
	tcgetattr(STDIN_FILENO, &before);
	atexit(screen_leave);
	screen_enter();
	do {
		if (suspended) {
			suspended = 0;
			screen_leave();
			raise(SIGSTOP);
			continue;	/* SIGCONT, which ended that, is waited for */
		}
		if (resumed) {
			resumed = 0;
			screen_enter();
		}
		if (!paused) {
			if (++refreshes % FORGET == 0)
				symbol_forget();
			if (!look()) {
				status = CMD_PROBLEM;
				break;
			}
		}
		draw();
	} while (wait_keys(delay, &old) && !quit && !stopped);
	screen_leave();
	/* What was said on the screen that is gone now */
	if (status != CMD_OK && gates_read(&gates))
		gates_free(&gates);
	return status;
}

int cmd_watch(int argc, char **argv)
{
	static const struct option options[] = {
		{ "delay", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{}
	};
	struct timespec delay = { .tv_sec = 1 };
	struct gates gates;
	double seconds;
	int option;
	char *end;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":d:h", options, NULL)) != -1) {
		switch (option) {
		case 'd':
			seconds = strtod(optarg, &end);
			if (end == optarg || *end || !(seconds >= 0.05 && seconds <= 86400))
				return cmd_usage_error(usage,
						       "invalid delay \"%s\" (0.05 to 86400 seconds)",
						       optarg);
			delay.tv_sec = seconds;
			delay.tv_nsec = (seconds - delay.tv_sec) * 1e9;
			break;
		case 'h':
			return cmd_help(usage);
		case ':':
			return cmd_usage_error(usage, "option \"%s\" needs a value",
					       argv[optind - 1]);
		default:
			return cmd_usage_error(usage, "unknown option \"%s\"", argv[optind - 1]);
		}
	}
	if (optind < argc)
		return cmd_usage_error(usage, "unknown argument \"%s\"", argv[optind]);
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
		cmd_error("needs a terminal; for a file or a pipe use \"forkgate ps\"");
		return CMD_PROBLEM;
	}
	/* What is wrong from the start is said on the normal screen. */
	if (!gates_read(&gates))
		return CMD_PROBLEM;
	gates_free(&gates);
	return watch(&delay);
}
