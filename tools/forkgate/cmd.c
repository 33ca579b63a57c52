// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd.c - messages, the terminal, children, files and quoting, for all subcommands
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"

const char *cmd_name = "";
const char *cmd_bold = "", *cmd_red = "", *cmd_cyan = "", *cmd_yellow = "", *cmd_reverse = "",
	   *cmd_plain = "";

static void (*callers_sigchld)(int);

void cmd_error(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "forkgate %s: ", cmd_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

int cmd_usage_error(const char *usage, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "forkgate %s: ", cmd_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\n%s", usage);
	return CMD_USAGE;
}

int cmd_help(const char *usage)
{
	fputs(usage, stdout);
	return cmd_flush();
}

int cmd_flush(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return CMD_OK;
	if (errno != EPIPE)
		cmd_error("cannot write: %s", strerror(errno));
	return CMD_PROBLEM;
}

void cmd_colours(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	if ((no && *no) || !term || !strcmp(term, "dumb") || !isatty(STDOUT_FILENO))
		return;
	cmd_bold = "\033[1m";
	cmd_red = "\033[1;31m";
	cmd_cyan = "\033[36m";
	cmd_yellow = "\033[33m";
	cmd_reverse = "\033[7m";
	cmd_plain = "\033[0m";
}

void cmd_children(void)
{
	callers_sigchld = signal(SIGCHLD, SIG_DFL);
}

void cmd_execvp(const char *file, char **argv)
{
	signal(SIGCHLD, callers_sigchld);
	execvp(file, argv);
}

char *cmd_read(const char *path)
{
	size_t size = 0, room = 0;
	char *text = NULL, *more;
	FILE *file = fopen(path, "re");

	if (!file)
		return NULL;
	do {
		if (room - size < 2) {
			room = room ? 2 * room : 16384;
			more = realloc(text, room);
			if (!more)
				goto fail;
			text = more;
		}
		size += fread(text + size, 1, room - size - 1, file);
	} while (!feof(file) && !ferror(file));
	if (ferror(file))
		goto fail;
	fclose(file);
	text[size] = '\0';
	return text;

fail:
	free(text);
	fclose(file);
	return NULL;
}

bool cmd_contains(const char *path, const char *text)
{
	char *all = cmd_read(path);
	bool found = all && strstr(all, text);

	free(all);
	return found;
}

uint64_t cmd_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

const char *cmd_time(uint64_t ns)
{
	static char buffers[8][32];
	static unsigned int next;
	char *text = buffers[next++ % ARRAY_SIZE(buffers)];

	if (ns < 1000)
		snprintf(text, 32, "%" PRIu64 " ns", ns);
	else if (ns < 1000000)
		snprintf(text, 32, "%.3g us", ns / 1e3);
	else if (ns < 1000000000)
		snprintf(text, 32, "%.3g ms", ns / 1e6);
	else if (ns < 100000000000)
		snprintf(text, 32, "%.3g s", ns / 1e9);
	else
		snprintf(text, 32, "%.0f s", ns / 1e9);
	return text;
}

/* How many bytes of valid UTF-8 a string begins with; 0 if the first is not */
static int utf8_length(const unsigned char *s)
{
	int i, length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 :
			s[0] < 0xf5 ? 4 : 0;

	for (i = 1; i < length; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	/* overlong forms, surrogates, what is beyond Unicode, and U+FFFE and U+FFFF, no XML */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0) ||
	    (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90) ||
	    (s[0] == 0xef && s[1] == 0xbf && s[2] >= 0xbe))
		return 0;
	return length;
}

void cmd_printable(char *text)
{
	unsigned char *s = (unsigned char *)text;
	int length;

	for (; *s; s += length) {
		length = utf8_length(s);
		if (length && *s >= ' ' && *s != 127 && (s[0] != 0xc2 || s[1] >= 0xa0))
			continue;
		length = length ? length : 1;
		memset(s, '?', length);
	}
}

void json_string(FILE *out, const char *string)
{
	const unsigned char *s = (const unsigned char *)string;
	int length;

	fputc('"', out);
	for (; *s; s += length ? length : 1) {
		length = utf8_length(s);
		if (*s == '"' || *s == '\\')
			fprintf(out, "\\%c", *s);
		else if (*s < ' ' || *s == 127)
			fprintf(out, "\\u%04x", *s);
		else if (length)
			fwrite(s, 1, length, out);
		else
			fputc('?', out);
	}
	fputc('"', out);
}

void xml_string(FILE *out, const char *string)
{
	const unsigned char *s = (const unsigned char *)string;
	int length;

	for (; *s; s += length ? length : 1) {
		length = utf8_length(s);
		if (*s == '<')
			fputs("&lt;", out);
		else if (*s == '&')
			fputs("&amp;", out);
		else if (*s == '"')
			fputs("&quot;", out);
		else if (*s < ' ' || *s == 127 || !length)
			fputc('?', out);
		else
			fwrite(s, 1, length, out);
	}
}
