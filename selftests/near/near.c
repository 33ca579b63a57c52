// SPDX-License-Identifier: GPL-2.0-only
/*
 * near - what a hostile process costs its neighbours
 *
 * Rule 13: nothing that a user does with a gate costs another one more than he
 * could cost him anyway. Ten processes of an ordinary user run a loop on all
 * processors, once with gates ("attack") and once the same on what the kernel
 * offers to everyone ("control"). Beside them run those who must not notice the
 * difference:
 *
 *	fork	a real-time thread that forks now and then: how long that takes
 *	gated	the same with a gate of its own, and a ticket for each fork
 *	fair	an ordinary process that does nothing but fork: the processor time of one
 *	wake	a real-time thread that wakes up now and then: how late as a rule, and
 *		(latest) at most
 *
 * Each has a processor that it shares with the loop's threads. Times are exact
 * where an instruction takes a nanosecond (QEMU with -icount shift=0,sleep=off);
 * elsewhere they are noise. selftests/near/run sees to that.
 */
#include "../test/gate.h"
#include "../test/proc.h"

#include <err.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <linux/membarrier.h>
#ifdef __x86_64__
#include <sys/io.h>
#endif

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define CPUS		4
#define PROCESSES	10
#define NOBODY		65534
#define GROUP		"/sys/fs/cgroup/near"
#define GROUP_LIMIT	(64 << 20)

static bool attack;	/* rather than control */

enum figure { FORK, GATED, FAIR, WAKE, LATEST, INTERRUPTS, UNCHARGED, LEFT, LINES, NR_FIGURES };

/* What processes share, so that a scene can be followed from outside */
static struct shared {
	unsigned long turns[PROCESSES][CPUS];
	double us[LATEST + 1];
} *shared;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
	struct timespec at = { .tv_sec = ns / NSEC_PER_SEC, .tv_nsec = ns % NSEC_PER_SEC };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL))
		;
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		err(2, "sched_setaffinity");
}

static void be(int policy, int priority)
{
	const struct sched_param param = { .sched_priority = priority };

	if (sched_setscheduler(0, policy, &param))
		err(2, "sched_setscheduler");
}

/*
 * Loops. A turn does one thing, in one of CPUS threads of a process.
 */

static __thread int nth;	/* of the threads of this process */
static int events[CPUS], file, word;

static void must(const char *what, bool good)
{
	if (!good)
		err(2, "%s: %s", attack ? "attack" : "control", what);
}

static pid_t raw_fork(void)
{
	return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void fork_and_wait(void)
{
	pid_t pid = raw_fork();

	if (!pid)
		_exit(0);
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static long membarrier(int command)
{
	return syscall(SYS_membarrier, command, 0, 0);
}

static long gate_enter(unsigned int domains)
{
	struct forkgate_enter enter = { .domains = domains, .levels = { 1, 1 } };

	return gate_call(FORKGATE_IOC_ENTER, &enter);
}

static void gate_leave(unsigned int domains)
{
	struct forkgate_leave leave = { .domains = domains };

	gate_call(FORKGATE_IOC_LEAVE, &leave);
}

/* One after the other gets its turn, for which it waits, and interrupts other processors. */
static void prepare_attack(void)
{
	gate_prepare(BOTH);
	gate_release();
}

static void prepare_control(void)
{
	uint64_t n = 1;

	must("read", read(events[nth], &n, sizeof(n)) == sizeof(n));
	membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	must("write", write(events[(nth + 1) % CPUS], &n, sizeof(n)) == sizeof(n));
}

/* Without waiting: what does not need its turn soon gets to the locks more often. */
static void poll_attack(void)
{
	struct pollfd pollfd = { .fd = gate.fd, .events = POLLIN };

	gate_prepare_with(BOTH, FORKGATE_NONBLOCK, 0, 0, NULL);
	poll(&pollfd, 1, 0);
	gate_release();
}

static void poll_control(void)
{
	struct pollfd pollfd = { .fd = events[0], .events = POLLIN };
	uint64_t n = 1;

	must("write", write(events[0], &n, sizeof(n)) == sizeof(n));
	poll(&pollfd, 1, 0);
	must("read", read(events[0], &n, sizeof(n)) == sizeof(n) || errno == EAGAIN);
}

/* An object of the kernel's, which it frees after a grace period */
static void register_attack(void)
{
	gate_register();
	gate_unregister();
}

static void register_control(void)
{
	struct sigevent event = { .sigev_notify = SIGEV_NONE };
	int timer;

	must("timer_create", !syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer));
	syscall(SYS_timer_delete, timer);
}

/*
 * A mapping, and its first page. Gates are mappings of one file, which have a
 * lock in common; so the control is of a file that the neighbours map, too.
 */
static void map_turn(void)
{
	char *map = attack ? map_device(file, FORKGATE_MAP_SIZE) :
			     mmap(NULL, FORKGATE_MAP_SIZE, PROT_READ, MAP_PRIVATE, file, 0);

	must("mmap", map != MAP_FAILED);
	(void)READ_ONCE(*map);
	munmap(map, FORKGATE_MAP_SIZE);
}

static void open_turn(void)
{
	struct pollfd pollfd = { .events = POLLIN };

	pollfd.fd = open(attack ? DEVICE : "/dev/zero", O_RDWR | O_CLOEXEC);
	must("open", pollfd.fd >= 0);
	poll(&pollfd, 1, 0);
	close(pollfd.fd);
}

/* One closes and opens, the others come meanwhile. */
static void enter_attack(void)
{
	if (!nth)
		prepare_attack();
	else if (!gate_enter(BOTH))
		gate_leave(BOTH);
}

static void enter_control(void)
{
	int seen = READ_ONCE(word);

	if (!nth) {
		membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
		WRITE_ONCE(word, seen + 1);
		sys_futex(&word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
	} else {
		sys_futex(&word, FUTEX_WAIT_PRIVATE, seen, NULL);
	}
}

static void section_attack(void)
{
	bool inside = !gate_enter(BOTH);

	fork_and_wait();
	if (inside)
		gate_leave(BOTH);
}

static void nest(int deep)
{
	pid_t pid = vfork();

	if (!pid) {
		if (deep)
			nest(deep - 1);
		_exit(0);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static void vfork_turn(void)
{
	nest(2);
}

/* One is inside all the time; the waits of the others, for a ticket or in a clone, end at once. */
static void inside_setup(void)
{
	if (attack && !nth) {
		must("enter", !gate_enter(BOTH));
		gate_set_policy(&(struct forkgate_policy){
			.patience = NSEC_PER_MSEC, .timeout = 1000, .backstop = 1000 });
	}
}

static void timeout_attack(void)
{
	if (nth)
		gate_prepare(BOTH);
	else
		sched_yield();
}

static void timeout_control(void)
{
	const struct timespec us = { .tv_nsec = 1000 };

	if (nth) {
		membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
		sys_futex(&word, FUTEX_WAIT_PRIVATE, 0, &us);
	} else {
		sched_yield();
	}
}

/* As a time-out, but the fork goes ahead unsafe. */
static void unsafe_setup(void)
{
	inside_setup();
	if (attack && !nth)
		change_policy(on_timeout, FORKGATE_PROCEED);
}

/* Of "backstop", which fails, and of "unsafe", which does not */
static void fork_turn(void)
{
	if (nth)
		fork_and_wait();
	else
		sched_yield();
}

static void label_attack(void)
{
	struct forkgate_holder holders[CPUS];
	struct forkgate_state state = { .holders = (uintptr_t)holders, .holders_max = CPUS };

	gate_enter(BOTH);
	WRITE_ONCE(slot->label_site, slot->site);
	memset(slot->label, '\n', sizeof(slot->label));
	gate_call(FORKGATE_IOC_STATE, &state);
	gate_leave(BOTH);
}

static void label_control(void)
{
	char text[1024];

	prctl(PR_SET_NAME, "\n\n\n\n\n\n\n\n");
	must("read", pread(file, text, sizeof(text), 0) > 0);
}

/* A thread goes away inside a section, which is reported. */
static void *gone_main(void *unused)
{
	if (attack && gate_register() >= 0)
		gate_enter(BOTH);
	return NULL;
}

static void gone_turn(void)
{
	pthread_t thread;

	must("pthread_create", !pthread_create(&thread, NULL, gone_main, NULL));
	pthread_join(thread, NULL);
}

/* Mappings come and go while others fork: copies that no gate has seen begin. */
static void race_turn(void)
{
	if (nth % 2)
		map_turn();
	else
		fork_and_wait();
}

static void health_attack(void)
{
	struct forkgate_health health;

	gate_call(FORKGATE_IOC_HEALTH, &health);
}

static void health_control(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
}

/*
 * Others ask now and then whether the hook works, which is tried if the last copy
 * was one that no gate had seen begin.
 */
static void suspect_turn(void)
{
	struct forkgate_health health;

	if (nth < 2) {
		race_turn();
		return;
	}
	if (attack)
		must("HEALTH", !ioctl(file, FORKGATE_IOC_HEALTH, &health));
	usleep(1000);
}

enum need { NOTHING, MAPPED, REGISTERED };

/**
 * struct loop - what a hostile process does
 * @name: of it
 * @need: what a process that attacks has from the beginning
 * @attack: a turn
 * @control: the same without a gate
 * @file: what map_turn() and others use instead of the device, or NULL
 * @setup: what each thread does at first, or NULL
 * @flags: of eventfds
 */
struct loop {
	const char *name;
	enum need need;
	void (*attack)(void);
	void (*control)(void);
	const char *file;
	void (*setup)(void);
	int flags;
};

static const struct loop loops[] = {
	{ "prepare", REGISTERED, prepare_attack, prepare_control },
	{ "poll", REGISTERED, poll_attack, poll_control, .flags = EFD_NONBLOCK },
	{ "register", MAPPED, register_attack, register_control },
	{ "map", NOTHING, map_turn, map_turn, "/proc/self/exe" },
	{ "open", NOTHING, open_turn, open_turn },
	{ "enter", REGISTERED, enter_attack, enter_control },
	{ "section", REGISTERED, section_attack, fork_and_wait },
	{ "vfork", REGISTERED, vfork_turn, vfork_turn },
	{ "timeout", REGISTERED, timeout_attack, timeout_control, .setup = inside_setup },
	{ "backstop", REGISTERED, fork_turn, timeout_control, .setup = inside_setup },
	{ "unsafe", REGISTERED, fork_turn, fork_turn, .setup = unsafe_setup },
	{ "label", REGISTERED, label_attack, label_control, "/proc/thread-self/comm" },
	{ "gone", MAPPED, gone_turn, gone_turn },
	{ "race", NOTHING, race_turn, race_turn, "/proc/self/exe" },
	{ "health", MAPPED, health_attack, health_control },
	{ "suspect", NOTHING, suspect_turn, suspect_turn, "/proc/self/exe" },
};

/*
 * Hostile processes
 */

struct place {
	const struct loop *loop;
	int process, thread, cpus;
};

static void *loop_main(void *arg)
{
	const struct place *place = arg;
	const struct loop *loop = place->loop;
	unsigned long *turns = &shared->turns[place->process][place->thread];

	nth = place->thread;
	run_on(nth % place->cpus);
	if (attack && loop->need == REGISTERED)
		must("register", gate_register() >= 0);
	if (loop->setup)
		loop->setup();
	for (;;) {
		(attack ? loop->attack : loop->control)();
		WRITE_ONCE(*turns, *turns + 1);
	}
	return NULL;
}

/* What a process of either kind has mapped costs its forks the same. */
static void map_like_a_gate(void)
{
	gate.fd = open(attack ? DEVICE : "/dev/zero", O_RDWR | O_CLOEXEC);
	must("open", gate.fd >= 0);
	must("map", !gate_map());
	if (!attack)
		(void)READ_ONCE(*(char *)gate.head);
}

/* What map_turn() maps, or label_control() reads */
static void open_file(const struct loop *loop)
{
	if (attack && loop->need == NOTHING)
		file = open(DEVICE, O_RDWR | O_CLOEXEC);
	else
		file = open(loop->file ?: "/dev/null", O_RDONLY | O_CLOEXEC);
	must("open", file >= 0);
}

static void hostile(const struct loop *loop, int process, int cpus)
{
	static struct place places[CPUS];
	pthread_attr_t attr;
	pthread_t thread;
	int i;

	must("oom_score_adj", !write_file("/proc/self/oom_score_adj", "-1000"));
	must("setuid", !setgid(NOBODY) && !setuid(NOBODY));
	prctl(PR_SET_DUMPABLE, 1);	/* again, or its files in /proc are not its own */
	must("membarrier", !membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED));
	prctl(PR_SET_TIMERSLACK, 1);	/* a gate's waits have no slack */
	for (i = 0; i < CPUS; i++) {
		events[i] = eventfd(!i, EFD_CLOEXEC | loop->flags);
		must("eventfd", events[i] >= 0);
	}
	open_file(loop);
	if (loop->need != NOTHING)
		map_like_a_gate();
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 65536);
	for (i = 0; i < CPUS; i++) {
		places[i] = (struct place){ loop, process, i, cpus };
		must("pthread_create", !pthread_create(&thread, &attr, loop_main, &places[i]));
	}
	for (;;)
		pause();
}

static unsigned long turns_of(int process)
{
	unsigned long sum = 0;
	int i;

	for (i = 0; i < CPUS; i++)
		sum += READ_ONCE(shared->turns[process][i]);
	return sum;
}

static unsigned long all_turns(void)
{
	unsigned long sum = 0;
	int i;

	for (i = 0; i < PROCESSES; i++)
		sum += turns_of(i);
	return sum;
}

/* Until each of the processes goes round */
static void settle(void)
{
	int i;

	for (i = 0; i < PROCESSES; i++)
		if (!wait_until(turns_of(i) > 20))
			errx(2, "process %d does not come round", i);
}

static pid_t hostiles[PROCESSES];

static void start_hostiles(const struct loop *loop, int cpus)
{
	int i;

	memset(shared->turns, 0, sizeof(shared->turns));
	for (i = 0; i < PROCESSES; i++) {
		hostiles[i] = fork();
		if (hostiles[i] < 0)
			err(2, "fork");
		if (!hostiles[i]) {
			if (write_file(GROUP "/cgroup.procs", "0"))
				errx(2, GROUP "/cgroup.procs");
			be(SCHED_OTHER, 0);
			hostile(loop, i, cpus);
		}
	}
}

static void stop_hostiles(void)
{
	int i;

	/* One that has ended, as must() makes it, cost nobody anything. */
	for (i = 0; i < PROCESSES; i++)
		if (waitpid(hostiles[i], NULL, WNOHANG))
			errx(2, "process %d did not live until the end", i);
	if (write_file(GROUP "/cgroup.kill", "1"))
		errx(2, GROUP "/cgroup.kill");
	for (i = 0; i < PROCESSES; i++)
		waitpid(hostiles[i], NULL, 0);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

/*
 * Neighbours
 */

#define FORKS		50
#define FORK_PERIOD	(4 * NSEC_PER_MSEC)
#define WAKES		400
#define WAKE_PERIOD	(NSEC_PER_MSEC / 2)

#define ATTEMPTS	3

/* What forks do at first is not counted. */
#define WARM_UP		5

static double timed_forks(bool ticket)
{
	uint64_t next = now_ns(), start, sum = 0;
	int i;

	for (i = 0; i < WARM_UP + FORKS; i++) {
		next += FORK_PERIOD;
		sleep_until(next);
		start = now_ns();
		if (ticket)
			must("prepare", !gate_prepare(BOTH));
		fork_and_wait();
		if (i >= WARM_UP)
			sum += now_ns() - start;
	}
	return sum / 1000.0 / FORKS;
}

static void fork_main(void)
{
	be(SCHED_FIFO, 50);
	shared->us[FORK] = timed_forks(false);
}

static void gated_main(void)
{
	attack = true;
	must("gate", gate_setup() >= 0);
	be(SCHED_FIFO, 50);
	shared->us[GATED] = timed_forks(true);
}

/* What the caller and its children have used of processors, us */
static double used(void)
{
	struct rusage self, children;

	getrusage(RUSAGE_SELF, &self);
	getrusage(RUSAGE_CHILDREN, &children);
	timeradd(&self.ru_utime, &self.ru_stime, &self.ru_utime);
	timeradd(&children.ru_utime, &children.ru_stime, &children.ru_utime);
	timeradd(&self.ru_utime, &children.ru_utime, &self.ru_utime);
	return self.ru_utime.tv_sec * 1e6 + self.ru_utime.tv_usec;
}

/* Its share of the processor depends on how many others want one, so that does not count. */
static void fair_main(void)
{
	double start;
	int i;

	be(SCHED_OTHER, 0);
	if (setpriority(PRIO_PROCESS, 0, -20))
		err(2, "setpriority");
	for (i = 0; i < WARM_UP; i++)
		fork_and_wait();
	start = used();
	for (i = 0; i < FORKS; i++)
		fork_and_wait();
	shared->us[FAIR] = (used() - start) / FORKS;
}

static int by_value(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return left < right ? -1 : left > right;
}

static void wake_main(void)
{
	static uint32_t late[WAKES];
	uint64_t next;
	int i;

	be(SCHED_FIFO, 60);
	next = now_ns();
	for (i = 0; i < WAKES; i++) {
		next += WAKE_PERIOD;
		sleep_until(next);
		late[i] = now_ns() - next;
	}
	qsort(late, WAKES, sizeof(late[0]), by_value);
	shared->us[WAKE] = late[WAKES / 2] / 1000.0;
	shared->us[LATEST] = late[WAKES - 1] / 1000.0;
}

static void (*const neighbours[CPUS])(void) = { fork_main, gated_main, fair_main, wake_main };

/* All of them, until they are done */
static void neighbours_run(void)
{
	pid_t pids[CPUS];
	int i, status;

	for (i = 0; i < CPUS; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			err(2, "fork");
		if (!pids[i]) {
			run_on(i);
			neighbours[i]();
			_exit(0);
		}
	}
	for (i = 0; i < CPUS; i++)
		if (waitpid(pids[i], &status, 0) != pids[i] || status)
			errx(2, "a neighbour died (%#x)", status);
}

/*
 * Scenes
 */

/* Interrupts that processors [from, CPUS) had from others */
static long interrupts_from(int from)
{
	static const char * const kinds[] = { "RES:", "CAL:", "TLB:" };
	static char text[65536];
	unsigned int kind;
	long sum = 0, n;
	char *at;
	int i;

	must("/proc/interrupts", read_file("/proc/interrupts", text, sizeof(text)) > 0);
	for (kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		at = strstr(text, kinds[kind]);
		must("/proc/interrupts", at);
		at += strlen(kinds[kind]);
		for (i = 0; i < CPUS; i++) {
			n = strtol(at, &at, 10);
			if (i >= from)
				sum += n;
		}
	}
	return sum;
}

static long number_in(const char *path, const char *name)
{
	char text[8192], *at;

	must(path, read_file(path, text, sizeof(text)) > 0);
	at = strstr(text, name);
	must(name, at);
	return atol(at + strlen(name));
}

/* Memory that the kernel has for itself, KiB */
static long kernel_memory(void)
{
	static const char * const kinds[] = {
		"\nSUnreclaim:", "\nPercpu:", "\nVmallocUsed:", "\nPageTables:"
	};
	unsigned int kind;
	long sum = 0;

	for (kind = 0; kind < ARRAY_SIZE(kinds); kind++)
		sum += number_in("/proc/meminfo", kinds[kind]);
	return sum;
}

/* The same of the hostile processes, as their memory cgroup knows it, KiB */
static long charged_memory(void)
{
	return number_in(GROUP "/memory.stat", "\nkernel ") / 1024;
}

/* Lines of forkgate in the log */
static int log_fd;

static int log_lines(void)
{
	char record[2048];
	ssize_t got;
	int n = 0;

	while ((got = read(log_fd, record, sizeof(record) - 1)) > 0 || errno == EPIPE) {
		if (got <= 0)
			continue;
		record[got] = '\0';
		n += !!strstr(record, "forkgate");
	}
	return n;
}

/* Of an attack: what it may be, over that of the control or more than that */
static const struct {
	const char *name;
	bool ratio;
	double limit;
} figures[NR_FIGURES] = {
	[FORK] = { "fork", true, 1.05 },
	[GATED] = { "gated", true, 1.05 },
	[FAIR] = { "fair", true, 1.05 },
	[WAKE] = { "wake", true, 1.05 },
	[LATEST] = { "latest", true, INFINITY },	/* one of 400: shown, and not judged */
	[INTERRUPTS] = { "irqs", false, 10 },	/* of processors that run no thread of it */
	[UNCHARGED] = { "uncharged", false, 2048 },	/* KiB */
	[LEFT] = { "left", false, 1024 },	/* KiB */
	[LINES] = { "lines", false, 20 },
};

/* What is measured in one */
struct scene {
	double figure[NR_FIGURES];
	double turns, confined_turns, bypasses, seconds;
};

static uint64_t bypasses(void)
{
	struct forkgate_health health;
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);

	must("HEALTH", !ioctl(fd, FORKGATE_IOC_HEALTH, &health));
	close(fd);
	return health.bypasses;
}

static void scene(const struct loop *loop, struct scene *s)
{
	uint64_t start;
	long before;

	log_lines();
	s->bypasses = bypasses();
	before = kernel_memory();
	start_hostiles(loop, CPUS);
	settle();
	start = now_ns();
	s->turns = all_turns();
	neighbours_run();
	s->turns = (all_turns() - s->turns) * 1e6 / (now_ns() - start);
	s->seconds = (now_ns() - start) / 1e9;
	memcpy(s->figure, shared->us, sizeof(shared->us));
	s->figure[UNCHARGED] = kernel_memory() - before - charged_memory();
	stop_hostiles();
	s->figure[LINES] = log_lines();

	/* Once more on the first two processors; the others have no thread of it. */
	start_hostiles(loop, CPUS / 2);
	settle();
	s->figure[INTERRUPTS] = interrupts_from(CPUS / 2);
	s->confined_turns = all_turns();
	sleep_until(now_ns() + 160 * NSEC_PER_MSEC);
	s->figure[INTERRUPTS] = interrupts_from(CPUS / 2) - s->figure[INTERRUPTS];
	s->confined_turns = all_turns() - s->confined_turns;
	stop_hostiles();
	membarrier(MEMBARRIER_CMD_GLOBAL);
	sleep_until(now_ns() + 20 * NSEC_PER_MSEC);
	s->figure[LEFT] = kernel_memory() - before;
	s->bypasses = bypasses() - s->bypasses;
}

static void show(const struct loop *loop, const char *kind, const struct scene *s)
{
	int i;

	printf("# %-9s %-7s", loop->name, kind);
	for (i = 0; i < NR_FIGURES; i++)
		printf(" %s %.1f", figures[i].name, s->figure[i]);
	printf(" turns %.0f confined %.0f bypasses %.0f s %.2f\n", s->turns, s->confined_turns,
	       s->bypasses, s->seconds);
	fflush(stdout);
}

static double over(int figure, double hostile, double control)
{
	return figures[figure].ratio ? hostile / control : hostile - control;
}

/*
 * What is too much once may be chance, but not what is so each time: the least
 * of the attacks counts, and the most of the controls.
 * Return: is the attack no worse?
 */
static bool row(const struct loop *loop)
{
	struct scene control, hostile, most, least;
	int attempt, i, bad = NR_FIGURES;
	double value;

	for (attempt = 0; attempt < ATTEMPTS && bad; attempt++) {
		attack = false;
		scene(loop, &control);
		show(loop, "control", &control);
		attack = true;
		scene(loop, &hostile);
		show(loop, "attack", &hostile);
		if (!attempt) {
			most = control;
			least = hostile;
		}
		bad = 0;
		for (i = 0; i < NR_FIGURES; i++) {
			most.figure[i] = fmax(most.figure[i], control.figure[i]);
			least.figure[i] = fmin(least.figure[i], hostile.figure[i]);
			bad += !(over(i, least.figure[i], most.figure[i]) <= figures[i].limit);
		}
	}
	printf("%s %-9s", bad ? "not ok" : "    ok", loop->name);
	for (i = 0; i < NR_FIGURES; i++) {
		value = over(i, least.figure[i], most.figure[i]);
		printf(figures[i].ratio ? " %s %.2f%s" : " %s %.0f%s", figures[i].name, value,
		       value > figures[i].limit ? "!" : "");
	}
	printf("\n");
	fflush(stdout);
	return !bad;
}

/* A processor that idles would give its time to the others. */
static void never_idle(void)
{
	int i;

	for (i = 0; i < CPUS; i++) {
		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run_on(i);
		be(SCHED_IDLE, 0);
		for (;;)
			barrier();
	}
}

/*
 * Processors take turns, which last until a timer of the machine's expires. Let
 * one do so all the time, the 8253's, whose interrupt the kernel does not use.
 */
static void short_turns(void)
{
#ifdef __x86_64__
	if (iopl(3))
		err(2, "iopl");
	outb(0x34, 0x43);	/* counter 0, both bytes, a rate */
	outb(12, 0x40);		/* 10 us */
	outb(0, 0x40);
	iopl(0);
#else
	errx(2, "no timer of this machine is known");
#endif
}

static bool chosen(const char *name, char **names)
{
	if (!*names)
		return true;
	for (; *names; names++)
		if (!strcmp(*names, name))
			return true;
	return false;
}

int main(int argc, char **argv)
{
	char limit[32];
	struct scene first;
	unsigned int i;
	int n = 0, bad = 0;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		err(2, "mmap");
	snprintf(limit, sizeof(limit), "%d", GROUP_LIMIT);
	if ((mkdir(GROUP, 0755) && errno != EEXIST) || write_file(GROUP "/memory.max", limit))
		errx(2, GROUP);
	log_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	lseek(log_fd, 0, SEEK_END);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	run_on(0);
	short_turns();
	never_idle();
	be(SCHED_FIFO, 70);
	/* What happens once, and what is not yet there at first */
	scene(&loops[0], &first);
	attack = true;
	scene(&loops[0], &first);
	for (i = 0; i < ARRAY_SIZE(loops); i++) {
		if (!chosen(loops[i].name, argv + 1))
			continue;
		n++;
		bad += !row(&loops[i]);
	}
	printf("%d passed, %d failed\n", n - bad, bad);
	return !n || bad;
}
