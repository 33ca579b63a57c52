// SPDX-License-Identifier: GPL-2.0-only
/*
 * Recipe of forkgate-guide(7): an event loop that starts a program, while another
 * thread is in a section, and does not stop. Without the section the program
 * starts at once. Must not sleep anywhere but in epoll_wait().
 */
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <forkgate.h>

#include "scene.h"

#define TICK	20	/* milliseconds */

/* guide: begin */
struct starter {
	int loop;	/* of epoll */
	int gate;	/* what it polls for us; at first -1 */
};

/* EINPROGRESS: to be called again when the loop has an event for us */
int start(struct starter *starter, char *const argv[], pid_t *pid)
{
	struct epoll_event event = { EPOLLIN, { .ptr = starter } };
	int err, fd;

	err = forkgate_tryprepare(FORKGATE_FILES, &fd);
	if (err == EAGAIN && starter->gate < 0) {
		if (epoll_ctl(starter->loop, EPOLL_CTL_ADD, fd, &event)) {
			err = errno;
			forkgate_release();
			return err;
		}
		starter->gate = fd;
	}
	if (err == EAGAIN)
		return EINPROGRESS;

	if (starter->gate >= 0)
		epoll_ctl(starter->loop, EPOLL_CTL_DEL, starter->gate, NULL);
	starter->gate = -1;
	return err ? err : posix_spawn(pid, argv[0], NULL, NULL, argv, environ);
}

/* guide: end */

static void *section(void *arg)
{
	static bool during;

	forkgate_enter(FORKGATE_FILES);
	sem_post(&half_way);
	during = wait_for(&forked, HOLD);
	forkgate_leave(FORKGATE_FILES);
	return &during;
}

static int new_timer(void)
{
	struct itimerspec often = { { 0, TICK * 1000000 }, { 0, TICK * 1000000 } };
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);

	need(fd >= 0 && !timerfd_settime(fd, 0, &often, NULL), "timer");
	return fd;
}

int main(void)
{
	struct starter starter = { epoll_create1(0), -1 };
	struct epoll_event event = { .events = EPOLLIN };
	char *const argv[] = { "/bin/true", NULL };
	int timer = new_timer();
	unsigned long long expired;
	int ticks = 0, news = 0;
	pthread_t thread;
	void *during;
	pid_t pid;
	int err;

	set_scene();
	need(!epoll_ctl(starter.loop, EPOLL_CTL_ADD, timer, &event), "epoll");
	need(!pthread_create(&thread, NULL, section, NULL) && wait_for(&half_way, LONG), "section");
	err = start(&starter, argv, &pid);
	while (err == EINPROGRESS) {
		need(epoll_wait(starter.loop, &event, 1, -1) == 1, "loop");
		if (event.data.ptr == &starter) {
			err = start(&starter, argv, &pid);
			news++;
		} else {
			need(read(timer, &expired, sizeof(expired)) == sizeof(expired), "tick");
			ticks++;
		}
	}
	sem_post(&forked);
	errno = err;
	need(!err && !outcome(pid), argv[0]);
	need(!pthread_join(thread, &during), "thread");
	printf("# started %s the section, after %d ticks and %d events of the gate\n",
	       *(bool *)during ? "during" : "after", ticks, news);
	if (*(bool *)during)
		return BROKEN;
	/* it went on, and was woken now and then, not all the time */
	return ticks > 10 && news < ticks ? HOLDS : TROUBLE;
}
