// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rule 12: blame. While a fork waits, it is visible who it waits for: thread,
 * domain, label or code address, and how long it has waited. Tracepoints mark
 * every close, grant, yield, expiry, time-out, abandonment and open (and
 * bypass: see bypass.c).
 */
#include "test/harness.h"

#include <sys/stat.h>

FIXTURE_WORKERS(blame, a, b, forker);

/* What libforkgate does to name a section */
static void set_label(struct forkgate_slot *where, const char *label, uint64_t site,
		      uint64_t label_site)
{
	where->site = site;
	memset(where->label, 0, FORKGATE_LABEL_SIZE);
	memcpy(where->label, label, strnlen(label, FORKGATE_LABEL_SIZE));
	where->label_site = label_site;
}

static struct forkgate_holder holders[8];

/* ask - STATE with an array of holders */
static struct forkgate_state ask(unsigned int max)
{
	struct forkgate_state state = {
		.holders = (uintptr_t)holders,
		.holders_max = max,
	};

	memset(holders, 0, sizeof(holders));
	if (gate_call(FORKGATE_IOC_STATE, &state))
		memset(&state, 0xff, sizeof(state));
	return state;
}

/* holder_of - what STATE said of a thread */
static struct forkgate_holder *holder_of(pid_t tid)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(holders); i++)
		if (holders[i].tid == tid)
			return &holders[i];
	return NULL;
}

TEST_F(blame, none_is_inside)
{
	struct forkgate_state state = ask(8);

	EXPECT_EQ(0, state.holders_count);
	EXPECT_EQ(0, holders[0].tid);
	EXPECT_EQ(0, state.wait_ns);
	EXPECT_EQ(4, state.threads);
}

TEST_F(blame, holders_are_listed)
{
	struct forkgate_holder *holder;
	struct forkgate_state state;

	set_label(self->a.slot, "archive", 0x1000, 0x1000);
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	set_label(self->b.slot, "", 0x2000, 0);
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(BOTH)));
	state = ask(8);
	EXPECT_EQ(2, state.holders_count);
	holder = holder_of(self->a.tid);
	ASSERT_NE(NULL, holder);
	EXPECT_EQ(MEMORY, holder->domains);
	EXPECT_EQ(2, holder->depth[0]);
	EXPECT_EQ(0, holder->depth[1]);
	EXPECT_EQ(0x1000, holder->site);
	EXPECT_STREQ("archive", holder->label);
	holder = holder_of(self->b.tid);
	ASSERT_NE(NULL, holder);
	EXPECT_EQ(BOTH, holder->domains);
	EXPECT_EQ(1, holder->depth[0]);
	EXPECT_EQ(1, holder->depth[1]);
	EXPECT_EQ(0x2000, holder->site);
	EXPECT_STREQ("", holder->label);
}

/* A label belongs to one place in the code: elsewhere it is not shown. */
TEST_F(blame, label_of_another_site_is_not_shown)
{
	struct forkgate_holder *holder;

	set_label(self->a.slot, "stale", 0x1000, 0x3000);
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ask(8);
	holder = holder_of(self->a.tid);
	ASSERT_NE(NULL, holder);
	EXPECT_STREQ("", holder->label);
	EXPECT_EQ(0x1000, holder->site);
}

TEST_F(blame, longest_label)
{
	struct forkgate_holder *holder;

	set_label(self->a.slot, "abcdefghijklmnopqrstuvwxyz", 0x1000, 0x1000);
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ask(8);
	holder = holder_of(self->a.tid);
	ASSERT_NE(NULL, holder);
	EXPECT_EQ(0, memcmp(holder->label, "abcdefghijklmnopqrstuvwxyz", 24));
}

TEST_F(blame, more_holders_than_room)
{
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_enter, ARG(FILES)));
	EXPECT_EQ(2, ask(1).holders_count);
	EXPECT_NE(0, holders[0].tid);
	EXPECT_EQ(0, holders[1].tid);
	EXPECT_EQ(2, ask(0).holders_count);
	EXPECT_EQ(0, holders[0].tid);
}

TEST_F(blame, waiting_time_grows)
{
	uint64_t first;

	ASSERT_EQ(0, run(&self->a, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	first = gate_state().wait_ns;
	EXPECT_LT(0, first);
	EXPECT_TRUE(wait_until(gate_state().wait_ns > first));
	ASSERT_EQ(0, run(&self->a, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	EXPECT_EQ(0, gate_state().wait_ns);
}

/* A holder that the caller's pid namespace does not know has no number there. */
static int ask_result;

static int ask_from_inside(void)
{
	struct forkgate_state state = ask(8);

	if (state.holders_count != 1 || holders[0].tid || holders[0].domains != MEMORY)
		ask_result = 2;
	else
		ask_result = 1;
	return 0;
}

static long job_ask(void *unused)
{
	return spawn_vm(CLONE_NEWPID, ask_from_inside);
}

TEST_F(blame, holder_outside_the_namespace)
{
	long pid;

	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_EQ(0, run(&self->b, job_unregister, NULL));
	pid = run(&self->b, job_ask, NULL);
	if (pid == -EPERM)
		SKIP(return, "not root: no new pid namespace");
	EXPECT_EQ(0, child_exit(pid));
	EXPECT_EQ(1, READ_ONCE(ask_result));
}

/*
 * debugfs
 */

static char text[1 << 20];

/* line_with - a line of the text that has both words */
static char *line_with(const char *first, const char *second)
{
	static char line[4096];
	char *start, *end;

	for (start = text; *start; start = end + 1) {
		end = strchr(start, '\n');
		if (!end)
			break;
		if (end - start >= sizeof(line))
			continue;
		memcpy(line, start, end - start);
		line[end - start] = '\0';
		if (strstr(line, first) && strstr(line, second))
			return line;
	}
	return NULL;
}

TEST_F(blame, debugfs_shows_all_gates)
{
	char tid[32], *line;

	if (access(DEBUGFS "/gates", R_OK))
		SKIP(return, "not root, or no debugfs");
	set_label(self->a.slot, "archive", 0x1000, 0x1000);
	ASSERT_EQ(0, run(&self->a, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	/* The clock of an emulated machine may go by ticks. */
	usleep(20 * 1000);
	ASSERT_LT(0, read_file(DEBUGFS "/gates", text, sizeof(text)));
	snprintf(tid, sizeof(tid), "tgid=%d ", getpid());
	EXPECT_NE(NULL, line_with("gate ", tid));
	snprintf(tid, sizeof(tid), "tid=%d ", self->a.tid);
	line = line_with("inside", tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "archive"));
	EXPECT_NE(NULL, strstr(line, "memory"));
	EXPECT_NE(NULL, strstr(line, "0x1000"));
	snprintf(tid, sizeof(tid), "tid=%d ", self->forker.tid);
	line = line_with("fork", tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "memory,files"));
	EXPECT_NE(NULL, strstr(line, "wait_ns="));
	EXPECT_EQ(NULL, strstr(line, "wait_ns=0"));
	ASSERT_EQ(0, run(&self->a, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

TEST_F(blame, debugfs_shows_who_enters)
{
	char tid[32], *line;

	if (access(DEBUGFS "/gates", R_OK))
		SKIP(return, "not root, or no debugfs");
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->a, job_enter, ARG(FILES));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	/* The clock of an emulated machine may go by ticks. */
	usleep(20 * 1000);
	ASSERT_LT(0, read_file(DEBUGFS "/gates", text, sizeof(text)));
	snprintf(tid, sizeof(tid), "tid=%d ", self->a.tid);
	line = line_with(" enter ", tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "domains=files nested=0"));
	EXPECT_EQ(NULL, strstr(line, "wait_ns=0"));
	EXPECT_NE(NULL, line_with(" policy ", "on_timeout=fail"));
	snprintf(tid, sizeof(tid), "tgid=%d ", getpid());
	line = line_with("gate ", tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "closed=memory,files"));
	EXPECT_EQ(NULL, strstr(line, "closed_ns=0"));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->a));
}

/* The gate's lock is held meanwhile: not for as long as a process likes. */
TEST_F(blame, debugfs_lists_are_cut)
{
	static struct worker many[70];
	int i, lines = 0;
	char *line;

	if (access(DEBUGFS "/gates", R_OK))
		SKIP(return, "not root, or no debugfs");
	for (i = 0; i < ARRAY_SIZE(many); i++) {
		ASSERT_EQ(0, worker_new(&many[i]));
		ASSERT_EQ(0, run(&many[i], job_enter, ARG(MEMORY)));
	}
	ASSERT_LT(0, read_file(DEBUGFS "/gates", text, sizeof(text)));
	for (line = text; (line = strstr(line, "\n inside ")); line++)
		lines++;
	EXPECT_EQ(64, lines);
	EXPECT_NE(NULL, strstr(text, "\n more\n"));
}

/* A label, or a thread's name, cannot forge a line. */
TEST_F(blame, debugfs_cannot_be_forged)
{
	if (access(DEBUGFS "/gates", R_OK))
		SKIP(return, "not root, or no debugfs");
	prctl(PR_SET_NAME, "x\ngate");
	set_label(self->a.slot, "x\n inside tid=1 y", 0x1000, 0x1000);
	ASSERT_EQ(0, run(&self->a, job_enter, ARG(MEMORY)));
	ASSERT_LT(0, read_file(DEBUGFS "/gates", text, sizeof(text)));
	EXPECT_EQ(NULL, strstr(text, "\n inside tid=1 y"));
	EXPECT_EQ(NULL, strstr(text, "\ngate closed"));
	EXPECT_NE(NULL, strstr(text, "comm=x\\012gate closed"));
	EXPECT_NE(NULL, strstr(text, "y"));
}

/*
 * Tracepoints
 */

#define TRACEFS		"/sys/kernel/tracing"
#define INSTANCE	TRACEFS "/instances/forkgate_blame"

FIXTURE(trace) {
	struct worker holder, forker, other;
};

FIXTURE_SETUP(trace)
{
	if (mkdir(INSTANCE, 0755) && errno != EEXIST)
		SKIP(return, "no tracefs: %s", strerror(errno));
	if (write_file(INSTANCE "/events/forkgate/enable", "1")) {
		rmdir(INSTANCE);
		SKIP(return, "this kernel has no trace events of modules");
	}
	ASSERT_EQ(0, setup_workers(&self->holder, 3));
}

FIXTURE_TEARDOWN(trace)
{
	write_file(INSTANCE "/events/forkgate/enable", "0");
	rmdir(INSTANCE);
}

/* traced - the line of an event that has a certain field; the event may come a moment later */
static char *traced(const char *event, const char *field, int value)
{
	char name[32], what[64], *line = NULL;

	snprintf(name, sizeof(name), " %s: ", event);
	snprintf(what, sizeof(what), "%s=%d", field, value);
	wait_until(read_file(INSTANCE "/trace", text, sizeof(text)) > 0 &&
		   (line = line_with(name, what)));
	return line;
}

TEST_F(trace, close_grant_open)
{
	char *line;

	ASSERT_EQ(0, run(&self->holder, job_hold, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	line = traced("close", "forker", self->forker.tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "domains=memory,files"));
	EXPECT_NE(NULL, strstr(line, "ticket=0"));
	ASSERT_EQ(0, run(&self->holder, job_drop, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
	line = traced("grant", "forker", self->forker.tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "waited="));
	EXPECT_EQ(NULL, strstr(line, "waited=0"));
	EXPECT_NE(NULL, traced("open", "blocked", 0));
}

TEST_F(trace, ticket)
{
	char *line;

	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(FILES)));
	line = traced("close", "forker", self->forker.tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "ticket=1"));
	EXPECT_NE(NULL, strstr(line, "domains=files"));
	line = traced("grant", "forker", self->forker.tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "ticket=1"));
	EXPECT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_NE(NULL, traced("open", "blocked", 0));
}

TEST_F(trace, yield)
{
	ASSERT_EQ(0, change_policy(patience, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	ASSERT_TRUE(fork_waits(&self->forker, &fork_both, 1));
	EXPECT_EQ(0, run(&self->other, job_enter, ARG(MEMORY)));
	EXPECT_NE(NULL, traced("yield", "patience", 2000000));
	EXPECT_EQ(0, run(&self->other, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, run(&self->holder, job_leave, ARG(MEMORY)));
	EXPECT_EQ(0, finish_fork(&self->forker));
}

TEST_F(trace, expire)
{
	char *line;

	ASSERT_EQ(0, change_policy(ticket_hold, NSEC_PER_MSEC));
	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(MEMORY)));
	line = traced("expire", "forker", self->forker.tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "domains=memory"));
	EXPECT_NE(NULL, strstr(line, "granted=1"));
}

TEST_F(trace, timeout)
{
	char *line, tid[32];

	ASSERT_EQ(0, change_policy(backstop, NSEC_PER_MSEC));
	set_label(self->holder.slot, "archive", 0x1000, 0x1000);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(MEMORY)));
	EXPECT_EQ(-EAGAIN, run(&self->forker, job_fork, &fork_both));
	line = traced("timeout", "forker", self->forker.tid);
	ASSERT_NE(NULL, line);
	snprintf(tid, sizeof(tid), "holder=%d ", self->holder.tid);
	EXPECT_NE(NULL, strstr(line, tid));
	EXPECT_NE(NULL, strstr(line, "inside=memory"));
	EXPECT_NE(NULL, strstr(line, "site=0x1000"));
	EXPECT_NE(NULL, strstr(line, "label=archive"));
}

TEST_F(trace, abandon)
{
	char *line;

	set_label(self->holder.slot, "archive", 0x1000, 0x1000);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	start(&self->holder, job_exit, NULL);
	line = traced("abandon", "thread", self->holder.tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "domains=files"));
	EXPECT_NE(NULL, strstr(line, "label=archive"));
}

TEST_F(trace, blocked_entry)
{
	char *line;

	ASSERT_EQ(0, run(&self->forker, job_prepare, ARG(BOTH)));
	start(&self->other, job_enter, ARG(MEMORY));
	ASSERT_TRUE(wait_until(gate_state().blocked == 1));
	line = traced("enter_wait", "thread", self->other.tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "domains=memory"));
	EXPECT_NE(NULL, strstr(line, "nested=0"));
	ASSERT_EQ(0, run(&self->forker, job_release, NULL));
	EXPECT_EQ(0, finish(&self->other));
	line = traced("enter_go", "thread", self->other.tid);
	ASSERT_NE(NULL, line);
	EXPECT_NE(NULL, strstr(line, "error=0"));
}

/* What user space writes into a label is one word in the trace, whatever it is. */
TEST_F(trace, cannot_be_forged)
{
	set_label(self->holder.slot, "x\n forged: thread=1", 0x1000, 0x1000);
	ASSERT_EQ(0, run(&self->holder, job_enter, ARG(FILES)));
	start(&self->holder, job_exit, NULL);
	ASSERT_NE(NULL, traced("abandon", "thread", self->holder.tid));
	EXPECT_EQ(NULL, strstr(text, "\n forged: thread=1"));
}

TEST_HARNESS_MAIN
