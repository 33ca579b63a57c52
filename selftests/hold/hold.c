// SPDX-License-Identifier: GPL-2.0-only
/*
 * hold - how long one gate keeps a processor from other work
 *
 * Interrupts that are off, locks and timer handlers must not hold a processor
 * longer when a gate has many threads, forkers or watchers than when it has few
 * (rule 13). Each scene is set up twice, with 100 of them and with thousands.
 * Then one call or one timer is measured:
 *
 *	late	how late a thread of the highest priority comes that wants to
 *		run every 100 us. That is exact where an instruction takes a
 *		nanosecond (QEMU with -icount shift=0,sleep=off), with one
 *		processor and full preemption (preempt=full); elsewhere it is
 *		noise. selftests/hold/run sees to that, and judges.
 *	traced	what the kernel's own tracer says, on a kernel that has
 *		preemptirqsoff, and where that was
 *
 * Must not judge, because a number alone says nothing.
 */
#include "../test/fork.h"

#include <sys/epoll.h>
#include <sys/resource.h>

#define TRACING		"/sys/kernel/tracing/"

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define FEW		100
#define MOST_WORKERS	32000
#define MOST_WATCHERS	65536

static struct worker workers[MOST_WORKERS];
static int count;	/* workers that there are */

/* spawn - have so many workers */
static bool spawn(int n)
{
	for (; count < n; count++) {
		if (worker_new(&workers[count]))
			return false;
	}
	return true;
}

/* all - workers [from, to) do a job, one after the other; 0 or the first failure */
static long all(int from, int to, long (*job)(void *), void *arg)
{
	long ret = 0;
	int i;

	for (i = from; i < to && !ret; i++)
		ret = run(&workers[i], job, arg);
	return ret;
}

/* all_start - they start a job that waits */
static void all_start(int from, int to, long (*job)(void *), void *arg)
{
	int i;

	for (i = from; i < to; i++)
		start(&workers[i], job, arg);
}

static bool all_finish(int from, int to)
{
	bool good = true;
	int i;

	for (i = from; i < to; i++)
		good &= finish(&workers[i]) != -ETIME;
	return good;
}

/*
 * Measuring
 */

static bool have_tracer;
static uint64_t late_most, late_reset;
static int late_stop;

static void *late_main(void *unused)
{
	struct sched_param param = { .sched_priority = 99 };
	struct timespec at, now;
	uint64_t late;

	if (sched_setscheduler(0, SCHED_FIFO, &param))
		return NULL;
	prctl(PR_SET_TIMERSLACK, 1);
	clock_gettime(CLOCK_MONOTONIC, &at);
	while (!READ_ONCE(late_stop)) {
		at.tv_nsec += 100000;
		if (at.tv_nsec >= 1000000000) {
			at.tv_sec++;
			at.tv_nsec -= 1000000000;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
		late = (now.tv_sec - at.tv_sec) * 1000000000LL + now.tv_nsec - at.tv_nsec;
		if (__atomic_exchange_n(&late_reset, 0, __ATOMIC_SEQ_CST))
			late_most = 0;
		else if (late > late_most)
			WRITE_ONCE(late_most, late);
		at = now;
	}
	return NULL;
}

static void measure_setup(void)
{
	pthread_t thread;
	char text[400];

	if (read_file(TRACING "available_tracers", text, sizeof(text)) > 0 &&
	    strstr(text, "preemptirqsoff")) {
		write_file(TRACING "tracing_on", "0");
		write_file(TRACING "options/function-trace", "0");
		have_tracer = !write_file(TRACING "current_tracer", "preemptirqsoff");
	}
	pthread_create(&thread, NULL, late_main, NULL);
}

static void measure_begin(void)
{
	WRITE_ONCE(late_reset, 1);
	wait_until(!READ_ONCE(late_reset));
	if (have_tracer) {
		write_file(TRACING "tracing_max_latency", "0");
		write_file(TRACING "tracing_on", "1");
	}
}

struct measured {
	long traced;	/* us, -1 without the tracer */
	long late;	/* us */
};

static struct measured measure_end(void)
{
	struct measured m = { .traced = -1 };
	char text[40];

	/* Until timers and wake-ups have followed */
	usleep(20000);
	if (have_tracer) {
		write_file(TRACING "tracing_on", "0");
		if (read_file(TRACING "tracing_max_latency", text, sizeof(text)) > 0)
			m.traced = atol(text);
	}
	m.late = READ_ONCE(late_most) / 1000;
	return m;
}

/* where - where the longest time that was traced began and ended */
static void where(char *text, size_t size)
{
	static char trace[1 << 16];
	char *at;
	int n = 0;

	text[0] = '\0';
	if (!have_tracer || read_file(TRACING "trace", trace, sizeof(trace)) <= 0)
		return;
	at = strstr(trace, "=> started at:");
	if (at)
		n = snprintf(text, size, "%.*s", (int)strcspn(at + 15, "\n"), at + 15);
	at = strstr(trace, "=> ended at:");
	if (at)
		snprintf(text + n, size - n, " -> %.*s", (int)strcspn(at + 13, "\n"), at + 13);
}

/*
 * Scenes
 */

/**
 * struct scene - one situation
 * @name: of it
 * @many: how many threads, forkers or watchers to compare with FEW
 * @set_up: with n of them; false when it did not come about
 * @act: what is measured
 * @tear_down: back to no forkers and nobody inside; false when that failed
 */
struct scene {
	const char *name;
	int many;
	bool (*set_up)(int n);
	void (*act)(int n);
	bool (*tear_down)(int n);
};

static void be(uint64_t patience, uint64_t ticket_hold, uint64_t timeout)
{
	struct forkgate_policy policy = patient_policy;

	policy.patience = patience;
	policy.ticket_hold = ticket_hold;
	policy.timeout = timeout;
	gate_set_policy(&policy);
}

static long job_try(void *domains)
{
	long ret = gate_prepare_with((uintptr_t)domains, FORKGATE_NONBLOCK, 0, 0, NULL);

	return ret == -EAGAIN ? 0 : ret ? ret : -EPROTO;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

static long job_release_any(void *unused)
{
	gate_release();
	return 0;
}

static bool waits(unsigned int forkers)
{
	return wait_until(gate_state().forkers == forkers);
}

/* Worker 0 holds, n wait for ever, n more run out of time at the same moment. */
static uint64_t moment;

static long job_try_until(void *domains)
{
	long ret = gate_prepare_with((uintptr_t)domains, FORKGATE_NONBLOCK | FORKGATE_TIMED,
				     moment - now_ns(), 0, NULL);

	return ret == -EAGAIN ? 0 : ret ? ret : -EPROTO;
}

static bool overdue_set_up(int n)
{
	uint64_t before;

	if (!spawn(2 * n + 1) || run(&workers[0], job_enter, ARG(MEMORY)))
		return false;
	be(FORKGATE_FOREVER, FORKGATE_TIME_MAX, FORKGATE_FOREVER);
	/* In twice the time that the others take */
	before = now_ns();
	if (all(1, n + 1, job_try, ARG(MEMORY)))
		return false;
	moment = now_ns() + 2 * (now_ns() - before) + NSEC_PER_SEC;
	return !all(n + 1, 2 * n + 1, job_try_until, ARG(MEMORY));
}

static void overdue(int n)
{
	wait_until(gate_state().expired >= n || gate_state().forkers <= n);
}

static bool overdue_tear_down(int n)
{
	return !all(1, 2 * n + 1, job_release_any, NULL) &&
	       !run(&workers[0], job_leave, ARG(MEMORY));
}

/* One holds, n wait asleep for him, and go. */
static bool left_set_up(int n)
{
	if (!spawn(n + 1) || run(&workers[0], job_enter, ARG(MEMORY)))
		return false;
	be(FORKGATE_FOREVER, 10 * NSEC_PER_MSEC, FORKGATE_FOREVER);
	all_start(1, n + 1, job_prepare, ARG(MEMORY));
	return waits(n);
}

static void left(int n)
{
	run(&workers[0], job_leave, ARG(MEMORY));
}

static bool left_tear_down(int n)
{
	int i;

	be(FORKGATE_FOREVER, 1, FORKGATE_FOREVER);
	for (i = 1; i <= n; i++) {
		if (!wait_until(!busy(&workers[i])))
			return false;
		workers[i].state = WORKER_IDLE;
	}
	return !all(1, n + 1, job_release_any, NULL) && waits(0);
}

/* A ticket keeps out n that are inside the other domain, as are n forkers that wait; it ends. */
static bool unbar_set_up(int n)
{
	if (!spawn(2 * n + 1))
		return false;
	be(FORKGATE_FOREVER, FORKGATE_TIME_MAX, FORKGATE_FOREVER);
	if (all(1, 2 * n + 1, job_enter, ARG(FILES)) ||
	    run(&workers[0], job_prepare, ARG(MEMORY)) ||
	    all(1, n + 1, job_try, ARG(MEMORY)))
		return false;
	all_start(n + 1, 2 * n + 1, job_enter, ARG(MEMORY));
	return wait_until(gate_state().blocked == n);
}

static void unbar(int n)
{
	run(&workers[0], job_release, NULL);
}

static bool unbar_tear_down(int n)
{
	return all_finish(n + 1, 2 * n + 1) && !all(1, n + 1, job_release_any, NULL) &&
	       !all(1, n + 1, job_leave, ARG(FILES)) &&
	       !all(n + 1, 2 * n + 1, job_leave, ARG(BOTH)) && waits(0);
}

/* n forkers wait; somebody who is inside the other domain enters and leaves what they want. */
static bool enter_set_up(int n)
{
	if (!spawn(n + 2) || run(&workers[n + 1], job_enter, ARG(MEMORY)) ||
	    run(&workers[0], job_enter, ARG(FILES)))
		return false;
	be(FORKGATE_FOREVER, FORKGATE_TIME_MAX, FORKGATE_FOREVER);
	return !all(1, n + 1, job_try, ARG(MEMORY));
}

static void enter(int n)
{
	int i;

	for (i = 0; i < 10; i++) {
		run(&workers[0], job_enter, ARG(MEMORY));
		run(&workers[0], job_leave, ARG(MEMORY));
	}
}

static bool enter_tear_down(int n)
{
	return !all(1, n + 1, job_release_any, NULL) && !run(&workers[0], job_leave, ARG(FILES)) &&
	       !run(&workers[n + 1], job_leave, ARG(MEMORY)) && waits(0);
}

/* A ticket is granted, n forkers come for the next phase, which begins. */
static bool queue_set_up(int n)
{
	if (!spawn(n + 2))
		return false;
	be(FORKGATE_FOREVER, FORKGATE_TIME_MAX, FORKGATE_FOREVER);
	if (run(&workers[0], job_prepare, ARG(MEMORY)))
		return false;
	all_start(1, n + 1, job_prepare, ARG(MEMORY));
	return waits(n + 1);
}

static void queue(int n)
{
	be(FORKGATE_FOREVER, 10 * NSEC_PER_MSEC, FORKGATE_FOREVER);
	run(&workers[0], job_release, NULL);
}

/* n newcomers wait for a copy, or a ticket; it ends. */
static bool release_set_up(int n)
{
	if (!spawn(n + 1) || run(&workers[0], job_prepare, ARG(MEMORY)))
		return false;
	all_start(1, n + 1, job_enter, ARG(MEMORY));
	return wait_until(gate_state().blocked == n);
}

static void release(int n)
{
	run(&workers[0], job_release, NULL);
}

static bool release_tear_down(int n)
{
	return all_finish(1, n + 1) && !all(1, n + 1, job_leave, ARG(MEMORY));
}

/* n threads have slots, all idle but one. A thread, root and a fork that gives up ask who it is. */
static bool state_set_up(int n)
{
	return spawn(n) && !run(&workers[n - 1], job_enter, ARG(MEMORY));
}

static long job_give_up(void *domains)
{
	return gate_prepare((uintptr_t)domains) == -ETIMEDOUT ? 0 : -EPROTO;
}

static void state(int n)
{
	static char text[1 << 20];

	gate_state();
	read_file(DEBUGFS "/gates", text, sizeof(text));
	be(FORKGATE_FOREVER, FORKGATE_TIME_MAX, 0);
	run(&workers[0], job_give_up, ARG(MEMORY));
}

static bool state_tear_down(int n)
{
	return !run(&workers[n - 1], job_leave, ARG(MEMORY));
}

/* One of n threads goes away inside a section, which is reported. */
static bool gone_set_up(int n)
{
	return spawn(n) && !run(&workers[n - 1], job_enter, ARG(MEMORY));
}

static void gone(int n)
{
	start(&workers[n - 1], job_exit, NULL);
	wait_until(gate_state().abandoned == 1);
}

static bool gone_tear_down(int n)
{
	return true;
}

/* The same outside of any: what that costs without a report */
static bool exit_set_up(int n)
{
	return spawn(n);
}

static void exits(int n)
{
	start(&workers[n - 1], job_exit, NULL);
	wait_until(gate_state().threads == n);
}

/*
 * One of n threads, all idle, forks: the gate closes units and looks at slots. The child gets no
 * stacks but its own, because the kernel alone takes its time to free a copy of thousands.
 */
static bool fork_set_up(int n)
{
	pthread_attr_t attr;
	size_t size, guard;
	void *stack;
	int i;

	if (!spawn(n))
		return false;
	for (i = 1; i < n; i++) {
		if (pthread_getattr_np(workers[i].thread, &attr))
			return false;
		pthread_attr_getguardsize(&attr, &guard);
		pthread_attr_getstack(&attr, &stack, &size);
		pthread_attr_destroy(&attr);
		if (madvise((char *)stack - guard, guard + size, MADV_DONTFORK))
			return false;
	}
	return true;
}

static void forks(int n)
{
	run_fork(&workers[0], &fork_both);
}

static bool fork_tear_down(int n)
{
	return gate_state().forks == 1;
}

/* n epoll entries for the device, while tickets come and go */
static int epoll_fd = -1;
static int watched[MOST_WATCHERS];
static int nr_watched;

static bool poll_set_up(int n)
{
	struct epoll_event event = { .events = EPOLLIN };

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	be(FORKGATE_FOREVER, FORKGATE_TIME_MAX, FORKGATE_FOREVER);
	if (!spawn(2))
		return false;
	for (nr_watched = 0; nr_watched < n; nr_watched++) {
		/* One open file has one entry, however many descriptors it has. */
		watched[nr_watched] = open(DEVICE, O_RDWR | O_CLOEXEC);
		if (watched[nr_watched] < 0 ||
		    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, watched[nr_watched], &event))
			return false;
	}
	return true;
}

static void polls(int n)
{
	int i;

	for (i = 0; i < 5; i++) {
		run(&workers[0], job_enter, ARG(MEMORY));
		run(&workers[1], job_try, ARG(MEMORY));
		run(&workers[0], job_leave, ARG(MEMORY));
		usleep(10000);
		run(&workers[1], job_release_any, NULL);
	}
}

static bool poll_tear_down(int n)
{
	while (nr_watched)
		close(watched[--nr_watched]);
	close(epoll_fd);
	return true;
}

/* n forkers and n newcomers wait, and the gate ends. */
static bool end_set_up(int n)
{
	if (!spawn(2 * n + 1) || run(&workers[0], job_enter, ARG(MEMORY)))
		return false;
	be(FORKGATE_FOREVER, FORKGATE_TIME_MAX, FORKGATE_FOREVER);
	all_start(1, n + 1, job_prepare, ARG(MEMORY));
	if (!waits(n))
		return false;
	all_start(n + 1, 2 * n + 1, job_enter, ARG(MEMORY));
	return wait_until(gate_state().blocked == n);
}

static void end(int n)
{
	gate_unmap();
}

static bool end_tear_down(int n)
{
	return all_finish(1, 2 * n + 1);
}

static const struct scene scenes[] = {
	{ "overdue", 3000, overdue_set_up, overdue, overdue_tear_down },
	{ "left", 3000, left_set_up, left, left_tear_down },
	{ "unbar", 3000, unbar_set_up, unbar, unbar_tear_down },
	{ "enter", 3000, enter_set_up, enter, enter_tear_down },
	{ "queue", 3000, queue_set_up, queue, left_tear_down },
	{ "release", 10000, release_set_up, release, release_tear_down },
	{ "state", 10000, state_set_up, state, state_tear_down },
	{ "gone", 10000, gone_set_up, gone, gone_tear_down },
	{ "exit", 10000, exit_set_up, exits, gone_tear_down },
	{ "fork", 32000, fork_set_up, forks, fork_tear_down },
	{ "poll", 60000, poll_set_up, polls, poll_tear_down },
	{ "end", 3000, end_set_up, end, end_tear_down },
};

static int bad_usage(void)
{
	unsigned int i;

	fprintf(stderr, "usage: hold [-n NUMBER] [-r REPEATS] [SCENE...]\n\nscenes:");
	for (i = 0; i < ARRAY_SIZE(scenes); i++)
		fprintf(stderr, " %s", scenes[i].name);
	fprintf(stderr, "\n");
	return 2;
}

/**
 * struct result - what a process tells of its scene
 * @least: of the times measured so far
 * @where: the tracer's words for it
 */
struct result {
	struct measured least;
	char where[200];
};

/* one - a scene in a process of its own, so that no thread is left over from another */
static int one(const struct scene *scene, int n, struct result *result)
{
	struct measured m;
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid) {
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			return 1;
		return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
	if (gate_setup() < 0)
		_exit(1);
	if (!scene->set_up(n)) {
		fprintf(stderr, "hold: %s with %d did not come about\n", scene->name, n);
		_exit(1);
	}
	measure_setup();
	/* Until the kernel has done what the creation of threads left */
	usleep(200000);
	measure_begin();
	scene->act(n);
	m = measure_end();
	if (m.late < result->least.late)
		result->least.late = m.late;
	if (m.traced < result->least.traced) {
		result->least.traced = m.traced;
		where(result->where, sizeof(result->where));
	}
	if (!scene->tear_down(n)) {
		fprintf(stderr, "hold: %s with %d does not end\n", scene->name, n);
		_exit(1);
	}
	_exit(0);
}

/* several - the same repeatedly: print the least of what was measured */
static int several(const struct scene *scene, int n, int repeats)
{
	struct result *result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int ret = 0;

	if (result == MAP_FAILED)
		return 1;
	result->least = (struct measured){ .traced = LONG_MAX, .late = LONG_MAX };
	while (!ret && repeats--)
		ret = one(scene, n, result);
	if (!ret) {
		printf("%-8s %6d  late %7ld us", scene->name, n, result->least.late);
		if (result->least.traced >= 0)
			printf("  traced %7ld us %s", result->least.traced, result->where);
		printf("\n");
	}
	munmap(result, sizeof(*result));
	return ret;
}

static int compare(const struct scene *scene, int n, int repeats)
{
	if (n)
		return several(scene, n, repeats);
	return several(scene, FEW, repeats) ?: several(scene, scene->many, repeats);
}

int main(int argc, char **argv)
{
	struct rlimit files = { .rlim_cur = 1 << 18, .rlim_max = 1 << 18 };
	int opt, arg, n = 0, repeats = 1, ret = 0;
	const struct scene *scene;
	bool wanted;

	while ((opt = getopt(argc, argv, "n:r:")) != -1) {
		if (opt == 'n')
			n = atoi(optarg);
		else if (opt == 'r')
			repeats = atoi(optarg);
		else
			return bad_usage();
	}
	if (n < 0 || n > MOST_WORKERS / 2 - 2 || repeats < 1)
		return bad_usage();
	setrlimit(RLIMIT_NOFILE, &files);
	for (scene = scenes; scene < scenes + ARRAY_SIZE(scenes); scene++) {
		wanted = optind == argc;
		for (arg = optind; arg < argc; arg++)
			wanted |= !strcmp(argv[arg], scene->name);
		if (wanted)
			ret |= compare(scene, n, repeats);
	}
	return ret;
}
