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

static const char usage[] =
	"usage: forkgate watch [-d SECONDS]\n"
	"\n"
	"Shows what \"forkgate ps\" prints, again and again, those with waiting forks\n"
	"first. Ends with q or Ctrl-C. Needs root, and a terminal.\n"
	"\n"
	"  -d, --delay SECONDS  how long to wait in between (1)\n";

static volatile sig_atomic_t stopped, suspended;
static struct termios before;

static void on_signal(int signal)
{
	if (signal == SIGTSTP)
		suspended = 1;
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
}

static void screen_leave(void)
{
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
}

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

static int by_urgency(const void *a, const void *b)
{
	uint64_t x = urgency(a), y = urgency(b);

	if (x != y)
		return x < y ? 1 : -1;
	return ((const struct gate *)a)->tgid - ((const struct gate *)b)->tgid;
}

/* Columns of a character: those of UTF-8 that continue one have none */
static bool is_column(char c)
{
	return (c & 0xc0) != 0x80;
}

/* Print what fits; escape sequences take no room */
static void print_screen(const char *text, int rows, int columns)
{
	int row = 0, column = 0;

	fputs("\033[H", stdout);
	for (; *text && row < rows; text++) {
		if (*text == '\n') {
			fputs("\033[K", stdout);
			if (++row < rows)
				fputs("\n", stdout);
			column = 0;
		} else if (*text == '\033') {
			for (; *text && *text != 'm'; text++)
				fputc(*text, stdout);
			fputc('m', stdout);
		} else if (!is_column(*text)) {
			if (column <= columns)
				fputc(*text, stdout);
		} else if (column++ < columns) {
			fputc(*text, stdout);
		}
	}
	fputs("\033[J", stdout);
	fflush(stdout);
}

static bool show(void)
{
	struct winsize size = {};
	size_t i, waiting = 0;
	struct gates gates;
	char *text = NULL, when[32];
	size_t length;
	time_t now;
	FILE *out;

	if (!gates_read(&gates))
		return false;
	if (gates.count)
		qsort(gates.gates, gates.count, sizeof(*gates.gates), by_urgency);
	for (i = 0; i < gates.count; i++)
		waiting += urgency(&gates.gates[i]) > 1;

	out = open_memstream(&text, &length);
	if (!out) {
		gates_free(&gates);
		return false;
	}
	now = time(NULL);
	strftime(when, sizeof(when), "%H:%M:%S", localtime(&now));
	fprintf(out, "forkgate watch  %s  gates: %zu, with waiting forks: %zu\n\n", when,
		gates.count, waiting);
	if (!gates.count)
		fprintf(out, "No process has a gate.\n");
	for (i = 0; i < gates.count; i++)
		gates_print(&gates.gates[i], out);
	fclose(out);
	gates_free(&gates);

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_row || !size.ws_col)
		size = (struct winsize){ .ws_row = 24, .ws_col = 80 };
	print_screen(text, size.ws_row, size.ws_col);
	free(text);
	return true;
}

/* Until the delay is over; false when q was typed, or nobody can type any more */
static bool wait_key(const struct timespec *delay, const sigset_t *mask)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	char key;

	if (ppoll(&in, 1, delay, mask) <= 0)
		return true;
	return read(STDIN_FILENO, &key, 1) == 1 && key != 'q';
}

static int watch(const struct timespec *delay)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH };
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
	screen_enter();
	do {
		if (suspended) {
			suspended = 0;
			screen_leave();
			raise(SIGSTOP);
			screen_enter();
		}
		if (++refreshes % FORGET == 0)
			symbol_forget();
		if (!show()) {
			status = CMD_PROBLEM;
			break;
		}
	} while (wait_key(delay, &old) && !stopped);
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
				return cmd_usage_error(usage, "\"%s\" is not 0.05 to 86400 seconds",
						       optarg);
			delay.tv_sec = seconds;
			delay.tv_nsec = (seconds - delay.tv_sec) * 1e9;
			break;
		case 'h':
			return cmd_help(usage);
		case ':':
			return cmd_usage_error(usage, "\"%s\" needs a value", argv[optind - 1]);
		default:
			return cmd_usage_error(usage, "unknown option \"%s\"", argv[optind - 1]);
		}
	}
	if (optind < argc)
		return cmd_usage_error(usage, "unknown argument \"%s\"", argv[optind]);
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
		cmd_error("needs a terminal; for a file or a pipe there is \"forkgate ps\"");
		return CMD_PROBLEM;
	}
	/* What is wrong from the start is said on the normal screen. */
	if (!gates_read(&gates))
		return CMD_PROBLEM;
	gates_free(&gates);
	return watch(&delay);
}
