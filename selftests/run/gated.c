// SPDX-License-Identifier: GPL-2.0-only
/*
 * gated.c - "forkgate run": what it tells the program's gate, who delays a fork,
 * what users are told, and what it refuses; with the module, and without it as far
 * as that makes no difference, or a known one
 *
 * The test runs itself under the command: "gated PART" is a program that knows
 * nothing of forkgate and ends with status 0 if all was well.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <kselftest_harness.h>
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	600

#include <forkgate.h>

/*
 * Parts
 */

/* policy TIMEOUT PATIENCE ON_TIMEOUT: is it that? */
static int part_policy(char **argv)
{
	int (*get)(struct forkgate_policy *policy) = dlsym(RTLD_DEFAULT, "forkgate_policy_get");
	struct forkgate_policy policy;

	if (!get || get(&policy))
		return 1;
	return !(policy.timeout == strtoull(argv[0], NULL, 0) &&
		 policy.backstop == policy.timeout &&
		 policy.patience == strtoull(argv[1], NULL, 0) &&
		 policy.on_timeout == strtoul(argv[2], NULL, 0));
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static sem_t ready;

static void asleep(pid_t tid)
{
	char path[64], text[256], *end;
	int fd, length;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	do {
		usleep(1000);
		fd = open(path, O_RDONLY);
		length = read(fd, text, sizeof(text) - 1);
		close(fd);
		text[length < 0 ? 0 : length] = '\0';
		end = strrchr(text, ')');
	} while (!end || end[2] != 'S');
}

static volatile pid_t waiter_tid;

static void *wait_for_mutex(void *unused)
{
	waiter_tid = gettid();
	sem_post(&ready);
	pthread_mutex_lock(&mutex);
	pthread_mutex_unlock(&mutex);
	return NULL;
}

static int fork_and_check(int (*child)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		alarm(20);
		_exit(child());
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	return status ? 2 : 0;
}

static int child_unlocks(void)
{
	if (pthread_mutex_trylock(&mutex) != EBUSY || pthread_mutex_unlock(&mutex))
		return 1;
	return pthread_mutex_lock(&mutex);
}

/* Who waits for a lock of the forking thread does not delay the fork for ever. */
static int part_lock_fork_unlock(char **argv)
{
	pthread_t thread;
	int result;

	pthread_mutex_lock(&mutex);
	pthread_create(&thread, NULL, wait_for_mutex, NULL);
	sem_wait(&ready);
	asleep(waiter_tid);
	result = fork_and_check(child_unlocks);
	pthread_mutex_unlock(&mutex);
	pthread_join(thread, NULL);
	return result;
}

static void *wait_for_cond(void *unused)
{
	pthread_mutex_lock(&mutex);
	waiter_tid = gettid();
	sem_post(&ready);
	pthread_cond_wait(&cond, &mutex);
	pthread_mutex_unlock(&mutex);
	return NULL;
}

static int child_locks(void)
{
	return pthread_mutex_lock(&mutex);
}

/* Who waits for a condition does not delay it either. */
static int part_condition(char **argv)
{
	pthread_t thread;
	int result;

	pthread_create(&thread, NULL, wait_for_cond, NULL);
	sem_wait(&ready);
	asleep(waiter_tid);
	result = fork_and_check(child_locks);
	pthread_mutex_lock(&mutex);
	pthread_cond_signal(&cond);
	pthread_mutex_unlock(&mutex);
	pthread_join(thread, NULL);
	return result;
}

static void *hold_for_ever(void *unused)
{
	pthread_mutex_lock(&mutex);
	sem_post(&ready);
	for (;;)
		pause();
	return NULL;
}

static int child_is_fine(void)
{
	return 0;
}

/* proceed|fail: somebody holds a lock for ever */
static int part_holder(char **argv)
{
	pthread_t thread;
	int result;

	pthread_create(&thread, NULL, hold_for_ever, NULL);
	sem_wait(&ready);
	errno = 0;
	result = fork_and_check(child_is_fine);
	if (!strcmp(argv[0], "fail"))
		return !(result == 1 && errno == EAGAIN);
	return result;
}

/* 0|11: what a spawn and popen() end with while somebody holds a lock for ever */
static int part_spawn(char **argv)
{
	char *const program[] = { "true", NULL };
	pthread_t thread;
	FILE *command;
	pid_t pid;

	pthread_create(&thread, NULL, hold_for_ever, NULL);
	sem_wait(&ready);
	if (posix_spawnp(&pid, "true", NULL, NULL, program, environ) != atoi(argv[0]))
		return 1;
	/* The C library's own popen() says nothing in errno then. */
	command = popen("true", "r");
	if (command)
		return atoi(argv[0]) || pclose(command);
	return !atoi(argv[0]);
}

static void *fork_with_lock(void *lock)
{
	int result;

	pthread_mutex_lock(lock);
	sem_post(&ready);
	while (sem_trywait(&ready))
		usleep(1000);
	result = fork_and_check(child_is_fine);
	pthread_mutex_unlock(lock);
	return (void *)(long)result;
}

/* Two threads fork, each holding a lock: a circle, and both must get a child. */
static int part_circle(char **argv)
{
	static pthread_mutex_t other = PTHREAD_MUTEX_INITIALIZER;
	pthread_t threads[2];
	void *results[2];

	pthread_create(&threads[0], NULL, fork_with_lock, &mutex);
	pthread_create(&threads[1], NULL, fork_with_lock, &other);
	pthread_join(threads[0], &results[0]);
	pthread_join(threads[1], &results[1]);
	return results[0] || results[1];
}

static void *load(void *library)
{
	return dlopen(library, RTLD_NOW);
}

/* A time-out is reported while the thread that is to blame has the loader's lock. */
static int part_loader(char **argv)
{
	int loaded[2], forked[2], result;
	char text[12], byte = 0;
	pthread_t thread;
	void *library;

	if (pipe(loaded) || pipe(forked))
		return 90;
	snprintf(text, sizeof(text), "%d", loaded[1]);
	setenv("LOADED_FD", text, 1);
	snprintf(text, sizeof(text), "%d", forked[0]);
	setenv("FORKED_FD", text, 1);
	pthread_create(&thread, NULL, load, argv[0]);
	if (read(loaded[0], &byte, 1) != 1)
		return 91;
	result = fork_and_check(child_is_fine);
	if (write(forked[1], &byte, 1) != 1)
		return 92;
	pthread_join(thread, &library);
	return library ? result : 93;
}

static const struct {
	const char *name;
	int (*part)(char **argv);
} parts[] = {
	{ "policy", part_policy },
	{ "lock_fork_unlock", part_lock_fork_unlock },
	{ "condition", part_condition },
	{ "holder", part_holder },
	{ "spawn", part_spawn },
	{ "circle", part_circle },
	{ "loader", part_loader },
};

/*
 * Tests
 */

static char output[4096];	/* what the command and the program wrote to standard error */

/* Run "forkgate run" with arguments; SELF stands for this program. Return: exit status. */
static int run(const char *arg, ...)
{
	char *argv[20] = { COMMAND, "run" }, **next = argv + 2;
	int pipes[2], status;
	ssize_t got, size = 0;
	va_list list;
	pid_t pid;

	va_start(list, arg);
	for (; arg; arg = va_arg(list, char *))
		*next++ = (char *)arg;
	va_end(list);
	if (pipe2(pipes, O_CLOEXEC))
		return -1;
	pid = fork();
	if (!pid) {
		dup2(pipes[1], STDERR_FILENO);
		execv(COMMAND, argv);
		_exit(99);
	}
	close(pipes[1]);
	while ((got = read(pipes[0], output + size, sizeof(output) - 1 - size)) > 0)
		size += got;
	output[size] = '\0';
	close(pipes[0]);
	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static char self[4096];

static bool has_module(void)
{
	return !access("/dev/forkgate", R_OK | W_OK);
}

static int count_said(const char *what)
{
	const char *at = output;
	int count = 0;

	for (; (at = strstr(at, what)); at++)
		count++;
	return count;
}

#define SELF self
#define EXPECT_SAID(what) \
	EXPECT_NE(NULL, strstr(output, what)) TH_LOG("said: %s", output)

TEST(policy_default)
{
	EXPECT_EQ(0, run(SELF, "policy", "5000000000", "100000000", "1", NULL));
	EXPECT_STREQ("", output);
}

TEST(policy_from_options)
{
	EXPECT_EQ(0, run("--timeout", "2min", "--patience", "0", "--on-timeout", "fail", "--", SELF,
			 "policy", "120000000000", "0", "0", NULL));
	EXPECT_EQ(0, run("--timeout=0", "--patience=1.5ms", SELF, "policy", "0xffffffffffffffff",
			 "1500000", "1", NULL));
}

TEST(goes_on_through_programs)
{
	static const char script[] =
		"(x=$(\"$0\" policy 5000000000 1000000 1 && echo yes); [ \"$x\" = yes ])";

	EXPECT_EQ(0, run("sh", "-c", "exec env nice \"$0\" policy 5000000000 100000000 1",
			 SELF, NULL));
	EXPECT_EQ(0, run("--patience", "1ms", "bash", "-c", script, SELF, NULL));
}

TEST(a_waiter_for_the_forkers_lock_is_outside)
{
	EXPECT_EQ(0, run("--timeout", "0", SELF, "lock_fork_unlock", NULL));
}

TEST(a_waiter_for_a_condition_is_outside)
{
	EXPECT_EQ(0, run("--timeout", "0", SELF, "condition", NULL));
}

/* Does "addr2line -fe FILE ADDRESS", with what was said, name that function? */
static bool said_address_of(const char *function)
{
	const char *said = strstr(output, " is inside memory at ");
	char file[4096] = "", command[5000], name[64] = "";
	unsigned long address;
	FILE *result;

	if (!said || sscanf(said, " is inside memory at %lx in %4095s", &address, file) != 2)
		return false;
	snprintf(command, sizeof(command), "addr2line -fe %s %#lx", file, address);
	result = popen(command, "r");
	if (!result || !fgets(name, sizeof(name), result))
		name[0] = '\0';
	if (result)
		pclose(result);
	name[strcspn(name, "\n")] = '\0';
	return !strcmp(name, function);
}

TEST(time_out_proceeds_and_names_the_holder)
{
	EXPECT_EQ(0, run("--timeout", "300ms", SELF, "holder", "proceed", NULL));
	EXPECT_EQ(1, count_said("a fork goes ahead unsafe")) TH_LOG("said: %s", output);
	EXPECT_EQ(1, count_said(" is inside memory "));
	EXPECT_EQ(1, count_said("\"addr2line -fe FILE ADDRESS\""));
	EXPECT_EQ(3, count_said("\n"));
	EXPECT_SAID(self);
	EXPECT_TRUE(said_address_of("hold_for_ever")) TH_LOG("said: %s", output);
}

TEST(time_out_tells_when_and_after_how_long)
{
	int hours, minutes, seconds, waited = 0;
	time_t before = time(NULL), said;

	EXPECT_EQ(0, run("--timeout", "300ms", SELF, "holder", "proceed", NULL));
	EXPECT_EQ(has_module() ? 3 : 4,
		  sscanf(output, "%*s %*s %d:%d:%d UTC: a fork goes ahead unsafe after %d ms:",
			 &hours, &minutes, &seconds, &waited)) TH_LOG("said: %s", output);
	said = before - before % 86400 + hours * 3600 + minutes * 60 + seconds;
	if (said < before)	/* midnight was between */
		said += 86400;
	EXPECT_LE(said, time(NULL) + 1);	/* time() may be a tick late */
	if (!has_module())	/* it is in the kernel's log */
		EXPECT_GE(waited, 300);
}

TEST(the_holder_may_have_the_loaders_lock)
{
	EXPECT_EQ(0, run("--timeout", "300ms", SELF, "loader", SLOW_LIBRARY, NULL));
	EXPECT_EQ(1, count_said("a fork goes ahead unsafe")) TH_LOG("said: %s", output);
	EXPECT_EQ(1, count_said(" is inside memory "));
}

TEST(time_out_fails_if_told_so)
{
	EXPECT_EQ(0, run("--timeout", "300ms", "--on-timeout", "fail", SELF, "holder", "fail",
			 NULL));
	if (has_module()) {	/* it is in the kernel's log */
		EXPECT_STREQ("", output);
	} else {
		EXPECT_SAID(" ms: other threads stayed inside");
		EXPECT_SAID("a fork fails after ");
		EXPECT_EQ(1, count_said(" is inside memory "));
	}
}

TEST(domains)
{
	EXPECT_EQ(0, run("--timeout", "300ms", "--on-timeout", "fail", SELF, "spawn", "0", NULL));
	EXPECT_EQ(0, run("--timeout", "300ms", "--on-timeout", "fail", "--domains", "memory,files",
			 SELF, "spawn", "11", NULL));
	EXPECT_EQ(0, run("--timeout", "300ms", "--on-timeout", "fail", "--domains", "files", SELF,
			 "spawn", "11", NULL));
}

TEST(a_circle_proceeds)
{
	EXPECT_EQ(0, run("--timeout", "0", SELF, "circle", NULL));
}

TEST(verbose)
{
	EXPECT_EQ(0, run("--verbose", "true", NULL));
	EXPECT_SAID(has_module() ? ": protected by the module\n" :
		    ": protected by the library, for forks through the C library (");
	EXPECT_EQ(1, count_said("\n"));
}

/* The last is told by the environment, as if the module had gone meanwhile. */
TEST(require_module)
{
	static const char later[] = "FORKGATE_RUN=${FORKGATE_RUN%m*}m1i1 /bin/echo";

	EXPECT_EQ(has_module() ? 0 : 125, run("--require-module", "true", NULL));
	EXPECT_SAID(has_module() ? "" : "module: not ");
	EXPECT_EQ(has_module() ? 0 : 125, run("sh", "-c", later, NULL));
	EXPECT_SAID(has_module() ? "" :
		    ": refusing to run without the module: no /dev/forkgate leads to the module");
	EXPECT_EQ(0, run("sh", "-c", "FORKGATE_RUN=${FORKGATE_RUN%m*}m0i1 /bin/echo", NULL));
}

TEST(statically_linked)
{
	EXPECT_EQ(126, run("/sbin/ldconfig", NULL));
	EXPECT_SAID("statically linked");
}

TEST(musl)
{
	char path[] = "/tmp/forkgate-musl.XXXXXX";
	char *loader, text[64 << 10];
	int from = open("/bin/true", O_RDONLY), to = mkstemp(path);
	ssize_t size = read(from, text, sizeof(text));

	ASSERT_GT(size, 1000);
	loader = memmem(text, size, "/ld-linux", 9);
	ASSERT_NE(NULL, loader);
	memcpy(loader, "/ld-musl-", 9);
	ASSERT_EQ(size, write(to, text, size));
	fchmod(to, 0700);
	close(to);
	EXPECT_EQ(126, run(path, NULL));
	EXPECT_SAID("musl");
	unlink(path);
}

TEST(set_user_id)
{
	EXPECT_EQ(0, run("/bin/su", "--version", NULL));
	EXPECT_SAID("runs without the gate");
}

TEST(not_found)
{
	EXPECT_EQ(127, run("no-such-program", NULL));
	EXPECT_EQ(127, run("/no/such/program", NULL));
}

TEST(not_executable)
{
	EXPECT_EQ(126, run("/etc/passwd", NULL));
}

TEST(wrong_arguments)
{
	EXPECT_EQ(2, run(NULL));
	EXPECT_SAID("no program");
	EXPECT_EQ(2, run("--timeout", "5x", "true", NULL));
	EXPECT_SAID("\"5x\" is not a number with ns, us, ms, s, min or h, at most 1h");
	EXPECT_EQ(2, run("--timeout", "2h", "true", NULL));
	EXPECT_EQ(2, run("--patience", "1 ms", "true", NULL));
	EXPECT_SAID("\"1 ms\" is not a number with ns, us, ms, s, min or h, at most 1h");
	EXPECT_EQ(2, run("--on-timeout", "hang", "true", NULL));
	EXPECT_SAID("\"hang\"");
	EXPECT_EQ(2, run("--domains", "memory,heap", "true", NULL));
	EXPECT_SAID("\"memory,heap\" is not memory, files or memory,files");
	EXPECT_EQ(2, run("--patience", NULL));
	EXPECT_SAID("--patience needs a value");
	EXPECT_EQ(2, run("--frobnicate", "true", NULL));
	EXPECT_SAID("\"--frobnicate\"");
}

#define main tests_main
TEST_HARNESS_MAIN
#undef main

int main(int argc, char **argv)
{
	size_t i;

	for (i = 0; argc > 1 && i < sizeof(parts) / sizeof(*parts); i++)
		if (!strcmp(argv[1], parts[i].name)) {
			sem_init(&ready, 0, 0);
			return parts[i].part(argv + 2);
		}
	if (!realpath("/proc/self/exe", self))
		return 1;
	return tests_main(argc, argv);
}
