// SPDX-License-Identifier: GPL-2.0-only
/*
 * hammer - calls every function that "forkgate run" wraps, in three threads
 * while a fourth one forks, and once in each child
 *
 * usage: hammer fork|clone wrap|raw CHILDREN SECONDS [NAME...]
 *
 * by libc's fork() or a raw clone, that many children for each function (all of
 * them), which have hung after that many seconds. Prints the name of each, how
 * many children hung or crashed, and the totals; status 1 if there were any. It
 * knows nothing of forkgate: run it with and without.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <aliases.h>
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <dirent.h>
#include <dlfcn.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <fmtmsg.h>
#include <fnmatch.h>
#include <glob.h>
#include <grp.h>
#include <gshadow.h>
#include <iconv.h>
#include <ifaddrs.h>
#include <libintl.h>
#include <link.h>
#include <locale.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/ether.h>
#include <nl_types.h>
#include <printf.h>
#include <pthread.h>
#include <pwd.h>
#include <regex.h>
#include <resolv.h>
#include <semaphore.h>
#include <shadow.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <threads.h>
#include <time.h>
#include <uchar.h>
#include <unistd.h>
#include <utmp.h>
#include <utmpx.h>
#include <wchar.h>
#include <wordexp.h>

#include CALLS

#define THREADS		3

static const time_t moment = 1234567890;
static __thread struct tm tm;
static __thread char text[4096] __attribute__((__aligned__(16)));
static __thread wchar_t wide[128];
static __thread mbstate_t state;
static __thread struct passwd passwd;
static __thread struct group group;
static __thread struct spwd spwd;
static __thread struct sgrp sgrp;
static __thread struct hostent hostent;
static __thread struct netent netent;
static __thread struct protoent protoent;
static __thread struct servent servent;
static __thread struct rpcent rpcent;
static __thread struct aliasent aliasent;
static __thread struct utmp utmp;
static __thread char random_state[64];

static const struct utmp some_utmp = {
	.ut_type = USER_PROCESS,
	.ut_line = "pts/77",
	.ut_id = "77",
};

static const struct sockaddr_in address = { .sin_family = AF_INET };
#ifdef __aarch64__
static const char some_library[] = "/lib/aarch64-linux-gnu/libnss_compat.so.2";
#else
static const char some_library[] = "/lib/x86_64-linux-gnu/libnss_compat.so.2";
#endif
static const struct timespec far = { .tv_sec = 1L << 40 }, past = { .tv_sec = 1 };
static locale_t locale;
static regex_t regex;
static struct re_pattern_buffer pattern;
static DIR *dir;
static FILE *null, *zero, *wide_null, *wide_zero;
static pthread_t main_thread;
static bool child;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t recursive = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_mutex_t inheriting, robust;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_spinlock_t spin;
static mtx_t mtx;
static cnd_t cnd;

#define MUTEX()		(pthread_mutex_lock(&mutex), pthread_mutex_unlock(&mutex))
#define RWLOCK()	(pthread_rwlock_wrlock(&rwlock), pthread_rwlock_unlock(&rwlock))

/* Nobody is there to signal in a child. */
static void wait_for_cond(void)
{
	pthread_mutex_lock(&mutex);
	if (child)
		pthread_cond_timedwait(&cond, &mutex, &past);
	else
		pthread_cond_wait(&cond, &mutex);
	pthread_mutex_unlock(&mutex);
}

static void wait_for_cnd(void)
{
	mtx_lock(&mtx);
	if (child)
		cnd_timedwait(&cnd, &mtx, &past);
	else
		cnd_wait(&cnd, &mtx);
	mtx_unlock(&mtx);
}

static void *keep(void *pointer)
{
	__asm__ __volatile__("" : "+r" (pointer) : : "memory");
	return pointer;
}

static void nothing(void *unused)
{
}

static void nothing_on_exit(int status, void *unused)
{
}

static int each_object(struct dl_phdr_info *info, size_t size, void *unused)
{
	return 0;
}

static int print_nothing(FILE *file, const struct printf_info *info, const void *const *args)
{
	return 0;
}

static int print_arginfo(const struct printf_info *info, size_t n, int *types, int *size)
{
	return 0;
}

static int print_arginfo_old(const struct printf_info *info, size_t n, int *types)
{
	return 0;
}

/* A recipe has one more argument, where numbers and strings may be written. */
struct recipe {
	const char *name;
	void (*call)(int unused, ...);
};

#define NO_RECIPE(...)
#define RECIPE(name, ...)						\
static void recipe_##name(int unused, ...)				\
{									\
	va_list list __attribute__((__unused__));			\
									\
	va_start(list, unused);						\
	{ __VA_ARGS__; }						\
	va_end(list);							\
}

#include "recipes.inc"
#undef RECIPE

static const struct recipe recipes[] = {
#define RECIPE(name, ...) { #name, recipe_##name },
#include "recipes.inc"
#undef RECIPE
	{ NULL, NULL }
};

/* What the threads call, and how often each has done so since that was set */
static const struct recipe *volatile current;
static volatile unsigned int calls[THREADS];

static void *worker(void *number)
{
	static __thread long room[64];
	const struct recipe *recipe;

	for (;;) {
		recipe = current;
		if (recipe)
			recipe->call(0, room);
		else
			usleep(1000);
		calls[(long)number]++;
	}
	return NULL;
}

static unsigned int hung_seconds;	/* for one call in a child */
static int report;	/* standard output, which recipes write to, is /dev/null */

static void setup(void)
{
	pthread_mutexattr_t attr;

	report = dup(STDOUT_FILENO);
	if (!freopen("/dev/null", "r", stdin) || !freopen("/dev/null", "w", stdout) ||
	    dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
		_exit(2);
	main_thread = pthread_self();
	locale = newlocale(LC_ALL_MASK, "C.UTF-8", 0);
	null = fopen("/dev/null", "w");
	zero = fopen("/dev/zero", "r");
	wide_null = fopen("/dev/null", "w");
	wide_zero = fopen("/dev/zero", "r");
	dir = opendir("/etc");
	if (!locale || !null || !zero || !wide_null || !wide_zero || !dir ||
	    regcomp(&regex, "\\(a[[:alpha:]]*c\\)", 0) || re_compile_pattern("a*b", 3, &pattern))
		_exit(2);
	fwide(wide_null, 1);
	fwide(wide_zero, 1);
	setenv("DATEMSK", "/dev/null", 1);
	pthread_spin_init(&spin, PTHREAD_PROCESS_PRIVATE);
	mtx_init(&mtx, mtx_timed);
	cnd_init(&cnd);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&inheriting, &attr);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&robust, &attr);
}

/* Who waits for a condition gets one; main() does not wait for anything that a thread may hold. */
static void signal_all(void)
{
	pthread_cond_broadcast(&cond);
	cnd_broadcast(&cnd);
}

static pid_t copy(bool raw)
{
	return raw ? syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
}

/* A child that hangs within fork() has not set its alarm yet. Return: its status */
static int reap(pid_t pid)
{
	const unsigned int limit = (hung_seconds + 30) * 5000;
	int status = -1;
	unsigned int i;

	for (i = 0; !waitpid(pid, &status, WNOHANG); i++) {
		if (i == limit)
			kill(pid, SIGKILL);
		usleep(200);
	}
	return status;
}

static void say(const char *what, const char *name, unsigned int count)
{
	char line[128];
	int length = snprintf(line, sizeof(line), "%s %s %u\n", what, name, count);

	if (write(report, line, length) != length)
		_exit(2);
}

/* Return: how many of that many children did not end well. */
static unsigned int hammer(const struct recipe *recipe, bool raw, unsigned int children)
{
	unsigned int hung = 0, i, n, before[THREADS];
	static long room[64];
	int status;
	pid_t pid;

	current = recipe;
	for (i = 0; i < THREADS; i++)
		before[i] = calls[i];
	for (n = 0; n < children; n++) {
		/* all threads at it, in other places than last time */
		for (i = 0; i < THREADS; i++) {
			while (calls[i] - before[i] < 2) {
				signal_all();
				usleep(100);
			}
			before[i] = calls[i];
		}
		pid = copy(raw);
		if (!pid) {
			child = true;
			signal(SIGALRM, SIG_DFL);
			alarm(hung_seconds);
			recipe->call(0, room);
			_exit(0);
		}
		if (pid < 0) {
			say("failed", recipe->name, errno);
			_exit(2);
		}
		status = reap(pid);
		if (status && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM))
			say("crashed", recipe->name, status);
		hung += status != 0;
	}
	return hung;
}

int main(int argc, char **argv)
{
	unsigned int children, hung, total = 0, functions = 0;
	const struct recipe *recipe;
	bool raw, with_raw;
	pthread_t thread;
	long i;

	if (argc < 5)
		errx(2, "usage: hammer fork|clone wrap|raw CHILDREN SECONDS [NAME...]");
	raw = !strcmp(argv[1], "clone");
	with_raw = !strcmp(argv[2], "raw");
	children = atoi(argv[3]);
	hung_seconds = atoi(argv[4]);
	setup();
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&thread, NULL, worker, (void *)i))
			_exit(2);
	for (recipe = recipes; recipe->name; recipe++) {
		if (!with_raw && !strcmp(recipe->name, "malloc"))
			break;	/* those behind are for "raw" only */
		for (i = 5; i < argc && strcmp(recipe->name, argv[i]); i++)
			;
		if (argc > 5 && i == argc)
			continue;
		say("call", recipe->name, children);
		hung = hammer(recipe, raw, children);
		if (hung)
			say("hung", recipe->name, hung);
		total += hung;
		functions++;
	}
	say("functions", "all", functions);
	say("hung", "all", total);
	_exit(total ? 1 : 0);
}
